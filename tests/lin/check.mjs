/*
 * check.mjs -- is a history one that a correct database could have given?
 *
 * Times are numbers that grow. What has no known outcome may have happened at any time from its
 * beginning until `end`, when its server was dead, or never.
 */

/* ---- Registers ---- */

const CONFIGS_MAX = 200000;

/*
 * One register. ops: {type: read|write|cas, value (what a read gave; else the new one), old (of a
 * cas), start, end, outcome: ok|fail|unknown}. A cas that fails saw another value; a write that
 * failed never was. Returns null, or what is wrong.
 *
 * Walks through beginnings and ends in order of time, with all states that may be true: the value,
 * and which of the open operations have taken effect (Lowe's just-in-time linearization).
 */
export function checkRegister(ops, initial) {
    const events = [];
    ops.forEach((op, index) => {
        if (op.outcome === 'fail' && op.type !== 'cas') return;
        if (op.outcome === 'unknown' && op.type === 'read') return;
        events.push({ time: op.start, begin: true, op, index });
        events.push({ time: op.end, begin: false, op, index });
    });
    /* At the same time: what begins comes first, so that the two overlap. */
    events.sort((a, b) => a.time - b.time || Number(b.begin) - Number(a.begin));
    const open = new Map();
    let states = new Map([[`${initial}|`, { value: initial, done: new Set() }]]);
    for (const { begin, op, index } of events) {
        if (begin) {
            open.set(index, op);
            continue;
        }
        const reached = reach(states, open, index);
        if (reached === null) return 'too many operations at once to be sure';
        /* It may have been, or not. */
        if (op.outcome === 'unknown') reached.push(...states.values());
        states = forget(reached, index);
        if (states.size === 0) return `no order explains ${JSON.stringify(op)}`;
        open.delete(index);
    }
    return null;
}

/* All states in which `index` has taken effect, by way of any of the open ones before it. */
function reach(states, open, index) {
    const seen = new Map(states);
    const queue = [...states.values()];
    const reached = [];
    while (queue.length > 0) {
        const state = queue.pop();
        if (state.done.has(index)) {
            reached.push(state);
            continue;
        }
        for (const [i, op] of open) {
            if (state.done.has(i)) continue;
            const value = apply(op, state.value);
            if (value === undefined) continue;
            const next = { value, done: new Set(state.done).add(i) };
            const key = keyOf(next);
            if (seen.has(key)) continue;
            seen.set(key, next);
            queue.push(next);
        }
        if (seen.size > CONFIGS_MAX) return null;
    }
    return reached;
}

/* The value after it; undefined: it cannot have been. */
function apply(op, value) {
    if (op.type === 'read') return op.value === value ? value : undefined;
    if (op.type === 'write') return op.value;
    if (op.outcome === 'fail') return op.old === value ? undefined : value;
    return op.old === value ? op.value : op.outcome === 'unknown' ? value : undefined;
}

function forget(states, index) {
    const out = new Map();
    for (const state of states) {
        const done = new Set(state.done);
        done.delete(index);
        const next = { value: state.value, done };
        out.set(keyOf(next), next);
    }
    return out;
}

function keyOf(state) {
    return `${state.value}|${[...state.done].sort((a, b) => a - b).join(',')}`;
}

/* ---- Lists ---- */

/*
 * txns: {ops: [{append: value, key} | {read: [values], key}], start, end, outcome}. Every value is
 * appended once. `final`: Map of key to the list in the end. Returns a list of what is wrong.
 *
 * The order of versions is known from the final lists, because lists only grow; from it follow all
 * dependencies, and with "ended before the other began" the history must have no cycle.
 */
export function checkLists(txns, final) {
    const wrong = [];
    const writers = new Map(); /* value -> index of its transaction */
    txns.forEach((txn, index) => {
        for (const op of txn.ops) if (op.append !== undefined) writers.set(op.append, index);
    });
    const place = new Map();
    for (const [key, list] of final) {
        list.forEach((value, at) => {
            if (place.has(value)) wrong.push(`${value} is there twice`);
            place.set(value, { key, at });
            const writer = writers.get(value);
            if (writer === undefined) wrong.push(`${value} was never appended`);
            else if (txns[writer].outcome === 'fail') {
                wrong.push(`${value} is there, but its transaction failed: ${show(txns[writer])}`);
            }
        });
    }
    for (const txn of txns) wrong.push(...checkWhole(txn, place), ...checkReads(txn, final));
    if (wrong.length > 0) return wrong;
    return findCycle(txns, final, writers, place);
}

/* What was acknowledged is there, and of the rest all or nothing. */
function checkWhole(txn, place) {
    const appends = txn.ops.filter((op) => op.append !== undefined);
    const there = appends.filter((op) => place.has(op.append)).length;
    if (txn.outcome === 'ok' && there < appends.length) return [`lost: ${show(txn)}`];
    if (there > 0 && there < appends.length) return [`half of it is there: ${show(txn)}`];
    return [];
}

/* A read is a beginning of the final list, and behind it what the transaction itself appended
 * before: that is in the final list, too, unless the transaction failed. */
function checkReads(txn, final) {
    const wrong = [];
    const mine = new Map();
    const before = new Map();
    for (const op of txn.ops) {
        if (op.append !== undefined) {
            mine.set(op.key, [...(mine.get(op.key) ?? []), op.append]);
            continue;
        }
        const own = mine.get(op.key) ?? [];
        const others = op.read.slice(0, op.read.length - own.length);
        const list = final.get(op.key) ?? [];
        const tail = op.read.slice(others.length);
        if (tail.join() !== own.join()) wrong.push(`does not see itself: ${show(txn)}`);
        else if (others.some((value, i) => list[i] !== value)) {
            wrong.push(`key ${op.key} never was so (G1a or a lost append): ${show(txn)}`);
        }
        const first = before.get(op.key);
        if (first !== undefined && first !== others.length) {
            wrong.push(`two reads differ: ${show(txn)}`);
        }
        before.set(op.key, others.length);
        op.others = others;
    }
    return wrong;
}

function show(txn) {
    return JSON.stringify(txn).slice(0, 400);
}

function findCycle(txns, final, writers, place) {
    const wrong = [];
    const edges = txns.map(() => []);
    const add = (from, to, kind) => {
        if (from !== to) edges[from].push({ to, kind });
    };
    for (const list of final.values()) {
        for (let i = 1; i < list.length; i++) {
            add(writers.get(list[i - 1]), writers.get(list[i]), 'ww');
        }
    }
    txns.forEach((txn, index) => {
        if (txn.outcome === 'fail') return;
        for (const op of txn.ops) {
            if (op.read === undefined || op.others === undefined) continue;
            const list = final.get(op.key) ?? [];
            const size = op.others.length;
            if (size > 0) {
                const writer = writers.get(list[size - 1]);
                add(writer, index, 'wr');
                if (writer !== index && size < list.length && writers.get(list[size]) === writer) {
                    wrong.push(`in the midst of another (G1b): ${show(txn)}`);
                }
            }
            if (size < list.length) add(index, writers.get(list[size]), 'rw');
        }
    });
    addTime(txns, edges, place);
    const cycle = cycleIn(edges);
    if (cycle !== null) {
        const steps = cycle
            .filter(({ node }) => node < txns.length)
            .map(({ node, kind }) => `  --${kind}--> ${show(txns[node])}`);
        wrong.push(`a cycle (${nameOf(cycle)}):\n${steps.join('\n')}`);
    }
    return wrong;
}

function nameOf(cycle) {
    const kinds = new Set(cycle.map((step) => step.kind));
    const anti = cycle.filter((step) => step.kind === 'rw').length;
    const real = kinds.has('time') ? ', in real time' : '';
    if (anti === 0) return `${kinds.has('wr') ? 'G1c' : 'G0'}${real}`;
    return `${anti === 1 ? 'G-single' : 'G2'}${real}`;
}

/* Ended before the other began: a chain of moments, one for each end, in the graph; so the edges
 * are few. What is not known to have happened is not there in time, but for its beginning. */
function addTime(txns, edges, place) {
    const happened = (txn) =>
        txn.outcome === 'ok' || txn.ops.some((op) => place.has(op.append ?? null));
    const ends = txns.map((txn, node) => ({ txn, node })).filter(({ txn }) => txn.outcome === 'ok');
    ends.sort((a, b) => a.txn.end - b.txn.end);
    const first = edges.length;
    ends.forEach(({ node }, i) => {
        edges.push(i + 1 < ends.length ? [{ to: first + i + 1, kind: 'time' }] : []);
        edges[node].push({ to: first + i, kind: 'time' });
    });
    txns.forEach((txn, node) => {
        if (!happened(txn) || txn.outcome === 'fail') return;
        let low = 0;
        let high = ends.length;
        while (low < high) {
            const middle = (low + high) >> 1;
            if (ends[middle].txn.end < txn.start) low = middle + 1;
            else high = middle;
        }
        if (low > 0) edges[first + low - 1].push({ to: node, kind: 'time' });
    });
}

/* Depth first, without recursion. Returns [{node, kind}], kind: of the edge that leads to it. */
function cycleIn(edges) {
    const colour = new Uint8Array(edges.length);
    for (let root = 0; root < edges.length; root++) {
        if (colour[root] !== 0) continue;
        const path = [{ node: root, kind: '', at: 0 }];
        colour[root] = 1;
        while (path.length > 0) {
            const top = path[path.length - 1];
            if (top.at === edges[top.node].length) {
                colour[top.node] = 2;
                path.pop();
                continue;
            }
            const { to, kind } = edges[top.node][top.at++];
            if (colour[to] === 1) {
                const from = path.findIndex((step) => step.node === to);
                return [...path.slice(from + 1), { node: to, kind }];
            }
            if (colour[to] === 0) {
                colour[to] = 1;
                path.push({ node: to, kind, at: 0 });
            }
        }
    }
    return null;
}

/* ---- Bank ---- */

/*
 * transfers: {id, from, to, amount, outcome}; ledger: the [id, from, to, amount] that are there;
 * balances: Map in the end; reads: {balances: [...], start, end}. Returns a list of what is wrong.
 */
export function checkBank({ transfers, ledger, balances, reads, accounts, each }) {
    const wrong = [];
    const there = new Map();
    for (const row of ledger) {
        if (there.has(row[0])) wrong.push(`transfer ${row[0]} is there twice`);
        there.set(row[0], row);
    }
    const expected = new Map(accounts.map((account) => [account, each]));
    for (const t of transfers) {
        const row = there.get(t.id);
        if (t.outcome === 'ok' && row === undefined) wrong.push(`lost: ${JSON.stringify(t)}`);
        if (t.outcome === 'fail' && row !== undefined) {
            wrong.push(`failed, but is there: ${JSON.stringify(t)}`);
        }
        if (row === undefined) continue;
        there.delete(t.id);
        if (row[1] !== t.from || row[2] !== t.to || row[3] !== t.amount) {
            wrong.push(`transfer ${row} was ${JSON.stringify(t)}`);
        }
        expected.set(t.from, expected.get(t.from) - t.amount);
        expected.set(t.to, expected.get(t.to) + t.amount);
    }
    for (const id of there.keys()) wrong.push(`transfer ${id} is there, nobody made it`);
    for (const [account, balance] of expected) {
        if (balances.get(account) === balance) continue;
        wrong.push(`account ${account} has ${balances.get(account)}, should have ${balance}`);
    }
    for (const read of reads) {
        const sum = read.balances.reduce((a, b) => a + b, 0);
        if (sum !== each * accounts.length || read.balances.length !== accounts.length) {
            wrong.push(`the total was ${sum}: ${JSON.stringify(read)}`);
        }
        if (read.balances.some((b) => b < 0)) wrong.push(`below zero: ${JSON.stringify(read)}`);
    }
    return wrong;
}
