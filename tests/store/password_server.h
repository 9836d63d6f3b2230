/* password_server.h -- what the tests of a store with a user and a password do on a real server. A
 * test program gives the functions that are declared here. Include after cmocka.h. */
#ifndef TESTS_STORE_PASSWORD_SERVER_H
#define TESTS_STORE_PASSWORD_SERVER_H
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include "base/os.h"
#include "base/thr.h"
#include "store/conformance.h"
#include "store/server.h"

#define WRITER_COUNT 60

static struct server server;
static char server_url[128], user[64], password[64];
static struct err err;

static struct store *open_as(const char *url, const char *name, const char *secret);
/* As a row of the suite has them. */
static void prepare(unsigned unique, char url[256]);
static void clean(const char *url);

static void ok(enum rc rc)
{
    if (rc != RC_OK) fail_msg("%s: %s", rc_name(rc), err.text);
}

/* What the script has printed. */
static void take_values(void)
{
    server_value(&server, "URL", server_url, sizeof server_url);
    server_value(&server, "USERNAME", user, sizeof user);
    server_value(&server, "PASSWORD", password, sizeof password);
}

static struct store *open_right(const char *url)
{
    return open_as(url, user, password);
}

static enum rc put_text(struct store *s, const struct call *c, const char *key, const char *text)
{
    struct store_bytes b;
    struct store_body body = store_body_bytes(&b, text, strlen(text));
    return store_put(s, c, key, &body, NULL, NULL, &err);
}

static enum rc count_one(void *ctx, const struct store_obj *obj, struct err *e)
{
    (void)obj, (void)e;
    ++*(unsigned *)ctx;
    return RC_OK;
}

static void assert_wrong_password(const char *url)
{
    char byte;
    unsigned count = 0;
    struct store *s = open_as(url, user, "not the secret");
    assert_int_equal(put_text(s, NULL, "a/k", "x"), RC_DENIED);
    assert_null(strstr(err.text, "not the secret"));
    assert_int_equal(store_read(s, NULL, "a/k", 0, &byte, 1, &err), RC_DENIED);
    assert_int_equal(store_list(s, NULL, "", NULL, count_one, &count, &err), RC_DENIED);
    assert_int_equal(store_del(s, NULL, &(const char *){"a/k"}, 1, &err), RC_DENIED);
    store_close(s);
}

struct writer {
    struct store *s;
    atomic_uint done;
    enum rc rc;
    struct err err;
};

/* The server dies and comes back, twice, while a writer's thread puts WRITER_COUNT objects: all of
 * them are there then. */
static void assert_restarts(struct writer *w, void *(*writer_main)(void *))
{
    pthread_t thread;
    unsigned count = 0;
    ok(thr_start(&thread, "writer", writer_main, w, &err));
    for (unsigned at = 10; at < WRITER_COUNT; at += 25) {
        while (atomic_load(&w->done) < at && w->rc == RC_OK)
            os_sleep_ms(1);
        assert_int_equal(server_run(&server, "kill", ""), 0);
        assert_int_equal(server_run(&server, "start", ""), 0);
    }
    pthread_join(thread, NULL);
    if (w->rc != RC_OK) fail_msg("%s: %s", rc_name(w->rc), w->err.text);
    ok(store_list(w->s, NULL, "", NULL, count_one, &count, &err));
    assert_int_equal(count, WRITER_COUNT);
}

/* Without a server: a clear end before the deadline. */
static void test_no_server(void **state)
{
    (void)state;
    char url[256];
    prepare(904, url);
    struct store *s = open_right(url);
    assert_int_equal(server_run(&server, "stop", ""), 0);
    struct call c = {.deadline_ms = os_mono_ms() + 1500};
    enum rc rc = put_text(s, &c, "k", "x");
    assert_true(rc == RC_AGAIN || rc == RC_CANCELED);
    assert_true(os_mono_ms() < c.deadline_ms + 1000);
    assert_int_equal(server_run(&server, "start", ""), 0);
    ok(put_text(s, NULL, "k", "x"));
    store_close(s);
    clean(url);
}

/* How long small objects take. */
static void put_many(struct store *s)
{
    unsigned count = 0;
    char key[32];
    int64_t t[4] = {os_mono_ms()};
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "ltx/0/%d", i);
        ok(put_text(s, NULL, key, key));
    }
    t[1] = os_mono_ms();
    ok(store_list(s, NULL, "ltx/", NULL, count_one, &count, &err));
    assert_int_equal(count, 200);
    t[2] = os_mono_ms();
    for (int i = 0; i < 200; i++) {
        snprintf(key, sizeof key, "ltx/0/%d", i);
        ok(store_del(s, NULL, &(const char *){key}, 1, &err));
    }
    t[3] = os_mono_ms();
    print_message("200 puts %d ms, list %d ms, 200 deletes %d ms\n", (int)(t[1] - t[0]),
                  (int)(t[2] - t[1]), (int)(t[3] - t[2]));
}
#endif
