/*
 * jet.h -- connections to a NATS server with JetStream, for the nats driver: settings, credentials,
 * and what libnats' failures mean.
 *
 * A connection is made when it is needed and made anew when it is found closed; libnats' own
 * reconnecting is off, since store/retry decides when to try again, and a buffer that publishes
 * things later would do so after we have given them up.
 *
 * Threads: a struct jet may be used by many; a link is shared, too (libnats locks inside).
 */
#ifndef STORE_JET_H
#define STORE_JET_H
#include "store/driver.h"
#include "store/retry.h"
#include <nats/nats.h>

struct jet;
struct jet_link {
    natsConnection *nc;
    jsCtx *js;
    bool direct;     /* the stream gives messages directly */
    int payload_max; /* bytes of a message */
    unsigned refs;   /* [jet lock] */
};

/* Server, bucket and credentials from the URL and the settings. Fails: RC_INVALID, naming the
 * setting; RC_NO_MEM; by errno for files of certificates and keys. */
MUST_CHECK enum rc jet_open(struct store_settings *set, struct jet **ret_jet, struct err *err);
void jet_close(struct jet *j); /* NULL is fine; no links are held */

const char *jet_server(const struct jet *j); /* "nats://host:port" */
const char *jet_bucket(const struct jet *j);
const char *jet_stream(const struct jet *j); /* "OBJ_<bucket>" */

/* A link that was up a moment ago. Fails: RC_AGAIN, RC_DENIED; RC_INVALID the bucket is missing. */
MUST_CHECK enum rc jet_link_get(struct jet *j, const struct call *c, struct jet_link **ret_link,
                                struct err *err);
void jet_link_put(struct jet *j, struct jet_link *link); /* NULL is fine */

/* What a request may wait: the setting `timeout`, or what is left of the call if that is less. */
int64_t jet_wait_ms(const struct jet *j, const struct call *c);
/* A code and a text for a failure of libnats or of JetStream. */
enum rc jet_err(struct jet *j, struct err *err, natsStatus status, jsErrCode code, const char *fmt,
                ...) FMT(5, 6);
/* The next message of a synchronous subscription. Fails: RC_AGAIN none came in time; RC_CANCELED.
 */
MUST_CHECK enum rc jet_next(struct jet *j, const struct call *c, natsSubscription *sub,
                            natsMsg **ret_msg, struct err *err);
#endif
