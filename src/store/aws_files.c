/*
 * aws_files.c -- profiles of the AWS tools: ~/.aws/credentials and ~/.aws/config, an ini dialect.
 *
 *   [default]                           in config: [profile NAME]
 *   aws_access_key_id = AKIA...         a '#' or ';' after a blank starts a comment
 *   s3 =
 *     max_concurrent_requests = 20      indented below an empty value: belongs to that, skipped
 *
 * The same setting in both files: that of credentials counts. A profile has keys, or says how to
 * get some: from STS with a token, from a command, or with the keys of another profile.
 */
#include "base/mem.h"
#include "base/os.h"
#include "store/aws_intern.h"
#include <ctype.h>
#include <stdio.h>
#include <string.h>
#include <strings.h>

#define FILE_MAX     (1u << 20)
#define PROCESS_MAX  (64u << 10)
#define PROCESS_MS   30000
#define PROFILES_MAX 5 /* that lead from one to the next */

struct profile {
    char name[AWS_NAME_MAX];
    bool found;
    struct aws_keys keys;
    char region[AWS_REGION_MAX];
    char role_arn[AWS_NAME_MAX], session[AWS_NAME_MAX], external_id[AWS_NAME_MAX];
    char duration_s[16];
    char source[AWS_NAME_MAX], credential_source[64];
    char token_path[AWS_PATH_MAX], process[AWS_PATH_MAX];
    char mfa[AWS_NAME_MAX], sso_session[AWS_NAME_MAX], sso_url[AWS_NAME_MAX];
};

#define FIELD(name, member)                                                                        \
    {                                                                                              \
        name, offsetof(struct profile, member), sizeof(((struct profile *)NULL)->member)           \
    }
static const struct field {
    const char *name;
    size_t off, size;
} fields[] = {
    FIELD("aws_access_key_id", keys.access_key),
    FIELD("aws_secret_access_key", keys.secret_key),
    FIELD("aws_session_token", keys.token),
    FIELD("region", region),
    FIELD("role_arn", role_arn),
    FIELD("role_session_name", session),
    FIELD("external_id", external_id),
    FIELD("duration_seconds", duration_s),
    FIELD("source_profile", source),
    FIELD("credential_source", credential_source),
    FIELD("web_identity_token_file", token_path),
    FIELD("credential_process", process),
    FIELD("mfa_serial", mfa),
    FIELD("sso_session", sso_session),
    FIELD("sso_start_url", sso_url),
};

/* One file being read. */
struct reader {
    struct profile *p;
    const char *path;
    bool is_config;
    unsigned line;
    bool inside; /* the section is the one of p->name */
    bool nested; /* the last setting had no value: indented lines belong to it */
};

static enum rc load(const char *name, struct profile **ret, struct err *err);
static void profile_freep(struct profile **p);
static enum rc read_file(struct profile *p, bool is_config, struct err *err);
static enum rc file_path(bool is_config, char out[AWS_PATH_MAX], struct err *err);
static enum rc take_line(struct reader *r, char *line, struct err *err);
static enum rc take_section(struct reader *r, char *line, struct err *err);
static enum rc take_field(struct reader *r, const char *key, const char *value, struct err *err);
static enum rc line_bad(const struct reader *r, const char *what, struct err *err);
static char *trim(char *text);
static void cut_comment(char *value);
static enum rc resolve(struct aws_search *s, struct profile *p, unsigned depth,
                       struct aws_keys *ret, bool *ret_found, struct err *err);
static enum rc resolve_role(struct aws_search *s, struct profile *p, unsigned depth,
                            struct aws_keys *ret, struct err *err);
static enum rc resolve_base(struct aws_search *s, struct profile *p, unsigned depth,
                            struct aws_keys *ret, struct err *err);
static enum rc run_process(struct aws_search *s, const struct profile *p, struct aws_keys *ret,
                           struct err *err);
static const char *profile_name(void);

enum rc aws_from_files(struct aws_search *s, struct aws_keys *ret, bool *ret_found, struct err *err)
{
    const char *name = profile_name();
    CLEANUP(profile_freep) struct profile *p = NULL;
    *ret_found = false;
    TRY(load(name, &p, err));
    if (!p->found) {
        if (strcmp(name, "default") != 0)
            return err_set(err, RC_DENIED,
                           "no access keys: neither ~/.aws/credentials nor ~/.aws/config (or the "
                           "files that AWS_SHARED_CREDENTIALS_FILE and AWS_CONFIG_FILE name) has a "
                           "profile '%s'",
                           name);
        return aws_looked(s, err, "shared files (~/.aws/credentials, ~/.aws/config)");
    }
    enum rc rc = resolve(s, p, 0, ret, ret_found, err);
    if (rc != RC_OK) return err_wrap(err, "profile '%s'", name);
    if (*ret_found) return RC_OK;
    return aws_looked(s, err, "profile '%s' of the shared files", name);
}

void aws_profile_region(char out[AWS_REGION_MAX])
{
    struct err ignored;
    CLEANUP(profile_freep) struct profile *p = NULL;
    out[0] = '\0';
    if (load(profile_name(), &p, &ignored) == RC_OK) snprintf(out, AWS_REGION_MAX, "%s", p->region);
}

static const char *profile_name(void)
{
    const char *name = aws_env("AWS_PROFILE");
    if (name[0] == '\0') name = aws_env("AWS_DEFAULT_PROFILE");
    return name[0] ? name : "default";
}

/* ---- Reading ---- */

static enum rc load(const char *name, struct profile **ret, struct err *err)
{
    if (strlen(name) >= AWS_NAME_MAX)
        return err_set(err, RC_INVALID, "the name of an AWS profile is too long: '%.64s...'", name);
    CLEANUP(profile_freep) struct profile *p = mem_calloc(1, sizeof *p);
    if (p == NULL) return err_mem(err, "an AWS profile");
    snprintf(p->name, sizeof p->name, "%s", name);
    TRY(read_file(p, true, err));
    TRY(read_file(p, false, err)); /* later, so that it wins */
    *ret = p;
    p = NULL;
    return RC_OK;
}

static void profile_freep(struct profile **p)
{
    if (*p != NULL) mem_wipe(*p, sizeof **p);
    mem_free(*p);
}

/* A file that is missing, or that others own and hide, has nothing to say. */
static enum rc read_file(struct profile *p, bool is_config, struct err *err)
{
    char path[AWS_PATH_MAX];
    CLEANUP(buf_fini) struct buf text = BUF_INIT;
    struct reader r = {.p = p, .path = path, .is_config = is_config};
    TRY(file_path(is_config, path, err));
    if (path[0] == '\0') return RC_OK;
    enum rc rc = os_read_file(path, FILE_MAX, &text, err);
    if (rc == RC_NOT_FOUND || rc == RC_DENIED) {
        err_clear(err);
        return RC_OK;
    }
    if (rc == RC_TOO_BIG) err->rc = RC_INVALID;
    if (rc != RC_OK) return err->rc;
    size_t size = text.size;
    TRY(buf_append(&text, "", 1, err));
    char *line = (char *)text.data, *end = line + size;
    if (size >= 3 && memcmp(line, "\xef\xbb\xbf", 3) == 0) line += 3;
    while (rc == RC_OK && line < end) {
        char *stop = memchr(line, '\n', (size_t)(end - line));
        if (stop == NULL) stop = end;
        *stop = '\0';
        r.line++;
        rc = strlen(line) == (size_t)(stop - line) ? take_line(&r, line, err)
                                                   : line_bad(&r, "a zero byte", err);
        line = stop + 1;
    }
    mem_wipe(text.data, size);
    return rc;
}

/* "" when there is no home. */
static enum rc file_path(bool is_config, char out[AWS_PATH_MAX], struct err *err)
{
    const char *variable = is_config ? "AWS_CONFIG_FILE" : "AWS_SHARED_CREDENTIALS_FILE";
    const char *given = aws_env(variable), *home = aws_env("HOME");
    const char *rest = given;
    out[0] = '\0';
    if (given[0] == '\0')
        rest = is_config ? "/.aws/config" : "/.aws/credentials";
    else if (given[0] == '~' && given[1] == '/')
        rest = given + 1;
    else
        home = "";
    if (rest != given && home[0] == '\0') return RC_OK;
    int n = snprintf(out, AWS_PATH_MAX, "%s%s", home, rest);
    if (n >= 0 && n < AWS_PATH_MAX) return RC_OK;
    return err_set(err, RC_INVALID, "the path of %s is too long", variable);
}

static enum rc take_line(struct reader *r, char *line, struct err *err)
{
    bool indented = *line == ' ' || *line == '\t';
    char *text = trim(line);
    if (*text == '\0' || *text == '#' || *text == ';') return RC_OK;
    if (*text == '[') return take_section(r, text, err);
    if (indented && r->nested) return RC_OK;
    char *eq = strchr(text, '=');
    if (eq == NULL) return line_bad(r, "neither '[section]' nor 'name = value'", err);
    *eq = '\0';
    char *key = trim(text), *value = trim(eq + 1);
    if (*key == '\0') return line_bad(r, "a value without a name", err);
    /* A shell command may hold a '#' or ';' of its own. */
    if (strcasecmp(key, "credential_process") != 0) cut_comment(value);
    r->nested = *value == '\0';
    return r->inside ? take_field(r, key, value, err) : RC_OK;
}

static enum rc take_section(struct reader *r, char *line, struct err *err)
{
    char *close = strchr(line, ']');
    if (close == NULL) return line_bad(r, "a '[' without ']'", err);
    *close = '\0';
    char *name = trim(line + 1);
    bool prefixed =
        r->is_config && strncmp(name, "profile", 7) == 0 && (name[7] == ' ' || name[7] == '\t');
    if (prefixed) name = trim(name + 7);
    size_t size = strlen(name);
    if (size >= 2 && (name[0] == '"' || name[0] == '\'') && name[size - 1] == name[0]) {
        name[size - 1] = '\0';
        name++;
    }
    /* In config only "default" may go without the word. */
    r->inside = strcmp(name, r->p->name) == 0 &&
                (prefixed || !r->is_config || strcmp(name, "default") == 0);
    r->nested = false;
    if (r->inside) r->p->found = true;
    return RC_OK;
}

static enum rc take_field(struct reader *r, const char *key, const char *value, struct err *err)
{
    for (size_t i = 0; i < sizeof fields / sizeof fields[0]; i++) {
        const struct field *f = &fields[i];
        if (strcasecmp(f->name, key) != 0) continue;
        if (strlen(value) >= f->size)
            return err_set(err, RC_INVALID, "'%s', line %u: '%s' is longer than %zu bytes", r->path,
                           r->line, f->name, f->size - 1);
        snprintf((char *)r->p + f->off, f->size, "%s", value);
        break;
    }
    return RC_OK;
}

/* The line itself is not shown: it may hold a secret. */
static enum rc line_bad(const struct reader *r, const char *what, struct err *err)
{
    return err_set(err, RC_INVALID, "'%s', line %u: %s", r->path, r->line, what);
}

static char *trim(char *text)
{
    while (isspace((unsigned char)*text))
        text++;
    size_t size = strlen(text);
    while (size > 0 && isspace((unsigned char)text[size - 1]))
        text[--size] = '\0';
    return text;
}

static void cut_comment(char *value)
{
    for (char *p = value; *p != '\0'; p++) {
        bool start = *p == '#' || *p == ';';
        if (!start || (p > value && !isspace((unsigned char)p[-1]))) continue;
        *p = '\0';
        trim(value);
        return;
    }
}

/* ---- What a profile means ---- */

static enum rc resolve(struct aws_search *s, struct profile *p, unsigned depth,
                       struct aws_keys *ret, bool *ret_found, struct err *err)
{
    bool access = p->keys.access_key[0] != '\0', secret = p->keys.secret_key[0] != '\0';
    *ret_found = true;
    if (p->role_arn[0] != '\0') return resolve_role(s, p, depth, ret, err);
    if (access != secret)
        return err_set(err, RC_INVALID, "only one of aws_access_key_id and aws_secret_access_key");
    if (access) {
        *ret = p->keys;
        if (aws_keys_check(ret, err) == RC_OK) return RC_OK;
        return err->rc = RC_INVALID;
    }
    if (p->process[0] != '\0') return run_process(s, p, ret, err);
    if (p->sso_session[0] != '\0' || p->sso_url[0] != '\0')
        return err_set(err, RC_DENIED,
                       "single sign-on is not built in: let the AWS tools do it, with "
                       "credential_process = aws configure export-credentials --profile %s",
                       p->name);
    *ret_found = false;
    return RC_OK;
}

static enum rc resolve_role(struct aws_search *s, struct profile *p, unsigned depth,
                            struct aws_keys *ret, struct err *err)
{
    struct aws_role role = {.arn = p->role_arn,
                            .session = p->session,
                            .external_id = p->external_id,
                            .duration_s = p->duration_s};
    if (p->token_path[0] != '\0') return aws_assume_web(s, &role, p->token_path, ret, err);
    if (p->mfa[0] != '\0')
        return err_set(err, RC_DENIED, "mfa_serial: nobody is here to type a code");
    CLEANUP(aws_keys_wipe) struct aws_keys base = {0};
    TRY(resolve_base(s, p, depth, &base, err));
    return aws_assume(s, &role, &base, ret, err);
}

/* The keys with which a role is asked for. */
static enum rc resolve_base(struct aws_search *s, struct profile *p, unsigned depth,
                            struct aws_keys *ret, struct err *err)
{
    static const struct {
        const char *name;
        aws_place_fn *fn;
    } sources[] = {{"Environment", aws_from_env},
                   {"EcsContainer", aws_from_container},
                   {"Ec2InstanceMetadata", aws_from_metadata}};
    CLEANUP(profile_freep) struct profile *next = NULL;
    bool found = false;
    if (p->source[0] != '\0') {
        if (depth + 1 >= PROFILES_MAX)
            return err_set(err, RC_INVALID, "source_profile leads through more than %d profiles",
                           PROFILES_MAX);
        TRY(load(p->source, &next, err));
        /* A profile that names itself has its own keys for the role. */
        if (strcmp(p->source, p->name) == 0) next->role_arn[0] = '\0';
        enum rc rc = resolve(s, next, depth + 1, ret, &found, err);
        if (rc != RC_OK) return err_wrap(err, "source_profile '%s'", p->source);
        if (found) return RC_OK;
        return err_set(err, RC_DENIED, "source_profile '%s' %s", p->source,
                       next->found ? "has no access keys" : "does not exist");
    }
    for (size_t i = 0; i < sizeof sources / sizeof sources[0]; i++) {
        if (strcasecmp(p->credential_source, sources[i].name) != 0) continue;
        TRY(sources[i].fn(s, ret, &found, err));
        if (found) return RC_OK;
        return err_set(err, RC_DENIED, "credential_source '%s' has no access keys",
                       p->credential_source);
    }
    return err_set(err, RC_INVALID,
                   "role_arn wants a source_profile, a web_identity_token_file, "
                   "or a credential_source (Environment, EcsContainer, "
                   "Ec2InstanceMetadata)");
}

static enum rc run_process(struct aws_search *s, const struct profile *p, struct aws_keys *ret,
                           struct err *err)
{
    static const char name[] = "credential_process";
    CLEANUP(buf_fini) struct buf out = BUF_INIT;
    int status = 0;
    enum rc rc = os_run_capture(p->process, PROCESS_MAX, PROCESS_MS, s->c, &out, &status, err);
    if (rc == RC_TOO_BIG) err->rc = RC_INVALID;
    if (rc != RC_OK) return err_wrap(err, "%s", name);
    if (status != 0) {
        rc = err_set(err, RC_DENIED, "%s ended with status %d", name, status);
    } else if (aws_keys_from_json(out.data, out.size, "SessionToken", ret, err) != RC_OK) {
        err->rc = err->rc == RC_NO_MEM ? RC_NO_MEM : RC_INVALID;
        rc = err_wrap(err, "%s", name);
    }
    if (out.size > 0) mem_wipe(out.data, out.size);
    return rc;
}
