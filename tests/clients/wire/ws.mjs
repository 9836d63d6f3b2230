/*
 * ws.mjs -- Hrana over WebSockets: the handshake, its versions, streams, cursors, and misbehaviour.
 */
import { assert } from '../lib/check.mjs';
import { wsConnect } from '../lib/ws.mjs';
import { checkError, cond, int, makeBatch, outcomes, table, text, value, wsUrl } from './api.mjs';
import { upTo } from '../lib/sql.mjs';

const bad = 'SELECT * FROM no_table';
const all = ['hrana1', 'hrana2', 'hrana3'];

async function connect(protocols) {
    const answer = await wsConnect(wsUrl, { protocols });
    assert.equal(answer.status, 101, answer.text);
    return answer.ws;
}

/* Runs fn(ws) on a connection that has said hello and has stream 0 open. */
async function withStream(protocol, fn) {
    const ws = await connect([protocol]);
    try {
        assert.equal((await ws.hello()).type, 'hello_ok');
        assert.deepEqual(await ws.ask({ type: 'open_stream', stream_id: 0 }), {
            ok: { type: 'open_stream' },
        });
        await fn(ws);
    } finally {
        ws.destroy();
    }
}

const execute = (sql, more) => ({ type: 'execute', stream_id: 0, stmt: { sql, ...more } });

async function rows(ws, sql, more) {
    const { ok, error } = await ws.ask(execute(sql, more));
    assert.ok(ok, `${sql}: ${JSON.stringify(error)}`);
    return ok.result.rows;
}

/* What the server does with a connection that misbehaves: the code of its close, or "end". */
async function closedWith(fn, protocol = 'hrana3') {
    const ws = await connect([protocol]);
    try {
        await fn(ws);
        for (;;) {
            const event = await ws.next();
            if (event.type === 'close') return event.code;
            if (event.type === 'end') return 'end';
        }
    } finally {
        ws.destroy();
    }
}

const handshake = [
    [
        'a protocol is chosen: the newest that both know',
        async () => {
            for (const [offered, want] of [
                [['hrana1'], 'hrana1'],
                [['hrana2', 'hrana1'], 'hrana2'],
                [['hrana1', 'hrana2', 'hrana3'], 'hrana3'],
                [['hrana3', 'hrana3-protobuf'], 'hrana3-protobuf'],
                [['nonsense', 'hrana2'], 'hrana2'],
            ]) {
                const { status, headers, ws } = await wsConnect(wsUrl, { protocols: offered });
                assert.equal(status, 101);
                assert.equal(headers['sec-websocket-protocol'], want);
                ws.destroy();
            }
        },
    ],
    [
        'without a protocol it is version 1, and none is named',
        async () => {
            const { status, headers, ws } = await wsConnect(wsUrl);
            assert.equal(status, 101);
            assert.equal(headers['sec-websocket-protocol'], undefined);
            assert.equal((await ws.hello()).type, 'hello_ok');
            ws.destroy();
        },
    ],
    [
        'only unknown protocols are 400',
        async () => {
            assert.equal((await wsConnect(wsUrl, { protocols: ['nonsense'] })).status, 400);
        },
    ],
    [
        'a wrong version of WebSocket is refused',
        async () => {
            const headers = { 'sec-websocket-version': '7' };
            const { status } = await wsConnect(wsUrl, { protocols: ['hrana2'], headers });
            assert.ok(status >= 400 && status < 500, String(status));
        },
    ],
    [
        'requests may be sent before the answer to hello',
        async () => {
            for (const protocol of all) {
                const ws = await connect([protocol]);
                ws.text({ type: 'hello', jwt: null });
                ws.send({ type: 'open_stream', stream_id: 3 });
                const id = ws.send({ type: 'execute', stream_id: 3, stmt: { sql: 'SELECT 5' } });
                assert.equal((await ws.json()).type, 'hello_ok');
                const answer = await ws.answer(id);
                assert.deepEqual(answer.ok.result.rows, [[int(5)]], protocol);
                ws.destroy();
            }
        },
    ],
    [
        'hello may come without jwt',
        async () => {
            const ws = await connect(['hrana2']);
            ws.text({ type: 'hello' });
            assert.equal((await ws.json()).type, 'hello_ok');
            ws.destroy();
        },
    ],
    [
        'a second hello is fine from version 2 on',
        async () => {
            for (const protocol of ['hrana2', 'hrana3']) {
                const ws = await connect([protocol]);
                assert.equal((await ws.hello()).type, 'hello_ok');
                assert.equal((await ws.hello()).type, 'hello_ok');
                ws.destroy();
            }
        },
    ],
];

const streams = [
    [
        'execute and batch in all versions',
        async () => {
            for (const protocol of all) {
                await withStream(protocol, async (ws) => {
                    assert.deepEqual(await rows(ws, 'SELECT ?', { args: [text('x')] }), [
                        [text('x')],
                    ]);
                    const batch = makeBatch(['SELECT 1', bad, ['SELECT 2', cond.ok(1)]]);
                    const { ok } = await ws.ask({ type: 'batch', stream_id: 0, batch });
                    assert.equal(outcomes(ok.result), 'ok error skipped');
                });
            }
        },
    ],
    [
        'an error is an answer, and the stream goes on',
        async () => {
            await withStream('hrana2', async (ws) => {
                const { error } = await ws.ask(execute('SELEC'));
                checkError(error);
                assert.deepEqual(await rows(ws, 'SELECT 1'), [[int(1)]]);
            });
        },
    ],
    [
        'requests of a stream are done in their order',
        async () => {
            const name = await table();
            await withStream('hrana3', async (ws) => {
                const insert = (i) => `INSERT INTO ${name}(v) VALUES (${i}) RETURNING id, v`;
                const ids = Array.from({ length: 50 }, (_, i) => ws.send(execute(insert(i))));
                for (const [i, id] of ids.entries()) {
                    const { ok } = await ws.answer(id);
                    assert.deepEqual(ok.result.rows, [[int(i + 1), int(i)]]);
                }
            });
        },
    ],
    [
        'streams of a connection are apart',
        async () => {
            const name = await table();
            await withStream('hrana3', async (ws) => {
                await ws.ask({ type: 'open_stream', stream_id: 1 });
                await rows(ws, 'BEGIN');
                await rows(ws, `INSERT INTO ${name}(v) VALUES (1)`);
                const count = { sql: `SELECT count(*) FROM ${name}` };
                const other = await ws.ask({ type: 'execute', stream_id: 1, stmt: count });
                assert.deepEqual(other.ok.result.rows, [[int(0)]]);
                await rows(ws, 'COMMIT');
                const after = await ws.ask({ type: 'execute', stream_id: 1, stmt: count });
                assert.deepEqual(after.ok.result.rows, [[int(1)]]);
            });
        },
    ],
    [
        'closing a stream, and losing the connection, roll back',
        async () => {
            const name = await table();
            await withStream('hrana2', async (ws) => {
                await rows(ws, 'BEGIN IMMEDIATE');
                await rows(ws, `INSERT INTO ${name}(v) VALUES (1)`);
                assert.ok((await ws.ask({ type: 'close_stream', stream_id: 0 })).ok);
                await ws.ask({ type: 'open_stream', stream_id: 0 });
                await rows(ws, 'BEGIN IMMEDIATE');
                await rows(ws, `INSERT INTO ${name}(v) VALUES (1)`);
            });
            assert.deepEqual(await value(`INSERT INTO ${name}(v) VALUES (2) RETURNING v`), int(2));
            assert.deepEqual(await value(`SELECT count(*) FROM ${name}`), int(1));
        },
    ],
    [
        'a stream that is not open',
        async () => {
            const ws = await connect(['hrana2']);
            await ws.hello();
            const { error, close } = await ws.ask({
                type: 'execute',
                stream_id: 9,
                stmt: { sql: 'SELECT 1' },
            });
            if (error) assert.equal(error.code, 'STREAM_NOT_OPEN');
            else assert.equal(close.code, 1008);
            ws.destroy();
        },
        { sqld: 'the connection is cut without a close' },
    ],
    [
        'describe, sequence and stored SQL from version 2 on',
        async () => {
            for (const protocol of ['hrana2', 'hrana3']) {
                await withStream(protocol, async (ws) => {
                    assert.ok(
                        (await ws.ask({ type: 'store_sql', sql_id: 1, sql: 'SELECT :a AS x' })).ok,
                    );
                    const { ok } = await ws.ask({ type: 'describe', stream_id: 0, sql_id: 1 });
                    assert.deepEqual(ok.result.params, [{ name: ':a' }]);
                    const stmt = { sql_id: 1, named_args: [{ name: 'a', value: int(8) }] };
                    const answer = await ws.ask({ type: 'execute', stream_id: 0, stmt });
                    assert.deepEqual(answer.ok.result.rows, [[int(8)]]);
                    assert.ok(
                        (
                            await ws.ask({
                                type: 'sequence',
                                stream_id: 0,
                                sql: 'SELECT 1; SELECT 2',
                            })
                        ).ok,
                    );
                    assert.ok((await ws.ask({ type: 'close_sql', sql_id: 1 })).ok);
                    assert.ok((await ws.ask({ type: 'close_sql', sql_id: 1 })).ok);
                });
            }
        },
    ],
    [
        'stored SQL belongs to the connection, not to a stream',
        async () => {
            await withStream('hrana2', async (ws) => {
                await ws.ask({ type: 'store_sql', sql_id: 4, sql: 'SELECT 4' });
                await ws.ask({ type: 'open_stream', stream_id: 1 });
                const { ok } = await ws.ask({ type: 'execute', stream_id: 1, stmt: { sql_id: 4 } });
                assert.deepEqual(ok.result.rows, [[int(4)]]);
            });
        },
    ],
    [
        'get_autocommit in version 3',
        async () => {
            await withStream('hrana3', async (ws) => {
                const ask = { type: 'get_autocommit', stream_id: 0 };
                assert.equal((await ws.ask(ask)).ok.is_autocommit, true);
                await rows(ws, 'BEGIN');
                assert.equal((await ws.ask(ask)).ok.is_autocommit, false);
            });
        },
    ],
    [
        'a cursor is fetched in pieces',
        async () => {
            await withStream('hrana3', async (ws) => {
                const sql = `${upTo(25)} SELECT i FROM n`;
                const batch = makeBatch([sql, 'SELEC', 'SELECT 7']);
                assert.ok(
                    (await ws.ask({ type: 'open_cursor', stream_id: 0, cursor_id: 2, batch })).ok,
                );
                const entries = [];
                for (let done = false; !done;) {
                    const { ok } = await ws.ask({
                        type: 'fetch_cursor',
                        cursor_id: 2,
                        max_count: 10,
                    });
                    assert.ok(ok.entries.length <= 10);
                    entries.push(...ok.entries);
                    done = ok.done;
                }
                assert.ok((await ws.ask({ type: 'close_cursor', cursor_id: 2 })).ok);
                const got = entries
                    .filter((e) => e.type === 'row')
                    .map((e) => Number(e.row[0].value));
                assert.deepEqual(got, [...Array.from({ length: 25 }, (_, i) => i + 1), 7]);
                const types = new Set(entries.map((e) => e.type));
                assert.deepEqual([...types].sort(), [
                    'row',
                    'step_begin',
                    'step_end',
                    'step_error',
                ]);
                assert.deepEqual(await rows(ws, 'SELECT 1'), [[int(1)]]);
            });
        },
        { sqld: 'an entry of type replication_index; a syntax error ends the cursor' },
    ],
    [
        'a cursor can be left in the middle',
        async () => {
            await withStream('hrana3', async (ws) => {
                const sql = `${upTo(100000)} SELECT i FROM n`;
                await ws.ask({
                    type: 'open_cursor',
                    stream_id: 0,
                    cursor_id: 1,
                    batch: makeBatch([sql]),
                });
                const { ok } = await ws.ask({ type: 'fetch_cursor', cursor_id: 1, max_count: 5 });
                assert.equal(ok.done, false);
                assert.ok((await ws.ask({ type: 'close_cursor', cursor_id: 1 })).ok);
                assert.deepEqual(await rows(ws, 'SELECT 1'), [[int(1)]]);
            });
        },
    ],
    [
        "numbers of requests and streams are the client's choice",
        async () => {
            const ws = await connect(['hrana3']);
            await ws.hello();
            const id = -2147483648;
            ws.text({
                type: 'request',
                request_id: 2147483647,
                request: { type: 'open_stream', stream_id: id },
            });
            assert.deepEqual(await ws.json(), {
                type: 'response_ok',
                request_id: 2147483647,
                response: { type: 'open_stream' },
            });
            ws.destroy();
        },
    ],
];

const half = Buffer.from([0x22, 0xf0, 0x9f]);
const surrogate = Buffer.from([0x22, 0xed, 0xa0, 0x80, 0x22]);

function twoTexts(ws) {
    ws.frame({ opcode: 1, fin: false, payload: Buffer.from('{') });
    ws.frame({ opcode: 1, payload: Buffer.from('}') });
}

function closeWith(ws, bytes) {
    ws.frame({ opcode: 8, payload: Buffer.from(bytes) });
}

/* The beginning of a frame that says so many bytes will come. */
function claim(ws, length) {
    const head = Buffer.alloc(20);
    head[0] = 0x82;
    head[1] = 0xff;
    head.writeBigUInt64BE(length, 2);
    ws.socket.write(head);
}

const frames = [
    [
        'a ping is answered with its own words',
        async () => {
            const ws = await connect(['hrana2']);
            ws.frame({ opcode: 9, payload: Buffer.from('are you there') });
            const event = await ws.next();
            assert.equal(event.type, 'pong');
            assert.equal(event.data.toString(), 'are you there');
            ws.destroy();
        },
    ],
    [
        'a message may come in fragments, with pings between them',
        async () => {
            const ws = await connect(['hrana2']);
            const hello = Buffer.from(JSON.stringify({ type: 'hello', jwt: null }));
            ws.frame({ fin: false, opcode: 1, payload: hello.subarray(0, 5) });
            ws.frame({ opcode: 9 });
            ws.frame({ fin: false, opcode: 0, payload: hello.subarray(5, 6) });
            ws.frame({ opcode: 0, payload: hello.subarray(6) });
            let event = await ws.next();
            if (event.type === 'pong') event = await ws.next();
            assert.equal(JSON.parse(event.data).type, 'hello_ok');
            ws.destroy();
        },
    ],
    [
        'a close is answered with a close',
        async () => {
            const code = await closedWith((ws) => ws.close(1000));
            assert.equal(code, 1000);
        },
        { sqld: 'the connection is cut without a close' },
    ],
    [
        'a message of 1 MB goes both ways',
        async () => {
            await withStream('hrana3', async (ws) => {
                const long = 'x'.repeat(1 << 20);
                assert.deepEqual(await rows(ws, 'SELECT ?', { args: [text(long)] }), [
                    [text(long)],
                ]);
            });
        },
    ],
    [
        'JSON that is none: 1007',
        async () => {
            assert.equal(await closedWith((ws) => ws.text('{')), 1007);
            assert.equal(await closedWith((ws) => ws.text('{"type":"dance"}')), 1007);
            assert.equal(await closedWith((ws) => ws.text('[]')), 1007);
        },
    ],
    [
        'the wrong kind of message: 1003',
        async () => {
            assert.equal(await closedWith((ws) => ws.binary(Buffer.from([1]))), 1003);
            assert.equal(await closedWith((ws) => ws.text('{}'), 'hrana3-protobuf'), 1003);
        },
    ],
    [
        'a request before hello: 1008',
        async () => {
            const code = await closedWith((ws) => ws.send({ type: 'open_stream', stream_id: 0 }));
            assert.equal(code, 1008);
        },
    ],
    [
        'a second hello in version 1: 1008',
        async () => {
            const code = await closedWith(async (ws) => {
                await ws.hello();
                ws.text({ type: 'hello', jwt: null });
            }, 'hrana1');
            assert.equal(code, 1008);
        },
    ],
    [
        'requests of later versions are not taken in earlier ones',
        async () => {
            for (const [protocol, request] of [
                ['hrana1', { type: 'describe', stream_id: 0, sql: 'SELECT 1' }],
                [
                    'hrana2',
                    { type: 'open_cursor', stream_id: 0, cursor_id: 0, batch: makeBatch([]) },
                ],
            ]) {
                const code = await closedWith(async (ws) => {
                    await ws.hello();
                    ws.send({ type: 'open_stream', stream_id: 0 });
                    ws.send(request);
                }, protocol);
                assert.ok([1007, 1008].includes(code), `${protocol}: ${code}`);
            }
        },
        { sqld: 'the connection is cut without a close' },
    ],
    [
        'a stream that is opened twice: 1008',
        async () => {
            const code = await closedWith(async (ws) => {
                await ws.hello();
                ws.send({ type: 'open_stream', stream_id: 0 });
                ws.send({ type: 'open_stream', stream_id: 0 });
            });
            assert.equal(code, 1008);
        },
        { sqld: 'the connection is cut without a close' },
    ],
    [
        'a condition that looks ahead ends the connection',
        async () => {
            const code = await closedWith(async (ws) => {
                await ws.hello();
                ws.send({ type: 'open_stream', stream_id: 0 });
                const batch = makeBatch([['SELECT 1', cond.ok(0)]]);
                ws.send({ type: 'batch', stream_id: 0, batch });
            });
            assert.ok([1007, 1008].includes(code), String(code));
        },
        { sqld: 'the connection is cut without a close' },
    ],
    [
        'frames against the protocol end the connection',
        async () => {
            for (const frame of [
                { opcode: 1, payload: Buffer.from('{}'), masked: false },
                { opcode: 1, payload: Buffer.from('{}'), rsv: 4 },
                { opcode: 3 },
                { opcode: 0, payload: Buffer.from('x') },
                { opcode: 9, fin: false },
                { opcode: 9, payload: Buffer.alloc(126) },
            ]) {
                const code = await closedWith((ws) => ws.frame(frame));
                assert.ok([1002, 'end'].includes(code), `${JSON.stringify(frame)}: ${code}`);
            }
        },
    ],
    [
        'a text that is no UTF-8 ends the connection',
        async () => {
            const code = await closedWith((ws) =>
                ws.frame({ opcode: 1, payload: Buffer.from([0x22, 0xff, 0x22]) }),
            );
            assert.ok([1007, 'end'].includes(code), String(code));
        },
    ],
    [
        'a character may be cut in two by fragments',
        async () => {
            await withStream('hrana3', async (ws) => {
                const request = { ...execute('SELECT ?', { args: [text('\u{1f600}')] }) };
                const bytes = Buffer.from(
                    JSON.stringify({ type: 'request', request_id: 77, request }),
                );
                const at = bytes.indexOf(0xf0) + 2;
                ws.frame({ fin: false, opcode: 1, payload: bytes.subarray(0, at) });
                ws.frame({ opcode: 9, payload: Buffer.alloc(125, 1) });
                ws.frame({ fin: false, opcode: 0 });
                ws.frame({ opcode: 0, payload: bytes.subarray(at) });
                const pong = await ws.next();
                assert.equal(pong.type, 'pong');
                assert.equal(pong.data.length, 125);
                const { response } = await ws.json();
                assert.deepEqual(response.result.rows, [[text('\u{1f600}')]]);
            });
        },
    ],
    [
        'corners of RFC 6455 end with the code that it names',
        async () => {
            const wrong = [
                ['reserved bit 2', (ws) => ws.frame({ opcode: 1, rsv: 2 }), 1002],
                ['reserved bit 3', (ws) => ws.frame({ opcode: 2, rsv: 1 }), 1002],
                ['a reserved bit of a ping', (ws) => ws.frame({ opcode: 9, rsv: 4 }), 1002],
                ['reserved opcode 7', (ws) => ws.frame({ opcode: 7 }), 1002],
                ['reserved opcode 11', (ws) => ws.frame({ opcode: 11 }), 1002],
                ['a new text inside of another', twoTexts, 1002],
                ['a close in fragments', (ws) => ws.frame({ opcode: 8, fin: false }), 1002],
                ['a close of 1 byte', (ws) => closeWith(ws, [3]), 1002],
                ['a close with 1005', (ws) => ws.close(1005), 1002],
                ['a close with 999', (ws) => ws.close(999), 1002],
                ['a close with 1015', (ws) => ws.close(1015), 1002],
                ['a close with 5000', (ws) => ws.close(5000), 1002],
                ['a close with a bad text', (ws) => closeWith(ws, [3, 232, 0xff]), 1007],
                ['an empty close', (ws) => closeWith(ws, []), 1005],
                ['a close with 4000', (ws) => ws.close(4000), 4000],
                ['half a character', (ws) => ws.frame({ opcode: 1, payload: half }), 1007],
                ['a surrogate', (ws) => ws.frame({ opcode: 1, payload: surrogate }), 1007],
                ['a length above 2^63', (ws) => claim(ws, 2n ** 63n + 1n), 1002],
                ['a length of 1 TB', (ws) => claim(ws, 2n ** 40n), 1009],
            ];
            for (const [what, fn, want] of wrong) {
                const code = await closedWith(fn).catch((error) => error.message);
                assert.equal(code, want, what);
            }
        },
        { sqld: 'the connection is cut without a close' },
    ],
    [
        'connections that are cut off do no harm',
        async () => {
            for (let i = 0; i < 20; i++) {
                const ws = await connect(['hrana3']);
                ws.text({ type: 'hello', jwt: null });
                ws.send({ type: 'open_stream', stream_id: 0 });
                ws.send(execute('SELECT 1'));
                ws.destroy();
            }
            assert.deepEqual(await value('SELECT 1'), int(1));
        },
    ],
];

export default [...handshake, ...streams, ...frames];
