package mysql

import (
	"testing"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// BenchmarkAppend is 1:1 messages through a Store on one shard, the database on
// the same machine. One op is one message.
func BenchmarkAppend(b *testing.B) {
	storagetest.BenchStore(b, func(t testing.TB, id storage.ShardID) storagetest.ShardEnv { return env(t, 0, id) })
}
