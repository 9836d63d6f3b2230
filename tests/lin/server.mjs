/*
 * server.mjs -- the server under test: started on a folder, killed, started again; and what its
 * store has of a database. SLUICE names the program.
 */
import { spawn, spawnSync } from 'node:child_process';
import { existsSync, openSync, closeSync, mkdirSync, readFileSync, rmSync } from 'node:fs';
import { writeFileSync } from 'node:fs';
import path from 'node:path';

const program = path.resolve(process.env.SLUICE ?? 'sluice');
const running = new Set();
process.on('exit', () => running.forEach((child) => child.kill('SIGKILL')));

export const sleep = (ms) => new Promise((resolve) => setTimeout(resolve, ms));

/* A tenant's folder before the first start; conf as in conf.json. */
export function makeTenant(data, name, conf = {}) {
    const dir = path.join(data, 'tenants', name);
    mkdirSync(dir, { recursive: true, mode: 0o700 });
    writeFileSync(path.join(dir, 'conf.json'), JSON.stringify(conf));
}

export class Server {
    /* options: args (more of the command line), limit (a command in front, by /bin/sh). */
    constructor(dir, options = {}) {
        this.dir = dir;
        this.data = path.join(dir, 'data');
        this.logFile = path.join(dir, 'log');
        this.options = options;
        mkdirSync(dir, { recursive: true });
    }

    log() {
        return existsSync(this.logFile) ? readFileSync(this.logFile, 'utf8') : '';
    }

    async start() {
        const before = this.log().length;
        const out = openSync(this.logFile, 'a');
        const args = ['serve', '-data', this.data, '-listen', '127.0.0.1:0'];
        args.push(...(this.options.args ?? []));
        const limit = this.options.limit ? `${this.options.limit}; ` : '';
        const child = spawn('/bin/sh', ['-c', `${limit}exec "$0" "$@"`, program, ...args], {
            stdio: ['ignore', out, out],
        });
        closeSync(out);
        running.add(child);
        this.child = child;
        this.gone = null;
        this.ended = new Promise((resolve) => {
            child.on('exit', (code, signal) => {
                running.delete(child);
                this.gone = signal ?? code;
                resolve(this.gone);
            });
        });
        const deadline = Date.now() + 60000;
        for (;;) {
            const said = this.log().slice(before);
            const port = /msg=serving addr=127\.0\.0\.1:(\d+)/.exec(said);
            if (port) {
                this.port = Number(port[1]);
                return this;
            }
            if (this.gone !== null || Date.now() > deadline) {
                throw new Error(`the server does not start (${this.gone}):\n${said.slice(-3000)}`);
            }
            await sleep(5);
        }
    }

    async kill() {
        this.child.kill('SIGKILL');
        await this.ended;
        this.complain();
    }

    /* Resolves to how it ended, 0 if all was well. */
    async stop(seconds = 40) {
        this.child.kill('SIGTERM');
        const timer = setTimeout(() => this.child.kill('SIGABRT'), seconds * 1000);
        const end = await this.ended;
        clearTimeout(timer);
        this.complain();
        return end;
    }

    /* What a sanitizer or an assertion has said is a failure of whatever test it was. */
    complain() {
        const bad = /ThreadSanitizer|AddressSanitizer|LeakSanitizer|runtime error|assertion/i;
        const log = this.log();
        const at = log.search(bad);
        if (at >= 0) throw new Error(`the server complained:\n${log.slice(Math.max(0, at - 200))}`);
    }

    /* Resident memory in KiB. */
    memory() {
        const status = readFileSync(`/proc/${this.child.pid}/status`, 'utf8');
        return Number(/VmRSS:\s+(\d+)/.exec(status)[1]);
    }

    alive() {
        return this.gone === null;
    }
}

function run(args) {
    const done = spawnSync(program, args, { encoding: 'utf8', maxBuffer: 1 << 30 });
    if (done.status !== 0) {
        throw new Error(`sluice ${args.join(' ')}: ${done.status}\n${done.stdout}${done.stderr}`);
    }
    return done.stdout;
}

/* The database that the log holds, at `out`. */
export function restore(data, tenant, out) {
    rmSync(out, { force: true });
    run(['restore', '-o', out, `file://${path.join(data, 'backup', tenant)}`]);
}

export function dump(file) {
    return run(['shell', '-readonly', file, '.dump']);
}

export function query(file, sql) {
    const text = run(['shell', '-json', '-readonly', file, sql]);
    return text.trim() === '' ? [] : JSON.parse(text);
}
