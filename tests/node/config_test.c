/* config_test.c -- litestream.yml: every key, every rule, every complaint. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>
#include "base/fault.h"
#include "node/config.h"

static struct config *good(const char *text)
{
    struct err err = {0};
    struct config *cfg = NULL;
    if (config_parse(text, strlen(text), "/etc/x.yml", &cfg, &err) != RC_OK)
        fail_msg("%s\nin:\n%s", err.text, text);
    return cfg;
}

static void bad(const char *text, const char *message)
{
    struct err err = {0};
    struct config *cfg = NULL;
    enum rc rc = config_parse(text, strlen(text), "/etc/x.yml", &cfg, &err);
    if (rc == RC_OK) fail_msg("accepted:\n%s", text);
    assert_null(cfg);
    assert_string_equal(err.text, message);
}

#define DB(more)          "dbs:\n  - path: /a.db\n" more "    replica: {url: \"file:///r\"}\n"
#define REPLICA(settings) "dbs:\n  - path: /a.db\n    replica: {" settings "}\n"

static void test_defaults(void **state)
{
    (void)state;
    struct config *cfg = good(DB(""));
    assert_int_equal(cfg->snapshot_interval_ms, 86400000);
    assert_int_equal(cfg->snapshot_retention_ms, 86400000);
    assert_int_equal(cfg->l0_retention_ms, 300000);
    assert_int_equal(cfg->l0_retention_check_interval_ms, 15000);
    assert_int_equal(cfg->shutdown_sync_timeout_ms, 30000);
    assert_int_equal(cfg->shutdown_sync_interval_ms, 500);
    assert_int_equal(cfg->heartbeat_interval_ms, 300000);
    assert_int_equal(cfg->validation_interval_ms, 0);
    assert_int_equal(cfg->socket_permissions, 0600);
    assert_string_equal(cfg->socket_path, "/var/run/litestream.sock");
    assert_true(cfg->retention_enabled);
    assert_false(cfg->socket_enabled || cfg->verify_compaction || cfg->log_stderr);
    assert_string_equal(cfg->log_type, "text");
    assert_string_equal(cfg->ltx_encoding, "frame");
    assert_int_equal(cfg->level_count, 3);
    assert_int_equal(cfg->levels[0].interval_ms, 30000);
    assert_int_equal(cfg->levels[1].interval_ms, 300000);
    assert_int_equal(cfg->levels[2].interval_ms, 3600000);
    assert_int_equal(cfg->db_count, 1);
    const struct config_db *db = &cfg->dbs[0];
    assert_string_equal(db->path, "/a.db");
    assert_string_equal(db->meta_path, "/.a.db-sluice");
    assert_int_equal(db->monitor_interval_ms, 1000);
    assert_int_equal(db->checkpoint_interval_ms, 60000);
    assert_int_equal(db->busy_timeout_ms, 1000);
    assert_int_equal(db->min_checkpoint_page_count, 1000);
    assert_int_equal(db->truncate_page_n, 121359);
    assert_int_equal(db->max_sync_wal_bytes, 67108864);
    assert_false(db->restore_if_db_not_exists);
    assert_string_equal(db->replica.type, "file");
    assert_string_equal(db->replica.path, "/r");
    assert_int_equal(db->replica.sync_interval_ms, 1000);
    assert_int_equal(db->replica.max_sync_ltx_files, 256);
    assert_int_equal(cfg->warning_count, 0);
    config_free(cfg);
}

static const char full[] =
    "addr: \":9090\"\nmcp-addr: \":3001\"\nexec: myapp -x\n"
    "socket: {enabled: yes, path: /run/s.sock, permissions: 0660}\n"
    "levels: [{interval: 10s}, {interval: 1m}]\n"
    "snapshot: {interval: 1h, retention: 168h}\nvalidation: {interval: 6h}\n"
    "l0-retention: 10m\nl0-retention-check-interval: 20s\nverify-compaction: on\n"
    "retention: {enabled: off}\nheartbeat-url: https://hc.example/x\nheartbeat-interval: 2m\n"
    "shutdown-sync-timeout: 5s\nshutdown-sync-interval: 250ms\n"
    "logging: {level: debug, type: json, stderr: true, source: true}\nltx-encoding: block\n"
    "access-key-id: AKIA\nsecret-access-key: hidden\nsync-interval: 3s\npart-size: 10MB\n"
    "dbs:\n"
    "  - path: sqlite:///data/one.db\n    meta-path: /meta/one\n    monitor-interval: 500ms\n"
    "    checkpoint-interval: 2m\n    busy-timeout: 5s\n    min-checkpoint-page-count: 100\n"
    "    truncate-page-n: -1\n    max-sync-wal-bytes: 1_000_000\n    restore-if-db-not-exists: Y\n"
    "    snapshot: {interval: 2h}\n"
    "    replica:\n      type: s3\n      bucket: b\n      path: p\n      region: eu\n"
    "      endpoint: http://h:9000\n      force-path-style: true\n      sign-payload: no\n"
    "      require-content-md5: true\n      skip-verify: false\n      storage-class: STANDARD\n"
    "      part-size: 5MiB\n      concurrency: 7\n      sse-customer-algorithm: AES256\n"
    "      sse-customer-key: abc\n      sse-customer-key-path: /k\n      sse-kms-key-id: id\n"
    "      access-key-id: OWN\n      sync-interval: 1.5s\n      max-sync-ltx-files: 0\n"
    "      auto-recover: true\n"
    "  - path: /two.db\n    replicas:\n      - {type: sftp, host: 'h:22', user: u, password: pw,\n"
    "         key-path: /k, host-key: 'ssh-ed25519 A', concurrent-writes: false, path: /p}\n"
    "  - path: /three.db\n    replica: {url: 'nats://h/b', username: u, password: p, jwt: j,\n"
    "      seed: s, creds: c, nkey: n, token: t, tls: true, root-cas: [/a, /b],\n"
    "      client-cert: /c, client-key: /k, max-reconnects: -1, reconnect-wait: 2s,\n"
    "      timeout: 10s}\n"
    "  - path: /four.db\n    replica: {type: abs, account-name: a, account-key: k, sas-token: s,\n"
    "      bucket: c, path: p, endpoint: https://e}\n"
    "  - path: /five.db\n    replica: {type: webdav, webdav-url: https://w, webdav-username: u,\n"
    "      webdav-password: p, path: /x}\n"
    "  - path: /six.db\n    replica: {url: 'gs://b/p'}\n"
    "  - path: /seven.db\n    replica: {url: 'oss://b/p', region: cn, concurrency: 3}\n"
    "  - dir: /many\n    pattern: '*.db'\n    recursive: true\n    watch: true\n"
    "    meta-dir: /meta\n    replica: {path: /backup}\n";

static const char *pair(const struct config_replica *r, const char *key)
{
    for (size_t i = 0; i < r->pair_count; i++)
        if (strcmp(r->pairs[i].key, key) == 0) return r->pairs[i].value;
    return NULL;
}

static void test_every_key(void **state)
{
    (void)state;
    struct config *cfg = good(full);
    for (size_t i = 0; i < cfg->warning_count; i++)
        fail_msg("%s", cfg->warnings[i]);
    assert_string_equal(cfg->addr, ":9090");
    assert_string_equal(cfg->mcp_addr, ":3001");
    assert_string_equal(cfg->exec, "myapp -x");
    assert_true(cfg->socket_enabled && cfg->verify_compaction && cfg->log_stderr);
    assert_false(cfg->retention_enabled);
    assert_int_equal(cfg->socket_permissions, 0660);
    assert_int_equal(cfg->level_count, 2);
    assert_int_equal(cfg->levels[1].interval_ms, 60000);
    assert_int_equal(cfg->snapshot_interval_ms, 3600000); /* stronger than that of a database */
    assert_int_equal(cfg->snapshot_retention_ms, 168 * 3600000);
    assert_int_equal(cfg->validation_interval_ms, 6 * 3600000);
    assert_int_equal(cfg->shutdown_sync_interval_ms, 250);
    assert_string_equal(cfg->log_level, "debug");
    assert_string_equal(cfg->log_type, "json");
    assert_string_equal(cfg->ltx_encoding, "block");
    assert_int_equal(cfg->db_count, 8);
    const struct config_db *one = &cfg->dbs[0];
    assert_string_equal(one->path, "/data/one.db");
    assert_string_equal(one->meta_path, "/meta/one");
    assert_int_equal(one->monitor_interval_ms, 500);
    assert_int_equal(one->truncate_page_n, -1);
    assert_int_equal(one->max_sync_wal_bytes, 1000000);
    assert_true(one->restore_if_db_not_exists);
    assert_string_equal(one->replica.type, "s3");
    assert_int_equal(one->replica.sync_interval_ms, 1500);
    assert_int_equal(one->replica.max_sync_ltx_files, 0);
    assert_true(one->replica.auto_recover);
    assert_string_equal(pair(&one->replica, "access-key-id"), "OWN");
    assert_string_equal(pair(&one->replica, "secret-access-key"), "hidden"); /* inherited */
    assert_string_equal(pair(&one->replica, "part-size"), "5MiB");
    assert_string_equal(pair(&cfg->dbs[1].replica, "part-size"), "10MB");
    assert_int_equal(cfg->dbs[1].replica.sync_interval_ms, 3000);
    assert_string_equal(cfg->dbs[1].replica.type, "sftp");
    assert_string_equal(cfg->dbs[2].replica.type, "nats");
    assert_string_equal(pair(&cfg->dbs[2].replica, "root-cas"), "/a\n/b");
    assert_string_equal(cfg->dbs[3].replica.type, "abs");
    assert_string_equal(cfg->dbs[4].replica.type, "webdav");
    assert_string_equal(cfg->dbs[5].replica.type, "gs");
    assert_string_equal(cfg->dbs[6].replica.type, "oss");
    assert_string_equal(cfg->dbs[7].dir, "/many");
    assert_true(cfg->dbs[7].recursive && cfg->dbs[7].watch);
    assert_string_equal(cfg->dbs[7].meta_dir, "/meta");
    for (size_t i = 0; i < one->replica.pair_count; i++) {
        const struct config_pair *p = &one->replica.pairs[i];
        bool secret = strstr(p->key, "secret") || strcmp(p->key, "sse-customer-key") == 0;
        assert_int_equal(p->secret, secret);
    }
    config_free(cfg);
}

static void test_every_key_of_the_table_is_in_the_full_example(void **state)
{
    (void)state;
    const struct config_doc *docs;
    size_t count = config_docs(&docs);
    assert_true(count > 60);
    for (size_t i = 0; i < count; i++) {
        const char *dot = strrchr(docs[i].key, '.');
        assert_non_null(strstr(full, dot ? dot + 1 : docs[i].key));
        assert_true(strlen(docs[i].help) > 5 && docs[i].help[strlen(docs[i].help) - 1] == '.');
    }
}

static void test_replicas_are_opened(void **state)
{
    (void)state;
    struct err err;
    struct store *store;
    struct config *cfg = good(full);
    assert_int_equal(config_refuse_dirs(cfg, &err), RC_UNSUPPORTED);
    assert_non_null(strstr(err.text, "directory databases are not supported yet"));
    config_free(cfg);
    cfg = good(DB(""));
    assert_int_equal(config_refuse_dirs(cfg, &err), RC_OK);
    assert_int_equal(config_replica_open(&cfg->dbs[0].replica, &store, &err), RC_OK);
    assert_string_equal(store_type(store), "file");
    store_close(store);
    config_free(cfg);
}

static void test_empty_values_change_nothing(void **state)
{
    (void)state;
    struct config *cfg = good("addr:\nsnapshot:\nlogging: ~\nsocket: null\nl0-retention:\nlevels:\n"
                              "retention: {enabled: }\nage: {recipients: [], identities: }\n" DB(
                                  "    monitor-interval:\n    snapshot:\n    replicas:\n"));
    assert_int_equal(cfg->l0_retention_ms, 300000);
    assert_int_equal(cfg->level_count, 3);
    assert_true(cfg->retention_enabled);
    assert_int_equal(cfg->dbs[0].monitor_interval_ms, 1000);
    assert_int_equal(cfg->warning_count, 0);
    config_free(cfg);
    cfg = good("");
    assert_int_equal(cfg->db_count, 0);
    config_free(cfg);
    cfg = good("# nothing\ndbs:\nlevels: []\n");
    assert_int_equal(cfg->db_count, 0);
    assert_int_equal(cfg->level_count, 3);
    config_free(cfg);
}

static void test_unknown_keys_leave_warnings(void **state)
{
    (void)state;
    struct config *cfg =
        good("foo: 1\npath: /x\ndbs:\n  - path: /a.db\n    max-checkpoint-page-count: 5\n"
             "    replica: {url: 'file:///r', retention: 24h, name: x}\n"
             "logging: {level: info, colour: red}\naddr: a\naddr: b\n"
             "sync-interval: 1000\n");
    static const char *const expected[] = {
        "/etc/x.yml:1: foo: unknown key; it is ignored",
        "/etc/x.yml:2: path: unknown key; it is ignored",
        "/etc/x.yml:7: logging.colour: unknown key; it is ignored",
        "/etc/x.yml:9: addr: given twice; the last one counts",
        ("/etc/x.yml:10: sync-interval: '1000' has no unit and means nanoseconds; write 10s "
         "or 500ms"),
        "/etc/x.yml:5: dbs[0].max-checkpoint-page-count: unknown key; it is ignored",
        "/etc/x.yml:6: dbs[0].replica.retention: unknown key; it is ignored",
        "/etc/x.yml:6: dbs[0].replica.name: unknown key; it is ignored",
    };
    assert_int_equal(cfg->warning_count, sizeof expected / sizeof expected[0]);
    for (size_t i = 0; i < cfg->warning_count; i++)
        assert_string_equal(cfg->warnings[i], expected[i]);
    assert_string_equal(cfg->addr, "b");
    assert_int_equal(cfg->dbs[0].replica.sync_interval_ms, 1); /* 1000 ns, rounded up */
    config_free(cfg);
}

static void test_scalars(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t value;
    } numbers[] = {{"5", 5},        {"0x10", 16}, {"0b101", 5},  {"0o17", 15}, {"017", 15},
                   {"1_000", 1000}, {"+3", 3},    {"1e3", 1000}, {"2.0", 2},   {"'7'", 7}};
    char text[256];
    for (size_t i = 0; i < sizeof numbers / sizeof numbers[0]; i++) {
        snprintf(text, sizeof text, DB("    min-checkpoint-page-count: %s\n"), numbers[i].text);
        struct config *cfg = good(text);
        assert_int_equal(cfg->dbs[0].min_checkpoint_page_count, numbers[i].value);
        config_free(cfg);
    }
    struct config *odd = good(DB("    truncate-page-n: -1.5\n"));
    assert_int_equal(odd->dbs[0].truncate_page_n, -1);
    assert_string_equal(odd->warnings[0],
                        "/etc/x.yml:3: dbs[0].truncate-page-n: '-1.5' is no whole "
                        "number; it counts as -1");
    config_free(odd);
    static const char *const yes[] = {"true", "True", "yes", "Y", "ON", "'true'"};
    static const char *const no[] = {"false", "No", "n", "off"};
    for (size_t i = 0; i < 6; i++) {
        snprintf(text, sizeof text, DB("    restore-if-db-not-exists: %s\n"), yes[i]);
        struct config *cfg = good(text);
        assert_true(cfg->dbs[0].restore_if_db_not_exists);
        config_free(cfg);
    }
    for (size_t i = 0; i < 4; i++) {
        snprintf(text, sizeof text, "retention: {enabled: %s}\n", no[i]);
        struct config *cfg = good(text);
        assert_false(cfg->retention_enabled);
        config_free(cfg);
    }
}

static void test_anchors_and_merge_keys(void **state)
{
    (void)state;
    struct config *cfg = good("x: &a {monitor-interval: 2s, busy-timeout: 3s}\n"
                              "y: &r {path: /r, sync-interval: 4s}\n"
                              "dbs:\n  - <<: *a\n    path: /a.db\n    busy-timeout: 9s\n"
                              "    replica: *r\n"
                              "  - path: /b.db\n    replica: {<<: [{path: /s}, *r]}\n");
    assert_int_equal(cfg->dbs[0].monitor_interval_ms, 2000);
    assert_int_equal(cfg->dbs[0].busy_timeout_ms, 9000); /* beside the merge key: stronger */
    assert_string_equal(cfg->dbs[0].replica.path, "/r");
    assert_string_equal(cfg->dbs[1].replica.path, "/s"); /* the first of the list is stronger */
    assert_int_equal(cfg->dbs[1].replica.sync_interval_ms, 4000);
    config_free(cfg);
    bad("a: &a\n  <<: *a\n<<: *a\n", "/etc/x.yml:1: <<: nested too deep");
}

static void test_snapshot_of_a_database_is_promoted(void **state)
{
    (void)state;
    struct config *cfg = good(DB("    snapshot: {interval: 1h}\n"));
    assert_int_equal(cfg->snapshot_interval_ms, 3600000);
    assert_int_equal(cfg->snapshot_retention_ms, 86400000);
    config_free(cfg);
    bad("dbs:\n  - {path: /a, snapshot: {interval: 1h}, replica: {path: /r}}\n"
        "  - {path: /b, snapshot: {interval: 2h}, replica: {path: /r}}\n",
        "/etc/x.yml:3: conflicting database snapshot intervals: /a has 3600000ms, /b has "
        "7200000ms; "
        "set one value under 'snapshot' at the top level");
}

static void test_value_errors(void **state)
{
    (void)state;
    bad("snapshot: {interval: 0s}\n",
        "/etc/x.yml:1: snapshot.interval: must be greater than 0 (got 0s)");
    bad("\nsnapshot:\n  retention: -1s\n",
        "/etc/x.yml:3: snapshot.retention: must be greater than 0 (got -1s)");
    bad("snapshot: {interval: 1d}\n",
        "/etc/x.yml:1: snapshot.interval: must be a duration such as 500ms, 10s or 1h30m; days do "
        "not exist (got '1d')");
    bad("l0-retention: 0s\n", "/etc/x.yml:1: l0-retention: must be greater than 0 (got 0s)");
    bad("heartbeat-interval: 10s\n",
        "/etc/x.yml:1: heartbeat-interval: must be at least 1m0s (got 10s)");
    bad("heartbeat-url: ftp://token@x\n",
        "/etc/x.yml: heartbeat-url: must begin with http:// or https:// and name a host");
    bad("shutdown-sync-timeout: -1s\n",
        "/etc/x.yml:1: shutdown-sync-timeout: must be at least 0 (got -1s)");
    bad("socket: {permissions: 010000}\n",
        "/etc/x.yml:1: socket.permissions: must be at most 4095 (got 010000)");
    bad("socket: {permissions: -1}\n",
        "/etc/x.yml:1: socket.permissions: must be at least 0 (got -1)");
    bad("retention: {enabled: maybe}\n",
        "/etc/x.yml:1: retention.enabled: must be true or false (got 'maybe')");
    bad("retention: true\n", "/etc/x.yml:1: retention: must hold \"key: value\" lines of its own");
    bad("logging: {type: xml}\n",
        "/etc/x.yml:1: logging.type: must be one of text|json|pretty (got 'xml')");
    bad("logging: {type: js}\n",
        "/etc/x.yml:1: logging.type: must be one of text|json|pretty (got 'js')");
    bad("ltx-encoding: frames\n",
        "/etc/x.yml:1: ltx-encoding: must be one of frame|block (got 'frames')");
    bad("levels: [{interval: 0s}]\n",
        "/etc/x.yml:1: levels[0].interval: must be greater than 0 (got 0s)");
    bad("levels:\n  - interval: 1s\n  - x: 2\n", "/etc/x.yml:3: levels[1].interval: must be given");
    bad("levels: 5\n", "/etc/x.yml:1: levels: must be a list");
    bad("levels: [{interval: 1s},{interval: 1s},{interval: 1s},{interval: 1s},{interval: 1s},"
        "{interval: 1s},{interval: 1s},{interval: 1s},{interval: 1s}]\n",
        "/etc/x.yml:1: levels: at most 8 levels (got 9)");
    bad("part-size: lots\n", "/etc/x.yml:1: part-size: must be a size such as 5MiB (got 'lots')");
    bad(DB("    min-checkpoint-page-count: 0\n"),
        "/etc/x.yml:3: dbs[0].min-checkpoint-page-count: must be greater than 0 (got 0)");
    bad(DB("    max-sync-wal-bytes: 5MB\n"),
        "/etc/x.yml:3: dbs[0].max-sync-wal-bytes: must be a whole number (got '5MB')");
    bad(DB("    truncate-page-n: 1.5x\n"),
        "/etc/x.yml:3: dbs[0].truncate-page-n: must be a whole number (got '1.5x')");
    bad(DB("    monitor-interval: [1]\n"),
        "/etc/x.yml:3: dbs[0].monitor-interval: must be a single value, not a list");
    bad(DB("    busy-timeout: \"a\\0b\"\n"),
        "/etc/x.yml:3: dbs[0].busy-timeout: must not hold a NUL character");
    bad(REPLICA("path: /r, sync-interval: 0s"),
        "/etc/x.yml:3: dbs[0].replica.sync-interval: must be greater than 0 (got 0s)");
    bad(REPLICA("type: nats, root-cas: /x"),
        "/etc/x.yml:3: dbs[0].replica.root-cas: must be a list");
}

static void test_structure_errors(void **state)
{
    (void)state;
    bad("5\n", "/etc/x.yml:1: the file must consist of \"key: value\" lines");
    bad("dbs: 5\n", "/etc/x.yml:1: dbs: must be a list: \"- path: /some/file.db\"");
    bad("dbs:\n  - ~\n", "/etc/x.yml:2: dbs[0]: must specify either 'path' or 'dir'");
    bad("dbs:\n  - replica: {path: /r}\n",
        "/etc/x.yml:2: dbs[0]: must specify either 'path' or 'dir'");
    bad("dbs:\n  - path: /a\n    dir: /b\n",
        "/etc/x.yml:2: dbs[0]: cannot specify both 'path' and 'dir'");
    bad("dbs:\n  - dir: /b\n", "/etc/x.yml:2: dbs[0]: 'pattern' is required when using 'dir'");
    bad("dbs:\n  - {dir: /b, pattern: x, meta-path: /m, meta-dir: /n}\n",
        "/etc/x.yml:2: dbs[0]: cannot specify both 'meta-path' and 'meta-dir'");
    bad(DB("    watch: true\n"),
        "/etc/x.yml:2: dbs[0]: 'watch' can only be enabled with a directory");
    bad(DB("    meta-dir: /m\n"),
        "/etc/x.yml:2: dbs[0]: 'meta-dir' can only be used with a directory");
    bad("dbs:\n  - path: /a\n", "/etc/x.yml:2: dbs[0]: must specify replica for database");
    bad("dbs:\n  - path: /a\n    replica:\n",
        "/etc/x.yml:2: dbs[0]: must specify replica for database");
    bad("dbs:\n  - path: /a\n    replica: [x]\n",
        "/etc/x.yml:3: dbs[0].replica: must hold \"key: value\" lines of its own");
    bad(DB("    replicas: [{path: /x}]\n"),
        "/etc/x.yml:4: dbs[0].replica: cannot specify 'replica' and 'replicas' on a database");
    bad("dbs:\n  - path: /a\n    replicas: [{path: /x}, {path: /y}]\n",
        "/etc/x.yml:3: dbs[0].replicas: multiple replicas on a single database are no longer "
        "supported");
    bad(REPLICA("path: /r, age: {recipients: [x]}"),
        "/etc/x.yml:3: age encryption is not currently supported, if you need encryption please "
        "revert back to Litestream v0.3.x");
    bad("dbs: [\n", "/etc/x.yml:2: not valid YAML: did not find expected node content");
    bad("\n\nx: \"abc\n", "/etc/x.yml:4: not valid YAML: found unexpected end of stream");
}

static void test_replica_errors(void **state)
{
    (void)state;
    bad(REPLICA("url: \"file:///x\", path: /y"),
        "/etc/x.yml:3: dbs[0].replica: cannot specify url & path for file replica");
    bad(REPLICA("path: \"s3://u:pw@x/y\""),
        "/etc/x.yml:3: dbs[0].replica: replica path cannot be a url, please use the 'url' field "
        "instead: s3://u:***@x/y");
    bad(REPLICA("type: file"),
        "/etc/x.yml:3: dbs[0].replica: file replica path required: add 'path' or 'url'");
    bad(REPLICA("type: foo"),
        "/etc/x.yml:3: dbs[0].replica: unknown replica type in config: \"foo\"; use file, s3, gs, "
        "abs, sftp, webdav, nats or oss");
    bad(REPLICA("url: \"http://x/y\""),
        "/etc/x.yml:3: dbs[0].replica: unknown replica type in config: \"http\"; use file, s3, gs, "
        "abs, sftp, webdav, nats or oss");
    bad(REPLICA("url: /x"), "/etc/x.yml:3: dbs[0].replica: replica url scheme required: /x");
    bad(REPLICA("url: \"s3://b/p\", bucket: c"),
        "/etc/x.yml:3: dbs[0].replica: cannot specify url & bucket for s3 replica");
    bad(REPLICA("url: \"file://host/p\""),
        "/etc/x.yml:3: dbs[0].replica: 'file://host/p' names a host; a local folder has three "
        "slashes: file:///absolute/path");
}

static void test_file_urls(void **state)
{
    (void)state;
    static const struct {
        const char *url, *path;
    } cases[] = {{"file:///a%20b?x=1", "/a%20b"},
                 {"file:/x//y/", "/x/y"},
                 {"FILE:///a/../b", "/b"},
                 {"file:///", "/"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err err = {0};
        struct config_replica r;
        assert_int_equal(config_replica_from_url(cases[i].url, &r, &err), RC_OK);
        assert_string_equal(r.type, "file");
        assert_string_equal(r.path, cases[i].path);
        assert_int_equal(r.sync_interval_ms, 1000);
        config_replica_fini(&r);
    }
}

static void test_env_expansion(void **state)
{
    (void)state;
    static const struct {
        const char *in, *out;
    } cases[] = {
        {"$FOO", "foo1"},
        {"${FOO}z", "foo1z"},
        {"$FOO.z", "foo1.z"},
        {"$FOO-$BAR_2", "foo1-b"},
        {"$UNSET.z", ".z"},
        {"$$z", "z"},
        {"$ z", "$ z"},
        {"$1z$12", "z2"},
        {"${}z", "z"},
        {"${1}z", "z"},
        {"$.z$,$/", "$.z$,$/"},
        {"$*$#$@$!$?$-z", "z"},
        {"${UNSET:-d}|", "|"},
        {"${FOO BAR}|", "|"},
        {"$_z|", "|"},
        {"${*}z", "z"},
        {"$\xc3\xa9", "$\xc3\xa9"},
        {"$(FOO)", "$(FOO)"},
        {"z$", "z$"},
        {"${FOO", "FOO"},
        {"${FOO}${BAR_2}", "foo1b"},
        {"$FOO$BAR_2", "foo1b"},
        {"$${FOO}", "{FOO}"},
        {"$FOO_|", "|"},
        {"${$}z", "z"},
        {"\\${FOO}", "\\foo1"},
        {"$9FOO", "FOO"},
        {"${ FOO }z", "z"},
        {"", ""},
        {"# $FOO\nx: ${FOO}\n", "# foo1\nx: foo1\n"},
        {"$", "$"},
        {"a$FOO", "afoo1"},
        {"$PIDX|", "|"},
    };
    assert_int_equal(setenv("FOO", "foo1", 1), 0);
    assert_int_equal(setenv("BAR_2", "b", 1), 0);
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        struct err err;
        struct buf out = BUF_INIT;
        assert_int_equal(config_expand_env(cases[i].in, strlen(cases[i].in), &out, &err), RC_OK);
        assert_int_equal(buf_append(&out, "", 1, &err), RC_OK);
        assert_string_equal((char *)out.data, cases[i].out);
        buf_fini(&out);
    }
    char pid[32];
    struct err err;
    struct buf out = BUF_INIT;
    snprintf(pid, sizeof pid, "%d %d", (int)getpid(), (int)getpid());
    assert_int_equal(config_expand_env("$PID ${PID}", 11, &out, &err), RC_OK);
    assert_int_equal(out.size, strlen(pid));
    assert_memory_equal(out.data, pid, out.size);
    buf_fini(&out);
}

static void test_paths(void **state)
{
    (void)state;
    char cwd[OS_PATH_MAX / 2], want[OS_PATH_MAX], got[OS_PATH_MAX], longer[OS_PATH_MAX + 10];
    struct err err;
    assert_non_null(getcwd(cwd, sizeof cwd));
    assert_int_equal(setenv("HOME", "/home/me", 1), 0);
    const char *const cases[][2] = {
        {"/a/b", "/a/b"},          {"/a/../../b/", "/b"},  {"/", "/"},
        {"~", "/home/me"},         {"~/", "/home/me"},     {"~/x", "/home/me/x"},
        {"sqlite:///q/x", "/q/x"}, {"sqlite3:///q", "/q"}, {"sqlite://~/x", "/home/me/x"},
        {"/a//b/./c", "/a/b/c"},   {"/..", "/"},           {"/a/...", "/a/..."},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        assert_int_equal(config_expand_path(cases[i][0], got, &err), RC_OK);
        assert_string_equal(got, cases[i][1]);
    }
    const char *const relative[][2] = {{"x", "/x"},
                                       {"q/../a/./b//c", "/a/b/c"},
                                       {"./x", "/x"},
                                       {"~root/x", "/~root/x"},
                                       {"sqlite3://rel", "/rel"}};
    for (size_t i = 0; i < sizeof relative / sizeof relative[0]; i++) {
        snprintf(want, sizeof want, "%s%s", strcmp(cwd, "/") == 0 ? "" : cwd, relative[i][1]);
        assert_int_equal(config_expand_path(relative[i][0], got, &err), RC_OK);
        assert_string_equal(got, want);
    }
    memset(longer, 'x', sizeof longer - 1);
    longer[sizeof longer - 1] = '\0';
    assert_int_equal(config_expand_path(longer, got, &err), RC_INVALID);
}

static void test_urls_are_shown_without_secrets(void **state)
{
    (void)state;
    static const char *const cases[][2] = {
        {"s3://b/p", "s3://b/p"},
        {"sftp://u:pw@h:22/p", "sftp://u:***@h:22/p"},
        {"sftp://u:p@w:x@h/p", "sftp://u:***@h/p"},
        {"sftp://u@h/p@q:r", "sftp://u@h/p@q:r"},
        {"s3://b/p?endpoint=h&sseCustomerKey=abc", "s3://b/p?endpoint=h&sseCustomerKey=***"},
        {"s3://b?forcePathStyle=true&force-path-style=1&region=x",
         "s3://b?forcePathStyle=true&force-path-style=1&region=x"},
        {"s3://b?secret-access-key=x&secretAccessKey=y&SECRET-ACCESS-KEY=z",
         "s3://b?secret-access-key=***&secretAccessKey=***&SECRET-ACCESS-KEY=***"},
        {"s3://b?regio=x&regionn=y&=z&region=", "s3://b?regio=***&regionn=***&=***&region="},
        {"s3://b?endpoint=https://u:pw@h", "s3://b?endpoint=***"},
        {"s3://b?endpoint=https%3A%2F%2Fu%3Apw%40h&region=r", "s3://b?endpoint=***&region=r"},
        {"s3://b?region%20=x", "s3://b?region%20=***"},
        {"s3://arn:aws:s3:r:1:accesspoint/n/p", "s3://arn:aws:s3:r:1:accesspoint/n/p"},
        {"sftp://u:p/w@h/p", "sftp://u:***"},
        {"sftp://u:p?w=1@h/p", "sftp://u:***"},
        {"nats://[::1]:4222/b", "nats://[::1]:4222/b"},
        {"s3://b?flag", "s3://b?flag"},
        {"/just/a/path", "/just/a/path"},
        {"nats://u:pw@h", "nats://u:***@h"},
        {"", ""},
        {"?x=secret", "?x=***"},
        {"a?://u:pw@h", "a?://u:pw@h"},
    };
    char got[256];
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        config_url_redact(cases[i][0], got, sizeof got);
        assert_string_equal(got, cases[i][1]);
    }
    config_url_redact("sftp://u:pw@h:22/p", got, 10);
    assert_string_equal(got, "sftp://u:");
}

static void test_secrets_are_not_in_messages(void **state)
{
    (void)state;
    struct err err = {0};
    struct config *cfg = NULL;
    const char *text = REPLICA("url: \"sftp://u:hunter2@h/p\", password: hunter2, host: x");
    assert_int_equal(config_parse(text, strlen(text), "f", &cfg, &err), RC_INVALID);
    assert_null(strstr(err.text, "hunter2"));
    text = REPLICA("url: \"u:hunter2@h/p\"");
    assert_int_equal(config_parse(text, strlen(text), "f", &cfg, &err), RC_INVALID);
    assert_null(strstr(err.text, "hunter2"));
}

static void test_from_args_and_find(void **state)
{
    (void)state;
    struct err err = {0};
    struct config *cfg = NULL;
    const struct config_db *db = NULL;
    assert_int_equal(config_from_args("/x/a.db", "file:///r", &cfg, &err), RC_OK);
    assert_int_equal(cfg->db_count, 1);
    assert_string_equal(cfg->dbs[0].meta_path, "/x/.a.db-sluice");
    assert_string_equal(cfg->dbs[0].replica.path, "/r");
    assert_int_equal(config_find_db(cfg, "/x/y/../a.db", &db, &err), RC_OK);
    assert_ptr_equal(db, &cfg->dbs[0]);
    assert_int_equal(config_find_db(cfg, "/nope", &db, &err), RC_NOT_FOUND);
    assert_string_equal(err.text, "database not found in config: /nope");
    assert_int_equal(config_set(cfg, "ltx-encoding", "block", &err), RC_OK);
    assert_string_equal(cfg->ltx_encoding, "block");
    assert_int_equal(config_set(cfg, "ltx-encoding", "x", &err), RC_INVALID);
    assert_string_equal(err.text, "ltx-encoding: must be one of frame|block (got 'x')");
    config_free(cfg);
    assert_int_equal(config_from_args("/x/a.db", "/plain", &cfg, &err), RC_OK);
    assert_string_equal(cfg->dbs[0].replica.type, "file");
    assert_string_equal(cfg->dbs[0].replica.path, "/plain");
    config_free(cfg);
}

static void test_load(void **state)
{
    (void)state;
    char dir[] = "/tmp/sluice-config-XXXXXX", file[64], text[128];
    struct err err = {0};
    struct config *cfg = NULL;
    assert_non_null(mkdtemp(dir));
    snprintf(file, sizeof file, "%s/c.yml", dir);
    snprintf(text, sizeof text, "config file not found: %s", file);
    assert_int_equal(config_load(file, true, &cfg, &err), RC_NOT_FOUND);
    assert_string_equal(err.text, text);
    static const char yml[] = "dbs: [{path: /a/$FOO, replica: {path: /r}}]\n";
    assert_int_equal(os_write_file(file, yml, sizeof yml - 1, 0600, &err), RC_OK);
    assert_int_equal(setenv("FOO", "foo1", 1), 0);
    assert_int_equal(config_load(file, true, &cfg, &err), RC_OK);
    assert_string_equal(cfg->dbs[0].path, "/a/foo1");
    config_free(cfg);
    assert_int_equal(setenv("LITESTREAM_CONFIG", file, 1), 0);
    assert_int_equal(config_load("", false, &cfg, &err), RC_OK);
    assert_string_equal(cfg->dbs[0].path, "/a/$FOO");
    assert_string_equal(cfg->file, file);
    config_free(cfg);
    assert_int_equal(unsetenv("LITESTREAM_CONFIG"), 0);
    assert_int_equal(config_load(dir, true, &cfg, &err), RC_INVALID);
    assert_int_equal(os_unlink(file, &err), RC_OK);
    assert_int_equal(os_rmdir(dir, &err), RC_OK);
}

/* Each allocation fails once: an error comes out, and nothing leaks (the sanitizers look). */
static void test_out_of_memory(void **state)
{
    (void)state;
    bool failed = true;
    for (uint64_t n = 1; failed; n++) {
        struct err err = {0};
        struct config *cfg = NULL;
        fault_arm(FAULT_ALLOC, n, false);
        enum rc rc = config_parse(full, sizeof full - 1, "/etc/x.yml", &cfg, &err);
        failed = fault_fired();
        fault_arm(0, 0, false);
        if (failed)
            assert_int_equal(rc, RC_NO_MEM);
        else
            assert_int_equal(rc, RC_OK);
        config_free(cfg);
        assert_true(n < 5000);
    }
}

/* A file cut anywhere is read or refused, never worse. */
static void test_cut_anywhere(void **state)
{
    (void)state;
    size_t accepted = 0;
    for (size_t n = 0; n < sizeof full; n++) {
        struct err err = {0};
        struct config *cfg = NULL;
        if (config_parse(full, n, "/etc/x.yml", &cfg, &err) == RC_OK)
            accepted++;
        else
            assert_true(strncmp(err.text, "/etc/x.yml", 10) == 0);
        config_free(cfg);
    }
    assert_true(accepted > 10 && accepted < sizeof full);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_defaults),
        cmocka_unit_test(test_every_key),
        cmocka_unit_test(test_every_key_of_the_table_is_in_the_full_example),
        cmocka_unit_test(test_replicas_are_opened),
        cmocka_unit_test(test_empty_values_change_nothing),
        cmocka_unit_test(test_unknown_keys_leave_warnings),
        cmocka_unit_test(test_scalars),
        cmocka_unit_test(test_anchors_and_merge_keys),
        cmocka_unit_test(test_snapshot_of_a_database_is_promoted),
        cmocka_unit_test(test_value_errors),
        cmocka_unit_test(test_structure_errors),
        cmocka_unit_test(test_replica_errors),
        cmocka_unit_test(test_file_urls),
        cmocka_unit_test(test_env_expansion),
        cmocka_unit_test(test_paths),
        cmocka_unit_test(test_urls_are_shown_without_secrets),
        cmocka_unit_test(test_secrets_are_not_in_messages),
        cmocka_unit_test(test_from_args_and_find),
        cmocka_unit_test(test_load),
        cmocka_unit_test(test_out_of_memory),
        cmocka_unit_test(test_cut_anywhere),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
