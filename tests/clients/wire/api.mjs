/*
 * api.mjs -- what all wire checks share: the server's address, short forms of requests and values.
 */
import { assert } from '../lib/check.mjs';
import { request } from '../lib/http.mjs';

export const url = process.env.URL ?? 'http://127.0.0.1:8080';
export const wsUrl = url.replace(/^http/, 'ws');

export const nul = { type: 'null' };
export const int = (value) => ({ type: 'integer', value: String(value) });
export const float = (value) => ({ type: 'float', value });
export const text = (value) => ({ type: 'text', value });
export const blob = (base64) => ({ type: 'blob', base64 });

let counter = 0;
const started = Date.now().toString(36);
/* A name that nobody has used, also when the checks run twice against one server. */
export function unique(prefix = 't') {
    return `${prefix}_${started}_${++counter}`;
}

export const execute = (sql, args, more) => ({ type: 'execute', stmt: { sql, args, ...more } });
export const close = { type: 'close' };

export function post(path, body, headers = {}) {
    return request(url, { path, body, headers });
}

/* A pipeline: {status, json, baton, results}. */
export async function pipeline(requests, { baton = null, version = 'v3', headers } = {}) {
    const answer = await post(`/${version}/pipeline`, { baton, requests }, headers);
    return { ...answer, baton: answer.json?.baton, results: answer.json?.results };
}

/* A pipeline that must be answered with 200. */
export async function good(requests, options) {
    const answer = await pipeline(requests, options);
    assert.equal(answer.status, 200, answer.text);
    assert.equal(answer.results.length, requests.length);
    return answer;
}

/* The result of one request on a stream of its own. */
export async function one(req, options) {
    const { results } = await good([req, close], options);
    return results[0];
}

/* StmtResult of one statement that must succeed. */
export async function run(sql, args, more) {
    const result = await one(execute(sql, args, more));
    assert.equal(result.type, 'ok', `${sql}: ${JSON.stringify(result.error)}`);
    return result.response.result;
}

/* Error of one statement that must fail. */
export async function fails(sql, args, more) {
    const result = await one(execute(sql, args, more));
    assert.equal(result.type, 'error', `${sql} was expected to fail`);
    checkError(result.error);
    return result.error;
}

export function checkError(error) {
    assert.equal(typeof error.message, 'string');
    assert.notEqual(error.message, '');
    assert.equal(typeof error.code, 'string');
}

/* The single value of a query. */
export async function value(sql, args, more) {
    const { rows } = await run(sql, args, more);
    assert.equal(rows.length, 1);
    assert.equal(rows[0].length, 1);
    return rows[0][0];
}

/* A new table of the given columns. */
export async function table(columns = 'id INTEGER PRIMARY KEY, v') {
    const name = unique();
    await run(`CREATE TABLE ${name}(${columns})`);
    return name;
}

/* BatchResult of steps, each an SQL text or [sql, condition]. */
export async function batch(steps, options) {
    const result = await one({ type: 'batch', batch: makeBatch(steps) }, options);
    assert.equal(result.type, 'ok', JSON.stringify(result.error));
    return result.response.result;
}

export function makeBatch(steps) {
    return {
        steps: steps.map((step) => {
            if (typeof step === 'string') return { stmt: { sql: step } };
            const [sql, condition] = step;
            return { stmt: { sql }, condition };
        }),
    };
}

/* What became of each step: "ok", "error" or "skipped", in one string. */
export function outcomes({ step_results: results, step_errors: errors }) {
    assert.equal(results.length, errors.length);
    return results
        .map((result, i) => (result !== null ? 'ok' : errors[i] !== null ? 'error' : 'skipped'))
        .join(' ');
}

export const cond = {
    ok: (step) => ({ type: 'ok', step }),
    error: (step) => ({ type: 'error', step }),
    not: (inner) => ({ type: 'not', cond: inner }),
    and: (...conds) => ({ type: 'and', conds }),
    or: (...conds) => ({ type: 'or', conds }),
    autocommit: { type: 'is_autocommit' },
};

/* An HTTP failure as all of them shall look: JSON, its exact type, one shape. */
export function checkFailure(answer, ...statuses) {
    assert.ok(statuses.includes(answer.status), `status ${answer.status}: ${answer.text}`);
    assert.equal(answer.headers['content-type'], 'application/json');
    const { message, code, error } = answer.json;
    assert.equal(typeof message, 'string', answer.text);
    assert.equal(typeof code, 'string', answer.text);
    assert.equal(typeof error, 'string', answer.text);
}

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));
