/*
 * scenes.mjs -- single stories about what clients do to each other, and disks to a server.
 *
 *   node scenes.mjs [--seed S] [SCENE...]
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { HttpStream, Lost, Refused, Wire, WsStream, execute, int, rows, stmt } from './client.mjs';
import { text, transaction } from './client.mjs';
import { Random, seedFrom } from './random.mjs';
import { Server, makeTenant, query, restore, sleep } from './server.mjs';

const HOLD_MS = 500;
const LATE_MS = 4000; /* for a machine that is busy; who need not wait so long still must not */

const argv = process.argv.slice(2);
const at = argv.indexOf('--seed');
const seed = seedFrom(at >= 0 ? argv.splice(at, 2)[1] : undefined);
const random = new Random(seed);
const dir = mkdtempSync(path.join(os.tmpdir(), 'scenes-'));
console.log(`seed ${seed}, files in ${dir}`);
let count = 0;

async function serve(options = {}, conf = {}) {
    const server = new Server(path.join(dir, String(count++)), options);
    makeTenant(server.data, 'default', conf);
    await server.start();
    return server;
}

async function withServer(options, conf, fn) {
    const server = await serve(options, conf);
    await fn(server);
    assert(server.alive(), `the server has ended: ${server.gone}`);
    const took = await timed(server.stop().then((end) => assert.equal(end, 0, 'its end')));
    assert(took < 20000, `it took ${Math.round(took)} ms to stop`);
    rmSync(server.dir, { recursive: true });
}

async function ask(stream, sql, ...args) {
    const [answer] = await stream.run([execute(sql, ...args)]);
    if (!answer.error) return rows(answer.ok.result);
    throw Object.assign(new Error(answer.error.message), { code: answer.error.code });
}

async function once(server, sql, ...args) {
    const stream = new HttpStream(server.port);
    try {
        return await ask(stream, sql, ...args);
    } finally {
        await stream.close().catch(() => {});
    }
}

async function code(promise) {
    try {
        await promise;
        return 'ok';
    } catch (error) {
        return error.code ?? String(error);
    }
}

async function timed(promise) {
    const start = performance.now();
    await promise;
    return performance.now() - start;
}

/* On a slow machine what needs a moment needs more of it; who asks says so when it never comes. */
async function until(fn) {
    for (const end = Date.now() + 30000; !fn() && Date.now() < end; ) await sleep(20);
}

async function bothWays(server, fn) {
    await fn(() => new HttpStream(server.port), 'HTTP');
    const wire = await Wire.open(server.port);
    await fn(() => new WsStream(wire), 'WebSocket');
    wire.vanish();
}

const limits = { args: ['-txn-timeout', `${HOLD_MS}ms`, '-sync-interval', '100ms'] };
const burn = (rounds) =>
    `WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT ${rounds}) ` +
    `SELECT count(*) FROM c`;

/* How many rounds of `burn` take about so long here. */
async function roundsFor(server, ms) {
    const rounds = 200000;
    const took = await timed(once(server, burn(rounds)));
    return Math.max(1000, Math.round((rounds * ms) / Math.max(took, 1)));
}

const scenes = {};

/* A client that begins and then says nothing keeps others from writing for the limit, no longer;
 * and nothing of it stays. */
scenes.sleeper = () =>
    withServer(limits, {}, async (server) => {
        await once(server, 'CREATE TABLE t(who TEXT)');
        await bothWays(server, async (fresh, way) => {
            const sleeper = fresh();
            await ask(sleeper, 'BEGIN IMMEDIATE');
            await ask(sleeper, "INSERT INTO t VALUES ('sleeper')");
            const other = fresh();
            const third = fresh();
            const begin = transaction('BEGIN', stmt("INSERT INTO t VALUES ('batch')"));
            const waits = await Promise.all([
                timed(once(server, "INSERT INTO t VALUES ('lone')")),
                timed(other.run([begin])),
                timed(ask(third, 'BEGIN IMMEDIATE').then(() => ask(third, 'COMMIT'))),
            ]);
            for (const wait of waits) {
                assert(wait < HOLD_MS + LATE_MS, `${way}: waited ${Math.round(wait)} ms`);
                assert(wait > HOLD_MS / 2, `${way}: did not wait: ${Math.round(wait)} ms`);
            }
            const insert = "INSERT INTO t VALUES ('sleeper')";
            assert.equal(await code(ask(sleeper, insert)), 'TRANSACTION_TIMEOUT', way);
            assert.equal(await code(ask(sleeper, 'SELECT 1')), 'TRANSACTION_TIMEOUT', way);
            assert.equal(await code(ask(sleeper, 'COMMIT')), 'TRANSACTION_TIMEOUT', way);
            assert.equal(await code(ask(sleeper, 'SELECT 1')), 'ok', way);
            const who = await once(server, 'SELECT who FROM t ORDER BY who');
            assert.deepEqual(who, [['batch'], ['lone']], way);
            await once(server, 'DELETE FROM t');
        });
    });

/* The same for one that works all the time: in a transaction, and in one batch. */
scenes.worker = () =>
    withServer(limits, {}, async (server) => {
        await once(server, 'CREATE TABLE t(who TEXT)');
        const rounds = await roundsFor(server, 200);
        const work = stmt(`INSERT INTO t ${burn(rounds)}`);
        const many = Array(40).fill(work); /* longer than a write may wait */
        for (const [name, request] of [
            ['a transaction', transaction('BEGIN', ...many)],
            ['statements', { type: 'batch', batch: { steps: many.map((stmt) => ({ stmt })) } }],
        ]) {
            const worker = new HttpStream(server.port);
            const all = worker.run([request]);
            await sleep(100);
            const wait = await timed(once(server, "INSERT INTO t VALUES ('lone')"));
            const [answer] = await all;
            const worst = HOLD_MS + LATE_MS;
            assert(wait < worst, `beside ${name} a write waited ${Math.round(wait)} ms`);
            const [[left]] = await once(server, "SELECT count(*) FROM t WHERE who <> 'lone'");
            if (name === 'a transaction') {
                assert.equal(left, 0, 'nothing of it stays');
                const codes = answer.ok.result.step_errors.map((error) => error?.code);
                assert(codes.includes('TRANSACTION_TIMEOUT'), `it hears of it: ${codes}`);
            }
            await once(server, 'DELETE FROM t');
        }
    });

/* Clients that go away leave nothing locked. */
scenes.vanish = () =>
    withServer({ args: ['-txn-timeout', '20s', '-stream-idle-timeout', '20s'] }, {}, async (s) => {
        await once(s, 'CREATE TABLE t(who TEXT)');
        const slow = execute(burn(await roundsFor(s, 3000)));
        const begin = [execute('BEGIN IMMEDIATE'), execute("INSERT INTO t VALUES ('gone')")];
        for (const requests of [begin, [...begin, slow]]) {
            for (const way of ['HTTP', 'WebSocket']) {
                const wire = way === 'HTTP' ? null : await Wire.open(s.port);
                const stream = wire ? new WsStream(wire) : new HttpStream(s.port);
                const atWork = requests.length > begin.length;
                const answer = stream.run(requests).catch(() => {});
                if (atWork) await sleep(300);
                else await answer;
                /* Between two requests over HTTP nobody can know that the client has gone. */
                if (!atWork && way === 'HTTP') await stream.close();
                stream.vanish();
                const wait = await timed(once(s, "INSERT INTO t VALUES ('lone')"));
                assert(wait < LATE_MS, `${way}, ${atWork}: a write waited ${Math.round(wait)} ms`);
                await answer;
            }
        }
        for (let round = 0; round < 6; round++) {
            const stream = new HttpStream(s.port);
            await stream.half(begin);
            const wire = await Wire.open(s.port);
            const many = Array.from({ length: 50 }, () => new WsStream(wire));
            const all = many.map((one) => one.run([...begin, execute('COMMIT')]).catch(() => {}));
            await sleep(random.below(30));
            wire.vanish();
            await Promise.all(all);
            /* Twice: the first may come between two of those that have gone. */
            for (const sql of ["INSERT INTO t VALUES ('lone')", 'DELETE FROM t WHERE who = 1']) {
                const wait = await timed(once(s, sql));
                assert(wait < LATE_MS, `after 50 streams: a write waited ${Math.round(wait)} ms`);
            }
        }
        const lone = await once(s, "SELECT count(*) FROM t WHERE who = 'lone'");
        assert.deepEqual(lone, [[10]]);
    });

/* More transactions on one connection than it may have messages waiting: whoever has his turn must
 * get his next message through. */
scenes.crowd = () =>
    withServer({ args: ['-txn-timeout', '1s'] }, {}, async (server) => {
        await once(server, 'CREATE TABLE t(v INTEGER)');
        const wire = await Wire.open(server.port);
        const crowd = Array.from({ length: 240 }, async () => {
            const stream = new WsStream(wire);
            await ask(stream, 'BEGIN IMMEDIATE');
            await ask(stream, 'INSERT INTO t VALUES (1)');
            await ask(stream, 'COMMIT');
            await stream.close();
        });
        await Promise.all(crowd);
        assert.deepEqual(await once(server, 'SELECT count(*) FROM t'), [[240]]);
        wire.vanish();
    });

/* Many slow writes of one client are not one long group: others get their turns between them. */
scenes.group = () =>
    withServer(limits, {}, async (server) => {
        await once(server, 'CREATE TABLE t(v INTEGER)');
        const work = `INSERT INTO t ${burn(await roundsFor(server, 150))}`;
        const wire = await Wire.open(server.port);
        /* Longer than the other may wait. */
        const all = Array.from({ length: 60 }, () => ask(new WsStream(wire), work).catch(() => {}));
        await sleep(200);
        const other = new HttpStream(server.port);
        const wait = await timed(ask(other, 'BEGIN IMMEDIATE').then(() => ask(other, 'COMMIT')));
        assert(wait < 2 * HOLD_MS + LATE_MS, `a transaction waited ${Math.round(wait)} ms`);
        await Promise.all(all);
        wire.vanish();
    });

/* A database that may not grow: errors that say so, nothing by halves, and it recovers. */
scenes.full = () =>
    withServer(limits, { size_max: 200 * 4096 }, async (server) => {
        await once(server, 'CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)');
        await fill(server, 'SQLITE_FULL');
    });

/* A disk that is full; here a file may not be longer. */
scenes.disk = () =>
    withServer({ ...limits, limit: 'ulimit -f 2000' }, {}, async (server) => {
        await once(server, 'CREATE TABLE t(id INTEGER PRIMARY KEY, v BLOB)');
        await fill(server, null);
    });

async function fill(server, expected) {
    const there = new Set();
    const maybe = new Set();
    const codes = new Set();
    let next = 1;
    const put = async () => {
        const stream = new HttpStream(server.port);
        for (let i = 0; i < 60; i++) {
            const [id, size] = [next++, 1000 + random.below(20000)];
            const insert = stmt('INSERT INTO t VALUES (?, zeroblob(?))', int(id), int(size));
            const batch = transaction('BEGIN', insert);
            const one = random.chance(50) ? batch : { type: 'execute', stmt: insert };
            const [answer] = await stream.run([one]);
            const steps = answer.ok?.result.step_errors?.find((error) => error);
            const error = answer.error ?? steps;
            if (error) codes.add(error.code);
            if (!error) there.add(id);
            else if (/IOERR/.test(error.code)) maybe.add(id);
        }
    };
    await Promise.all([put(), put(), put(), put()]);
    assert(codes.size > 0, 'it was never full');
    if (expected) assert.deepEqual([...codes], [expected]);
    const ids = (await once(server, 'SELECT id FROM t')).map((row) => row[0]);
    for (const id of there) assert(ids.includes(id), `row ${id} is lost`);
    for (const id of ids) assert(there.has(id) || maybe.has(id), `row ${id} had failed`);
    assert.deepEqual(await once(server, 'PRAGMA integrity_check'), [['ok']]);
    console.log(`  ${there.size} rows, then ${[...codes]}`);
    if (!expected) return;
    await once(server, 'DELETE FROM t');
    await once(server, 'INSERT INTO t VALUES (1, zeroblob(10000))');
}

/* What was acknowledged as durable is in the store, whatever becomes of the rest. */
scenes.sync = async () => {
    let acknowledged = 0;
    for (let round = 0; round < 4; round++) {
        const byHeader = round % 2 === 1;
        const headers = byHeader ? { 'x-sluice-durability': 'sync' } : {};
        const server = await serve(limits, { sync: !byHeader });
        await once(server, 'CREATE TABLE t(id INTEGER PRIMARY KEY)');
        const done = [];
        const state = { stop: false, next: 1 };
        const wire = await Wire.open(server.port);
        const clients = Array.from({ length: 6 }, async (_, i) => {
            const http = () => new HttpStream(server.port, { headers });
            const stream = byHeader || i % 2 === 0 ? http() : new WsStream(wire);
            while (!state.stop) await put(stream, i % 3, state.next++, done);
        });
        const all = Promise.allSettled(clients);
        await sleep(300 + random.below(700));
        await until(() => done.length > 6);
        state.stop = true;
        await server.kill();
        for (const one of await all) {
            if (one.reason && !(one.reason instanceof Lost)) throw one.reason;
        }
        rmSync(path.join(server.data, 'tenants'), { recursive: true });
        const copy = path.join(server.dir, 'copy');
        restore(server.data, 'default', copy);
        const found = new Set(query(copy, 'SELECT id FROM t').map((row) => Number(row.id)));
        for (const id of done) assert(found.has(id), `round ${round}: ${id} is not in the store`);
        acknowledged += done.length;
        rmSync(server.dir, { recursive: true });
    }
    assert(acknowledged > 20, `only ${acknowledged} writes`);
    console.log(`  ${acknowledged} writes, all in the store`);
};

async function put(stream, way, id, done) {
    const insert = stmt('INSERT INTO t VALUES (?)', int(id));
    if (way === 0) await ask(stream, insert.sql, ...insert.args);
    if (way === 1) {
        const [answer] = await stream.run([transaction('BEGIN IMMEDIATE', insert)]);
        const { step_errors: errors } = answer.ok.result;
        if (errors.some((error) => error)) return;
    }
    if (way === 2) {
        await ask(stream, 'BEGIN');
        await ask(stream, insert.sql, ...insert.args);
        await ask(stream, 'COMMIT');
    }
    done.push(id);
}

/* More tenants than may be open: they are closed and opened all the time, under their clients. */
scenes.tenants = async () => {
    const names = [...Array(8).keys()].map((i) => `t${i}`);
    const args = ['-max-open', '3', '-idle-close', '300ms', '-sync-interval', '100ms'];
    const server = new Server(path.join(dir, String(count++)), { args });
    for (const name of names) makeTenant(server.data, name);
    await server.start();
    const done = new Map(names.map((name) => [name, []]));
    const writes = () => [...done.values()].reduce((sum, list) => sum + list.length, 0);
    for (const name of names) await create(server, name);
    for (let round = 0; round < 3; round++) {
        const state = { stop: false };
        /* What a killed server has left of the log of one that nobody asks for can wait for another
         * start; all that were asked for are whole at a good end. */
        if (round === 2) for (const name of names) await look(server, name);
        const clients = Array.from({ length: 10 }, async (_, i) => {
            while (!state.stop) await useTenant(server, random.pick(names), i % 3, done);
        });
        const all = Promise.all(clients);
        all.catch(() => {});
        await sleep(1200);
        await until(() => writes() > 20 * (round + 1));
        state.stop = true;
        if (round < 2) await server.kill();
        await all;
        if (round < 2) await server.start();
    }
    assert.equal(await server.stop(), 0, 'its end');
    let total = 0;
    for (const name of names) {
        const copy = path.join(server.dir, 'copy');
        restore(server.data, name, copy);
        for (const file of [copy, path.join(server.data, 'tenants', name, 'data')]) {
            const found = new Set(query(file, 'SELECT id FROM t').map((row) => Number(row.id)));
            for (const id of done.get(name)) assert(found.has(id), `${name}: ${id} not in ${file}`);
        }
        total += done.get(name).length;
    }
    assert(total > 50, `only ${total} writes`);
    console.log(`  ${total} writes to ${names.length} tenants`);
    rmSync(server.dir, { recursive: true });
};

async function create(server, tenant) {
    const stream = new HttpStream(server.port, { tenant });
    await ask(stream, 'CREATE TABLE t(id INTEGER PRIMARY KEY)');
    await stream.close();
}

async function look(server, tenant) {
    const stream = new HttpStream(server.port, { tenant });
    await ask(stream, 'SELECT count(*) FROM t');
    await stream.close();
}

let nextId = 1;

/* One stream, a few writes; what is busy or dead is for another time. */
async function useTenant(server, tenant, way, done) {
    const acknowledged = done.get(tenant);
    let wire = null;
    try {
        if (way === 2) wire = await Wire.open(server.port, { tenant });
        const stream = wire ? new WsStream(wire) : new HttpStream(server.port, { tenant });
        for (let i = 1 + random.below(3); i > 0; i--) {
            await put(stream, random.below(3), nextId++, acknowledged);
        }
        await stream.close();
    } catch (error) {
        const busy = /BUSY/.test(`${error.code} ${error.message}`);
        if (!(error instanceof Lost || error instanceof Refused || busy)) throw error;
    }
    wire?.vanish();
}

/* However many slow reads one tenant's transactions do, another's transactions go on. */
scenes.neighbours = () =>
    withServer(limits, {}, async (server) => {
        const slow = burn(await roundsFor(server, 200));
        await once(server, 'CREATE TABLE t(v INTEGER)');
        makeTenant(server.data, 'other');
        const crowd = Array.from({ length: 100 }, async () => {
            const stream = new HttpStream(server.port, { tenant: 'other' });
            await ask(stream, 'BEGIN');
            await ask(stream, slow);
            await ask(stream, 'COMMIT');
            await stream.close();
        });
        const all = Promise.all(crowd);
        all.catch(() => {});
        await sleep(500);
        const wait = await timed(once(server, 'BEGIN IMMEDIATE'));
        assert(wait < LATE_MS, `a transaction waited ${Math.round(wait)} ms`);
        await all;
    });

/* Version 1 over HTTP: a failure is told by the status, also one of the whole batch. */
scenes.v1 = () =>
    withServer({ args: ['-txn-timeout', '5s', '-query-timeout', '300ms'] }, {}, async (server) => {
        await once(server, 'CREATE TABLE t(who TEXT)');
        const sleeper = new HttpStream(server.port);
        await ask(sleeper, 'BEGIN IMMEDIATE');
        const stream = new HttpStream(server.port);
        const insert = { sql: "INSERT INTO t VALUES ('late')" };
        const batch = await stream.post('/v1/batch', { batch: { steps: [{ stmt: insert }] } });
        assert.notEqual(batch.status, 200, `a batch that did not run: ${batch.text}`);
        const lone = await stream.post('/v1/execute', { stmt: insert });
        assert.notEqual(lone.status, 200, `a statement that did not run: ${lone.text}`);
        await ask(sleeper, 'COMMIT');
        assert.deepEqual(await once(server, 'SELECT * FROM t'), []);
        await stream.close();
    });

/* Streams and cursors that are opened, used and closed all at once. */
scenes.churn = () =>
    withServer(limits, {}, async (server) => {
        await once(server, 'CREATE TABLE t(v TEXT)');
        const end = Date.now() + 4000;
        const one = async () => {
            while (Date.now() < end) {
                const wire = await Wire.open(server.port);
                const asked = [];
                const streams = { newest: 0 };
                for (let i = 0; i < 400; i++) {
                    asked.push(wire.ask(anything(streams)).catch(() => {}));
                    if (random.chance(5)) await sleep(random.below(3));
                }
                const answers = Promise.all(asked);
                if (random.chance(50)) await answers;
                wire.vanish();
                await answers;
                assert(server.alive(), `the server has ended: ${server.gone}`);
            }
        };
        await Promise.all([one(), one(), one(), one()]);
        const wait = await timed(once(server, "INSERT INTO t VALUES ('x')"));
        assert(wait < HOLD_MS + LATE_MS, `a write waited ${Math.round(wait)} ms`);
    });

function anything(streams) {
    /* A number that is in use may not be opened again: that would end the connection. */
    if (streams.newest < 3 || random.chance(15)) {
        return { type: 'open_stream', stream_id: ++streams.newest };
    }
    const stream_id = streams.newest - random.below(3);
    const cursor_id = random.below(3);
    const select = stmt(random.chance(20) ? burn(3000) : 'SELECT 1');
    const write = stmt('INSERT INTO t VALUES (?)', text('x'));
    const sql = random.pick([select, write, stmt('BEGIN IMMEDIATE'), stmt('COMMIT')]);
    const batch = { steps: [{ stmt: select }, { stmt: sql }] };
    return random.pick([
        { type: 'execute', stream_id, stmt: sql },
        { type: 'execute', stream_id, stmt: select },
        { type: 'batch', stream_id, batch },
        { type: 'open_cursor', stream_id, cursor_id, batch },
        { type: 'fetch_cursor', cursor_id, max_count: 2 },
        { type: 'close_cursor', cursor_id },
        { type: 'close_stream', stream_id },
        { type: 'get_autocommit', stream_id },
    ]);
}

const wanted = argv.length > 0 ? argv : Object.keys(scenes);
let failed = 0;
for (const name of wanted) {
    const start = performance.now();
    try {
        await scenes[name]();
        console.log(`ok ${name} (${Math.round(performance.now() - start)} ms)`);
    } catch (error) {
        failed++;
        console.log(`FAILED ${name}: ${error.stack}`);
    }
}
if (failed === 0) rmSync(dir, { recursive: true, force: true });
process.exit(failed === 0 ? 0 : 1);
