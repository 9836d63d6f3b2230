/*
 * access.mjs -- tokens, tenants and the administrator's API, against a second server.
 *
 * ACCESS_URL, ACCESS_ADMIN_URL: a server that asks for tokens signed with the Ed25519 key in the
 * file ACCESS_KEY, has several tenants, and takes ACCESS_ADMIN_KEY from its administrator.
 */
import crypto from 'node:crypto';
import { readFileSync } from 'node:fs';
import { assert, skip } from '../lib/check.mjs';
import { request } from '../lib/http.mjs';
import { wsConnect } from '../lib/ws.mjs';
import { close, execute, int, sleep, unique } from './api.mjs';

const { ACCESS_URL: url, ACCESS_ADMIN_URL: adminUrl, ACCESS_ADMIN_KEY: adminKey } = process.env;
const now = () => Math.floor(Date.now() / 1000);
const base64url = (data) => Buffer.from(data).toString('base64url');

let privateKey;
function token(claims, key, header = { alg: 'EdDSA', typ: 'JWT' }) {
    if (!url) skip('no server that asks for tokens');
    privateKey ??= crypto.createPrivateKey(readFileSync(process.env.ACCESS_KEY));
    const head = `${base64url(JSON.stringify(header))}.${base64url(JSON.stringify(claims))}`;
    return `${head}.${base64url(crypto.sign(null, Buffer.from(head), key ?? privateKey))}`;
}

/* One statement for a tenant. `auth`: the whole header, a token, or null for none. */
async function ask(
    sql,
    { auth = token({}), host = 'localhost', path = '/v2/pipeline', headers = {} } = {},
) {
    if (!url) skip('no server that asks for tokens');
    const sent = { host, ...headers };
    if (auth !== null)
        sent.authorization = auth.includes(' ') || auth === '' ? auth : `Bearer ${auth}`;
    const body = { requests: [execute(sql), close] };
    const answer = await request(url, { path, body, headers: sent });
    return { ...answer, result: answer.json?.results?.[0] };
}

async function works(sql, options) {
    const answer = await ask(sql, options);
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.result.type, 'ok', answer.text);
    return answer.result.response.result.rows;
}

function admin(method, path, body, headers = {}) {
    if (!adminUrl) skip('no administrator to ask');
    const sent = {
        authorization: `basic ${adminKey}`,
        'content-type': 'application/json',
        ...headers,
    };
    return request(adminUrl, { method, path, headers: sent, body });
}

async function tenant() {
    const name = unique('n').replaceAll('_', '-');
    const answer = await admin('POST', `/v1/namespaces/${name}/create`, {});
    assert.equal(answer.status, 200, answer.text);
    return { name, host: `${name}.localhost` };
}

const tokens = [
    [
        'no token is 401',
        async () => {
            const answer = await ask('SELECT 1', { auth: null });
            assert.equal(answer.status, 401);
            assert.match(answer.json.error, /Expected authorization header but none given/);
        },
    ],
    [
        'a token that is none, or of another key, is 401',
        async () => {
            const other = crypto.generateKeyPairSync('ed25519').privateKey;
            const good = token({});
            const list = [
                'x',
                'a.b.c',
                `${good}x`,
                good.slice(0, -4),
                token({}, other),
                token({}, undefined, { alg: 'none' }),
            ];
            for (const auth of list)
                assert.equal((await ask('SELECT 1', { auth })).status, 401, auth);
        },
    ],
    [
        'a token without signature is 401',
        async () => {
            const head = base64url('{"alg":"none"}');
            assert.equal(
                (await ask('SELECT 1', { auth: `${head}.${base64url('{}')}.` })).status,
                401,
            );
        },
    ],
    [
        'schemes other than Bearer are refused, its letters may be of any case',
        async () => {
            assert.equal((await ask('SELECT 1', { auth: `Digest ${token({})}` })).status, 401);
            await works('SELECT 1', { auth: `bearer ${token({})}` });
            await works('SELECT 1', { auth: `BEARER ${token({})}` });
        },
    ],
    [
        'a token that has expired is 401, with a minute of patience',
        async () => {
            const answer = await ask('SELECT 1', { auth: token({ exp: now() - 120 }) });
            assert.equal(answer.status, 401);
            assert.match(answer.json.error, /expired/);
            await works('SELECT 1', { auth: token({ exp: now() - 20 }) });
            await works('SELECT 1', { auth: token({ exp: now() + 100 }) });
        },
    ],
    [
        'a token may name an audience',
        async () => {
            await works('SELECT 1', { auth: token({ aud: 'us' }) });
        },
        { sqld: 'it is refused' },
    ],
    [
        'a token to read cannot write',
        async () => {
            const auth = token({ a: 'ro' });
            await works('SELECT 1', { auth });
            const name = unique();
            const answer = await ask(`CREATE TABLE ${name}(x)`, { auth });
            const refused = answer.status === 403 || answer.result?.type === 'error';
            assert.ok(refused, answer.text);
            const left = await works(`SELECT count(*) FROM sqlite_schema WHERE name = '${name}'`);
            assert.deepEqual(left, [[int(0)]]);
        },
    ],
    [
        'a token to write writes',
        async () => {
            await works(`CREATE TABLE ${unique()}(x)`, { auth: token({ a: 'rw' }) });
            await works(`CREATE TABLE ${unique()}(x)`, { auth: token({}) });
        },
    ],
    [
        'a token of one tenant is worth nothing for others',
        async () => {
            const [a, b] = [await tenant(), await tenant()];
            const auth = token({ id: a.name });
            await works('SELECT 1', { auth, host: a.host });
            const other = await ask('SELECT 1', { auth, host: b.host });
            const missing = await ask('SELECT 1', { auth, host: 'missing.localhost' });
            assert.equal(other.status, 404);
            assert.equal(missing.status, 404);
            assert.equal(other.json.error.replace(b.name, 'missing'), missing.json.error);
        },
    ],
    [
        'permissions by tenant',
        async () => {
            const [a, b, c] = [await tenant(), await tenant(), await tenant()];
            const auth = token({ p: { ro: { ns: [a.name] }, rw: { ns: [b.name] } } });
            await works('SELECT 1', { auth, host: a.host });
            const written = await ask('CREATE TABLE x(y)', { auth, host: a.host });
            assert.ok(written.status === 403 || written.result?.type === 'error', written.text);
            await works('CREATE TABLE x(y)', { auth, host: b.host });
            assert.equal((await ask('SELECT 1', { auth, host: c.host })).status, 404);
        },
    ],
    [
        '/health and /version need no token',
        async () => {
            if (!url) skip('no server that asks for tokens');
            for (const path of ['/health', '/version']) {
                assert.equal((await request(url, { method: 'GET', path })).status, 200);
            }
        },
    ],
    [
        'all other paths need one',
        async () => {
            if (!url) skip('no server that asks for tokens');
            const body = {
                requests: [],
                statements: ['SELECT 1'],
                stmt: { sql: 'SELECT 1' },
                batch: { steps: [] },
            };
            const headers = { host: 'localhost' };
            for (const path of [
                '/',
                '/v1/execute',
                '/v1/batch',
                '/v2/pipeline',
                '/v3/pipeline',
                '/v3/cursor',
            ]) {
                assert.equal((await request(url, { path, body, headers })).status, 401, path);
            }
            assert.equal(
                (await request(url, { method: 'GET', path: '/dump', headers })).status,
                401,
            );
        },
    ],
];

const sockets = [
    [
        'WebSocket: the token is in hello',
        async () => {
            if (!url) skip('no server that asks for tokens');
            const headers = { host: 'localhost' };
            const { ws } = await wsConnect(url, { protocols: ['hrana2'], headers });
            assert.equal((await ws.hello(token({}))).type, 'hello_ok');
            assert.ok((await ws.ask({ type: 'open_stream', stream_id: 0 })).ok);
            assert.ok(
                (await ws.ask({ type: 'execute', stream_id: 0, stmt: { sql: 'SELECT 1' } })).ok,
            );
            assert.equal((await ws.hello(token({ a: 'ro' }))).type, 'hello_ok');
            ws.destroy();
        },
    ],
    [
        'WebSocket: without a good token it is hello_error and the end',
        async () => {
            if (!url) skip('no server that asks for tokens');
            const headers = { host: 'localhost' };
            for (const jwt of [null, 'x', token({ exp: now() - 1000 })]) {
                const { ws } = await wsConnect(url, { protocols: ['hrana2'], headers });
                const answer = await ws.hello(jwt);
                assert.equal(answer.type, 'hello_error');
                assert.equal(typeof answer.error.message, 'string');
                assert.equal(typeof answer.error.code, 'string');
                assert.ok(['close', 'end'].includes((await ws.next()).type));
                ws.destroy();
            }
        },
    ],
    [
        'WebSocket: a token to read cannot write',
        async () => {
            if (!url) skip('no server that asks for tokens');
            const { ws } = await wsConnect(url, {
                protocols: ['hrana3'],
                headers: { host: 'localhost' },
            });
            assert.equal((await ws.hello(token({ a: 'ro' }))).type, 'hello_ok');
            await ws.ask({ type: 'open_stream', stream_id: 0 });
            const read = await ws.ask({ type: 'execute', stream_id: 0, stmt: { sql: 'SELECT 1' } });
            assert.ok(read.ok);
            const write = await ws.ask({
                type: 'execute',
                stream_id: 0,
                stmt: { sql: `CREATE TABLE ${unique()}(x)` },
            });
            assert.equal(write.ok, undefined);
            ws.destroy();
        },
    ],
];

const tenants = [
    [
        'the first label of the host is the tenant',
        async () => {
            const [a, b] = [await tenant(), await tenant()];
            await works('CREATE TABLE only_here(x)', { host: a.host });
            await works('SELECT * FROM only_here', { host: a.host });
            const other = await ask('SELECT * FROM only_here', { host: b.host });
            assert.equal(other.result.type, 'error');
        },
    ],
    [
        'the path may name the tenant',
        async () => {
            const { name } = await tenant();
            await works('CREATE TABLE only_here(x)', { path: `/dev/${name}/v2/pipeline` });
            await works('SELECT * FROM only_here', { path: `/dev/${name}/v3/pipeline` });
            assert.equal((await ask('SELECT 1', { path: '/dev/missing/v2/pipeline' })).status, 404);
        },
    ],
    [
        'the path may name the tenant for everything',
        async () => {
            const { name } = await tenant();
            const auth = { authorization: `Bearer ${token({})}`, host: 'localhost' };
            await works('CREATE TABLE only_here(x)', { path: `/dev/${name}/v2/pipeline` });
            const batch = { steps: [{ stmt: { sql: 'SELECT * FROM only_here' } }] };
            const under = (path) => `/dev/${name}${path}`;
            const cursor = await request(url, {
                path: under('/v3/cursor'),
                body: { batch },
                headers: auth,
            });
            assert.equal(cursor.status, 200, cursor.text);
            assert.ok(!cursor.text.includes('step_error'), cursor.text);
            const first = await request(url, {
                path: under('/v1/batch'),
                body: { batch },
                headers: auth,
            });
            assert.equal(first.status, 200);
            const dump = await request(url, { method: 'GET', path: under('/dump'), headers: auth });
            assert.match(dump.text, /only_here/);
            const { ws } = await wsConnect(url, {
                protocols: ['hrana2'],
                path: under('/'),
                headers: auth,
            });
            assert.equal((await ws.hello(token({}))).type, 'hello_ok');
            await ws.ask({ type: 'open_stream', stream_id: 0 });
            assert.ok(
                (await ws.ask({ type: 'execute', stream_id: 0, stmt: batch.steps[0].stmt })).ok,
            );
            ws.destroy();
        },
        { sqld: 'pipelines only' },
    ],
    [
        'a header may name the tenant',
        async () => {
            const { name } = await tenant();
            const encoded = Buffer.from(name).toString('base64').replace(/=+$/, '');
            await works('CREATE TABLE only_here(x)', { headers: { 'x-namespace-bin': encoded } });
            await works('SELECT * FROM only_here', { headers: { 'x-namespace-bin': encoded } });
        },
    ],
    [
        'a plain header may name the tenant',
        async () => {
            const { name, host } = await tenant();
            await works('CREATE TABLE only_here(x)', { host });
            await works('SELECT * FROM only_here', { headers: { 'x-namespace': name } });
        },
        { sqld: 'released versions do not look at it' },
    ],
    [
        'a host that is an address means the default tenant',
        async () => {
            const name = unique();
            await works(`CREATE TABLE ${name}(x)`);
            for (const host of ['127.0.0.1', '127.0.0.1:8080', '[::1]:8080']) {
                await works(`SELECT * FROM ${name}`, { host });
            }
        },
        { sqld: 'the tenant "127"' },
    ],
    [
        'an unknown tenant is 404',
        async () => {
            const answer = await ask('SELECT 1', { host: 'missing.localhost' });
            assert.equal(answer.status, 404);
            assert.match(answer.json.error, /Namespace `missing` doesn't exist/);
        },
    ],
    [
        'names that lead out of the folder reach nothing',
        async () => {
            for (const name of [
                '..',
                '.',
                '%2e%2e',
                '%2e%2e%2f%2e%2e',
                'a%2fb',
                'a%00b',
                '-x',
                'x'.repeat(300),
            ]) {
                const read = await ask('SELECT 1', { path: `/dev/${name}/v2/pipeline` });
                assert.ok([400, 404].includes(read.status), `${name}: ${read.status}`);
            }
        },
    ],
];

const administration = [
    [
        'admin: the key is needed',
        async () => {
            for (const authorization of ['', 'basic wrong', 'Bearer', 'basic']) {
                const answer = await admin('GET', '/v1/namespaces/default/config', undefined, {
                    authorization,
                });
                assert.equal(answer.status, 401, authorization);
            }
        },
    ],
    [
        'admin: create, and not twice',
        async () => {
            const { name } = await tenant();
            const again = await admin('POST', `/v1/namespaces/${name}/create`, {});
            assert.equal(again.status, 400);
            assert.match(again.json.error, /already exists/);
        },
    ],
    [
        'admin: delete',
        async () => {
            const { name, host } = await tenant();
            await works('SELECT 1', { host });
            assert.equal((await admin('DELETE', `/v1/namespaces/${name}`)).status, 200);
            assert.equal((await ask('SELECT 1', { host })).status, 404);
            assert.equal((await admin('DELETE', `/v1/namespaces/${name}`)).status, 404);
        },
    ],
    [
        'admin: fork',
        async () => {
            const { name, host } = await tenant();
            await works('CREATE TABLE t AS SELECT 5 AS x', { host });
            const to = `${name}-copy`;
            const answer = await admin('POST', `/v1/namespaces/${name}/fork/${to}`, {});
            assert.equal(answer.status, 200, answer.text);
            assert.deepEqual(await works('SELECT x FROM t', { host: `${to}.localhost` }), [
                [int(5)],
            ]);
            await works('INSERT INTO t VALUES (6)', { host: `${to}.localhost` });
            assert.deepEqual(await works('SELECT count(*) FROM t', { host }), [[int(1)]]);
        },
    ],
    [
        'admin: configuration is read and set',
        async () => {
            const { name, host } = await tenant();
            const path = `/v1/namespaces/${name}/config`;
            const before = (await admin('GET', path)).json;
            assert.deepEqual([before.block_reads, before.block_writes], [false, false]);
            const conf = { block_reads: false, block_writes: true, block_reason: 'closed today' };
            assert.equal((await admin('POST', path, conf)).status, 200);
            const after = (await admin('GET', path)).json;
            assert.deepEqual([after.block_writes, after.block_reason], [true, 'closed today']);
            await works('SELECT 1', { host });
            const { result } = await ask('CREATE TABLE x(y)', { host });
            assert.equal(result.error.code, 'BLOCKED');
            assert.match(result.error.message, /closed today/);
            await admin('POST', path, { block_reads: true, block_writes: true });
            assert.equal((await ask('SELECT 1', { host })).result.error.code, 'BLOCKED');
            await admin('POST', path, { block_reads: false, block_writes: false });
            await works('CREATE TABLE x(y)', { host });
        },
    ],
    [
        'admin: a database has a largest size',
        async () => {
            const name = unique('n').replaceAll('_', '-');
            await admin('POST', `/v1/namespaces/${name}/create`, { max_db_size: '1MB' });
            const host = `${name}.localhost`;
            await works('CREATE TABLE t(x)', { host });
            let result;
            for (let i = 0; i < 20 && result?.type !== 'error'; i++) {
                ({ result } = await ask('INSERT INTO t VALUES (randomblob(100000))', { host }));
            }
            assert.equal(result.error.code, 'SQLITE_FULL');
        },
    ],
    [
        'admin: checkpoint',
        async () => {
            const { name, host } = await tenant();
            await works('CREATE TABLE t(x)', { host });
            const answer = await admin('POST', `/v1/namespaces/${name}/checkpoint`, {});
            assert.equal(answer.status, 200, answer.text);
        },
    ],
    [
        'admin: statistics',
        async () => {
            const { name, host } = await tenant();
            await works('CREATE TABLE t(x)', { host });
            await works('INSERT INTO t VALUES (1), (2)', { host });
            await works('SELECT * FROM t', { host });
            await sleep(100);
            const { status, json } = await admin('GET', `/v1/namespaces/${name}/stats`);
            assert.equal(status, 200);
            for (const key of [
                'rows_read_count',
                'rows_written_count',
                'storage_bytes_used',
                'query_count',
            ]) {
                assert.equal(typeof json[key], 'number', key);
            }
            assert.ok(Array.isArray(json.top_queries) && Array.isArray(json.slowest_queries));
            assert.ok(json.rows_written_count >= 2);
        },
    ],
    [
        'admin: metrics',
        async () => {
            const answer = await admin('GET', '/metrics');
            assert.equal(answer.status, 200);
            assert.match(answer.text, /^# TYPE \w+ (counter|gauge|histogram|summary)$/m);
        },
    ],
    [
        'admin: what does not exist is 404',
        async () => {
            const answer = await admin('GET', '/v1/namespaces/missing/config');
            assert.equal(answer.status, 404, answer.text);
        },
    ],
];

export default [...tokens, ...sockets, ...tenants, ...administration];
