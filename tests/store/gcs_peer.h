/*
 * gcs_peer.h -- as much of Google Cloud Storage's JSON API as the driver uses, in memory, on top of
 * the scripted server. It is strict: a request that the real service would refuse is a 400 whose
 * message says why. Threads: any.
 */
#ifndef TESTS_STORE_GCS_PEER_H
#define TESTS_STORE_GCS_PEER_H
#include "store/peer.h"

#define GCS_PEER_MISSING "no-such-bucket" /* all others exist */

struct gcs_peer;
struct gcs_peer *gcs_peer_start(void);
void gcs_peer_stop(struct gcs_peer *g);
struct peer *gcs_peer_http(struct gcs_peer *g); /* for scripted answers and the record */
const char *gcs_peer_url(struct gcs_peer *g);

/* Only this token is good from now on; NULL: none is asked for. */
void gcs_peer_token(struct gcs_peer *g, const char *token);
/* Of the nth chunk of sessions from now on, keep `keep` bytes, then do what `fault` says; with
 * PEER_FINE: say so in a 308. status: answer that instead (503). */
void gcs_peer_break(struct gcs_peer *g, unsigned nth, uint64_t keep, enum peer_fault fault,
                    int status);
/* The nth request of this kind ("POST", "PUT", "GET", "DELETE") takes effect, its answer is lost.
 */
void gcs_peer_lose(struct gcs_peer *g, const char *method, unsigned nth);
void gcs_peer_damage(struct gcs_peer *g); /* flip a byte of each object that a session makes */
void gcs_peer_lose_sessions(struct gcs_peer *g); /* all that are open now answer 410 */
void gcs_peer_page(struct gcs_peer *g,
                   unsigned count); /* objects of a page of a listing, at most */

unsigned gcs_peer_sessions(struct gcs_peer *g); /* open ones */
unsigned gcs_peer_queries(struct gcs_peer *g);  /* status queries of sessions so far */
/* Remove the objects whose name starts with prefix; returns how many there were. */
unsigned gcs_peer_clear(struct gcs_peer *g, const char *prefix);
/* The timestamp in an object's metadata ("" when none); false: no such object. */
bool gcs_peer_stamp(struct gcs_peer *g, const char *name, char out[64]);
#endif
