/*
 * kysely.mjs -- Kysely over @libsql/kysely-libsql, which brings an old @libsql/client with it:
 * migrations with its Migrator, queries, transactions.
 */
import { LibsqlDialect } from '@libsql/kysely-libsql';
import { Kysely, Migrator, sql } from 'kysely';
import { assert, runChecks } from '../lib/check.mjs';

const db = new Kysely({ dialect: new LibsqlDialect({ url: process.env.URL }) });

const migrations = {
    '2026-01-01-start': {
        async up(k) {
            await k.schema
                .createTable('person')
                .addColumn('id', 'integer', (c) => c.primaryKey().autoIncrement())
                .addColumn('name', 'varchar(60)', (c) => c.notNull().unique())
                .addColumn('data', 'blob')
                .addColumn('created', 'timestamp', (c) =>
                    c.defaultTo(sql`CURRENT_TIMESTAMP`).notNull(),
                )
                .execute();
            await k.schema
                .createTable('pet')
                .addColumn('id', 'integer', (c) => c.primaryKey())
                .addColumn('owner_id', 'integer', (c) =>
                    c.references('person.id').onDelete('cascade').notNull(),
                )
                .addColumn('name', 'text', (c) => c.notNull())
                .execute();
            await k.schema.createIndex('pet_owner').on('pet').column('owner_id').execute();
        },
        async down(k) {
            await k.schema.dropTable('pet').execute();
            await k.schema.dropTable('person').execute();
        },
    },
    '2026-02-01-species': {
        async up(k) {
            await k.schema
                .alterTable('pet')
                .addColumn('species', 'text', (c) => c.defaultTo('cat'))
                .execute();
            await k.schema
                .createView('owners')
                .as(
                    k
                        .selectFrom('person')
                        .innerJoin('pet', 'owner_id', 'person.id')
                        .select(['person.name as owner', 'pet.name as pet']),
                )
                .execute();
        },
        async down(k) {
            await k.schema.dropView('owners').execute();
            await k.schema.alterTable('pet').dropColumn('species').execute();
        },
    },
};
const migrator = new Migrator({ db, provider: { getMigrations: async () => migrations } });

function good({ error, results }) {
    if (error) throw error;
    return results.map((r) => `${r.direction} ${r.status}`).join();
}

const checks = [
    [
        'migrations go up, down and up again',
        async () => {
            assert.equal(good(await migrator.migrateToLatest()), 'Up Success,Up Success');
            assert.equal(good(await migrator.migrateDown()), 'Down Success');
            assert.equal(good(await migrator.migrateToLatest()), 'Up Success');
            assert.equal(good(await migrator.migrateToLatest()), '');
        },
    ],
    [
        'two migrators at a time do not hurt',
        async () => {
            const second = new Migrator({
                db,
                provider: { getMigrations: async () => migrations },
            });
            const all = await Promise.all([migrator.migrateToLatest(), second.migrateToLatest()]);
            assert.ok(all.every((result) => result.error === undefined));
        },
    ],
    [
        'introspection sees tables and columns',
        async () => {
            const tables = await db.introspection.getTables();
            const pet = tables.find((t) => t.name === 'pet');
            assert.deepEqual(
                pet.columns.map((c) => c.name),
                ['id', 'owner_id', 'name', 'species'],
            );
            assert.ok(tables.find((t) => t.name === 'owners').isView);
        },
    ],
    [
        'insert, returning, values',
        async () => {
            const data = new Uint8Array([0, 1, 255]);
            const row = await db
                .insertInto('person')
                .values({ name: 'Ada', data })
                .returning(['id', 'data'])
                .executeTakeFirstOrThrow();
            assert.equal(row.id, 1);
            assert.deepEqual(new Uint8Array(row.data), data);
            const result = await db
                .insertInto('pet')
                .values([
                    { owner_id: 1, name: 'Tom' },
                    { owner_id: 1, name: 'Rex' },
                ])
                .executeTakeFirst();
            assert.equal(result.numInsertedOrUpdatedRows, 2n);
            assert.equal(result.insertId, 2n);
        },
    ],
    [
        'select, join, update, delete',
        async () => {
            const owners = await db.selectFrom('owners').selectAll().orderBy('pet').execute();
            assert.deepEqual(owners, [
                { owner: 'Ada', pet: 'Rex' },
                { owner: 'Ada', pet: 'Tom' },
            ]);
            const updated = await db
                .updateTable('pet')
                .set({ species: 'dog' })
                .where('name', '=', 'Rex')
                .executeTakeFirst();
            assert.equal(updated.numUpdatedRows, 1n);
            const dogs = await db
                .selectFrom('pet')
                .select(({ fn }) => fn.countAll().as('n'))
                .where('species', '=', 'dog')
                .executeTakeFirst();
            assert.equal(Number(dogs.n), 1);
            const removed = await db.deleteFrom('pet').where('name', '=', 'Rex').executeTakeFirst();
            assert.equal(removed.numDeletedRows, 1n);
        },
    ],
    [
        'upsert',
        async () => {
            await db
                .insertInto('person')
                .values({ name: 'Ada' })
                .onConflict((c) => c.column('name').doNothing())
                .execute();
            const { n } = await db
                .selectFrom('person')
                .select(({ fn }) => fn.countAll().as('n'))
                .executeTakeFirst();
            assert.equal(Number(n), 1);
        },
    ],
    [
        'errors',
        async () => {
            const error = await db
                .insertInto('person')
                .values({ name: 'Ada' })
                .execute()
                .catch((e) => e);
            assert.equal(error.code, 'SQLITE_CONSTRAINT');
            assert.match(error.message, /UNIQUE constraint failed: person\.name/);
            const foreign = await db
                .insertInto('pet')
                .values({ owner_id: 77, name: 'x' })
                .execute()
                .catch((e) => e);
            assert.match(foreign.message, /FOREIGN KEY/);
        },
    ],
    [
        'transactions',
        async () => {
            await db.transaction().execute(async (trx) => {
                const { id } = await trx
                    .insertInto('person')
                    .values({ name: 'Grace' })
                    .returning('id')
                    .executeTakeFirst();
                await trx.insertInto('pet').values({ owner_id: id, name: 'Moth' }).execute();
            });
            await assert.rejects(
                db.transaction().execute(async (trx) => {
                    await trx.insertInto('person').values({ name: 'Nobody' }).execute();
                    throw new Error('on purpose');
                }),
                /on purpose/,
            );
            const names = await db.selectFrom('person').select('name').orderBy('id').execute();
            assert.deepEqual(
                names.map((n) => n.name),
                ['Ada', 'Grace'],
            );
        },
    ],
    [
        'raw SQL',
        async () => {
            const { rows } = await sql`SELECT ${5} + ${2} AS seven`.execute(db);
            assert.equal(rows[0].seven, 7);
        },
    ],
];

await runChecks(`Kysely: ${process.env.URL}`, checks, { after: () => db.destroy() });
