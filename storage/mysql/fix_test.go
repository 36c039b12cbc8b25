package mysql

import (
	"context"
	"database/sql"
	"errors"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// fix is a shard, and another connection to its database that does harm.
type fix struct {
	*testing.T
	s   *Shard
	dsn string
	reg *prometheus.Registry
	sql *sql.DB
}

func newFix(t *testing.T, change func(*Options)) *fix {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) })
	f := &fix{T: t, dsn: database(t, 0), reg: prometheus.NewRegistry()}
	opt := Options{ID: 1, DSN: f.dsn, Metrics: f.reg}
	if change != nil {
		change(&opt)
	}
	var err error
	if f.s, err = Open(f.ctx(), opt); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		if err := f.s.Close(); err != nil {
			t.Error(err)
		}
	})
	f.sql = raw(t, f.dsn+"?multiStatements=true")
	return f
}

// raw opens a database beside any shard.
func raw(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func run(t *testing.T, db *sql.DB, texts ...string) {
	t.Helper()
	for _, text := range texts {
		if _, err := db.Exec(text); err != nil {
			t.Fatalf("%.80s: %v", text, err)
		}
	}
}

func (f *fix) ctx() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	f.Cleanup(cancel)
	return ctx
}

func (f *fix) try(l storage.Locks, plan func(*storage.Locked) (*storage.Writes, error)) error {
	done := make(chan error, 2)
	if err := f.s.Commit(f.ctx(), &l, plan, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-time.After(patience):
		return errors.New("done was not called")
	}
}

func (f *fix) write(w storage.Writes) {
	f.Helper()
	if err := f.try(storage.Locks{}, plans(w)); err != nil {
		f.Fatal(err)
	}
}

// plans is a plan that writes w, whatever there is.
func plans(w storage.Writes) func(*storage.Locked) (*storage.Writes, error) {
	return func(*storage.Locked) (*storage.Writes, error) { return &w, nil }
}

// hold begins a transaction of somebody else.
func (f *fix) hold(texts ...string) *sql.Tx {
	f.Helper()
	tx, err := f.sql.BeginTx(f.ctx(), &sql.TxOptions{Isolation: sql.LevelReadCommitted})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { _ = tx.Rollback() })
	for _, text := range texts {
		if _, err := tx.Exec(text); err != nil {
			f.Fatal(err)
		}
	}
	return tx
}

// number runs a query whose answer is one.
func (f *fix) number(query string) (n int64) {
	f.Helper()
	if err := f.sql.QueryRowContext(f.ctx(), query).Scan(&n); err != nil {
		f.Fatalf("%s: %v", query, err)
	}
	return n
}

// until waits for something in the server's list of transactions. It makes that
// anew when nobody has read it for 100 ms; asked more often it never changes.
func (f *fix) until(what string, ok func() bool) {
	f.Helper()
	poll(f, 120*time.Millisecond, what, ok)
}

// patience is how long a test waits before it calls something stuck.
const patience = 20 * time.Second

// poll looks every so often until ok.
func poll(t testing.TB, every time.Duration, what string, ok func() bool) {
	t.Helper()
	for end := time.Now().Add(patience); !ok(); time.Sleep(every) {
		if time.Now().After(end) {
			t.Fatalf("waited in vain: %s", what)
		}
	}
}

// transactions are the open ones in this test's database.
const transactions = "FROM information_schema.innodb_trx t JOIN information_schema.processlist p ON p.id=t.trx_mysql_thread_id WHERE p.db=DATABASE()"

// waiting waits until n transactions wait for locks in this test's database.
func (f *fix) waiting(n int64) {
	f.Helper()
	f.until("a lock wait", func() bool { return f.number("SELECT COUNT(*) "+transactions+" AND t.trx_state='LOCK WAIT'") >= n })
}

// idle reports that no transaction is open in this test's database.
func (f *fix) idle() bool {
	return f.number("SELECT COUNT(*) "+transactions) == 0
}

// retries is the counter of transactions that were run again.
func (f *fix) retries(reason string) (n float64) {
	f.Helper()
	all, err := f.reg.Gather()
	if err != nil {
		f.Fatal(err)
	}
	for _, family := range all {
		if family.GetName() != "hermod_mysql_retries_total" {
			continue
		}
		for _, m := range family.GetMetric() {
			if labelled(m, "reason", reason) {
				n += m.GetCounter().GetValue()
			}
		}
	}
	return n
}

func labelled(m *dto.Metric, name, value string) bool {
	for _, l := range m.GetLabel() {
		if l.GetName() == name && l.GetValue() == value {
			return true
		}
	}
	return false
}

const anna, bob, carol = storage.UserID(1), storage.UserID(2), storage.UserID(3)

func head(u storage.UserID) storage.UserHead { return storage.UserHead{User: u, Seq: 1} }

// thread waits for a transaction in this test's database, and names its
// connection.
func (f *fix) thread(and string) (id int64) {
	f.Helper()
	f.until("a transaction "+and, func() bool {
		id = f.number("SELECT CAST(COALESCE(MAX(t.trx_mysql_thread_id), 0) AS SIGNED) " + transactions + " " + and)
		return id > 0
	})
	return id
}
