/*
 * knex.mjs -- Knex with @libsql/knex-libsql, which speaks version 2 of Hrana over a WebSocket by
 * way of @libsql/sqlite3: migrations, types, transactions.
 */
import knexLibrary from 'knex';
import dialect from '@libsql/knex-libsql';
import { assert, runChecks } from '../lib/check.mjs';

const filename = process.env.URL.replace(/^http/, 'ws');
const db = knexLibrary({ client: dialect, connection: { filename }, useNullAsDefault: true });

const steps = {
    first: {
        async up(trx) {
            await trx.schema.createTable('authors', (t) => {
                t.increments('id');
                t.string('name').notNullable().unique();
            });
            await trx.schema.createTable('books', (t) => {
                t.increments('id');
                t.integer('author_id').references('authors.id').onDelete('CASCADE');
                t.string('title').index();
                t.decimal('price');
                t.binary('cover');
                t.bigInteger('isbn');
                t.timestamp('made').defaultTo(db.fn.now());
            });
        },
        down: (trx) => trx.schema.dropTable('books').dropTable('authors'),
    },
    second: {
        async up(trx) {
            await trx.schema.alterTable('books', (t) => t.integer('pages').defaultTo(1));
            await trx.schema.alterTable('books', (t) => t.renameColumn('title', 'name'));
        },
        async down(trx) {
            await trx.schema.alterTable('books', (t) => t.renameColumn('name', 'title'));
            await trx.schema.alterTable('books', (t) => t.dropColumn('pages'));
        },
    },
    bad: {
        async up(trx) {
            await trx.schema.createTable('half', (t) => t.increments('id'));
            await trx.raw('SELECT * FROM nowhere');
        },
        down: async () => {},
    },
};

function source(names) {
    return {
        migrationSource: {
            getMigrations: async () => names,
            getMigrationName: (name) => name,
            getMigration: async (name) => steps[name],
        },
    };
}

const checks = [
    [
        'migrations up and down; one that fails leaves nothing',
        async () => {
            assert.deepEqual((await db.migrate.latest(source(['first'])))[1], ['first']);
            const both = source(['first', 'second']);
            assert.deepEqual((await db.migrate.latest(both))[1], ['second']);
            assert.ok(await db.schema.hasColumn('books', 'name'));
            await db.migrate.rollback(both);
            assert.ok(await db.schema.hasColumn('books', 'title'));
            await db.migrate.latest(both);
            const bad = source(['first', 'second', 'bad']);
            await assert.rejects(db.migrate.latest(bad), /no such table: nowhere/);
            assert.equal(await db.schema.hasTable('half'), false);
        },
    ],
    [
        'rows, values, a blob of 1 MB',
        async () => {
            const [id] = await db('authors').insert({ name: 'Łódź \u{1f600}' });
            assert.equal(id, 1);
            const cover = Buffer.alloc(1 << 20, 7);
            const list = [
                { author_id: 1, name: 'one', price: 12.5, cover, isbn: 2 ** 52 },
                { author_id: 1, name: '', price: null },
            ];
            await db('books').insert(list);
            const [one, two] = await db('books').orderBy('id');
            assert.deepEqual([one.name, one.price, one.isbn, one.pages], ['one', 12.5, 2 ** 52, 1]);
            assert.ok(Buffer.from(one.cover).equals(cover));
            assert.deepEqual([two.name, two.price, two.cover], ['', null, null]);
            assert.match(one.made, /^\d{4}-\d\d-\d\d /);
            const all = db('books').join('authors', 'authors.id', 'author_id');
            assert.deepEqual(await all.count('* as n'), [{ n: 2 }]);
            const back = await db('books').where({ id: 2 }).update({ price: 1 }).returning('price');
            assert.deepEqual(back, [{ price: 1 }]);
        },
    ],
    [
        'constraints',
        async () => {
            const same = db('authors').insert({ name: 'Łódź \u{1f600}' });
            await assert.rejects(same, /UNIQUE constraint failed: authors.name/);
            await assert.rejects(db('authors').insert({ name: null }), /NOT NULL constraint/);
            const upsert = db('authors').insert({ id: 9, name: 'Łódź \u{1f600}' });
            await upsert.onConflict('name').ignore();
            await assert.rejects(db('books').insert({ author_id: 99 }), /FOREIGN KEY constraint/);
        },
    ],
    [
        'transactions: commit, rollback, an error, a savepoint',
        async () => {
            await db.transaction((trx) => trx('authors').insert({ name: 'kept' }));
            const gone = db.transaction(async (trx) => {
                await trx('authors').insert({ name: 'gone' });
                throw new Error('no');
            });
            await assert.rejects(gone, /no/);
            await db.transaction(async (trx) => {
                await assert.rejects(trx('authors').insert({ name: 'kept' }), /UNIQUE/);
                const inner = trx.transaction(async (sp) => {
                    await sp('authors').insert({ name: 'inner' });
                    throw new Error('back');
                });
                await assert.rejects(inner, /back/);
                await trx('authors').insert({ name: 'outer' });
            });
            const names = await db('authors').orderBy('id').pluck('name');
            assert.deepEqual(names.slice(1), ['kept', 'outer']);
        },
    ],
    [
        'many at once',
        async () => {
            await db.schema.createTable('counter', (t) => t.integer('n'));
            await db('counter').insert({ n: 0 });
            const add = () =>
                db.transaction(async (trx) => {
                    const [{ n }] = await trx('counter').select('n');
                    await trx('counter').update({ n: n + 1 });
                });
            await Promise.all(Array.from({ length: 20 }, add));
            assert.deepEqual(await db('counter').select('n'), [{ n: 20 }]);
        },
    ],
];

await runChecks(`knex: ${filename}`, checks, { after: () => db.destroy() });
