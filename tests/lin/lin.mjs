/*
 * lin.mjs -- is the server right, whatever its clients do at once, and however often it is killed?
 *
 *   node lin.mjs [--seconds N | --minutes N] [--seed S] [--clients N] [--keep]
 *
 * Rounds on one folder: clients work on registers, lists and accounts, until the server is killed
 * (now and then it is told to end) at a random moment and started again. In the end all histories
 * are checked, the database, and that its log holds the same. 0: all is well; 1: it is not.
 */
import { existsSync, mkdtempSync, rmSync, statSync, writeFileSync } from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { checkBank, checkLists, checkRegister } from './check.mjs';
import { HttpStream, Wire, execute, int, rows } from './client.mjs';
import { Random, seedFrom } from './random.mjs';
import { Server, dump, makeTenant, query, restore, sleep } from './server.mjs';
import { ACCOUNTS, Client, EACH, History, LISTS, REGISTERS, SCHEMA } from './workloads.mjs';
import { numbers } from './workloads.mjs';

const { values: options } = parseArgs({
    options: {
        seconds: { type: 'string', default: '20' },
        minutes: { type: 'string' },
        seed: { type: 'string' },
        clients: { type: 'string', default: '12' },
        keep: { type: 'boolean', default: false },
    },
});
const seconds = options.minutes ? 60 * Number(options.minutes) : Number(options.seconds);
const seed = seedFrom(options.seed);
const random = new Random(seed);
const dir = mkdtempSync(path.join(os.tmpdir(), 'lin-'));
console.log(`seed ${seed}, files in ${dir}`);

async function must(stream, ...requests) {
    for (const answer of await stream.run(requests)) {
        if (answer.error) throw new Error(`${answer.error.code}: ${answer.error.message}`);
    }
}

async function prepare(server) {
    const stream = new HttpStream(server.port);
    await must(stream, ...SCHEMA.map((sql) => execute(sql)));
    const all = [];
    for (let k = 0; k < REGISTERS; k++) all.push(execute('INSERT INTO reg VALUES (?, 0)', int(k)));
    for (let k = 0; k < LISTS; k++) all.push(execute("INSERT INTO list VALUES (?, '')", int(k)));
    for (const id of ACCOUNTS) {
        all.push(execute('INSERT INTO acct VALUES (?, ?)', int(id), int(EACH)));
    }
    await must(stream, ...all);
    await stream.close();
}

/* Some clients until `stop`: half of them over HTTP, the others on two WebSockets. */
async function work(server, history, ms) {
    const state = { stop: false };
    const wires = [];
    for (let i = 0; i < 2; i++) wires.push(await Wire.open(server.port));
    const clients = Array.from({ length: Number(options.clients) }, async (_, i) => {
        const wire = i % 2 === 0 ? null : wires[(i >> 1) % wires.length];
        const client = new Client({ history, random: random.fork(), port: server.port, wire });
        while (!state.stop && !(wire?.over ?? false)) await client.step();
    });
    const cut = random.chance(30) ? random.below(ms) : 0;
    if (cut > 0) setTimeout(() => wires[0].vanish(), cut).unref();
    const all = Promise.all(clients);
    all.catch(() => {}); /* told below */
    await Promise.race([sleep(ms), all]);
    state.stop = true; /* what is on its way stays there */
    return async () => {
        await all;
        for (const wire of wires) wire.vanish();
    };
}

/* KiB of the longest file that must be able to grow a little. */
function longest(server) {
    const folder = path.join(server.data, 'tenants', 'default');
    const sizes = ['data', 'data-wal'].map((name) => path.join(folder, name));
    return Math.max(...sizes.map((file) => (existsSync(file) ? statSync(file).size >> 10 : 0)));
}

async function finalState(server) {
    const stream = new HttpStream(server.port);
    const get = async (sql) => {
        const [answer] = await stream.run([execute(sql)]);
        if (answer.error) throw new Error(`${sql}: ${answer.error.message}`);
        return rows(answer.ok.result);
    };
    const state = {
        integrity: await get('PRAGMA integrity_check'),
        registers: await get('SELECT v FROM reg ORDER BY k'),
        lists: new Map((await get('SELECT k, v FROM list')).map(([k, v]) => [k, numbers(v)])),
        ledger: await get('SELECT * FROM transfer'),
        balances: new Map(await get('SELECT id, b FROM acct')),
    };
    await stream.close();
    return state;
}

function check(history, state) {
    const wrong = [];
    if (String(state.integrity) !== 'ok') wrong.push(`integrity_check: ${state.integrity}`);
    const end = performance.now();
    history.registers.forEach((ops, key) => {
        const last = { type: 'read', value: state.registers[key][0], start: end, end: end + 1 };
        const bad = checkRegister([...ops, { ...last, outcome: 'ok' }], 0);
        if (bad !== null) wrong.push(`register ${key}: ${bad}`);
        if (bad !== null) writeFileSync(path.join(dir, `register-${key}`), lines(ops));
    });
    wrong.push(...checkLists(history.txns, state.lists));
    wrong.push(
        ...checkBank({
            transfers: history.transfers,
            ledger: state.ledger,
            balances: state.balances,
            reads: history.totals,
            accounts: ACCOUNTS,
            each: EACH,
        }),
    );
    return wrong;
}

function lines(list) {
    return list.map((one) => `${JSON.stringify(one)}\n`).join('');
}

/* The log of a server that has ended well holds the database. */
function compareLog(server) {
    const copy = path.join(dir, 'restored');
    restore(server.data, 'default', copy);
    const [ours, theirs] = [path.join(server.data, 'tenants/default/data'), copy].map(dump);
    if (ours !== theirs) return ['what the log holds differs from the database'];
    const ok = query(copy, 'PRAGMA integrity_check');
    return JSON.stringify(ok).includes('"ok"') ? [] : [`restored: ${JSON.stringify(ok)}`];
}

async function main() {
    const args = ['-sync-interval', '100ms', '-txn-timeout', '300ms', '-stream-idle-timeout', '1s'];
    const server = new Server(dir, { args });
    makeTenant(server.data, 'default');
    const history = new History();
    await server.start();
    await prepare(server);
    const deadline = Date.now() + 1000 * seconds;
    const ends = { killed: 0, ended: 0, full: 0 };
    /* The last round must have a disk, however long the one before it took. */
    while (Date.now() < deadline || server.options.limit) {
        const stop = await work(server, history, 200 + random.below(2500));
        const polite = random.chance(20);
        if (polite) {
            const end = await server.stop();
            if (end !== 0 && !server.options.limit) {
                throw new Error(`the server ended with ${end}`);
            }
        } else {
            await server.kill();
        }
        history.serverDied();
        await stop();
        history.serverDied();
        ends[polite ? 'ended' : 'killed']++;
        /* Now and then files cannot grow any more after a while. */
        const full = random.chance(15) && Date.now() + 4000 < deadline;
        if (full) ends.full++;
        server.options.limit = full ? `ulimit -f ${longest(server) + random.below(300)}` : '';
        await server.start();
    }
    const state = await finalState(server);
    const end = await server.stop();
    const began = performance.now();
    const wrong = check(history, state);
    if (end !== 0) wrong.push(`the server ended with ${end}`);
    else wrong.push(...compareLog(server));
    const { ok, fail, unknown } = history.counts;
    console.log(
        `killed ${ends.killed} times, ended ${ends.ended}, disk full ${ends.full}; ` +
            `operations: ok ${ok}, failed ${fail}, unknown ${unknown}; transfers there ` +
            `${state.ledger.length}; checked in ${Math.round(performance.now() - began)} ms`,
    );
    for (const [why, count] of [...history.failures].sort((a, b) => b[1] - a[1]).slice(0, 12)) {
        console.log(`  ${count} x ${why}`);
    }
    return wrong;
}

let status = 1;
try {
    const wrong = await main();
    for (const one of wrong.slice(0, 20)) console.log(`WRONG: ${one}`);
    if (wrong.length > 20) console.log(`... and ${wrong.length - 20} more`);
    status = wrong.length > 0 ? 1 : 0;
} catch (error) {
    console.log(error.stack);
}
if (status === 0 && !options.keep) rmSync(dir, { recursive: true, force: true });
else console.log(`its files are in ${dir}`);
process.exit(status);
