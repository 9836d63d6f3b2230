/*
 * ws.mjs -- a WebSocket client (RFC 6455) that can also misbehave: frames are built by hand, so a
 * test may send wrong ones. Not for production: no limits, no extensions.
 */
import crypto from 'node:crypto';
import http from 'node:http';

const opcodes = { 1: 'text', 2: 'binary', 8: 'close', 9: 'ping', 10: 'pong' };

/* Shakes hands. Resolves to {status, headers, ws}; ws is null when the server did not upgrade. */
export function wsConnect(base, { protocols = [], path = '/', headers = {} } = {}) {
    const url = new URL(base.replace(/^ws/, 'http'));
    const key = crypto.randomBytes(16).toString('base64');
    const sent = {
        connection: 'Upgrade',
        upgrade: 'websocket',
        'sec-websocket-version': '13',
        'sec-websocket-key': key,
        ...headers,
    };
    if (protocols.length > 0) sent['sec-websocket-protocol'] = protocols.join(', ');
    return new Promise((resolve, reject) => {
        const where = { host: url.hostname, port: url.port, path, headers: sent, agent: false };
        const req = http.request(where);
        req.on('upgrade', (res, socket, head) => {
            const want = crypto
                .createHash('sha1')
                .update(key + '258EAFA5-E914-47DA-95CA-C5AB0DC85B11')
                .digest('base64');
            if (res.headers['sec-websocket-accept'] !== want) {
                socket.destroy();
                reject(new Error(`wrong accept key ${res.headers['sec-websocket-accept']}`));
                return;
            }
            resolve({ status: 101, headers: res.headers, ws: new Ws(socket, head) });
        });
        req.on('response', (res) => {
            const parts = [];
            res.on('data', (part) => parts.push(part));
            res.on('end', () => {
                const text = Buffer.concat(parts).toString('utf8');
                resolve({ status: res.statusCode, headers: res.headers, text, ws: null });
            });
        });
        req.on('error', reject);
        req.end();
    });
}

export class Ws {
    constructor(socket, head) {
        this.socket = socket;
        this.input = Buffer.alloc(0);
        this.parts = [];
        this.kind = null;
        this.events = [];
        this.waiting = [];
        this.over = false;
        this.requestId = 0;
        this.answers = new Map();
        socket.on('data', (data) => this.#take(data));
        socket.on('error', () => this.#end());
        socket.on('close', () => this.#end());
        if (head.length > 0) this.#take(head);
    }

    #end() {
        if (this.over) return;
        this.over = true;
        this.#emit({ type: 'end' });
    }

    #emit(event) {
        const waiter = this.waiting.shift();
        if (waiter) waiter(event);
        else this.events.push(event);
    }

    #take(data) {
        this.input = Buffer.concat([this.input, data]);
        for (;;) {
            const frame = readFrame(this.input);
            if (frame === null) return;
            this.input = this.input.subarray(frame.used);
            this.#frame(frame);
        }
    }

    #frame({ fin, opcode, payload }) {
        if (opcode >= 8) {
            const event = { type: opcodes[opcode], data: payload };
            if (opcode === 8) {
                event.code = payload.length >= 2 ? payload.readUInt16BE(0) : 1005;
                event.reason = payload.subarray(2).toString('utf8');
            }
            if (opcode === 9) this.frame({ opcode: 10, payload });
            else this.#emit(event);
            return;
        }
        if (opcode !== 0) this.kind = opcodes[opcode];
        this.parts.push(payload);
        if (!fin) return;
        const whole = Buffer.concat(this.parts);
        this.parts = [];
        this.#emit({
            type: this.kind,
            data: this.kind === 'text' ? whole.toString('utf8') : whole,
        });
    }

    /* The next message, control frame or {type: "end"}. */
    next(timeout = 30000) {
        if (this.events.length > 0) return Promise.resolve(this.events.shift());
        if (this.over) return Promise.resolve({ type: 'end' });
        return new Promise((resolve, reject) => {
            const waiter = (event) => {
                clearTimeout(timer);
                resolve(event);
            };
            const timer = setTimeout(() => {
                this.waiting = this.waiting.filter((other) => other !== waiter);
                reject(new Error(`nothing came over the WebSocket in ${timeout} ms`));
            }, timeout);
            this.waiting.push(waiter);
        });
    }

    frame({ fin = true, opcode, payload = Buffer.alloc(0), masked = true, rsv = 0 }) {
        const bytes = Buffer.from(payload);
        const length = bytes.length;
        const head = [(fin ? 0x80 : 0) | (rsv << 4) | opcode];
        const mask = masked ? 0x80 : 0;
        if (length < 126) head.push(mask | length);
        else if (length < 65536) head.push(mask | 126, length >> 8, length & 255);
        else {
            const size = Buffer.alloc(8);
            size.writeBigUInt64BE(BigInt(length));
            head.push(mask | 127, ...size);
        }
        if (masked) {
            const key = crypto.randomBytes(4);
            for (let i = 0; i < length; i++) bytes[i] ^= key[i & 3];
            head.push(...key);
        }
        this.socket.write(Buffer.concat([Buffer.from(head), bytes]));
    }

    text(data) {
        const text = typeof data === 'string' ? data : JSON.stringify(data);
        this.frame({ opcode: 1, payload: Buffer.from(text) });
    }

    binary(data) {
        this.frame({ opcode: 2, payload: data });
    }

    close(code = 1000) {
        const payload = Buffer.alloc(2);
        payload.writeUInt16BE(code);
        this.frame({ opcode: 8, payload });
    }

    destroy() {
        this.socket.destroy();
    }

    /* ---- Hrana in JSON ---- */
    async hello(jwt = null) {
        this.text({ type: 'hello', jwt });
        return this.json();
    }

    /* The next JSON message; a close instead of it is given as {type: "close", code, reason}. */
    async json(timeout) {
        const event = await this.next(timeout);
        return event.type === 'text' ? JSON.parse(event.data) : event;
    }

    send(request) {
        const id = this.requestId++;
        this.text({ type: 'request', request_id: id, request });
        return id;
    }

    /* Sends a request and waits for its answer: {ok: response} or {error} or {close}. Answers to
     * other requests are kept for `answer`. */
    ask(request) {
        return this.answer(this.send(request));
    }

    async answer(id) {
        while (!this.answers.has(id)) {
            const msg = await this.json(10000);
            if (msg.type === 'response_ok') this.answers.set(msg.request_id, { ok: msg.response });
            else if (msg.type === 'response_error') {
                this.answers.set(msg.request_id, { error: msg.error });
            } else if (msg.type === 'close' || msg.type === 'end') return { close: msg };
            else throw new Error(`a strange message: ${JSON.stringify(msg)}`);
        }
        const answer = this.answers.get(id);
        this.answers.delete(id);
        return answer;
    }
}

function readFrame(input) {
    if (input.length < 2) return null;
    let length = input[1] & 127;
    let at = 2;
    if (length === 126) {
        if (input.length < 4) return null;
        length = input.readUInt16BE(2);
        at = 4;
    } else if (length === 127) {
        if (input.length < 10) return null;
        length = Number(input.readBigUInt64BE(2));
        at = 10;
    }
    if (input.length < at + length) return null;
    const payload = input.subarray(at, at + length);
    return { fin: (input[0] & 128) !== 0, opcode: input[0] & 15, payload, used: at + length };
}
