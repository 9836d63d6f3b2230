/*
 * probe_race.c -- does a conditional put arbitrate between writers? First one request after
 * another, then many at once.
 *
 * A race is one round: every racer puts a body of its own under the same condition, and all wait at
 * a gate so that they start together. The rules for what they were told:
 *
 *   one winner, and its body is there       fair
 *   no winner, and the body of a racer      unclear: the answer of the winner was lost, so the
 *     is there                              driver's second try met the racer's own object
 *   no winner, nothing changed              unclear if a racer does not know how it ended, else
 *                                           broken: the condition held and all were refused
 *   anything else                           broken
 */
#include "base/os.h"
#include "store/probe_intern.h"
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define GATE_MS 1000 /* who comes later (threads are short) races alone */

enum owner { OWNER_NONE = -1, OWNER_START = -2, OWNER_STRANGER = -3 }; /* else: a racer */

struct round {
    char key[PROBE_KEY_SIZE], etag[STORE_ETAG_MAX];
    unsigned won, refused, unknown, failed, done;
    unsigned winner;   /* one of them */
    uint32_t possible; /* bits: racers that won or do not know */
    int owners[2];     /* whose body was found, through two handles */
    bool trouble;      /* a request failed: err */
    struct err err;
};

struct race {
    struct probe *p;
    enum probe_id id;
    bool replace; /* by etag; else create */
    struct round rounds[PROBE_ROUNDS];
    unsigned now; /* index of the round */
    struct store_put_opts put;
    pthread_mutex_t lock; /* the counts of a round, and the gate */
    pthread_cond_t gate;
    unsigned waiting;
    uint64_t retried; /* requests that failed, and were mostly tried again by the driver */
};

struct tally {
    unsigned rounds, fair, unclear, broken, winners_max, refused, unknown, failed;
    const struct round *first_broken;
};

/* A list of requests one after another: the first that goes wrong ends it. */
struct script {
    struct probe *p;
    enum probe_id id;
    bool over;
};

static void check_create(struct probe *p);
static void check_replace(struct probe *p);
static void replace_missing(struct script *s, const char *etag);
static void put_step(struct script *s, const char *key, const char *text,
                     const struct store_put_opts *opts, enum rc want, struct store_obj *ret_obj,
                     const char *what);
static void text_step(struct script *s, unsigned handle, const char *key, const char *text,
                      struct store_obj *ret_obj, const char *what);
static void end_script(struct script *s, const char *what);
static void run_race(struct probe *p, enum probe_id id, bool replace);
static uint64_t failed_puts(const struct probe *p);
static enum rc prepare_round(void *ctx, uint64_t i, struct err *err);
static enum rc racer(void *ctx, uint64_t i, struct err *err);
static void wait_at_gate(struct race *r);
static enum rc look_at_round(void *ctx, uint64_t i, struct err *err);
static int owner_of(const struct race *r, unsigned round, const char *text);
static void racer_text(const struct race *r, unsigned round, unsigned i, char out[PROBE_TEXT_MAX]);
static void count_round(const struct race *r, const struct round *rd, struct tally *t);
static void report_race(struct race *r);
static void report_broken(struct race *r, const struct tally *t);

#define NO_ARBITER                                                                                 \
    "This store does not arbitrate between writers: two nodes could both believe that they won. "  \
    "Do not use it for high availability; ask its maker for a version that does."

void probe__races(struct probe *p)
{
    if (!store_can(probe__store(p, 0), STORE_CAP_CREATE)) {
        probe__set(p, PROBE_CREATE_RULES, PROBE_NOT_OFFERED, "", "no conditional create");
        probe__set(p, PROBE_CREATE_RACE, PROBE_NOT_OFFERED, "", "no conditional create");
    } else {
        check_create(p);
        if (probe__begin(p, PROBE_CREATE_RACE)) run_race(p, PROBE_CREATE_RACE, false);
    }
    if (!store_can(probe__store(p, 0), STORE_CAP_CAS)) {
        probe__set(p, PROBE_REPLACE_RULES, PROBE_NOT_OFFERED, "", "no conditional replace");
        probe__set(p, PROBE_REPLACE_RACE, PROBE_NOT_OFFERED, "", "no conditional replace");
    } else {
        check_replace(p);
        if (probe__begin(p, PROBE_REPLACE_RACE)) run_race(p, PROBE_REPLACE_RACE, true);
    }
}

static void check_create(struct probe *p)
{
    static const struct store_put_opts create = {.if_absent = true};
    struct script s = {.p = p, .id = PROBE_CREATE_RULES};
    struct err err = {0};
    char key[PROBE_KEY_SIZE];
    if (!probe__begin(p, PROBE_CREATE_RULES)) return;
    probe__key(p, key, "rules-create");
    put_step(&s, key, "one", &create, RC_OK, NULL, "create");
    put_step(&s, key, "two", &create, RC_CONFLICT, NULL, "create what exists");
    text_step(&s, 1, key, "one", NULL, "create what exists");
    if (!s.over && store_del(probe__store(p, 0), &p->call, (const char *[]){key}, 1, &err)) {
        probe__fail(p, s.id, &err, "delete");
        s.over = true;
    }
    put_step(&s, key, "three", &create, RC_OK, NULL, "create after a delete");
    text_step(&s, 2, key, "three", NULL, "create after a delete");
    end_script(&s, "a second create is refused, one after a delete is not");
}

static void check_replace(struct probe *p)
{
    struct script s = {.p = p, .id = PROBE_REPLACE_RULES};
    struct store_obj first = {0}, second = {0}, seen = {0};
    char key[PROBE_KEY_SIZE];
    if (!probe__begin(p, PROBE_REPLACE_RULES)) return;
    probe__key(p, key, "rules-replace");
    put_step(&s, key, "one", NULL, RC_OK, &first, "put");
    if (!s.over && first.etag[0] == '\0') {
        probe__set(p, s.id, PROBE_FAILED, NO_ARBITER, "a put was not answered with an etag");
        s.over = true;
    }
    const struct store_put_opts by_first = {.if_etag = first.etag};
    put_step(&s, key, "two", &by_first, RC_OK, &second, "replace by the current etag");
    put_step(&s, key, "three", &by_first, RC_CONFLICT, NULL, "replace by an old etag");
    text_step(&s, 1, key, "two", &seen, "replace by an old etag");
    const struct store_put_opts by_seen = {.if_etag = seen.etag};
    put_step(&s, key, "four", &by_seen, RC_OK, NULL, "replace by the etag of a get");
    text_step(&s, 2, key, "four", NULL, "replace by the etag of a get");
    replace_missing(&s, seen.etag);
    end_script(&s, "the current etag replaces, an old one or a missing key is refused");
}

/* Refused in either way is safe; only which way tells a caller more. */
static void replace_missing(struct script *s, const char *etag)
{
    struct probe *p = s->p;
    struct err err = {0};
    char key[PROBE_KEY_SIZE], text[PROBE_TEXT_MAX];
    const struct store_put_opts by_etag = {.if_etag = etag};
    if (s->over) return;
    probe__key(p, key, "rules-missing");
    enum rc rc = probe__put(p, probe__store(p, 0), key, "ghost", &by_etag, NULL, &err);
    if (rc != RC_CONFLICT && rc != RC_OK) {
        put_step(s, key, "ghost", &by_etag, RC_NOT_FOUND, NULL, "replace a missing key");
        if (s->over) return;
    }
    bool made = probe__get(p, probe__store(p, 1), key, text, NULL, &err) == RC_OK;
    s->over = rc == RC_OK || rc == RC_CONFLICT || made;
    if (rc == RC_OK || made)
        probe__set(p, s->id, PROBE_FAILED, NO_ARBITER,
                   "replacing a missing key by its etag made an object");
    else if (rc == RC_CONFLICT)
        probe__set(p, s->id, PROBE_WARNING, "",
                   "as it should be, but for a missing key it says that another version is there");
}

static void put_step(struct script *s, const char *key, const char *text,
                     const struct store_put_opts *opts, enum rc want, struct store_obj *ret_obj,
                     const char *what)
{
    struct err err = {0};
    if (s->over) return;
    enum rc rc = probe__put(s->p, probe__store(s->p, 0), key, text, opts, ret_obj, &err);
    if (rc == want) return;
    s->over = true;
    if (rc == RC_OK)
        probe__set(s->p, s->id, PROBE_FAILED, NO_ARBITER, "%s: was done, must be refused", what);
    else if (rc == RC_CONFLICT || rc == RC_NOT_FOUND)
        probe__set(s->p, s->id, PROBE_FAILED, NO_ARBITER, "%s: was refused: %s", what, err.text);
    else
        probe__fail(s->p, s->id, &err, what);
}

static void text_step(struct script *s, unsigned handle, const char *key, const char *text,
                      struct store_obj *ret_obj, const char *what)
{
    struct err err = {0};
    char got[PROBE_TEXT_MAX];
    if (s->over) return;
    enum rc rc = probe__get(s->p, probe__store(s->p, handle), key, got, ret_obj, &err);
    if (rc == RC_OK && strcmp(got, text) == 0) return;
    s->over = true;
    if (rc == RC_OK)
        probe__set(s->p, s->id, PROBE_FAILED, NO_ARBITER, "%s: the wrong body is there then", what);
    else
        probe__fail(s->p, s->id, &err, what);
}

static void end_script(struct script *s, const char *what)
{
    if (!s->over) probe__set(s->p, s->id, PROBE_OK, "", "%s", what);
}

static void run_race(struct probe *p, enum probe_id id, bool replace)
{
    struct race r = {.p = p, .id = id, .replace = replace, .lock = PTHREAD_MUTEX_INITIALIZER};
    struct err ignored;
    bool begun = true;
    uint64_t failed_before = failed_puts(p);
    thr_cond_init(&r.gate);
    for (unsigned i = 0; i < PROBE_ROUNDS; i++)
        probe__key(p, r.rounds[i].key, "%s-round-%u", probe_name(id), i);
    /* What the functions of the threads return is always RC_OK: failures are kept in the rounds. */
    if (replace && thr_each(PROBE_ROUNDS, PROBE_ROUNDS, prepare_round, &r, &ignored)) return;
    for (r.now = 0; r.now < PROBE_ROUNDS && begun; r.now++) {
        begun = call_check(&p->call, &ignored) == RC_OK && !r.rounds[r.now].trouble;
        if (!begun) break;
        r.waiting = 0;
        r.put = (struct store_put_opts){.if_absent = !replace,
                                        .if_etag = replace ? r.rounds[r.now].etag : NULL};
        if (thr_each(PROBE_RACERS, PROBE_RACERS, racer, &r, &ignored)) break;
    }
    if (thr_each(PROBE_ROUNDS, PROBE_ROUNDS, look_at_round, &r, &ignored)) err_clear(&ignored);
    r.retried = failed_puts(p) - failed_before;
    report_race(&r);
    pthread_cond_destroy(&r.gate);
    pthread_mutex_destroy(&r.lock);
}

static uint64_t failed_puts(const struct probe *p)
{
    struct store_stats stats;
    uint64_t sum = 0;
    for (unsigned i = 0; i < p->store_count; i++) {
        store_stats(p->stores[i], &stats);
        sum += stats.failed[STORE_OP_PUT];
    }
    return sum;
}

/* What is to be replaced. */
static enum rc prepare_round(void *ctx, uint64_t i, struct err *err)
{
    struct race *r = ctx;
    struct round *rd = &r->rounds[i];
    struct store_obj obj;
    (void)err;
    rd->trouble = probe__put(r->p, probe__store(r->p, i), rd->key, "start", NULL, &obj, &rd->err);
    if (!rd->trouble) memcpy(rd->etag, obj.etag, sizeof rd->etag);
    return RC_OK;
}

static enum rc racer(void *ctx, uint64_t i, struct err *err)
{
    struct race *r = ctx;
    struct round *rd = &r->rounds[r->now];
    struct err own = {0};
    char text[PROBE_TEXT_MAX];
    (void)err;
    racer_text(r, r->now, (unsigned)i, text);
    wait_at_gate(r);
    enum rc rc = probe__put(r->p, probe__store(r->p, i), rd->key, text, &r->put, NULL, &own);
    /* These may have taken effect (see store.h); nobody knows. */
    bool unknown = rc == RC_AGAIN || rc == RC_BUSY || rc == RC_IO || rc == RC_CANCELED;
    thr_lock(&r->lock);
    rd->done++;
    if (rc == RC_OK) rd->winner = (unsigned)i;
    rd->won += rc == RC_OK;
    rd->refused += rc == RC_CONFLICT;
    rd->unknown += unknown;
    rd->failed += rc != RC_OK && rc != RC_CONFLICT && !unknown;
    if (rc == RC_OK || unknown) rd->possible |= UINT32_C(1) << i;
    if (rc != RC_OK && rc != RC_CONFLICT) {
        rd->trouble = true;
        rd->err = own;
    }
    thr_unlock(&r->lock);
    return RC_OK;
}

static void wait_at_gate(struct race *r)
{
    int64_t until = os_mono_ms() + GATE_MS;
    thr_lock(&r->lock);
    if (++r->waiting == PROBE_RACERS) pthread_cond_broadcast(&r->gate);
    while (r->waiting < PROBE_RACERS)
        if (!thr_wait(&r->gate, &r->lock, until)) break;
    thr_unlock(&r->lock);
}

static enum rc look_at_round(void *ctx, uint64_t i, struct err *err)
{
    struct race *r = ctx;
    struct round *rd = &r->rounds[i];
    struct err own = {0};
    char text[PROBE_TEXT_MAX];
    (void)err;
    for (unsigned look = 0; look < 2 && rd->done > 0; look++) {
        enum rc rc = probe__get(r->p, probe__store(r->p, i + look), rd->key, text, NULL, &own);
        rd->owners[look] = rc == RC_NOT_FOUND ? OWNER_NONE : owner_of(r, (unsigned)i, text);
        if (rc == RC_OK || rc == RC_NOT_FOUND) continue;
        rd->trouble = true;
        rd->err = own;
        rd->done = 0; /* cannot be judged */
    }
    return RC_OK;
}

static int owner_of(const struct race *r, unsigned round, const char *text)
{
    char wanted[PROBE_TEXT_MAX];
    if (r->replace && strcmp(text, "start") == 0) return OWNER_START;
    for (unsigned i = 0; i < PROBE_RACERS; i++) {
        racer_text(r, round, i, wanted);
        if (strcmp(text, wanted) == 0) return (int)i;
    }
    return OWNER_STRANGER;
}

/* Of different lengths, so that a mixture of two would show. */
static void racer_text(const struct race *r, unsigned round, unsigned i, char out[PROBE_TEXT_MAX])
{
    snprintf(out, PROBE_TEXT_MAX, "round %u, racer %u of %016" PRIx64 "%.*s", round, i, r->p->seed,
             (int)i, "................................");
}

static void count_round(const struct race *r, const struct round *rd, struct tally *t)
{
    int owner = rd->owners[0];
    bool untouched = owner == (r->replace ? OWNER_START : OWNER_NONE);
    bool same = owner == rd->owners[1];
    if (rd->done == 0) return;
    t->rounds++;
    t->refused += rd->refused;
    t->unknown += rd->unknown;
    t->failed += rd->failed;
    if (rd->won > t->winners_max) t->winners_max = rd->won;
    bool fair = same && rd->won == 1 && owner == (int)rd->winner;
    bool unclear = same && rd->won == 0 && (owner >= 0 || (untouched && rd->refused < rd->done));
    t->fair += fair;
    t->unclear += !fair && unclear;
    t->broken += !fair && !unclear;
    if (!fair && !unclear && (t->first_broken == NULL || rd->won > t->first_broken->won))
        t->first_broken = rd;
}

static void report_race(struct race *r)
{
    struct tally t = {0};
    struct probe *p = r->p;
    const struct err *trouble = NULL;
    for (unsigned i = 0; i < PROBE_ROUNDS; i++) {
        count_round(r, &r->rounds[i], &t);
        if (r->rounds[i].trouble) trouble = &r->rounds[i].err;
    }
    probe__figure(p, r->id, "rounds", t.rounds);
    probe__figure(p, r->id, "rounds_fair", t.fair);
    probe__figure(p, r->id, "rounds_unclear", t.unclear);
    probe__figure(p, r->id, "rounds_broken", t.broken);
    probe__figure(p, r->id, "winners_max", t.winners_max);
    probe__figure(p, r->id, "refused", t.refused);
    probe__figure(p, r->id, "unknown", t.unknown);
    probe__figure(p, r->id, "requests_failed", (int64_t)r->retried);
    if (t.broken > 0) {
        report_broken(r, &t);
    } else if (t.failed > 0 || (t.fair == 0 && trouble != NULL)) {
        probe__fail(p, r->id, trouble, "a racer");
    } else if (t.rounds < PROBE_ROUNDS) {
        probe__set(p, r->id, PROBE_SKIPPED, "Give it more time with -duration.",
                   "the time was over after %u of %u rounds", t.rounds, PROBE_ROUNDS);
    } else if (t.fair == 0) {
        probe__set(p, r->id, PROBE_FAILED, NO_ARBITER, "nobody was told to have won, in any round");
    } else {
        bool lossy = t.unknown > 0 || t.unclear > 0;
        char more[96] = "";
        if (lossy)
            snprintf(more, sizeof more, "; %u writers did not learn how they fared", t.unknown);
        else if (r->retried > 0)
            snprintf(more, sizeof more, "; %" PRIu64 " requests were answered with errors",
                     r->retried);
        probe__set(p, r->id, lossy ? PROBE_WARNING : PROBE_OK,
                   lossy ? "Safe, but answers get lost when many write; see to the network, or to "
                           "errors that the store should not answer with."
                         : "",
                   "%u writers of one key, %u rounds: %u with exactly one winner%s", PROBE_RACERS,
                   t.rounds, t.fair, more);
    }
}

static void report_broken(struct race *r, const struct tally *t)
{
    const struct round *rd = t->first_broken;
    const char *verb = r->replace ? "replaced" : "created";
    if (rd->won > 1)
        probe__set(
            r->p, r->id, PROBE_FAILED, NO_ARBITER,
            "%u of %u writers were told that they alone had %s the same key; broken in %u of "
            "%u rounds",
            rd->won, rd->done, verb, t->broken, t->rounds);
    else if (rd->won == 1)
        probe__set(
            r->p, r->id, PROBE_FAILED, NO_ARBITER,
            "the body of the only winner was not there in the end; broken in %u of %u rounds",
            t->broken, t->rounds);
    else
        probe__set(r->p, r->id, PROBE_FAILED, NO_ARBITER,
                   "no writer %s the key, and what is there then is wrong; broken in %u of %u "
                   "rounds",
                   verb, t->broken, t->rounds);
}
