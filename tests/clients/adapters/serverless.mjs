/*
 * serverless.mjs -- @tursodatabase/serverless: its own interface, and the one that it shares with
 * @libsql/client.
 */
import { connect } from '@tursodatabase/serverless';
import { createClient } from '@tursodatabase/serverless/compat';
import { assert, runChecks } from '../lib/check.mjs';
import { upTo } from '../lib/sql.mjs';

const url = process.env.URL;
const db = connect({ url, authToken: 'none' });
const client = createClient({ url, authToken: 'none' });

const own = [
    [
        'exec makes the schema',
        async () => {
            await db.exec(`
            CREATE TABLE cities(id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE);
            CREATE TABLE streets(id INTEGER PRIMARY KEY,
                city_id INTEGER NOT NULL REFERENCES cities(id), name TEXT);
            INSERT INTO cities(name) VALUES ('Bremen'), ('Gent');
        `);
        },
    ],
    [
        'prepare: all, get, run, iterate',
        async () => {
            const insert = await db.prepare('INSERT INTO streets(city_id, name) VALUES (?, ?)');
            const { changes, lastInsertRowid } = await insert.run([1, 'Schnoor']);
            assert.deepEqual([changes, Number(lastInsertRowid)], [1, 1]);
            await insert.run([2, 'Graslei']);
            const select = await db.prepare('SELECT id, name FROM streets ORDER BY id');
            assert.deepEqual(
                (await select.all()).map((row) => row.name),
                ['Schnoor', 'Graslei'],
            );
            assert.equal((await select.get()).name, 'Schnoor');
            const names = [];
            for await (const row of select.iterate()) names.push(row.name);
            assert.deepEqual(names, ['Schnoor', 'Graslei']);
        },
    ],
    [
        'named arguments',
        async () => {
            const select = await db.prepare('SELECT :a + :b AS sum');
            assert.equal((await select.get({ a: 1, b: 2 })).sum, 3);
        },
    ],
    [
        'many rows',
        async () => {
            const select = await db.prepare(`${upTo(20000)} SELECT i FROM n`);
            let sum = 0;
            for await (const row of select.iterate()) sum += row.i;
            assert.equal(sum, 200010000);
        },
    ],
    [
        'errors',
        async () => {
            const insert = await db.prepare('INSERT INTO cities(name) VALUES (?)');
            await assert.rejects(insert.run(['Gent']), /UNIQUE constraint failed: cities.name/);
            await assert.rejects((async () => (await db.prepare('SELEC')).all())());
            await assert.rejects(db.exec('INSERT INTO nowhere VALUES (1)'), /no such table/);
        },
    ],
    [
        'transactions',
        async () => {
            const insert = await db.prepare('INSERT INTO streets(city_id, name) VALUES (?, ?)');
            const addAll = db.transaction(async (names) => {
                for (const name of names) await insert.run([1, name]);
                if (names.includes('fail')) throw new Error('on purpose');
            });
            await addAll(['Langenstrasse', 'Obernstrasse']);
            await assert.rejects(addAll(['never', 'fail']), /on purpose/);
            const select = await db.prepare('SELECT count(*) AS n FROM streets');
            assert.equal((await select.get()).n, 4);
            await addAll.immediate(['Knochenhauerstrasse']);
            assert.equal((await select.get()).n, 5);
        },
    ],
    [
        'batch',
        async () => {
            await db.batch([
                `INSERT INTO cities(name) VALUES ('Delft')`,
                `INSERT INTO cities(name) VALUES ('Leiden')`,
            ]);
            const select = await db.prepare('SELECT count(*) AS n FROM cities');
            assert.equal((await select.get()).n, 4);
        },
    ],
];

const compat = [
    [
        'compat: execute',
        async () => {
            const { rows, columns } = await client.execute({
                sql: 'SELECT id, name FROM cities WHERE name = ?',
                args: ['Delft'],
            });
            assert.deepEqual(columns, ['id', 'name']);
            assert.equal(rows.length, 1);
            const insert = await client.execute(`INSERT INTO cities(name) VALUES ('Utrecht')`);
            assert.equal(insert.rowsAffected, 1);
        },
    ],
    [
        'compat: errors',
        async () => {
            const error = await client
                .execute(`INSERT INTO cities(name) VALUES ('Delft')`)
                .catch((e) => e);
            assert.match(error.message, /UNIQUE constraint failed/);
        },
    ],
    [
        'compat: batch',
        async () => {
            const results = await client.batch(
                ['SELECT 1', { sql: 'SELECT ?', args: [2] }],
                'write',
            );
            assert.equal(results.length > 0, true);
        },
    ],
];

await runChecks(`@tursodatabase/serverless: ${url}`, [...own, ...compat], {
    after: async () => {
        await db.close();
        client.close();
    },
});
