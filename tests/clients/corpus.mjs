/*
 * corpus.mjs -- requests for compare.mjs: valid, odd and malformed ones.
 *
 * A case is {name, steps, why}. `why`: the answers differ, for this reason; a case without it must
 * be answered alike, and one with it that is answered alike is out of date. Each step is one
 * exchange:
 *
 *   {method, path, body, headers}     HTTP; "{baton}" in a body stands for the last baton
 *   {protocol, messages}              a WebSocket: messages are sent, all that comes back is noted
 *
 * Before each case the table `w` is made anew; `t` is only read.
 */
import { upTo } from './lib/sql.mjs';

export const fixture = `
    CREATE TABLE t(id INTEGER PRIMARY KEY, name TEXT, x REAL, b BLOB, n NUMERIC,
        v VARCHAR(10) DEFAULT 'd');
    INSERT INTO t VALUES (1, 'one', 1.5, x'00ff', 10, 'a'), 
        (2, 'zwei', -2.0, x'', 9007199254740993, NULL),
        (3, NULL, NULL, NULL, NULL, ''), (4, 'four', 1e300, x'0102030405', 'text', 'Ω'),
        (9223372036854775807, 'last', 0.1, NULL, -1, 'z');
    CREATE TABLE p(id INTEGER PRIMARY KEY);
    CREATE TABLE c(id INTEGER PRIMARY KEY, p_id REFERENCES p(id));
    CREATE TABLE s(a INT, b TEXT, PRIMARY KEY (a, b)) WITHOUT ROWID, STRICT;
    INSERT INTO p VALUES (1), (2); INSERT INTO c VALUES (1, 1); INSERT INTO s VALUES (1, 'x');
    CREATE VIEW names AS SELECT id, upper(name) AS name FROM t WHERE name IS NOT NULL;
    CREATE INDEX t_name ON t(name);
    CREATE VIRTUAL TABLE f USING fts5(body);
    INSERT INTO f VALUES ('an apple a day'), ('two pears');`;

export const reset = `
    DROP TABLE IF EXISTS w;
    CREATE TABLE w(id INTEGER PRIMARY KEY, u UNIQUE, n NOT NULL DEFAULT 7, c CHECK (c < 10));
    INSERT INTO w VALUES (1, 'a', 1, 1), (2, 'b', 2, 2);`;

export const cases = [];

function add(name, steps, why) {
    cases.push({ name, steps: Array.isArray(steps) ? steps : [steps], why });
}

const pipe = (requests, version = 'v3') => ({ path: `/${version}/pipeline`, body: { requests } });
const more = (requests, version = 'v3') => ({
    path: `/${version}/pipeline`,
    body: { baton: '{baton}', requests },
});
const exec = (sql, args, rest) => ({ type: 'execute', stmt: { sql, args, ...rest } });
const close = { type: 'close' };
const look = pipe([exec('SELECT * FROM w ORDER BY id'), close]);
const int = (value) => ({ type: 'integer', value: String(value) });
const float = (value) => ({ type: 'float', value });
const text = (value) => ({ type: 'text', value });
const blob = (base64) => ({ type: 'blob', base64 });
const nul = { type: 'null' };
const batchOf = (steps) => ({
    steps: steps.map((step) =>
        Array.isArray(step)
            ? { stmt: { sql: step[0] }, condition: step[1] }
            : { stmt: { sql: step } },
    ),
});
const batch = (steps) => ({ type: 'batch', batch: batchOf(steps) });
const ok = (step) => ({ type: 'ok', step });
const err = (step) => ({ type: 'error', step });
const not = (cond) => ({ type: 'not', cond });
const and = (...conds) => ({ type: 'and', conds });
const or = (...conds) => ({ type: 'or', conds });
const auto = { type: 'is_autocommit' };

/* Each entry: an SQL text, or [text, why]. */
function statements(title, list, after = []) {
    for (const entry of list) {
        const [sql, why] = Array.isArray(entry) ? entry : [entry];
        add(
            `${title}: ${sql.length > 70 ? `${sql.slice(0, 67)}...` : sql}`,
            [pipe([exec(sql), close]), ...after],
            why,
        );
    }
}

/* ---- Statements ---- */

const fork = 'what libSQL added to SQLite is not in SQLite';
const wording = 'the words of newer SQLite';
const parser =
    "libSQL's server has a second parser with a grammar and words of its own; here SQLite judges";
const gate =
    "libSQL's server lets only statements through that it knows, and calls the others " +
    'unparsable; here what is harmless ' +
    'works, and the rest is not authorized';

statements('read', [
    'SELECT 1',
    'SELECT * FROM t',
    'SELECT id, name AS n, x + 1, b, v FROM t ORDER BY id DESC LIMIT 2 OFFSET 1',
    'SELECT count(*), sum(id), avg(x), max(name), group_concat(v) FROM t WHERE id < 100',
    'SELECT typeof(n), n FROM t ORDER BY id',
    'SELECT * FROM names ORDER BY id',
    'SELECT a.id, b.id FROM p a LEFT JOIN c b ON b.p_id = a.id ORDER BY 1',
    'SELECT t.*, c.* FROM t, c WHERE t.id = c.id',
    `${upTo(50)} SELECT i, i * i FROM n`,
    'SELECT id, row_number() OVER (ORDER BY id DESC) AS r FROM p',
    "SELECT json_extract('{\"a\":[1,{\"b\":2}]}', '$.a[1].b'), json_array(1, 'x', NULL)",
    'SELECT key, value, type FROM json_each(\'[1,"two",null]\')',
    "SELECT body FROM f('apple')",
    "SELECT highlight(f, 0, '<', '>') FROM f WHERE f MATCH 'pears'",
    "SELECT name FROM sqlite_schema WHERE type = 'index' ORDER BY name",
    "SELECT name FROM sqlite_master WHERE name = 't'",
    "VALUES (1, 'a'), (2, 'b')",
    'SELECT 1 AS "a b", 2 AS "", 3 AS "ü"',
    'SELECT 1 AS a, 2 AS a',
    'SELECT NULL, 0, -0.0, 1.0, 1e100, 5e-324, 9223372036854775807, -9223372036854775808',
    'SELECT 9e999, -9e999, 9e999 - 9e999',
    "SELECT '', 'it''s', 'Ω≈ç√', char(0x1f600), char(1, 31, 127)",
    "SELECT x'', x'00', zeroblob(5), x'deadbeef'",
    'SELECT 0.1 + 0.2, 1/3, 1/3.0, 7 % 3, -7 / 2, 1 << 62, ~5',
    'SELECT 123456789.123456789, 1.7976931348623157e308, 2.2250738585072014e-308',
    "SELECT CAST('12abc' AS INTEGER), CAST(1.9 AS INTEGER), CAST('x' AS REAL), CAST(5 AS TEXT)",
    "SELECT 'a' || NULL, 'a' || 1, NULL IS NULL, NULL = NULL, 1 BETWEEN 0 AND 2, 'b' IN ('a', 'b')",
    "SELECT length('Łódź'), upper('abcß'), substr('hello', -3), replace('aaa', 'a', 'b'),",
    "SELECT date('2026-01-02', '+1 month'), strftime('%Y-%j', '2026-03-01')",
    "SELECT printf('%05d|%.2f|%s|%q', 42, 3.14159, 'x', 'it''s')",
    'SELECT abs(-5), round(2.567, 1), min(3, 1, 2), coalesce(NULL, 5), iif(1, 2, 3), nullif(1, 1)',
    'SELECT DISTINCT p_id FROM c UNION SELECT id FROM p EXCEPT SELECT 2 ORDER BY 1',
    'SELECT (SELECT max(id) FROM p), EXISTS (SELECT 1 FROM c WHERE id = 99)',
    'SELECT id FROM p WHERE id > (SELECT avg(id) FROM p)',
    'SELECT p_id, count(*) FROM c GROUP BY p_id HAVING count(*) > 0',
    "SELECT CASE WHEN 1 THEN 'y' ELSE 'n' END, CASE 5 WHEN 4 THEN 'a' END",
    'SELECT rowid, _rowid_, oid FROM p ORDER BY 1',
    'SELECT last_insert_rowid() IS NOT NULL, changes() >= 0, total_changes() >= 0',
    "SELECT 'a' LIKE 'A', 'a' GLOB 'A', 'abc' LIKE 'a%', '10%' LIKE '10!%' ESCAPE '!'",
    'SELECT * FROM t NATURAL JOIN p',
    'SELECT * FROM p CROSS JOIN c USING (id)',
    'SELECT * FROM (SELECT id AS k FROM p) AS q WHERE k = 1',
    'SELECT 1;',
    ' ; SELECT 1 ; ',
    'SELECT 1 -- end',
    '/* a */ SELECT /* b */ 1 /* c */',
    'select\n\t1\r\n',
    [
        'EXPLAIN QUERY PLAN SELECT * FROM t WHERE id = 1',
        'newer SQLite estimates a cost in a column that nobody uses',
    ],
    'PRAGMA table_info(t)',
    'PRAGMA table_list(t)',
    'PRAGMA index_list(t)',
    'PRAGMA index_info(t_name)',
    'PRAGMA table_xinfo(s)',
    'PRAGMA foreign_key_list(c)',
    'PRAGMA foreign_keys',
    'PRAGMA user_version',
    'PRAGMA integrity_check',
    'PRAGMA quick_check',
    'PRAGMA encoding',
    'PRAGMA foreign_key_check',
    'PRAGMA journal_mode',
    'PRAGMA page_size',
    'PRAGMA application_id',
    'PRAGMA recursive_triggers',
    "SELECT name, type, pk FROM pragma_table_info('t')",
]);

statements(
    'write',
    [
        "INSERT INTO w(u) VALUES ('c')",
        "INSERT INTO w VALUES (10, 'x', 1, 9), (11, 'y', 1, 9)",
        'INSERT INTO w(u) SELECT name FROM t WHERE name IS NOT NULL',
        'INSERT INTO w DEFAULT VALUES',
        "INSERT OR IGNORE INTO w(u) VALUES ('a')",
        "INSERT OR REPLACE INTO w(u) VALUES ('a')",
        "REPLACE INTO w(id, u) VALUES (1, 'z')",
        "INSERT INTO w(id, u) VALUES (1, 'q') ON CONFLICT(id) DO UPDATE SET u = excluded.u",
        "INSERT INTO w(id, u) VALUES (1, 'q') ON CONFLICT DO NOTHING",
        "INSERT INTO w(u) VALUES ('r') RETURNING *",
        "INSERT INTO w(id, u) VALUES (9223372036854775807, 'big')",
        'UPDATE w SET n = n + 1',
        "UPDATE w SET u = 'x' WHERE id = 77",
        'UPDATE w SET n = 5 WHERE id = 1 RETURNING id, n AS new_n',
        'UPDATE w SET n = p.id * 10 FROM p WHERE p.id = w.id',
        'DELETE FROM w',
        'DELETE FROM w WHERE id = 1 RETURNING u',
        'DELETE FROM w WHERE id > 99',
        'CREATE TABLE IF NOT EXISTS w(x)',
        'DROP TABLE IF EXISTS no_such',
        'CREATE INDEX w_n ON w(n)',
        'CREATE UNIQUE INDEX w_c ON w(c)',
        "ALTER TABLE w ADD COLUMN extra TEXT DEFAULT 'e'",
        'ALTER TABLE w RENAME COLUMN n TO m',
        'ALTER TABLE w DROP COLUMN c',
        'DROP TABLE w',
        'REINDEX w',
        'CREATE TRIGGER w_t AFTER INSERT ON w BEGIN UPDATE w SET n = 99 WHERE id = NEW.id; END',
        'PRAGMA user_version = 5',
        'PRAGMA user_version = 0',
        "WITH q(x) AS (VALUES ('v')) INSERT INTO w(u) SELECT x FROM q",
    ],
    [look],
);

statements(
    'fails',
    [
        "INSERT INTO w(u) VALUES ('a')",
        'INSERT INTO w(id) VALUES (1)',
        'INSERT INTO w(n) VALUES (NULL)',
        'INSERT INTO w(c) VALUES (10)',
        "INSERT INTO w(u) VALUES ('k'), ('a')",
        'INSERT INTO c(p_id) VALUES (99)',
        'DELETE FROM p WHERE id = 1',
        "INSERT INTO s VALUES ('x', 1)",
        "INSERT INTO s VALUES (1, 'x')",
        "INSERT INTO w(id) VALUES ('text')",
        'SELECT * FROM no_such',
        'SELECT no_such FROM t',
        'SELECT no_such(1)',
        'SELECT t.no_such FROM t',
        'INSERT INTO w(no_such) VALUES (1)',
        'INSERT INTO w VALUES (1)',
        'INSERT INTO no_such VALUES (1)',
        'UPDATE no_such SET x = 1',
        'UPDATE w SET no_such = 1',
        'DROP TABLE no_such',
        'DROP TABLE names',
        'CREATE TABLE t(x)',
        'CREATE INDEX t_name ON t(x)',
        'CREATE TABLE sqlite_x(a)',
        'CREATE VIEW t AS SELECT 1',
        'ALTER TABLE no_such ADD COLUMN x',
        'ALTER TABLE w ADD COLUMN u TEXT',
        'ALTER TABLE w DROP COLUMN id',
        'SELECT abs(-9223372036854775808)',
        'SELECT sum(9223372036854775807) FROM p',
        'SELECT 1 UNION SELECT 1, 2',
        'SELECT * FROM p ORDER BY 5',
        'SELECT max(count(*)) FROM p',
        'SELECT count(*) FROM p WHERE count(*) > 1',
        'SELECT id FROM p, c',
        'SELECT substr()',
        "SELECT json('{')",
        "SELECT json_extract('{}', 'x')",
        "SELECT * FROM f WHERE f MATCH '\"'",
        'SELECT zeroblob(2000000000)',
        'COMMIT',
        'ROLLBACK',
        'RELEASE nothing',
        'ROLLBACK TO nothing',
        ["SELECT load_extension('x')", 'the code says what it is: SQLITE_AUTH'],
        ['DELETE FROM sqlite_schema', 'SQLITE_AUTH says that it is not allowed; libSQL has no code for it'],
        ['INSERT INTO sqlite_schema VALUES (1, 2, 3, 4, 5)', 'SQLITE_AUTH says that it is not allowed; libSQL has no code for it'],
        ['DROP TABLE sqlite_schema', 'SQLITE_AUTH says that it is not allowed; libSQL has no code for it'],
        ['SELECT "no_such"', wording],
        ['SELECT 1 WHERE "x" = "x"', wording],
        ['PRAGMA no_such_pragma', gate],
        'PRAGMA table_info(no_such)',
        "SELECT RAISE(ABORT, 'x')",
        ['CREATE TABLE x(a, a)', parser],
        'CREATE TABLE x()',
        'CREATE TABLE x(a PRIMARY KEY, b PRIMARY KEY)',
        '',
        ';',
        '-- only a comment',
        'SELECT 1; SELECT 2',
        'SELECT 1;;',
        ['SELECT 1; garbage', 'two statements are refused before the first one runs'],
        'SELEC 1',
        'SELECT',
        'SELECT FROM t',
        'SELECT (1',
        'SELECT 1)',
        "SELECT 'open",
        'SELECT "open',
        "SELECT x'0'",
        'SELECT 1 1',
        'INSERT INTO',
        'CREATE',
        'garbage',
        '\u00fc',
        'SELECT \u0000',
        '@',
        'SELECT * FROM t WHERE',
        'SELECT 0x',
        'SELECT 1e',
        'SELECT ?0',
        'SELECT ?99999',
        'SELECT :',
        'SELECT [a',
        ['SELECT 1 /* open', 'SQLite lets a comment end with the text'],
    ],
    [look],
);

statements('gate', [
    ['VACUUM', gate],
    ['ANALYZE', gate],
    ['ANALYZE t', gate],
    'REINDEX',
    ['PRAGMA optimize', gate],
    ['PRAGMA wal_checkpoint', gate],
    ['CREATE TEMP TABLE tt(x)', gate],
    ['CREATE TEMP VIEW tv AS SELECT 1', gate],
    ["ATTACH 'other.db' AS o", gate],
    ["ATTACH ':memory:' AS o", gate],
    'DETACH o',
    ['PRAGMA journal_mode = delete', gate],
    ['PRAGMA synchronous = off', gate],
    ['PRAGMA cache_size = 10', gate],
    ['PRAGMA busy_timeout = 5', gate],
    ['PRAGMA writable_schema = on', gate],
    ['PRAGMA query_only = on', gate],
    ['PRAGMA case_sensitive_like = on', gate],
    'PRAGMA foreign_keys = off',
    ['PRAGMA ignore_check_constraints = on', gate],
    ['PRAGMA temp_store = 2', gate],
    ['PRAGMA locking_mode = exclusive', gate],
    ["VACUUM INTO 'x.db'", gate],
    'EXPLAIN SELECT 1',
    ['BEGIN CONCURRENT', gate],
    ['ALTER TABLE w ALTER COLUMN u TO u INTEGER', fork],
    ['CREATE TABLE rr(x) RANDOM ROWID', fork],
    ["SELECT vector_distance_cos(vector('[1,2]'), vector('[2,1]'))", fork],
    ['SELECT libsql_server_database_name()', fork],
]);

/* ---- Arguments and values ---- */

function argued(name, sql, args, rest, why) {
    add(`args: ${name}`, pipe([exec(sql, args, rest), close]), why);
}
const named = (...list) => ({ named_args: list.map(([name, value]) => ({ name, value })) });
argued('all types', 'SELECT ?, ?, ?, ?, ?', [nul, int(5), float(1.5), text('x'), blob('AAE')]);
argued('extremes', 'SELECT ?, ?', [int('9223372036854775807'), int('-9223372036854775808')]);
argued('floats', 'SELECT ?, ?, ?, ?', [float(0), float(-0.5), float(1e308), float(1)]);
argued('whole floats in an integer column', 'INSERT INTO w(id, c) VALUES (?, ?) RETURNING *', [
    float(5),
    float(2),
]);
argued('texts', 'SELECT ?, ?, ?', [text(''), text('a\u0000b'), text('\ud83d\ude00')]);
argued('blobs', 'SELECT ?, ?, length(?)', [blob(''), blob('//8'), blob('AAECAwQ')]);
argued('padded blob', 'SELECT ?', [blob('AA==')]);
argued('numbered', 'SELECT ?2, ?1, ?2', [int(1), int(2)]);
argued('a gap', 'SELECT ?3, ?1', [int(1), int(2), int(3)]);
argued('too few', 'SELECT ?, ?', [int(1)]);
argued('too many', 'SELECT ?', [int(1), int(2)]);
argued('none wanted', 'SELECT 1', [int(1)]);
argued('none given', 'SELECT ?');
argued(
    'named with a prefix',
    'SELECT :a, @b, $c',
    undefined,
    named([':a', int(1)], ['@b', int(2)], ['$c', int(3)]),
);
argued(
    'named without',
    'SELECT :a, @b, $c',
    undefined,
    named(['a', int(1)], ['b', int(2)], ['c', int(3)]),
);
argued('named and unknown', 'SELECT :a', undefined, named(['a', int(1)], ['zz', int(2)]));
argued('named and missing', 'SELECT :a, :b', undefined, named(['a', int(1)]));
argued('named twice', 'SELECT :a', undefined, named(['a', int(1)], ['a', int(2)]));
argued('both kinds', 'SELECT ?, :a', [int(1)], named(['a', int(2)]));
argued('empty lists', 'SELECT 5', [], { named_args: [] });
argued(
    'want_rows false',
    'SELECT 5',
    [],
    { want_rows: false },
    'rows that are not wanted are not sent, as the contract has it',
);
argued('want_rows null', 'SELECT 5', [], { want_rows: null });
argued(
    'positional for names',
    'SELECT :a, :b',
    [int(1), int(2)],
    {},
    'they are bound in the order of the parameters',
);

const lenient = 'decoding is lenient here: the value is clear';
function malformed(name, arg, why) {
    const stmt = `{"sql":"SELECT ?","args":[${arg}]}`;
    const body = `{"requests":[{"type":"execute","stmt":${stmt}},{"type":"close"}]}`;
    add(`value: ${name}`, { path: '/v2/pipeline', body }, why);
}
malformed('integer as a number', '{"type":"integer","value":5}', lenient);
malformed('integer with an escape', '{"type":"integer","value":"\\u0035"}', lenient);
malformed('text with escapes', '{"type":"text","value":"\\u00e9\\/\\n\\ud83d\\ude00"}');
malformed('a lone surrogate', '{"type":"text","value":"\\ud83d"}');
malformed('blob with an escape', '{"type":"blob","base64":"\\/\\/8"}', lenient);
malformed('blob for URLs', '{"type":"blob","base64":"__8"}', lenient);
malformed('blob of nonsense', '{"type":"blob","base64":"!"}');
malformed('integer out of range', '{"type":"integer","value":"9223372036854775808"}');
malformed('integer of nothing', '{"type":"integer","value":""}');
malformed(
    'integer with a plus',
    '{"type":"integer","value":"+5"}',
    'a number is written without a plus',
);
malformed('integer with zeros', '{"type":"integer","value":"0005"}');
malformed('integer that is a float', '{"type":"integer","value":1.5}');
malformed('float as a text', '{"type":"float","value":"1.5"}');
malformed('float that is whole', '{"type":"float","value":3}');
malformed('float too large', '{"type":"float","value":1e999}');
malformed('text that is a number', '{"type":"text","value":5}');
malformed('no type', '{"value":"5"}');
malformed('an unknown type', '{"type":"boolean","value":true}');
malformed('a plain number', '5');
malformed('a plain null', 'null');
malformed('unknown fields', '{"type":"null","extra":{"a":[1,2]}}');
malformed('the type last', '{"value":"7","type":"integer"}');
malformed('the type twice', '{"type":"null","type":"null"}', lenient);

/* ---- Bodies ---- */

const lost =
    "a stream that is not there is 404, one that is lost or was used 410; libSQL's server says 400";
for (const entry of [
    '',
    ' ',
    '{',
    '}',
    'null',
    'true',
    '5',
    '"x"',
    '[]',
    '{}',
    '{"requests":null}',
    '{"requests":{}}',
    '{"requests":[]}',
    '{"baton":null,"requests":[]}',
    ['{"baton":"","requests":[]}', lost],
    ['{"baton":"AAAA","requests":[]}', lost],
    '{"baton":5,"requests":[]}',
    '{"requests":[null]}',
    '{"requests":[5]}',
    '{"requests":[{}]}',
    '{"requests":[{"type":"unknown"}]}',
    '{"requests":[{"type":null}]}',
    '{"requests":[{"type":"execute"}]}',
    '{"requests":[{"type":"execute","stmt":null}]}',
    '{"requests":[{"type":"execute","stmt":"SELECT 1"}]}',
    '{"requests":[{"type":"execute","stmt":{"sql":null}}]}',
    '{"requests":[{"type":"execute","stmt":{"sql":"SELECT 1","args":{}}}]}',
    '{"requests":[{"type":"batch"}]}',
    '{"requests":[{"type":"batch","batch":{}}]}',
    '{"requests":[{"type":"sequence"}]}',
    '{"requests":[{"type":"describe"}]}',
    ['{"requests":[{"type":"store_sql","sql_id":"1","sql":"SELECT 1"}]}', lenient],
    '{"requests":[{"type":"store_sql","sql_id":99999999999,"sql":"SELECT 1"}]}',
    '{"requests":[{"type":"close_sql"}]}',
    '{"requests":[{"type":"close","extra":1}],"more":{}}',
    '{"requests":[{"type":"close"}]} trailing',
    '\ufeff{"requests":[]}',
    '{"requests":[{"type":"Close"}]}',
    '{"Requests":[]}',
    "{'requests':[]}",
    '{"requests":[],}',
]) {
    const [body, why] = Array.isArray(entry) ? entry : [entry];
    add(
        `body: ${body.length > 60 ? `${body.slice(0, 57)}...` : body}`,
        { path: '/v2/pipeline', body },
        why,
    );
}
add(
    'body: many requests',
    pipe([...Array.from({ length: 200 }, (_, i) => exec(`SELECT ${i}`)), close]),
);
add('body: on v3-protobuf', { path: '/v3-protobuf/pipeline', body: '{"requests":[]}' });

/* ---- Streams ---- */

add('stream: commit', [
    pipe([exec('BEGIN'), exec("INSERT INTO w(u) VALUES ('t')")]),
    more([exec('COMMIT'), close]),
    look,
]);
add('stream: rollback', [
    pipe([exec('BEGIN'), exec('DELETE FROM w')]),
    more([exec('ROLLBACK'), close]),
    look,
]);
add('stream: close rolls back', [
    pipe([exec('BEGIN IMMEDIATE'), exec('DELETE FROM w')]),
    more([close]),
    look,
]);
add('stream: an error keeps the transaction', [
    pipe([
        exec('BEGIN'),
        exec("INSERT INTO w(u) VALUES ('t')"),
        exec("INSERT INTO w(u) VALUES ('t')"),
        { type: 'get_autocommit' },
    ]),
    more([exec('COMMIT'), close]),
    look,
]);
add('stream: OR ROLLBACK ends the transaction', [
    pipe([
        exec('BEGIN'),
        exec("INSERT INTO w(u) VALUES ('t')"),
        exec("INSERT OR ROLLBACK INTO w(u) VALUES ('t')"),
        { type: 'get_autocommit' },
        close,
    ]),
    look,
]);
add('stream: BEGIN twice', pipe([exec('BEGIN'), exec('BEGIN'), exec('ROLLBACK'), close]));
add('stream: savepoints', [
    pipe([
        exec('SAVEPOINT a'),
        exec('DELETE FROM w'),
        exec('ROLLBACK TO a'),
        { type: 'get_autocommit' },
        exec('RELEASE a'),
        { type: 'get_autocommit' },
        close,
    ]),
    look,
]);
add(
    'stream: READONLY reads',
    pipe([
        exec('BEGIN TRANSACTION READONLY'),
        exec('SELECT count(*) FROM t'),
        exec('COMMIT'),
        close,
    ]),
);
add(
    'stream: READONLY writes',
    [
        pipe([exec('BEGIN TRANSACTION READONLY'), exec('DELETE FROM w'), exec('COMMIT'), close]),
        look,
    ],
    'a transaction that says it only reads may only read',
);
add('stream: deferred foreign key', [
    pipe([
        exec('BEGIN'),
        exec('PRAGMA defer_foreign_keys = on'),
        exec('INSERT INTO c VALUES (50, 99)'),
        exec('COMMIT'),
        { type: 'get_autocommit' },
        exec('ROLLBACK'),
        close,
    ]),
]);
add(
    "stream: last_insert_rowid() and changes() are the stream's",
    pipe([
        exec("INSERT INTO w(id, u) VALUES (50, 'l')"),
        exec('SELECT last_insert_rowid(), changes()'),
        exec('DELETE FROM w'),
        exec('SELECT changes()'),
        close,
    ]),
);
add(
    'stream: a used baton',
    [
        pipe([exec('BEGIN')]),
        { path: '/v3/pipeline', body: { baton: '{first}', requests: [exec('SELECT 1')] } },
        { path: '/v3/pipeline', body: { baton: '{first}', requests: [exec('SELECT 2')] } },
    ],
    lost,
);
add(
    'stream: a made up baton',
    { path: '/v3/pipeline', body: { baton: 'bm9uc2Vuc2U', requests: [close] } },
    lost,
);
add('stream: close first', pipe([close, exec('SELECT 1')]));
add('stream: close twice', pipe([close, close]), 'close must be the last request');
add(
    'stream: get_autocommit on v2',
    pipe([{ type: 'get_autocommit' }, close], 'v2'),
    'newer clients ask for it on v2, too',
);

const store = (sql_id, sql) => ({ type: 'store_sql', sql_id, sql });
const stored = (sql_id, args) => ({ type: 'execute', stmt: { sql_id, args } });
add(
    'stored: used',
    pipe([
        store(1, 'SELECT ? + 1'),
        stored(1, [int(4)]),
        stored(1, [int(5)]),
        { type: 'close_sql', sql_id: 1 },
        close,
    ]),
);
add(
    'stored: twice',
    pipe([store(1, 'SELECT 1'), store(1, 'SELECT 2'), stored(1), close]),
    'the new text replaces the old one',
);
add('stored: unknown', pipe([stored(7), close]));
add(
    'stored: after its end',
    pipe([store(1, 'SELECT 1'), { type: 'close_sql', sql_id: 1 }, stored(1), close]),
);
add('stored: nonsense', pipe([store(1, 'SELEC'), stored(1), close]));
add(
    'stored: sql and sql_id',
    pipe([store(1, 'SELECT 1'), { type: 'execute', stmt: { sql: 'SELECT 2', sql_id: 1 } }, close]),
);
add('stored: neither', pipe([{ type: 'execute', stmt: {} }, close]));
add(
    'stored: in a batch, a sequence and describe',
    pipe([
        store(1, 'SELECT 5 AS five'),
        store(2, 'SELECT 1; SELECT 2'),
        { type: 'batch', batch: { steps: [{ stmt: { sql_id: 1 } }] } },
        { type: 'sequence', sql_id: 2 },
        { type: 'describe', sql_id: 1 },
        close,
    ]),
);

/* ---- Describe and sequence ---- */

for (const entry of [
    'SELECT 1',
    'SELECT * FROM t',
    'SELECT id AS i, x + 1, name || v FROM t',
    'SELECT ?, ?',
    'SELECT ?5, ?2',
    'SELECT :a, @b, $c, :a, ?',
    'INSERT INTO w(u) VALUES (?)',
    'INSERT INTO w(u) VALUES (?) RETURNING id, u',
    'UPDATE w SET n = 1',
    'DELETE FROM w',
    'CREATE TABLE z(x)',
    'BEGIN',
    'COMMIT',
    'PRAGMA table_info(t)',
    'EXPLAIN SELECT 1',
    'EXPLAIN QUERY PLAN DELETE FROM w',
    'SELECT * FROM names',
    'WITH q AS (SELECT 1 AS one) SELECT * FROM q',
    'VALUES (1, 2)',
    'SELECT * FROM no_such',
    'SELECT no_such',
    'SELEC',
    ['', 'there is nothing to describe in it'],
    ['SELECT 1; SELECT 2', 'only one statement can be described'],
    'SELECT 1;',
    'BEGIN TRANSACTION READONLY',
]) {
    const [sql, why] = Array.isArray(entry) ? entry : [entry];
    add(`describe: ${sql}`, [pipe([{ type: 'describe', sql }, close]), look], why);
}
for (const entry of [
    "INSERT INTO w(u) VALUES ('s1'); INSERT INTO w(u) VALUES ('s2')",
    "INSERT INTO w(u) VALUES ('s1'); INSERT INTO w(u) VALUES ('s1');",
    'SELECT 1; SELECT 2; SELECT 3',
    '',
    ' ; ; ',
    '-- x',
    "INSERT INTO w(u) VALUES (';--'); /* ; */ DELETE FROM w WHERE id = 1;",
    'BEGIN; DELETE FROM w; ROLLBACK',
    'BEGIN; DELETE FROM w; COMMIT',
    'DELETE FROM w WHERE id = 1; SELECT * FROM no_such; DELETE FROM w',
    [
        'DELETE FROM w WHERE id = 1; SELEC; DELETE FROM w',
        'statements run one by one, up to the one that is wrong',
    ],
    ['DELETE FROM w WHERE id = 1; INSERT INTO', 'an unfinished end is an error, not nothing'],
    'CREATE TRIGGER tr AFTER DELETE ON w BEGIN SELECT 1; SELECT 2; END; DELETE FROM w WHERE id = 2',
    'SELECT ?',
    'BEGIN; DELETE FROM w',
    'PRAGMA foreign_keys = off; INSERT INTO c VALUES (60, 99); DELETE FROM c WHERE id = 60',
]) {
    const [sql, why] = Array.isArray(entry) ? entry : [entry];
    add(
        `sequence: ${sql.slice(0, 70)}`,
        [pipe([{ type: 'sequence', sql }, { type: 'get_autocommit' }, close]), look],
        why,
    );
}

/* ---- Batches and cursors ---- */

const bad = 'SELECT * FROM no_such';
const plans = {
    'no steps': [],
    'all of them': ['SELECT 1', 'SELECT 2'],
    'a failing step': ['SELECT 1', bad, 'SELECT 3'],
    'ok and error': [
        'SELECT 1',
        bad,
        ['SELECT 2', ok(0)],
        ['SELECT 3', ok(1)],
        ['SELECT 4', err(0)],
        ['SELECT 5', err(1)],
    ],
    'of a skipped step': [
        bad,
        ['SELECT 1', ok(0)],
        ['SELECT 2', ok(1)],
        ['SELECT 3', err(1)],
        ['SELECT 4', not(ok(1))],
    ],
    'not, and, or': [
        'SELECT 1',
        bad,
        ['SELECT 2', and(ok(0), err(1))],
        ['SELECT 3', or(ok(1), not(ok(0)))],
        ['SELECT 4', and()],
        ['SELECT 5', or()],
    ],
    is_autocommit: [
        'BEGIN',
        ['SELECT 1', auto],
        ['SELECT 2', not(auto)],
        'ROLLBACK',
        ['SELECT 3', auto],
    ],
    'all or nothing': [
        'BEGIN',
        ["INSERT INTO w(u) VALUES ('n')", ok(0)],
        ["INSERT INTO w(u) VALUES ('a')", ok(1)],
        ['COMMIT', ok(2)],
        ['ROLLBACK', not(ok(3))],
    ],
    'as the client makes it': [
        'BEGIN IMMEDIATE',
        ["INSERT INTO w(u) VALUES ('n')", ok(0)],
        ['UPDATE w SET n = 3', ok(1)],
        ['COMMIT', ok(2)],
        ['ROLLBACK', not(ok(3))],
    ],
    'to read, as the client makes it': [
        'BEGIN TRANSACTION READONLY',
        ['SELECT count(*) FROM t', ok(0)],
        ['COMMIT', ok(1)],
        ['ROLLBACK', not(ok(2))],
    ],
    'left open': ['BEGIN', 'DELETE FROM w'],
    'a condition on itself': [['SELECT 1', ok(0)]],
    'a condition ahead': [['SELECT 1', ok(1)], 'SELECT 2'],
    'a condition far ahead': ['SELECT 1', ['SELECT 2', or(ok(0), ok(7))]],
    'a negative condition': ['SELECT 1', ['SELECT 2', ok(-1)]],
    'an unknown condition': ['SELECT 1', ['SELECT 2', { type: 'maybe' }]],
    'a condition without a step': ['SELECT 1', ['SELECT 2', { type: 'ok' }]],
    'a step that is not SQL': ['SELECT 1', 'SELEC', 'SELECT 2'],
    'a step of two statements': ['SELECT 1; SELECT 2', 'SELECT 3'],
    'a step of nothing': ['SELECT 1', '', 'SELECT 3'],
};
const wholeBatch = 'a step that cannot be parsed is an error of that step, not of the batch';
const inBatch = {
    'a step that is not SQL': wholeBatch,
    'a step of two statements': wholeBatch,
    'a step of nothing': wholeBatch,
};
const last =
    'the entry replication_index, which the protocol does not have, is not sent; rowids are texts';
for (const [name, steps] of Object.entries(plans)) {
    const away = name === 'left open' ? more([exec('ROLLBACK'), close]) : more([close]);
    add(`batch: ${name}`, [pipe([batch(steps), close]), look], inBatch[name]);
    const wrong = /^an? (condition|negative|unknown)/.test(name);
    const cursor = { path: '/v3/cursor', body: { batch: batchOf(steps) } };
    add(`cursor: ${name}`, wrong ? [cursor] : [cursor, away, look], wrong ? undefined : last);
}
add(
    'batch: is_autocommit on v2',
    pipe([batch(['SELECT 1', ['SELECT 2', auto]]), close], 'v2'),
    'newer clients ask for it on v2, too',
);
add('cursor: nothing', { path: '/v3/cursor', body: '' });
add('cursor: on v2', { path: '/v2/cursor', body: { batch: batchOf(['SELECT 1']) } });

/* ---- Version 1 and the old interface ---- */

const named1 = 'version 1 has names of columns only, and they are all that is sent';
for (const sql of [
    'SELECT 1 AS a',
    "INSERT INTO w(u) VALUES ('v1')",
    bad,
    'SELEC',
    '',
    'SELECT 1; SELECT 2',
    'SELECT ?',
    "INSERT INTO w(u) VALUES ('a')",
    'BEGIN',
]) {
    add(
        `v1 execute: ${sql}`,
        [{ path: '/v1/execute', body: { stmt: { sql } } }, look],
        sql === 'SELECT 1 AS a' ? named1 : undefined,
    );
}
for (const name of [
    'all of them',
    'a failing step',
    'ok and error',
    'all or nothing',
    'left open',
    'a condition ahead',
]) {
    const rows = ['all of them', 'a failing step', 'ok and error'].includes(name);
    add(
        `v1 batch: ${name}`,
        [{ path: '/v1/batch', body: { batch: batchOf(plans[name]) } }, look],
        rows ? named1 : undefined,
    );
}
for (const body of ['', '{}', '{"stmt":5}', '{"batch":{}}'])
    add(`v1 body: ${body}`, { path: '/v1/execute', body });

const old = (statements) => ({ path: '/', body: { statements } });
add('old: rows', old(['SELECT id, name, x, b FROM t WHERE id < 5', 'SELECT 1']));
add(
    'old: parameters',
    old([
        { q: 'SELECT ?, ?, ?', params: [1, 'x', null] },
        { q: 'SELECT :a, $b', params: { ':a': 1.5, $b: 'y' } },
    ]),
);
add('old: a failure', [old(['SELECT 1', bad, 'SELECT 2']), look]);
add(
    'old: a write and a failure',
    [old(["INSERT INTO w(u) VALUES ('o')", bad]), look],
    'the statements are one transaction',
);
add('old: a constraint', [old(["INSERT INTO w(u) VALUES ('a')"]), look]);
add(
    'old: not SQL',
    old(['SELECT 1', 'SELEC']),
    'a statement that cannot be parsed is an error of its own, not of the server',
);
add(
    'old: a transaction',
    old(['BEGIN', 'SELECT 1', 'COMMIT']),
    'the statements are one transaction already',
);
add('old: nothing', old([]));
add(
    'old: too few parameters',
    old([{ q: 'SELECT ?, ?', params: [1] }]),
    'the same words as everywhere else',
);
add('old: no statements', { path: '/', body: {} }, 'what cannot be read is 400 everywhere');

/* ---- HTTP ---- */

const route = 'a path with a method that it does not have is 404, not 405';
for (const [method, path, why] of [
    ['GET', '/'],
    ['GET', '/health'],
    ['GET', '/v2'],
    ['GET', '/v3'],
    ['GET', '/v3-protobuf'],
    ['GET', '/v4'],
    ['GET', '/nope'],
    ['GET', '/v2/pipeline', route],
    ['PUT', '/v2/pipeline', route],
    ['DELETE', '/', route],
    ['POST', '/health', route],
    ['POST', '/v2', route],
    ['POST', '/v3/nope'],
    ['POST', '/v2/pipeline/', 'a slash at the end does not matter'],
    ['POST', '//v2/pipeline'],
    ['HEAD', '/health'],
    ['GET', '/console'],
    ['GET', '/v1/jobs', 'there are no schemas that several databases share, so no jobs for them'],
]) {
    add(
        `http: ${method} ${path}`,
        { method, path, body: method === 'POST' ? '{"requests":[]}' : undefined },
        why,
    );
}
add('http: another type', {
    path: '/v2/pipeline',
    body: '{"requests":[]}',
    headers: { 'content-type': 'text/plain' },
});
add('http: a token that nobody asked for', {
    path: '/v2/pipeline',
    body: '{"requests":[]}',
    headers: { authorization: 'Bearer x.y.z' },
});

/* ---- WebSockets ---- */

const hello = { type: 'hello', jwt: null };
const req = (request_id, request) => ({ type: 'request', request_id, request });
const open = (id, stream_id = 0) => req(id, { type: 'open_stream', stream_id });
const on = (id, type, rest) => req(id, { type, stream_id: 0, ...rest });
const stmt = (sql, args) => ({ stmt: { sql, args } });
function socket(name, protocol, messages, why) {
    why ??=
        protocol === 'hrana1' && messages.some((m) => m.request?.stmt || m.request?.batch)
            ? named1
            : undefined;
    add(`ws ${protocol}: ${name}`, { protocol, messages }, why);
}
for (const protocol of ['hrana1', 'hrana2', 'hrana3']) {
    socket('hello', protocol, [hello]);
    socket('hello without jwt', protocol, [{ type: 'hello' }]);
    socket('a statement', protocol, [
        hello,
        open(1),
        on(2, 'execute', stmt('SELECT ?, 2 AS b', [text('x')])),
    ]);
    socket('an error', protocol, [
        hello,
        open(1),
        on(2, 'execute', stmt(bad)),
        on(3, 'execute', stmt('SELECT 1')),
    ]);
    socket('a batch', protocol, [
        hello,
        open(1),
        on(2, 'batch', { batch: batchOf(plans['ok and error']) }),
    ]);
    socket('close and open again', protocol, [
        hello,
        open(1),
        on(2, 'close_stream'),
        open(3),
        on(4, 'execute', stmt('SELECT 1')),
    ]);
    socket('not JSON', protocol, ['{']);
    socket('not a message', protocol, [{ type: 'dance' }]);
}
for (const protocol of ['hrana2', 'hrana3']) {
    socket('hello twice', protocol, [hello, hello]);
    socket('describe', protocol, [
        hello,
        open(1),
        on(2, 'describe', { sql: 'SELECT :a, id FROM t' }),
    ]);
    socket('sequence', protocol, [
        hello,
        open(1),
        on(2, 'sequence', { sql: 'SELECT 1; SELECT 2' }),
    ]);
    socket('stored SQL', protocol, [
        hello,
        open(1),
        req(2, { type: 'store_sql', sql_id: 3, sql: 'SELECT 3' }),
        on(3, 'execute', { stmt: { sql_id: 3 } }),
        req(4, { type: 'close_sql', sql_id: 3 }),
        req(5, { type: 'close_sql', sql_id: 3 }),
    ]);
}
socket('autocommit', 'hrana3', [
    hello,
    open(1),
    on(2, 'execute', stmt('BEGIN')),
    on(3, 'get_autocommit'),
]);
socket('a request before hello', 'hrana2', [open(1)]);
