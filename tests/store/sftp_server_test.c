/* sftp_server_test.c -- the suite, keys and trouble, on OpenSSH's sshd (tests/servers/sftp). */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/time.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/buf.h"
#include "base/mem.h"
#include "base/os.h"
#include "store/conformance.h"
#include "store/server.h"

#define BIG_SIZE   (9u << 20)
#define ok(expr)   assert_ok((expr), __LINE__)
#define PATH_SIZE  600
#define says(word) assert_says(word, __LINE__)

static struct server server;
static char port[8], user[64], key[128], host_key[256], fingerprint[64], root[128];
static struct err err;

static void assert_ok(enum rc rc, int line)
{
    if (rc != RC_OK) fail_msg("line %d: %s: %s", line, rc_name(rc), err.text);
}

static void assert_says(const char *word, int line)
{
    if (strstr(err.text, word) == NULL)
        fail_msg("line %d: '%s' is not in '%s'", line, word, err.text);
}

static void take_values(const struct server *s)
{
    server_value(s, "PORT", port, sizeof port);
    server_value(s, "USER_NAME", user, sizeof user);
    server_value(s, "KEY", key, sizeof key);
    server_value(s, "HOST_KEY", host_key, sizeof host_key);
    server_value(s, "FINGERPRINT", fingerprint, sizeof fingerprint);
    server_value(s, "ROOT", root, sizeof root);
}

static void url_of(const char *name, char url[256])
{
    snprintf(url, 256, "sftp://%s@127.0.0.1:%s%s/%s", user, port, root, name);
}

/* NULL: without that setting. */
static struct store *open_as(const char *url, const char *key_path, const char *known)
{
    struct store *s = NULL;
    struct store_setting settings[2];
    size_t count = 0;
    if (key_path != NULL) settings[count++] = (struct store_setting){"key-path", key_path};
    if (known != NULL) settings[count++] = (struct store_setting){"host-key", known};
    const struct store_conf conf = {.url = url, .settings = settings, .setting_count = count};
    ok(store_open_conf(&conf, &s, &err));
    return s;
}

static struct store *open_right(const char *url)
{
    return open_as(url, key, host_key);
}

static void prepare(unsigned unique, char url[256])
{
    char name[32];
    snprintf(name, sizeof name, "c%u/a%%20root", unique);
    url_of(name, url);
}

static void clean(const char *url)
{
    char path[PATH_SIZE];
    const char *name = strstr(url, "/c");
    assert_non_null(strstr(url, root));
    name = strstr(url, root) + strlen(root);
    snprintf(path, sizeof path, "%s%.*s", root, (int)strcspn(name + 1, "/") + 1, name);
    assert_int_equal(tree_remove(path), 0);
    assert_int_not_equal(access(path, F_OK), 0);
}

static enum rc put_text(struct store *s, const struct call *c, const char *name, const char *text)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, c, name, &body, NULL, NULL, &err);
}

static enum rc create_text(struct store *s, const char *name, const char *text)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, NULL, name, &body, &(struct store_put_opts){.if_absent = true}, NULL, &err);
}

static enum rc into_buf(void *ctx, const void *data, size_t size, struct err *e)
{
    return buf_append(ctx, data, size, e);
}

static void assert_text(struct store *s, const char *name, const char *text)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    ok(store_get(s, NULL, name, NULL, into_buf, &b, &err));
    assert_int_equal(b.size, strlen(text));
    assert_memory_equal(b.data, text, b.size);
}

static enum rc into_lines(void *ctx, const struct store_obj *obj, struct err *e)
{
    return buf_printf(ctx, e, "%s %llu\n", obj->key, (unsigned long long)obj->size);
}

static void assert_list(struct store *s, const char *lines)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    ok(store_list(s, NULL, "", NULL, into_lines, &b, &err));
    ok(buf_append(&b, "", 1, &err));
    assert_string_equal((char *)b.data, lines);
}

/* ---- Who the server is ---- */

static void assert_reach(const char *key_path, const char *known, enum rc want, int line)
{
    char url[256];
    url_of("k", url);
    struct call c = {.deadline_ms = os_mono_ms() + 20000};
    struct store *s = open_as(url, key_path, known);
    enum rc rc = put_text(s, &c, "o", "x");
    if (rc != want) fail_msg("line %d: %s: %s", line, rc_name(rc), rc == RC_OK ? "" : err.text);
    store_close(s);
}
#define reach(key_path, known, want) assert_reach(key_path, known, want, __LINE__)

static void read_text(const char *name, char *out, size_t out_size)
{
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", server.dir, name);
    ok(os_read_file(path, 1 << 16, &b, &err));
    snprintf(out, out_size, "%.*s", (int)b.size, (char *)b.data);
}

static void write_text(const char *name, const char *text)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/%s", server.dir, name);
    ok(os_write_file(path, text, strlen(text), 0600, &err));
}

static void test_host_key_given(void **state)
{
    (void)state;
    char rsa[1024], stranger[512], wrong[64];
    read_text("host_rsa.pub", rsa, sizeof rsa);
    read_text("stranger.pub", stranger, sizeof stranger);
    reach(key, host_key, RC_OK);
    reach(key, fingerprint, RC_OK);
    reach(key, rsa, RC_OK); /* the server shows another one unless it is asked for this */
    reach(key, "insecure-ignore", RC_OK);
    reach(key, stranger, RC_DENIED);
    says("may be an attack");
    says(fingerprint);
    snprintf(wrong, sizeof wrong, "%s", fingerprint);
    wrong[10] = wrong[10] == 'A' ? 'B' : 'A';
    reach(key, wrong, RC_DENIED);
    says("may be an attack");
}

static void test_host_key_setting(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "yes", "SHA256:abc", "ssh-ed25519", "ssh-ed25519 %%%", "ssh-rsa AAAA", "accept-all"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        struct store *s = NULL;
        const struct store_setting set = {"host-key", bad[i]};
        const struct store_conf conf = {.url = "sftp://h/p", .settings = &set, .setting_count = 1};
        assert_int_equal(store_open_conf(&conf, &s, &err), RC_INVALID);
        says("host-key");
    }
}

static void test_known_hosts(void **state)
{
    (void)state;
    char line[700], known[1024];
    reach(key, NULL, RC_DENIED); /* there is no known_hosts yet */
    says("unknown");
    says(fingerprint);
    says(host_key); /* the very line to put there */
    reach(key, "accept-new", RC_OK);
    read_text("home/.ssh/known_hosts", known, sizeof known);
    assert_non_null(strstr(known, host_key));
    reach(key, NULL, RC_OK);
    reach(key, "accept-new", RC_OK);
    char stranger[512];
    read_text("stranger.pub", stranger, sizeof stranger);
    snprintf(line, sizeof line, "[127.0.0.1]:%s %s", port, stranger);
    write_text("home/.ssh/known_hosts", line);
    reach(key, NULL, RC_DENIED);
    says("CHANGED");
    says(fingerprint);
    reach(key, "accept-new", RC_DENIED); /* new is not changed */
    says("CHANGED");
    snprintf(line, sizeof line, "other.example %s", stranger);
    write_text("home/.ssh/known_hosts", line);
    reach(key, NULL, RC_DENIED);
    says("unknown");
    write_text("home/.ssh/known_hosts", "");
}

/* ---- Who we are ---- */

static void test_keys(void **state)
{
    (void)state;
    char path[PATH_SIZE], text[2048], url[256];
    snprintf(path, sizeof path, "%s/stranger", server.dir);
    reach(path, host_key, RC_DENIED);
    says("does not let in user");
    says("a key");
    snprintf(path, sizeof path, "%s/locked", server.dir);
    reach(path, host_key, RC_DENIED);
    says("passphrase");
    says("ssh-agent");
    snprintf(path, sizeof path, "%s/missing", server.dir);
    reach(path, host_key, RC_DENIED);
    says(path);
    snprintf(path, sizeof path, "%s/log", server.dir);
    reach(path, host_key, RC_DENIED);
    says("cannot be read as a private key");
    reach(NULL, host_key, RC_DENIED); /* neither an agent nor default keys */
    says("default keys");
    read_text("client", text, sizeof text);
    write_text("home/.ssh/id_ed25519", text);
    reach(NULL, host_key, RC_OK);
    reach("~/.ssh/id_ed25519", host_key, RC_OK);
    snprintf(path, sizeof path, "%s/home/.ssh/id_ed25519", server.dir);
    assert_int_equal(unlink(path), 0);
    /* A password: this server knows none that is right. */
    snprintf(url, sizeof url, "sftp://%s:s3cret%%40@127.0.0.1:%s%s/k", user, port, root);
    struct store *s = open_as(url, NULL, host_key);
    assert_int_equal(put_text(s, NULL, "o", "x"), RC_DENIED);
    says("the password");
    assert_null(strstr(err.text, "s3cret"));
    assert_null(strstr(store_name(s), "s3cret"));
    store_close(s);
}

static void test_agent(void **state)
{
    (void)state;
    char command[1024], line[256], sock[128];
    int pid = 0;
    snprintf(sock, sizeof sock, "%s/agent", server.dir);
    snprintf(command, sizeof command, "ssh-agent -s -a %s 2>/dev/null", sock);
    FILE *f = popen(command, "r");
    assert_non_null(f);
    while (fgets(line, sizeof line, f) != NULL)
        if (strstr(line, "SSH_AGENT_PID=") == line) pid = atoi(strchr(line, '=') + 1);
    pclose(f);
    if (pid == 0) skip();
    setenv("SSH_AUTH_SOCK", sock, 1);
    reach(NULL, host_key, RC_DENIED); /* it has no key yet */
    snprintf(command, sizeof command, "ssh-add -q %s", key);
    int added = system(command);
    char url[256];
    url_of("k", url);
    struct store *s = open_as(url, NULL, host_key);
    enum rc rc = put_text(s, NULL, "o", "x");
    store_close(s);
    unsetenv("SSH_AUTH_SOCK");
    kill(pid, SIGTERM);
    assert_int_equal(added, 0);
    ok(rc);
}

/* ---- Settings ---- */

static void test_settings(void **state)
{
    (void)state;
    char host[64], path[PATH_SIZE], relative[256];
    struct store *s = NULL;
    snprintf(host, sizeof host, "127.0.0.1:%s", port);
    snprintf(path, sizeof path, "%s//by-settings/", root);
    struct store_setting set[] = {{"host", host},    {"user", user},
                                  {"key-path", key}, {"host-key", host_key},
                                  {"path", path},    {"concurrent-writes", "false"}};
    struct store_conf conf = {.type = "sftp", .settings = set, .setting_count = 6};
    ok(store_open_conf(&conf, &s, &err));
    ok(put_text(s, NULL, "a/b", "hello"));
    assert_text(s, "a/b", "hello");
    snprintf(path, sizeof path, "sftp://%s@127.0.0.1:%s%s/by-settings", user, port, root);
    assert_string_equal(store_name(s), path);
    store_close(s);
    snprintf(path, sizeof path, "%s/by-settings/a/b", root);
    assert_int_equal(access(path, F_OK), 0);
    /* Relative: below the folder that a log-in begins in. */
    snprintf(relative, sizeof relative, "sluice-sftp-%d", (int)getpid());
    set[4].value = relative;
    ok(store_open_conf(&conf, &s, &err));
    ok(put_text(s, NULL, "a", "hello"));
    assert_list(s, "a 5\n");
    ok(store_del(s, NULL, &(const char *){"a"}, 1, &err));
    store_close(s);
    snprintf(path, sizeof path, "rmdir \"$(getent passwd %s | cut -d: -f6)/%s\"", user, relative);
    assert_int_equal(system(path), 0);
    set[0].key = "hosts";
    assert_int_equal(store_open_conf(&conf, &s, &err), RC_INVALID);
    assert_int_equal(store_open("sftp:///no/host", &s, &err), RC_INVALID);
    says("host");
    set[0] = (struct store_setting){"host", "[::1"};
    assert_int_equal(store_open_conf(&conf, &s, &err), RC_INVALID);
}

/* ---- Trouble ---- */

/* Byte i is a function of i. At the byte `at` the server is stopped and started again. */
struct breaker {
    uint64_t at, off;
    unsigned breaks;
    bool wrong;
};

static uint8_t byte_of(uint64_t off)
{
    return (uint8_t)(off * 2654435761u >> 11);
}

static void break_at(struct breaker *b, uint64_t off, size_t size)
{
    if (off > b->at || off + size <= b->at || b->breaks == 0) return;
    b->breaks--;
    assert_int_equal(server_run(&server, "stop", ""), 0);
    assert_int_equal(server_run(&server, "start", ""), 0);
}

static enum rc breaking_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)e;
    for (size_t i = 0; i < size; i++)
        ((uint8_t *)dst)[i] = byte_of(off + i);
    break_at(ctx, off, size);
    return RC_OK;
}

static enum rc breaking_sink(void *ctx, const void *data, size_t size, struct err *e)
{
    struct breaker *b = ctx;
    (void)e;
    for (size_t i = 0; i < size; i++)
        b->wrong |= ((const uint8_t *)data)[i] != byte_of(b->off + i);
    break_at(b, b->off, size);
    b->off += size;
    return RC_OK;
}

static void test_restart(void **state)
{
    (void)state;
    char url[256];
    struct store_obj obj;
    struct breaker b = {.at = 5u << 20, .breaks = 2};
    struct store_body body = {.size = BIG_SIZE, .read = breaking_read, .ctx = &b};
    url_of("restart", url);
    struct store *s = open_right(url);
    ok(store_put(s, NULL, "x/big", &body, NULL, &obj, &err));
    assert_int_equal(b.breaks, 0);
    assert_int_equal(obj.size, BIG_SIZE);
    assert_list(s, "x/big 9437184\n");
    b = (struct breaker){.at = 4u << 20, .breaks = 1};
    ok(store_get(s, NULL, "x/big", NULL, breaking_sink, &b, &err)); /* and goes on there */
    assert_int_equal(b.breaks, 0);
    assert_int_equal(b.off, BIG_SIZE);
    assert_false(b.wrong);
    /* Connections that idle when the server goes cost one try, unseen. */
    assert_int_equal(server_run(&server, "stop", ""), 0);
    assert_int_equal(server_run(&server, "start", ""), 0);
    ok(put_text(s, NULL, "x/after", "y"));
    assert_text(s, "x/after", "y");
    store_close(s);
    clean(url);
}

static void test_no_server(void **state)
{
    (void)state;
    char url[256];
    url_of("gone", url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "k", "x"));
    assert_int_equal(server_run(&server, "stop", ""), 0);
    int64_t start = os_mono_ms();
    struct call c = {.deadline_ms = start + 1500};
    enum rc rc = put_text(s, &c, "k", "y");
    int64_t took = os_mono_ms() - start;
    assert_int_equal(server_run(&server, "start", ""), 0);
    assert_true(rc == RC_AGAIN || rc == RC_CANCELED);
    assert_true(took < 3000);
    assert_text(s, "k", "x");
    ok(put_text(s, NULL, "k", "z"));
    assert_text(s, "k", "z");
    store_close(s);
    clean(url);
}

/* A server that takes connections and says nothing: the limit is ours. */
static void test_silent_server(void **state)
{
    (void)state;
    char url[256];
    url_of("silent", url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "k", "x"));
    char command[1024];
    snprintf(command, sizeof command, "kill -STOP $(cat %s/pid) $(ps -o pid= --ppid $(cat %s/pid))",
             server.dir, server.dir);
    assert_int_equal(system(command), 0);
    int64_t start = os_mono_ms();
    struct call c = {.deadline_ms = start + 700};
    enum rc rc = put_text(s, &c, "k", "y");
    int64_t took = os_mono_ms() - start;
    snprintf(command, sizeof command, "kill -CONT $(cat %s/pid) $(ps -o pid= --ppid $(cat %s/pid))",
             server.dir, server.dir);
    assert_int_equal(system(command), 0);
    assert_int_equal(rc, RC_CANCELED);
    assert_in_range(took, 500, 4000);
    ok(put_text(s, NULL, "k", "z"));
    assert_text(s, "k", "z");
    store_close(s);
    tree_remove(strstr(url, root)); /* the cancelled put could not tidy up */
}

static void test_stale_files(void **state)
{
    (void)state;
    static const struct {
        const char *name;
        int days;
        bool stays;
    } files[] = {
        {STORE_TMP_PREFIX "old", 2, false}, {STORE_TMP_PREFIX "new", 0, true}, {"old", 2, true}};
    char url[256], path[PATH_SIZE];
    url_of("stale", url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "ltx/first", "x"));
    for (size_t i = 0; i < 3; i++) {
        struct timeval t[2] = {{.tv_sec = os_now_ms() / 1000 - files[i].days * 86400}};
        t[1] = t[0];
        snprintf(path, sizeof path, "%s/stale/ltx/%s", root, files[i].name);
        ok(os_write_file(path, "x", 1, 0600, &err));
        assert_int_equal(utimes(path, t), 0);
    }
    ok(put_text(s, NULL, "ltx/second", "x")); /* this handle has been here before */
    store_close(s);
    s = open_right(url);
    assert_list(s, "ltx/first 1\nltx/old 1\nltx/second 1\n");
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/stale/ltx/%s", root, files[i].name);
        assert_int_equal(access(path, F_OK), 0);
    }
    /* Its timestamp is far back, and still its own temporary file is not taken for an old one. */
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, "x", 1);
    struct store_obj obj;
    struct store_put_opts opts = {.timestamp_ms = 1600000000999};
    ok(store_put(s, NULL, "ltx/third", &body, &opts, &obj, &err));
    assert_int_equal(obj.mtime_ms, 1600000000000); /* rounded down */
    for (size_t i = 0; i < 3; i++) {
        snprintf(path, sizeof path, "%s/stale/ltx/%s", root, files[i].name);
        assert_int_equal(access(path, F_OK) == 0, files[i].stays);
    }
    snprintf(path, sizeof path, "%s/stale/ltx/%snew", root, STORE_TMP_PREFIX);
    assert_int_equal(unlink(path), 0);
    store_close(s);
    clean(url);
}

static void test_links_and_others(void **state)
{
    (void)state;
    char url[256], path[PATH_SIZE];
    url_of("links", url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "real/k", "hello"));
    snprintf(path, sizeof path, "%s/links/to-folder", root);
    assert_int_equal(symlink("real", path), 0);
    snprintf(path, sizeof path, "%s/links/real/to-file", root);
    assert_int_equal(symlink("k", path), 0);
    snprintf(path, sizeof path, "%s/links/to-nowhere", root);
    assert_int_equal(symlink("none", path), 0);
    snprintf(path, sizeof path, "%s/links/pipe", root);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_list(s, "real/k 5\nreal/to-file 5\nto-folder/k 5\nto-folder/to-file 5\n");
    assert_text(s, "to-folder/to-file", "hello");
    store_close(s);
    url_of("links/real/k", url);
    s = open_right(url);
    CLEANUP(buf_fini) struct buf b = BUF_INIT;
    assert_int_equal(store_list(s, NULL, "", NULL, into_lines, &b, &err), RC_INVALID);
    says("not a folder");
    assert_int_not_equal(put_text(s, NULL, "below", "x"), RC_OK);
    assert_int_equal(err.rc, RC_IO);
    store_close(s);
    url_of("links", url);
    clean(url);
}

/* ---- Servers with less ---- */

/* A second server without extensions: their replacements are tried. */
static void test_plain_server(void **state)
{
    (void)state;
    char url[256];
    struct server plain = {.name = "sftp"};
    snprintf(plain.dir, sizeof plain.dir, "%.60s/plain", server.dir);
    setenv("SFTP_OPTIONS", "-P hardlink,posix-rename,fsync", 1);
    assert_int_equal(server_run(&plain, "start", ""), 0);
    take_values(&plain);
    url_of("p", url);
    struct store *s = open_right(url);
    enum rc first = create_text(s, "a/k", "first"), second = create_text(s, "a/k", "second");
    char second_text[ERR_TEXT_MAX];
    snprintf(second_text, sizeof second_text, "%s", err.text);
    enum rc over = put_text(s, NULL, "a/k", "third"), fresh = put_text(s, NULL, "a/l", "fourth");
    if (over == RC_OK) assert_text(s, "a/k", "third");
    assert_list(s, "a/k 5\na/l 6\n");
    store_close(s);
    assert_int_equal(server_run(&plain, "stop", ""), 0);
    clean(url);
    /* And one that is only read. */
    setenv("SFTP_OPTIONS", "-R", 1);
    assert_int_equal(server_run(&plain, "start", ""), 0);
    s = open_right(url);
    enum rc readonly = put_text(s, NULL, "a/k", "x");
    store_close(s);
    assert_int_equal(server_run(&plain, "stop", ""), 0);
    unsetenv("SFTP_OPTIONS");
    take_values(&server);
    assert_int_equal(first, RC_OK);
    assert_int_equal(second, RC_CONFLICT);
    assert_non_null(strstr(second_text, "a/k"));
    assert_int_equal(over, RC_OK);
    assert_int_equal(fresh, RC_OK);
    assert_int_equal(readonly, RC_DENIED);
}

/* ---- Many at once ---- */

struct nester {
    struct store *s;
    pthread_barrier_t *all_inside;
    unsigned i;
    bool waited;
    enum rc rc;
};

/* All threads hold a connection here, more than the pool has, or as many; each wants another. */
static enum rc nest(void *ctx, const void *data, size_t size, struct err *e)
{
    struct nester *n = ctx;
    char name[32];
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, data, size);
    if (!n->waited) pthread_barrier_wait(n->all_inside);
    n->waited = true;
    snprintf(name, sizeof name, "copy/%u", n->i);
    return store_put(n->s, NULL, name, &body, NULL, NULL, e);
}

static void *nester_main(void *arg)
{
    struct nester *n = arg;
    struct err mine;
    n->rc = store_get(n->s, NULL, "k", NULL, nest, n, &mine);
    return NULL;
}

static void test_nested_calls(void **state)
{
    (void)state;
    enum { COUNT = 4 };
    char url[256];
    struct nester n[COUNT];
    pthread_t threads[COUNT];
    pthread_barrier_t inside;
    url_of("nested", url);
    struct store *s = open_right(url);
    ok(put_text(s, NULL, "k", "hello"));
    pthread_barrier_init(&inside, NULL, COUNT);
    for (unsigned i = 0; i < COUNT; i++) {
        n[i] = (struct nester){.s = s, .all_inside = &inside, .i = i};
        ok(thr_start(&threads[i], "nester", nester_main, &n[i], &err));
    }
    for (unsigned i = 0; i < COUNT; i++)
        pthread_join(threads[i], NULL);
    pthread_barrier_destroy(&inside);
    for (unsigned i = 0; i < COUNT; i++)
        assert_int_equal(n[i].rc, RC_OK);
    assert_list(s, "copy/0 5\ncopy/1 5\ncopy/2 5\ncopy/3 5\nk 5\n");
    store_close(s);
    clean(url);
}

static enum rc drop(void *ctx, const void *data, size_t size, struct err *e)
{
    (void)data, (void)e;
    *(uint64_t *)ctx += size;
    return RC_OK;
}

static enum rc fast_read(void *ctx, uint64_t off, void *dst, size_t size, struct err *e)
{
    (void)ctx, (void)off, (void)e;
    memset(dst, 'x', size);
    return RC_OK;
}

static enum rc count_one(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj, (void)e;
    ++*(unsigned *)ctx;
    return RC_OK;
}

static void test_figures(void **state)
{
    (void)state;
    enum { COUNT = 300 };
    const uint64_t size = 64u << 20;
    char url[256], names[COUNT][32];
    const char *keys[COUNT];
    unsigned listed = 0;
    uint64_t got = 0;
    struct store_stats stats;
    url_of("figures", url);
    struct store *s = open_right(url);
    struct store_body body = {.size = size, .read = fast_read};
    ok(put_text(s, NULL, "warm", "x"));
    int64_t t0 = os_mono_ms();
    ok(store_put(s, NULL, "big", &body, NULL, NULL, &err));
    int64_t t1 = os_mono_ms();
    ok(store_get(s, NULL, "big", NULL, drop, &got, &err));
    int64_t t2 = os_mono_ms();
    assert_int_equal(got, size);
    for (int i = 0; i < COUNT; i++) {
        snprintf(names[i], sizeof names[i], "ltx/0/%04d", i);
        keys[i] = names[i];
        ok(put_text(s, NULL, names[i], "hello"));
    }
    int64_t t3 = os_mono_ms();
    ok(store_list(s, NULL, "ltx/", NULL, count_one, &listed, &err));
    assert_int_equal(listed, COUNT);
    int64_t t4 = os_mono_ms();
    ok(store_del(s, NULL, keys, COUNT, &err));
    int64_t t5 = os_mono_ms();
    print_message("64 MiB: put %d ms, get %d ms; %d small: put %d ms, list %d ms, delete %d ms\n",
                  (int)(t1 - t0), (int)(t2 - t1), COUNT, (int)(t3 - t2), (int)(t4 - t3),
                  (int)(t5 - t4));
    store_stats(s, &stats);
    assert_int_equal(stats.requests[STORE_OP_PUT], COUNT + 2);
    assert_int_equal(stats.requests[STORE_OP_GET], 1);
    assert_int_equal(stats.bytes_down, size);
    assert_int_equal(stats.bytes_up, size + COUNT * 5 + 1);
    assert_int_equal(stats.failed[STORE_OP_PUT], 0);
    store_close(s);
    clean(url);
}

static enum rc count_name(void *ctx, const char *name, struct err *e)
{
    (void)name, (void)e;
    ++*(unsigned *)ctx;
    return RC_OK;
}

/* Runs last: every connection was closed by somebody, and only once. */
static unsigned fds_at_start;

static unsigned fd_count(void)
{
    unsigned count = 0;
    ok(os_list("/proc/self/fd", count_name, &count, &err));
    return count;
}

static void test_descriptors(void **state)
{
    (void)state;
    assert_int_equal(fd_count(), fds_at_start);
}

static void make_home(void)
{
    char path[PATH_SIZE];
    snprintf(path, sizeof path, "%s/home/.ssh", server.dir);
    ok(os_mkdirs(path, 0700, &err));
    snprintf(path, sizeof path, "%s/home", server.dir);
    setenv("HOME", path, 1);
    unsetenv("SSH_AUTH_SOCK");
}

static int run(void)
{
    static const struct conformance_row row = {
        .name = "sftp", .prepare = prepare, .open = open_right, .clean = clean};
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_host_key_given),
        cmocka_unit_test(test_host_key_setting),
        cmocka_unit_test(test_known_hosts),
        cmocka_unit_test(test_keys),
        cmocka_unit_test(test_agent),
        cmocka_unit_test(test_settings),
        cmocka_unit_test(test_restart),
        cmocka_unit_test(test_no_server),
        cmocka_unit_test(test_silent_server),
        cmocka_unit_test(test_stale_files),
        cmocka_unit_test(test_links_and_others),
        cmocka_unit_test(test_plain_server),
        cmocka_unit_test(test_nested_calls),
        cmocka_unit_test(test_figures),
        cmocka_unit_test(test_descriptors),
    };
    take_values(&server);
    make_home();
    fds_at_start = fd_count();
    return conformance_run(&row) + cmocka_run_group_tests(tests, NULL, NULL);
}

int main(void)
{
    return server_test(&server, "sftp", run);
}
