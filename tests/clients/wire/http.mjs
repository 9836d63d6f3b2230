/*
 * http.mjs -- routes, bodies, headers: what is HTTP rather than Hrana.
 */
import zlib from 'node:zlib';
import { assert } from '../lib/check.mjs';
import { rawExchange, request } from '../lib/http.mjs';
import {
    checkFailure,
    close,
    execute,
    good,
    int,
    pipeline,
    post,
    text,
    unique,
    url,
    value,
} from './api.mjs';

const get = (path, headers) => request(url, { method: 'GET', path, headers });
const select = (what) => JSON.stringify({ requests: [execute(`SELECT ${what}`), close] });
const textual = { sqld: 'protocol errors are text/plain, or {"error"} alone' };

function raw(path, body, headers = []) {
    const head = [`POST ${path} HTTP/1.1`, `host: ${new URL(url).host}`, ...headers];
    return `${head.join('\r\n')}\r\ncontent-length: ${Buffer.byteLength(body)}\r\n\r\n${body}`;
}

async function stillAnswers() {
    assert.deepEqual(await value('SELECT 1'), int(1));
}

export default [
    [
        'GET /health is 200 without a body',
        async () => {
            const answer = await get('/health');
            assert.equal(answer.status, 200);
            assert.equal(answer.text, '');
        },
    ],
    [
        'GET /version says who it is',
        async () => {
            const answer = await get('/version');
            assert.equal(answer.status, 200);
            assert.match(answer.headers['content-type'], /^text\/plain/);
            assert.match(answer.text, /\S+ .*\d/);
        },
        { sqld: 'no type' },
    ],
    [
        'GET /v1, /v2, /v3 and /v3-protobuf say that the version is there',
        async () => {
            for (const path of ['/v1', '/v2', '/v3', '/v3-protobuf']) {
                assert.equal((await get(path)).status, 200, path);
            }
        },
    ],
    [
        'unknown paths are 404',
        async () => {
            for (const path of [
                '/',
                '/nope',
                '/v4',
                '/v2/pipelines',
                '/v2/cursor',
                '/v3/pipeline/x',
            ]) {
                assert.equal((await get(path)).status, 404, path);
            }
            assert.equal((await post('/v4/pipeline', { requests: [] })).status, 404);
        },
    ],
    [
        'the wrong method is refused',
        async () => {
            for (const method of ['GET', 'PUT', 'DELETE']) {
                const answer = await request(url, {
                    method,
                    path: '/v2/pipeline',
                    body: { requests: [] },
                });
                assert.ok([404, 405].includes(answer.status), `${method}: ${answer.status}`);
            }
        },
    ],
    [
        'a browser of any origin may ask',
        async () => {
            const answer = await request(url, {
                method: 'OPTIONS',
                path: '/v2/pipeline',
                headers: {
                    origin: 'https://example.org',
                    'access-control-request-method': 'POST',
                    'access-control-request-headers': 'authorization,content-type',
                },
            });
            assert.ok([200, 204].includes(answer.status));
            const allowed = answer.headers['access-control-allow-origin'];
            assert.ok(['*', 'https://example.org'].includes(allowed), allowed);
            assert.match(answer.headers['access-control-allow-methods'], /POST|\*/);
            assert.match(answer.headers['access-control-allow-headers'], /authorization|\*/i);
            const actual = await post(
                '/v2/pipeline',
                { requests: [] },
                { origin: 'https://example.org' },
            );
            assert.ok(actual.headers['access-control-allow-origin']);
        },
    ],
    [
        'an answer is JSON with exactly that type',
        async () => {
            const answer = await good([execute('SELECT 1'), close]);
            assert.equal(answer.headers['content-type'], 'application/json');
        },
    ],
    [
        'an answer is compressed if asked',
        async () => {
            const sql = 'SELECT hex(zeroblob(20000))';
            const answer = await pipeline([execute(sql), close], {
                headers: { 'accept-encoding': 'gzip' },
            });
            assert.equal(answer.status, 200);
            assert.equal(answer.headers['content-encoding'], 'gzip');
            const plain = zlib.gunzipSync(answer.bytes);
            const rows = JSON.parse(plain).results[0].response.result.rows;
            assert.equal(rows[0][0].value, '0'.repeat(40000));
            assert.ok(answer.bytes.length < 4000, `${answer.bytes.length} bytes`);
        },
    ],
    [
        'the type of the body does not matter',
        async () => {
            for (const type of [
                'text/plain',
                'application/x-www-form-urlencoded',
                'nonsense',
                null,
            ]) {
                const headers = type ? { 'content-type': type } : {};
                const answer = await post('/v2/pipeline', select('7'), headers);
                assert.equal(answer.status, 200, `${type}: ${answer.text}`);
            }
        },
    ],
    [
        'a body may come in chunks',
        async () => {
            const body = select("'chunk'");
            const chunks = [body.slice(0, 9), body.slice(9, 10), body.slice(10)];
            const answer = await request(url, { path: '/v2/pipeline', chunks });
            assert.equal(answer.status, 200);
            assert.equal(answer.json.results[0].response.result.rows[0][0].value, 'chunk');
        },
    ],
    [
        'Expect: 100-continue is answered before the body',
        async () => {
            const body = select('1');
            const whole = raw('/v2/pipeline', body, ['expect: 100-continue', 'connection: close']);
            const head = whole.slice(0, whole.length - body.length);
            const first = await rawExchange(url, head, {
                until: (got) => got.includes('\r\n\r\n'),
            });
            assert.match(first, /^HTTP\/1\.1 100 /);
            const all = await rawExchange(url, whole);
            assert.match(all, /HTTP\/1\.1 200 /);
        },
    ],
    [
        'requests may follow each other on a connection without waiting',
        async () => {
            const bytes = [1, 2, 3]
                .map((i) => raw('/v2/pipeline', select(`'number ${i}'`)))
                .join('');
            const got = await rawExchange(url, bytes, { until: (all) => all.includes('number 3') });
            assert.equal(got.match(/HTTP\/1\.1 200 /g).length, 3);
            assert.ok(got.indexOf('number 1') < got.indexOf('number 2'));
        },
    ],
    [
        'a client of HTTP/1.0 is answered',
        async () => {
            const body = select('1');
            const bytes = raw('/v2/pipeline', body).replace('HTTP/1.1', 'HTTP/1.0');
            const got = await rawExchange(url, bytes, { until: (all) => all.includes('results') });
            assert.match(got, /^HTTP\/1\.[01] 200 /);
        },
    ],
    [
        'headers split into single bytes are read',
        async () => {
            const body = select('1');
            const bytes = raw('/v2/pipeline', body, ['connection: close']);
            const got = await rawExchange(url, bytes);
            assert.match(got, /^HTTP\/1\.1 200 /);
        },
    ],
    [
        'unknown headers and a query string do no harm',
        async () => {
            const headers = {
                'x-turso-encryption-key': 'AAAA',
                'x-whatever': 'ü',
                'user-agent': '',
            };
            const answer = await post('/v2/pipeline?x=1', select('1'), headers);
            assert.equal(answer.status, 200);
        },
    ],
    [
        'bodies that are no requests are 400',
        async () => {
            const bodies = [
                '',
                '{',
                'null',
                '[]',
                '"x"',
                '5',
                '{}',
                '{"requests":5}',
                '{"requests":[5]}',
            ];
            bodies.push(
                '{"requests":[{}]}',
                '{"requests":[{"type":"dance"}]}',
                '{"requests":[]} x',
            );
            bodies.push('{"requests":[{"type":"execute"}]}', '{"baton":5,"requests":[]}');
            bodies.push('{"requests":[{"type":"execute","stmt":{"sql":5}}]}');
            bodies.push('{"requests":[{"type":"execute","stmt":{"sql":"SELECT ?","args":[5]}}]}');
            bodies.push(
                '{"requests":[{"type":"execute","stmt":{"sql":"SELECT ?","args":[{"type":"x"}]}}]}',
            );
            for (const body of bodies) {
                for (const version of ['v2', 'v3']) {
                    const answer = await post(`/${version}/pipeline`, body);
                    assert.equal(answer.status, 400, `${body}: ${answer.status} ${answer.text}`);
                }
            }
        },
    ],
    [
        'a failed request is answered with {message, code, error}',
        async () => {
            checkFailure(await post('/v2/pipeline', '{'), 400);
            checkFailure(await post('/v3/pipeline', '{"requests":[{"type":"dance"}]}'), 400);
            checkFailure(await post('/v3/cursor', '{"batch":5}'), 400);
            checkFailure(await pipeline([close], { baton: 'forged' }), 400, 404, 410);
            checkFailure(await post('/v1/execute', '{'), 400);
        },
        textual,
    ],
    [
        'deep JSON is refused, and nothing falls over',
        async () => {
            for (const depth of [200, 100000]) {
                const deep =
                    '{"type":"not","cond":'.repeat(depth) +
                    '{"type":"ok","step":0}' +
                    '}'.repeat(depth);
                const body = `{"requests":[{"type":"batch","batch":{"steps":[
                    {"stmt":{"sql":"SELECT 1"}},
                {"condition":${deep},"stmt":{"sql":"SELECT 2"}}]}}]}`;
                const answer = await post('/v3/pipeline', body);
                assert.ok([400, 413].includes(answer.status), `${depth}: ${answer.status}`);
            }
            const arrays = '['.repeat(200000);
            const wide = await post('/v3/pipeline', `{"x":${arrays}`);
            assert.ok([400, 413].includes(wide.status), String(wide.status));
            await stillAnswers();
        },
    ],
    [
        'a parameter of 3 MB comes back',
        async () => {
            const long = 'sluice '.repeat(430000);
            assert.equal((await value('SELECT ?', [text(long)])).value, long);
        },
    ],
    [
        'a huge header ends the request only',
        async () => {
            const headers = [`x-long: ${'x'.repeat(1 << 20)}`];
            const got = await rawExchange(url, raw('/v2/pipeline', select('1'), headers)).catch(
                () => '',
            );
            assert.ok(got === '' || /^HTTP\/1\.1 4\d\d /.test(got), got.slice(0, 80));
            await stillAnswers();
        },
    ],
    [
        'nonsense instead of HTTP ends the connection only',
        async () => {
            for (const bytes of [
                '\x00\x01\x02\r\n\r\n',
                'GET\r\n\r\n',
                'POST / HTTP/9.9\r\n\r\n',
            ]) {
                await rawExchange(url, bytes, { timeout: 500 }).catch(() => '');
            }
            await stillAnswers();
        },
    ],
    [
        'a client that vanishes in the middle of its body does no harm',
        async () => {
            const bytes = raw('/v2/pipeline', select('1'));
            const until = () => true;
            for (let cut = 1; cut < bytes.length; cut += 37) {
                await rawExchange(url, bytes.slice(0, cut), { until, timeout: 5 }).catch(() => '');
            }
            await stillAnswers();
        },
    ],
    [
        'Server-Timing, if there is one, is a valid header',
        async () => {
            const answer = await good([execute('SELECT 1'), close]);
            const timing = answer.headers['server-timing'];
            if (timing === undefined) return;
            const metric = /^[!#$%&'*+.^_`|~\w-]+(;(dur=[\d.]+|desc=("[ -~]*"|[\w-]+)))*$/;
            for (const part of timing.split(',')) assert.match(part.trim(), metric);
        },
        { sqld: 'a unit and a byte that is not ASCII in it, and a comma at its end' },
    ],
    [
        'GET /dump is a script that makes the same tables',
        async () => {
            const name = unique('dump');
            const rows = "(1, 'a''b'), (2, NULL), (3, x'00ff'), (4, 1.5), (5, 9223372036854775807)";
            await good([
                execute(`CREATE TABLE ${name}(id INTEGER PRIMARY KEY, v)`),
                execute(`INSERT INTO ${name} VALUES ${rows}`),
                execute(`CREATE INDEX ${name}_i ON ${name}(v)`),
                close,
            ]);
            const answer = await get('/dump');
            assert.equal(answer.status, 200);
            assert.match(answer.text, /^PRAGMA foreign_keys=OFF;\s+BEGIN TRANSACTION;/);
            assert.match(answer.text, /COMMIT;\s*$/);
            assert.match(
                answer.text,
                new RegExp(`CREATE TABLE( IF NOT EXISTS)? "?${name}"?\\s*\\(`),
            );
            assert.match(answer.text, new RegExp(`CREATE INDEX "?${name}_i"?`));
            const want = ["1,'a''b'", '2,NULL', "3,X'00ff'", '4,1.5', '5,9223372036854775807'];
            for (const row of want) {
                assert.ok(answer.text.toLowerCase().includes(`values(${row})`.toLowerCase()), row);
            }
        },
    ],
];
