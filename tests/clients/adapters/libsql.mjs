/*
 * libsql.mjs -- @libsql/client as applications use it: a small library of books, over HTTP or a
 * WebSocket, whichever URL says.
 */
import { createClient } from '@libsql/client';
import { assert, runChecks } from '../lib/check.mjs';
import { upTo } from '../lib/sql.mjs';

const url = process.env.URL;
const client = createClient({ url });

async function failure(promise) {
    try {
        await promise;
    } catch (error) {
        return error;
    }
    assert.fail('it was expected to fail');
}

async function number(sql, args) {
    const { rows } = await client.execute({ sql, args: args ?? [] });
    return rows[0][0];
}

const schema = [
    [
        'migrate makes the schema',
        async () => {
            await client.migrate([
                `CREATE TABLE authors(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE)`,
                `CREATE TABLE books(
                id INTEGER PRIMARY KEY,
                author_id INTEGER NOT NULL REFERENCES authors(id) ON DELETE CASCADE,
                title TEXT NOT NULL,
                cover BLOB,
                price REAL CHECK (price >= 0),
                isbn INTEGER UNIQUE)`,
                `CREATE INDEX books_author ON books(author_id)`,
                `CREATE VIEW catalogue AS
                 SELECT name, title FROM books JOIN authors ON authors.id = author_id`,
                `CREATE TABLE log(at INTEGER PRIMARY KEY, what TEXT)`,
                `CREATE TRIGGER books_log AFTER INSERT ON books BEGIN
                INSERT INTO log(what) VALUES ('new book ' || NEW.title);
             END`,
            ]);
            assert.equal(
                await number(`SELECT count(*) FROM sqlite_schema WHERE name LIKE 'books%'`),
                3,
            );
        },
    ],
    [
        'migrate can rebuild a table that others refer to',
        async () => {
            await client.execute(`INSERT INTO authors VALUES (1, 'Lem')`);
            await client.execute(`INSERT INTO books(author_id, title) VALUES (1, 'Solaris')`);
            await client.migrate([
                `CREATE TABLE new_authors(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, born)`,
                `INSERT INTO new_authors(id, name) SELECT id, name FROM authors`,
                `DROP VIEW catalogue`,
                `DROP TABLE authors`,
                `ALTER TABLE new_authors RENAME TO authors`,
                `CREATE VIEW catalogue AS
                 SELECT name, title FROM books JOIN authors ON authors.id = author_id`,
            ]);
            assert.equal(await number('SELECT count(*) FROM catalogue'), 1);
            assert.equal(await number('PRAGMA foreign_keys'), 1);
            const error = await failure(
                client.execute(`INSERT INTO books(author_id, title) VALUES (9, 'x')`),
            );
            assert.match(error.message, /FOREIGN KEY constraint failed/);
        },
    ],
    [
        'a migration that fails leaves nothing',
        async () => {
            await failure(client.migrate([`CREATE TABLE half(x)`, `CREATE TABLE half(x)`]));
            assert.equal(await number(`SELECT count(*) FROM sqlite_schema WHERE name = 'half'`), 0);
        },
    ],
    [
        'executeMultiple runs a script',
        async () => {
            await client.executeMultiple(`
            CREATE TABLE tags(name TEXT PRIMARY KEY) WITHOUT ROWID;
            INSERT INTO tags VALUES ('a;b'), ('c'); -- a comment; with a semicolon
            INSERT INTO tags VALUES ('d');
        `);
            assert.equal(await number('SELECT count(*) FROM tags'), 3);
        },
    ],
    [
        'executeMultiple stops at a failure',
        async () => {
            await failure(
                client.executeMultiple(`INSERT INTO tags VALUES ('e');
            INSERT INTO tags VALUES ('e'); INSERT INTO tags VALUES ('f')`),
            );
            assert.equal(await number(`SELECT count(*) FROM tags WHERE name IN ('e', 'f')`), 1);
        },
    ],
];

const statements = [
    [
        'execute: columns, types, rows, counts',
        async () => {
            const insert = await client.execute({
                sql: 'INSERT INTO authors(name) VALUES (?), (?)',
                args: ['Le Guin', 'Wolfe'],
            });
            assert.equal(insert.rowsAffected, 2);
            assert.equal(insert.lastInsertRowid, 3n);
            const { columns, columnTypes, rows } = await client.execute(
                'SELECT id, name, 1 AS one FROM authors ORDER BY id',
            );
            assert.deepEqual(columns, ['id', 'name', 'one']);
            assert.deepEqual(columnTypes, ['INTEGER', 'TEXT', '']);
            assert.deepEqual(
                rows.map((row) => row.name),
                ['Lem', 'Le Guin', 'Wolfe'],
            );
            assert.equal(rows[0][0], 1);
            assert.equal(rows.length, 3);
        },
    ],
    [
        'named arguments of all kinds',
        async () => {
            for (const p of [':', '@', '$']) {
                const sql = `SELECT ${p}a + ${p}b`;
                assert.equal(await number(sql, { a: 1, b: 2 }), 3);
                assert.equal(await number(sql, { [`${p}a`]: 1, [`${p}b`]: 2 }), 3);
            }
        },
    ],
    [
        'values: null, booleans, dates, blobs, texts',
        async () => {
            const blob = new Uint8Array([0, 1, 254, 255]);
            const date = new Date('2026-01-02T03:04:05.678Z');
            const sql = 'SELECT ? AS a, ? AS b, ? AS c, ? AS d, ? AS e, ? AS f';
            const { rows } = await client.execute({
                sql,
                args: [null, true, date, blob, 'Łódź \u{1f600}', new ArrayBuffer(0)],
            });
            assert.equal(rows[0].a, null);
            assert.equal(rows[0].b, 1);
            assert.equal(rows[0].c, date.valueOf());
            assert.deepEqual(new Uint8Array(rows[0].d), blob);
            assert.equal(rows[0].e, 'Łódź \u{1f600}');
            assert.equal(rows[0].f.byteLength, 0);
        },
    ],
    [
        'a blob of 1 MB',
        async () => {
            const blob = new Uint8Array(1 << 20).map((_, i) => i * 31);
            await client.execute({
                sql: `UPDATE books SET cover = ? WHERE title = 'Solaris'`,
                args: [blob],
            });
            const { rows } = await client.execute('SELECT cover FROM books');
            assert.deepEqual(Buffer.from(rows[0].cover), Buffer.from(blob));
        },
    ],
    [
        'big integers in all three modes',
        async () => {
            const isbn = 9223372036854775807n;
            await client.execute({ sql: `UPDATE books SET isbn = ?`, args: [isbn] });
            for (const [intMode, want] of [
                ['bigint', isbn],
                ['string', String(isbn)],
            ]) {
                const other = createClient({ url, intMode });
                const { rows } = await other.execute('SELECT isbn FROM books');
                assert.equal(rows[0].isbn, want);
                other.close();
            }
            const error = await failure(client.execute('SELECT isbn FROM books'));
            assert.ok(error instanceof RangeError, String(error));
            await client.execute({ sql: `UPDATE books SET isbn = ?`, args: [-(2n ** 63n)] });
            assert.equal(await number('SELECT isbn = -9223372036854775807 - 1 FROM books'), 1);
            await client.execute('UPDATE books SET isbn = 7');
        },
    ],
    [
        'RETURNING',
        async () => {
            const { rows, rowsAffected } = await client.execute({
                sql: 'INSERT INTO books(author_id, title, price) VALUES (?, ?, ?) RETURNING title',
                args: [2, 'The Dispossessed', 9.5],
            });
            assert.equal(rows[0].title, 'The Dispossessed');
            assert.equal(rowsAffected, 1);
            assert.equal(await number('SELECT count(*) FROM log'), 2);
        },
    ],
    [
        'upsert',
        async () => {
            const sql = `INSERT INTO authors(id, name) VALUES (1, ?)
                ON CONFLICT(id) DO UPDATE SET name = excluded.name`;
            await client.execute({ sql, args: ['Stanisław Lem'] });
            assert.equal(await number('SELECT name FROM authors WHERE id = 1'), 'Stanisław Lem');
        },
    ],
    [
        'foreign keys cascade',
        async () => {
            const id = await number(`INSERT INTO authors(name) VALUES ('gone') RETURNING id`);
            await client.execute({
                sql: `INSERT INTO books(author_id, title) VALUES (?, 'gone')`,
                args: [id],
            });
            await client.execute({ sql: 'DELETE FROM authors WHERE id = ?', args: [id] });
            assert.equal(await number(`SELECT count(*) FROM books WHERE title = 'gone'`), 0);
        },
    ],
    [
        '1000 rows',
        async () => {
            const { rows } = await client.execute(`${upTo(1000)} SELECT i FROM n`);
            assert.equal(rows.length, 1000);
            assert.equal(rows[999].i, 1000);
        },
    ],
    [
        '100 at once',
        async () => {
            await client.execute('CREATE TABLE hits(n INTEGER)');
            const all = Array.from({ length: 100 }, (_, i) =>
                client.execute({ sql: 'INSERT INTO hits VALUES (?)', args: [i] }),
            );
            await Promise.all(all);
            assert.equal(await number('SELECT count(DISTINCT n) FROM hits'), 100);
        },
    ],
];

const errors = [
    [
        'errors have codes',
        async () => {
            for (const [sql, code, words] of [
                [
                    `INSERT INTO authors(name) VALUES ('Wolfe')`,
                    'SQLITE_CONSTRAINT',
                    /UNIQUE constraint failed: authors.name/,
                ],
                [
                    `INSERT INTO authors(name) VALUES (NULL)`,
                    'SQLITE_CONSTRAINT',
                    /NOT NULL constraint failed: authors.name/,
                ],
                [`UPDATE books SET price = -1`, 'SQLITE_CONSTRAINT', /CHECK constraint failed/],
                [
                    `INSERT INTO books(author_id, title) VALUES (99, 'x')`,
                    'SQLITE_CONSTRAINT',
                    /FOREIGN KEY/,
                ],
                [`SELECT 1; SELECT 2`, 'SQL_MANY_STATEMENTS', /more than one/],
            ]) {
                const error = await failure(client.execute(sql));
                assert.equal(error.name, 'LibsqlError', String(error));
                assert.equal(error.code, code, sql);
                assert.match(error.message, words);
            }
            for (const sql of ['SELEC 1', 'SELECT foo', 'SELECT * FROM nowhere']) {
                const error = await failure(client.execute(sql));
                assert.match(error.code, /^SQL/);
            }
        },
    ],
    [
        'a wrong number of arguments',
        async () => {
            await failure(client.execute({ sql: 'SELECT ?, ?', args: [1] }));
            await failure(client.execute({ sql: 'SELECT :a', args: { b: 1 } }));
        },
    ],
];

const transactions = [
    [
        'batch is all or nothing',
        async () => {
            const before = await number('SELECT count(*) FROM authors');
            const error = await failure(
                client.batch(
                    [
                        `INSERT INTO authors(name) VALUES ('batch')`,
                        `INSERT INTO authors(name) VALUES ('Wolfe')`,
                        `INSERT INTO authors(name) VALUES ('never')`,
                    ],
                    'write',
                ),
            );
            assert.equal(error.code, 'SQLITE_CONSTRAINT');
            assert.equal(error.statementIndex ?? 1, 1);
            assert.equal(await number('SELECT count(*) FROM authors'), before);
            const results = await client.batch(
                [
                    { sql: 'INSERT INTO authors(name) VALUES (?)', args: ['batch'] },
                    'SELECT count(*) FROM authors',
                ],
                'write',
            );
            assert.equal(results[1].rows[0][0], before + 1);
        },
    ],
    [
        'batch in the modes read and deferred',
        async () => {
            for (const mode of ['read', 'deferred']) {
                const results = await client.batch(
                    ['SELECT 1', { sql: 'SELECT ?', args: [2] }],
                    mode,
                );
                assert.deepEqual(
                    results.map((r) => r.rows[0][0]),
                    [1, 2],
                );
            }
        },
    ],
    [
        'a batch of 500',
        async () => {
            await client.execute('CREATE TABLE many(n INTEGER)');
            const list = Array.from({ length: 500 }, (_, i) => ({
                sql: 'INSERT INTO many VALUES (?)',
                args: [i],
            }));
            await client.batch(list, 'write');
            assert.equal(await number('SELECT sum(n) FROM many'), 124750);
        },
    ],
    [
        'transactions: commit, rollback, close',
        async () => {
            for (const [how, want] of [
                ['commit', 1],
                ['rollback', 0],
                ['close', 0],
            ]) {
                const tx = await client.transaction('write');
                await tx.execute({ sql: 'INSERT INTO tags VALUES (?)', args: [`tx ${how}`] });
                const { rows } = await tx.execute({
                    sql: 'SELECT count(*) FROM tags WHERE name = ?',
                    args: [`tx ${how}`],
                });
                assert.equal(rows[0][0], 1);
                await tx[how]();
                assert.equal(tx.closed, true);
                assert.equal(
                    await number('SELECT count(*) FROM tags WHERE name = ?', [`tx ${how}`]),
                    want,
                    how,
                );
            }
        },
    ],
    [
        'a transaction goes on after an error',
        async () => {
            const tx = await client.transaction('write');
            await tx.execute(`INSERT INTO tags VALUES ('before')`);
            const error = await failure(tx.execute(`INSERT INTO tags VALUES ('before')`));
            assert.equal(error.code, 'SQLITE_CONSTRAINT');
            await tx.execute(`INSERT INTO tags VALUES ('after')`);
            await tx.commit();
            assert.equal(
                await number(`SELECT count(*) FROM tags WHERE name IN ('before', 'after')`),
                2,
            );
        },
    ],
    [
        'batch and executeMultiple in a transaction',
        async () => {
            const tx = await client.transaction('write');
            const results = await tx.batch([`INSERT INTO tags VALUES ('in batch')`, 'SELECT 1']);
            assert.equal(results[1].rows[0][0], 1);
            await tx.executeMultiple(
                `INSERT INTO tags VALUES ('m1'); INSERT INTO tags VALUES ('m2')`,
            );
            await tx.commit();
            assert.equal(
                await number(`SELECT count(*) FROM tags WHERE name IN ('in batch', 'm1', 'm2')`),
                3,
            );
        },
    ],
    [
        'a read transaction keeps its view',
        async () => {
            const tx = await client.transaction('read');
            const count = async () => (await tx.execute('SELECT count(*) FROM tags')).rows[0][0];
            const before = await count();
            await client.execute(`INSERT INTO tags VALUES ('meanwhile')`);
            assert.equal(await count(), before);
            tx.close();
        },
    ],
    [
        'write transactions wait for each other',
        async () => {
            await client.execute('CREATE TABLE account(balance INTEGER)');
            await client.execute('INSERT INTO account VALUES (0)');
            const add = async () => {
                const tx = await client.transaction('write');
                const { rows } = await tx.execute('SELECT balance FROM account');
                await tx.execute({
                    sql: 'UPDATE account SET balance = ?',
                    args: [rows[0].balance + 1],
                });
                await tx.commit();
            };
            await Promise.all(Array.from({ length: 10 }, add));
            assert.equal(await number('SELECT balance FROM account'), 10);
        },
    ],
    [
        'a transaction that is closed says so',
        async () => {
            const tx = await client.transaction('write');
            await tx.rollback();
            assert.equal((await failure(tx.execute('SELECT 1'))).code, 'TRANSACTION_CLOSED');
        },
    ],
    [
        'a closed client says so',
        async () => {
            const other = createClient({ url });
            other.close();
            assert.match((await failure(other.execute('SELECT 1'))).message, /closed/);
        },
    ],
];

await runChecks(`@libsql/client: ${url}`, [...schema, ...statements, ...errors, ...transactions], {
    after: () => client.close(),
});
