/*
 * main.rs -- the crate libsql: a remote database (URL), and local replicas of it. Prints TAP.
 */
use libsql::{params, Builder, Connection, Error, TransactionBehavior, Value};
use std::env;
use std::future::Future;
use std::path::PathBuf;

type Outcome = Result<(), String>;

fn url() -> String {
    env::var("URL").expect("URL names the server")
}

async fn remote() -> Result<Connection, String> {
    let db = Builder::new_remote(url(), String::new()).build().await;
    db.and_then(|db| db.connect()).map_err(words)
}

fn words(error: Error) -> String {
    error.to_string()
}

fn same<T: PartialEq + std::fmt::Debug>(what: &str, got: T, want: T) -> Outcome {
    if got == want {
        return Ok(());
    }
    Err(format!("{what}: {got:.200?}, not {want:.200?}"))
}

fn refused<T>(outcome: Result<T, Error>, want: &str) -> Outcome {
    match outcome {
        Ok(_) => Err(format!("there is no error, '{want}' was expected")),
        Err(error) if error.to_string().contains(want) => Ok(()),
        Err(error) => Err(format!("'{error}' does not say '{want}'")),
    }
}

async fn run(db: &Connection, sql: &str) -> Outcome {
    db.execute(sql, ()).await.map(|_| ()).map_err(words)
}

async fn value(db: &Connection, sql: &str, args: Vec<Value>) -> Result<Value, String> {
    let mut rows = db.query(sql, args).await.map_err(words)?;
    let row = rows.next().await.map_err(words)?.ok_or("no row")?;
    row.get_value(0).map_err(words)
}

async fn number(db: &Connection, sql: &str, want: i64) -> Outcome {
    same(sql, value(db, sql, vec![]).await?, Value::Integer(want))
}

/* ---- A remote database ---- */

const MIGRATIONS: [&str; 3] = [
    "CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT NOT NULL UNIQUE,
        balance INTEGER NOT NULL CHECK (balance >= 0));",
    "CREATE TABLE moves (id INTEGER PRIMARY KEY, amount INTEGER,
        account INTEGER REFERENCES accounts(id)); CREATE INDEX moves_account ON moves (account);",
    "ALTER TABLE accounts ADD COLUMN note TEXT DEFAULT 'a;b';",
];

async fn migrate(db: &Connection, list: &[&str]) -> Outcome {
    run(db, "CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)").await?;
    let done = value(db, "SELECT count(*) FROM schema_version", vec![]).await?;
    let done = *done.as_integer().ok_or("no number")? as usize;
    for step in &list[done.min(list.len())..] {
        let script = format!("{step} INSERT INTO schema_version VALUES (1);");
        db.execute_transactional_batch(&script).await.map_err(words)?;
    }
    Ok(())
}

async fn migrations() -> Outcome {
    let db = remote().await?;
    migrate(&db, &MIGRATIONS[..2]).await?;
    run(&db, "INSERT INTO accounts (owner, balance) VALUES ('before', 1)").await?;
    migrate(&db, &MIGRATIONS).await?;
    migrate(&db, &MIGRATIONS).await?;
    number(&db, "SELECT count(*) FROM schema_version", 3).await?;
    number(&db, "SELECT count(*) FROM accounts WHERE note = 'a;b'", 1).await?;
    let half = "CREATE TABLE half (x); CREATE TABLE half (x);";
    refused(db.execute_transactional_batch(half).await, "already exists")?;
    refused(db.execute_batch("SELECT 1; SELECT * FROM nowhere;").await, "no such table")?;
    number(&db, "SELECT count(*) FROM sqlite_schema WHERE name = 'half'", 0).await
}

async fn values() -> Outcome {
    let db = remote().await?;
    let large: Vec<u8> = (0..5u32 << 20).map(|i| (i * 31 ^ i >> 8) as u8).collect();
    for want in [
        Value::Null,
        Value::Integer(i64::MAX),
        Value::Integer(i64::MIN),
        Value::Integer((1 << 53) + 1),
        Value::Real(0.1),
        Value::Real(-1e300),
        Value::Real(2.0),
        Value::Real(f64::from_bits(1)),
        Value::Text(String::new()),
        Value::Text("Łódź \u{1f600} a\0b".into()),
        Value::Blob(vec![]),
        Value::Blob(vec![0, 255]),
        Value::Blob(large),
    ] {
        same("value", value(&db, "SELECT ?", vec![want.clone()]).await?, want)?;
    }
    let args = libsql::named_params! { ":a": 1, ":b": "z" };
    let mut rows = db.query("SELECT :a AS x, :b AS y", args).await.map_err(words)?;
    same("column", rows.column_name(1), Some("y"))?;
    let row = rows.next().await.map_err(words)?.ok_or("no row")?;
    same("named", (row.get::<i64>(0).ok(), row.get::<String>(1).ok()), (Some(1), Some("z".into())))
}

async fn statements() -> Outcome {
    let db = remote().await?;
    let insert = "INSERT INTO accounts (owner, balance) VALUES (?, ?)";
    let mut stmt = db.prepare(insert).await.map_err(words)?;
    for (i, owner) in ["x", "y", "z"].into_iter().enumerate() {
        let changed = stmt.execute(params![owner, i as i64]).await.map_err(words)?;
        same("changed", changed, 1)?;
        stmt.reset();
    }
    number(&db, "SELECT max(id) FROM accounts", db.last_insert_rowid()).await?;
    let upto = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000)";
    let mut rows = db.query(&format!("{upto} SELECT i FROM n"), ()).await.map_err(words)?;
    let mut sum = 0;
    while let Some(row) = rows.next().await.map_err(words)? {
        sum += row.get::<i64>(0).map_err(words)?;
    }
    same("sum", sum, 50005000)
}

async fn constraints() -> Outcome {
    let db = remote().await?;
    for (sql, want) in [
        ("INSERT INTO accounts (owner, balance) VALUES ('x', 0)", "UNIQUE constraint failed"),
        ("INSERT INTO accounts (owner, balance) VALUES (NULL, 0)", "NOT NULL constraint failed"),
        ("UPDATE accounts SET balance = -1", "CHECK constraint failed"),
        ("INSERT INTO moves (account) VALUES (99)", "FOREIGN KEY constraint failed"),
        ("DELETE FROM nowhere", "no such table: nowhere"),
    ] {
        refused(db.execute(sql, ()).await, want)?;
    }
    Ok(())
}

async fn transactions() -> Outcome {
    let (db, other) = (remote().await?, remote().await?);
    for (end, want) in [("commit", 1), ("rollback", 0), ("drop", 0), ("error", 1)] {
        let tx = db.transaction().await.map_err(words)?;
        let insert = "INSERT INTO accounts (owner, balance) VALUES (?, 1)";
        tx.execute(insert, [end]).await.map_err(words)?;
        let seen = format!("SELECT count(*) FROM accounts WHERE owner = '{end}'");
        number(&tx, &seen, 1).await?;
        number(&other, &seen, 0).await?;
        if end == "error" {
            refused(tx.execute(insert, ["x"]).await, "UNIQUE constraint failed")?;
        }
        match end {
            "rollback" => tx.rollback().await.map_err(words)?,
            "drop" => drop(tx),
            _ => tx.commit().await.map_err(words)?,
        }
        number(&other, &seen, want).await?;
    }
    let reading = TransactionBehavior::ReadOnly;
    let tx = db.transaction_with_behavior(reading).await.map_err(words)?;
    number(&tx, "SELECT count(*) FROM accounts WHERE owner = 'x'", 1).await?;
    refused(tx.execute("DELETE FROM accounts", ()).await, "")?;
    tx.rollback().await.map_err(words)
}

async fn add() -> Outcome {
    let db = remote().await?;
    for _ in 0..5 {
        let writing = TransactionBehavior::Immediate;
        let tx = db.transaction_with_behavior(writing).await.map_err(words)?;
        let n = value(&tx, "SELECT n FROM counter", vec![]).await?;
        let n = n.as_integer().ok_or("no number")? + 1;
        tx.execute("UPDATE counter SET n = ?", [n]).await.map_err(words)?;
        tx.commit().await.map_err(words)?;
    }
    Ok(())
}

async fn concurrency() -> Outcome {
    let db = remote().await?;
    let script = "CREATE TABLE counter (n); INSERT INTO counter VALUES (0);";
    db.execute_batch(script).await.map_err(words)?;
    let all: Vec<_> = (0..10).map(|_| tokio::spawn(add())).collect();
    for one in all {
        one.await.map_err(|error| error.to_string())??;
    }
    number(&db, "SELECT n FROM counter", 50).await
}

/* ---- Replicas ---- */

async fn replica(path: PathBuf, own: bool) -> Result<(libsql::Database, Connection), String> {
    let made = Builder::new_remote_replica(path, url(), String::new()).read_your_writes(own);
    let db = made.build().await.map_err(words)?;
    let conn = db.connect().map_err(words)?;
    Ok((db, conn))
}

async fn replicas_in(dir: &PathBuf) -> Outcome {
    let (one_db, one) = replica(dir.join("one.db"), true).await?;
    one_db.sync().await.map_err(words)?;
    number(&one, "SELECT n FROM counter", 50).await?;
    run(&remote().await?, "UPDATE counter SET n = 51").await?;
    number(&one, "SELECT n FROM counter", 50).await?;
    one_db.sync().await.map_err(words)?;
    number(&one, "SELECT n FROM counter", 51).await?;
    run(&one, "UPDATE counter SET n = n + 1").await?;
    number(&one, "SELECT n FROM counter", 52).await?;
    number(&remote().await?, "SELECT n FROM counter", 52).await?;
    let tx = one.transaction().await.map_err(words)?;
    run(&tx, "UPDATE counter SET n = 0").await?;
    tx.rollback().await.map_err(words)?;
    number(&remote().await?, "SELECT n FROM counter", 52).await?;
    let (two_db, two) = replica(dir.join("two.db"), false).await?;
    two_db.sync().await.map_err(words)?;
    number(&two, "SELECT n FROM counter", 52).await?;
    let ok = value(&two, "PRAGMA integrity_check", vec![]).await?;
    same("integrity", ok, Value::Text("ok".into()))
}

async fn replicas() -> Outcome {
    let dir = env::temp_dir().join(format!("clients-rust-{}", std::process::id()));
    std::fs::create_dir(&dir).map_err(|error| error.to_string())?;
    let outcome = replicas_in(&dir).await;
    std::fs::remove_dir_all(&dir).map_err(|error| error.to_string())?;
    outcome
}

/* ---- */

struct Count {
    passed: u32,
    failed: u32,
}

impl Count {
    async fn check(&mut self, name: &str, test: impl Future<Output = Outcome>) {
        match test.await {
            Ok(()) => {
                self.passed += 1;
                println!("ok {} - {name}", self.passed + self.failed);
            }
            Err(words) => {
                self.failed += 1;
                println!("not ok {} - {name}\n#   {words}", self.passed + self.failed);
            }
        }
    }
}

#[tokio::main]
async fn main() {
    println!("# libsql: {}", url());
    let mut count = Count { passed: 0, failed: 0 };
    count.check("a schema with migrations", migrations()).await;
    count.check("values of all types, a blob of 5 MB", values()).await;
    count.check("prepared statements, ids, 10,000 rows", statements()).await;
    count.check("constraints", constraints()).await;
    count.check("transactions: commit, rollback, an error inside", transactions()).await;
    count.check("many at once", concurrency()).await;
    count.check("replicas: bootstrap, pull, write-through, one that comes late", replicas()).await;
    println!("# passed {} failed {} skipped 0 known 0", count.passed, count.failed);
    std::process::exit(if count.failed > 0 { 1 } else { 0 });
}
