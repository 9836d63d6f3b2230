/*
 * embedded.mjs -- @libsql/client with a local file that follows the server (syncUrl).
 */
import { createClient } from '@libsql/client';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { assert, runChecks } from '../lib/check.mjs';
import { upTo } from '../lib/sql.mjs';

const url = process.env.URL;
const dir = mkdtempSync(path.join(os.tmpdir(), 'clients-embedded-'));
const remote = createClient({ url });
const open = (name) => createClient({ url: `file:${path.join(dir, name)}`, syncUrl: url });

async function rows(client, sql) {
    return (await client.execute(sql)).rows.map((row) => Array.from(row));
}

let replica;
const checks = [
    [
        'a new replica gets the whole database',
        async () => {
            await remote.executeMultiple(`CREATE TABLE notes(id INTEGER PRIMARY KEY, words TEXT);
            INSERT INTO notes(words) VALUES ('one'), ('two');`);
            replica = open('one.db');
            await replica.sync();
            assert.deepEqual(await rows(replica, 'SELECT words FROM notes ORDER BY id'), [
                ['one'],
                ['two'],
            ]);
        },
    ],
    [
        'it changes when it is asked to, not before',
        async () => {
            await remote.execute(`INSERT INTO notes(words) VALUES ('three')`);
            assert.deepEqual(await rows(replica, 'SELECT count(*) FROM notes'), [[2]]);
            await replica.sync();
            assert.deepEqual(await rows(replica, 'SELECT count(*) FROM notes'), [[3]]);
            await replica.sync();
        },
    ],
    [
        'what is written through it is at the server, and here',
        async () => {
            const result = await replica.execute({
                sql: 'INSERT INTO notes(words) VALUES (?)',
                args: ['four'],
            });
            assert.equal(result.rowsAffected, 1);
            assert.deepEqual(await rows(remote, 'SELECT count(*) FROM notes'), [[4]]);
            assert.deepEqual(await rows(replica, 'SELECT count(*) FROM notes'), [[4]]);
        },
    ],
    [
        'a failing write says why',
        async () => {
            await assert.rejects(
                replica.execute(`INSERT INTO notes(id) VALUES (1)`),
                /UNIQUE constraint failed/,
            );
        },
    ],
    [
        'a transaction through it',
        async () => {
            const tx = await replica.transaction('write');
            await tx.execute(`INSERT INTO notes(words) VALUES ('five')`);
            const inside = await tx.execute('SELECT count(*) AS n FROM notes');
            assert.equal(inside.rows[0].n, 5);
            await tx.commit();
            await replica.sync();
            assert.deepEqual(await rows(replica, 'SELECT count(*) FROM notes'), [[5]]);
        },
    ],
    [
        'a batch through it',
        async () => {
            await replica.batch(
                [
                    `INSERT INTO notes(words) VALUES ('six')`,
                    `INSERT INTO notes(words) VALUES ('seven')`,
                ],
                'write',
            );
            await replica.sync();
            assert.deepEqual(await rows(replica, 'SELECT count(*) FROM notes'), [[7]]);
        },
    ],
    [
        'schemas and many pages follow',
        async () => {
            await remote.execute('CREATE TABLE many(x)');
            await remote.execute(`${upTo(3000)}
            INSERT INTO many SELECT randomblob(500) FROM n`);
            await replica.sync();
            assert.deepEqual(await rows(replica, 'SELECT count(*), sum(length(x)) FROM many'), [
                [3000, 1500000],
            ]);
            assert.deepEqual(await rows(replica, 'PRAGMA integrity_check'), [['ok']]);
        },
    ],
    [
        'a replica that comes late gets it all',
        async () => {
            const late = open('two.db');
            await late.sync();
            assert.deepEqual(await rows(late, 'SELECT count(*) FROM many'), [[3000]]);
            assert.deepEqual(await rows(late, 'SELECT count(*) FROM notes'), [[7]]);
            late.close();
        },
    ],
    [
        'a replica that is opened again goes on where it was',
        async () => {
            replica.close();
            await remote.execute(`INSERT INTO notes(words) VALUES ('eight')`);
            replica = open('one.db');
            await replica.sync();
            assert.deepEqual(await rows(replica, 'SELECT count(*) FROM notes'), [[8]]);
        },
    ],
];

await runChecks(`@libsql/client with a replica: ${url}`, checks, {
    after: () => {
        replica?.close();
        remote.close();
        rmSync(dir, { recursive: true, force: true });
    },
});
