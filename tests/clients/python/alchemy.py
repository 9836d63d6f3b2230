"""alchemy.py -- SQLAlchemy with sqlalchemy-libsql, ORM and core, on a remote database (URL).

The driver below it has no Binary, so there are no blobs.
"""
import datetime
import os
import subprocess
import sys
from decimal import Decimal

import sqlalchemy as sa
from sqlalchemy import orm

from checks import check, equal, refused, run

engine = sa.create_engine(os.environ["URL"].replace("http://", "sqlite+libsql://"))


class Base(orm.DeclarativeBase):
    pass


class Author(Base):
    __tablename__ = "authors"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    name = orm.mapped_column(sa.String(80), unique=True, nullable=False)
    books = orm.relationship("Book", back_populates="author", cascade="all, delete-orphan")


class Book(Base):
    __tablename__ = "books"
    id = orm.mapped_column(sa.Integer, primary_key=True)
    title = orm.mapped_column(sa.Text, index=True)
    price = orm.mapped_column(sa.Numeric(10, 2))
    weight = orm.mapped_column(sa.Float)
    isbn = orm.mapped_column(sa.BigInteger)
    seen = orm.mapped_column(sa.DateTime)
    extra = orm.mapped_column(sa.JSON)
    kept = orm.mapped_column(sa.Boolean)
    author_id = orm.mapped_column(sa.ForeignKey("authors.id"))
    author = orm.relationship(Author, back_populates="books")


def scalar(sql):
    with engine.connect() as conn:
        return conn.execute(sa.text(sql)).scalar()


@check("a schema, created and looked at")
def _():
    Base.metadata.create_all(engine)
    Base.metadata.create_all(engine)
    looked = sa.inspect(engine)
    equal(sorted(looked.get_table_names()), ["authors", "books"])
    equal([i["name"] for i in looked.get_indexes("books")], ["ix_books_title"])
    equal(looked.get_foreign_keys("books")[0]["referred_table"], "authors")

    found = sa.MetaData()
    found.reflect(engine)
    equal(sorted(column.name for column in found.tables["books"].columns),
          sorted(column.name for column in Book.__table__.columns))


@check("migrations")
def _():
    with engine.begin() as conn:
        conn.execute(sa.text("ALTER TABLE authors ADD COLUMN born INTEGER DEFAULT 1900"))
        conn.execute(sa.text("CREATE TABLE tags (name TEXT PRIMARY KEY) WITHOUT ROWID"))
    # As with pysqlite, the driver begins a transaction with the first statement that writes rows.
    with engine.connect() as conn:
        conn.execute(sa.text("INSERT INTO tags VALUES ('half')"))
        conn.execute(sa.text("CREATE TABLE half (x)"))
        refused("already exists", conn.execute, sa.text("CREATE TABLE half (x)"))
        conn.rollback()
    equal(scalar("SELECT count(*) FROM tags"), 0)
    equal(sa.inspect(engine).has_table("half"), False)


@check("objects with values of all types")
def _():
    when = datetime.datetime(2026, 2, 3, 4, 5, 6, 789000)
    with orm.Session(engine) as session:
        author = Author(name="Łódź \U0001f600")
        author.books = [
            Book(title="one", price=Decimal("12.50"), weight=0.1, isbn=2**31 - 1, seen=when,
                 extra={"a": [1, None, "x"]}, kept=True),
            Book(title=""),
        ]
        session.add(author)
        session.commit()
        equal(author.id, 1)
    with orm.Session(engine) as session:
        one, two = session.scalars(sa.select(Book).order_by(Book.id)).all()
        equal((one.title, one.price, one.weight, one.isbn, one.seen, one.extra, one.kept),
              ("one", Decimal("12.50"), 0.1, 2**31 - 1, when, {"a": [1, None, "x"]}, True))
        equal((two.title, two.isbn, two.kept), ("", None, None))
        equal(one.author.name, "Łódź \U0001f600")
    equal(scalar("SELECT 9223372036854775807"), 2**63 - 1)


@check("transactions, savepoints, a constraint")
def _():
    with orm.Session(engine) as session:
        session.add(Author(name="kept"))
        session.flush()
        session.add(Author(name="kept"))
        refused("UNIQUE constraint failed: authors.name", session.flush)
        session.rollback()
    equal(scalar("SELECT count(*) FROM authors"), 1)
    with orm.Session(engine) as session, session.begin():
        session.add(Author(name="outside"))
        nested = session.begin_nested()
        session.add(Author(name="inside"))
        session.flush()
        nested.rollback()
    equal(scalar("SELECT count(*) FROM authors WHERE name = 'outside'"), 1)
    equal(scalar("SELECT count(*) FROM authors WHERE name = 'inside'"), 0)


@check("deleting with what hangs on it; the first of many rows")
def _():
    with engine.begin() as conn:
        conn.execute(sa.insert(Book.__table__), [{"title": f"t{i}"} for i in range(200)])
    upto = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 300000)"
    with engine.begin() as conn:
        conn.execute(sa.text("INSERT INTO tags VALUES ('left')"))
        equal(conn.execute(sa.text(upto + " SELECT i FROM n")).first()[0], 1)
        conn.execute(sa.text("INSERT INTO tags VALUES ('came back')"))
    equal(scalar("SELECT count(*) FROM tags"), 2)
    with orm.Session(engine) as session:
        session.delete(session.get(Author, 1))
        session.commit()
    equal(scalar("SELECT count(*) FROM books"), 200)


@check("many at once")
def _():
    with engine.begin() as conn:
        conn.execute(sa.text("CREATE TABLE counter (n)"))
        conn.execute(sa.text("INSERT INTO counter VALUES (0)"))
    work = [subprocess.Popen([sys.executable, __file__, "count"]) for _ in range(4)]
    equal([process.wait() for process in work], [0] * 4)
    equal(scalar("SELECT n FROM counter"), 20)


def add():
    for _ in range(5):
        with engine.begin() as conn:
            conn.execute(sa.text("UPDATE counter SET n = n + 1"))
            conn.execute(sa.text("SELECT n FROM counter")).scalar()


if sys.argv[1:] == ["count"]:
    add()
else:
    run(f"sqlalchemy-libsql: {os.environ['URL']}")
