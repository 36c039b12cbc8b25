package storagetest_test

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/pebble"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// clock can be moved forward.
type clock struct{ offset atomic.Int64 }

func (c *clock) now() time.Time          { return time.Now().Add(time.Duration(c.offset.Load())) }
func (c *clock) advance(d time.Duration) { c.offset.Add(int64(d)) }

// memEnv is a Mem that survives being closed.
func memEnv(opt storagetest.MemOptions) func(testing.TB, storage.ShardID) storagetest.ShardEnv {
	return func(_ testing.TB, id storage.ShardID) storagetest.ShardEnv {
		var c clock
		opt := opt
		opt.Now = c.now
		var m *storagetest.Mem
		return storagetest.ShardEnv{
			Open: func(testing.TB) storage.Shard {
				if m == nil {
					m = storagetest.NewMem(id, opt)
				} else {
					m = m.Crash()
				}
				return m
			},
			Advance: c.advance,
		}
	}
}

// pebbleEnv is a Pebble shard in a temporary folder.
func pebbleEnv(t testing.TB, id storage.ShardID) storagetest.ShardEnv {
	var c clock
	dir := t.TempDir()
	return storagetest.ShardEnv{
		Open: func(t testing.TB) storage.Shard {
			s, err := pebble.Open(pebble.Options{
				Dir: dir, ID: id, Now: c.now, FreeReserveBytes: -1,
				Fatal: func(err error) { t.Errorf("pebble: %v", err) },
			})
			if err != nil {
				t.Fatal(err)
			}
			return s
		},
		Advance: c.advance,
	}
}

func TestStoreOnMem(t *testing.T) { storagetest.RunStore(t, memEnv(storagetest.MemOptions{})) }

func TestStoreOnSlowMem(t *testing.T) {
	storagetest.RunStore(t, memEnv(storagetest.MemOptions{Inline: 1024, Delay: 2 * time.Millisecond}))
}

func TestStoreOnPebble(t *testing.T) { storagetest.RunStore(t, pebbleEnv) }

func TestMemIsAShard(t *testing.T) {
	storagetest.RunShard(t, func(t testing.TB) storagetest.ShardEnv { return memEnv(storagetest.MemOptions{Inline: 1024})(t, 1) })
}

func BenchmarkAppend(b *testing.B) { storagetest.BenchStore(b, pebbleEnv) }
