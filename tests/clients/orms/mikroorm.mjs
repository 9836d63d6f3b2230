/*
 * mikroorm.mjs -- MikroORM with @mikro-orm/libsql, whose driver is the native package libsql:
 * entities, the schema generator, transactions.
 */
import { MikroORM, EntitySchema } from '@mikro-orm/libsql';
import { assert, runChecks } from '../lib/check.mjs';

const Author = new EntitySchema({
    name: 'Author',
    properties: {
        id: { type: 'number', primary: true },
        name: { type: 'string', unique: true },
        books: { kind: '1:m', entity: () => 'Book', mappedBy: 'author', orphanRemoval: true },
    },
});
const bookProperties = {
    id: { type: 'number', primary: true },
    title: { type: 'string', index: true },
    price: { type: 'decimal', nullable: true },
    isbn: { type: 'bigint', nullable: true },
    cover: { type: 'blob', nullable: true },
    made: { type: 'datetime', nullable: true },
    extra: { type: 'json', nullable: true },
    kept: { type: 'boolean', default: false },
    author: { kind: 'm:1', entity: () => 'Author', deleteRule: 'cascade' },
};
const Book = new EntitySchema({ name: 'Book', properties: bookProperties });
const Later = new EntitySchema({
    name: 'Book',
    properties: { ...bookProperties, pages: { type: 'number', default: 1 } },
});

const open = (entities) => MikroORM.init({ entities, dbName: process.env.URL, debug: false });
let orm;

const checks = [
    [
        'the schema, made and updated',
        async () => {
            orm = await open([Author, Book]);
            await orm.schema.update();
            await orm.close();
            orm = await open([Author, Later]);
            const sql = await orm.schema.getUpdateSchemaSQL();
            assert.match(sql, /add column `pages`/);
            await orm.schema.update();
            assert.equal((await orm.schema.getUpdateSchemaSQL()).trim(), '');
        },
    ],
    [
        'entities with values of all types',
        async () => {
            const em = orm.em.fork();
            const author = em.create('Author', { name: 'Łódź \u{1f600}' });
            const made = new Date('2026-02-03T04:05:06.789Z');
            const cover = Buffer.alloc(1 << 20, 7);
            em.create('Book', {
                author,
                title: 'one',
                price: '12.5',
                isbn: 2 ** 52,
                cover,
                made,
                extra: { a: [1, null] },
                kept: true,
            });
            em.create('Book', { author, title: '' });
            await em.flush();
            const other = orm.em.fork();
            const how = { orderBy: { id: 1 }, populate: ['*'] };
            const [one, two] = await other.find('Book', {}, how);
            assert.equal(one.author.name, 'Łódź \u{1f600}');
            assert.deepEqual([one.title, Number(one.price)], ['one', 12.5]);
            assert.equal(Number(one.isbn), 2 ** 52);
            assert.deepEqual([one.made, one.extra, one.kept], [made, { a: [1, null] }, true]);
            assert.ok(Buffer.from(one.cover).equals(cover));
            assert.deepEqual([two.title, two.price, two.kept], ['', null, false]);
        },
    ],
    [
        'constraints',
        async () => {
            const em = orm.em.fork();
            em.create('Author', { name: 'Łódź \u{1f600}' });
            await assert.rejects(em.flush(), /UNIQUE constraint failed/);
        },
    ],
    [
        'transactions: commit, rollback, a savepoint',
        async () => {
            const em = orm.em.fork();
            await em.transactional((tx) => tx.create('Author', { name: 'kept' }));
            const gone = em.transactional(async (tx) => {
                tx.create('Author', { name: 'gone' });
                await tx.flush();
                throw new Error('no');
            });
            await assert.rejects(gone, /no/);
            await orm.em.fork().transactional(async (tx) => {
                tx.create('Author', { name: 'outer' });
                await tx.flush();
                const inner = tx.transactional(async (sp) => {
                    sp.create('Author', { name: 'inner' });
                    await sp.flush();
                    throw new Error('back');
                });
                await assert.rejects(inner, /back/);
            });
            const names = (await orm.em.fork().find('Author', {})).map((a) => a.name);
            assert.deepEqual(names.sort(), ['kept', 'outer', 'Łódź \u{1f600}']);
        },
    ],
    [
        'what hangs on a row goes with it',
        async () => {
            const em = orm.em.fork();
            await em.nativeDelete('Author', { name: 'Łódź \u{1f600}' });
            assert.equal(await em.count('Book'), 0);
        },
    ],
];

await runChecks(`MikroORM: ${process.env.URL}`, checks, { after: () => orm?.close() });
