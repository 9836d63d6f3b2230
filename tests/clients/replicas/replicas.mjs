/*
 * replicas.mjs -- replicas of both kinds over a longer life: generations that end, servers that are
 * started again or killed, databases that shrink, tenants that are made anew, many who wait.
 *
 * SLUICE names the program; it is started here, for it is also stopped here.
 */
import { createClient } from '@libsql/client';
import { connect } from '@tursodatabase/sync';
import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { assert, runChecks } from '../lib/check.mjs';
import { request } from '../lib/http.mjs';

const dir = mkdtempSync(path.join(os.tmpdir(), 'clients-replicas-'));
const data = path.join(dir, 'data');
const [port, adminPort] = [await freePort(), await freePort()];
const url = `http://127.0.0.1:${port}`;
const admin = `http://127.0.0.1:${adminPort}`;
let server;

function freePort() {
    return new Promise((resolve) => {
        const probe = net.createServer().listen(0, '127.0.0.1', () => {
            const { port } = probe.address();
            probe.close(() => resolve(port));
        });
    });
}

async function start() {
    const args = ['serve', '--data', data, '--listen', `127.0.0.1:${port}`];
    args.push('--admin-listen', `127.0.0.1:${adminPort}`);
    const child = spawn(process.env.SLUICE, args, { stdio: ['ignore', 'ignore', 'inherit'] });
    const ended = new Promise((resolve) => child.on('exit', (code, signal) => resolve(code ?? signal)));
    server = { child, ended };
    for (let i = 0; i < 2000; i++) {
        const answer = await request(url, { method: 'GET', path: '/health' }).catch(() => null);
        if (answer?.status === 200) return;
        await pause(30);
    }
    throw new Error('the server does not start');
}

async function stop(signal) {
    server.child.kill(signal);
    const end = await server.ended;
    assert.equal(end, signal === 'SIGTERM' ? 0 : signal);
}

const pause = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

async function remote(sql, base = '') {
    const requests = [{ type: 'execute', stmt: { sql } }, { type: 'close' }];
    const { json } = await request(url, { path: `${base}/v2/pipeline`, body: { requests } });
    assert.equal(json.results[0].type, 'ok', JSON.stringify(json.results[0]));
    return json.results[0].response.result.rows.map((row) => row.map((value) => value.value));
}

async function rows(client, sql) {
    return (await client.execute(sql)).rows.map((row) => Array.from(row).map(String));
}

async function local(db, sql) {
    const stmt = await db.prepare(sql);
    return (await stmt.all()).map((row) => Object.values(row).map(String));
}

const embedded = (name, base = '') =>
    createClient({ url: `file:${path.join(dir, name)}`, syncUrl: url + base });
const sum = 'SELECT count(*), coalesce(sum(length(x)), 0), coalesce(sum(id * unicode(x)), 0) FROM big';
const generation = async (base = '') =>
    (await request(url, { method: 'GET', path: `${base}/info` })).json.current_generation;

/* ---- Messages of /pull-updates ---- */

function varint(value) {
    const bytes = [];
    for (; value >= 128; value = Math.floor(value / 128)) bytes.push((value % 128) | 128);
    return Buffer.from([...bytes, value]);
}

function pullBody({ revision = '', pollMs = 0 }) {
    const text = Buffer.from(revision);
    const parts = [Buffer.from([0x1a]), varint(text.length), text];
    if (pollMs > 0) parts.push(Buffer.from([0x20]), varint(pollMs));
    return Buffer.concat(parts);
}

/* Over http of our own, since the answer is no text. */
async function pull(options) {
    const began = Date.now();
    const answer = await fetch(`${url}/pull-updates`, { method: 'POST', body: pullBody(options) });
    const bytes = Buffer.from(await answer.arrayBuffer());
    assert.equal(answer.status, 200, bytes.toString());
    let at = 0;
    const number = () => {
        let value = 0;
        for (let scale = 1; ; scale *= 128) {
            const byte = bytes[at++];
            assert.notEqual(byte, undefined, 'the answer is cut');
            value += (byte & 127) * scale;
            if (byte < 128) return value;
        }
    };
    const end = number() + at;
    const head = {};
    while (at < end) {
        const key = number();
        const value = number();
        head[key >> 3] = (key & 7) === 2 ? bytes.subarray(at, (at += value)) : value;
    }
    let pages = 0;
    for (; at < bytes.length; pages++) {
        const size = number();
        at += size;
    }
    assert.equal(at, bytes.length);
    return { revision: head[1].toString(), size: head[2], whole: head[6] === 1, pages, ms: Date.now() - began };
}

/* ---- */

let one, two;
const checks = [
    ['an embedded replica goes from generation to generation', async () => {
        await remote('CREATE TABLE big(id INTEGER PRIMARY KEY, x TEXT)');
        await remote(`WITH RECURSIVE n(i) AS (VALUES (1) UNION ALL SELECT i + 1 FROM n WHERE i < 400)
            INSERT INTO big SELECT i, hex(randomblob(1500)) FROM n`);
        one = embedded('one.db');
        await one.sync();
        const first = await generation();
        for (let i = 0; i < 6; i++) {
            await remote('UPDATE big SET x = hex(randomblob(1500))');
            if (i % 2) await one.sync();
        }
        assert.equal(await generation(), first + 1);
        two = embedded('two.db');
        await two.sync();
        await remote('UPDATE big SET x = hex(randomblob(1500)) WHERE id % 3 = 0');
        for (const replica of [one, two]) {
            await replica.sync();
            assert.deepEqual(await rows(replica, sum), await remote(sum));
            assert.deepEqual(await rows(replica, 'PRAGMA integrity_check'), [['ok']]);
        }
    }],
    ['it goes on after the server was started again, or killed', async () => {
        for (const signal of ['SIGTERM', 'SIGKILL']) {
            await remote('UPDATE big SET x = hex(randomblob(1400)) WHERE id % 5 = 0');
            await one.sync();
            await remote('UPDATE big SET x = hex(randomblob(1400)) WHERE id % 7 = 0');
            const was = await remote(sum);
            await stop(signal);
            await start();
            assert.deepEqual(await remote(sum), was);
            for (const replica of [one, two]) {
                await replica.sync();
                assert.deepEqual(await rows(replica, sum), was);
            }
        }
    }],
    ['it reads what was written through it, while others write', async () => {
        let done = false;
        const others = (async () => {
            while (!done) await remote(`UPDATE big SET x = hex(randomblob(1000)) WHERE id % 11 = 0`);
        })();
        for (let i = 0; i < 20; i++) {
            await one.execute({ sql: 'INSERT INTO big(x) VALUES (?)', args: [`mine ${i}`] });
            const found = await rows(one, `SELECT count(*) FROM big WHERE x = 'mine ${i}'`);
            assert.deepEqual(found, [['1']]);
        }
        done = true;
        await others;
        await one.sync();
        assert.deepEqual(await rows(one, sum), await remote(sum));
    }],
    ['it follows a database that shrinks', async () => {
        await remote('DELETE FROM big WHERE id > 20');
        await remote('VACUUM');
        await one.sync();
        assert.deepEqual(await rows(one, sum), await remote(sum));
        assert.deepEqual(await rows(one, 'PRAGMA page_count'), await remote('PRAGMA page_count'));
        assert.deepEqual(await rows(one, 'PRAGMA integrity_check'), [['ok']]);
    }],
    ['a replica of a tenant that was made anew is refused, a pulling one begins anew', async () => {
        const make = { method: 'POST', path: '/v1/namespaces/again/create', body: {} };
        assert.equal((await request(admin, make)).status, 200);
        const at = '/dev/again';
        await remote('CREATE TABLE t(x)', at);
        const old = embedded('again.db', at);
        await old.sync();
        const pulling = await connect({ path: path.join(dir, 'pulling.db'), url: url + at });
        assert.equal((await request(admin, { method: 'DELETE', path: '/v1/namespaces/again' })).status, 200);
        assert.equal((await request(admin, make)).status, 200);
        await pause(1100);
        await remote('CREATE TABLE other(x)', at);
        await remote('INSERT INTO other VALUES (5)', at);
        const fresh = embedded('fresh.db', at);
        await fresh.sync();
        assert.deepEqual(await rows(fresh, 'SELECT x FROM other'), [['5']]);
        await assert.rejects(old.sync(), /begin anew/);
        await pulling.pull();
        assert.deepEqual(await local(pulling, 'SELECT x FROM other'), [['5']]);
        old.close();
        fresh.close();
        await pulling.close();
    }],
    ['clients that push at once all end with the same', async () => {
        await remote('CREATE TABLE shared(id TEXT PRIMARY KEY, x INTEGER)');
        const names = ['a', 'b', 'c'];
        const clients = await Promise.all(names.map((name) =>
            connect({ path: path.join(dir, `push-${name}.db`), url, clientName: name })));
        const work = async (db, name) => {
            for (let i = 0; i < 8; i++) {
                await db.exec(`INSERT INTO shared VALUES ('${name}${i}', ${i})`);
                if (i > 0) await db.exec(`UPDATE shared SET x = x + 100 WHERE id = '${name}${i - 1}'`);
                await db.push();
                if (i % 3 === 0) await db.pull();
            }
        };
        await Promise.all(clients.map((db, i) => work(db, names[i])));
        const want = (await remote('SELECT id, x FROM shared ORDER BY id')).map((row) => row.map(String));
        assert.equal(want.length, 24);
        for (const db of clients) {
            await db.pull();
            assert.deepEqual(await local(db, 'SELECT id, x FROM shared ORDER BY id'), want);
            await db.close();
        }
    }],
    ['pull tells what changed, and nothing twice', async () => {
        const base = await pull({});
        assert.ok(base.whole && base.pages === base.size);
        const same = await pull({ revision: base.revision });
        assert.ok(!same.whole && same.pages === 0 && same.revision === base.revision);
        await remote(`INSERT INTO shared VALUES ('new', 1)`);
        const news = await pull({ revision: base.revision });
        assert.ok(!news.whole && news.pages > 0 && news.pages < 10, JSON.stringify(news));
        for (const revision of ['nonsense', '1.0000000000000000', '99999999.0123456789abcdef'])
            assert.equal((await pull({ revision })).pages, base.size);
    }],
    ['who polls is told soon, or when the time is over', async () => {
        const { revision } = await pull({});
        const over = await pull({ revision, pollMs: 700 });
        assert.ok(over.pages === 0 && over.ms >= 690 && over.ms < 20000, JSON.stringify(over));
        const waits = Array.from({ length: 300 }, () => pull({ revision, pollMs: 30000 }));
        await pause(1500);
        const began = Date.now();
        await remote(`INSERT INTO shared VALUES ('awaited', 1)`);
        assert.ok(Date.now() - began < 10000, 'those who wait do not hold up others');
        for (const answer of await Promise.all(waits)) assert.ok(answer.pages > 0);
        const ms = Date.now() - began;
        assert.ok(ms < 20000, `${ms} ms`);
        console.log(`# 300 waiting clients were told within ${ms} ms`);
    }],
    ['who polls does not keep the server from ending', async () => {
        const { revision } = await pull({});
        const wait = pull({ revision, pollMs: 30000 });
        await pause(300);
        const began = Date.now();
        await stop('SIGTERM');
        assert.ok(Date.now() - began < 5000);
        assert.equal((await wait).pages, 0);
        await start();
    }],
];

await start();
await runChecks(`replicas: ${url}`, checks, {
    after: async () => {
        one?.close();
        two?.close();
        await stop('SIGTERM');
        rmSync(dir, { recursive: true, force: true });
    },
});
