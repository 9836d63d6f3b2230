/*
 * compare.mjs -- the same requests to Sluice and to libSQL's server: the same answers, or a reason.
 *
 *   OURS=http://... THEIRS=http://... node compare.mjs [WORDS]
 *
 * WORDS: only the cases whose names have them. What is not compared, in any case:
 *   - how long something took, what was read and written, indexes of replication: measurements
 *   - batons: both servers may keep a stream or not
 *   - the body of an answer that is not 200: here it is always {message, code, error}
 *   - `extended_code` and other keys that only we send
 *   - the words of a failure to parse, and which of the two codes it has: libSQL's server parses
 *     everything twice, with a parser of its own first
 *   - whether a WebSocket that misbehaved is closed properly or cut off
 */
import { isDeepStrictEqual } from 'node:util';
import { cases, fixture, reset } from './corpus.mjs';
import { assert, runChecks } from './lib/check.mjs';
import { request } from './lib/http.mjs';
import { wsConnect } from './lib/ws.mjs';

const { OURS: ours, THEIRS: theirs, SERVER: kind = 'sluice' } = process.env;

const measured = [
    'query_duration_ms',
    'rows_read',
    'rows_written',
    'replication_index',
    'stream_ttl_ms',
];
const dropped = new Set([...measured, 'baton', 'base_url', 'extended_code']);

function tidy(value) {
    if (Array.isArray(value)) return value.map(tidy);
    if (value === null || typeof value !== 'object') return value;
    if (typeof value.message === 'string' && 'code' in value) return tidyError(value);
    const out = {};
    for (const key of Object.keys(value).sort()) {
        if (!dropped.has(key)) out[key] = tidy(value[key]);
    }
    return out;
}

/* SQLite's words, without what the server puts around them. */
function tidyError({ message, code }) {
    if (
        ['SQL_PARSE_ERROR', 'SQL_INPUT_ERROR'].includes(code) &&
        /syntax|parse|token|incomplete/.test(message)
    ) {
        return { error: 'not SQL' };
    }
    const words = message
        .replace(/^SQL(ite| input) error: /, '')
        .replace(/ \(at offset \d+\)$/, '');
    const counted = code === 'ARGS_INVALID' ? 'arguments' : words;
    return { code: code === 'SQL_INPUT_ERROR' ? 'SQLITE_UNKNOWN' : code, message: counted };
}

function tidyAnswer({ status, headers, text }, path) {
    if (status >= 400) return { status };
    if (path.endsWith('/cursor') && status === 200) {
        return {
            status,
            lines: text
                .split('\n')
                .filter((line) => line !== '')
                .map((line) => tidy(JSON.parse(line))),
        };
    }
    try {
        return { status, type: headers['content-type'] ?? null, body: tidy(JSON.parse(text)) };
    } catch {
        return { status, body: text === '' ? '' : 'a text' };
    }
}

function batonOf(text) {
    try {
        return JSON.parse(text.split('\n')[0]).baton ?? null;
    } catch {
        return null;
    }
}

async function http(base, step, state) {
    const { method = 'POST', path, headers } = step;
    let body = step.body;
    if (body !== undefined && typeof body !== 'string') {
        body = JSON.stringify(body).replace('"{baton}"', JSON.stringify(state.baton));
        body = body.replace('"{first}"', JSON.stringify(state.first));
    }
    const answer = await request(base, {
        method,
        path,
        headers: { 'content-type': 'application/json', ...headers },
        body,
    });
    state.baton = batonOf(answer.text);
    state.first ??= state.baton;
    return tidyAnswer(answer, path);
}

async function socket(base, step) {
    const { status, ws } = await wsConnect(base, { protocols: [step.protocol] });
    if (!ws) return { status };
    for (const message of step.messages) ws.text(message);
    const got = [];
    for (;;) {
        const event = await ws
            .next(got.length < step.messages.length ? 10000 : 50)
            .catch(() => null);
        if (event === null) break;
        if (event.type === 'close' || event.type === 'end') {
            got.push({ closed: true });
            break;
        }
        got.push(tidy(JSON.parse(event.data)));
        if (got.length === step.messages.length && !got.some((m) => m.type === 'hello_error'))
            break;
    }
    ws.destroy();
    return got.sort((a, b) => (a.request_id ?? -1) - (b.request_id ?? -1));
}

async function play(base, { steps }) {
    await script(base, reset);
    const state = {};
    const answers = [];
    for (const step of steps) {
        answers.push(await (step.protocol ? socket(base, step) : http(base, step, state)));
    }
    return answers;
}

async function script(base, sql) {
    const body = { requests: [{ type: 'sequence', sql }, { type: 'close' }] };
    const { status, json, text } = await request(base, { path: '/v2/pipeline', body });
    assert.ok(status === 200 && json.results[0].type === 'ok', text);
}

function short(value) {
    const text = JSON.stringify(value);
    return text.length > 700 ? `${text.slice(0, 700)}...` : text;
}

function check(one) {
    return async () => {
        const [mine, their] = await Promise.all([play(ours, one), play(theirs, one)]);
        const same = isDeepStrictEqual(mine, their);
        if (one.why && kind === 'sluice') {
            assert.ok(
                !same,
                `it is answered alike by now, so the reason is out of date: ${one.why}`,
            );
        } else if (!same) {
            const at = mine.findIndex((answer, i) => !isDeepStrictEqual(answer, their[i]));
            const error = new Error(
                `step ${at}\n  ours:   ${short(mine[at])}\n  theirs: ${short(their[at])}`,
            );
            error.stack = error.message;
            throw error;
        }
    };
}

await Promise.all([script(ours, fixture), script(theirs, fixture)]);
const names = new Set(cases.map((one) => one.name));
assert.equal(names.size, cases.length, 'two cases have one name');
const reasons = cases.filter((one) => one.why).length;
await runChecks(
    `compare: ${cases.length} requests, ${reasons} answered differently for a reason`,
    cases.map((one) => [one.name, check(one)]),
    { only: process.argv[2] },
);
