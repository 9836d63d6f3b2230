/*
 * run.mjs -- what `run` runs: parts, each on a fresh server, and the table of what came of them.
 */
import { spawn } from 'node:child_process';
import crypto from 'node:crypto';
import {
    cpSync,
    existsSync,
    mkdtempSync,
    readFileSync,
    readdirSync,
    rmSync,
    statSync,
    writeFileSync,
} from 'node:fs';
import os from 'node:os';
import path from 'node:path';
import { fileURLToPath } from 'node:url';
import { startFacade } from './lib/facade.mjs';
import { Missing, deps, installFrom, installSqld, npm } from './lib/install.mjs';
import { programOf, startServer } from './lib/server.mjs';

const here = path.dirname(fileURLToPath(import.meta.url));
const table = [];
let kind = 'sluice';
let keep = false;

/* ---- Programs ---- */

/* Runs a program. Resolves to {status, output}. */
function program(command, args, { cwd, env = {}, seconds = 240 } = {}) {
    return new Promise((resolve) => {
        const child = spawn(command, args, {
            cwd,
            env: { ...process.env, ...env },
            stdio: ['ignore', 'pipe', 'pipe'],
        });
        let output = '';
        const add = (part) => (output += part);
        child.stdout.on('data', add);
        child.stderr.on('data', add);
        const timer = setTimeout(() => {
            output += `\nno end after ${seconds} s\n`;
            child.kill('SIGKILL');
        }, seconds * 1000);
        const end = (status) => {
            clearTimeout(timer);
            resolve({ status, output });
        };
        child.on('error', (error) => end(`${command}: ${error.message}`));
        child.on('close', (code, signal) => end(code ?? signal));
    });
}

/* Notes the outcome of a suite. counts: {passed, failed, skipped, known}, or null for none. */
function note(suite, configuration, counts, { status, output, began }) {
    const seconds = ((Date.now() - began) / 1000).toFixed(1);
    const row = {
        suite,
        configuration,
        passed: 0,
        failed: 0,
        skipped: 0,
        known: 0,
        ...counts,
        seconds,
    };
    if (!counts || (status !== 0 && row.failed === 0)) row.failed += 1;
    if (row.failed > 0) {
        console.log(`---- ${suite} ${configuration}: status ${status}`);
        console.log(shorten(output));
    }
    table.push(row);
}

function shorten(text) {
    const lines = text.split('\n').filter((line) => !/^ok |✔|^\s+✓/.test(line));
    const most = 400;
    if (lines.length <= most) return lines.join('\n');
    return [...lines.slice(0, most), `... ${lines.length - most} more lines`].join('\n');
}

function omit(suite, reason) {
    console.log(`SKIPPED: ${suite}: ${reason}`);
    table.push({ suite, configuration: `skipped: ${reason}`, omitted: true });
}

/* Runs fn with a fresh server; a server that does not end well is a failure, too. */
async function withServer(options, suite, fn) {
    const server = await startServer(kind, options);
    try {
        return await fn(server);
    } finally {
        const { clean, end, dir } = await server.stop();
        if (!clean) {
            console.log(`---- ${suite}: the server ended badly: ${end}; its files are in ${dir}`);
            console.log(readFileSync(path.join(dir, 'log'), 'utf8').slice(-4000));
            table.push({ suite, configuration: 'end of the server', failed: 1 });
        }
    }
}

function tapCounts(output) {
    const last = output.match(/^# passed (\d+) failed (\d+) skipped (\d+) known (\d+)$/m);
    if (!last) return null;
    const [passed, failed, skipped, known] = last.slice(1).map(Number);
    return { passed, failed, skipped, known };
}

async function tapOf(command, suite, configuration, file, options) {
    const began = Date.now();
    const env = { SERVER: kind, ...options?.env };
    const done = await program(command, file ? [file] : [], { ...options, env });
    note(suite, configuration, tapCounts(done.output), { ...done, began });
}

function tap(suite, configuration, file, options) {
    return tapOf(process.execPath, suite, configuration, file, options);
}

/* ---- Our own parts ---- */

async function wire() {
    const keys = mkdtempSync(path.join(os.tmpdir(), 'clients-keys-'));
    const [key, keyFile] = [path.join(keys, 'key.pem'), path.join(keys, 'public.pem')];
    const { generateKeyPairSync } = await import('node:crypto');
    const pair = generateKeyPairSync('ed25519');
    writeFileSync(key, pair.privateKey.export({ type: 'pkcs8', format: 'pem' }));
    writeFileSync(keyFile, pair.publicKey.export({ type: 'spki', format: 'pem' }));
    const adminKey = 'only-for-tests';
    await withServer({}, 'wire', (server) =>
        withServer({ namespaces: true, keyFile, adminKey }, 'wire', async (guarded) => {
            const env = {
                URL: server.url,
                SERVER: kind,
                ACCESS_URL: guarded.url,
                ACCESS_ADMIN_URL: guarded.adminUrl,
                ACCESS_ADMIN_KEY: adminKey,
                ACCESS_KEY: key,
            };
            await tap('wire', 'raw', path.join(here, 'wire.mjs'), { env });
        }),
    );
    rmSync(keys, { recursive: true });
}

async function compare() {
    process.env.SQLD = installSqld();
    await withServer({}, 'compare', async (server) => {
        const theirs = await startServer('sqld', {});
        const env = { OURS: server.url, THEIRS: theirs.url, SERVER: kind };
        await tap('compare', 'with sqld', path.join(here, 'compare.mjs'), { env });
        await theirs.stop();
    });
}

/* Our programs find their packages in the folders above them, so they run from a copy there. */
async function copied(set, fn) {
    const dir = mkdtempSync(path.join(installFrom(set, `${set}/package.json`), 'run-'));
    try {
        cpSync(path.join(here, set), path.join(dir, set), { recursive: true });
        cpSync(path.join(here, 'lib'), path.join(dir, 'lib'), { recursive: true });
        await fn(path.join(dir, set));
    } finally {
        if (!keep) rmSync(dir, { recursive: true, force: true });
    }
}

const bothWays = ['libsql', 'hrana'];
const needs = { kysely: '20', prisma: '20.19' };

function isOlder(version, than) {
    const [a, b] = [version, than].map((text) => text.split('.').map(Number));
    for (let i = 0; i < b.length; i++) {
        if (a[i] !== b[i]) return a[i] < b[i];
    }
    return false;
}

async function adapters(only) {
    await copied('adapters', async (dir) => {
        const names = readdirSync(dir).filter((name) => name.endsWith('.mjs'));
        for (const file of names.sort()) {
            const name = file.replace('.mjs', '');
            if (only ? name !== only : name === 'embedded') continue;
            if (isOlder(process.versions.node, needs[name] ?? '18')) {
                omit(
                    `adapter ${name}`,
                    `it needs node ${needs[name]}, this is ${process.versions.node}`,
                );
                continue;
            }
            for (const way of bothWays.includes(name) ? ['http', 'ws'] : ['http']) {
                await withServer({}, name, async (server) => {
                    const env = { URL: way === 'ws' ? server.wsUrl : server.url, SERVER: kind };
                    await tap(`adapter ${name}`, way, path.join(dir, file), { cwd: dir, env });
                });
            }
        }
    });
}

function embedded() {
    return adapters('embedded');
}

async function sync() {
    await copied('sync', (dir) =>
        withServer({}, 'sync', (server) => {
            const env = { URL: server.url, SERVER: kind };
            return tap('sync', '@tursodatabase/sync', path.join(dir, 'sync.mjs'), {
                cwd: dir,
                env,
            });
        }),
    );
}

/* Starts its servers itself: they are stopped and killed on the way. */
async function replicas() {
    await copied('replicas', (dir) =>
        tap('replicas', 'both kinds', path.join(dir, 'replicas.mjs'), { cwd: dir }),
    );
}

async function orms(only) {
    await copied('orms', async (dir) => {
        const names = readdirSync(dir).filter((name) => name.endsWith('.mjs'));
        for (const file of names.sort()) {
            const name = file.replace('.mjs', '');
            if (only && name !== only) continue;
            await withServer({}, name, (server) => {
                const env = { URL: server.url };
                return tap(`orm ${name}`, 'http', path.join(dir, file), { cwd: dir, env });
            });
        }
    });
}

/* ---- Other languages ---- */

/* A command that must succeed, or what needs it is left out. */
async function must(command, args, options) {
    const { status, output } = await program(command, args, { seconds: 1800, ...options });
    if (status === 0) return output;
    const words = output.trim().split('\n').slice(-3).join(' | ');
    throw new Missing(`${command} ${args[0]} fails (${status}): ${words}`);
}

/* A folder in .deps for a copy of ours, new if ours has changed. */
function copyOf(name) {
    const from = path.join(here, name);
    const hash = crypto.createHash('sha256');
    for (const name of readdirSync(from, { recursive: true }).sort()) {
        const file = path.join(from, name);
        if (statSync(file).isFile()) hash.update(readFileSync(file));
    }
    const dir = path.join(deps, `${name}-${hash.digest('hex').slice(0, 12)}`);
    cpSync(from, dir, { recursive: true });
    return dir;
}

async function go() {
    await must('go', ['version']);
    const dir = copyOf('go');
    await must('go', ['mod', 'tidy'], { cwd: dir });
    await must('go', ['build', '-o', 'checks', '.'], { cwd: dir });
    const client = 'github.com/tursodatabase/libsql-client-go';
    const module = await must('go', ['list', '-m', '-f', '{{.Dir}}', client], { cwd: dir });
    const own = path.join(dir, 'client');
    if (!existsSync(own)) {
        cpSync(module.trim(), own, { recursive: true });
        await must('chmod', ['-R', 'u+w', own]);
    }
    for (const way of ['http', 'ws']) {
        await withServer({}, 'go', async (server) => {
            const env = { URL: way === 'ws' ? server.wsUrl : server.url };
            await tapOf(path.join(dir, 'checks'), 'go', way, null, { env });
            const began = Date.now();
            env[`LIBSQL_TEST_${way.toUpperCase()}_DB_URL`] = env.URL;
            const args = ['test', '-count=1', '-v', `./tests/${way}`];
            const done = await program('go', args, { cwd: own, env });
            const count = (word) =>
                [...done.output.matchAll(new RegExp(`^--- ${word}:`, 'gm'))].length;
            const counts = { passed: count('PASS'), failed: count('FAIL'), skipped: count('SKIP') };
            note('go, own tests', way, counts.passed > 0 ? counts : null, { ...done, began });
        });
    }
}

const pythonWays = [
    ['client', 'libsql-client', { way: 'http' }],
    ['client', 'libsql-client', { way: 'ws' }],
    ['driver', 'libsql', { module: 'libsql' }],
    ['driver', 'libsql-experimental', { module: 'libsql_experimental' }],
    ['alchemy', 'sqlalchemy-libsql', {}],
];

async function python(only) {
    await must('python3', ['--version']);
    const dir = copyOf('python');
    const program = path.join(dir, 'venv/bin/python');
    if (!existsSync(path.join(dir, 'installed'))) {
        await must('python3', ['-m', 'venv', path.join(dir, 'venv')]);
        const file = path.join(dir, 'requirements.txt');
        await must(program, ['-m', 'pip', 'install', '--quiet', '-r', file]);
        writeFileSync(path.join(dir, 'installed'), '');
    }
    for (const [file, name, { way = 'http', module = '' }] of pythonWays) {
        if (only && only !== name) continue;
        await withServer({}, name, (server) => {
            const env = { URL: way === 'ws' ? server.wsUrl : server.url, MODULE: module };
            return tapOf(program, `python ${name}`, way, path.join(dir, `${file}.py`), { env });
        });
    }
}

async function rust() {
    await must('cargo', ['--version']);
    const dir = copyOf('rust');
    await must('cargo', ['build', '--quiet'], { cwd: dir });
    await withServer({}, 'rust', (server) => {
        const file = path.join(dir, 'target/debug/clients');
        return tapOf(file, 'rust libsql', 'http', null, { env: { URL: server.url } });
    });
}

/* ---- Autobahn ---- */

/* Cases 12 and 13 are about compression, which is not offered. */
async function autobahn() {
    const { WSTEST, ECHO } = process.env;
    if (!WSTEST || !ECHO) throw new Missing('WSTEST and ECHO name no programs');
    const began = Date.now();
    const dir = mkdtempSync(path.join(os.tmpdir(), 'clients-autobahn-'));
    const echo = spawn(ECHO, [], { stdio: ['ignore', 'pipe', 'inherit'] });
    const url = await new Promise((resolve) => {
        echo.stdout.once('data', (line) => resolve(String(line).trim()));
        echo.once('error', () => resolve(null));
    });
    if (url === null) throw new Missing(`${ECHO} does not start`);
    const spec = { outdir: path.join(dir, 'reports'), servers: [{ agent: 'sluice', url }] };
    Object.assign(spec, { cases: ['*'], 'exclude-cases': ['12.*', '13.*'] });
    spec['exclude-agent-cases'] = {};
    writeFileSync(path.join(dir, 'spec.json'), JSON.stringify(spec));
    const args = ['-m', 'fuzzingclient', '-s', path.join(dir, 'spec.json')];
    const done = await program(WSTEST, args, { cwd: dir, seconds: 900 });
    echo.kill('SIGTERM');
    const index = path.join(dir, 'reports/index.json');
    let counts = null;
    if (existsSync(index)) {
        const cases = Object.entries(JSON.parse(readFileSync(index, 'utf8')).sluice);
        const good = ['OK', 'NON-STRICT', 'INFORMATIONAL'];
        const bad = cases.filter(
            ([, c]) => !good.includes(c.behavior) || !good.includes(c.behaviorClose),
        );
        counts = { passed: cases.length - bad.length, failed: bad.length };
        done.output = JSON.stringify(bad, null, 1);
    }
    note('autobahn', 'echo', counts, { ...done, began });
    rmSync(dir, { recursive: true, force: true });
}

/* ---- The clients' own tests ---- */

/* Tests that fail and should not count: [server or null for any, suite, names, why]. */
const expected = [
    [
        'sqld',
        'hrana-client',
        /^batches w\/ cursor/,
        'an entry of a cursor that the client does not know',
    ],
    [
        'sqld',
        'hrana-client',
        /^describe\(\) trivial statement$/,
        'its test is about a later order of keys',
    ],
    [
        null,
        'serverless',
        /prepare\(\) method creates|iterate\(\) method works|get\(\) method queries a single/,
        'the tests index rows by position, which the client no longer does',
    ],
    [
        'sqld',
        'serverless',
        /batch\(\) method executes/,
        'a string in double quotes, which libSQL refuses',
    ],
];

function isExpected(suite, name) {
    return expected.some(
        ([server, of, names]) => (server ?? kind) === kind && of === suite && names.test(name),
    );
}

function checkout(name, built, build) {
    const root = process.env.SLUICE_SUITES;
    if (!root) throw new Missing('SLUICE_SUITES names no folder with the sources of the clients');
    const dir = path.resolve(root, name);
    if (!existsSync(dir)) throw new Missing(`there is no ${dir}`);
    if (!existsSync(path.join(dir, built))) build(dir);
    return dir;
}

async function jest(suite, configuration, cwd, env, more = []) {
    const out = path.join(mkdtempSync(path.join(os.tmpdir(), 'clients-jest-')), 'result.json');
    const args = [
        '--no-install',
        'jest',
        '--runInBand',
        '--forceExit',
        '--json',
        `--outputFile=${out}`,
        ...more,
    ];
    const began = Date.now();
    const done = await program('npx', args, { cwd, env });
    let counts = null;
    if (existsSync(out)) {
        const result = JSON.parse(readFileSync(out, 'utf8'));
        counts = {
            passed: result.numPassedTests,
            failed: result.numFailedTests + result.numRuntimeErrorTestSuites,
            skipped: result.numPendingTests,
        };
        let failures = result.testResults.flatMap((file) =>
            file.assertionResults.filter((test) => test.status === 'failed'),
        );
        const all = failures.length;
        failures = failures.filter((test) => !isExpected(suite, test.fullName));
        counts.known = all - failures.length;
        counts.failed -= counts.known;
        const words = failures.map(
            (test) => `${test.fullName}\n${test.failureMessages.join('\n').slice(0, 600)}`,
        );
        done.output = words.join('\n') || done.output.slice(-3000);
    }
    rmSync(path.dirname(out), { recursive: true, force: true });
    if (counts?.failed === 0) done.status = 0;
    note(suite, configuration, counts, { ...done, began });
}

async function libsqlClient(only) {
    const dir = checkout('libsql-client-ts', 'packages/libsql-client/lib-esm', (root) => {
        npm(['ci', '--ignore-scripts'], { cwd: root });
        npm(['run', 'build'], { cwd: root });
    });
    for (const way of only ? [only] : ['http', 'ws']) {
        await withServer({}, 'libsql-client', async (server) => {
            const env = { URL: way === 'ws' ? server.wsUrl : server.url, SERVER: 'sqld' };
            /* Its test of a local replica wants its file in /tmp to be new, and cannot work over a
             * WebSocket: it gives the URL to a part of the client that takes HTTP only. */
            const forget = () =>
                ['', '-wal', '-shm', '-info', '-client_wal_index'].forEach((end) =>
                    rmSync(`/tmp/local.db${end}`, { force: true }),
                );
            const more = way === 'ws' ? ['-t', '^(?!embedded replica test)'] : [];
            forget();
            await jest('libsql-client', way, path.join(dir, 'packages/libsql-client'), env, more);
            forget();
        });
    }
}

/* Version, transport, and what a facade hides so that just this is negotiated. */
const hranaWays = [
    ['1 ws', { protocol: 'hrana1' }],
    ['2 ws', { protocol: 'hrana2' }],
    ['3 ws json', { protocol: 'hrana3' }],
    ['3 ws protobuf', { protocol: 'hrana3-protobuf' }],
    ['3 ws chosen', null],
    ['2 http', { hidden: ['/v3-protobuf', '/v3'] }],
    ['3 http json', { hidden: ['/v3-protobuf'] }],
    ['3 http protobuf', { hidden: ['/v3'] }],
    ['3 http chosen', null],
];

async function hranaClient(only) {
    const dir = checkout('hrana-client-ts', 'node_modules', (root) =>
        npm(['ci', '--ignore-scripts'], { cwd: root }),
    );
    for (const [name, facade] of hranaWays) {
        if (only && name !== only) continue;
        await withServer({}, 'hrana-client', async (server) => {
            const front = facade ? await startFacade(server.url, facade) : server;
            const [version, way] = name.split(' ');
            const env = { URL: way === 'ws' ? front.wsUrl : front.url, VERSION: version };
            await jest('hrana-client', name, dir, env);
            if (front !== server) front.stop();
        });
    }
}

async function ava(suite, configuration, cwd, args, env) {
    const began = Date.now();
    const done = await program('npx', ['--no-install', 'ava', '--tap', ...args], { cwd, env });
    const count = (label) =>
        Number(done.output.match(new RegExp(`^# ${label} (\\d+)$`, 'm'))?.[1] ?? NaN);
    const counts = {
        passed: count('pass'),
        failed: count('fail') || 0,
        skipped: count('skip') || 0,
    };
    const failures = [...done.output.matchAll(/^not ok \d+ - (.*)$/gm)].map((match) => match[1]);
    counts.known = failures.filter((name) => isExpected(suite, name)).length;
    counts.failed -= counts.known;
    if (counts.passed > 0 && counts.failed === 0) done.status = 0;
    note(suite, configuration, Number.isNaN(counts.passed) ? null : counts, { ...done, began });
}

async function serverless() {
    const root = checkout('turso/serverless/javascript', 'dist', (dir) => {
        npm(['ci', '--ignore-scripts'], { cwd: dir });
        npm(['rebuild', 'esbuild'], { cwd: dir });
        npm(['exec', '--', 'tsup'], { cwd: dir });
    });
    await withServer({}, 'serverless', async (server) => {
        const tests = readdirSync(path.join(root, 'integration-tests')).filter((name) =>
            name.endsWith('.test.mjs'),
        );
        const env = { TURSO_DATABASE_URL: server.url };
        await ava(
            'serverless',
            'its tests',
            root,
            tests.map((name) => `integration-tests/${name}`),
            env,
        );
    });
    const differential = path.join(root, 'differential');
    if (!existsSync(path.join(differential, 'node_modules'))) {
        const file = path.join(differential, 'package.json');
        const wanted = JSON.parse(readFileSync(file, 'utf8'));
        wanted.dependencies = {
            '@tursodatabase/database': '0.7.2',
            '@tursodatabase/serverless': 'file:..',
        };
        writeFileSync(file, JSON.stringify(wanted, null, 2));
        npm(['install', '--no-package-lock'], { cwd: differential });
    }
    await withServer({}, 'serverless', async (server) => {
        const env = { TURSO_DATABASE_URL: server.url, TURSO_AUTH_TOKEN: 'x' };
        env.HEGEL_NUM_RUNS = process.env.HEGEL_NUM_RUNS ?? '10';
        await ava('serverless', 'differential', differential, ['--timeout=5m'], env);
    });
}

/* ---- */

const parts = { wire, compare, adapters, embedded, sync, replicas, 'libsql-client': libsqlClient };
Object.assign(parts, { 'hrana-client': hranaClient, serverless });
Object.assign(parts, { orms, go, python, rust, autobahn });

function printTable() {
    const rows = table.map((row) =>
        [
            row.suite,
            row.configuration,
            row.passed,
            row.failed,
            row.skipped,
            row.known,
            row.seconds,
        ].map((cell) => String(cell ?? '')),
    );
    rows.unshift(['suite', 'configuration', 'passed', 'failed', 'skipped', 'known', 'seconds']);
    const widths = rows[0].map((_, i) =>
        Math.max(
            ...rows.filter((_, n) => !table[n - 1]?.omitted || i === 0).map((row) => row[i].length),
        ),
    );
    console.log(`\nserver: ${kind}`);
    for (const row of rows) {
        const cells = row.map((cell, i) =>
            i < 2 ? cell.padEnd(widths[i]) : cell.padStart(widths[i]),
        );
        console.log(cells.join('  ').trimEnd());
    }
}

async function main() {
    const wanted = [];
    for (let args = process.argv.slice(2); args.length > 0;) {
        const arg = args.shift();
        if (arg === '--server') kind = args.shift();
        else if (arg === '--keep') keep = true;
        else wanted.push(arg);
    }
    if (!['sluice', 'sqld'].includes(kind))
        throw new Error(`--server: sluice or sqld, not '${kind}'`);
    for (const part of wanted) {
        if (!parts[part.split(':')[0]]) throw new Error(`there is no part '${part}'`);
    }
    if (kind === 'sqld') process.env.SQLD = installSqld();
    const file = programOf(kind);
    if (!file) throw new Missing('SLUICE names no program to test');
    if (!existsSync(file)) throw new Error(`there is no program '${file}'`);
    process.env[kind === 'sqld' ? 'SQLD' : 'SLUICE'] = path.resolve(file);
    for (const part of wanted.length > 0 ? wanted : ['wire', 'compare', 'adapters']) {
        const [name, only] = part.split(':');
        try {
            await parts[name](only);
        } catch (error) {
            if (!(error instanceof Missing)) throw error;
            omit(part, error.message);
        }
    }
    printTable();
    if (table.some((row) => row.failed > 0)) return 1;
    return table.every((row) => row.omitted) ? 77 : 0;
}

main().then(
    (status) => process.exit(status),
    (error) => {
        console.log(error instanceof Missing ? `SKIPPED: ${error.message}` : error.stack);
        process.exit(error instanceof Missing ? 77 : 1);
    },
);
