package pebble

import (
	"math/rand/v2"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// crashDisk is a disk in memory that knows what was synced.
type crashDisk struct{ fs *vfs.MemFS }

func (d crashDisk) Open(t testing.TB, hook func()) storage.Shard {
	fs := errorfs.Wrap(d.fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		hook()
		if op.Kind == errorfs.OpFileSync || op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSyncTo {
			time.Sleep(100 * time.Microsecond) // as on a real disk: commits pile up meanwhile
		}
		return nil
	}))
	s, err := Open(Options{Dir: "data", FS: fs, MemTableBytes: 1 << 20, HeadCacheBytes: 64 << 10})
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func (d crashDisk) Cut(keep int, rng *rand.Rand) storagetest.CrashDisk {
	return crashDisk{d.fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: keep, RNG: rng})}
}

func TestCrash(t *testing.T) {
	rounds := 15
	if testing.Short() {
		rounds = 6
	}
	storagetest.RunCrash(t, rounds, func(testing.TB) storagetest.CrashDisk { return crashDisk{vfs.NewCrashableMem()} })
}
