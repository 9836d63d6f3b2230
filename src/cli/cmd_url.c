/* cmd_url.c -- `sluice url`: a link to one object of a replica, for who has no credentials. */
#include "cli/cli.h"
#include "base/mem.h"
#include <string.h>

static enum rc run_url(struct cli *c, struct err *err);
static enum rc make_key(const struct opts *o, const struct log *lg, char key[STORE_KEY_MAX + 1],
                        struct err *err);

static const char *const usage[] = {"[options] REPLICA_URL FILE|KEY", "[options] DB_PATH FILE|KEY",
                                    NULL};
static const struct opt options[] = {
    CLI_CONFIG_OPTS,
    {.name = "expires",
     .kind = OPT_DURATION,
     .arg = "DURATION",
     .def = "1h",
     .example = "24h",
     .help = "How long the link works, 1s to 7 days (168h)."},
    {.name = "put",
     .kind = OPT_BOOL,
     .help = "A link to write the object with PUT, instead of one to read it with GET."},
    {.name = "level",
     .kind = OPT_UINT,
     .arg = "LEVEL",
     .def = "0",
     .help = "The level of an LTX file, 0 to 9."},
};
static const struct opt_example examples[] = {
    {"The first file of a replica",
     "sluice url s3://bucket/app 0000000000000001-0000000000000001.ltx"},
    {"A snapshot, for a day", "sluice url -expires 24h -level 9 /var/lib/app.db "
                              "0000000000000001-00000000000000a5.ltx"},
    {"Any object, by its key below the replica", "sluice url s3://bucket/app notes/readme.txt"},
    {NULL, NULL},
};

const struct command cmd_url = {
    .name = "url",
    .summary = "print a link to an object of a replica",
    .usage = usage,
    .about = "Prints a link with which anybody can fetch one object of a replica until it expires, "
             "without credentials. Treat it as a secret. FILE is the name of an LTX file, "
             "<min_txid>-<max_txid>.ltx, with the numbers that \"sluice ltx\" prints; anything "
             "else is taken for a key. Whether there is such an object is not checked. Object "
             "stores can do this; folders and SFTP servers cannot.",
    .opts = options,
    .opt_count = sizeof options / sizeof options[0],
    .examples = examples,
    .run = run_url,
};

static enum rc run_url(struct cli *c, struct err *err)
{
    CLEANUP(cli_close_replica) struct cli_replica r = {0};
    CLEANUP(buf_fini) struct buf link = BUF_INIT;
    const struct opts *o = &c->opts;
    char key[STORE_KEY_MAX + 1];
    cli_hint(c, "sluice help url");
    if (o->arg_count < 2)
        return err_set(err, RC_INVALID, "a replica and the name of a file required");
    if (o->arg_count > 2) return err_set(err, RC_INVALID, "too many arguments");
    c->hint[0] = '\0';
    TRY(cli_open_replica(c, o->args[0], &r, err));
    cli_start_log(r.cfg, "", true);
    TRY(make_key(o, &r.log, key, err));
    int64_t expires_s = (int64_t)(opts_number(o, "expires") / 1000000000);
    TRY(store_presign(r.store, NULL, key, opts_bool(o, "put"), expires_s, &link, err));
    printf("%.*s\n", (int)link.size, (const char *)link.data);
    return RC_OK;
}

static enum rc make_key(const struct opts *o, const struct log *lg, char key[STORE_KEY_MAX + 1],
                        struct err *err)
{
    uint64_t level = opts_number(o, "level"), min, max;
    const char *name = o->args[1];
    if (level > LOG_LEVEL_SNAPSHOT)
        return err_set(err, RC_INVALID, "level must be between 0 and %d", LOG_LEVEL_SNAPSHOT);
    if (ltx_name_get(name, &min, &max)) {
        log_key(lg, (uint32_t)level, min, max, key);
        return RC_OK;
    }
    if (opts_given(o, "level"))
        return err_set(err, RC_INVALID, "-level goes with the name of an LTX file, not with '%s'",
                       name);
    if (strlen(name) > STORE_KEY_MAX)
        return err_set(err, RC_INVALID, "key is longer than %d bytes", STORE_KEY_MAX);
    memcpy(key, name, strlen(name) + 1);
    return RC_OK;
}
