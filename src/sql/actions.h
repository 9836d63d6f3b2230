/*
 * actions.h -- what SQLite's authorizer asks for, in words that rules can be written in, and what
 * it forgets to ask for.
 *
 * Source: the action codes of sqlite3_set_authorizer in sqlite3.h and their two texts. What each
 * statement asks for in fact was seen by trying (3.53); tests/server/roles_test.c has the proof.
 *
 *   read          READ (table, column); the column is "" when none is read, as for count(*), and
 *                 the INTEGER PRIMARY KEY for a rowid that has such a name, else "ROWID"
 *   insert        INSERT (table): SQLite names no columns
 *   update        UPDATE (table, column); a rowid is "ROWID" whatever its other name
 *   delete        DELETE (table); also asked for by DROP TABLE and DROP VIEW
 *   schema        CREATE, DROP, ALTER, REINDEX, ANALYZE; a PRAGMA that changes the file; VACUUM
 *   pragma        all other PRAGMAs
 *   transaction   BEGIN, COMMIT, ROLLBACK, SAVEPOINT and so on
 *   function      a function that is called
 *   attach        ATTACH (file), DETACH (name)
 *   nothing       SELECT and recursion as such, PRAGMA data_version: they show nothing
 *
 * Pure.
 */
#ifndef SQL_ACTIONS_H
#define SQL_ACTIONS_H
#include "base/err.h"

enum sql_act {
    SQL_ACT_NOTHING,
    SQL_ACT_READ,
    SQL_ACT_INSERT,
    SQL_ACT_UPDATE,
    SQL_ACT_DELETE,
    SQL_ACT_SCHEMA,
    SQL_ACT_PRAGMA,
    SQL_ACT_TRANSACTION,
    SQL_ACT_FUNCTION,
    SQL_ACT_ATTACH,
    SQL_ACT_UNSEEN, /* SQL_ACTION_UNSEEN */
};
struct sql_action {
    enum sql_act act;
    const char *name;   /* of the table, PRAGMA, function or file; NULL: SQLite does not tell */
    const char *column; /* READ, UPDATE; NULL: has none */
    bool any_column;    /* UPDATE of "ROWID": may be a column with another name */
};
/* a, b: the two texts of the authorizer, may be NULL; the result points at them. A code that is not
 * known is SQL_ACT_ATTACH, which hardly anybody may do. */
struct sql_action sql_action_of(int code, const char *a, const char *b);

/*
 * SQLite (3.53 and before) prepares some statements without asking for all that they do. Such a
 * statement is known by its text, which is read with care rather than insight: it may be suspected
 * wrongly, but what is not suspected has been asked for in full.
 *
 *   REPLACE  INSERT OR REPLACE, REPLACE INTO, UPDATE OR REPLACE: rows that are in the way are
 *            deleted, DELETE is not asked for. Whoever enforces rules asks for DELETE of each table
 *            that such a statement inserts into or updates, also by triggers.
 *   UNSEEN   reads columns without READ: JOIN ... USING (...), NATURAL joins (a FULL JOIN even
 *            shows their values); INSERT INTO x SELECT * FROM y without WHERE, which copies pages.
 *            Whoever enforces rules asks for SQL_ACTION_UNSEEN, without texts.
 */
#define SQL_ACTION_UNSEEN 10000 /* no code of SQLite's is that high */
enum { SQL_TRICK_REPLACE = 1 << 0, SQL_TRICK_UNSEEN = 1 << 1 };
unsigned sql_tricks_of(const char *sql, size_t size);
#endif
