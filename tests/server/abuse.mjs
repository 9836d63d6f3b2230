/*
 * abuse.mjs -- what nobody should send, sent to a real server: it stays up, it answers others in
 * time, and its memory stays within bounds.
 *
 *   SLUICE=PATH node abuse.mjs [--seed S] [CASE...]
 */
import assert from 'node:assert/strict';
import { mkdtempSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { HttpStream, Wire, WsStream, execute, rows } from '../lin/client.mjs';
import { Random, seedFrom } from '../lin/random.mjs';
import { Server, sleep } from '../lin/server.mjs';

const MIB = 1024; /* KiB */
const GROWTH_MAX = 400 * MIB;
const SLOW_MS = 50; /* p99 of a normal client beside slow ones */

const argv = process.argv.slice(2);
const at = argv.indexOf('--seed');
const seed = seedFrom(at >= 0 ? argv.splice(at, 2)[1] : undefined);
const random = new Random(seed);
const dir = mkdtempSync(path.join(os.tmpdir(), 'abuse-'));
console.log(`seed ${seed}, files in ${dir}`);
const server = new Server(dir, { args: ['-max-body', String(32 << 20)] });

/* Writes parts one after another; resolves to all that comes back until the end, `until` or the
 * time is over. */
function raw(parts, { until = () => false, timeout = 3000 } = {}) {
    return new Promise((resolve) => {
        let text = '';
        const socket = net.connect(server.port, '127.0.0.1');
        const finish = () => {
            clearTimeout(timer);
            socket.destroy();
            resolve(text);
        };
        const timer = setTimeout(finish, timeout);
        socket.on('connect', async () => {
            for (const part of parts) {
                if (socket.destroyed) return;
                if (!socket.write(part)) await new Promise((go) => socket.once('drain', go));
            }
        });
        socket.on('data', (part) => {
            text += part.toString('latin1');
            if (until(text)) finish();
        });
        socket.on('error', finish);
        socket.on('close', finish);
    });
}

const head = (line, ...headers) => [line, 'Host: x', ...headers, '', ''].join('\r\n');
const statuses = (text) => [...text.matchAll(/HTTP\/1\.1 (\d+)/g)].map((m) => Number(m[1]));
const whole = (text) => /\r\n\r\n/.test(text);

function post(body, ...headers) {
    const size = `Content-Length: ${Buffer.byteLength(body)}`;
    return head('POST /v3/pipeline HTTP/1.1', size, ...headers) + body;
}

async function status(parts, options = {}) {
    const all = statuses(await raw(parts, { until: whole, timeout: 20000, ...options }));
    return all[0] ?? 0;
}

const select = JSON.stringify({ requests: [execute('SELECT 1'), { type: 'close' }] });

async function answers() {
    const stream = new HttpStream(server.port, { timeout: 10000 });
    const [answer] = await stream.run([execute('SELECT 1')]);
    assert.deepEqual(rows(answer.ok.result), [[1]]);
    stream.vanish();
}

/* p99 in milliseconds of `count` requests, one after another on one connection. */
async function p99(count) {
    const stream = new HttpStream(server.port);
    const took = [];
    for (let i = 0; i < count; i++) {
        const start = performance.now();
        await stream.run([execute('SELECT 1')]);
        took.push(performance.now() - start);
    }
    await stream.close();
    took.sort((a, b) => a - b);
    return took[Math.floor(count * 0.99)];
}

const cases = {};

/* 200 connections at a byte a second, in heads, in bodies, and in chunks. */
cases.slow = async () => {
    const before = await p99(300);
    const texts = [head('GET /health HTTP/1.1'), post(select)];
    texts.push(head('POST /v3/pipeline HTTP/1.1', 'Transfer-Encoding: chunked') + '5\r\n{"req');
    const sockets = Array.from({ length: 200 }, (_, i) => {
        const socket = net.connect(server.port, '127.0.0.1');
        socket.on('error', () => {});
        socket.text = texts[i % texts.length];
        socket.sent = i % 3 === 0 ? 0 : Math.floor(socket.text.length * 0.7);
        socket.write(socket.text.slice(0, socket.sent));
        return socket;
    });
    const drip = setInterval(() => {
        for (const one of sockets) {
            if (one.sent < one.text.length && one.writable) one.write(one.text[one.sent++]);
        }
    }, 1000);
    await sleep(200);
    /* What slow clients do to others shows each time; what else the machine does, now and then. */
    const during = Math.min(await p99(500), await p99(500), await p99(500));
    clearInterval(drip);
    for (const one of sockets) one.destroy();
    console.log(`  p99 ${before.toFixed(1)} ms before, ${during.toFixed(1)} ms beside them`);
    assert(during < Math.max(SLOW_MS, 3 * before), `p99 ${during} ms, before it was ${before}`);
};

cases.heads = async () => {
    const long = 'a'.repeat(1 << 20);
    for (const text of [
        head('GET /health HTTP/1.1', `X: ${long}`),
        head(`GET /${long} HTTP/1.1`),
        head('GET /health HTTP/1.1', ...Array(20000).fill('A: b')),
        head('GET /health HTTP/1.1', `${long}: b`),
    ]) {
        const got = await status([text]);
        assert([0, 400, 414, 431].includes(got), `a huge head: ${got}`);
    }
};

/* What a proxy in front could understand in another way is refused, and what stands behind it is
 * not another request. */
cases.smuggling = async () => {
    const hidden = 'GET /version HTTP/1.1\r\nHost: x\r\n\r\n';
    const chunked = `0\r\n\r\n${hidden}`;
    const line = 'POST /v3/pipeline HTTP/1.1';
    const size = `Content-Length: ${chunked.length}`;
    for (const [name, text] of [
        ['length and chunked', head(line, size, 'Transfer-Encoding: chunked') + chunked],
        ['two lengths', head(line, 'Content-Length: 0', size) + hidden],
        ['a list of lengths', head(line, `Content-Length: 0, ${hidden.length}`) + hidden],
        ['chunked twice', head(line, 'Transfer-Encoding: chunked, chunked') + chunked],
        ['an unknown coding', head(line, size, 'Transfer-Encoding: xchunked') + chunked],
        ['a space in a name', head(line, `Content-Length : ${hidden.length}`) + hidden],
        ['a signed length', head(line, `Content-Length: +${hidden.length}`) + hidden],
        ['a negative length', head(line, 'Content-Length: -1') + hidden],
        ['a length that is none', head(line, 'Content-Length: 0x10') + hidden],
        ['a huge length', head(line, `Content-Length: ${'9'.repeat(30)}`) + hidden],
    ]) {
        const text2 = await raw([text], { timeout: 700 });
        assert(!text2.includes('sluice v'), `${name}: the hidden request was answered: ${text2}`);
        const all = statuses(text2);
        assert(
            all.every((one) => one >= 400),
            `${name}: ${all}`,
        );
    }
    for (const [name, chunks] of [
        ['a size that is none', 'zz\r\nabc\r\n0\r\n\r\n'],
        ['a huge size', 'ffffffffffffffffff\r\nabc'],
        ['a negative size', '-5\r\nabc\r\n0\r\n\r\n'],
        ['a chunk that is longer', '2\r\nabcdef\r\n0\r\n\r\n'],
    ]) {
        const text = head(line, 'Transfer-Encoding: chunked') + chunks;
        const got = statuses(await raw([text], { timeout: 700 }));
        assert(got.length <= 1 && got[0] !== 200, `${name}: ${got}`);
    }
};

cases.lengths = async () => {
    const short = head('POST /v3/pipeline HTTP/1.1', `Content-Length: ${select.length - 5}`);
    assert.equal(await status([short + select]), 400, 'a body that is cut');
    const long = head('POST /v3/pipeline HTTP/1.1', `Content-Length: ${select.length + 5}`);
    assert.equal(await status([long + select], { timeout: 500 }), 0, 'one that never comes');
};

cases.bodies = async () => {
    const before = server.memory();
    const part = Buffer.alloc(1 << 20, 0x20);
    const big = (size) => head('POST /v3/pipeline HTTP/1.1', `Content-Length: ${size}`);
    const one = () => status([big(100 << 20), ...Array(100).fill(part)], { timeout: 20000 });
    for (const got of await Promise.all([one(), one(), one()])) {
        assert([0, 413].includes(got), `100 MB: ${got}`);
    }
    const chunk = Buffer.concat([Buffer.from('100000\r\n'), part, Buffer.from('\r\n')]);
    const chunked = head('POST /v3/pipeline HTTP/1.1', 'Transfer-Encoding: chunked');
    const got = await status([chunked, ...Array(100).fill(chunk)], { timeout: 20000 });
    assert([0, 413].includes(got), `100 MB in chunks: ${got}`);
    bounded(before);
};

cases.json = async () => {
    for (const [name, body] of [
        ['deep lists', '['.repeat(1 << 20)],
        ['deep objects', '{"a":'.repeat(200000)],
        ['deep inside', `{"requests":${'['.repeat(1 << 18)}`],
        ['10,000 requests', JSON.stringify({ requests: Array(10000).fill(execute('SELECT 1')) })],
        ['not UTF-8', Buffer.from('{"requests":[{"type":"\xff\xfe"}]}', 'latin1')],
        ['a NUL', '{"requests":[{"type":"execute\0"}]}'],
        ['half a surrogate', '{"requests":[{"type":"\\ud800"}]}'],
        ['numbers', `{"requests":[{"type":"execute","stmt":{"sql_id":${'9'.repeat(5000)}}}]}`],
        ['a deep condition', deepBatch(5000)],
        ['nothing', ''],
    ]) {
        const bytes = Buffer.from(body);
        const start = head('POST /v3/pipeline HTTP/1.1', `Content-Length: ${bytes.length}`);
        const got = await status([start, bytes], { timeout: 10000 });
        assert([400, 413].includes(got), `${name}: ${got}`);
    }
    /* Any bytes at all, and wherever a right one is broken. */
    for (let i = 0; i < 300; i++) {
        const bytes = Buffer.from(select);
        for (let n = 1 + random.below(4); n > 0; n--) {
            bytes[random.below(bytes.length)] = random.below(256);
        }
        const start = head('POST /v3/pipeline HTTP/1.1', `Content-Length: ${bytes.length}`);
        const got = await status([start, bytes]);
        assert([200, 400, 404, 410, 413].includes(got), `${got} for ${bytes.toString('latin1')}`);
    }
};

/* As text: what makes it a text from objects would not go so deep. */
function deepBatch(depth) {
    const cond = `${'{"type":"not","cond":'.repeat(depth)}{"type":"is_autocommit"}`;
    const step = `{"stmt":{"sql":"SELECT 1"},"condition":${cond}${'}'.repeat(depth)}}`;
    return `{"requests":[{"type":"batch","batch":{"steps":[${step}]}}]}`;
}

cases.paths = async () => {
    for (const url of [
        '/%00',
        '/v3/pipeline%00',
        '/dev/%00/v3/pipeline',
        '/dev/../../etc/passwd/v3/pipeline',
        '/dev/%2e%2e/v3/pipeline',
        '/dev/a%2fb/v3/pipeline',
        '/dev//v3/pipeline',
        '/dev/',
        '//',
        '/%',
        '/%zz',
        `/dev/${'a'.repeat(5000)}/v3/pipeline`,
        '/dev/\xff/v3/pipeline',
        '*',
    ]) {
        const body = `Content-Length: ${select.length}`;
        const got = await status([head(`POST ${url} HTTP/1.1`, body) + select]);
        assert([0, 400, 404, 405, 431].includes(got), `${url}: ${got}`);
    }
};

/* Many requests at once on one connection are answered in their order. */
cases.pipelined = async () => {
    const count = 500;
    let text = '';
    for (let i = 0; i < count; i++) {
        text += post(JSON.stringify({ requests: [execute(`SELECT 'n${i}n'`)] }));
    }
    const done = (got) => got.includes(`n${count - 1}n`);
    const got = await raw([text], { until: done, timeout: 20000 });
    const order = [...got.matchAll(/"n(\d+)n"/g)].map((m) => Number(m[1]));
    const values = order.filter((n, i) => n !== order[i - 1]);
    assert.deepEqual(values, [...Array(count).keys()]);
};

/* Large answers that nobody takes, and one request that asks for far too much. */
cases.answers = async () => {
    const before = server.memory();
    const big = 'SELECT zeroblob(20000000)';
    const stream = new HttpStream(server.port);
    const all = await stream.run(Array(40).fill(execute(big)));
    assert(
        all.some((answer) => answer.error),
        '800 MB in one answer',
    );
    await stream.close();
    bounded(before);
    const sockets = Array.from({ length: 12 }, () => {
        const socket = net.connect(server.port, '127.0.0.1');
        socket.on('error', () => {});
        socket.pause();
        socket.write(post(JSON.stringify({ requests: [execute(big)] })).repeat(20));
        return socket;
    });
    await sleep(3000);
    await answers();
    const most = server.memory();
    console.log(`  12 clients that take nothing: ${Math.round((most - before) / MIB)} MiB more`);
    for (const one of sockets) one.destroy();
    bounded(before, 1000 * MIB);
};

cases.websockets = async () => {
    const before = server.memory();
    const wire = await Wire.open(server.port);
    for (let i = 0; i < 20000; i++) wire.frame(9, Buffer.from('ping'));
    const [answer] = await new WsStream(wire).run([execute('SELECT 1')]);
    assert.deepEqual(rows(answer.ok.result), [[1]], 'after many pings');
    wire.vanish();
    for (const [name, bytes] of [
        ['no mask', [0x81, 0x02, 0x7b, 0x7d]],
        ['a reserved bit', [0xf1, 0x80, 0, 0, 0, 0]],
        ['an unknown opcode', [0x83, 0x80, 0, 0, 0, 0]],
        ['a long ping', [0x89, 0xfe, 0x01, 0x00, 0, 0, 0, 0]],
        [
            'a huge message',
            [0x81, 0xff, 0x7f, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0, 0x20],
        ],
        ['not UTF-8', [0x81, 0x82, 0, 0, 0, 0, 0xff, 0xff]],
        ['a part of nothing', [0x80, 0x80, 0, 0, 0, 0]],
    ]) {
        const bad = await Wire.open(server.port);
        bad.socket.write(Buffer.from(bytes));
        const ended = await Promise.race([over(bad), sleep(20000).then(() => false)]);
        assert(ended, `${name}: the connection stays`);
        bad.vanish();
    }
    /* Requests without end, whose answers nobody takes. */
    const floods = [];
    for (let i = 0; i < 8; i++) {
        const flood = await Wire.open(server.port);
        flood.socket.pause();
        const open = { type: 'open_stream', stream_id: 1 };
        flood.ask(open).catch(() => {});
        const request = { ...execute('SELECT zeroblob(100000)'), stream_id: 1 };
        for (let n = 0; n < 2000; n++) flood.ask(request).catch(() => {});
        floods.push(flood);
    }
    await sleep(3000);
    await answers();
    bounded(before);
    for (const flood of floods) flood.vanish();
    /* Messages in endless parts. */
    const parts = await Wire.open(server.port);
    parts.socket.write(Buffer.from([0x01, 0x80, 0, 0, 0, 0]));
    const part = Buffer.concat([Buffer.from([0x00, 0xff, 0, 0, 0, 0, 0, 0x10, 0, 0, 0, 0, 0, 0])]);
    const data = Buffer.concat([part, Buffer.alloc(1 << 20, 0x20)]);
    for (let i = 0; i < 200 && !parts.over; i++) {
        if (!parts.socket.write(data)) await sleep(5);
    }
    await sleep(200);
    bounded(before);
    parts.vanish();
};

function over(wire) {
    return new Promise((resolve) => {
        const look = () => (wire.over ? resolve(true) : setTimeout(look, 5));
        look();
    });
}

/* More connections than any client needs, opened and left, and opened and cut. */
cases.connections = async () => {
    for (let round = 0; round < 5; round++) {
        const sockets = Array.from({ length: 400 }, () => {
            const socket = net.connect(server.port, '127.0.0.1');
            socket.on('error', () => {});
            if (random.chance(50)) socket.write(post(select).slice(0, random.below(200)));
            return socket;
        });
        await sleep(100);
        for (const one of sockets) random.chance(50) ? one.resetAndDestroy() : one.destroy();
    }
};

function bounded(before, most = GROWTH_MAX) {
    const grown = server.memory() - before;
    assert(grown < most, `${Math.round(grown / MIB)} MiB more`);
}

await server.start();
const wanted = argv.length > 0 ? argv : Object.keys(cases);
let failed = 0;
await answers();
const first = server.memory();
for (const name of wanted) {
    const start = performance.now();
    try {
        await cases[name]();
        assert(server.alive(), `the server has ended: ${server.gone}`);
        await answers();
        const now = Math.round(server.memory() / MIB);
        console.log(`ok ${name} (${Math.round(performance.now() - start)} ms, ${now} MiB)`);
    } catch (error) {
        failed++;
        console.log(`FAILED ${name}: ${error.stack}`);
        if (!server.alive()) break;
    }
}
console.log(`memory: ${Math.round(first / MIB)} MiB before`);
try {
    if (server.alive()) assert.equal(await server.stop(), 0, 'its end');
} catch (error) {
    failed++;
    console.log(`FAILED the end: ${error.stack}`);
}
if (failed === 0) rmSync(dir, { recursive: true, force: true });
process.exit(failed === 0 ? 0 : 1);
