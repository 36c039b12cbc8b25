package mysql

import (
	"context"
	"fmt"
	"os"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// servers are the databases of this package's tests: two, as for four shards.
type servers [2]*local.MariaDB

var dbs servers

// TestMain starts them once: a start takes longer than most tests.
func TestMain(m *testing.M) {
	code, err := withServers(m)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		code = 1
	}
	os.Exit(code)
}

func withServers(m *testing.M) (int, error) {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Minute)
	defer cancel()
	for i := range dbs {
		db, err := local.StartMariaDB(ctx, local.MariaDBOptions{})
		if err != nil {
			return 0, err
		}
		defer func() { _ = db.Close() }()
		dbs[i] = db
	}
	return m.Run(), nil
}

var databases atomic.Int64

// database makes an empty database on server n and returns its DSN.
func database(t testing.TB, n int) string {
	t.Helper()
	name := fmt.Sprintf("t%d", databases.Add(1))
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	if err := dbs[n].CreateDatabase(ctx, name); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
		defer cancel()
		if err := dbs[n].Exec(ctx, "DROP DATABASE "+name); err != nil {
			t.Error(err)
		}
	})
	return dbs[n].DSN(name)
}

// env is a shard on a database of its own, on a clock that can be moved.
func env(t testing.TB, n int, id storage.ShardID) storagetest.ShardEnv {
	var skew atomic.Int64
	opt := Options{ID: id, DSN: database(t, n), Skew: func() time.Duration { return time.Duration(skew.Load()) }}
	return storagetest.ShardEnv{
		Open: func(t testing.TB) storage.Shard {
			s, err := Open(context.Background(), opt)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Advance: func(d time.Duration) { skew.Add(int64(d)) },
	}
}

func TestContract(t *testing.T) {
	storagetest.RunShard(t, func(t testing.TB) storagetest.ShardEnv { return env(t, 0, 1) })
}

// TestStore runs each test on as many shards as it asks for, on two servers.
func TestStore(t *testing.T) {
	storagetest.RunStore(t, func(t testing.TB, id storage.ShardID) storagetest.ShardEnv { return env(t, int(id)%len(dbs), id) })
}
