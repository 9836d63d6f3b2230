/*
 * batch.mjs -- batches and their conditions, cursors, the stateless version 1 and the old POST /.
 */
import http from 'node:http';
import { assert } from '../lib/check.mjs';
import { batch, checkError, close, cond, execute, good, int, makeBatch, one } from './api.mjs';
import { outcomes, pipeline, post, run, table, text, unique, url, value } from './api.mjs';
import { upTo } from '../lib/sql.mjs';

const bad = 'SELECT * FROM no_table';

async function count(name) {
    return Number((await value(`SELECT count(*) FROM ${name}`)).value);
}

/* Lines of a cursor over steps: {head, entries}; the stream is closed. */
async function cursor(steps, baton = null) {
    const answer = await post('/v3/cursor', { baton, batch: makeBatch(steps) });
    assert.equal(answer.status, 200, answer.text);
    assert.ok(answer.text.endsWith('\n'));
    const [head, ...entries] = answer.text
        .trimEnd()
        .split('\n')
        .map((line) => JSON.parse(line));
    if (head.baton) await pipeline([close], { baton: head.baton });
    return { head, entries };
}

const types = (entries) => entries.map((entry) => entry.type).join(' ');

const conditions = [
    [
        'a batch runs all steps that have no condition',
        async () => {
            const result = await batch(['SELECT 1', bad, 'SELECT 3']);
            assert.equal(outcomes(result), 'ok error ok');
            checkError(result.step_errors[1]);
            assert.deepEqual(result.step_results[2].rows, [[int(3)]]);
        },
    ],
    [
        'a step that cannot be parsed is the error of that step',
        async () => {
            assert.equal(outcomes(await batch(['SELECT 1', 'SELEC', 'SELECT 3'])), 'ok error ok');
        },
        { sqld: 'the whole batch fails' },
    ],
    [
        'an empty batch',
        async () => {
            const result = await batch([]);
            assert.deepEqual([result.step_results, result.step_errors], [[], []]);
        },
    ],
    [
        'ok and error',
        async () => {
            const result = await batch([
                'SELECT 1',
                bad,
                ['SELECT 2', cond.ok(0)],
                ['SELECT 3', cond.ok(1)],
                ['SELECT 4', cond.error(0)],
                ['SELECT 5', cond.error(1)],
            ]);
            assert.equal(outcomes(result), 'ok error ok skipped skipped ok');
        },
    ],
    [
        'a skipped step is not ok, so it counts as an error',
        async () => {
            const result = await batch([
                bad,
                ['SELECT 1', cond.ok(0)],
                ['SELECT 2', cond.ok(1)],
                ['SELECT 3', cond.error(1)],
                ['SELECT 4', cond.not(cond.ok(1))],
            ]);
            assert.equal(outcomes(result), 'error skipped skipped ok ok');
        },
    ],
    [
        'not, and, or',
        async () => {
            const [yes, no] = [cond.ok(0), cond.ok(1)];
            const result = await batch([
                'SELECT 1',
                bad,
                ['SELECT 1', cond.not(yes)],
                ['SELECT 1', cond.not(no)],
                ['SELECT 1', cond.and(yes, yes)],
                ['SELECT 1', cond.and(yes, no)],
                ['SELECT 1', cond.or(no, yes)],
                ['SELECT 1', cond.or(no, no)],
                ['SELECT 1', cond.and()],
                ['SELECT 1', cond.or()],
                ['SELECT 1', cond.not(cond.and(cond.or(no, cond.not(yes)), yes))],
            ]);
            assert.equal(
                outcomes(result).slice(9),
                'skipped ok ok skipped ok skipped ok skipped ok',
            );
        },
    ],
    [
        'is_autocommit',
        async () => {
            const steps = [
                'BEGIN',
                ['SELECT 1', cond.autocommit],
                ['SELECT 1', cond.not(cond.autocommit)],
                'ROLLBACK',
                ['SELECT 1', cond.autocommit],
            ];
            assert.equal(outcomes(await batch(steps)), 'ok skipped ok ok ok');
        },
    ],
    [
        'is_autocommit on v2',
        async () => {
            const steps = [
                'BEGIN',
                ['SELECT 1', cond.autocommit],
                'ROLLBACK',
                ['SELECT 1', cond.autocommit],
            ];
            assert.equal(outcomes(await batch(steps, { version: 'v2' })), 'ok skipped ok ok');
        },
        { sqld: 'v3 only, so that the sync client cannot push' },
    ],
    [
        'a condition null is none',
        async () => {
            assert.equal(outcomes(await batch([['SELECT 1', null]])), 'ok');
        },
    ],
    [
        'a step may only look back',
        async () => {
            for (const step of [0, 1, 4294967295]) {
                for (const wrap of [(c) => c, cond.not, (c) => cond.and(cond.ok(0), c)]) {
                    const steps = makeBatch([['SELECT 1', wrap(cond.ok(step))], 'SELECT 2']);
                    const answer = await pipeline([{ type: 'batch', batch: steps }, close]);
                    assert.equal(answer.status, 400, answer.text);
                }
            }
            for (const step of [-1, 0.5, '0', null]) {
                const steps = makeBatch(['SELECT 1', ['SELECT 1', cond.ok(step)]]);
                const answer = await pipeline([{ type: 'batch', batch: steps }, close]);
                assert.notEqual(answer.status, 500, answer.text);
            }
        },
    ],
    [
        'a condition that nobody knows is refused',
        async () => {
            const steps = makeBatch(['SELECT 1', ['SELECT 1', { type: 'maybe', step: 0 }]]);
            assert.equal((await pipeline([{ type: 'batch', batch: steps }])).status, 400);
        },
    ],
    [
        'a transaction in a batch is all or nothing',
        async () => {
            const name = await table('u UNIQUE');
            const steps = (second) => [
                'BEGIN IMMEDIATE',
                [`INSERT INTO ${name} VALUES (1)`, cond.ok(0)],
                [`INSERT INTO ${name} VALUES (${second})`, cond.ok(1)],
                ['COMMIT', cond.ok(2)],
                ['ROLLBACK', cond.not(cond.ok(3))],
            ];
            assert.equal(outcomes(await batch(steps(1))), 'ok ok error skipped ok');
            assert.equal(await count(name), 0);
            assert.equal(outcomes(await batch(steps(2))), 'ok ok ok ok skipped');
            assert.equal(await count(name), 2);
        },
    ],
    [
        'steps have results of their own',
        async () => {
            const name = await table();
            const result = await batch([
                `INSERT INTO ${name}(v) VALUES (1), (2)`,
                `SELECT count(*) FROM ${name}`,
                `UPDATE ${name} SET v = 0`,
            ]);
            assert.deepEqual(
                result.step_results.map((r) => r.affected_row_count),
                [2, 0, 2],
            );
            assert.equal(result.step_results[0].last_insert_rowid, '2');
        },
    ],
    [
        'a batch of 1000 inserts',
        async () => {
            const name = await table();
            const inserts = Array.from({ length: 1000 }, (_, i) => [
                `INSERT INTO ${name}(v) VALUES (${i})`,
                cond.ok(i),
            ]);
            const result = await batch(['BEGIN', ...inserts, ['COMMIT', cond.ok(1000)]]);
            assert.ok(
                outcomes(result)
                    .split(' ')
                    .every((o) => o === 'ok'),
            );
            assert.equal(await count(name), 1000);
        },
    ],
    [
        'DDL in a transaction can be rolled back',
        async () => {
            const name = unique();
            await batch(['BEGIN', `CREATE TABLE ${name}(x)`, 'ROLLBACK']);
            const result = await one(execute(`SELECT * FROM ${name}`));
            assert.equal(result.type, 'error');
        },
    ],
];

/* Sends a cursor and resolves to its baton as soon as `enough` says so of the lines so far; the
 * rest of the answer is not read, and the connection is closed. */
function leaveCursor(baton, sql, enough) {
    const { hostname: host, port } = new URL(url);
    return new Promise((resolve, reject) => {
        const where = { host, port, path: '/v3/cursor', method: 'POST', agent: false };
        const req = http.request(where, (res) => {
            let lines = '';
            res.on('data', (part) => {
                lines += part;
                if (!enough(lines)) return;
                resolve(JSON.parse(lines.slice(0, lines.indexOf('\n'))).baton);
                res.destroy();
            });
            res.on('end', () => reject(new Error(`not enough: ${lines.slice(-200)}`)));
        });
        req.on('error', reject);
        req.end(JSON.stringify({ baton, batch: makeBatch([sql]) }));
    });
}

async function transactionAroundCursor(rows, enough) {
    const name = await table();
    const insert = execute(`INSERT INTO ${name}(v) VALUES (1)`);
    const { baton } = await good([execute('BEGIN'), insert]);
    const next = await leaveCursor(baton, `${upTo(rows)} SELECT i FROM n`, enough);
    const { results } = await good([insert, execute('COMMIT'), close], { baton: next });
    assert.deepEqual(
        results.map((result) => result.type),
        ['ok', 'ok', 'ok'],
    );
    assert.equal(await count(name), 2);
}

const cursors = [
    [
        "a cursor's first line has a baton",
        async () => {
            const { head } = await cursor(['SELECT 1']);
            assert.equal(typeof head.baton, 'string');
            assert.equal(head.base_url, null);
        },
    ],
    [
        'entries of a step: begin, rows, end',
        async () => {
            const { entries } = await cursor(["SELECT 1 AS a, 'x' AS b UNION ALL SELECT 2, 'y'"]);
            assert.equal(types(entries.slice(0, 4)), 'step_begin row row step_end');
            assert.equal(entries[0].step, 0);
            assert.deepEqual(
                entries[0].cols.map((c) => c.name),
                ['a', 'b'],
            );
            assert.deepEqual(entries[1].row, [int(1), text('x')]);
            assert.equal(entries[3].affected_row_count, 0);
            assert.equal(entries[3].last_insert_rowid, null);
        },
    ],
    [
        'nothing follows the last step',
        async () => {
            const { entries } = await cursor(['SELECT 1']);
            assert.equal(types(entries), 'step_begin row step_end');
        },
        { sqld: 'an entry of type replication_index, which hrana-client does not know' },
    ],
    [
        'a rowid in step_end is a text',
        async () => {
            const name = await table();
            const { entries } = await cursor([
                `INSERT INTO ${name}(id) VALUES (9223372036854775807)`,
            ]);
            const end = entries.find((entry) => entry.type === 'step_end');
            assert.equal(end.affected_row_count, 1);
            assert.equal(end.last_insert_rowid, '9223372036854775807');
        },
        { sqld: 'a number' },
    ],
    [
        'a step that fails is a step_error, and the next one runs',
        async () => {
            const name = await table('u UNIQUE');
            await run(`INSERT INTO ${name} VALUES (1)`);
            const { entries } = await cursor([`INSERT INTO ${name} VALUES (1)`, 'SELECT 2']);
            const error = entries.find((entry) => entry.type === 'step_error');
            assert.equal(error.step, 0);
            checkError(error.error);
            assert.ok(entries.some((entry) => entry.type === 'step_begin' && entry.step === 1));
        },
    ],
    [
        'a step that cannot be parsed is a step_error, too',
        async () => {
            const { entries } = await cursor(['SELEC 1', 'SELECT 2']);
            assert.equal(entries[0].type, 'step_error');
            assert.ok(entries.some((entry) => entry.type === 'row'));
        },
        { sqld: 'the whole cursor is 500' },
    ],
    [
        'a failure in the middle of rows ends the step',
        async () => {
            const sql = 'SELECT abs(column1) FROM (VALUES (1), (2), (-9223372036854775807 - 1))';
            const { entries } = await cursor([sql, 'SELECT 5']);
            const failed = entries.findIndex((entry) => entry.type === 'step_error');
            assert.ok(failed >= 0, types(entries));
            assert.ok(!types(entries.slice(0, failed)).includes('step_end'));
            assert.match(entries[failed].error.message, /integer overflow/);
        },
    ],
    [
        'skipped steps leave no trace',
        async () => {
            const { entries } = await cursor([
                'BEGIN',
                ['SELECT 1', cond.autocommit],
                'ROLLBACK',
                ['SELECT 2', cond.autocommit],
            ]);
            const begun = entries.filter((e) => e.type === 'step_begin').map((e) => e.step);
            assert.ok(!begun.includes(1));
            assert.ok(begun.includes(3));
        },
    ],
    [
        'a transaction goes on after a cursor',
        async () => {
            const name = await table();
            const answer = await post('/v3/cursor', {
                batch: makeBatch(['BEGIN', `INSERT INTO ${name}(v) VALUES (1)`]),
            });
            const { baton } = JSON.parse(answer.text.split('\n')[0]);
            const end = await good([{ type: 'get_autocommit' }, execute('COMMIT'), close], {
                baton,
            });
            assert.equal(end.results[0].response.is_autocommit, false);
            assert.equal(await count(name), 1);
        },
    ],
    [
        'a client may leave a cursor in the middle and go on with its transaction',
        async () => {
            for (const rows of [5000, 50000, 500000])
                await transactionAroundCursor(rows, (lines) => lines.includes('"row"'));
        },
    ],
    [
        'a client may come back as soon as it has the last entry',
        async () => {
            for (let i = 0; i < 20; i++)
                await transactionAroundCursor(5000, (lines) => lines.includes('"step_end"'));
        },
        { sqld: 'the stream is lost, or hangs' },
    ],
    [
        '100000 rows through a cursor',
        async () => {
            const sql = upTo(100000);
            const { entries } = await cursor([`${sql} SELECT i, 'row ' || i FROM n`]);
            const rows = entries.filter((entry) => entry.type === 'row');
            assert.equal(rows.length, 100000);
            assert.deepEqual(rows[99999].row, [int(100000), text('row 100000')]);
        },
    ],
    [
        'a condition that looks ahead is 400',
        async () => {
            const answer = await post('/v3/cursor', {
                batch: makeBatch([['SELECT 1', cond.ok(0)]]),
            });
            assert.equal(answer.status, 400);
        },
    ],
];

const first = [
    [
        'v1/execute',
        async () => {
            const answer = await post('/v1/execute', {
                stmt: { sql: 'SELECT ? AS a', args: [int(5)] },
            });
            assert.equal(answer.status, 200);
            assert.deepEqual(answer.json.result.rows, [[int(5)]]);
            assert.equal(answer.json.result.cols[0].name, 'a');
        },
    ],
    [
        'v1/batch',
        async () => {
            const answer = await post('/v1/batch', {
                batch: makeBatch(['SELECT 1', bad, ['SELECT 2', cond.error(1)]]),
            });
            assert.equal(answer.status, 200);
            assert.equal(outcomes(answer.json.result), 'ok error ok');
        },
    ],
    [
        'v1 leaves no transaction behind',
        async () => {
            const name = await table();
            await post('/v1/batch', {
                batch: makeBatch(['BEGIN', `INSERT INTO ${name}(v) VALUES (1)`]),
            });
            assert.equal(await count(name), 0);
            await run(`INSERT INTO ${name}(v) VALUES (2)`);
        },
    ],
    [
        'v1 failures are {message, code} with a status',
        async () => {
            const syntax = await post('/v1/execute', { stmt: { sql: 'SELEC' } });
            assert.equal(syntax.status, 400);
            checkError(syntax.json);
            const missing = await post('/v1/execute', { stmt: { sql: 'SELECT ?' } });
            assert.equal(missing.status, 400);
            assert.equal(missing.json.code, 'ARGS_INVALID');
            for (const [sql, code] of [
                ['', 'SQL_NO_STATEMENT'],
                ['SELECT 1; SELECT 2', 'SQL_MANY_STATEMENTS'],
            ]) {
                const answer = await post('/v1/execute', { stmt: { sql } });
                assert.equal(answer.status, 400);
                assert.equal(answer.json.code, code);
            }
            const name = await table('u UNIQUE');
            await run(`INSERT INTO ${name} VALUES (1)`);
            const constraint = await post('/v1/execute', {
                stmt: { sql: `INSERT INTO ${name} VALUES (1)` },
            });
            assert.ok(constraint.status >= 400);
            assert.equal(constraint.json.code, 'SQLITE_CONSTRAINT');
        },
    ],
];

const legacy = [
    [
        'POST / with statements as texts and with parameters',
        async () => {
            const name = await table('a, b');
            const statements = [
                `INSERT INTO ${name} VALUES (1, 'x')`,
                { q: `INSERT INTO ${name} VALUES (?, ?)`, params: [2.5, null] },
                {
                    q: `INSERT INTO ${name} VALUES (:a, :b)`,
                    params: { ':a': 3, ':b': { base64: 'AAE' } },
                },
                `SELECT a, b FROM ${name} ORDER BY rowid`,
            ];
            const answer = await post('/', { statements });
            assert.equal(answer.status, 200, answer.text);
            const { columns, rows } = answer.json[3].results;
            assert.deepEqual(columns, ['a', 'b']);
            assert.deepEqual(rows[0], [1, 'x']);
            assert.deepEqual(rows[1], [2.5, null]);
            assert.equal(rows[2][0], 3);
            assert.equal(rows[2][1].base64.replace(/=+$/, ''), 'AAE');
        },
    ],
    [
        'POST / stops at the first failure',
        async () => {
            const answer = await post('/', { statements: ['SELECT 1', bad, 'SELECT 3'] });
            assert.equal(answer.status, 200);
            assert.ok(answer.json[0].results);
            assert.match(answer.json[1].error.message ?? answer.json[1].error, /no such table/);
            assert.equal(answer.json[2] ?? null, null);
        },
    ],
    [
        'POST / is atomic',
        async () => {
            const name = await table();
            await post('/', { statements: [`INSERT INTO ${name}(v) VALUES (1)`, bad] });
            assert.equal(await count(name), 0);
        },
        { sqld: 'what came before the failure stays' },
    ],
    [
        'POST / with a transaction is refused',
        async () => {
            const answer = await post('/', { statements: ['BEGIN', 'SELECT 1'] });
            assert.equal(answer.status, 400);
        },
    ],
    [
        'POST / with nonsense is 400',
        async () => {
            for (const body of ['', '{', '{}', '{"statements":5}']) {
                const { status } = await post('/', body, { 'content-type': 'application/json' });
                assert.ok(status >= 400 && status < 500, `${body}: ${status}`);
            }
        },
    ],
];

export default [...conditions, ...cursors, ...first, ...legacy];
