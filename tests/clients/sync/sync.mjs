/*
 * sync.mjs -- @tursodatabase/sync: a local database that pulls pages and pushes changes.
 */
import { connect } from '@tursodatabase/sync';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { assert, runChecks, skip } from '../lib/check.mjs';
import { request } from '../lib/http.mjs';

const url = process.env.URL;
const dir = mkdtempSync(path.join(os.tmpdir(), 'clients-sync-'));
const probe = await request(url, { path: '/pull-updates', body: '' });

async function remote(sql) {
    const requests = [{ type: 'execute', stmt: { sql } }, { type: 'close' }];
    const { json } = await request(url, { path: '/v2/pipeline', body: { requests } });
    assert.equal(json.results[0].type, 'ok', JSON.stringify(json.results[0]));
    return json.results[0].response.result.rows.map((row) => row.map((value) => value.value));
}

async function local(db, sql) {
    const stmt = await db.prepare(sql);
    return (await stmt.all()).map((row) => Object.values(row));
}

function open(name) {
    if (probe.status === 404) skip('the server does not know /pull-updates');
    return connect({ path: path.join(dir, name), url, clientName: name });
}

let one;
const checks = [
    [
        'a new client gets the whole database',
        async () => {
            await remote('CREATE TABLE notes(id TEXT PRIMARY KEY, words TEXT)');
            await remote(`INSERT INTO notes VALUES ('a', 'from the server')`);
            one = await open('one.db');
            assert.deepEqual(await local(one, 'SELECT * FROM notes'), [['a', 'from the server']]);
        },
    ],
    [
        'pull brings what is new',
        async () => {
            one ?? skip('no first client');
            await remote(`INSERT INTO notes VALUES ('b', 'later')`);
            assert.equal(await one.pull(), true);
            assert.deepEqual(await local(one, 'SELECT count(*) FROM notes'), [[2]]);
            assert.equal(await one.pull(), false);
        },
    ],
    [
        'push sends what was written here',
        async () => {
            one ?? skip('no first client');
            await one.exec(`INSERT INTO notes VALUES ('c', 'from the client')`);
            await one.exec(`UPDATE notes SET words = 'changed' WHERE id = 'a'`);
            await one.exec(`DELETE FROM notes WHERE id = 'b'`);
            await one.push();
            const rows = await remote('SELECT id, words FROM notes ORDER BY id');
            assert.deepEqual(rows, [
                ['a', 'changed'],
                ['c', 'from the client'],
            ]);
        },
    ],
    [
        'a second client sees it, and both go on',
        async () => {
            const two = await open('two.db');
            assert.deepEqual(await local(two, 'SELECT count(*) FROM notes'), [[2]]);
            await two.exec(`INSERT INTO notes VALUES ('d', 'from two')`);
            await two.push();
            await one.pull();
            assert.deepEqual(await local(one, `SELECT words FROM notes WHERE id = 'd'`), [
                ['from two'],
            ]);
            await two.close();
        },
    ],
    [
        'tables that are made later arrive',
        async () => {
            one ?? skip('no first client');
            await remote('CREATE TABLE more(x)');
            await remote('INSERT INTO more VALUES (zeroblob(100000))');
            await one.pull();
            assert.deepEqual(await local(one, 'SELECT length(x) FROM more'), [[100000]]);
        },
    ],
];

await runChecks(`@tursodatabase/sync: ${url}`, checks, {
    after: async () => {
        await one?.close();
        rmSync(dir, { recursive: true, force: true });
    },
});
