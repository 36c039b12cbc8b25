package lossy

import (
	"context"
	"database/sql"
	"errors"
	"path/filepath"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/hermod-im/hermod/bench/local"
)

// TestMariaDBOnALossyDisk: a database of somebody else's, which is known to do it
// right, goes through power cuts and keeps what it has confirmed. One that is
// told to write, and to sync once a second, does not: so the disk keeps what it should,
// and nothing else.
func TestMariaDBOnALossyDisk(t *testing.T) {
	for name, tt := range map[string]struct {
		arg  string
		cuts uint64
		lost bool
	}{
		"synced":     {"--innodb-flush-log-at-trx-commit=1", 3, false},
		"not synced": {"--innodb-flush-log-at-trx-commit=2", 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t)
			ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
			defer cancel()
			db, err := local.StartMariaDB(ctx, local.MariaDBOptions{
				Data: filepath.Join(r.Dir(), "data"), Args: []string{"--innodb-flush-method=fsync", "--innodb-use-native-aio=0", tt.arg},
			})
			must(t, err)
			defer func() { must(t, db.Close()) }()
			must(t, db.CreateDatabase(ctx, "d"))
			must(t, db.Exec(ctx, "CREATE TABLE d.t (id BIGINT PRIMARY KEY, v VARCHAR(200)) ENGINE=InnoDB"))
			r.Sync() // what is made once may rest on more than POSIX promises
			var last atomic.Int64
			var confirmed []int64
			for seed := range tt.cuts {
				confirmed = append(confirmed, insertUntil(ctx, t, db, &last, func() {
					r.PowerCut(seed)
					db.Kill()
				})...)
				must(t, r.PowerOn())
				must(t, db.Start(ctx))
				if lost := missing(ctx, t, db, confirmed); lost > 0 != tt.lost {
					t.Errorf("after cut %d, %d of %d rows are missing", seed, lost, len(confirmed))
				}
			}
			t.Logf("%d rows, %+v", len(confirmed), r.Stats())
			if st := r.Stats(); st.Lost == 0 {
				t.Errorf("%+v: there was nothing to lose", st)
			}
		})
	}
}

// missing counts the rows that are not there.
func missing(ctx context.Context, t *testing.T, db *local.MariaDB, ids []int64) (n int) {
	t.Helper()
	pool, err := sql.Open("mysql", db.DSN("d"))
	must(t, err)
	defer pool.Close()
	for _, id := range ids {
		var v string
		switch err := pool.QueryRowContext(ctx, "SELECT v FROM t WHERE id=?", id).Scan(&v); {
		case errors.Is(err, sql.ErrNoRows):
			n++
		default:
			must(t, err)
		}
	}
	return n
}

// insertUntil inserts rows from several connections, lets the end come when
// 100 are confirmed, and returns all that were.
func insertUntil(ctx context.Context, t *testing.T, db *local.MariaDB, last *atomic.Int64, end func()) (ids []int64) {
	t.Helper()
	cfg, err := mysql.ParseDSN(db.DSN("d"))
	must(t, err)
	cfg.Logger = &mysql.NopLogger{}
	con, err := mysql.NewConnector(cfg)
	must(t, err)
	pool := sql.OpenDB(con)
	defer pool.Close()
	var mu sync.Mutex
	var work sync.WaitGroup
	enough := make(chan struct{})
	for range 4 {
		work.Go(func() {
			for {
				id := last.Add(1)
				if _, err := pool.ExecContext(ctx, "INSERT INTO t VALUES (?, REPEAT('x', 200))", id); err != nil {
					return // the power is gone
				}
				mu.Lock()
				if ids = append(ids, id); len(ids) == 100 {
					close(enough)
				}
				mu.Unlock()
			}
		})
	}
	select {
	case <-enough:
	case <-ctx.Done():
		t.Error("no 100 rows")
	}
	end()
	work.Wait()
	return ids
}
