/*
 * http.mjs -- HTTP as raw as a test needs it: any header (Host too), any body, answers as they are.
 */
import http from 'node:http';
import net from 'node:net';

const agent = new http.Agent({ keepAlive: true, maxSockets: 32 });

/* Sends one request; resolves to {status, headers, text, json}. json is undefined when the body is
 * none. A body that is neither text nor bytes is sent as JSON. `chunks`: sent one by one. */
export function request(base, options = {}) {
    const { method = 'POST', path = '/', headers = {}, body, chunks, timeout = 30000 } = options;
    const url = new URL(base);
    const sent = { ...headers };
    let bytes = null;
    if (body !== undefined) {
        const plain = typeof body === 'string' || body instanceof Uint8Array;
        bytes = Buffer.from(plain ? body : JSON.stringify(body));
        if (!plain && !Object.keys(sent).some((name) => name.toLowerCase() === 'content-type')) {
            sent['content-type'] = 'application/json';
        }
        sent['content-length'] = bytes.length;
    }
    return new Promise((resolve, reject) => {
        const where = { host: url.hostname, port: url.port, method, path, headers: sent, agent };
        const req = http.request(where, (res) => {
            const parts = [];
            res.on('data', (part) => parts.push(part));
            res.on('error', reject);
            res.on('end', () => resolve(answer(res, Buffer.concat(parts))));
        });
        req.setTimeout(timeout, () => req.destroy(new Error(`no answer in ${timeout} ms`)));
        req.on('error', reject);
        if (chunks) {
            for (const chunk of chunks) req.write(chunk);
            req.end();
        } else {
            req.end(bytes ?? undefined);
        }
    });
}

function answer(res, bytes) {
    const text = bytes.toString('utf8');
    let json;
    try {
        json = JSON.parse(text);
    } catch {
        json = undefined;
    }
    return { status: res.statusCode, headers: res.headers, bytes, text, json };
}

/* Writes bytes to a fresh connection and resolves to all that comes back until it is closed,
 * `until(text)` is true or the time is over. */
export function rawExchange(base, bytes, { until = () => false, timeout = 30000 } = {}) {
    const url = new URL(base);
    return new Promise((resolve, reject) => {
        let text = '';
        const socket = net.connect(Number(url.port), url.hostname, () => socket.write(bytes));
        const finish = () => {
            clearTimeout(timer);
            socket.destroy();
            resolve(text);
        };
        const timer = setTimeout(finish, timeout);
        socket.on('data', (part) => {
            text += part.toString('latin1');
            if (until(text)) finish();
        });
        socket.on('end', finish);
        socket.on('error', (error) => {
            if (text !== '') finish();
            else {
                clearTimeout(timer);
                reject(error);
            }
        });
    });
}
