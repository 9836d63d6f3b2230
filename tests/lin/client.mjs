/*
 * client.mjs -- streams of Hrana over HTTP and over WebSockets, with one face for both:
 *
 *   await stream.run([request, ...])  -> [{ok: response} | {error}, ...], one for each request
 *   await stream.close()              the stream ends, what is open is rolled back
 *   stream.vanish()                   the connection is cut, without a word
 *
 * `run` throws Lost when no answer came: then nobody knows what was done. It throws Refused when
 * the server has said that nothing was done.
 */
import crypto from 'node:crypto';
import http from 'node:http';
import net from 'node:net';

export class Lost extends Error {}
export class Refused extends Error {}

export const int = (value) => ({ type: 'integer', value: String(value) });
export const text = (value) => ({ type: 'text', value });
export const stmt = (sql, ...args) => ({ sql, args, want_rows: true });
export const execute = (sql, ...args) => ({ type: 'execute', stmt: stmt(sql, ...args) });

/* A batch that runs as a transaction: each step only if the one before went well. */
export function transaction(begin, ...stmts) {
    const steps = [{ stmt: stmt(begin) }];
    for (const one of [...stmts, stmt('COMMIT')]) {
        steps.push({ stmt: one, condition: { type: 'ok', step: steps.length - 1 } });
    }
    const last = steps.length - 1;
    const condition = { type: 'not', cond: { type: 'ok', step: last } };
    steps.push({ stmt: stmt('ROLLBACK'), condition });
    return { type: 'batch', batch: { steps } };
}

/* Rows as lists of plain values; integers as numbers. */
export function rows(result) {
    const plain = (v) => (v.type === 'integer' ? Number(v.value) : (v.value ?? null));
    return result.rows.map((row) => row.map(plain));
}

export class HttpStream {
    constructor(port, { tenant = 'default', headers = {}, timeout = 60000 } = {}) {
        this.port = port;
        this.prefix = tenant === 'default' ? '' : `/dev/${tenant}`;
        this.headers = headers;
        this.timeout = timeout;
        this.agent = new http.Agent({ keepAlive: true, maxSockets: 1 });
        this.baton = null;
    }

    async run(requests) {
        const body = { baton: this.baton, requests };
        const { status, text: answer } = await this.post('/v3/pipeline', body);
        const json = parse(answer);
        if (status === 404 || status === 410) {
            this.baton = null;
            throw new Refused(answer);
        }
        if (status !== 200) {
            this.baton = null;
            throw new Lost(`status ${status}: ${answer}`);
        }
        this.baton = json.baton;
        return json.results.map((r) => (r.type === 'ok' ? { ok: r.response } : { error: r.error }));
    }

    /* A batch as a cursor: the entries. */
    async cursor(batch) {
        const { status, text: answer } = await this.post('/v3/cursor', {
            baton: this.baton,
            batch,
        });
        if (status !== 200) throw new Lost(`status ${status}: ${answer}`);
        const lines = answer.trim().split('\n').map(parse);
        this.baton = lines.shift().baton;
        return lines;
    }

    post(path, body) {
        const bytes = Buffer.from(JSON.stringify(body));
        const where = {
            host: '127.0.0.1',
            port: this.port,
            method: 'POST',
            path: this.prefix + path,
            headers: {
                'content-type': 'application/json',
                'content-length': bytes.length,
                ...this.headers,
            },
            agent: this.agent,
        };
        return new Promise((resolve, reject) => {
            const lost = (error) => {
                const why = String(error?.message ?? error).replace(/:\d+$/, '');
                reject(error?.syscall === 'connect' ? new Refused(why) : new Lost(why));
            };
            const req = http.request(where, (res) => {
                const parts = [];
                res.on('data', (part) => parts.push(part));
                res.on('error', lost);
                res.on('aborted', () => lost('aborted'));
                res.on('end', () =>
                    res.complete
                        ? resolve({ status: res.statusCode, text: Buffer.concat(parts).toString() })
                        : lost('cut'),
                );
            });
            this.req = req;
            req.setTimeout(this.timeout, () => req.destroy(new Error('no answer in time')));
            req.on('error', lost);
            req.end(bytes);
        });
    }

    async close() {
        if (this.baton !== null) await this.run([{ type: 'close' }]);
        this.agent.destroy();
    }

    vanish() {
        this.req?.destroy();
        this.agent.destroy();
        this.baton = null;
    }

    /* Sends a request whose body breaks off: it must never have been. */
    async half(requests) {
        const bytes = Buffer.from(JSON.stringify({ baton: this.baton, requests }));
        const head =
            `POST ${this.prefix}/v3/pipeline HTTP/1.1\r\nHost: x\r\n` +
            `Content-Type: application/json\r\nContent-Length: ${bytes.length + 10}\r\n\r\n`;
        await new Promise((resolve) => {
            const socket = net.connect(this.port, '127.0.0.1', () => {
                socket.write(Buffer.concat([Buffer.from(head), bytes]), () => socket.destroy());
            });
            socket.on('error', resolve);
            socket.on('close', resolve);
        });
    }
}

function parse(json) {
    try {
        return JSON.parse(json);
    } catch {
        throw new Lost(`not JSON: ${json.slice(0, 200)}`);
    }
}

/* One connection; streams share it. */
export class Wire {
    static async open(port, { tenant = 'default' } = {}) {
        const wire = new Wire();
        await wire.connect(port, tenant === 'default' ? '/' : `/dev/${tenant}`);
        wire.frame(1, Buffer.from(JSON.stringify({ type: 'hello', jwt: null })));
        await new Promise((resolve, reject) => (wire.greeted = { resolve, reject }));
        return wire;
    }

    constructor() {
        this.input = Buffer.alloc(0);
        this.waiting = new Map();
        this.nextId = 1;
        this.nextStream = 1;
    }

    connect(port, path) {
        const headers = {
            connection: 'Upgrade',
            upgrade: 'websocket',
            'sec-websocket-version': '13',
            'sec-websocket-key': crypto.randomBytes(16).toString('base64'),
            'sec-websocket-protocol': 'hrana3',
        };
        return new Promise((resolve, reject) => {
            const lost = (why) => reject(new Lost(why));
            const req = http.request({ host: '127.0.0.1', port, path, headers, agent: false });
            req.on('error', (error) => lost(error.message));
            req.on('response', (res) => lost(`no upgrade: ${res.statusCode}`));
            req.on('upgrade', (res, socket, head) => {
                this.socket = socket;
                socket.setNoDelay(true);
                socket.on('data', (data) => this.take(data));
                socket.on('error', () => this.end());
                socket.on('close', () => this.end());
                if (head.length > 0) this.take(head);
                resolve();
            });
            req.end();
        });
    }

    end(why = 'the WebSocket has ended') {
        this.over = true;
        this.greeted?.reject(new Lost(why));
        for (const one of this.waiting.values()) one.reject(new Lost(why));
        this.waiting.clear();
    }

    take(data) {
        this.input = Buffer.concat([this.input, data]);
        for (;;) {
            const input = this.input;
            if (input.length < 2) return;
            let size = input[1] & 127;
            let at = 2;
            if (size === 126) {
                if (input.length < 4) return;
                size = input.readUInt16BE(2);
                at = 4;
            } else if (size === 127) {
                if (input.length < 10) return;
                size = Number(input.readBigUInt64BE(2));
                at = 10;
            }
            if (input.length < at + size) return;
            this.input = input.subarray(at + size);
            const payload = input.subarray(at, at + size);
            const opcode = input[0] & 15;
            if (opcode === 9) this.frame(10, payload);
            if (opcode === 8) this.end(`closed: ${payload.subarray(2)}`);
            if (opcode === 1) this.message(JSON.parse(payload.toString()));
        }
    }

    message(m) {
        if (m.type === 'hello_ok') this.greeted.resolve();
        if (m.type === 'hello_error') this.greeted.reject(new Lost(m.error.message));
        const one = this.waiting.get(m.request_id);
        if (one === undefined) return;
        this.waiting.delete(m.request_id);
        one.resolve(m.type === 'response_ok' ? { ok: m.response } : { error: m.error });
    }

    frame(opcode, payload) {
        const size = payload.length;
        const head = [0x80 | opcode];
        if (size < 126) head.push(0x80 | size);
        else if (size < 65536) head.push(0x80 | 126, size >> 8, size & 255);
        else {
            const long = Buffer.alloc(8);
            long.writeBigUInt64BE(BigInt(size));
            head.push(0x80 | 127, ...long);
        }
        /* A mask of zeros is a mask. */
        this.socket.write(Buffer.concat([Buffer.from([...head, 0, 0, 0, 0]), payload]));
    }

    ask(request) {
        if (this.over) return Promise.reject(new Lost('the WebSocket has ended'));
        const id = this.nextId++;
        const answer = new Promise((resolve, reject) => this.waiting.set(id, { resolve, reject }));
        const m = { type: 'request', request_id: id, request };
        this.frame(1, Buffer.from(JSON.stringify(m)));
        return answer;
    }

    vanish() {
        this.socket?.destroy();
    }
}

export class WsStream {
    constructor(wire) {
        this.wire = wire;
        this.id = null;
    }

    async run(requests) {
        const answers = [];
        if (this.id === null) {
            this.id = this.wire.nextStream++;
            answers.push(this.wire.ask({ type: 'open_stream', stream_id: this.id }));
        }
        const opened = answers.length;
        for (const r of requests) answers.push(this.wire.ask({ ...r, stream_id: this.id }));
        const all = await Promise.allSettled(answers);
        const lost = all.find((one) => one.status === 'rejected');
        if (lost) throw lost.reason;
        return all.slice(opened).map((one) => one.value);
    }

    async close() {
        if (this.id === null) return;
        const id = this.id;
        this.id = null;
        await this.wire.ask({ type: 'close_stream', stream_id: id });
    }

    vanish() {
        this.wire.vanish();
    }
}
