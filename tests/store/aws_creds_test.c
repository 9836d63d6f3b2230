/* aws_creds_test.c -- access keys: the order of the places, profiles, and services played by a
 * scripted server. Includes aws_creds.c to end its pauses at will. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include "../../src/store/aws_creds.c"
#include "base/fault.h"
#include <sys/stat.h>
#include <unistd.h>
#include "fmt/text.h"
#include "peer.h"

#define SECRET "s3cr3t/with+odd=letters"

static struct err err;
static struct aws_keys keys;
static char dir[64];

/* ---- Fixture: an environment with nothing in it, and a folder ---- */

static const char *const variables[] = {"AWS_ACCESS_KEY_ID",
                                        "AWS_SECRET_ACCESS_KEY",
                                        "AWS_SESSION_TOKEN",
                                        "LITESTREAM_ACCESS_KEY_ID",
                                        "LITESTREAM_SECRET_ACCESS_KEY",
                                        "AWS_WEB_IDENTITY_TOKEN_FILE",
                                        "AWS_ROLE_ARN",
                                        "AWS_ROLE_SESSION_NAME",
                                        "AWS_PROFILE",
                                        "AWS_DEFAULT_PROFILE",
                                        "AWS_REGION",
                                        "AWS_DEFAULT_REGION",
                                        "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                        "AWS_CONTAINER_CREDENTIALS_FULL_URI",
                                        "AWS_CONTAINER_AUTHORIZATION_TOKEN",
                                        "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE",
                                        "AWS_EC2_METADATA_SERVICE_ENDPOINT",
                                        "AWS_EC2_METADATA_SERVICE_ENDPOINT_MODE",
                                        "AWS_ENDPOINT_URL",
                                        "AWS_ENDPOINT_URL_STS",
                                        "AWS_CA_BUNDLE",
                                        "AWS_SHARED_CREDENTIALS_FILE",
                                        "AWS_CONFIG_FILE",
                                        "OSS_ACCESS_KEY_ID",
                                        "OSS_ACCESS_KEY_SECRET",
                                        "OSS_SESSION_TOKEN",
                                        "http_proxy",
                                        "HTTP_PROXY",
                                        "https_proxy",
                                        "HTTPS_PROXY",
                                        "ALL_PROXY",
                                        "all_proxy"};

static int setup(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof variables / sizeof variables[0]; i++)
        unsetenv(variables[i]);
    snprintf(dir, sizeof dir, "/tmp/sluice-aws-XXXXXX");
    assert_non_null(mkdtemp(dir));
    setenv("HOME", dir, 1);
    setenv("AWS_EC2_METADATA_DISABLED", "true", 1);
    err_clear(&err);
    memset(&keys, 0, sizeof keys);
    return 0;
}

static int teardown(void **state)
{
    char command[128];
    (void)state;
    snprintf(command, sizeof command, "rm -rf '%s'", dir);
    assert_int_equal(system(command), 0);
    return 0;
}

static const char *at(const char *name)
{
    static char path[4][128];
    static unsigned next;
    char *p = path[next++ % 4];
    snprintf(p, sizeof path[0], "%s/%s", dir, name);
    return p;
}

static void write_bytes(const char *name, const void *data, size_t size)
{
    char folder[128];
    snprintf(folder, sizeof folder, "%s", at(name));
    *strrchr(folder, '/') = '\0';
    assert_int_equal(os_mkdirs(folder, 0700, &err), RC_OK);
    assert_int_equal(os_write_file(at(name), data, size, 0600, &err), RC_OK);
}

static void write_text(const char *name, const char *text)
{
    write_bytes(name, text, strlen(text));
}

/* One search by a struct of its own. */
static enum rc get(void)
{
    struct aws_creds *a;
    struct aws_creds_conf conf = {.region = "eu-west-1"};
    err_clear(&err);
    memset(&keys, 0, sizeof keys);
    assert_int_equal(aws_creds_open(&conf, &a, &err), RC_OK);
    enum rc rc = aws_creds_get(a, NULL, &keys, &err);
    aws_creds_close(a);
    assert_null(strstr(err.text, "s3cr3t"));
    return rc;
}

static void assert_keys(const char *access, const char *token)
{
    if (get() != RC_OK) fail_msg("%s: %s", rc_name(err.rc), err.text);
    assert_string_equal(keys.access_key, access);
    assert_string_equal(keys.secret_key, SECRET);
    assert_string_equal(keys.token, token);
}

static void assert_fails(enum rc want, const char *text)
{
    enum rc rc = get();
    if (rc != want || strstr(err.text, text) == NULL)
        fail_msg("is %s: %s\nwant %s: %s", rc_name(rc), err.text, rc_name(want), text);
}

static const char *in_seconds(int64_t s)
{
    static char text[4][TIME_TEXT_SIZE];
    static unsigned next;
    char *out = text[next++ % 4];
    time_put(os_now_ms() + s * 1000, false, out);
    return out;
}

/* ---- Configuration and environment ---- */

static void given_keys_come_first(void **state)
{
    (void)state;
    struct aws_creds *a;
    struct aws_creds_conf conf = {.access_key = "GIVEN", .secret_key = SECRET};
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", "other", 1);
    assert_int_equal(aws_creds_open(&conf, &a, &err), RC_OK);
    assert_int_equal(aws_creds_get(a, NULL, &keys, &err), RC_OK);
    assert_string_equal(keys.access_key, "GIVEN");
    assert_string_equal(keys.secret_key, SECRET);
    assert_string_equal(keys.token, "");
    assert_int_equal(keys.expires_ms, 0);
    assert_false(aws_creds_expired(a, &keys)); /* there are no others */
    atomic_bool cancel = true;
    assert_int_equal(aws_creds_get(a, &(struct call){.cancel = &cancel}, &keys, &err), RC_CANCELED);
    aws_creds_close(a);
    conf.secret_key = "";
    assert_int_equal(aws_creds_open(&conf, &a, &err), RC_INVALID);
    assert_non_null(strstr(err.text, "'access-key-id' is given without 'secret-access-key'"));
    conf = (struct aws_creds_conf){.access_key = "a", .secret_key = "s3cr3t\n"};
    assert_int_equal(aws_creds_open(&conf, &a, &err), RC_INVALID);
    assert_null(strstr(err.text, "s3cr3t"));
    aws_creds_close(NULL);
}

static void environment_in_both_spellings(void **state)
{
    (void)state;
    setenv("LITESTREAM_ACCESS_KEY_ID", "LITE", 1);
    setenv("LITESTREAM_SECRET_ACCESS_KEY", SECRET, 1);
    assert_keys("LITE", "");
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SESSION_TOKEN", "tok", 1);
    assert_keys("ENV", "tok");
    unsetenv("LITESTREAM_SECRET_ACCESS_KEY");
    assert_fails(RC_DENIED, "only one of AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY");
    setenv("AWS_SECRET_ACCESS_KEY", "s3cr3t with blank", 1);
    assert_fails(RC_INVALID, "environment: the secret key holds a character");
}

static void nothing_anywhere_lists_the_places(void **state)
{
    (void)state;
    assert_int_equal(get(), RC_DENIED);
    static const char *const places[] = {"configuration",
                                         "AWS_ACCESS_KEY_ID",
                                         "AWS_WEB_IDENTITY_TOKEN_FILE",
                                         "~/.aws/credentials",
                                         "AWS_CONTAINER_CREDENTIALS_RELATIVE_URI",
                                         "AWS_EC2_METADATA_DISABLED"};
    for (size_t i = 0; i < sizeof places / sizeof places[0]; i++)
        if (strstr(err.text, places[i]) == NULL) fail_msg("no %s in: %s", places[i], err.text);
}

static void oss_has_variables_of_its_own(void **state)
{
    (void)state;
    struct aws_creds *a;
    struct aws_creds_conf conf = {.oss = true};
    setenv("AWS_ACCESS_KEY_ID", "ENV", 1);
    setenv("AWS_SECRET_ACCESS_KEY", SECRET, 1);
    assert_int_equal(aws_creds_open(&conf, &a, &err), RC_OK);
    assert_int_equal(aws_creds_get(a, NULL, &keys, &err), RC_DENIED);
    assert_non_null(strstr(err.text, "OSS_ACCESS_KEY_ID"));
    setenv("OSS_ACCESS_KEY_ID", "OSS", 1);
    setenv("OSS_ACCESS_KEY_SECRET", SECRET, 1);
    setenv("OSS_SESSION_TOKEN", "sts", 1);
    assert_int_equal(aws_creds_get(a, NULL, &keys, &err), RC_OK);
    assert_string_equal(keys.access_key, "OSS");
    assert_string_equal(keys.token, "sts");
    aws_creds_close(a);
}

/* ---- Files ---- */

static void profiles_are_read_as_the_tools_do(void **state)
{
    (void)state;
    char region[64];
    write_text(".aws/credentials",
               "\xef\xbb\xbf# a comment\r\n; another\r\n\r\n"
               "[ default ]\r\n"
               "aws_access_key_id=DEF\r\n"
               "  AWS_Secret_Access_Key   =   " SECRET " # mine\r\n"
               "unknown = x\r\n"
               "[work]\n"
               "aws_access_key_id = WORK ; theirs\n"
               "aws_secret_access_key = " SECRET "\n"
               "aws_session_token = t#k;n==\n"
               "[profile odd]\naws_access_key_id = NO\naws_secret_access_key = no");
    assert_keys("DEF", "");
    setenv("AWS_PROFILE", "work", 1);
    assert_keys("WORK", "t#k;n==");
    setenv("AWS_PROFILE", "odd", 1);
    assert_fails(RC_DENIED, "profile 'odd'");
    write_text(".aws/config",
               "[default]\nregion = eu-north-1\n"
               "s3 =\n  max_concurrent_requests = 20\n  aws_access_key_id = NO\n no equals\n"
               "[profile   \"odd\"]\naws_access_key_id = ODD\naws_secret_access_key = " SECRET
               "\nregion=eu-odd-1\n"
               "[work]\naws_access_key_id = NO\n"
               "[profile default]\noutput = json\n"
               "[sso-session odd]\nregion = NO\n"
               "[profile work]\naws_access_key_id = NO\n");
    assert_keys("ODD", "");
    aws_region(region);
    assert_string_equal(region, "eu-odd-1");
    setenv("AWS_PROFILE", "work", 1);
    assert_keys("WORK", "t#k;n=="); /* credentials wins over config */
    unsetenv("AWS_PROFILE");
    assert_keys("DEF", "");
    aws_region(region);
    assert_string_equal(region, "eu-north-1");
    setenv("AWS_DEFAULT_REGION", "a", 1);
    aws_region(region);
    assert_string_equal(region, "a");
    setenv("AWS_REGION", "b", 1);
    aws_region(region);
    assert_string_equal(region, "b");
    setenv("AWS_SHARED_CREDENTIALS_FILE", "~/elsewhere", 1);
    write_text("elsewhere", "[default]\naws_access_key_id=ELSE\naws_secret_access_key=" SECRET);
    assert_keys("ELSE", "");
}

static void broken_files_name_their_line(void **state)
{
    (void)state;
    static const struct {
        const char *text, *want;
    } rows[] = {
        {"[default\n", "line 1: a '[' without ']'"},
        {"\n[default]\ns3cr3t\n", "line 3: neither '[section]' nor 'name = value'"},
        {"[default]\n= s3cr3t", "line 2: a value without a name"},
        {"[default]\naws_access_key_id = A\n", "only one of aws_access_key_id"},
        {"[default]\naws_access_key_id = A\naws_secret_access_key = s3cr3t b\n",
         "profile 'default': the secret key holds a character"},
        {"[default]\nrole_arn = r\n", "role_arn wants a source_profile"},
        {"[default]\nrole_arn = r\nsource_profile = a\n[a]\nrole_arn = r\nsource_profile = b\n[b]\n"
         "role_arn = r\nsource_profile = a\n",
         "through more than 5 profiles"},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        write_text(".aws/credentials", rows[i].text);
        assert_fails(RC_INVALID, rows[i].want);
    }
    static const char zero[] = "[default]\naws\0_access_key_id = x\n";
    write_bytes(".aws/credentials", zero, sizeof zero - 1);
    assert_fails(RC_INVALID, "line 2: a zero byte");
    char line[600] = "[default]\naws_secret_access_key = ";
    size_t used = strlen(line);
    memset(line + used, 'q', sizeof line - used - 1);
    line[sizeof line - 1] = '\0';
    write_text(".aws/credentials", line);
    assert_fails(RC_INVALID, "line 2: 'aws_secret_access_key' is longer than 255 bytes");
    assert_null(strstr(err.text, "qqq"));
    static char big[(1 << 20) + 1];
    memset(big, '\n', sizeof big);
    write_bytes(".aws/credentials", big, sizeof big);
    assert_fails(RC_INVALID, "is larger than");
    write_text(".aws/credentials", "[default]\nsso_session = x\n");
    assert_fails(RC_DENIED, "single sign-on");
    write_text(".aws/credentials",
               "[default]\nrole_arn = r\nsource_profile = default\nmfa_serial=m");
    assert_fails(RC_DENIED, "mfa_serial");
    write_text(".aws/credentials", "[default]\nrole_arn = r\nsource_profile = gone\n");
    assert_fails(RC_DENIED, "source_profile 'gone' does not exist");
}

static void set_process(const char *command)
{
    char text[512];
    snprintf(text, sizeof text, "[default]\ncredential_process = %s\n", command);
    write_text(".aws/config", text);
}

static void a_command_gives_keys(void **state)
{
    (void)state;
    char json[512];
    snprintf(json, sizeof json,
             "{\"Version\": 1, \"AccessKeyId\": \"PROC\", \"SecretAccessKey\": \"" SECRET "\","
             " \"SessionToken\": \"tok\", \"Expiration\": \"%s\"}",
             in_seconds(3600));
    write_text("json", json);
    set_process("cat \"$HOME/json\" ; exit 0 # not a comment");
    assert_keys("PROC", "tok");
    assert_in_range(keys.expires_ms, os_now_ms() + 3590000, os_now_ms() + 3601000);
    set_process("echo s3cr3t >/dev/null; exit 3");
    assert_fails(RC_DENIED, "credential_process ended with status 3");
    set_process("kill -9 $$");
    assert_fails(RC_DENIED, "ended with status 137");
    set_process("echo '{\"AccessKeyId\": \"s3cr3t\"'");
    assert_fails(RC_INVALID, "credential_process: the answer is not a JSON object");
    set_process("echo '{\"AccessKeyId\": \"A\"}'");
    assert_fails(RC_INVALID, "there is no secret key");
    set_process("head -c 70000 /dev/zero; sleep 100");
    assert_fails(RC_INVALID, "writes more than 65536 bytes");
    /* What it leaves running in the background keeps nobody waiting. */
    int64_t start_ms = os_mono_ms();
    set_process("cat $HOME/json; sleep 20 2>/dev/null & exit 0");
    assert_keys("PROC", "tok");
    assert_in_range(os_mono_ms() - start_ms, 0, 10000);
    /* A caller who has no time left ends it. */
    struct aws_creds *a;
    set_process("sleep 100");
    struct call c = {.deadline_ms = os_mono_ms() + 200};
    assert_int_equal(aws_creds_open(&(struct aws_creds_conf){0}, &a, &err), RC_OK);
    assert_int_equal(aws_creds_get(a, &c, &keys, &err), RC_CANCELED);
    aws_creds_close(a);
    assert_in_range(os_mono_ms() - c.deadline_ms, 0, 20000);
}

/* Every allocation and syscall of a search fails in turn: it says so, or does without. */
static void a_search_survives_failures(void **state)
{
    (void)state;
    uint64_t fired = 0;
    bool more = true;
    write_text(".aws/credentials", "[other]\naws_access_key_id = NO\n");
    write_text("json", "{\"AccessKeyId\": \"PROC\", \"SecretAccessKey\": \"" SECRET "\"}");
    set_process("cat $HOME/json");
    for (uint64_t n = 1; more && n < 1000; n++) {
        fault_arm(FAULT_ALLOC | FAULT_SYSCALL, n, false);
        struct aws_creds *a = NULL;
        enum rc rc = aws_creds_open(&(struct aws_creds_conf){0}, &a, &err);
        if (rc == RC_OK) rc = aws_creds_get(a, NULL, &keys, &err);
        more = fault_fired();
        fault_arm(0, 0, false);
        fired += more;
        assert_true(rc != RC_NOT_FOUND && rc != RC_UNSUPPORTED);
        if (rc == RC_OK)
            assert_string_equal(keys.access_key, "PROC");
        else if (!more || err.text[0] == '\0')
            fail_msg("step %llu: %s: %s", (unsigned long long)n, rc_name(rc), err.text);
        aws_creds_close(a);
    }
    assert_false(more);
    assert_in_range(fired, 8, 100);
}

/* ---- Services ---- */

static void push_json(struct peer *p, const char *access, const char *token, int64_t lifetime_s)
{
    char body[512];
    snprintf(body, sizeof body,
             "{\"Code\": \"Success\", \"AccessKeyId\": \"%s\", \"SecretAccessKey\": \"" SECRET
             "\", \"Token\": \"%s\", \"Expiration\": \"%s\"}",
             access, token, in_seconds(lifetime_s));
    peer_push(p, &(struct peer_resp){.body = body, .body_size = strlen(body)});
}

static void push_text(struct peer *p, int status, const char *text)
{
    peer_push(p, &(struct peer_resp){.status = status, .body = text, .body_size = strlen(text)});
}

static void push_sts(struct peer *p, const char *action, const char *access, int64_t lifetime_s)
{
    char body[1024];
    snprintf(body, sizeof body,
             "<%sResponse xmlns=\"https://sts.amazonaws.com/doc/2011-06-15/\"><%sResult>"
             "<Credentials><AccessKeyId>%s</AccessKeyId><SecretAccessKey>" SECRET
             "</SecretAccessKey><SessionToken>sts-token</SessionToken><Expiration>%s</Expiration>"
             "</Credentials></%sResult></%sResponse>",
             action, action, access, in_seconds(lifetime_s), action, action);
    push_text(p, 200, body);
}

static void assert_request(struct peer *p, unsigned i, const char *method, const char *target)
{
    assert_true(peer_count(p) > i);
    assert_string_equal(peer_at(p, i)->method, method);
    assert_string_equal(peer_at(p, i)->target, target);
}

static struct peer *metadata_peer(void)
{
    struct peer *p = peer_start(NULL, NULL);
    unsetenv("AWS_EC2_METADATA_DISABLED");
    setenv("AWS_EC2_METADATA_SERVICE_ENDPOINT", peer_url(p), 1);
    return p;
}

static void an_instance_has_metadata(void **state)
{
    (void)state;
    struct peer *p = metadata_peer();
    push_text(p, 200, "imds-token");
    push_text(p, 200, "my-role\n");
    push_json(p, "IMDS", "tok", 3600);
    assert_keys("IMDS", "tok");
    assert_int_equal(peer_count(p), 3);
    assert_request(p, 0, "PUT", "/latest/api/token");
    assert_request(p, 1, "GET", "/latest/meta-data/iam/security-credentials/");
    assert_request(p, 2, "GET", "/latest/meta-data/iam/security-credentials/my-role");
    assert_string_equal(peer_header(peer_at(p, 0), "x-aws-ec2-metadata-token-ttl-seconds"),
                        "21600");
    assert_string_equal(peer_header(peer_at(p, 1), "x-aws-ec2-metadata-token"), "imds-token");
    assert_string_equal(peer_header(peer_at(p, 2), "x-aws-ec2-metadata-token"), "imds-token");
    peer_stop(p);
}

static void metadata_in_trouble(void **state)
{
    (void)state;
    struct peer *p = metadata_peer();
    push_text(p, 200, "imds-token");
    push_text(p, 404, "");
    assert_fails(RC_DENIED, "instance metadata (the instance has no role)");
    push_text(p, 403, "");
    assert_fails(RC_DENIED, "instance metadata (status 403 from http://127.0.0.1");
    push_text(p, 200, "imds-token");
    push_text(p, 200, "../../s3cr3t");
    assert_fails(RC_AGAIN, "not the name of a role");
    push_text(p, 200, "imds-token");
    push_text(p, 200, "role");
    push_text(p, 200, "{\"Code\": \"AssumeRoleUnauthorizedAccess\"}");
    assert_fails(RC_DENIED, "AssumeRoleUnauthorizedAccess");
    push_text(p, 200, "imds-token");
    push_text(p, 200, "role");
    push_text(p, 200, "s3cr3t");
    assert_fails(RC_AGAIN, "instance metadata: the answer is not a JSON object");
    push_text(p, 200, "imds-token");
    push_text(p, 200, "role");
    push_json(p, "OLD", "tok", -60);
    assert_fails(RC_AGAIN, "have expired already");
    assert_int_equal(peer_left(p), 0);
    /* One that has trouble for a moment is asked again. */
    peer_forget(p);
    push_text(p, 503, "");
    push_text(p, 200, "imds-token");
    push_text(p, 500, "");
    push_text(p, 200, "role");
    push_json(p, "IMDS", "tok", 3600);
    assert_keys("IMDS", "tok");
    assert_int_equal(peer_count(p), 5);
    peer_stop(p);
}

static void without_metadata_the_search_is_short(void **state)
{
    (void)state;
    struct peer *p = metadata_peer();
    peer_push(p, &(struct peer_resp){.delay_ms = 60000});
    int64_t start_ms = os_mono_ms();
    assert_fails(RC_DENIED, "instance metadata (no answer from http://127.0.0.1");
    assert_in_range(os_mono_ms() - start_ms, 0, 15000);
    peer_stop(p); /* from here on the connection is refused */
    start_ms = os_mono_ms();
    assert_fails(RC_DENIED, "instance metadata (no answer from http://127.0.0.1");
    assert_in_range(os_mono_ms() - start_ms, 0, 15000);
}

static void a_container_has_an_agent(void **state)
{
    (void)state;
    struct peer *p = peer_start(NULL, NULL);
    char url[128];
    snprintf(url, sizeof url, "%s/v1/creds?a=b", peer_url(p));
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", url, 1);
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN", "Bearer one", 1);
    push_json(p, "BOX", "tok", 3600);
    assert_keys("BOX", "tok");
    assert_request(p, 0, "GET", "/v1/creds?a=b");
    assert_string_equal(peer_header(peer_at(p, 0), "Authorization"), "Bearer one");
    write_text("token", "Bearer two\n");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", at("token"), 1);
    push_json(p, "BOX", "tok", 3600);
    assert_keys("BOX", "tok");
    assert_string_equal(peer_header(peer_at(p, 1), "Authorization"), "Bearer two");
    push_text(p, 404, "s3cr3t");
    assert_fails(RC_DENIED, "container credentials: 404");
    push_text(p, 200, "{}");
    assert_fails(RC_AGAIN, "container credentials: there is no access key");
    setenv("AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE", at("gone"), 1);
    assert_fails(RC_DENIED, "AWS_CONTAINER_AUTHORIZATION_TOKEN_FILE");
    unsigned count = peer_count(p);
    static const char *const strangers[] = {"http://example.com/",
                                            "http://10.0.0.1/",
                                            "http://169.254.170.2.example.com/x",
                                            "file:///etc/passwd",
                                            "http://[fd00:ec2::24]/x",
                                            "http://127.0.0.1@example.com/",
                                            "/relative"};
    for (size_t i = 0; i < sizeof strangers / sizeof strangers[0]; i++) {
        setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", strangers[i], 1);
        assert_fails(RC_INVALID, "AWS_CONTAINER_CREDENTIALS_FULL_URI wants to be https");
    }
    setenv("AWS_CONTAINER_CREDENTIALS_RELATIVE_URI", ".example.com/", 1);
    assert_fails(RC_INVALID, "does not start with '/'");
    assert_int_equal(peer_count(p), count);
    peer_stop(p);
}

static struct peer *web_peer(void)
{
    struct peer *p = peer_start(NULL, NULL);
    write_text("jwt", "head.s3cr3t+/=.tail\n");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", at("jwt"), 1);
    setenv("AWS_ROLE_ARN", "arn:aws:iam::123:role/x", 1);
    setenv("AWS_ENDPOINT_URL_STS", peer_url(p), 1);
    return p;
}

static void a_web_identity_becomes_a_role(void **state)
{
    (void)state;
    struct peer *p = web_peer();
    setenv("AWS_ROLE_SESSION_NAME", "me", 1);
    push_sts(p, "AssumeRoleWithWebIdentity", "WEB", 3600);
    assert_keys("WEB", "sts-token");
    assert_request(p, 0, "POST", "/");
    assert_string_equal((const char *)peer_at(p, 0)->body,
                        "Action=AssumeRoleWithWebIdentity&Version=2011-06-15"
                        "&RoleArn=arn%3Aaws%3Aiam%3A%3A123%3Arole%2Fx&RoleSessionName=me"
                        "&WebIdentityToken=head.s3cr3t%2B%2F%3D.tail");
    assert_null(peer_header(peer_at(p, 0), "Authorization"));
    assert_string_equal(peer_header(peer_at(p, 0), "Content-Type"),
                        "application/x-www-form-urlencoded");
    push_text(p, 400,
              "<ErrorResponse><Error><Code>ExpiredTokenException</Code>"
              "<Message>too\nlate</Message></Error></ErrorResponse>");
    assert_fails(RC_DENIED, "ExpiredTokenException: too late");
    push_text(p, 400,
              "<ErrorResponse><Error><Code>IDPCommunicationError</Code></Error>"
              "</ErrorResponse>");
    push_sts(p, "AssumeRoleWithWebIdentity", "WEB", 3600);
    assert_keys("WEB", "sts-token");
    push_sts(p, "AssumeRole", "WEB", 3600);
    assert_fails(RC_AGAIN, "STS AssumeRoleWithWebIdentity: the answer has no AccessKeyId");
    push_text(p, 200, "<broken");
    assert_fails(RC_AGAIN, "the answer has no AccessKeyId");
    unsigned count = peer_count(p);
    write_text("jwt", "\n");
    assert_fails(RC_INVALID, "is empty");
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", at("gone"), 1);
    assert_fails(RC_DENIED, "web identity token");
    unsetenv("AWS_ROLE_ARN");
    assert_fails(RC_INVALID, "without AWS_ROLE_ARN");
    setenv("AWS_ROLE_ARN", "x", 1);
    setenv("AWS_WEB_IDENTITY_TOKEN_FILE", at("jwt"), 1);
    write_text("jwt", "x");
    setenv("AWS_ENDPOINT_URL_STS", "http://user:s3cr3t@localhost", 1);
    assert_fails(RC_INVALID, "https://host:port");
    unsetenv("AWS_ENDPOINT_URL_STS");
    setenv("AWS_REGION", "evil.example.com/", 1);
    assert_fails(RC_INVALID, "is not the name of a region");
    assert_int_equal(peer_count(p), count);
    peer_stop(p);
}

static void a_profile_takes_on_a_role(void **state)
{
    (void)state;
    struct peer *p = peer_start(NULL, NULL);
    setenv("AWS_ENDPOINT_URL", peer_url(p), 1);
    write_text(".aws/credentials", "[base]\naws_access_key_id = BASE\n"
                                   "aws_secret_access_key = " SECRET "\naws_session_token = bt\n");
    write_text(".aws/config", "[default]\nrole_arn = arn:r\nsource_profile = base\n"
                              "external_id = e/x\nduration_seconds = 900\nregion = eu-south-2\n"
                              "role_session_name = s\n"
                              "[profile two]\nrole_arn = arn:two\nsource_profile = default\n"
                              "[profile env]\nrole_arn = arn:env\n"
                              "credential_source = Environment\n");
    push_sts(p, "AssumeRole", "ROLE", 900);
    assert_keys("ROLE", "sts-token");
    const struct peer_req *r = peer_at(p, 0);
    assert_string_equal((const char *)r->body,
                        "Action=AssumeRole&Version=2011-06-15&RoleArn=arn%3Ar&RoleSessionName=s"
                        "&DurationSeconds=900&ExternalId=e%2Fx");
    const char *auth = peer_header(r, "Authorization");
    assert_non_null(auth);
    assert_non_null(strstr(auth, "AWS4-HMAC-SHA256 Credential=BASE/"));
    assert_non_null(strstr(auth, "/eu-south-2/sts/aws4_request"));
    assert_non_null(strstr(auth, "SignedHeaders=host;x-amz-date;x-amz-security-token"));
    assert_string_equal(peer_header(r, "x-amz-security-token"), "bt");
    /* A role of a role: two questions, the second with the first one's keys. */
    peer_forget(p);
    setenv("AWS_PROFILE", "two", 1);
    push_sts(p, "AssumeRole", "ONE", 900);
    push_sts(p, "AssumeRole", "TWO", 900);
    assert_keys("TWO", "sts-token");
    assert_non_null(strstr(peer_header(peer_at(p, 1), "Authorization"), "Credential=ONE/"));
    push_text(p, 403, "<ErrorResponse><Error><Code>AccessDenied</Code></Error></ErrorResponse>");
    assert_fails(RC_DENIED, "AccessDenied");
    assert_non_null(strstr(err.text, "profile 'two': source_profile 'default'"));
    setenv("AWS_PROFILE", "env", 1);
    assert_fails(RC_DENIED, "credential_source 'Environment' has no access keys");
    peer_stop(p);
}

/* ---- Many threads, and time ---- */

struct crowd {
    struct aws_creds *a;
    struct aws_keys keys[16];
    enum rc rc[16];
};

static enum rc crowd_get(void *ctx, uint64_t i, struct err *e)
{
    struct crowd *c = ctx;
    struct err mine = {0};
    (void)e;
    c->rc[i] = aws_creds_get(c->a, NULL, &c->keys[i], &mine);
    return RC_OK;
}

static void assert_crowd(struct crowd *c, enum rc rc, const char *access)
{
    assert_int_equal(thr_each(16, 16, crowd_get, c, &err), RC_OK);
    for (int i = 0; i < 16; i++) {
        assert_int_equal(c->rc[i], rc);
        if (rc == RC_OK) assert_string_equal(c->keys[i].access_key, access);
    }
}

static void sixteen_threads_ask_once(void **state)
{
    (void)state;
    static struct crowd c;
    struct aws_creds *other;
    struct peer *p = peer_start(NULL, NULL);
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", peer_url(p), 1);
    assert_int_equal(aws_creds_open(&(struct aws_creds_conf){0}, &c.a, &err), RC_OK);
    char body[] = "{\"AccessKeyId\": \"A1\", \"SecretAccessKey\": \"" SECRET "\"}";
    peer_push(p, &(struct peer_resp){.body = body, .body_size = strlen(body), .delay_ms = 150});
    assert_crowd(&c, RC_OK, "A1");
    assert_int_equal(peer_count(p), 1);
    /* Another store finds the same. */
    assert_int_equal(aws_creds_open(&(struct aws_creds_conf){0}, &other, &err), RC_OK);
    assert_int_equal(aws_creds_get(other, NULL, &keys, &err), RC_OK);
    assert_string_equal(keys.access_key, "A1");
    aws_creds_close(other);
    assert_int_equal(peer_count(p), 1);
    /* Refused as expired: one more question; the same keys again are no news. */
    assert_true(aws_creds_expired(c.a, &c.keys[0]));
    peer_push(p, &(struct peer_resp){.body = body, .body_size = strlen(body), .delay_ms = 100});
    assert_crowd(&c, RC_OK, "A1");
    assert_int_equal(peer_count(p), 2);
    assert_false(aws_creds_expired(c.a, &c.keys[0]));
    /* A failure is shared like success: one question, not sixteen. */
    peer_push(p, &(struct peer_resp){.status = 403, .delay_ms = 1500});
    assert_crowd(&c, RC_DENIED, NULL);
    assert_int_equal(peer_count(p), 3);
    aws_creds_close(c.a);
    peer_stop(p);
}

static void old_keys_serve_until_they_expire(void **state)
{
    (void)state;
    struct aws_creds *a;
    struct peer *p = peer_start(NULL, NULL);
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", peer_url(p), 1);
    assert_int_equal(aws_creds_open(&(struct aws_creds_conf){0}, &a, &err), RC_OK);
    /* Good for twenty seconds: due for renewal at once, but not within a minute of the last try. */
    push_json(p, "A1", "t", 20);
    for (int i = 0; i < 10; i++) {
        assert_int_equal(aws_creds_get(a, NULL, &keys, &err), RC_OK);
        assert_string_equal(keys.access_key, "A1");
    }
    assert_int_equal(peer_count(p), 1);
    /* Expired: they are not given out any more. */
    thr_lock(&a->lock);
    a->keys.expires_ms = os_now_ms();
    thr_unlock(&a->lock);
    push_text(p, 400, "");
    assert_int_equal(aws_creds_get(a, NULL, &keys, &err), RC_DENIED);
    push_json(p, "A2", "t", 3600);
    assert_int_equal(aws_creds_get(a, NULL, &keys, &err), RC_OK);
    assert_string_equal(keys.access_key, "A2");
    assert_true(aws_creds_expired(a, &keys));
    assert_true(aws_creds_expired(a, &(struct aws_keys){.access_key = "A1"})); /* old news */
    push_json(p, "A3", "t", 3600);
    assert_int_equal(aws_creds_get(a, NULL, &keys, &err), RC_OK);
    assert_string_equal(keys.access_key, "A3");
    assert_int_equal(peer_count(p), 4);
    aws_creds_close(a);
    peer_stop(p);
}

/* As if a minute had gone by. */
static void end_pause(struct aws_creds *a)
{
    thr_lock(&a->lock);
    a->pause_until_ms = 0;
    thr_unlock(&a->lock);
}

static void renewal_keeps_nobody_waiting(void **state)
{
    (void)state;
    static struct crowd c;
    struct peer *p = peer_start(NULL, NULL);
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", peer_url(p), 1);
    assert_int_equal(aws_creds_open(&(struct aws_creds_conf){0}, &c.a, &err), RC_OK);
    push_json(p, "A1", "t", 200); /* less than five minutes: due, and good */
    assert_crowd(&c, RC_OK, "A1");
    assert_int_equal(peer_count(p), 1);
    /* The renewal fails: the old keys are good, and nobody asks again at once. */
    end_pause(c.a);
    push_text(p, 403, "");
    assert_crowd(&c, RC_OK, "A1");
    assert_crowd(&c, RC_OK, "A1");
    assert_int_equal(peer_count(p), 2);
    /* While one thread renews, the others go on with what they have. */
    end_pause(c.a);
    char body[256];
    snprintf(body, sizeof body,
             "{\"AccessKeyId\": \"A2\", \"SecretAccessKey\": \"" SECRET
             "\", \"Expiration\": \"%s\"}",
             in_seconds(3600));
    peer_push(p, &(struct peer_resp){.body = body, .body_size = strlen(body), .delay_ms = 1500});
    assert_int_equal(thr_each(16, 16, crowd_get, &c, &err), RC_OK);
    int renewed = 0;
    for (int i = 0; i < 16; i++) {
        assert_int_equal(c.rc[i], RC_OK);
        renewed += strcmp(c.keys[i].access_key, "A2") == 0;
    }
    assert_int_equal(renewed, 1);
    assert_int_equal(peer_count(p), 3);
    assert_crowd(&c, RC_OK, "A2");
    end_pause(c.a);
    assert_crowd(&c, RC_OK, "A2"); /* an hour is not due */
    assert_int_equal(peer_count(p), 3);
    aws_creds_close(c.a);
    peer_stop(p);
}

static void *get_slowly(void *arg)
{
    struct err mine;
    static struct aws_keys got;
    return aws_creds_get(arg, NULL, &got, &mine) == RC_OK ? arg : NULL;
}

static void who_waits_may_be_called_off(void **state)
{
    (void)state;
    struct aws_creds *a;
    pthread_t thread;
    void *result;
    struct peer *p = peer_start(NULL, NULL);
    setenv("AWS_CONTAINER_CREDENTIALS_FULL_URI", peer_url(p), 1);
    assert_int_equal(aws_creds_open(&(struct aws_creds_conf){0}, &a, &err), RC_OK);
    char body[] = "{\"AccessKeyId\": \"A1\", \"SecretAccessKey\": \"" SECRET "\"}";
    peer_push(p, &(struct peer_resp){.body = body, .body_size = strlen(body), .delay_ms = 2000});
    assert_int_equal(thr_start(&thread, "slow", get_slowly, a, &err), RC_OK);
    for (bool asked = false; !asked; os_sleep_ms(1)) {
        thr_lock(&a->lock);
        asked = a->fetching;
        thr_unlock(&a->lock);
    }
    struct call c = {.deadline_ms = os_mono_ms() + 100};
    assert_int_equal(aws_creds_get(a, &c, &keys, &err), RC_CANCELED);
    thr_lock(&a->lock);
    assert_true(a->fetching);
    thr_unlock(&a->lock);
    pthread_join(thread, &result);
    assert_ptr_equal(result, a);
    assert_int_equal(peer_count(p), 1);
    aws_creds_close(a);
    peer_stop(p);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(given_keys_come_first),
        TEST(environment_in_both_spellings),
        TEST(nothing_anywhere_lists_the_places),
        TEST(oss_has_variables_of_its_own),
        TEST(profiles_are_read_as_the_tools_do),
        TEST(broken_files_name_their_line),
        TEST(a_command_gives_keys),
        TEST(a_search_survives_failures),
        TEST(an_instance_has_metadata),
        TEST(metadata_in_trouble),
        TEST(without_metadata_the_search_is_short),
        TEST(a_container_has_an_agent),
        TEST(a_web_identity_becomes_a_role),
        TEST(a_profile_takes_on_a_role),
        TEST(sixteen_threads_ask_once),
        TEST(old_keys_serve_until_they_expire),
        TEST(renewal_keeps_nobody_waiting),
        TEST(who_waits_may_be_called_off),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
