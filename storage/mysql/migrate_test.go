package mysql

import (
	"context"
	"database/sql"
	"errors"
	"fmt"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/hermod-im/hermod/storage"
)

// opened opens a shard, has it write, and closes it.
func opened(t *testing.T, opt Options) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	s, err := Open(ctx, opt)
	if err != nil {
		return err
	}
	return errors.Join(s.Barrier(ctx), s.Close())
}

// Eight nodes start on an empty database at once, while somebody works on its
// tables for longer than a round trip may take.
func TestMigrateTogether(t *testing.T) {
	dsn := database(t, 0)
	db := raw(t, dsn)
	c, err := db.Conn(context.Background())
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = c.Close() }()
	if _, err := c.ExecContext(context.Background(), "DO GET_LOCK("+migrationLock+", 0)"); err != nil {
		t.Fatal(err)
	}
	const timeout = 300 * time.Millisecond
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			if err := opened(t, Options{ID: 1, DSN: dsn, Timeout: timeout}); err != nil && !errors.Is(err, storage.ErrBusy) {
				t.Error(err)
			} else if err != nil {
				t.Errorf("did not wait for the others: %v", err)
			}
		})
	}
	time.Sleep(2 * timeout)
	if _, err := c.ExecContext(context.Background(), "DO RELEASE_LOCK("+migrationLock+")"); err != nil {
		t.Fatal(err)
	}
	wg.Wait()
	var n int
	if err := db.QueryRow("SELECT COUNT(*) FROM migrations").Scan(&n); err != nil || n != len(mustSteps(t)) {
		t.Errorf("%d migrations are noted (%v), want %d", n, err, len(mustSteps(t)))
	}
}

func mustSteps(t *testing.T) []step {
	t.Helper()
	all, err := steps()
	if err != nil {
		t.Fatal(err)
	}
	return all
}

// A migration that was cut off behind any of its statements runs again. So does
// one of which somebody has dropped tables, and who forgets that it ran.
func TestMigrateCutOff(t *testing.T) {
	dsn := database(t, 0)
	for range 2 {
		if err := opened(t, Options{ID: 1, DSN: dsn}); err != nil {
			t.Fatal(err)
		}
		db := raw(t, dsn)
		run(t, db, "SELECT 1 FROM blocks LIMIT 0", "SELECT 1 FROM devices LIMIT 0", "DELETE FROM migrations", "DROP TABLE blocks", "DROP TABLE devices")
	}
	for _, s := range mustSteps(t) {
		parts := statements(s.text)
		for _, n := range []int{1, 2, len(parts) / 2, len(parts)} {
			dsn := database(t, 0)
			run(t, raw(t, dsn), parts[:n]...)
			if err := opened(t, Options{ID: 1, DSN: dsn}); err != nil {
				t.Errorf("%s, cut off after %d of %d statements: %v", s.name, n, len(parts), err)
			}
		}
	}
}

// Each statement can be run twice, and changes nothing the second time.
func TestMigrateTwice(t *testing.T) {
	dsn := database(t, 0)
	db := raw(t, dsn)
	var before string
	for range 2 {
		for _, s := range mustSteps(t) {
			run(t, db, statements(s.text)...)
		}
		var now string
		if err := db.QueryRow("SELECT GROUP_CONCAT(id,':',version,':',ticks) FROM fence").Scan(&now); err != nil {
			t.Fatal(err)
		}
		if before != "" && now != before {
			t.Errorf("the fence was %s and is %s", before, now)
		}
		before = now
		run(t, db, "UPDATE fence SET version=version+5")
		before = strings.Replace(before, ":1:", ":6:", 1)
	}
}

func TestOpenRefuses(t *testing.T) {
	for _, tt := range []struct {
		name string
		do   func(db *sql.DB)
		id   storage.ShardID
		want string
	}{
		{"tables of a newer program", func(db *sql.DB) { run(t, db, "INSERT INTO migrations (number,name) VALUES (9999,'x')") }, 1, "start the newer one"},
		{"another shard's database", func(*sql.DB) {}, 2, "two shards would mix"},
	} {
		dsn := database(t, 0)
		if err := opened(t, Options{ID: 1, DSN: dsn}); err != nil {
			t.Fatal(err)
		}
		tt.do(raw(t, dsn))
		if err := opened(t, Options{ID: tt.id, DSN: dsn}); err == nil || !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%s: %v, want … %s …", tt.name, err, tt.want)
		}
	}
}

// An account without the rights it needs is told which, at Open, whether or not
// the tables are there; so is one whose password or database is wrong.
func TestOpenWithoutRights(t *testing.T) {
	dsn := database(t, 1)
	cfg, err := mysql.ParseDSN(dsn)
	if err != nil {
		t.Fatal(err)
	}
	db := raw(t, dsn)
	user := fmt.Sprintf("'some%s'@'127.0.0.1'", cfg.DBName)
	run(t, db, "CREATE USER "+user+" IDENTIFIED BY 'secret-word'")
	t.Cleanup(func() { run(t, db, "DROP USER "+user) })
	as := func(grant string) error {
		t.Helper()
		if grant != "" {
			run(t, db, "GRANT "+grant+" ON "+cfg.DBName+".* TO "+user)
		}
		c := cfg.Clone()
		c.User, c.Passwd = "some"+cfg.DBName, "secret-word"
		return opened(t, Options{ID: 1, DSN: c.FormatDSN()})
	}
	refused := func(err error, want string) {
		t.Helper()
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%v, want … %s …", err, want)
		}
		if err != nil && strings.Contains(err.Error(), "secret-word") {
			t.Errorf("the password is in %v", err)
		}
	}
	refused(as(""), "GRANT ALL")
	refused(as("SELECT"), "GRANT ALL")
	if err := opened(t, Options{ID: 1, DSN: dsn}); err != nil {
		t.Fatal(err)
	}
	refused(as(""), "GRANT ALL")
	refused(as("INSERT"), "GRANT ALL")
	refused(as("UPDATE"), "GRANT ALL")
	if err := as("DELETE"); err != nil {
		t.Errorf("with all rights on rows: %v", err)
	}
	wrong := cfg.Clone()
	wrong.Passwd = "secret-word"
	refused(opened(t, Options{ID: 1, DSN: wrong.FormatDSN()}), "password of the DSN")
	wrong = cfg.Clone()
	wrong.DBName = "nowhere"
	refused(opened(t, Options{ID: 1, DSN: wrong.FormatDSN()}), "CREATE DATABASE")
}
