/*
 * protobuf.mjs -- version 3 in protobuf, by field numbers: pipeline, cursor, WebSocket.
 */
import { assert } from '../lib/check.mjs';
import { delimited, fields, message, unzigzag, zigzag } from '../lib/proto.mjs';
import { wsConnect } from '../lib/ws.mjs';
import { post, table, value, int, wsUrl } from './api.mjs';

const type = { 'content-type': 'application/x-protobuf' };
const inside = (fn) => (bytes) => fn(fields(bytes));

/* Values: 1 null, 2 integer, 3 float, 4 text, 5 blob. */
const values = {
    null: message([1, '']),
    int: (n) => message([2, zigzag(n)]),
    float: (n) => message([3, n]),
    text: (s) => message([4, s]),
    blob: (b) => message([5, b]),
};
const readValue = inside((f) => {
    if (f[1]) return null;
    if (f[2]) return unzigzag(f[2][0]);
    if (f[3]) return f[3][0];
    if (f[4]) return f[4][0].toString();
    if (f[5]) return f[5][0];
    throw new Error('a value of no type');
});
const readRow = inside((f) => (f[1] ?? []).map(readValue));

/* StmtResult: 1 cols {1 name, 2 decltype}, 2 rows, 3 affected, 4 rowid. */
const readResult = inside((f) => ({
    cols: (f[1] ?? []).map(inside((c) => [c[1]?.[0].toString(), c[2]?.[0].toString()])),
    rows: (f[2] ?? []).map(readRow),
    affected: f[3]?.[0] ?? 0n,
    rowid: f[4] ? unzigzag(f[4][0]) : null,
}));
const readError = inside((f) => ({ message: f[1][0].toString(), code: f[2]?.[0].toString() }));

const stmt = (sql, args = [], more = []) => message([1, sql], ...args.map((a) => [3, a]), ...more);
/* Stream requests: 1 close, 2 execute, 3 batch, 4 sequence, 5 describe, 6 store_sql, 7 close_sql,
 * 8 get_autocommit. */
const request = (number, body = '') => message([number, body]);
const execute = (sql, args, more) => request(2, message([1, stmt(sql, args, more)]));
const close = request(1);

async function pipeline(requests, baton) {
    const body = message(...(baton ? [[1, baton]] : []), ...requests.map((r) => [2, r]));
    const answer = await post('/v3-protobuf/pipeline', body, type);
    assert.equal(answer.status, 200, answer.text);
    const f = fields(answer.bytes);
    return {
        baton: f[1]?.[0].toString() || null,
        results: (f[3] ?? []).map(
            inside((r) => (r[1] ? { ok: fields(r[1][0]) } : { error: readError(r[2][0]) })),
        ),
    };
}

/* The result of one execute. */
async function run(sql, args, more) {
    const { results } = await pipeline([execute(sql, args, more), close]);
    assert.ok(results[0].ok, JSON.stringify(results[0].error));
    return readResult(fields(results[0].ok[2][0])[1][0]);
}

const http = [
    [
        'protobuf: a result',
        async () => {
            const { cols, rows, affected, rowid } = await run("SELECT 1 AS a, 'x' AS b");
            assert.deepEqual(
                cols.map(([name]) => name),
                ['a', 'b'],
            );
            assert.deepEqual(rows, [[1n, 'x']]);
            assert.deepEqual([affected, rowid], [0n, null]);
        },
    ],
    [
        'protobuf: values go both ways',
        async () => {
            const numbers = [0n, -1n, 9223372036854775807n, -9223372036854775808n];
            for (const n of numbers)
                assert.deepEqual((await run('SELECT ?', [values.int(n)])).rows, [[n]]);
            for (const x of [0.5, -0, 1e308, Infinity, -Infinity]) {
                assert.ok(
                    Object.is((await run('SELECT ?', [values.float(x)])).rows[0][0] + 0, x + 0),
                    String(x),
                );
            }
            for (const s of ['', 'Ω', 'a\0b'])
                assert.deepEqual((await run('SELECT ?', [values.text(s)])).rows, [[s]]);
            for (const b of ['', '\0\xff']) {
                const bytes = Buffer.from(b, 'latin1');
                assert.deepEqual((await run('SELECT ?', [values.blob(bytes)])).rows, [[bytes]]);
            }
            assert.deepEqual((await run('SELECT ?', [values.null])).rows, [[null]]);
        },
    ],
    [
        'protobuf: NaN is bound as null',
        async () => {
            assert.deepEqual((await run('SELECT ?', [values.float(NaN)])).rows, [[null]]);
        },
    ],
    [
        'protobuf: named arguments and want_rows',
        async () => {
            const named = message([1, 'a'], [2, values.int(7n)]);
            assert.deepEqual((await run('SELECT :a', [], [[4, named]])).rows, [[7n]]);
        },
    ],
    [
        'protobuf: counts',
        async () => {
            const name = await table();
            const { affected, rowid } = await run(`INSERT INTO ${name}(id) VALUES (-5)`);
            assert.deepEqual([affected, rowid], [1n, -5n]);
        },
    ],
    [
        'protobuf: errors',
        async () => {
            const { results } = await pipeline([execute('SELEC'), execute('SELECT 1'), close]);
            assert.equal(typeof results[0].error.code, 'string');
            assert.ok(results[1].ok && results[2].ok);
        },
    ],
    [
        'protobuf: a transaction over batons',
        async () => {
            const name = await table();
            const first = await pipeline([execute('BEGIN')]);
            assert.ok(first.baton);
            const second = await pipeline(
                [execute(`INSERT INTO ${name}(v) VALUES (1)`), request(8)],
                first.baton,
            );
            assert.deepEqual(fields(second.results[1].ok[8][0])[1]?.[0] ?? 0n, 0n);
            await pipeline([execute('COMMIT'), close], second.baton);
            assert.deepEqual(await value(`SELECT count(*) FROM ${name}`), int(1));
        },
    ],
    [
        'protobuf: a batch with conditions',
        async () => {
            const ok = (step) => message([1, BigInt(step)]);
            const step = (sql, condition) =>
                message(...(condition ? [[1, condition]] : []), [2, stmt(sql)]);
            const not = (inner) => message([3, inner]);
            const and = (...list) => message([4, message(...list.map((c) => [1, c]))]);
            const steps = [
                step('SELECT 1'),
                step('SELECT * FROM no_table'),
                step('SELECT 3', ok(1)),
                step('SELECT 4', not(ok(1))),
                step('SELECT 5', and(ok(0), not(ok(1)), message([6, '']))),
            ];
            const batch = message(...steps.map((s) => [1, s]));
            const { results } = await pipeline([request(3, message([1, batch])), close]);
            const result = fields(fields(results[0].ok[3][0])[1][0]);
            const keys = (list) => (list ?? []).map(inside((f) => Number(f[1]?.[0] ?? 0n))).sort();
            assert.deepEqual(keys(result[1]), [0, 3, 4]);
            assert.deepEqual(keys(result[2]), [1]);
        },
    ],
    [
        'protobuf: describe, sequence, stored SQL',
        async () => {
            const { results } = await pipeline([
                request(6, message([1, 1n], [2, 'SELECT :a AS x'])),
                request(5, message([2, 1n])),
                request(4, message([1, 'SELECT 1; SELECT 2'])),
                request(7, message([1, 1n])),
                close,
            ]);
            assert.ok(
                results.every((r) => r.ok),
                JSON.stringify(results.map((r) => r.error)),
            );
            const described = fields(fields(results[1].ok[5][0])[1][0]);
            assert.equal(fields(described[1][0])[1][0].toString(), ':a');
            assert.equal(described[4][0], 1n);
        },
    ],
    [
        'protobuf: a cursor',
        async () => {
            const batch = message([1, message([2, stmt("SELECT 5 AS a, 'x' AS b")])]);
            const answer = await post('/v3-protobuf/cursor', message([2, batch]), type);
            assert.equal(answer.status, 200);
            const [head, ...entries] = delimited(answer.bytes).map((bytes) => fields(bytes));
            assert.ok(head[1][0].length > 0);
            assert.deepEqual(
                entries.map((e) => Object.keys(e)[0]),
                ['1', '4', '2'],
            );
            assert.deepEqual(readRow(entries[1][4][0]), [5n, 'x']);
        },
        { sqld: 'an entry that the protocol does not have' },
    ],
    [
        'protobuf: what cannot be read is 400',
        async () => {
            for (const bytes of ['\x0a', '\xff\xff\xff\xff', '\x12\x05ab']) {
                const answer = await post(
                    '/v3-protobuf/pipeline',
                    Buffer.from(bytes, 'latin1'),
                    type,
                );
                assert.equal(answer.status, 400, answer.text);
            }
        },
    ],
];

async function protobufStream(fn) {
    const { ws } = await wsConnect(wsUrl, { protocols: ['hrana3-protobuf'] });
    const next = async () => {
        const event = await ws.next();
        assert.equal(event.type, 'binary', JSON.stringify(event));
        return fields(event.data);
    };
    try {
        ws.binary(message([1, message()]));
        assert.ok((await next())[1], 'hello_ok');
        let id = 0n;
        await fn(async (number, body) => {
            ws.binary(message([2, message([1, ++id], [number, body])]));
            const answer = await next();
            const inner = fields((answer[3] ?? answer[4])[0]);
            assert.equal(inner[1][0], id);
            return answer[3] ? { ok: fields(inner[number][0]) } : { error: readError(inner[2][0]) };
        });
    } finally {
        ws.destroy();
    }
}

const ws = [
    [
        'protobuf: execute over a WebSocket',
        async () => {
            await protobufStream(async (ask) => {
                assert.ok((await ask(2, message([1, 5n]))).ok);
                const { ok } = await ask(
                    4,
                    message([1, 5n], [2, stmt('SELECT ?', [values.text('x')])]),
                );
                assert.deepEqual(readResult(ok[1][0]).rows, [['x']]);
                const { error } = await ask(4, message([1, 5n], [2, stmt('SELEC')]));
                assert.equal(typeof error.code, 'string');
                assert.ok((await ask(3, message([1, 5n]))).ok);
            });
        },
    ],
    [
        'protobuf: a cursor over a WebSocket',
        async () => {
            await protobufStream(async (ask) => {
                await ask(2, message([1, 1n]));
                const batch = message([1, message([2, stmt('VALUES (1), (2), (3)')])]);
                assert.ok((await ask(6, message([1, 1n], [2, 1n], [3, batch]))).ok);
                const { ok } = await ask(8, message([1, 1n], [2, 100n]));
                assert.deepEqual(
                    ok[1].map((bytes) => Object.keys(fields(bytes))[0]),
                    ['1', '4', '4', '4', '2'],
                );
                assert.equal(ok[2][0], 1n);
                assert.ok((await ask(7, message([1, 1n]))).ok);
            });
        },
        { sqld: 'an entry that the protocol does not have' },
    ],
    [
        'protobuf: nonsense over a WebSocket: 1007',
        async () => {
            const { ws: conn } = await wsConnect(wsUrl, { protocols: ['hrana3-protobuf'] });
            conn.binary(Buffer.from([0x0a, 0x50]));
            const event = await conn.next();
            assert.deepEqual([event.type, event.code], ['close', 1007]);
            conn.destroy();
        },
    ],
];

export default [...http, ...ws];
