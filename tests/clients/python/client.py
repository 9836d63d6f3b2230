"""client.py -- libsql-client, the client in Python alone, over HTTP or a WebSocket (URL)."""
import asyncio
import datetime
import os

from libsql_client import LibsqlError, create_client, create_client_sync

from checks import MIGRATIONS, check, equal, refused, run

url = os.environ["URL"]
over_http = url.startswith("http")
db = create_client_sync(url)


def number(sql, args=None):
    return db.execute(sql, args).rows[0][0]


def count(sql, want, args=None):
    equal(number(sql, args), want, sql)


def migrate(migrations):
    db.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)")
    for i in range(number("SELECT count(*) FROM schema_version"), len(migrations)):
        db.batch([*migrations[i], ("INSERT INTO schema_version VALUES (?)", [i])])


@check("a schema with migrations")
def _():
    migrate(MIGRATIONS[:2])
    db.execute("INSERT INTO accounts (owner, balance) VALUES ('before', 1)")
    migrate(MIGRATIONS)
    migrate(MIGRATIONS)
    count("SELECT count(*) FROM schema_version", 3)
    count("SELECT count(*) FROM accounts WHERE note = 'a;b'", 1)
    half = MIGRATIONS + [["CREATE TABLE half (x)", "CREATE TABLE half (x)"]]
    refused("already exists", migrate, half)
    count("SELECT count(*) FROM schema_version", 3)
    count("SELECT count(*) FROM sqlite_schema WHERE name = 'half'", 0)


@check("values of all types")
def _():
    for value in [None, 0, 7, 2**53 + 1, 2**63 - 1, -(2**63), 0.1, -1e300, 5e-324, 2.0, "",
                  "Łódź \U0001f600", "a\0b", b"", b"\0", b"ab", b"abc"]:
        equal(db.execute("SELECT ?", [value]).rows[0][0], value, repr(value))
    equal(db.execute("SELECT ?", [True]).rows[0][0], 1)
    when = datetime.datetime(2026, 2, 3, 4, 5, 6, tzinfo=datetime.timezone.utc)
    equal(db.execute("SELECT ?", [when]).rows[0][0], int(when.timestamp() * 1000))
    row = db.execute("SELECT :a AS x, @b AS y", {"a": 1, "b": "z"}).rows[0]
    equal((row["x"], row["y"], row.asdict()), (1, "z", {"x": 1, "y": "z"}))


@check("a large blob")
def _():
    # The client takes no larger messages over a WebSocket than 4 MiB.
    db.execute("CREATE TABLE blobs (v BLOB)")
    blob = bytes(range(256)) * (20480 if over_http else 10240)
    equal(db.execute("INSERT INTO blobs VALUES (?)", [blob]).rows_affected, 1)
    if number("SELECT v FROM blobs") != blob:
        raise AssertionError("it comes back otherwise")


@check("id and number of what was inserted, RETURNING, 10,000 rows")
def _():
    sql = "INSERT INTO accounts (owner, balance) VALUES ('x', 1), ('y', 2) RETURNING owner"
    result = db.execute(sql)
    equal([row[0] for row in result.rows], ["x", "y"])
    result = db.execute("INSERT INTO accounts (owner, balance) VALUES ('z', 3), ('w', 3)")
    equal((result.rows_affected, result.last_insert_rowid), (2, 5))
    rows = db.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
                      "i < 10000) SELECT i FROM n").rows
    equal(sum(row[0] for row in rows), 50005000)


@check("constraints")
def _():
    for sql, words in [
        ("INSERT INTO accounts (owner, balance) VALUES ('x', 0)",
         "UNIQUE constraint failed: accounts.owner"),
        ("INSERT INTO accounts (owner, balance) VALUES (NULL, 0)", "NOT NULL constraint failed"),
        ("UPDATE accounts SET balance = -1", "CHECK constraint failed"),
        ("INSERT INTO moves (account, amount) VALUES (99, 1)", "FOREIGN KEY constraint failed"),
    ]:
        error = refused(words, db.execute, sql)
        if not isinstance(error, LibsqlError) or "CONSTRAINT" not in error.code:
            raise AssertionError(f"{error!r}, code {getattr(error, 'code', None)}")
    refused("no such table: nowhere", db.execute, "SELECT * FROM nowhere")


@check("batches are all or nothing")
def _():
    insert = "INSERT INTO accounts (owner, balance) VALUES (?, ?)"
    refused("UNIQUE", db.batch, [(insert, ["b1", 1]), (insert, ["x", 1])])
    count("SELECT count(*) FROM accounts WHERE owner = 'b1'", 0)
    results = db.batch([(insert, ["b1", 1]), "SELECT count(*) FROM accounts WHERE owner = 'b1'"])
    equal(results[1].rows[0][0], 1)


@check("transactions: commit, rollback, an error inside")
def _():
    if over_http:
        refused("does not support transactions", db.transaction)
        return
    insert = "INSERT INTO accounts (owner, balance) VALUES (?, 1)"
    seen = "SELECT count(*) FROM accounts WHERE owner = ?"
    for end, want in [("commit", 1), ("rollback", 0), ("close", 0), ("error", 1)]:
        with db.transaction() as tx:
            tx.execute(insert, [end])
            equal(tx.execute(seen, [end]).rows[0][0], 1)
            count(seen, 0, [end])
            if end == "error":
                refused("UNIQUE", tx.execute, insert, ["x"])
            {"commit": tx.commit, "error": tx.commit, "rollback": tx.rollback,
             "close": tx.close}[end]()
        count(seen, want, [end])


@check("many at once")
def _():
    db.batch(["CREATE TABLE counter (n)", "INSERT INTO counter VALUES (0)", "CREATE TABLE h (n)"])

    async def add(client):
        with client.transaction() as tx:
            await tx.execute("UPDATE counter SET n = n + 1")
            await tx.execute("SELECT n FROM counter")
            await tx.commit()

    async def work():
        async with create_client(url) as client:
            await asyncio.gather(*(client.execute("INSERT INTO h VALUES (?)", [i])
                                   for i in range(100)))
            if not over_http:
                await asyncio.gather(*(add(client) for _ in range(20)))

    asyncio.run(work())
    count("SELECT count(DISTINCT n) FROM h", 100)
    count("SELECT n FROM counter", 0 if over_http else 20)


try:
    run(f"libsql-client: {url}")
finally:
    db.close()
