"""driver.py -- libsql and libsql_experimental (DB-API 2 on the Rust client), named by MODULE: a
remote database (URL), and local replicas of it that write through.

What the client does not do, with any server: executescript hides failures, arguments beyond 32 bits
become floats, and a connection that waits holds up all threads of its process.
"""
import importlib
import os
import subprocess
import sys
import tempfile

from checks import MIGRATIONS, check, equal, refused, run

url = os.environ["URL"]
libsql = importlib.import_module(os.environ.get("MODULE", "libsql"))
folder = tempfile.TemporaryDirectory()


def remote():
    return libsql.connect(url, auth_token="", isolation_level="DEFERRED")


def replica(name):
    return libsql.connect(os.path.join(folder.name, name), sync_url=url, auth_token="")


db = remote()


def number(sql, args=(), conn=None):
    return (conn or db).execute(sql, args).fetchone()[0]


def count(sql, want, args=(), conn=None):
    equal(number(sql, args, conn), want, sql)


def migrate(migrations):
    db.execute("CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)")
    db.commit()
    for i in range(number("SELECT count(*) FROM schema_version"), len(migrations)):
        try:
            # First, because a transaction begins with a statement that writes rows.
            db.execute("INSERT INTO schema_version VALUES (?)", (i,))
            for statement in migrations[i]:
                db.execute(statement)
            db.commit()
        except ValueError:
            db.rollback()
            raise


@check("a schema with migrations")
def _():
    migrate(MIGRATIONS[:2])
    db.execute("INSERT INTO accounts (owner, balance) VALUES ('before', 1)")
    db.commit()
    migrate(MIGRATIONS)
    migrate(MIGRATIONS)
    count("SELECT count(*) FROM schema_version", 3)
    count("SELECT count(*) FROM accounts WHERE note = 'a;b'", 1)
    half = MIGRATIONS + [["CREATE TABLE half (x)", "CREATE TABLE half (x)"]]
    refused("already exists", migrate, half)
    count("SELECT count(*) FROM schema_version", 3)
    count("SELECT count(*) FROM sqlite_schema WHERE name = 'half'", 0)
    db.executescript("CREATE TABLE script (t); INSERT INTO script VALUES ('a;b');")
    count("SELECT count(*) FROM script WHERE t = 'a;b'", 1)


@check("values of all types")
def _():
    for value in [None, 0, 7, -(2**31), 0.1, -1e300, 5e-324, 2.0, "", "Łódź \U0001f600", "a\0b",
                  b"", b"\0", b"ab", b"abc"]:
        equal(number("SELECT ?", (value,)), value, repr(value))
    for value in [2**53 + 1, 2**63 - 1, 1 - 2**63]:
        equal(number(f"SELECT {value}"), value)


@check("a large blob")
def _():
    db.execute("CREATE TABLE blobs (v BLOB)")
    blob = bytes(range(256)) * 20480
    db.execute("INSERT INTO blobs VALUES (?)", (blob,))
    db.commit()
    if number("SELECT v FROM blobs") != blob:
        raise AssertionError("it comes back otherwise")


@check("cursors: ids, counts, many rows, executemany")
def _():
    cursor = db.cursor()
    cursor.execute("INSERT INTO accounts (owner, balance) VALUES ('x', 1)")
    equal(cursor.lastrowid, 2)
    cursor.executemany("INSERT INTO accounts (owner, balance) VALUES (?, ?)",
                       [("y", 2), ("z", 3), ("w", 4)])
    db.commit()
    count("SELECT count(*) FROM accounts", 5)
    cursor.execute("WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE "
                   "i < 10000) SELECT i FROM n")
    equal([column[0] for column in cursor.description], ["i"])
    equal(sum(row[0] for row in cursor.fetchall()), 50005000)


@check("constraints")
def _():
    for sql, words in [
        ("INSERT INTO accounts (owner, balance) VALUES ('x', 0)",
         "UNIQUE constraint failed: accounts.owner"),
        ("INSERT INTO accounts (owner, balance) VALUES (NULL, 0)", "NOT NULL constraint failed"),
        ("UPDATE accounts SET balance = -1", "CHECK constraint failed"),
        ("INSERT INTO moves (account, amount) VALUES (99, 1)", "FOREIGN KEY constraint failed"),
        ("SELECT * FROM nowhere", "no such table: nowhere"),
    ]:
        refused(words, lambda: db.execute(sql).fetchall())
        db.rollback()


@check("transactions: commit, rollback, an error inside")
def _():
    other = remote()
    insert = "INSERT INTO accounts (owner, balance) VALUES (?, 1)"
    seen = "SELECT count(*) FROM accounts WHERE owner = ?"
    for end, want in [("commit", 1), ("rollback", 0), ("error", 1)]:
        db.execute(insert, (end,))
        equal(db.in_transaction, True)
        count(seen, 1, (end,))
        count(seen, 0, (end,), other)
        if end == "error":
            refused("UNIQUE", db.execute, insert, ("x",))
        db.rollback() if end == "rollback" else db.commit()
        count(seen, want, (end,), other)
    other.close()


@check("one row of many, and on with the transaction")
def _():
    upto = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
    db.execute("INSERT INTO script VALUES ('before')")
    equal(number(f"{upto} SELECT i FROM n"), 1)
    db.execute("INSERT INTO script VALUES ('after')")
    db.commit()
    count("SELECT count(*) FROM script WHERE t IN ('before', 'after')", 2)


@check("many at once")
def _():
    db.execute("CREATE TABLE counter (n)")
    db.execute("INSERT INTO counter VALUES (0)")
    db.commit()
    commands = [sys.executable, __file__, "count"]
    work = [subprocess.Popen(commands) for _ in range(6)]
    equal([process.wait() for process in work], [0] * len(work))
    count("SELECT n FROM counter", 5 * len(work))


def add():
    for _ in range(5):
        db.execute("UPDATE counter SET n = n + 1")
        number("SELECT n FROM counter")
        db.commit()
    db.close()


@check("a replica: bootstrap, pull, write-through, one that comes late")
def _():
    one = replica("one.db")
    one.sync()
    count("SELECT n FROM counter", 30, conn=one)
    db.execute("UPDATE counter SET n = 31")
    db.commit()
    count("SELECT n FROM counter", 30, conn=one)
    one.sync()
    count("SELECT n FROM counter", 31, conn=one)
    one.execute("UPDATE counter SET n = n + 1")
    one.commit()
    count("SELECT n FROM counter", 32)
    one.sync()
    count("SELECT n FROM counter", 32, conn=one)
    two = replica("two.db")
    two.sync()
    count("SELECT n FROM counter", 32, conn=two)
    accounts = "SELECT count(*) FROM accounts"
    equal(number(accounts, conn=two), number(accounts))
    equal(number("PRAGMA integrity_check", conn=two), "ok")
    one.close()
    two.close()


if sys.argv[1:] == ["count"]:
    add()
else:
    run(f"{libsql.__name__}: {url}")
