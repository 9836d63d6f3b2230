/*
 * facade.mjs -- stands in front of a server and hides some versions of Hrana, so that an unmodified
 * client negotiates the one that a test wants.
 *
 * hidden: paths that are answered with 404; protocol: the only WebSocket protocol that goes on.
 */
import http from 'node:http';
import net from 'node:net';

export async function startFacade(target, { hidden = [], protocol = null } = {}) {
    const url = new URL(target);
    const where = { host: url.hostname, port: Number(url.port) };
    const agent = new http.Agent({ keepAlive: true });
    const server = http.createServer((req, res) => {
        if (hidden.some((path) => req.url === path || req.url.startsWith(`${path}/`))) {
            req.resume();
            res.writeHead(404).end();
            return;
        }
        const { method, headers } = req;
        const inner = http.request(
            { ...where, agent, method, path: req.url, headers },
            (answer) => {
                res.writeHead(answer.statusCode, answer.headers);
                answer.pipe(res);
            },
        );
        inner.on('error', () => res.destroy());
        req.pipe(inner);
    });
    server.on('upgrade', (req, socket, head) => {
        const inner = net.connect(where.port, where.host, () => {
            const lines = [`GET ${req.url} HTTP/1.1`];
            for (const [name, value] of Object.entries(req.headers)) {
                const forced = name === 'sec-websocket-protocol' && protocol !== null;
                lines.push(`${name}: ${forced ? protocol : value}`);
            }
            inner.write(lines.join('\r\n') + '\r\n\r\n');
            inner.write(head);
            inner.pipe(socket);
            socket.pipe(inner);
        });
        inner.on('error', () => socket.destroy());
        socket.on('error', () => inner.destroy());
    });
    await new Promise((resolve) => server.listen(0, '127.0.0.1', resolve));
    const { port } = server.address();
    return {
        url: `http://127.0.0.1:${port}`,
        wsUrl: `ws://127.0.0.1:${port}`,
        stop() {
            server.closeAllConnections();
            server.close();
            agent.destroy();
        },
    };
}
