package pebble

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
)

// Options configure a shard. Zero fields take the default named on them.
type Options struct {
	// Dir is the folder of the shard's files, made if missing. Required.
	Dir string
	// FS is the file system; nil: the machine's, with watching for slow disks.
	FS vfs.FS
	// ID names the shard for good: Open refuses a folder that has another one.
	ID storage.ShardID
	// Now is the shard's clock; nil: time.Now.
	Now func() time.Time
	// Log gets warnings and errors; the zero Logger writes nothing.
	Log zerolog.Logger
	// Metrics gets the shard's metrics, labelled shard="<ID>"; nil: none.
	Metrics prometheus.Registerer
	// Fatal is called once, when a write to the log failed: what memory shows and
	// what the disk holds can no longer be told apart, so the process must end
	// and start over from the disk. It should not return. Nil: log, then exit
	// with status 1.
	Fatal func(error)

	// CacheBytes is for blocks of tables, 1 MiB or more. Default 64 MiB. While
	// memtables are small, blocks may use their part as well.
	CacheBytes int64
	// MemTableBytes is the size of a memtable, 1 MiB … 1 GiB; up to four live at
	// a time under load. They start small and double. Default 32 MiB.
	MemTableBytes int64
	// HeadCacheBytes is for heads and user_convs in RAM, all of it allocated at
	// Open, 64 KiB or more. Default 24 MiB, some 60,000 of each.
	HeadCacheBytes int64
	// MaxOpenFiles bounds the open table files, 64 or more. Default 1000.
	MaxOpenFiles int
	// Compactions bounds how many run at a time. Default half the CPUs, at least 1.
	Compactions int
	// MaxInFlight bounds the transactions between their start and their done, 1
	// or more; Commit waits for a place. Default 256.
	MaxInFlight int
	// FreeReserveBytes is the free disk space under which writes that need room
	// are refused with ErrFull. Compactions need some to free any. Default 1 GiB;
	// below 0: never refuse.
	FreeReserveBytes int64
	// DiskCheckEvery is how often free space is looked at. Default 1 s.
	DiskCheckEvery time.Duration
}

func (o Options) withDefaults() Options {
	def := func(p *int64, v int64) {
		if *p == 0 {
			*p = v
		}
	}
	def(&o.CacheBytes, 64<<20)
	def(&o.MemTableBytes, 32<<20)
	def(&o.HeadCacheBytes, 24<<20)
	def(&o.FreeReserveBytes, 1<<30)
	if o.Now == nil {
		o.Now = time.Now
	}
	if o.MaxOpenFiles == 0 {
		o.MaxOpenFiles = 1000
	}
	if o.Compactions == 0 {
		o.Compactions = max(1, runtime.NumCPU()/2)
	}
	if o.MaxInFlight == 0 {
		o.MaxInFlight = 256
	}
	if o.DiskCheckEvery == 0 {
		o.DiskCheckEvery = time.Second
	}
	if o.Fatal == nil {
		log := o.Log
		o.Fatal = func(err error) {
			log.WithLevel(zerolog.FatalLevel).Err(err).Msg("the write-ahead log failed; exiting, since only the disk can tell what is true now")
			os.Exit(1)
		}
	}
	return o
}

// Validate says what is wrong with o, all of it; zero fields are fine.
func (o Options) Validate() error {
	o = o.withDefaults()
	var errs []error
	check := func(ok bool, format string, args ...any) {
		if !ok {
			errs = append(errs, fmt.Errorf("pebble: "+format, args...))
		}
	}
	check(o.Dir != "", "Dir is empty: name the folder for the shard's files")
	check(o.CacheBytes >= 1<<20, "CacheBytes is %d, must be at least 1 MiB", o.CacheBytes)
	check(o.MemTableBytes >= 1<<20 && o.MemTableBytes <= 1<<30, "MemTableBytes is %d, must be 1 MiB … 1 GiB", o.MemTableBytes)
	check(o.HeadCacheBytes >= 64<<10, "HeadCacheBytes is %d, must be at least 64 KiB", o.HeadCacheBytes)
	check(o.MaxOpenFiles >= 64, "MaxOpenFiles is %d, must be at least 64", o.MaxOpenFiles)
	check(o.Compactions >= 1, "Compactions is %d, must be at least 1", o.Compactions)
	check(o.MaxInFlight >= 1 && o.MaxInFlight <= 2048, "MaxInFlight is %d, must be 1 … 2048", o.MaxInFlight)
	check(o.DiskCheckEvery >= time.Millisecond, "DiskCheckEvery is %v, must be at least 1ms", o.DiskCheckEvery)
	return errors.Join(errs...)
}

// formatVersion pins Pebble's file format: a newer library must not change the
// files of its own accord. This one has sync offsets in the log, which tell a
// torn end from corruption, and checksums in table footers.
const formatVersion = crdb.FormatTableFormatV6

// engine translates o for Pebble.
func (o Options) engine(l *listener) *crdb.Options {
	e := &crdb.Options{
		FS:                 o.FS,
		FormatMajorVersion: formatVersion,
		CacheSize:          o.CacheBytes + 2*o.MemTableBytes, // Pebble takes memtables out of it
		MaxOpenFiles:       o.MaxOpenFiles,
		Logger:             l,
		EventListener:      l.events(),

		// A stalled write stalls every sender: absorb a burst in memory and in
		// L0, and let compactions catch up. Keys are random, so each compaction of
		// L0 rewrites the level below: waiting for 8 sublevels, not 4, saves 15%
		// of all CPU, and the filters keep reads of them cheap.
		MemTableSize:                uint64(o.MemTableBytes),
		MemTableStopWritesThreshold: 4,
		L0CompactionThreshold:       8,
		L0StopWritesThreshold:       60,
		LBaseMaxBytes:               256 << 20,
		CompactionConcurrencyRange:  func() (int, int) { return 1, o.Compactions },

		// Hand dirty pages to the disk in small steps: else a commit's sync waits
		// behind a whole memtable's flush.
		BytesPerSync:    512 << 10,
		WALBytesPerSync: 512 << 10,

		// Retention deletes ranges; give the space back within a minute.
		FlushDelayDeleteRange: time.Minute,
	}
	e.TargetFileSizes[0] = 4 << 20
	// The usual point lookup is of a send that was never seen: filters answer it
	// in memory, on the last level too.
	for i := range e.Levels {
		e.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
		e.Levels[i].BlockSize = 8 << 10
		e.Levels[i].IndexBlockSize = 64 << 10
	}
	return e
}
