/*
 * wire.mjs -- does a server speak Hrana as it is written? Raw requests, no client library.
 *
 *   URL=http://HOST:PORT SERVER=sluice|sqld node wire.mjs [WORDS]
 *
 * WORDS: only the checks whose names have them. With SERVER=sqld the checks that say how it
 * deviates must fail. ACCESS_URL: a second server that asks for tokens, see wire/access.mjs.
 */
import { runChecks } from './lib/check.mjs';
import batch from './wire/batch.mjs';
import http from './wire/http.mjs';
import pipeline, { startIdle } from './wire/pipeline.mjs';
import protobuf from './wire/protobuf.mjs';
import ws from './wire/ws.mjs';
import access from './wire/access.mjs';

const server = process.env.SERVER ?? 'sluice';
const checks = [...http, ...batch, ...ws, ...protobuf, ...access, ...pipeline];
startIdle();
await runChecks(
    `wire: ${process.env.URL}`,
    checks.map(([name, fn, known]) => [name, fn, known?.[server]]),
    { only: process.argv[2] },
);
