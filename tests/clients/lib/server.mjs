/*
 * server.mjs -- starts and stops a server for tests: Sluice, or libSQL's own to compare with.
 *
 * The program comes from the environment: SLUICE=PATH, SQLD=PATH. All state is in a new folder,
 * which is deleted at the end unless the server's end was not clean.
 */
import { spawn } from 'node:child_process';
import { mkdtempSync, openSync, readFileSync, rmSync } from 'node:fs';
import net from 'node:net';
import os from 'node:os';
import path from 'node:path';
import { request } from './http.mjs';

function freePort() {
    return new Promise((resolve, reject) => {
        const server = net.createServer();
        server.on('error', reject);
        server.listen(0, '127.0.0.1', () => {
            const { port } = server.address();
            server.close(() => resolve(port));
        });
    });
}

/* options: namespaces (several tenants), keyFile (tokens are asked for), adminKey. */
function commandLine(kind, dir, port, adminPort, options) {
    const data = path.join(dir, 'data');
    const listen = `127.0.0.1:${port}`;
    const admin = `127.0.0.1:${adminPort}`;
    if (kind === 'sqld') {
        const args = ['--db-path', data, '--http-listen-addr', listen, '--no-welcome'];
        args.push('--admin-listen-addr', admin);
        if (options.namespaces) args.push('--enable-namespaces');
        if (options.keyFile) args.push('--auth-jwt-key-file', options.keyFile);
        if (options.adminKey) args.push('--admin-auth-key', options.adminKey);
        return [process.env.SQLD, args];
    }
    const args = ['serve', '--data', data, '--listen', listen, '--admin-listen', admin];
    if (options.keyFile) args.push('--auth-jwt-key-file', options.keyFile);
    if (options.adminKey) args.push('--admin-key', options.adminKey);
    return [process.env.SLUICE, args];
}

export function programOf(kind) {
    return kind === 'sqld' ? process.env.SQLD : process.env.SLUICE;
}

/* Resolves when the server answers: {kind, url, wsUrl, adminUrl, adminKey, dir, log(), stop()}. */
export async function startServer(kind, options = {}) {
    const dir = mkdtempSync(path.join(os.tmpdir(), `clients-${kind}-`));
    /* Ours takes any free ports and says which; the other must be told. */
    let port = kind === 'sqld' ? await freePort() : 0;
    let adminPort = kind === 'sqld' ? await freePort() : 0;
    const [program, args] = commandLine(kind, dir, port, adminPort, options);
    if (!program) throw new Error(`no program for ${kind}`);
    const logFile = path.join(dir, 'log');
    const out = openSync(logFile, 'w');
    const child = spawn(program, args, { cwd: dir, stdio: ['ignore', out, out] });
    const log = () => readFileSync(logFile, 'utf8');
    let gone = null;
    const ended = new Promise((resolve) => {
        child.on('error', (error) => resolve((gone = `${program}: ${error.message}`)));
        child.on('exit', (code, signal) => resolve((gone = `exit ${code ?? signal}`)));
    });
    const kill = () => child.kill('SIGKILL');
    process.on('exit', kill);
    const stop = async () => {
        const early = gone;
        if (gone === null) {
            child.kill('SIGTERM');
            const timer = setTimeout(kill, 60000);
            await ended;
            clearTimeout(timer);
        }
        process.off('exit', kill);
        const clean = early === null && (gone === 'exit 0' || kind === 'sqld');
        if (clean) rmSync(dir, { recursive: true, force: true });
        return { clean, end: gone, dir };
    };
    const deadline = Date.now() + 60000;
    for (;;) {
        const said = /msg=serving addr=127\.0\.0\.1:(\d+).* admin=127\.0\.0\.1:(\d+)/.exec(log());
        if (kind !== 'sqld' && said) [port, adminPort] = said.slice(1).map(Number);
        const url = `http://127.0.0.1:${port}`;
        const health = { method: 'GET', path: '/health' };
        const answer = port === 0 ? null : await request(url, health).catch(() => null);
        if (answer?.status === 200) break;
        if (gone !== null || Date.now() > deadline) {
            kill();
            throw new Error(
                `${kind} does not start (${gone ?? 'no answer'}):\n${log().slice(-2000)}`,
            );
        }
        await new Promise((resolve) => setTimeout(resolve, 30));
    }
    return {
        kind,
        url: `http://127.0.0.1:${port}`,
        wsUrl: `ws://127.0.0.1:${port}`,
        adminUrl: `http://127.0.0.1:${adminPort}`,
        adminKey: options.adminKey,
        dir,
        log,
        stop,
    };
}
