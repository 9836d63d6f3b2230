/* session.c -- see session.h. */
#include "server/session.h"
#include <string.h>
#include "base/mem.h"

struct attached {
    const struct tenants_ops *ops;
    struct tenants *tenants;
    struct tenant *list[SESSION_ATTACHED_MAX];
    size_t count;
};

static size_t place_of(const struct stored *s, int32_t id);

enum rc stored_set(struct stored *s, int32_t id, const char *text, size_t size, struct err *err)
{
    size_t at = place_of(s, id);
    bool replace = at < s->count && s->list[at].id == id;
    size_t bytes = s->bytes + size - (replace ? s->list[at].size : 0);
    if (bytes > SESSION_STORED_BYTES_MAX || (!replace && s->count >= SESSION_STORED_MAX))
        return err_set(err, RC_TOO_BIG, "more stored SQL than %d texts or %d bytes",
                       SESSION_STORED_MAX, SESSION_STORED_BYTES_MAX);
    if (!replace && s->count == s->cap) {
        uint32_t cap = s->cap > 0 ? 2 * s->cap : 8;
        struct stored_sql *list = mem_realloc(s->list, cap * sizeof *list);
        if (list == NULL) return err_mem(err, "stored SQL");
        s->list = list;
        s->cap = cap;
    }
    char *copy = mem_alloc(size + 1);
    if (copy == NULL) return err_mem(err, "stored SQL");
    memcpy(copy, text, size);
    copy[size] = '\0';
    if (replace)
        mem_free(s->list[at].text);
    else
        memmove(&s->list[at + 1], &s->list[at], (s->count++ - at) * sizeof s->list[0]);
    s->list[at] = (struct stored_sql){.id = id, .size = size, .text = copy};
    s->bytes = (uint32_t)bytes;
    return RC_OK;
}

void stored_drop(struct stored *s, int32_t id)
{
    size_t at = place_of(s, id);
    if (at == s->count || s->list[at].id != id) return;
    s->bytes -= (uint32_t)s->list[at].size;
    mem_free(s->list[at].text);
    memmove(&s->list[at], &s->list[at + 1], (--s->count - at) * sizeof s->list[0]);
}

const struct stored_sql *stored_find(const struct stored *s, int32_t id)
{
    size_t at = place_of(s, id);
    return at < s->count && s->list[at].id == id ? &s->list[at] : NULL;
}

void stored_fini(struct stored *s)
{
    for (size_t i = 0; i < s->count; i++)
        mem_free(s->list[i].text);
    mem_free(s->list);
    *s = (struct stored){0};
}

void session_init(struct session *s, struct tenant *tenant)
{
    *s = (struct session){.tenant = tenant, .stream = {.engine = tenant->engine}};
    s->stored = &s->own;
}

void session_grant(struct session *s, struct grant *grant)
{
    struct grant *old = s->grant;
    s->grant = grant_ref(grant);
    s->stream.policy = grant_policy(grant);
    /* Before the old one goes. */
    if (s->stream.conn != NULL) sql_conn_policy(s->stream.conn, s->stream.policy);
    grant_unref(old);
    s->stream.all_read = grant_for(grant, s->tenant->name) < GRANT_WRITE;
}

enum rc session_attach(struct session *s, const struct tenants_ops *ops, struct tenants *tenants,
                       struct tenant *other, struct err *err)
{
    if (s->attached == NULL) s->attached = mem_calloc(1, sizeof *s->attached);
    struct attached *a = s->attached;
    if (a == NULL) return err_mem(err, "an attached database");
    if (a->count == SESSION_ATTACHED_MAX)
        return err_set(err, RC_TOO_BIG, "more than %d attached databases", SESSION_ATTACHED_MAX);
    a->ops = ops;
    a->tenants = tenants;
    a->list[a->count++] = other;
    return RC_OK;
}

void session_fini(struct session *s)
{
    sql_stream_end(&s->stream);
    for (size_t i = 0; s->attached != NULL && i < s->attached->count; i++)
        s->attached->ops->release(s->attached->tenants, s->attached->list[i]);
    mem_free(s->attached);
    s->attached = NULL;
    stored_fini(&s->own);
    grant_unref(s->grant);
    s->grant = NULL;
}

/* Of the first one whose id is not below. */
static size_t place_of(const struct stored *s, int32_t id)
{
    size_t low = 0, high = s->count;
    while (low < high) {
        size_t middle = (low + high) / 2;
        if (s->list[middle].id < id)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}
