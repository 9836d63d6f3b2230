/* admin_json.c -- bodies of the administrator's requests, and JSON for the answers. */
#include <ctype.h>
#include <limits.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include "base/mem.h"
#include "fmt/jwt.h"
#include "fmt/text.h"
#include "server/admin_intern.h"

#define TXN_S_MAX   86400
#define ROW_MAX     0x7fffffff
#define TIME_S_MAX  253402300799 /* the last second of the year 9999 */
#define LIFE_S_MAX  (36500ll * 86400)
#define MS_FROM     100000000000 /* a number above it counts milliseconds */
#define TXID_DIGITS 16

static int append(const char *data, size_t size, void *out);
static enum rc take_bool(const json_t *o, const char *key, bool *ret, struct err *err);
static enum rc take_text(const json_t *o, const char *key, const char **ret, struct err *err);
static enum rc take_size(const json_t *o, const char *key, uint64_t max, uint64_t *ret,
                         struct err *err);
static enum rc take_class(const json_t *o, const char **ret, struct err *err);
static enum rc take_durability(const json_t *o, bool *ret_sync, struct err *err);
static enum rc take_timeout(const json_t *o, int64_t *ret_ms, struct err *err);
static enum rc check_keys(const char *keys, struct err *err);
static enum rc refuse_shared(const json_t *o, struct err *err);
static enum rc take_txid(const json_t *v, uint64_t *ret, struct err *err);
static enum rc take_time(const json_t *v, int64_t *ret_ms, struct err *err);

enum rc admin_json_read(const void *data, size_t size, json_t **ret, struct err *err)
{
    const char *text = data;
    json_error_t where;
    while (size > 0 && strchr(" \t\r\n", text[size - 1]) != NULL && text[size - 1] != '\0')
        size--;
    json_t *o = size == 0 ? json_object() : json_loadb(text, size, JSON_REJECT_DUPLICATES, &where);
    if (o == NULL && size == 0) return err_mem(err, "a body");
    if (o == NULL) return err_set(err, RC_INVALID, "the body is not JSON: %s", where.text);
    if (!json_is_object(o)) {
        json_decref(o);
        return err_set(err, RC_INVALID, "the body must be a JSON object");
    }
    *ret = o;
    return RC_OK;
}

enum rc admin_json_put(json_t *o, struct buf *out, struct err *err)
{
    if (o == NULL) return err_mem(err, "an answer");
    int failed = json_dump_callback(o, append, out, JSON_COMPACT | JSON_REAL_PRECISION(15));
    json_decref(o);
    return failed == 0 ? RC_OK : err_mem(err, "an answer");
}

enum rc admin_json_conf(const json_t *o, bool create, struct tenant_conf *conf, struct err *err)
{
    uint64_t row_max = conf->row_max;
    if (!create &&
        (json_object_get(o, "block_reads") == NULL || json_object_get(o, "block_writes") == NULL))
        return err_set(err, RC_INVALID, "block_reads and block_writes must be given");
    TRY(refuse_shared(o, err));
    conf->block_reads = conf->block_writes = conf->allow_attach = false;
    conf->block_reason = NULL;
    conf->txn_ms = 0;
    TRY(take_bool(o, "block_reads", &conf->block_reads, err));
    TRY(take_bool(o, "block_writes", &conf->block_writes, err));
    TRY(take_bool(o, "allow_attach", &conf->allow_attach, err));
    TRY(take_text(o, "block_reason", &conf->block_reason, err));
    if (conf->block_reason == NULL) conf->block_reason = "";
    TRY(take_timeout(o, &conf->txn_ms, err));
    TRY(take_text(o, "heartbeat_url", &conf->heartbeat_url, err));
    TRY(take_class(o, &conf->class, err));
    TRY(take_text(o, "jwt_key", &conf->jwt_key, err));
    if (json_object_get(o, "jwt_key") != NULL && conf->jwt_key != NULL)
        TRY(check_keys(conf->jwt_key, err));
    TRY(take_size(o, "max_db_size", INT64_MAX, &conf->size_max, err));
    TRY(take_size(o, "max_row_size", ROW_MAX, &row_max, err));
    conf->row_max = (uint32_t)row_max;
    TRY(take_durability(o, &conf->sync, err));
    return RC_OK;
}

json_t *admin_json_of_conf(const struct tenant_conf *conf)
{
    char size[32], row[32];
    snprintf(size, sizeof size, "%llu B", (unsigned long long)conf->size_max);
    snprintf(row, sizeof row, "%u B", conf->row_max);
    json_t *o = json_pack("{s:b,s:b,s:s,s:b,s:s?,s:s?,s:s}", "block_reads", conf->block_reads,
                          "block_writes", conf->block_writes, "block_reason", conf->block_reason,
                          "allow_attach", conf->allow_attach, "heartbeat_url", conf->heartbeat_url,
                          "jwt_key", conf->jwt_key, "class",
                          conf->class != NULL ? conf->class : TENANT_CLASS);
    int failed = o == NULL;
    failed = failed || json_object_set_new(o, "max_db_size",
                                           conf->size_max > 0 ? json_string(size) : json_null());
    failed = failed || json_object_set_new(o, "max_row_size",
                                           conf->row_max > 0 ? json_string(row) : json_null());
    failed = failed || json_object_set_new(o, "txn_timeout_s",
                                           conf->txn_ms == 0 ? json_null()
                                           : conf->txn_ms % 1000 == 0
                                               ? json_integer(conf->txn_ms / 1000)
                                               : json_real((double)conf->txn_ms / 1e3));
    failed = failed || json_object_set_new(o, "durability_mode",
                                           json_string(conf->sync ? "extra" : "strong"));
    if (!failed) return o;
    json_decref(o);
    return NULL;
}

enum rc admin_json_at(const json_t *o, struct tenant_at *ret, struct err *err)
{
    struct tenant_at at = {0};
    const json_t *txid = json_object_get(o, "txid"), *time = json_object_get(o, "timestamp");
    if (json_is_null(txid)) txid = NULL;
    if (json_is_null(time)) time = NULL;
    if (txid != NULL && time != NULL)
        return err_set(err, RC_INVALID, "either txid or timestamp, not both");
    if (txid != NULL) TRY(take_txid(txid, &at.txid, err));
    if (time != NULL) TRY(take_time(time, &at.time_ms, err));
    *ret = at;
    return RC_OK;
}

enum rc admin_time(const char *text, int64_t *ret_ms, struct err *err)
{
    char full[48];
    char *end;
    size_t size = strlen(text);
    double number = strtod(text, &end);
    if (size > 0 && isdigit((unsigned char)text[0]) && *end == '\0') {
        if (number < MS_FROM) number *= 1000;
        if (!(number > 0 && number <= TIME_S_MAX * 1000.0))
            return err_set(err, RC_INVALID, "timestamp '%.40s' is out of range", text);
        *ret_ms = (int64_t)number;
        return RC_OK;
    }
    if (time_get(text, ret_ms, err) == RC_OK) return RC_OK;
    /* Without a zone it is UTC, as libSQL has it; a blank may stand for the 'T'. */
    if (size < 19 || size + 2 > sizeof full) return err->rc;
    snprintf(full, sizeof full, "%sZ", text);
    if (full[10] == ' ') full[10] = 'T';
    struct err ignored;
    int64_t ms;
    if (time_get(full, &ms, &ignored) != RC_OK) return err->rc;
    *ret_ms = ms;
    return RC_OK;
}

enum rc admin_lifetime(const char *text, int64_t *ret_s, struct err *err)
{
    static const struct {
        char unit;
        int64_t s;
    } units[] = {{'s', 1}, {'m', 60}, {'h', 3600}, {'d', 86400}, {'w', 604800}, {'y', 31536000}};
    int64_t sum = 0;
    const char *p = text;
    if (strcmp(text, "never") == 0) {
        *ret_s = 0;
        return RC_OK;
    }
    while (*p != '\0') {
        int64_t n = 0, unit = 0;
        const char *digits = p;
        for (; isdigit((unsigned char)*p) && n < LIFE_S_MAX; p++)
            n = n * 10 + (*p - '0');
        for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
            if (p != digits && *p == units[i].unit) unit = units[i].s;
        if (unit == 0 || n > LIFE_S_MAX / unit) break;
        sum += n * unit;
        p++;
    }
    if (*p != '\0' || sum <= 0 || sum > LIFE_S_MAX)
        return err_set(
            err, RC_INVALID,
            "expiration '%.40s': expected never, or as 2w, 7d12h, 90m: at most 100 years", text);
    *ret_s = sum;
    return RC_OK;
}

static int append(const char *data, size_t size, void *out)
{
    struct err ignored;
    return buf_append(out, data, size, &ignored) == RC_OK ? 0 : -1;
}

/* ---- Members: what is not there stays as it was ---- */

static enum rc take_bool(const json_t *o, const char *key, bool *ret, struct err *err)
{
    const json_t *v = json_object_get(o, key);
    if (v == NULL || json_is_null(v)) return RC_OK;
    bool number = json_is_integer(v) && json_integer_value(v) >= 0 && json_integer_value(v) <= 1;
    if (!json_is_boolean(v) && !number)
        return err_set(err, RC_INVALID, "%s must be true or false", key);
    *ret = number ? json_integer_value(v) == 1 : json_is_true(v);
    return RC_OK;
}

static enum rc take_text(const json_t *o, const char *key, const char **ret, struct err *err)
{
    const json_t *v = json_object_get(o, key);
    if (v == NULL) return RC_OK;
    if (!json_is_string(v) && !json_is_null(v))
        return err_set(err, RC_INVALID, "%s must be a text", key);
    *ret = json_string_value(v);
    if (*ret != NULL && (*ret)[0] == '\0') *ret = NULL;
    return RC_OK;
}

static enum rc take_size(const json_t *o, const char *key, uint64_t max, uint64_t *ret,
                         struct err *err)
{
    const json_t *v = json_object_get(o, key);
    uint64_t size = 0;
    if (v == NULL) return RC_OK;
    if (json_is_string(v)) {
        if (size_get(json_string_value(v), &size, err) != RC_OK) return err_wrap(err, "%s", key);
    } else if (json_is_integer(v) && json_integer_value(v) >= 0) {
        size = (uint64_t)json_integer_value(v);
    } else if (!json_is_null(v)) {
        return err_set(err, RC_INVALID, "%s must be a size, as \"10MB\" or 10000000", key);
    }
    if (size > max)
        return err_set(err, RC_INVALID, "%s is above %llu", key, (unsigned long long)max);
    *ret = size;
    return RC_OK;
}

static enum rc take_class(const json_t *o, const char **ret, struct err *err)
{
    const char *name = NULL;
    if (json_object_get(o, "class") == NULL) return RC_OK;
    TRY(take_text(o, "class", &name, err));
    if (name != NULL) TRY(stats_check_class(name, err));
    *ret = name;
    return RC_OK;
}

/* How sure a commit is before it is answered: "extra" waits for the store. The others are the
 * server's setting, which is never less than "relaxed". */
static enum rc take_durability(const json_t *o, bool *ret_sync, struct err *err)
{
    static const char *const modes[] = {"strong", "relaxed", "off", "extra"};
    const char *mode = NULL;
    TRY(take_text(o, "durability_mode", &mode, err));
    if (mode != NULL) {
        size_t i = 0;
        while (i < 4 && strcasecmp(mode, modes[i]) != 0)
            i++;
        if (i == 4)
            return err_set(err, RC_INVALID,
                           "durability_mode '%.40s': expected extra, strong, relaxed or off", mode);
        *ret_sync = i == 3;
    }
    return RC_OK;
}

static enum rc take_timeout(const json_t *o, int64_t *ret_ms, struct err *err)
{
    const json_t *v = json_object_get(o, "txn_timeout_s");
    if (v == NULL || json_is_null(v)) return RC_OK;
    double s = json_is_number(v) ? json_number_value(v) : -1;
    if (!(s >= 0 && s <= TXN_S_MAX))
        return err_set(err, RC_INVALID, "txn_timeout_s must be a number of seconds up to %d",
                       TXN_S_MAX);
    *ret_ms = (int64_t)ceil(s * 1000);
    return RC_OK;
}

static enum rc check_keys(const char *text, struct err *err)
{
    struct jwt_keys *keys = NULL;
    enum rc rc = jwt_keys_parse(text, strlen(text), &keys, err);
    jwt_keys_free(keys);
    return rc == RC_OK ? rc : err_wrap(err, "jwt_key");
}

static enum rc refuse_shared(const json_t *o, struct err *err)
{
    const json_t *name = json_object_get(o, "shared_schema_name");
    if (json_is_true(json_object_get(o, "shared_schema")) || (name != NULL && !json_is_null(name)))
        return err_set(err, RC_UNSUPPORTED, "shared schemas are not supported");
    return RC_OK;
}

static enum rc take_txid(const json_t *v, uint64_t *ret, struct err *err)
{
    struct err ignored;
    uint64_t txid = 0;
    const char *text = json_string_value(v);
    if (json_is_integer(v) && json_integer_value(v) > 0) {
        txid = (uint64_t)json_integer_value(v);
    } else if (text != NULL && strlen(text) == TXID_DIGITS) {
        if (txid_get(text, &txid, &ignored) != RC_OK) txid = 0;
    } else if (text != NULL && text[strspn(text, "0123456789")] == '\0' &&
               strlen(text) < TXID_DIGITS) {
        txid = strtoull(text, NULL, 10);
    }
    if (txid == 0)
        return err_set(err, RC_INVALID,
                       "txid must be a number, or a text of 16 hexadecimal digits");
    *ret = txid;
    return RC_OK;
}

static enum rc take_time(const json_t *v, int64_t *ret_ms, struct err *err)
{
    char text[64];
    if (json_is_string(v)) return admin_time(json_string_value(v), ret_ms, err);
    if (!json_is_number(v))
        return err_set(err, RC_INVALID,
                       "timestamp must be as \"2026-01-02T03:04:05\", or seconds since 1970");
    snprintf(text, sizeof text, "%.3f", json_number_value(v));
    return admin_time(text, ret_ms, err);
}
