package mysql

import (
	"context"
	"database/sql"
	"errors"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// TestNodesStartAtOnce: of several nodes on an empty database one makes the
// tables, and all go on.
func TestNodesStartAtOnce(t *testing.T) {
	const nodes = 8
	dsn := database(t, 0)
	var started sync.WaitGroup
	for range nodes {
		started.Go(func() {
			s, err := Open(context.Background(), Options{ID: 7, DSN: dsn, MaxConns: 4})
			if err != nil {
				t.Error(err)
				return
			}
			if err := s.Barrier(context.Background()); err != nil {
				t.Error(err)
			}
			if err := s.Close(); err != nil {
				t.Error(err)
			}
		})
	}
	started.Wait()
	all, err := steps()
	if err != nil {
		t.Fatal(err)
	}
	db := openSQL(t, dsn)
	var done int
	if err := db.QueryRow("SELECT COUNT(*) FROM migrations").Scan(&done); err != nil || done != len(all) {
		t.Errorf("%d migrations are noted, there are %d (%v)", done, len(all), err)
	}
}

// TestMigrationCutOff: what died between two tables is done again.
func TestMigrationCutOff(t *testing.T) {
	dsn := database(t, 0)
	openAndClose(t, Options{ID: 1, DSN: dsn})
	db := openSQL(t, dsn)
	for _, text := range []string{"DELETE FROM migrations", "DROP TABLE blocks", "DROP TABLE devices"} {
		if _, err := db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	openAndClose(t, Options{ID: 1, DSN: dsn})
	var n int
	if err := db.QueryRow("SELECT (SELECT COUNT(*) FROM blocks) + (SELECT COUNT(*) FROM devices)").Scan(&n); err != nil {
		t.Error(err)
	}
}

// TestWrongDatabase: what is not this shard's, or of a later version, is left alone.
func TestWrongDatabase(t *testing.T) {
	dsn := database(t, 0)
	openAndClose(t, Options{ID: 1, DSN: dsn})
	if _, err := Open(context.Background(), Options{ID: 2, DSN: dsn}); !errors.Is(err, storage.ErrInvalid) || !strings.Contains(err.Error(), "shard 1") {
		t.Errorf("another shard's database: %v", err)
	}
	if _, err := openSQL(t, dsn).Exec("INSERT INTO migrations (number,name) VALUES (9999,'later')"); err != nil {
		t.Fatal(err)
	}
	if _, err := Open(context.Background(), Options{ID: 1, DSN: dsn}); err == nil || !strings.Contains(err.Error(), "start the newer one") {
		t.Errorf("tables of a later version: %v", err)
	}
	missing := dsn[:strings.LastIndexByte(dsn, '/')] + "/not_there"
	_, err := Open(context.Background(), Options{ID: 1, DSN: missing})
	if err == nil || !strings.Contains(err.Error(), "CREATE DATABASE") {
		t.Errorf("no such database: %v", err)
	}
	if password := dsn[strings.IndexByte(dsn, ':')+1 : strings.IndexByte(dsn, '@')]; err != nil && strings.Contains(err.Error(), password) {
		t.Error("an error has the password in it")
	}
}

// TestFindings changes a server's settings under a shard, one after the other.
func TestFindings(t *testing.T) {
	dsn := database(t, 1)
	s, err := Open(context.Background(), Options{ID: 1, DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	about := func(variable string) (found *Finding) {
		all, err := s.Check(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			if all[i].Variable == variable {
				found = &all[i]
			}
		}
		return found
	}
	db := openSQL(t, dsn)
	for _, tt := range []struct {
		variable, wrong string
		fatal           bool
	}{
		{"innodb_flush_log_at_trx_commit", "2", false},
		{"innodb_flush_log_at_trx_commit", "0", false},
		{"max_connections", "50", false},
		{"max_allowed_packet", "1048576", true},
	} {
		var right string
		if err := db.QueryRow("SELECT @@GLOBAL." + tt.variable).Scan(&right); err != nil {
			t.Fatal(err)
		}
		if f := about(tt.variable); f != nil {
			t.Errorf("%s=%s: found %v", tt.variable, right, f)
		}
		set := func(value string) {
			t.Helper()
			if _, err := db.Exec("SET GLOBAL " + tt.variable + "=" + value); err != nil {
				t.Fatal(err)
			}
			s.db.SetMaxIdleConns(0) // new connections see new settings
			s.db.SetMaxIdleConns(4)
		}
		set(tt.wrong)
		f := about(tt.variable)
		if f == nil || f.Fatal != tt.fatal {
			t.Errorf("%s=%s: found %v", tt.variable, tt.wrong, f)
		}
		other, err := Open(context.Background(), Options{ID: 1, DSN: dsn})
		if err == nil {
			_ = other.Close()
		}
		if refused := err != nil && strings.Contains(err.Error(), tt.variable); refused != tt.fatal {
			t.Errorf("%s=%s: Open answers %v", tt.variable, tt.wrong, err)
		}
		set(right)
	}
}

func TestCheckVersionAndClock(t *testing.T) {
	for version, good := range map[string]bool{
		"8.0.36": true, "9.1.0-commercial": true, "8.4.0": true, "5.7.44-log": false,
		"10.11.6-MariaDB-0+deb12u1": true, "11.4.2-MariaDB": true, "10.6.18-MariaDB": false, "5.5.5-10.11.6-MariaDB": true, "what": false,
	} {
		if found := checkVersion(version); (len(found) == 0) != good {
			t.Errorf("%s: %v", version, found)
		}
	}
	now := time.Now()
	for _, tt := range []struct {
		off  time.Duration
		good bool
	}{{0, true}, {time.Second, true}, {-time.Second, true}, {3 * time.Second, false}, {-3 * time.Second, false}} {
		if found := checkClock(now.Add(tt.off), now, now); (len(found) == 0) != tt.good {
			t.Errorf("%v off: %v", tt.off, found)
		}
	}
}

func openAndClose(t *testing.T, opt Options) {
	t.Helper()
	s, err := Open(context.Background(), opt)
	if err != nil {
		t.Fatal(err)
	}
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
}

func openSQL(t *testing.T, dsn string) *sql.DB {
	t.Helper()
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}
