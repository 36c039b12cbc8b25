package pebble

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// env is a shard in memory on a clock that only moves when told, from a start in 2023.
func env(o Options) storagetest.ShardEnv {
	var now atomic.Int64
	now.Store(1_700_000_000_000_000)
	o.Dir, o.Now = "data", func() time.Time { return time.UnixMicro(now.Load()) }
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	return storagetest.ShardEnv{
		Open: func(t testing.TB) storage.Shard {
			s, err := Open(o)
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Advance: func(d time.Duration) { now.Add(d.Microseconds()) },
	}
}

func TestContract(t *testing.T) {
	storagetest.RunShard(t, func(testing.TB) storagetest.ShardEnv { return env(Options{}) })
}

// TestContractTinyCache: the same with caches too small for anything, so that
// every head is recovered from its rows again and again.
func TestContractTinyCache(t *testing.T) {
	storagetest.RunShard(t, func(testing.TB) storagetest.ShardEnv { return env(Options{HeadCacheBytes: 64 << 10}) })
}
