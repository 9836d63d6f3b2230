"""checks.py -- runs named checks one after another and prints TAP, as lib/check.mjs does."""
import sys
import traceback

CHECKS = []
MIGRATIONS = [
    ["CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT NOT NULL UNIQUE, "
     "balance INTEGER NOT NULL CHECK (balance >= 0))"],
    ["CREATE TABLE moves (id INTEGER PRIMARY KEY, amount INTEGER, "
     "account INTEGER REFERENCES accounts(id))",
     "CREATE INDEX moves_account ON moves (account)"],
    ["ALTER TABLE accounts ADD COLUMN note TEXT DEFAULT 'a;b'"],
]


def check(name):
    def add(function):
        CHECKS.append((name, function))
        return function

    return add


def equal(got, want, what="value"):
    if got != want or type(got) is not type(want):
        raise AssertionError(f"{what}: {got!r:.200}, not {want!r:.200}")


def refused(words, function, *args):
    """Wants function(*args) to fail with these words in its error."""
    try:
        function(*args)
    except Exception as error:
        if words.lower() not in str(error).lower():
            raise AssertionError(f"'{error}' does not say '{words}'") from error
        return error
    raise AssertionError(f"there is no error, '{words}' was expected")


def run(title):
    passed = failed = 0
    print(f"# {title}")
    for name, function in CHECKS:
        try:
            function()
            passed += 1
            print(f"ok {passed + failed} - {name}", flush=True)
        except Exception:
            failed += 1
            words = traceback.format_exc().strip().replace("\n", "\n#   ")
            print(f"not ok {passed + failed} - {name}\n#   {words}", flush=True)
    print(f"# passed {passed} failed {failed} skipped 0 known 0", flush=True)
    sys.exit(1 if failed else 0)
