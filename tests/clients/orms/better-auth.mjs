/*
 * better-auth.mjs -- better-auth, a library for logging in, on Kysely with @libsql/kysely-libsql:
 * its own migrations, and users who sign up, in and out.
 */
import { LibsqlDialect } from '@libsql/kysely-libsql';
import { betterAuth } from 'better-auth';
import { getMigrations } from 'better-auth/db';
import { Kysely } from 'kysely';
import { assert, runChecks } from '../lib/check.mjs';

const db = new Kysely({ dialect: new LibsqlDialect({ url: process.env.URL }) });
const options = {
    baseURL: 'http://localhost:3000',
    secret: 'only for tests, and long enough for them',
    database: { db, type: 'sqlite' },
    emailAndPassword: { enabled: true },
    logger: { disabled: true },
    telemetry: { enabled: false },
};
const auth = betterAuth(options);
const user = (n) => ({ email: `user${n}@example.com`, password: 'correct horse', name: `No ${n}` });

const checks = [
    [
        'its migrations',
        async () => {
            const { toBeCreated, runMigrations } = await getMigrations(options);
            assert.ok(toBeCreated.length >= 4);
            await runMigrations();
            assert.deepEqual((await getMigrations(options)).toBeCreated, []);
            const more = {
                ...options,
                user: { additionalFields: { team: { type: 'string', required: false } } },
            };
            await (await getMigrations(more)).runMigrations();
            assert.deepEqual((await getMigrations(more)).toBeAdded, []);
        },
    ],
    [
        'users sign up, many at once',
        async () => {
            const all = Array.from({ length: 10 }, (_, n) =>
                auth.api.signUpEmail({ body: user(n) }),
            );
            const ids = new Set((await Promise.all(all)).map((made) => made.user.id));
            assert.equal(ids.size, 10);
            await assert.rejects(auth.api.signUpEmail({ body: user(3) }), /already exists/i);
        },
    ],
    [
        'a user signs in, is known, and signs out',
        async () => {
            const wrong = { ...user(1), password: 'incorrect' };
            await assert.rejects(auth.api.signInEmail({ body: wrong }), /invalid/i);
            const answer = await auth.api.signInEmail({ body: user(1), asResponse: true });
            const cookie = answer.headers.getSetCookie().map((text) => text.split(';')[0]);
            const headers = new Headers({ cookie: cookie.join('; ') });
            const session = await auth.api.getSession({ headers });
            assert.equal(session.user.email, 'user1@example.com');
            assert.ok(session.session.expiresAt > new Date());
            await auth.api.updateUser({ headers, body: { name: 'Łódź' } });
            assert.equal((await auth.api.listSessions({ headers })).length, 2);
            await auth.api.signOut({ headers });
            assert.equal(await auth.api.getSession({ headers }), null);
            const row = db.selectFrom('user').select('name').where('email', '=', user(1).email);
            assert.deepEqual(await row.execute(), [{ name: 'Łódź' }]);
        },
    ],
];

await runChecks(`better-auth: ${process.env.URL}`, checks, { after: () => db.destroy() });
