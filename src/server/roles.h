/*
 * roles.h -- what a role's rules say to each action of a statement; auth.h has the syntax.
 *
 * A role answers "allowed", "denied" or nothing. A policy is what several roles say together: one
 * that denies outweighs all that allow; where all are silent, functions and transactions are
 * allowed and the rest is denied.
 *
 *   tables    names of tables and views; for functions and PRAGMAs their names. What has no name
 *             (REINDEX, VACUUM, PRAGMA user_version = 1) is allowed by any rule that allows schema
 *   columns   for read and update only: SQLite does not tell which columns an INSERT sets.
 *             count(*) reads no column: a rule with columns may allow it, but not deny it
 *   views, triggers, foreign keys    what they do is asked for like the statement's own: a view
 *             shows only what one may read without it
 *   temp      tables of the database "temp" hold only what the connection has put there: free to
 *             use; to create them is schema
 *   sqlite_schema, sqlite_sequence, sqlite_stat1    free to whoever may change the schema of
 *             anything, unless denied by a rule; others need read. Nobody can write sqlite_schema
 *             by hand, so that needs no rule
 *   sqlite_stat4.sample    has values of indexed columns: only for roles that read everything
 *   X_data, X_idx, X_content, X_docsize, X_config, X_rowid, X_parent, X_node    may be where the
 *             virtual table X keeps its rows: a rule that denies X or columns of it denies these,
 *             too. Where such a name is an ordinary table, a rule before that one allows it
 *   ATTACH    needs a rule for "*"
 *
 * What SQLite reads without asking (sql/actions.h, SQL_ACTION_UNSEEN) is for roles that read
 * everything: some role allows read without tables and columns, and no rule at all denies read.
 *
 * Threads: any; nothing changes after it was made.
 */
#ifndef SERVER_ROLES_H
#define SERVER_ROLES_H
#include <jansson.h>
#include "sql/conn.h"

#define ROLES_TEXT_MAX   (1 << 20) /* bytes of the configuration's JSON */
#define ROLES_MAX        1024
#define ROLE_NAME_MAX    64
#define ROLE_RULES_MAX   256
#define ROLE_WORDS_MAX   256 /* tables or columns of a rule */
#define ROLE_WORD_MAX    255 /* bytes of one */
#define POLICY_ROLES_MAX 16

struct role;
struct roles; /* by name */

/* {"name": [rules], ...}; NULL: no roles. Fails: RC_INVALID with the role, the rule and what is
 * wrong, in printable ASCII; RC_TOO_BIG; RC_NO_MEM. */
MUST_CHECK enum rc roles_parse(const char *json, struct roles **ret_roles, struct err *err);
void roles_free(struct roles *roles);
const struct role *roles_find(const struct roles *roles, const char *name); /* NULL: none */

/* A role from an array of rules; name is for messages. Fails: as roles_parse. */
MUST_CHECK enum rc role_parse(const json_t *rules, const char *name, struct role **ret_role,
                              struct err *err);
void role_free(struct role *role);

/* The policy of one role: always the same one, and part of the role. */
const struct sql_policy *role_policy(const struct role *role);
/* The policy of several, which must outlive it. Fails: RC_NO_MEM. */
MUST_CHECK enum rc policy_new(const struct role *const *roles, size_t count,
                              struct sql_policy **ret_policy, struct err *err);
void policy_free(struct sql_policy *policy); /* of policy_new; NULL is fine */

/* A text for a message: what is not printable ASCII becomes '?'; a long one is cut. */
#define ROLES_SHOWN 48
const char *roles_show(const char *text, char out[ROLES_SHOWN]);
#endif
