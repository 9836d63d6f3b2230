/*
 * conn_guard.c -- what a statement may not do, whoever sends it.
 *
 * SQLite asks the authorizer for each action while it prepares a statement, views and triggers
 * included. It also asks while a statement runs: for what virtual tables and VACUUM prepare on
 * their own, and when a changed schema makes it prepare the client's statement anew. The same rules
 * hold there, with one exception: VACUUM attaches a temporary file, whose name is empty.
 *
 * Writes to sqlite_schema and to shadow tables are refused by SQLite itself
 * (SQLITE_DBCONFIG_DEFENSIVE, writable_schema off); writable_schema cannot be reached from here.
 */
#include <stdio.h>
#include <string.h>
#include <strings.h>
#include "sql/conn_intern.h"

enum pragma_rule {
    PRAGMA_FREE,    /* with or without a value: a question, or a setting of the file */
    PRAGMA_READ,    /* without a value */
    PRAGMA_SESSION, /* a value changes this connection only */
    PRAGMA_KEYS,    /* a value changes this connection only, and sql_conn_reset knows of it */
    PRAGMA_DEFER,   /* a value changes this transaction only */
    PRAGMA_VOID,    /* a value is accepted and does nothing */
    PRAGMA_WAL,     /* a value only if it is what is there anyway */
};
struct pragma {
    const char *name;
    enum pragma_rule rule;
};

static const struct pragma pragmas[] = {
    /* Questions. */
    {"collation_list", PRAGMA_FREE},
    {"compile_options", PRAGMA_FREE},
    {"data_version", PRAGMA_READ},
    {"database_list", PRAGMA_FREE},
    {"foreign_key_check", PRAGMA_FREE},
    {"foreign_key_list", PRAGMA_FREE},
    {"freelist_count", PRAGMA_READ},
    {"function_list", PRAGMA_FREE},
    {"index_info", PRAGMA_FREE},
    {"index_list", PRAGMA_FREE},
    {"index_xinfo", PRAGMA_FREE},
    {"integrity_check", PRAGMA_FREE},
    {"module_list", PRAGMA_FREE},
    {"page_count", PRAGMA_READ},
    {"pragma_list", PRAGMA_FREE},
    {"quick_check", PRAGMA_FREE},
    {"stats", PRAGMA_READ},
    {"table_info", PRAGMA_FREE},
    {"table_list", PRAGMA_FREE},
    {"table_xinfo", PRAGMA_FREE},
    /* The database file. */
    {"application_id", PRAGMA_FREE},
    {"auto_vacuum", PRAGMA_FREE},
    {"incremental_vacuum", PRAGMA_FREE},
    {"optimize", PRAGMA_FREE},
    {"user_version", PRAGMA_FREE},
    {"encoding", PRAGMA_READ},
    {"legacy_file_format", PRAGMA_READ},
    {"page_size", PRAGMA_READ},
    {"schema_version", PRAGMA_READ},
    /* The connection. */
    {"analysis_limit", PRAGMA_SESSION},
    {"automatic_index", PRAGMA_SESSION},
    {"case_sensitive_like", PRAGMA_SESSION},
    {"cell_size_check", PRAGMA_SESSION},
    {"foreign_keys", PRAGMA_KEYS},
    {"legacy_alter_table", PRAGMA_SESSION},
    {"read_uncommitted", PRAGMA_SESSION},
    {"recursive_triggers", PRAGMA_SESSION},
    {"reverse_unordered_selects", PRAGMA_SESSION},
    {"secure_delete", PRAGMA_SESSION},
    {"defer_foreign_keys", PRAGMA_DEFER},
    {"shrink_memory", PRAGMA_FREE},
    /* Ours to choose: many programs set it first thing, and mean no harm. */
    {"busy_timeout", PRAGMA_VOID},
    {"journal_mode", PRAGMA_WAL},
    {"cache_size", PRAGMA_READ},
    {"cache_spill", PRAGMA_READ},
    {"checkpoint_fullfsync", PRAGMA_READ},
    {"fullfsync", PRAGMA_READ},
    {"hard_heap_limit", PRAGMA_READ},
    {"ignore_check_constraints", PRAGMA_READ},
    {"journal_size_limit", PRAGMA_READ},
    {"locking_mode", PRAGMA_READ},
    {"max_page_count", PRAGMA_READ},
    {"mmap_size", PRAGMA_READ},
    {"query_only", PRAGMA_READ},
    {"soft_heap_limit", PRAGMA_READ},
    {"synchronous", PRAGMA_READ},
    {"temp_store", PRAGMA_READ},
    {"threads", PRAGMA_READ},
    {"trusted_schema", PRAGMA_READ},
    {"wal_autocheckpoint", PRAGMA_READ},
};
static const char *const modules[] = {"fts5", "fts5vocab", "rtree", "rtree_i32", "geopoly", NULL};
static const char *const functions[] = {"load_extension", "readfile",       "writefile",
                                        "edit",           "fts3_tokenizer", NULL};
/* Modules whose tables are refused, under whatever name a database that was made elsewhere has
 * them. Raw pages pass by every rule about tables; statements may be somebody else's. */
static const char *const raw_modules[] = {"sqlite_dbpage", "sqlite_stmt", NULL};
static const char *const own_databases[] = {"main", "temp", NULL};
/* Of virtual tables: fts5, rtree, geopoly. */
static const char *const shadows[] = {"data",  "idx",    "content", "docsize", "config",
                                      "rowid", "parent", "node",    NULL};

static int refuse_table(sqlite3 *db, void *aux, int argc, const char *const *argv,
                        sqlite3_vtab **ret, char **ret_text);
static int judge(struct guard *g, int action, const char *a, const char *b);
static int judge_attach(struct guard *g, const char *file);
static int judge_pragma(struct guard *g, const char *name, const char *value);
static int judge_session(struct guard *g, unsigned seen);
static void note(struct guard *g, int action);
static bool ask_policy(struct guard *g, int action, const char *a, const char *b, const char *db);
static bool ask_for_shadow(struct guard *g, int action, const char *a, const char *b,
                           const char *db);
static int refuse(struct guard *g, const char *what, const char *name);
static bool listed(const char *const *list, const char *name);

int conn_guard_authorize(void *guard, int action, const char *a, const char *b, const char *db,
                         const char *trigger)
{
    struct guard *g = guard;
    (void)trigger;
    int verdict = judge(g, action, a, b);
    if (verdict != SQLITE_OK) return verdict;
    bool pushes = g->replaces && (action == SQLITE_INSERT || action == SQLITE_UPDATE);
    if (!ask_policy(g, action, a, b, db) || (pushes && !ask_policy(g, SQLITE_DELETE, a, NULL, db)))
        return refuse(g, "not allowed", a != NULL ? a : "");
    if (!g->stepping) note(g, action);
    return SQLITE_OK;
}

int conn_guard_modules(sqlite3 *db)
{
    static const sqlite3_module refusal = {.xConnect = refuse_table};
    int code = SQLITE_OK;
    for (size_t i = 0; raw_modules[i] != NULL && code == SQLITE_OK; i++)
        code = sqlite3_create_module_v2(db, raw_modules[i], &refusal, NULL, NULL);
    return code;
}

static int refuse_table(sqlite3 *db, void *aux, int argc, const char *const *argv,
                        sqlite3_vtab **ret, char **ret_text)
{
    (void)db, (void)aux, (void)argc, (void)ret;
    *ret_text = sqlite3_mprintf("table %s may not be used", argv[2]);
    return *ret_text != NULL ? SQLITE_ERROR : SQLITE_NOMEM;
}

static int judge(struct guard *g, int action, const char *a, const char *b)
{
    switch (action) {
    case SQLITE_ATTACH:
        return judge_attach(g, a);
    case SQLITE_DETACH:
        if (a == NULL || listed(own_databases, a)) return refuse(g, "DETACH", a);
        return judge_session(g, SEEN_SESSION);
    case SQLITE_PRAGMA:
        return judge_pragma(g, a, b);
    case SQLITE_FUNCTION:
        return listed(functions, b) ? refuse(g, "function", b) : SQLITE_OK;
    case SQLITE_CREATE_VTABLE:
    case SQLITE_DROP_VTABLE:
        return listed(modules, b) ? SQLITE_OK : refuse(g, "virtual table module", b);
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
        return judge_session(g, 0);
    case SQLITE_CREATE_TEMP_INDEX:
    case SQLITE_CREATE_TEMP_TABLE:
    case SQLITE_CREATE_TEMP_TRIGGER:
    case SQLITE_CREATE_TEMP_VIEW:
    case SQLITE_DROP_TEMP_INDEX:
    case SQLITE_DROP_TEMP_TABLE:
    case SQLITE_DROP_TEMP_TRIGGER:
    case SQLITE_DROP_TEMP_VIEW:
        return judge_session(g, SEEN_SESSION);
    default:
        return SQLITE_OK;
    }
}

static int judge_attach(struct guard *g, const char *file)
{
    bool own = g->attaching || (g->stepping && g->vacuum && file != NULL && file[0] == '\0');
    return own ? SQLITE_OK : refuse(g, "ATTACH", file != NULL ? file : "an expression");
}

static int judge_pragma(struct guard *g, const char *name, const char *value)
{
    const struct pragma *p = NULL;
    for (size_t i = 0; i < sizeof pragmas / sizeof pragmas[0] && name != NULL; i++)
        if (strcasecmp(pragmas[i].name, name) == 0) p = &pragmas[i];
    if (p == NULL) return refuse(g, "PRAGMA", name != NULL ? name : "");
    if (value == NULL || p->rule == PRAGMA_FREE) return SQLITE_OK;
    switch (p->rule) {
    case PRAGMA_SESSION:
        return judge_session(g, SEEN_SESSION | SEEN_SETTING);
    case PRAGMA_KEYS:
        return judge_session(g, 0);
    case PRAGMA_DEFER:
        g->seen |= SEEN_DEFER;
        return SQLITE_OK;
    case PRAGMA_VOID:
        return SQLITE_IGNORE;
    case PRAGMA_WAL:
        if (strcasecmp(value, "wal") == 0) return SQLITE_OK;
        break;
    default:
        break;
    }
    return refuse(g, "a value for PRAGMA", name);
}

/* Something that a transaction of several writes cannot hold, but a connection can. */
static int judge_session(struct guard *g, unsigned seen)
{
    if (!g->stepping) g->seen |= seen | SEEN_ALONE;
    return SQLITE_OK;
}

static void note(struct guard *g, int action)
{
    switch (action) {
    case SQLITE_INSERT:
        g->seen |= SEEN_INSERT | SEEN_CHANGE;
        break;
    case SQLITE_UPDATE:
    case SQLITE_DELETE:
        g->seen |= SEEN_CHANGE;
        break;
    case SQLITE_READ:
    case SQLITE_SELECT:
    case SQLITE_FUNCTION:
    case SQLITE_RECURSIVE:
    case SQLITE_TRANSACTION:
    case SQLITE_SAVEPOINT:
        break;
    default: /* CREATE TABLE is also an INSERT into sqlite_schema */
        g->seen |= SEEN_SCHEMA;
        break;
    }
}

static bool ask_policy(struct guard *g, int action, const char *a, const char *b, const char *db)
{
    if (g->policy == NULL) return true;
    if (g->policy->allows(g->policy, action, a, b, db)) return true;
    return g->stepping && ask_for_shadow(g, action, a, b, db);
}

/* A virtual table reads and writes its own tables: who may use "docs" need not be told of
 * "docs_data". Reading a full text index may also mean to write its statistics. */
static bool ask_for_shadow(struct guard *g, int action, const char *a, const char *b,
                           const char *db)
{
    char owner[128];
    bool table = action == SQLITE_READ || action == SQLITE_INSERT || action == SQLITE_UPDATE ||
                 action == SQLITE_DELETE;
    const char *dash = table && a != NULL ? strrchr(a, '_') : NULL;
    if (dash == NULL || !listed(shadows, dash + 1) || (size_t)(dash - a) >= sizeof owner)
        return false;
    snprintf(owner, sizeof owner, "%.*s", (int)(dash - a), a);
    if (action == SQLITE_READ) return g->policy->allows(g->policy, action, owner, "", db);
    return g->policy->allows(g->policy, SQLITE_INSERT, owner, NULL, db) ||
           g->policy->allows(g->policy, SQLITE_UPDATE, owner, b != NULL ? b : "", db) ||
           g->policy->allows(g->policy, SQLITE_DELETE, owner, NULL, db);
}

static int refuse(struct guard *g, const char *what, const char *name)
{
    g->denied = true;
    if (g->why[0] == '\0') snprintf(g->why, sizeof g->why, "%s '%.60s'", what, name ? name : "");
    return SQLITE_DENY;
}

static bool listed(const char *const *list, const char *name)
{
    for (size_t i = 0; list[i] != NULL && name != NULL; i++)
        if (strcasecmp(list[i], name) == 0) return true;
    return false;
}
