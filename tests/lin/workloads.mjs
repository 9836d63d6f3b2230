/*
 * workloads.mjs -- what the clients do, and what is remembered of it for the checkers.
 *
 * Every operation runs through `record`: it notes beginning, end and outcome. `ok`: the server said
 * that it is committed; `fail`: it said that it is not; `unknown`: it said nothing.
 */
import { HttpStream, Lost, Refused, WsStream } from './client.mjs';
import { execute, int, rows, stmt, text, transaction } from './client.mjs';

export const REGISTERS = 5;
export const LISTS = 6;
export const ACCOUNTS = [...Array(8).keys()];
export const EACH = 40;

export const SCHEMA = [
    'CREATE TABLE reg(k INTEGER PRIMARY KEY, v INTEGER)',
    'CREATE TABLE list(k INTEGER PRIMARY KEY, v TEXT NOT NULL)',
    'CREATE TABLE acct(id INTEGER PRIMARY KEY, b INTEGER NOT NULL CHECK (b >= 0))',
    'CREATE TABLE transfer(id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, x INTEGER)',
    `CREATE TABLE ask(id INTEGER PRIMARY KEY, a INTEGER, b INTEGER, x INTEGER)`,
    `CREATE TRIGGER asked AFTER INSERT ON ask BEGIN
        UPDATE acct SET b = b + new.x WHERE id = new.b;
        UPDATE acct SET b = b - new.x WHERE id = new.a;
        INSERT INTO transfer VALUES (new.id, new.a, new.b, new.x);
     END`,
];

export class History {
    constructor() {
        this.registers = Array.from({ length: REGISTERS }, () => []);
        this.txns = [];
        this.transfers = [];
        this.totals = [];
        this.open = new Set();
        this.nextValue = 1;
        this.counts = { ok: 0, fail: 0, unknown: 0 };
        this.failures = new Map(); /* why, and how often */
    }

    /* The server is dead: what nobody knows the outcome of cannot happen any more. */
    serverDied() {
        const now = performance.now();
        for (const one of this.open) one.end = Math.min(one.end, now);
        this.open.clear();
    }

    finish(one, outcome, why) {
        one.outcome = outcome;
        this.counts[outcome]++;
        if (why) this.failures.set(why, (this.failures.get(why) ?? 0) + 1);
        one.end = outcome === 'unknown' ? Infinity : performance.now();
        if (outcome === 'unknown') this.open.add(one);
    }
}

class Failed extends Error {}

/* The answer's body, or its error is thrown. */
function good(answer) {
    if (answer.error) throw new Failed(answer.error.code);
    return answer.ok.result;
}

/* What the answer of a `transaction` says: the results of its statements. */
function stepsOf(answer) {
    const { step_results: results, step_errors: errors } = good(answer);
    const commit = results.length - 2;
    if (results[commit]) return results.slice(1, commit);
    throw new Failed(errors.find((error) => error)?.code ?? 'nothing');
}

export class Client {
    /* wire: of several clients, or null for HTTP. */
    constructor({ history, random, port, wire }) {
        Object.assign(this, { history, random, port, wire });
        this.stream = this.fresh();
    }

    fresh() {
        return this.wire ? new WsStream(this.wire) : new HttpStream(this.port);
    }

    /* One operation of any kind. */
    async step() {
        const kinds = [
            () => this.register(),
            () => this.register(),
            () => this.lists(),
            () => this.lists(),
            () => this.bank(),
            () => this.bank(),
            () => this.total(),
        ];
        if (this.random.chance(2)) return this.vanish();
        await this.random.pick(this.registersRest ? kinds.slice(2) : kinds)();
        if (this.random.chance(3)) this.stream = this.fresh();
    }

    /* notes: records that share the outcome; fn: throws if it did not work. */
    async record(notes, fn) {
        const start = performance.now();
        for (const note of notes) note.start = start;
        let outcome = 'ok';
        let why = null;
        try {
            await fn();
        } catch (error) {
            if (!(error instanceof Failed || error instanceof Refused || error instanceof Lost)) {
                throw error;
            }
            /* A commit that the disk has failed may still be there after a crash. */
            const asked = error instanceof Lost || /IOERR/.test(error.message);
            outcome = asked ? 'unknown' : 'fail';
            /* Much that is unknown at once takes the checker too long. */
            if (/IOERR/.test(error.message) && notes[0].type) this.registersRest = true;
            why = `${error.constructor.name} ${error.message.slice(0, 80)}`;
            await this.stream.close?.().catch(() => {});
            this.stream = this.fresh();
        }
        for (const note of notes) {
            /* A cas knows for itself that it has failed. */
            if (outcome !== 'ok' || note.outcome === undefined) {
                this.history.finish(note, outcome, why);
                note.refused = outcome === 'fail';
            } else {
                this.history.finish(note, note.outcome);
            }
        }
        return outcome;
    }

    async one(request) {
        return (await this.stream.run([request]))[0];
    }

    /* BEGIN, what `body` does with its `run`, COMMIT, each a request of its own. */
    async interactive(begin, body) {
        good(await this.one(execute(begin)));
        await body(async (sql, ...args) => good(await this.one(execute(sql, ...args))));
        if (this.random.chance(5)) {
            good(await this.one(execute('ROLLBACK')));
            throw new Failed('rolled back');
        }
        good(await this.one(execute('COMMIT')));
    }

    /* ---- Registers ---- */

    async register() {
        const key = this.random.below(REGISTERS);
        const history = this.history.registers[key];
        const value = this.history.nextValue++;
        const kind = this.random.below(6);
        const set = [`UPDATE reg SET v = ? WHERE k = ?`, int(value), int(key)];
        if (kind < 2) {
            const note = { type: 'read' };
            const outcome = await this.record([note], async () => {
                const sql = 'SELECT v FROM reg WHERE k = ?';
                note.value = rows(good(await this.one(execute(sql, int(key)))))[0][0];
            });
            if (outcome === 'ok') history.push(note);
            return;
        }
        if (kind === 2) {
            const note = { type: 'cas', value, old: this.random.pick(this.recent(history)) };
            history.push(note);
            const sql = 'UPDATE reg SET v = ? WHERE k = ? AND v = ? RETURNING v';
            await this.record([note], async () => {
                const request = execute(sql, int(value), int(key), int(note.old));
                if (rows(good(await this.one(request))).length === 0) note.outcome = 'fail';
            });
            /* Refused by the server, not by the value: it says nothing about the value. */
            if (note.refused) history.splice(history.indexOf(note), 1);
            return;
        }
        if (kind === 3) {
            /* Two in one pipeline, of which the second reads. */
            const write = { type: 'write', value };
            const read = { type: 'read' };
            history.push(write);
            const select = execute('SELECT v FROM reg WHERE k = ?', int(key));
            const outcome = await this.record([write, read], async () => {
                const answers = await this.stream.run([execute(...set), select]);
                good(answers[0]);
                read.value = rows(good(answers[1]))[0][0];
            });
            if (outcome === 'ok') history.push(read);
            return;
        }
        const note = { type: 'write', value };
        history.push(note);
        await this.record([note], async () => {
            if (kind === 4) {
                good(await this.one(execute(...set)));
            } else if (this.random.chance(50)) {
                stepsOf(await this.one(transaction('BEGIN', stmt(...set))));
            } else {
                await this.interactive('BEGIN IMMEDIATE', (run) => run(...set));
            }
        });
    }

    /* Values that the register may have. */
    recent(history) {
        const values = history.slice(-4).map((note) => note.value ?? 0);
        return [...values, 0];
    }

    /* ---- Lists ---- */

    async lists() {
        const keys = this.random.some([...Array(LISTS).keys()], 1 + this.random.below(3));
        const only = this.random.chance(30); /* reads */
        const ops = keys.flatMap((key) => this.listOps(key, only));
        const note = { ops };
        this.history.txns.push(note);
        const way = this.random.below(only ? 5 : 4);
        await this.record([note], async () => {
            if (way < 2) {
                const begin = this.random.pick(
                    only ? ['BEGIN', 'BEGIN READONLY'] : ['BEGIN IMMEDIATE', 'BEGIN'],
                );
                await this.interactive(begin, async (run) => {
                    for (const op of ops) take(op, await run(...listSql(op)));
                });
            } else if (way === 4) {
                await this.readOnce(keys, note);
            } else {
                const stmts = ops.map((op) => stmt(...listSql(op)));
                const begin = this.random.pick(['BEGIN IMMEDIATE', 'BEGIN']);
                const results = stepsOf(await this.one(transaction(begin, ...stmts)));
                results.forEach((result, i) => take(ops[i], result));
            }
        });
        note.ops = note.ops.filter((op) => op.append !== undefined || op.read !== undefined);
    }

    listOps(key, only) {
        const ops = [];
        for (let left = 1 + this.random.below(2); left > 0; left--) {
            if (only || this.random.chance(40)) ops.push({ key });
            else ops.push({ key, append: this.history.nextValue++ });
        }
        return ops;
    }

    /* Several lists by one SELECT. */
    async readOnce(keys, note) {
        const sql = `SELECT k, v FROM list WHERE k IN (${keys.join()})`;
        const found = rows(good(await this.one(execute(sql))));
        note.ops = found.map(([key, value]) => ({ key, read: numbers(value) }));
    }

    /* ---- Bank ---- */

    async bank() {
        const [from, to] = this.random.some(ACCOUNTS, 2);
        const amount = 1 + this.random.below(20);
        const note = { id: this.history.nextValue++, from, to, amount };
        this.history.transfers.push(note);
        const args = [int(note.id), int(from), int(to), int(amount)];
        const log = stmt('INSERT INTO transfer VALUES (?, ?, ?, ?)', ...args);
        const take = stmt('UPDATE acct SET b = b - ? WHERE id = ?', int(amount), int(from));
        const give = stmt('UPDATE acct SET b = b + ? WHERE id = ?', int(amount), int(to));
        const way = this.random.below(4);
        await this.record([note], async () => {
            if (way === 0) {
                stepsOf(await this.one(transaction('BEGIN', log, give, take)));
            } else if (way === 1) {
                const or = this.random.pick(['', 'OR ABORT', 'OR ROLLBACK']);
                const insert = `INSERT ${or} INTO ask VALUES (?, ?, ?, ?)`;
                good(await this.one(execute(insert, ...args)));
            } else if (way === 2) {
                const sql = ['BEGIN', sqlOf(log), sqlOf(take), sqlOf(give), 'COMMIT'].join(';\n');
                const answer = await this.one({ type: 'sequence', sql });
                if (answer.error) throw new Failed(answer.error.code);
            } else {
                await this.interactive('BEGIN IMMEDIATE', async (run) => {
                    const sql = 'SELECT b FROM acct WHERE id = ?';
                    const had = rows(await run(sql, int(from)))[0][0];
                    if (had < amount) throw new Failed('not so much money');
                    await run(take.sql, ...take.args);
                    await run(give.sql, ...give.args);
                    await run(log.sql, ...log.args);
                });
            }
        });
    }

    async total() {
        const note = {};
        const all = 'SELECT id, b FROM acct ORDER BY id';
        const way = this.random.below(3);
        const outcome = await this.record([note], async () => {
            let found = [];
            if (way === 0 && this.stream.cursor) {
                const batch = { steps: [{ stmt: stmt(all) }] };
                const entries = await this.stream.cursor(batch);
                const bad = entries.find((entry) => /error/.test(entry.type));
                if (bad) throw new Failed(bad.error.code);
                found = rows({ rows: entries.filter((e) => e.type === 'row').map((e) => e.row) });
            } else if (way === 1) {
                await this.interactive('BEGIN', async (run) => {
                    for (const id of ACCOUNTS) {
                        const one = await run('SELECT id, b FROM acct WHERE id = ?', int(id));
                        found.push(...rows(one));
                    }
                });
            } else {
                found = rows(good(await this.one(execute(all))));
            }
            note.balances = found.map((row) => row[1]);
        });
        if (outcome === 'ok') this.history.totals.push(note);
    }

    /* ---- Clients that go away ---- */

    async vanish() {
        const note = { id: this.history.nextValue++, from: 0, to: 1, amount: 1 };
        this.history.transfers.push(note);
        const args = [int(note.id), int(note.from), int(note.to), int(note.amount)];
        const insert = execute('INSERT INTO ask VALUES (?, ?, ?, ?)', ...args);
        note.start = performance.now();
        const stream = new HttpStream(this.port);
        const way = this.random.below(4);
        let outcome = 'fail';
        if (way === 0) {
            await stream.half([insert]);
        } else if (way === 1) {
            /* In the middle of a transaction, between two requests. */
            await stream.run([execute('BEGIN IMMEDIATE'), insert]).catch(() => {});
            stream.vanish();
        } else if (way === 2) {
            /* In the middle of a transaction, while a request is at work. */
            const requests = [execute('BEGIN IMMEDIATE'), insert, execute(SLOW)];
            const answer = stream.run(requests).catch(() => {});
            setTimeout(() => stream.vanish(), this.random.below(20));
            await answer;
        } else {
            const answer = stream.run([insert]).catch(() => {});
            setTimeout(() => stream.vanish(), this.random.below(3));
            await answer;
            outcome = 'unknown';
        }
        this.history.finish(note, outcome, `vanished ${way}`);
    }
}

/* Some hundred milliseconds of work that can be interrupted. */
const SLOW =
    'WITH RECURSIVE c(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM c LIMIT 1000000) ' +
    'SELECT count(*) FROM c';

function listSql(op) {
    if (op.append === undefined) return ['SELECT v FROM list WHERE k = ?', int(op.key)];
    const value = text(`,${op.append}`);
    return ['UPDATE list SET v = v || ? WHERE k = ?', value, int(op.key)];
}

function take(op, result) {
    if (op.append === undefined) op.read = numbers(rows(result)[0][0]);
}

export function numbers(list) {
    return list === '' ? [] : list.slice(1).split(',').map(Number);
}

/* A statement with its integers in place. */
function sqlOf({ sql, args }) {
    let at = 0;
    return sql.replace(/\?/g, () => args[at++].value);
}
