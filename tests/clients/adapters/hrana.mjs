/*
 * hrana.mjs -- @libsql/hrana-client, the layer below @libsql/client, with the newest version of the
 * protocol that it and the server agree on.
 */
import * as hrana from '@libsql/hrana-client';
import { assert, runChecks } from '../lib/check.mjs';
import { upTo } from '../lib/sql.mjs';

const url = process.env.URL;
const client = url.startsWith('ws')
    ? hrana.openWs(url, undefined, 3)
    : hrana.openHttp(url, undefined, undefined, undefined, 3);
client.intMode = 'number';
const version = await client.getVersion();

async function onStream(fn) {
    const stream = client.openStream();
    try {
        return await fn(stream);
    } finally {
        stream.close();
    }
}

const checks = [
    ['version 3 is chosen', () => assert.equal(version, 3)],
    [
        'a script makes the schema',
        () =>
            onStream(async (s) => {
                await s.sequence(`
            CREATE TABLE rooms(id INTEGER PRIMARY KEY, name TEXT UNIQUE);
            CREATE TABLE guests(id INTEGER PRIMARY KEY, room_id REFERENCES rooms(id), name TEXT);
            INSERT INTO rooms(name) VALUES ('red'), ('blue');
        `);
                assert.equal((await s.queryValue('SELECT count(*) FROM rooms')).value, 2);
            }),
    ],
    [
        'query, queryRow, queryValue, run',
        () =>
            onStream(async (s) => {
                const { rows, columnNames } = await s.query(
                    'SELECT id, name FROM rooms ORDER BY id',
                );
                assert.deepEqual(columnNames, ['id', 'name']);
                assert.equal(rows[1].name, 'blue');
                assert.equal(
                    (await s.queryRow(['SELECT * FROM rooms WHERE name = ?', ['red']])).row.id,
                    1,
                );
                const { affectedRowCount, lastInsertRowid } = await s.run(
                    `INSERT INTO rooms(name) VALUES ('green')`,
                );
                assert.deepEqual([affectedRowCount, lastInsertRowid], [1, 3n]);
            }),
    ],
    [
        'values',
        () =>
            onStream(async (s) => {
                for (const v of [null, 0, 1.5, 'x', '\u{1f600}', 'a\0b']) {
                    assert.equal((await s.queryValue(['SELECT ?', [v]])).value, v);
                }
                s.intMode = 'bigint';
                for (const v of [2n ** 63n - 1n, -(2n ** 63n)]) {
                    assert.equal((await s.queryValue(['SELECT ?', [v]])).value, v);
                }
                const bytes = new Uint8Array([0, 255, 1]);
                assert.deepEqual(
                    new Uint8Array((await s.queryValue(['SELECT ?', [bytes]])).value),
                    bytes,
                );
            }),
    ],
    [
        'named arguments',
        () =>
            onStream(async (s) => {
                const stmt = new hrana.Stmt('SELECT :a - :b').bindName('a', 5).bindName(':b', 3);
                assert.equal((await s.queryValue(stmt)).value, 2);
            }),
    ],
    [
        'errors',
        () =>
            onStream(async (s) => {
                const error = await s.run(`INSERT INTO rooms(name) VALUES ('red')`).catch((e) => e);
                assert.ok(error instanceof hrana.ResponseError);
                assert.equal(error.code, 'SQLITE_CONSTRAINT');
                assert.equal((await s.queryValue('SELECT 1')).value, 1);
            }),
    ],
    [
        'describe',
        () =>
            onStream(async (s) => {
                const d = await s.describe('SELECT id AS i, name FROM rooms WHERE name = :name');
                assert.deepEqual(d.paramNames, [':name']);
                assert.deepEqual(
                    d.columns.map((c) => [c.name, c.decltype]),
                    [
                        ['i', 'INTEGER'],
                        ['name', 'TEXT'],
                    ],
                );
                assert.equal(d.isReadonly, true);
            }),
    ],
    [
        'stored SQL',
        () =>
            onStream(async (s) => {
                const owner = url.startsWith('ws') ? client : s;
                const sql = owner.storeSql('SELECT ? * 2');
                for (let i = 0; i < 3; i++)
                    assert.equal((await s.queryValue([sql, [i]])).value, i * 2);
                sql.close();
            }),
    ],
    [
        'a batch with conditions',
        () =>
            onStream(async (s) => {
                for (const useCursor of [false, true]) {
                    const batch = s.batch(useCursor);
                    const begin = batch.step();
                    const begun = begin.run('BEGIN');
                    const insert = batch.step().condition(hrana.BatchCond.ok(begin));
                    const inserted = insert.run(`INSERT INTO guests(name) VALUES ('Ada')`);
                    const wrong = batch.step().condition(hrana.BatchCond.ok(insert));
                    const failed = wrong
                        .run(`INSERT INTO guests(room_id) VALUES (77)`)
                        .catch((e) => e);
                    const commit = batch.step().condition(hrana.BatchCond.ok(wrong));
                    const committed = commit.run('COMMIT');
                    const back = batch
                        .step()
                        .condition(hrana.BatchCond.not(hrana.BatchCond.isAutocommit(batch)));
                    const rolledBack = back.run('ROLLBACK');
                    await batch.execute();
                    await begun;
                    assert.equal((await inserted).affectedRowCount, 1);
                    assert.equal((await failed).code, 'SQLITE_CONSTRAINT');
                    assert.equal(await committed, undefined);
                    assert.notEqual(await rolledBack, undefined);
                    assert.equal((await s.queryValue('SELECT count(*) FROM guests')).value, 0);
                }
            }),
    ],
    [
        'rows through a cursor',
        () =>
            onStream(async (s) => {
                const batch = s.batch(true);
                const sql = `${upTo(5000)} SELECT i FROM n`;
                const rows = batch.step().query(sql);
                await batch.execute();
                assert.equal((await rows).rows.length, 5000);
            }),
    ],
    [
        'streams are apart; get_autocommit',
        () =>
            onStream((a) =>
                onStream(async (b) => {
                    await a.run('BEGIN');
                    await a.run(`INSERT INTO guests(room_id, name) VALUES (1, 'Grace')`);
                    assert.equal(await a.getAutocommit(), false);
                    assert.equal(await b.getAutocommit(), true);
                    assert.equal((await b.queryValue('SELECT count(*) FROM guests')).value, 0);
                    await a.run('COMMIT');
                    assert.equal((await b.queryValue('SELECT count(*) FROM guests')).value, 1);
                }),
            ),
    ],
    [
        'requests without waiting',
        () =>
            onStream(async (s) => {
                const list = Array.from({ length: 50 }, (_, i) => s.queryValue(['SELECT ?', [i]]));
                assert.deepEqual(
                    (await Promise.all(list)).map((r) => r.value),
                    Array.from({ length: 50 }, (_, i) => i),
                );
            }),
    ],
];
const known = { sqld: 'an entry that the client does not know ends its cursor' };
const cursors = ['a batch with conditions', 'rows through a cursor'];

await runChecks(
    `@libsql/hrana-client: ${url}`,
    checks.map(([name, fn]) => [
        name,
        fn,
        cursors.includes(name) ? known[process.env.SERVER] : undefined,
    ]),
    { after: () => client.close() },
);
