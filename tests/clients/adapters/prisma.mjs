/*
 * prisma.mjs -- Prisma over @prisma/adapter-libsql, with the query compiler that needs no engine of
 * its own. Its migrations are SQL files, which we apply: Prisma's program for that is a download.
 */
import { createClient } from '@libsql/client';
import { PrismaLibSql } from '@prisma/adapter-libsql';
import { spawnSync } from 'node:child_process';
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { createRequire } from 'node:module';
import path from 'node:path';
import { assert, runChecks } from '../lib/check.mjs';

const require = createRequire(import.meta.url);
const here = path.join(path.dirname(new URL(import.meta.url).pathname), 'prisma');
const url = process.env.URL;
let prisma;
let P;

/* Makes the client from the schema. The engine that it would like to have is never started. */
function generate() {
    writeFileSync(
        path.join(here, 'prisma.config.mjs'),
        `export default { schema: 'schema.prisma', datasource: { url: 'file:none.db' } };\n`,
    );
    const program = path.join(
        path.dirname(require.resolve('prisma/package.json')),
        'build/index.js',
    );
    const env = {
        ...process.env,
        PRISMA_SCHEMA_ENGINE_BINARY: '/bin/true',
        CHECKPOINT_DISABLE: '1',
    };
    const done = spawnSync(process.execPath, [program, 'generate'], {
        cwd: here,
        env,
        encoding: 'utf8',
    });
    assert.equal(done.status, 0, done.stdout + done.stderr);
    const { PrismaClient, Prisma } = require(path.join(here, 'client'));
    prisma = new PrismaClient({ adapter: new PrismaLibSql({ url, intMode: 'bigint' }) });
    P = Prisma;
}

async function failure(promise) {
    return promise.then(
        () => assert.fail('it was expected to fail'),
        (error) => error,
    );
}

const checks = [
    ['the client is made from the schema', generate],
    [
        'migrations are applied',
        async () => {
            const client = createClient({ url });
            const dir = path.join(here, 'migrations');
            for (const file of readdirSync(dir).sort()) {
                await client.executeMultiple(readFileSync(path.join(dir, file), 'utf8'));
            }
            client.close();
        },
    ],
    [
        'create with nested rows; types',
        async () => {
            const opened = new Date('2026-01-02T03:04:05.678Z');
            const shop = await prisma.shop.create({
                data: {
                    name: 'Tea',
                    opened,
                    products: {
                        create: [
                            {
                                sku: 'a1',
                                price: 1.25,
                                stock: 9007199254740993n,
                                photo: new Uint8Array([0, 255, 7]),
                            },
                            { sku: 'a2', price: 2, onSale: true },
                        ],
                    },
                },
                include: { products: { orderBy: { sku: 'asc' } } },
            });
            assert.deepEqual(shop.opened, opened);
            assert.equal(shop.products[0].stock, 9007199254740993n);
            assert.deepEqual(new Uint8Array(shop.products[0].photo), new Uint8Array([0, 255, 7]));
            assert.deepEqual(
                shop.products.map((p) => p.onSale),
                [false, true],
            );
        },
    ],
    [
        'find: where, order, take, select',
        async () => {
            const list = await prisma.product.findMany({
                where: { price: { gte: 1 }, shop: { name: { startsWith: 'Te' } } },
                orderBy: { price: 'desc' },
                take: 1,
                select: { sku: true, shop: { select: { name: true } } },
            });
            assert.deepEqual(list, [{ sku: 'a2', shop: { name: 'Tea' } }]);
            assert.equal(await prisma.shop.findUnique({ where: { name: 'None' } }), null);
        },
    ],
    [
        'createMany, count, aggregate, groupBy',
        async () => {
            const data = Array.from({ length: 300 }, (_, i) => ({
                shopId: 1,
                sku: `m${i}`,
                price: i,
                onSale: i % 3 === 0,
            }));
            assert.equal((await prisma.product.createMany({ data })).count, 300);
            assert.equal(await prisma.product.count({ where: { onSale: true } }), 101);
            const { _sum } = await prisma.product.aggregate({
                _sum: { price: true },
                where: { sku: { startsWith: 'm' } },
            });
            assert.equal(_sum.price, 44850);
            const groups = await prisma.product.groupBy({
                by: ['onSale'],
                _count: true,
                orderBy: { onSale: 'asc' },
            });
            assert.deepEqual(
                groups.map((g) => g._count),
                [201, 101],
            );
        },
    ],
    [
        'update, upsert, updateMany, delete',
        async () => {
            const where = { shopId_sku: { shopId: 1, sku: 'a1' } };
            const updated = await prisma.product.update({
                where,
                data: { stock: { increment: 2n } },
            });
            assert.equal(updated.stock, 9007199254740995n);
            for (const name of ['Coffee', 'Coffee']) {
                await prisma.shop.upsert({
                    where: { name },
                    create: { name },
                    update: { opened: new Date(0) },
                });
            }
            assert.equal(await prisma.shop.count(), 2);
            assert.equal(
                (
                    await prisma.product.updateMany({
                        where: { price: { gt: 290 } },
                        data: { onSale: true },
                    })
                ).count,
                9,
            );
            await prisma.product.delete({ where });
            assert.equal(await prisma.product.findUnique({ where }), null);
        },
    ],
    [
        'many to many',
        async () => {
            const where = { shopId_sku: { shopId: 1, sku: 'a2' } };
            const create = (name) => ({ where: { name }, create: { name } });
            await prisma.product.update({
                where,
                data: { labels: { connectOrCreate: [create('green'), create('new')] } },
            });
            const found = await prisma.label.findMany({
                where: { products: { some: { sku: 'a2' } } },
                orderBy: { name: 'asc' },
            });
            assert.deepEqual(
                found.map((l) => l.name),
                ['green', 'new'],
            );
        },
    ],
    /* The adapter looks for SQLite's extended codes as numbers, which no client gets over a
     * network: so its errors are of one kind, with SQLite's words in them. */
    [
        "errors have SQLite's words",
        async () => {
            const unique = await failure(prisma.shop.create({ data: { name: 'Tea' } }));
            assert.ok(unique instanceof P.PrismaClientKnownRequestError, String(unique));
            assert.match(unique.message, /UNIQUE constraint failed: Shop\.name/);
            const foreign = await failure(
                prisma.product.create({ data: { shopId: 999, sku: 'x', price: 1 } }),
            );
            assert.match(foreign.message, /FOREIGN KEY constraint failed/);
            const missing = await failure(prisma.shop.delete({ where: { id: 999 } }));
            assert.equal(missing.code, 'P2025');
        },
    ],
    [
        'transactions: a list, and interactive',
        async () => {
            await prisma.$transaction([
                prisma.label.create({ data: { name: 't1' } }),
                prisma.label.create({ data: { name: 't2' } }),
            ]);
            await failure(
                prisma.$transaction([
                    prisma.label.create({ data: { name: 't3' } }),
                    prisma.label.create({ data: { name: 't1' } }),
                ]),
            );
            await prisma.$transaction(async (tx) => {
                await tx.label.create({ data: { name: 't4' } });
                assert.equal(await tx.label.count({ where: { name: 't4' } }), 1);
            });
            await failure(
                prisma.$transaction(async (tx) => {
                    await tx.label.create({ data: { name: 't5' } });
                    throw new Error('on purpose');
                }),
            );
            const names = await prisma.label.findMany({
                where: { name: { startsWith: 't' } },
                orderBy: { name: 'asc' },
            });
            assert.deepEqual(
                names.map((l) => l.name),
                ['t1', 't2', 't4'],
            );
        },
    ],
    [
        'raw SQL',
        async () => {
            const rows = await prisma.$queryRaw`SELECT name, ${1} + 1 AS two FROM Shop ORDER BY id`;
            assert.equal(rows[0].name, 'Tea');
            assert.equal(Number(rows[0].two), 2);
            assert.equal(
                await prisma.$executeRaw`UPDATE Shop SET name = 'Teas' WHERE name = 'Tea'`,
                1,
            );
        },
    ],
    [
        'cascades',
        async () => {
            await prisma.shop.delete({ where: { name: 'Teas' } });
            assert.equal(await prisma.product.count(), 0);
        },
    ],
];

await runChecks(`Prisma: ${url}`, checks, { after: () => prisma?.$disconnect() });
