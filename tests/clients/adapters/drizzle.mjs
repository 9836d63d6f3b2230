/*
 * drizzle.mjs -- Drizzle over @libsql/client: its migrator, relations, transactions, batches.
 */
import { createClient } from '@libsql/client';
import { and, count, desc, eq, gt, inArray, relations, sql } from 'drizzle-orm';
import { drizzle } from 'drizzle-orm/libsql';
import { migrate } from 'drizzle-orm/libsql/migrator';
import { blob, index, integer, primaryKey, real, sqliteTable, text } from 'drizzle-orm/sqlite-core';
import { cpSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { assert, runChecks } from '../lib/check.mjs';

const users = sqliteTable('users', {
    id: integer('id').primaryKey({ autoIncrement: true }),
    email: text('email').notNull().unique(),
    createdAt: integer('created_at', { mode: 'timestamp_ms' })
        .notNull()
        .$defaultFn(() => new Date()),
    settings: text('settings', { mode: 'json' }),
    balance: blob('balance', { mode: 'bigint' }),
});
const posts = sqliteTable(
    'posts',
    {
        id: integer('id').primaryKey({ autoIncrement: true }),
        authorId: integer('author_id')
            .notNull()
            .references(() => users.id, { onDelete: 'cascade' }),
        title: text('title').notNull(),
        published: integer('published', { mode: 'boolean' }).notNull().default(false),
        score: real('score').notNull().default(0),
    },
    (table) => [index('posts_author').on(table.authorId)],
);
const tags = sqliteTable('tags', { name: text('name').primaryKey() });
const postsTags = sqliteTable(
    'posts_tags',
    {
        postId: integer('post_id')
            .notNull()
            .references(() => posts.id, { onDelete: 'cascade' }),
        tag: text('tag')
            .notNull()
            .references(() => tags.name, { onUpdate: 'cascade' }),
    },
    (table) => [primaryKey({ columns: [table.postId, table.tag] })],
);
const usersRelations = relations(users, ({ many }) => ({ posts: many(posts) }));
const postsRelations = relations(posts, ({ one, many }) => ({
    author: one(users, { fields: [posts.authorId], references: [users.id] }),
    tags: many(postsTags),
}));
const postsTagsRelations = relations(postsTags, ({ one }) => ({
    post: one(posts, { fields: [postsTags.postId], references: [posts.id] }),
}));
const schema = {
    users,
    posts,
    tags,
    postsTags,
    usersRelations,
    postsRelations,
    postsTagsRelations,
};

const client = createClient({ url: process.env.URL });
const db = drizzle(client, { schema });
const migrations = path.join(
    import.meta.dirname ?? path.dirname(new URL(import.meta.url).pathname),
    'drizzle',
);

/* The SQLite error below drizzle's own. */
async function cause(promise) {
    const error = await promise.then(
        () => assert.fail('it was expected to fail'),
        (e) => e,
    );
    return error.cause ?? error;
}

const checks = [
    [
        'the migrator applies the first migration',
        async () => {
            const dir = mkdtempSync(path.join(path.dirname(migrations), 'first-'));
            cpSync(migrations, dir, { recursive: true });
            const file = path.join(dir, 'meta/_journal.json');
            const journal = JSON.parse(readFileSync(file, 'utf8'));
            journal.entries.length = 1;
            writeFileSync(file, JSON.stringify(journal));
            await migrate(db, { migrationsFolder: dir });
            rmSync(dir, { recursive: true });
            await db.run(sql`INSERT INTO users(email, created_at) VALUES ('old@example.org', 1)`);
            await db.run(
                sql`INSERT INTO posts(author_id, title) VALUES (1, 'before the second migration')`,
            );
        },
    ],
    [
        'the migrator applies the second, which rebuilds a table, and nothing twice',
        async () => {
            await migrate(db, { migrationsFolder: migrations });
            await migrate(db, { migrationsFolder: migrations });
            const applied = await db.all(sql`SELECT hash FROM __drizzle_migrations`);
            assert.equal(applied.length, 2);
            const [post] = await db.select().from(posts);
            assert.deepEqual(post, {
                id: 1,
                authorId: 1,
                title: 'before the second migration',
                published: false,
                score: 0,
            });
        },
    ],
    [
        'insert, returning, types',
        async () => {
            const createdAt = new Date('2026-01-02T03:04:05.678Z');
            const settings = { theme: 'dark', sizes: [1, 2, { x: null }], text: "it's \u{1f600}" };
            const [user] = await db
                .insert(users)
                .values({
                    email: 'ada@example.org',
                    createdAt,
                    settings,
                    balance: 2n ** 62n,
                })
                .returning();
            assert.deepEqual(user, {
                id: 2,
                email: 'ada@example.org',
                createdAt,
                settings,
                balance: 2n ** 62n,
            });
            const again = await db.query.users.findFirst({ where: eq(users.id, 2) });
            assert.deepEqual(again, user);
        },
    ],
    [
        'many rows in one insert',
        async () => {
            const values = Array.from({ length: 200 }, (_, i) => ({
                authorId: 2,
                title: `post ${i}`,
                score: i / 2,
            }));
            const result = await db.insert(posts).values(values);
            assert.equal(result.rowsAffected, 200);
            const [{ n }] = await db.select({ n: count() }).from(posts).where(gt(posts.score, 50));
            assert.equal(n, 99);
        },
    ],
    [
        'update, delete, order, limit, joins',
        async () => {
            await db
                .update(posts)
                .set({ published: true })
                .where(inArray(posts.title, ['post 1', 'post 2']));
            const rows = await db
                .select({ title: posts.title, email: users.email })
                .from(posts)
                .innerJoin(users, eq(users.id, posts.authorId))
                .where(and(eq(posts.published, true), eq(users.id, 2)))
                .orderBy(desc(posts.score))
                .limit(1);
            assert.deepEqual(rows, [{ title: 'post 2', email: 'ada@example.org' }]);
            const removed = await db
                .delete(posts)
                .where(gt(posts.score, 10))
                .returning({ id: posts.id });
            assert.equal(removed.length, 179);
        },
    ],
    [
        'upsert',
        async () => {
            for (const theme of ['light', 'blue']) {
                await db
                    .insert(users)
                    .values({ email: 'grace@example.org', settings: { theme } })
                    .onConflictDoUpdate({ target: users.email, set: { settings: { theme } } });
            }
            const user = await db.query.users.findFirst({
                where: eq(users.email, 'grace@example.org'),
            });
            assert.deepEqual(user.settings, { theme: 'blue' });
        },
    ],
    [
        'relations, nested',
        async () => {
            await db.insert(tags).values([{ name: 'sql' }, { name: 'c' }]);
            await db.insert(postsTags).values([
                { postId: 1, tag: 'sql' },
                { postId: 1, tag: 'c' },
            ]);
            const user = await db.query.users.findFirst({
                where: eq(users.id, 1),
                with: { posts: { with: { tags: { columns: { tag: true } } } } },
            });
            assert.deepEqual(user.posts[0].tags.map((t) => t.tag).sort(), ['c', 'sql']);
            const post = await db.query.posts.findFirst({
                where: eq(posts.id, 1),
                with: { author: true },
            });
            assert.equal(post.author.email, 'old@example.org');
        },
    ],
    [
        'foreign keys: cascades',
        async () => {
            await db.update(tags).set({ name: 'database' }).where(eq(tags.name, 'sql'));
            const [{ n }] = await db
                .select({ n: count() })
                .from(postsTags)
                .where(eq(postsTags.tag, 'database'));
            assert.equal(n, 1);
            await db.delete(users).where(eq(users.id, 1));
            assert.equal((await db.select().from(postsTags)).length, 0);
        },
    ],
    [
        'a unique violation can be told from others',
        async () => {
            const unique = await cause(db.insert(users).values({ email: 'ada@example.org' }));
            assert.equal(unique.code, 'SQLITE_CONSTRAINT');
            assert.match(unique.message, /UNIQUE constraint failed: users\.email/);
            const foreign = await cause(db.insert(posts).values({ authorId: 999, title: 'x' }));
            assert.equal(foreign.code, 'SQLITE_CONSTRAINT');
            assert.match(foreign.message, /FOREIGN KEY constraint failed/);
            const none = await cause(db.insert(posts).values({ authorId: 2, title: null }));
            assert.match(none.message, /NOT NULL constraint failed: posts\.title/);
        },
    ],
    [
        'transactions: commit and rollback, nested',
        async () => {
            await db.transaction(async (tx) => {
                await tx.insert(tags).values({ name: 'outer' });
                await tx
                    .transaction(async (inner) => {
                        await inner.insert(tags).values({ name: 'inner' });
                        inner.rollback();
                    })
                    .catch(() => {});
            });
            const aborted = db.transaction(async (tx) => {
                await tx.insert(tags).values({ name: 'lost' });
                throw new Error('on purpose');
            });
            await assert.rejects(aborted, /on purpose/);
            const names = (await db.select().from(tags)).map((t) => t.name);
            assert.ok(names.includes('outer'));
            assert.ok(!names.includes('inner') && !names.includes('lost'), names.join());
        },
    ],
    [
        'batch is all or nothing',
        async () => {
            const [inserted, all] = await db.batch([
                db.insert(tags).values({ name: 'batch' }).returning(),
                db.select().from(tags),
            ]);
            assert.deepEqual(inserted, [{ name: 'batch' }]);
            assert.ok(all.length > 2);
            const failed = db.batch([
                db.insert(tags).values({ name: 'half' }),
                db.insert(tags).values({ name: 'batch' }),
            ]);
            await cause(failed);
            assert.equal((await db.select().from(tags).where(eq(tags.name, 'half'))).length, 0);
        },
    ],
    [
        'prepared statements and placeholders',
        async () => {
            const find = db.query.users
                .findMany({ where: eq(users.email, sql.placeholder('email')) })
                .prepare();
            assert.equal((await find.execute({ email: 'ada@example.org' })).length, 1);
            assert.equal((await find.execute({ email: 'nobody' })).length, 0);
        },
    ],
];

await runChecks(`Drizzle: ${process.env.URL}`, checks, { after: () => client.close() });
