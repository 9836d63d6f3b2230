/* cmd_token.c -- `sluice token`: keys, and the tokens that clients of a server show; fmt/jwt.h. */
#include "cli/cli.h"
#include "base/mem.h"
#include "fmt/jwt.h"
#include <ctype.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define NS_S          INT64_C(1000000000)
#define DAY_S         INT64_C(86400)
#define DAYS_MAX      36500
#define STDIN_MAX     (JWT_TEXT_MAX + 1024) /* and some blanks around it */
#define TIME_MAX_S    253402300799          /* the last second of the year 9999 */
#define NAMESPACE_MAX 255

struct verb {
    const char *name;
    const char *const *options; /* that it takes; ends with NULL */
    size_t args_max;            /* besides the verb */
    enum rc (*run)(struct cli *c, struct err *err);
};

static enum rc run_token(struct cli *c, struct err *err);
static enum rc check_options(struct cli *c, const struct verb *v, struct err *err);
static enum rc run_key(struct cli *c, struct err *err);
static enum rc write_pair(const char *path, const struct buf *private, const struct buf *public,
                          struct err *err);
static enum rc write_new(const char *path, unsigned mode, const struct buf *text, struct err *err);
static enum rc run_new(struct cli *c, struct err *err);
static enum rc build_claims(struct cli *c, json_t *claims, struct err *err);
static enum rc add_namespaces(struct cli *c, json_t *claims, bool add_access, struct err *err);
static enum rc get_extra(struct cli *c, json_t **ret, struct err *err);
static enum rc get_expires(const char *text, int64_t *ret_s, struct err *err);
static enum rc run_check(struct cli *c, struct err *err);
static enum rc read_key(struct cli *c, struct buf *ret, struct err *err);
static enum rc read_stdin(struct buf *ret, struct err *err);
static enum rc print_claims(json_t *claims, struct err *err);
static enum rc add_access_rows(struct table *t, const json_t *claims, struct err *err);
static enum rc json_row(struct table *t, const char *name, const json_t *value, struct err *err);
static enum rc time_row(struct table *t, const char *name, const json_t *at, struct err *err);
static void wipe_fini(struct buf *b);
static void json_freep(json_t **json);

static const char *const usage[] = {
    "key [-alg ALG] [-o FILE]",
    "new -key FILE [-namespace NAMES] [-access ro|rw] [-expires DURATION] [-claims JSON]",
    "check -key FILE [-json] [TOKEN]", NULL};
static const struct opt options[] = {
    {.name = "alg",
     .kind = OPT_STR,
     .arg = "ALG",
     .def = "eddsa",
     .help =
         "key: the kind of key: eddsa (Ed25519, the one that libSQL servers know), es256 (ECDSA "
         "on the curve P-256) or hs256 (one secret that both signs and checks)."},
    {.name = "o",
     .kind = OPT_STR,
     .arg = "FILE",
     .help = "key: write the private key to FILE, which only its owner may read, and the public "
             "key to FILE.pub. Neither may exist. With hs256 there is only FILE."},
    {.name = "key",
     .kind = OPT_STR,
     .arg = "FILE",
     .help =
         "new: the file with the private key. check: the file with the public keys, in any form "
         "that the server takes."},
    {.name = "namespace",
     .kind = OPT_STR,
     .arg = "NAMES",
     .example = "shop,blog",
     .help = "new: the namespaces that the token opens, separated by commas. Without it, all."},
    {.name = "access",
     .kind = OPT_STR,
     .arg = "ro|rw",
     .def = "rw",
     .help = "new: what the token allows: ro only reads, rw reads and writes."},
    {.name = "expires",
     .kind = OPT_STR,
     .arg = "DURATION",
     .def = "30d",
     .example = "12h",
     .help = "new: how long the token is good for, in days (30d) or as other durations (12h, "
             "1h30m), or never to leave the end out. A token cannot be taken back; only another "
             "key ends it earlier."},
    {.name = "claims",
     .kind = OPT_STR,
     .arg = "JSON",
     .example = "'{\"sub\":\"alice\"}'",
     .help =
         "new: an object whose members are added to the claims, or take the place of a default."},
    {.name = "json", .kind = OPT_BOOL, .help = "check: print the claims only, as JSON."},
};
static const struct opt_example examples[] = {
    {"A pair of keys; the server gets jwt.key.pub", "sluice token key -o jwt.key"},
    {"A token that reads and writes everything, for 30 days", "sluice token new -key jwt.key"},
    {"One that only reads the namespace shop, for an hour",
     "sluice token new -key jwt.key -namespace shop -access ro -expires 1h"},
    {"What a token says, and whether it is good", "sluice token check -key jwt.key.pub <token.txt"},
    {NULL, NULL},
};

const struct command cmd_token = {
    .name = "token",
    .summary = "make keys and tokens for clients of a server",
    .usage = usage,
    .about =
        "A client shows a server a token: a JSON Web Token, signed by who holds the private key. "
        "The server has the public key, so it can check tokens and make none.\n\n"
        "key makes a pair of keys and prints both, or writes them to files with -o.\n\n"
        "new prints a token, and nothing else. Its claims are those of libSQL servers: \"id\" and "
        "\"a\" for one namespace; \"p\" for several; \"iat\" and \"exp\". The first key of the "
        "file "
        "signs.\n\n"
        "check tells whether a token is signed by one of the keys, and in its time, with 60 "
        "seconds of tolerance; then it prints the claims. Without TOKEN it is read from standard "
        "input, which keeps it out of the list of processes and the shell's history. The exit "
        "status is 1 when the token is not good, and the reason is on standard error.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_token,
};

static const char *const key_takes[] = {"alg", "o", NULL};
static const char *const new_takes[] = {"key", "namespace", "access", "expires", "claims", NULL};
static const char *const check_takes[] = {"key", "json", NULL};
static const struct verb verbs[] = {
    {"key", key_takes, 0, run_key},
    {"new", new_takes, 0, run_new},
    {"check", check_takes, 1, run_check},
};

static enum rc run_token(struct cli *c, struct err *err)
{
    const struct opts *o = &c->opts;
    const char *name = o->arg_count > 0 ? o->args[0] : "";
    cli_hint(c, "sluice help token");
    for (size_t i = 0; i < sizeof verbs / sizeof verbs[0]; i++) {
        if (strcmp(verbs[i].name, name) != 0) continue;
        TRY(check_options(c, &verbs[i], err));
        return verbs[i].run(c, err);
    }
    if (name[0] == '\0') return err_set(err, RC_INVALID, "one of key, new and check required");
    return err_set(err, RC_INVALID, "sluice token %s: expected key, new or check", name);
}

static enum rc check_options(struct cli *c, const struct verb *v, struct err *err)
{
    for (size_t i = 0; i < sizeof options / sizeof options[0]; i++) {
        if (!opts_given(&c->opts, options[i].name)) continue;
        const char *const *taken = v->options;
        while (*taken != NULL && strcmp(*taken, options[i].name) != 0)
            taken++;
        if (*taken == NULL)
            return err_set(err, RC_INVALID, "sluice token %s takes no -%s", v->name,
                           options[i].name);
    }
    if (c->opts.arg_count - 1 > v->args_max) return err_set(err, RC_INVALID, "too many arguments");
    return RC_OK;
}

/* ---- key ---- */

static enum rc run_key(struct cli *c, struct err *err)
{
    static const char *const names[] = {
        [JWT_EDDSA] = "eddsa", [JWT_ES256] = "es256", [JWT_HS256] = "hs256"};
    CLEANUP(wipe_fini) struct buf private = BUF_INIT, public = BUF_INIT;
    const char *name = opts_str(&c->opts, "alg"), *path = opts_str(&c->opts, "o");
    size_t alg = 0, count = sizeof names / sizeof names[0];
    while (alg < count && strcmp(names[alg], name) != 0)
        alg++;
    if (alg == count)
        return err_set(err, RC_INVALID, "-alg '%s': expected eddsa, es256 or hs256", name);
    if (opts_given(&c->opts, "o") && path[0] == '\0')
        return err_set(err, RC_INVALID, "-o: the name of a file required");
    c->hint[0] = '\0';
    TRY(jwt_key_new((enum jwt_alg)alg, &private, &public, err));
    bool one = alg == JWT_HS256;
    if (path[0] != '\0') return write_pair(path, &private, one ? NULL : &public, err);
    printf(one ? "# The key: it signs tokens and checks them. Keep it secret.\n"
               : "# The private key: it signs tokens. Keep it secret.\n");
    fwrite(private.data, 1, private.size, stdout);
    if (one) return RC_OK;
    printf("\n# The public key: it checks tokens. The server needs only this one.\n");
    fwrite(public.data, 1, public.size, stdout);
    return RC_OK;
}

/* public: NULL for none. The private key comes last, so that there is never one without the other
 * that belongs to it. */
static enum rc write_pair(const char *path, const struct buf *private, const struct buf *public,
                          struct err *err)
{
    char pub[OS_PATH_MAX];
    int n = snprintf(pub, sizeof pub, "%s.pub", path);
    if (n < 0 || (size_t)n >= sizeof pub)
        return err_set(err, RC_INVALID, "-o: the path has more than %d bytes", OS_PATH_MAX - 5);
    if (public != NULL) TRY(write_new(pub, 0644, public, err));
    if (write_new(path, 0600, private, err) != RC_OK) {
        struct err ignored;
        if (public != NULL && os_unlink(pub, &ignored) != RC_OK) err_clear(&ignored);
        return err->rc;
    }
    printf("%s: %s\n", public != NULL ? "private key" : "key", path);
    if (public != NULL) printf("public key: %s\n", pub);
    return RC_OK;
}

static enum rc write_new(const char *path, unsigned mode, const struct buf *text, struct err *err)
{
    CLEANUP(os_closep) int fd = -1;
    struct err ignored;
    enum rc rc = os_open(path, O_WRONLY | O_CREAT | O_EXCL, mode, &fd, err);
    if (rc == RC_CONFLICT)
        return err_set(err, rc, "'%s' exists, and a key is never overwritten", path);
    TRY(rc);
    rc = os_pwrite(fd, text->data, text->size, 0, err);
    if (rc == RC_OK) rc = os_fsync(fd, err);
    if (rc == RC_OK) return rc;
    if (os_unlink(path, &ignored) != RC_OK) err_clear(&ignored);
    return err_wrap(err, "write '%s'", path);
}

/* ---- new ---- */

static enum rc run_new(struct cli *c, struct err *err)
{
    CLEANUP(wipe_fini) struct buf key = BUF_INIT;
    CLEANUP(buf_fini) struct buf token = BUF_INIT;
    CLEANUP(json_freep) json_t *claims = json_object();
    CLEANUP(mem_freep) char *text = NULL;
    if (claims == NULL) return err_mem(err, "claims");
    TRY(build_claims(c, claims, err));
    TRY(read_key(c, &key, err));
    c->hint[0] = '\0';
    text = json_dumps(claims, JSON_COMPACT);
    if (text == NULL) return err_mem(err, "claims");
    if (jwt_sign((const char *)key.data, text, &token, err) != RC_OK)
        return err_wrap(err, "'%s'", opts_str(&c->opts, "key"));
    printf("%.*s\n", (int)token.size, (const char *)token.data);
    return RC_OK;
}

static enum rc build_claims(struct cli *c, json_t *claims, struct err *err)
{
    CLEANUP(json_freep) json_t *extra = NULL;
    const char *access = opts_str(&c->opts, "access");
    int64_t now_s = os_now_ms() / 1000, expires_s;
    if (strcmp(access, "ro") != 0 && strcmp(access, "rw") != 0)
        return err_set(err, RC_INVALID, "-access '%s': expected ro or rw", access);
    TRY(get_expires(opts_str(&c->opts, "expires"), &expires_s, err));
    TRY(get_extra(c, &extra, err));
    TRY(add_namespaces(c, claims, json_object_get(extra, "p") == NULL, err));
    int failed = json_object_set_new(claims, "iat", json_integer(now_s));
    if (expires_s > 0)
        failed |= json_object_set_new(claims, "exp", json_integer(now_s + expires_s));
    if (extra != NULL) failed |= json_object_update(claims, extra);
    return failed ? err_mem(err, "claims") : RC_OK;
}

/* One namespace is named by "id", with "a" for the access; several by "p", which has it inside. */
static enum rc add_namespaces(struct cli *c, json_t *claims, bool add_access, struct err *err)
{
    const char *access = opts_str(&c->opts, "access"), *p = opts_str(&c->opts, "namespace");
    CLEANUP(json_freep) json_t *names = json_array();
    if (names == NULL) return err_mem(err, "claims");
    for (bool more = opts_given(&c->opts, "namespace"); more;) {
        size_t size = strcspn(p, ",");
        if (size == 0 || size > NAMESPACE_MAX)
            return err_set(err, RC_INVALID,
                           "-namespace: a name has 1 to %d bytes, and commas between names",
                           NAMESPACE_MAX);
        if (json_array_append_new(names, json_stringn(p, size)) != 0)
            return err_set(err, RC_INVALID, "-namespace: the name is not UTF-8");
        more = p[size] == ',';
        p += size + more;
    }
    int failed = 0;
    if (json_array_size(names) > 1) {
        failed = json_object_set_new(claims, "p", json_pack("{s:{s:O}}", access, "ns", names));
    } else {
        if (json_array_size(names) == 1)
            failed = json_object_set(claims, "id", json_array_get(names, 0));
        if (add_access) failed |= json_object_set_new(claims, "a", json_string(access));
    }
    return failed ? err_mem(err, "claims") : RC_OK;
}

/* What -claims gives: NULL or an object. It may not say again what an option says: a token that
 * allows more than one of the two means is found out too late. */
static enum rc get_extra(struct cli *c, json_t **ret, struct err *err)
{
    static const struct {
        const char *claim, *option;
    } twice[] = {{"id", "namespace"}, {"p", "namespace"}, {"a", "namespace"},
                 {"a", "access"},     {"p", "access"},    {"exp", "expires"}};
    json_error_t why;
    if (!opts_given(&c->opts, "claims")) return RC_OK;
    CLEANUP(json_freep)
    json_t *extra = json_loads(opts_str(&c->opts, "claims"), JSON_REJECT_DUPLICATES, &why);
    if (extra == NULL)
        return err_set(err, RC_INVALID, "-claims: no JSON: %s (byte %d)", why.text, why.position);
    if (!json_is_object(extra)) return err_set(err, RC_INVALID, "-claims: a JSON object required");
    for (size_t i = 0; i < sizeof twice / sizeof twice[0]; i++)
        if (json_object_get(extra, twice[i].claim) != NULL && opts_given(&c->opts, twice[i].option))
            return err_set(err, RC_INVALID, "-claims with '%s' and -%s: give one of them",
                           twice[i].claim, twice[i].option);
    *ret = extra;
    extra = NULL;
    return RC_OK;
}

/* 0: never. */
static enum rc get_expires(const char *text, int64_t *ret_s, struct err *err)
{
    char *end;
    int64_t ns;
    *ret_s = 0;
    if (strcmp(text, "never") == 0) return RC_OK;
    long days = isdigit((uint8_t)text[0]) ? strtol(text, &end, 10) : 0;
    if (days > 0 && days <= DAYS_MAX && strcmp(end, "d") == 0)
        *ret_s = days * DAY_S;
    else if (duration_get(text, &ns, err) == RC_OK)
        *ret_s = ns / NS_S;
    if (*ret_s > 0) return RC_OK;
    return err_set(err, RC_INVALID, "-expires '%s': expected 30d, 12h and the like, or never",
                   text);
}

/* ---- check ---- */

static enum rc run_check(struct cli *c, struct err *err)
{
    CLEANUP(buf_fini) struct buf key = BUF_INIT, token = BUF_INIT, claims = BUF_INIT;
    CLEANUP(jwt_keys_freep) struct jwt_keys *keys = NULL;
    CLEANUP(json_freep) json_t *json = NULL;
    enum jwt_problem problem;
    const char *arg = c->opts.arg_count > 1 ? c->opts.args[1] : "-";
    TRY(read_key(c, &key, err));
    c->hint[0] = '\0';
    if (jwt_keys_parse((const char *)key.data, key.size, &keys, err) != RC_OK)
        return err_wrap(err, "'%s'", opts_str(&c->opts, "key"));
    if (strcmp(arg, "-") == 0)
        TRY(read_stdin(&token, err));
    else
        TRY(buf_append(&token, arg, strlen(arg), err));
    const char *text = (const char *)token.data;
    size_t size = token.size;
    while (size > 0 && isspace((uint8_t)text[size - 1]))
        size--;
    for (; size > 0 && isspace((uint8_t)*text); size--)
        text++;
    if (size == 0) return err_set(err, RC_INVALID, "there is no token");
    TRY(jwt_verify(keys, text, size, os_now_ms() / 1000, &claims, &problem, err));
    json = json_loadb((const char *)claims.data, claims.size, 0, NULL);
    if (json == NULL) return err_mem(err, "claims");
    if (!opts_bool(&c->opts, "json")) return print_claims(json, err);
    return cli_print_json(json_incref(json), err);
}

/* The text gets a \0. */
static enum rc read_key(struct cli *c, struct buf *ret, struct err *err)
{
    const char *path = opts_str(&c->opts, "key");
    if (path[0] == '\0') return err_set(err, RC_INVALID, "-key FILE required");
    c->hint[0] = '\0';
    TRY(buf_reserve(ret, JWT_KEY_TEXT_MAX + 1, err)); /* never moved, so that one wipe is enough */
    TRY(os_read_file(path, JWT_KEY_TEXT_MAX, ret, err));
    TRY(buf_append(ret, "", 1, err));
    ret->size--;
    return RC_OK;
}

static enum rc read_stdin(struct buf *ret, struct err *err)
{
    TRY(buf_reserve(ret, STDIN_MAX + 1, err));
    while (ret->size <= STDIN_MAX) {
        int64_t n = os_read_some(STDIN_FILENO, ret->data + ret->size, STDIN_MAX + 1 - ret->size);
        if (n < 0) return err_set(err, RC_IO, "cannot read the token from standard input");
        if (n == 0) return RC_OK;
        ret->size += (size_t)n;
    }
    return err_set(err, RC_TOO_BIG, "standard input: more than %d bytes for a token", STDIN_MAX);
}

static enum rc print_claims(json_t *claims, struct err *err)
{
    CLEANUP(table_fini) struct table t = {.columns = 2};
    TRY(add_access_rows(&t, claims, err));
    TRY(time_row(&t, "issued", json_object_get(claims, "iat"), err));
    TRY(time_row(&t, "not before", json_object_get(claims, "nbf"), err));
    if (json_object_get(claims, "exp") == NULL)
        TRY(table_row(&t, err, "expires", "never"));
    else
        TRY(time_row(&t, "expires", json_object_get(claims, "exp"), err));
    printf("The token is good.\n\n");
    table_print(&t, stdout);
    printf("\n");
    return cli_print_json(json_incref(claims), err);
}

static enum rc add_access_rows(struct table *t, const json_t *claims, struct err *err)
{
    static const char *const modes[] = {"ro", "rw", "roa", "rwa", "ddl"};
    const json_t *p = json_object_get(claims, "p"), *id = json_object_get(claims, "id");
    const char *access = json_string_value(json_object_get(claims, "a"));
    for (size_t i = 0; i < sizeof modes / sizeof modes[0]; i++) {
        const json_t *names = json_object_get(json_object_get(p, modes[i]), "ns");
        if (names == NULL) continue;
        char name[32];
        snprintf(name, sizeof name, "namespaces, %s", modes[i]);
        TRY(json_row(t, name, names, err));
    }
    if (p != NULL) return RC_OK; /* then the others do not count */
    if (id == NULL)
        TRY(table_row(t, err, "namespace", "all"));
    else
        TRY(json_row(t, "namespace", id, err));
    if (access == NULL || strcmp(access, "rw") == 0)
        return table_row(t, err, "access", "read and write");
    if (strcmp(access, "ro") == 0) return table_row(t, err, "access", "read");
    return json_row(t, "access", json_object_get(claims, "a"), err);
}

/* As JSON, so that control characters of a name do nothing to a terminal. */
static enum rc json_row(struct table *t, const char *name, const json_t *value, struct err *err)
{
    CLEANUP(mem_freep) char *text = json_dumps(value, JSON_ENCODE_ANY | JSON_COMPACT);
    if (text == NULL) return err_mem(err, "claims");
    return table_row(t, err, name, text);
}

static enum rc time_row(struct table *t, const char *name, const json_t *at, struct err *err)
{
    char when[TIME_TEXT_SIZE];
    double s = json_number_value(at);
    if (!json_is_number(at) || s < 0 || s > TIME_MAX_S) return RC_OK; /* as the claims have it */
    time_put((int64_t)s * 1000, false, when);
    return table_row(t, err, name, when);
}

static void wipe_fini(struct buf *b)
{
    if (b->data != NULL) explicit_bzero(b->data, b->cap);
    buf_fini(b);
}

static void json_freep(json_t **json)
{
    json_decref(*json);
}
