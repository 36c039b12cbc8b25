//go:build torture

package pebble

import (
	"fmt"
	"os"
	"strings"
	"sync"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// bug is a mistake on purpose, and a disk on which it shows. HERMOD_TORTURE_BUG
// and HERMOD_TORTURE_SYNC are read once, when a shard is opened.
type bug struct {
	name string
	sync time.Duration
}

// ackBeforeSync: «the system writes it to the disk soon enough».
const ackBeforeSync = "ack-before-sync"

func openBug() bug {
	g := bug{name: os.Getenv("HERMOD_TORTURE_BUG")}
	if text := os.Getenv("HERMOD_TORTURE_SYNC"); text != "" {
		d, err := time.ParseDuration(text)
		if err != nil {
			panic(fmt.Sprintf("HERMOD_TORTURE_SYNC: %v", err))
		}
		g.sync = d
	}
	return g
}

// writer applies a batch: the bug's does not ask for a sync, and nobody waits.
func (g bug) writer(db *crdb.DB) func(*crdb.Batch, *crdb.WriteOptions) error {
	if g.name != ackBeforeSync {
		return db.ApplyNoSyncWait
	}
	return func(b *crdb.Batch, _ *crdb.WriteOptions) error { return db.Apply(b, crdb.NoSync) }
}

// disk is fs, unless HERMOD_TORTURE_SYNC says how long a sync of the log takes.
// Then the log's files also keep in memory what is not synced: to them, killing
// the process is what losing power is to a machine, and anybody can do that.
func (g bug) disk(fs vfs.FS) vfs.FS {
	if g.sync == 0 {
		return fs
	}
	return volatileFS{fs, g.sync}
}

type volatileFS struct {
	vfs.FS
	sync time.Duration
}

func (fs volatileFS) keep(name string, f vfs.File, err error) (vfs.File, error) {
	if err != nil || !strings.HasSuffix(name, ".log") {
		return f, err
	}
	return &volatileFile{File: f, sync: fs.sync}, nil
}

func (fs volatileFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return fs.keep(name, f, err)
}

// ReuseForWrite makes a new file: a log's old end would be in front of the new.
func (fs volatileFS) ReuseForWrite(old, name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	if err := fs.FS.Remove(old); err != nil {
		return nil, err
	}
	return fs.Create(name, c)
}

// volatileFile is a log that is written when it is synced.
type volatileFile struct {
	vfs.File
	sync time.Duration

	mu   sync.Mutex
	kept []byte
}

func (f *volatileFile) Write(b []byte) (int, error) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.kept = append(f.kept, b...)
	return len(b), nil
}

// flush writes what was there when it began.
func (f *volatileFile) flush(wait time.Duration) error {
	f.mu.Lock()
	n := len(f.kept)
	f.mu.Unlock()
	time.Sleep(wait)
	f.mu.Lock()
	defer f.mu.Unlock()
	n, err := f.File.Write(f.kept[:n])
	f.kept = f.kept[n:]
	return err
}

func (f *volatileFile) Sync() error {
	if err := f.flush(f.sync); err != nil {
		return err
	}
	return f.File.Sync()
}

func (f *volatileFile) SyncData() error {
	if err := f.flush(f.sync); err != nil {
		return err
	}
	return f.File.SyncData()
}

// SyncTo promises nothing.
func (f *volatileFile) SyncTo(int64) (bool, error) { return false, nil }

func (f *volatileFile) Close() error {
	if err := f.flush(0); err != nil {
		return err
	}
	return f.File.Close()
}

func (f *volatileFile) Fd() uintptr { return vfs.InvalidFd }
