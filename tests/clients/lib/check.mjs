/*
 * check.mjs -- runs named checks one after another and prints TAP. A check fails by throwing.
 */
import assert from 'node:assert/strict';

export { assert };

export class Skip extends Error {}
export function skip(reason) {
    throw new Skip(reason);
}

/* A check is [name, function, known]: `known` is the reason why this server is expected to fail it,
 * or undefined. An expected failure that does not fail is a failure of the list. Ends the
 * process. A check may be skipped for what another server does not have, or for a program that was
 * started by hand; with SERVER=sluice, as `run` has it, that is a failure. */
export async function runChecks(title, checks, { only, after } = {}) {
    const count = { passed: 0, failed: 0, skipped: 0, known: 0 };
    let number = 0;
    const print = (ok, text) =>
        console.log(visible(`${ok ? 'ok' : 'not ok'} ${++number} - ${text}`));
    console.log(`# ${title}`);
    for (const [name, fn, known] of checks) {
        if (only && !name.includes(only)) continue;
        try {
            await limited(fn, name);
            if (known) {
                count.failed++;
                print(false, `${name}: was expected to fail here (${known})`);
            } else {
                count.passed++;
                print(true, name);
            }
        } catch (error) {
            if (error instanceof Skip && process.env.SERVER === 'sluice') {
                count.failed++;
                print(false, `${name}: skipped, but nothing is to be missing here`);
                console.log(indent(error.message));
            } else if (error instanceof Skip) {
                count.skipped++;
                print(true, `${name} # SKIP ${error.message}`);
            } else if (known) {
                count.known++;
                print(true, `${name} # KNOWN ${known}: ${oneLine(error.message)}`);
            } else {
                count.failed++;
                print(false, name);
                console.log(visible(indent(error.stack ?? String(error))));
            }
        }
    }
    if (after) await after();
    const { passed, failed, skipped, known } = count;
    console.log(`1..${number}`);
    console.log(`# passed ${passed} failed ${failed} skipped ${skipped} known ${known}`);
    process.exit(failed > 0 ? 1 : 0);
}

function limited(fn, name) {
    let timer;
    const late = new Promise((_, reject) => {
        timer = setTimeout(() => reject(new Error(`${name}: no end after 60 s`)), 60000);
    });
    return Promise.race([Promise.resolve().then(fn), late]).finally(() => clearTimeout(timer));
}

/* Control characters, which SQL may have, as text. */
function visible(text) {
    return text.replace(
        /[\x00-\x09\x0b-\x1f]/g,
        (c) => `\\x${c.charCodeAt(0).toString(16).padStart(2, '0')}`,
    );
}

function oneLine(text) {
    const line = String(text).replace(/\s+/g, ' ');
    return line.length > 160 ? line.slice(0, 157) + '...' : line;
}

function indent(text) {
    return text
        .split('\n')
        .map((line) => `#   ${line}`)
        .join('\n');
}
