/*
 * main.go -- libsql-client-go as applications use it, through database/sql, over HTTP or a
 * WebSocket, whichever URL says. Prints TAP.
 */
package main

import (
	"bytes"
	"context"
	"database/sql"
	"fmt"
	"math"
	"os"
	"strings"
	"sync"
	"time"

	_ "github.com/tursodatabase/libsql-client-go/libsql"
)

var db *sql.DB
var overHTTP bool

type check struct {
	name string
	run  func() error
}

func differs(what string, got, want any) error {
	if got == want {
		return nil
	}
	return fmt.Errorf("%s: %v (%T), not %v (%T)", what, got, got, want, want)
}

/* first gives the first error. */
func first(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func exec(query string, args ...any) error {
	_, err := db.Exec(query, args...)
	return err
}

func number(query string, args ...any) (n int64, err error) {
	if err = db.QueryRow(query, args...).Scan(&n); err != nil {
		err = fmt.Errorf("%s: %w", query, err)
	}
	return n, err
}

func isNumber(want int64, query string, args ...any) error {
	n, err := number(query, args...)
	return first(err, differs(query, n, want))
}

/* refused wants err to have these words. */
func refused(err error, words string) error {
	if err == nil {
		return fmt.Errorf("there is no error, '%s' was expected", words)
	}
	if !strings.Contains(err.Error(), words) {
		return fmt.Errorf("'%v' does not say '%s'", err, words)
	}
	return nil
}

/* ---- Schema ---- */

var migrations = []string{
	`CREATE TABLE accounts (id INTEGER PRIMARY KEY, owner TEXT NOT NULL UNIQUE,
		balance INTEGER NOT NULL CHECK (balance >= 0), opened TIMESTAMP)`,
	`CREATE TABLE moves (id INTEGER PRIMARY KEY, account INTEGER NOT NULL REFERENCES accounts(id),
		amount INTEGER NOT NULL)`,
	`CREATE INDEX moves_account ON moves (account)`,
	`ALTER TABLE accounts ADD COLUMN note TEXT DEFAULT 'a;b'`,
}

func migrate(list []string) error {
	if err := exec(`CREATE TABLE IF NOT EXISTS schema_version (version INTEGER)`); err != nil {
		return err
	}
	done, err := number(`SELECT count(*) FROM schema_version`)
	if err != nil {
		return err
	}
	for i := int(done); i < len(list); i++ {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		if _, err = tx.Exec(list[i]); err == nil {
			_, err = tx.Exec(`INSERT INTO schema_version VALUES (?)`, i)
		}
		if err != nil {
			return first(tx.Rollback(), err)
		}
		if err = tx.Commit(); err != nil {
			return err
		}
	}
	return nil
}

func checkMigrations() error {
	return first(
		migrate(migrations[:2]),
		exec(`INSERT INTO accounts (owner, balance) VALUES ('before', 1)`),
		migrate(migrations), migrate(migrations),
		isNumber(4, `SELECT count(*) FROM schema_version`),
		isNumber(1, `SELECT count(*) FROM accounts WHERE note = 'a;b'`),
		isNumber(1, `SELECT count(*) FROM sqlite_schema WHERE name = 'moves_account'`),
		refused(migrate(append(migrations[:4:4], `CREATE TABLE half (x)`, `CREATE TABLE half (x)`)),
			"already exists"),
		isNumber(5, `SELECT count(*) FROM schema_version`),
		isNumber(1, `SELECT count(*) FROM sqlite_schema WHERE name = 'half'`))
}

/* ---- Values ---- */

func checkValues() error {
	if err := exec(`CREATE TABLE v (id INTEGER PRIMARY KEY, v)`); err != nil {
		return err
	}
	when := time.Date(2026, 2, 3, 4, 5, 6, 789000000, time.UTC)
	values := []any{nil, int64(0), int64(math.MaxInt64), int64(math.MinInt64), 0.0, 0.1, -1e300,
		math.SmallestNonzeroFloat64, "", "Łódź \U0001f600", "a\x00b", true}
	if overHTTP {
		values = append(values, when)
	}
	for i, in := range values {
		if err := exec(`INSERT INTO v VALUES (?, ?)`, i, in); err != nil {
			return fmt.Errorf("%v: %w", in, err)
		}
		want := in
		switch value := in.(type) {
		case bool:
			want = int64(1)
		case time.Time:
			want = value.Format("2006-01-02 15:04:05.999999999-07:00")
		}
		var got any
		if err := db.QueryRow(`SELECT v FROM v WHERE id = ?`, i).Scan(&got); err != nil {
			return fmt.Errorf("%v: %w", in, err)
		}
		if err := differs("value", got, want); err != nil {
			return err
		}
	}
	return nil
}

func checkIntegers() error {
	return first(
		isNumber(1, `SELECT ? = -9223372036854775807 - 1`, int64(math.MinInt64)),
		isNumber(math.MaxInt64, `SELECT 9223372036854775807`),
		isNumber(1<<53+1, `SELECT ?`, int64(1<<53+1)))
}

func checkBlobs() error {
	if err := exec(`CREATE TABLE b (v BLOB)`); err != nil {
		return err
	}
	for _, size := range []int{0, 1, 2, 3, 5 << 20} {
		blob := make([]byte, size)
		for i := range blob {
			blob[i] = byte(i*31 ^ i>>8)
		}
		var got []byte
		var kind string
		err := first(exec(`DELETE FROM b`), exec(`INSERT INTO b VALUES (?)`, blob),
			db.QueryRow(`SELECT v, typeof(v) FROM b`).Scan(&got, &kind),
			differs("type", kind, "blob"))
		if err != nil {
			return fmt.Errorf("a blob of %d bytes: %w", size, err)
		}
		if !bytes.Equal(got, blob) {
			return fmt.Errorf("a blob of %d bytes comes back otherwise", size)
		}
	}
	return nil
}

/* Over a WebSocket the client has no times. */
func checkTimestamps() error {
	if !overHTTP {
		return nil
	}
	when := time.Date(2026, 2, 3, 4, 5, 6, 0, time.UTC)
	var got time.Time
	err := first(exec(`UPDATE accounts SET opened = ?`, when),
		db.QueryRow(`SELECT opened FROM accounts LIMIT 1`).Scan(&got))
	return first(err, differs("time", got.Equal(when), true))
}

func checkArguments() error {
	stmt, err := db.Prepare(`SELECT ? + 1`)
	if err != nil {
		return err
	}
	defer stmt.Close()
	for i := int64(0); i < 20; i++ {
		var n int64
		if err = first(stmt.QueryRow(i).Scan(&n), differs("sum", n, i+1)); err != nil {
			return err
		}
	}
	return isNumber(3, `SELECT :a + @b`, sql.Named("a", 1), sql.Named("b", 2))
}

func checkResult() error {
	result, err := db.Exec(`INSERT INTO accounts (owner, balance) VALUES ('x', 1), ('y', 2)`)
	if err != nil {
		return err
	}
	id, _ := result.LastInsertId()
	changes, _ := result.RowsAffected()
	return first(isNumber(id, `SELECT max(id) FROM accounts`),
		differs("changes", changes, int64(2)))
}

func checkRows() error {
	rows, err := db.Query(`WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n
		WHERE i < 10000) SELECT i, printf('%08d', i) AS t FROM n`)
	if err != nil {
		return err
	}
	defer rows.Close()
	names, _ := rows.Columns()
	sum := int64(0)
	for rows.Next() {
		var i int64
		var text string
		if err = rows.Scan(&i, &text); err != nil {
			return err
		}
		if err = differs("text", text, fmt.Sprintf("%08d", i)); err != nil {
			return err
		}
		sum += i
	}
	return first(rows.Err(), differs("sum", sum, int64(50005000)),
		differs("columns", strings.Join(names, " "), "i t"))
}

/* ---- Failures and transactions ---- */

func checkConstraints() error {
	return first(
		refused(exec(`INSERT INTO accounts (owner, balance) VALUES ('x', 0)`),
			"UNIQUE constraint failed: accounts.owner"),
		refused(exec(`INSERT INTO accounts (owner, balance) VALUES (NULL, 0)`),
			"NOT NULL constraint failed: accounts.owner"),
		refused(exec(`UPDATE accounts SET balance = -1`), "CHECK constraint failed"),
		refused(exec(`INSERT INTO moves (account, amount) VALUES (99, 1)`), "FOREIGN KEY"),
		refused(exec(`SELECT * FROM nowhere`), "no such table: nowhere"))
}

/* The client splits the text; over a WebSocket it does not, and the server refuses. */
func checkScript() error {
	if !overHTTP {
		return refused(exec(`SELECT 1; SELECT 2`), "SQL string contains more than one statement")
	}
	return first(
		exec(`CREATE TABLE s (t TEXT); INSERT INTO s VALUES ('a;b'); INSERT INTO s VALUES ('c')`),
		isNumber(2, `SELECT count(*) FROM s`),
		refused(exec(`INSERT INTO s VALUES ('d'); INSERT INTO nowhere VALUES (1)`), "no such table"),
		exec(`DROP TABLE s`))
}

func checkTransactions() error {
	for _, end := range []string{"commit", "rollback", "error"} {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		_, err = tx.Exec(`INSERT INTO accounts (owner, balance) VALUES (?, 5)`, end)
		var inside int64
		err = first(err, tx.QueryRow(`SELECT count(*) FROM accounts WHERE owner = ?`, end).Scan(&inside),
			differs("inside", inside, int64(1)),
			isNumber(0, `SELECT count(*) FROM accounts WHERE owner = ?`, end))
		if err == nil && end == "error" {
			_, again := tx.Exec(`INSERT INTO accounts (owner, balance) VALUES ('x', 5)`)
			err = refused(again, "UNIQUE constraint failed")
		}
		want := int64(1)
		if end == "rollback" {
			want = 0
			err = first(err, tx.Rollback())
		} else {
			err = first(err, tx.Commit())
		}
		err = first(err, isNumber(want, `SELECT count(*) FROM accounts WHERE owner = ?`, end))
		if err != nil {
			return fmt.Errorf("%s: %w", end, err)
		}
	}
	return nil
}

func checkCancel() error {
	ctx, cancel := context.WithTimeout(context.Background(), 200*time.Millisecond)
	defer cancel()
	began := time.Now()
	_, err := db.ExecContext(ctx, `WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n)
		SELECT count(*) FROM n`)
	if err == nil {
		return fmt.Errorf("a query without end ended")
	}
	return first(differs("in time", time.Since(began) < 5*time.Second, true), isNumber(1, `SELECT 1`))
}

/* transfer moves 1 from one account to another; a transaction that reads first may have to begin
 * again. */
func transfer(from, to int) error {
	for try := 0; ; try++ {
		tx, err := db.Begin()
		if err != nil {
			return err
		}
		_, err = tx.Exec(`UPDATE accounts SET balance = balance - 1 WHERE id = ?`, from)
		if err == nil {
			_, err = tx.Exec(`UPDATE accounts SET balance = balance + 1 WHERE id = ?`, to)
		}
		if err == nil {
			return tx.Commit()
		}
		_ = tx.Rollback()
		if try == 20 || !strings.Contains(err.Error(), "locked") {
			return err
		}
	}
}

/* each runs fn(0) to fn(n - 1) at once and gives the first error. */
func each(n int, fn func(int) error) error {
	errs := make([]error, n)
	var all sync.WaitGroup
	for i := range errs {
		all.Add(1)
		go func() {
			defer all.Done()
			errs[i] = fn(i)
		}()
	}
	all.Wait()
	return first(errs...)
}

func checkConcurrency() error {
	err := exec(`DELETE FROM accounts`)
	for i := 0; i < 4; i++ {
		err = first(err, exec(`INSERT INTO accounts (id, owner, balance) VALUES (?, ?, 100)`, i,
			fmt.Sprint("owner ", i)))
	}
	return first(err,
		each(12, func(n int) error {
			for i := 0; i < 5; i++ {
				if err := transfer((n+i)%4, (n+i+1)%4); err != nil {
					return err
				}
			}
			return nil
		}),
		isNumber(400, `SELECT sum(balance) FROM accounts`),
		each(100, func(n int) error {
			return exec(`INSERT INTO moves (account, amount) VALUES (?, ?)`, n%4, n)
		}),
		isNumber(100, `SELECT count(DISTINCT amount) FROM moves`))
}

func main() {
	url := os.Getenv("URL")
	overHTTP = strings.HasPrefix(url, "http")
	var err error
	if db, err = sql.Open("libsql", url); err != nil {
		fmt.Println(err)
		os.Exit(1)
	}
	fmt.Printf("# libsql-client-go: %s\n", url)
	passed, failed := 0, 0
	for i, c := range []check{
		{"a schema with migrations", checkMigrations}, {"values of all types", checkValues},
		{"integers of 64 bits", checkIntegers}, {"blobs up to 5 MB", checkBlobs},
		{"timestamps", checkTimestamps}, {"prepared statements, named arguments", checkArguments},
		{"id and number of what was inserted", checkResult}, {"10,000 rows", checkRows},
		{"constraints", checkConstraints}, {"several statements at once", checkScript},
		{"transactions: commit, rollback, an error inside", checkTransactions},
		{"a context that ends", checkCancel}, {"many at once", checkConcurrency},
	} {
		if err = c.run(); err != nil {
			failed++
			fmt.Printf("not ok %d - %s\n#   %v\n", i+1, c.name, err)
		} else {
			passed++
			fmt.Printf("ok %d - %s\n", i+1, c.name)
		}
	}
	_ = db.Close()
	fmt.Printf("# passed %d failed %d skipped 0 known 0\n", passed, failed)
	if failed > 0 {
		os.Exit(1)
	}
}
