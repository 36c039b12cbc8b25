package lossy

import (
	"context"
	"errors"
	"fmt"
	"io"
	"log"
	"math/rand/v2"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"time"

	fusefs "github.com/hanwen/go-fuse/v2/fs"
	"github.com/hanwen/go-fuse/v2/fuse"
)

// FS is a mounted file system. Its methods are safe for concurrent use, but for
// PowerOn and Close, which are called one after the other.
type FS struct {
	dir    string
	server *fuse.Server // nil: not mounted

	mu   sync.Mutex
	tree *tree
	// cut: there is no power, and every call fails.
	cut   bool
	stats Stats
}

// Stats counts what programs asked for, since Mount.
type Stats struct {
	Writes, Syncs, Cuts int
	// Lost is how many pages and names the cuts have found unsynced.
	Lost int
}

// Available says why there can be no such file system here; nil: there can.
func Available() error {
	f, err := os.OpenFile("/dev/fuse", os.O_RDWR, 0)
	if err != nil {
		return fmt.Errorf("lossy: needs FUSE: %w", err)
	}
	_ = f.Close()
	if os.Geteuid() == 0 {
		return nil
	}
	for _, helper := range []string{"fusermount3", "fusermount"} {
		if _, err := exec.LookPath(helper); err == nil {
			return nil
		}
	}
	return errors.New("lossy: needs root, or fusermount (package fuse3)")
}

// Mount mounts an empty file system on a folder, which has to be there.
func Mount(dir string) (*FS, error) {
	if err := Available(); err != nil {
		return nil, err
	}
	dir, err := filepath.Abs(dir)
	if err != nil {
		return nil, err
	}
	s := &FS{dir: dir, tree: newTree()}
	return s, s.mount()
}

// Dir is where it is mounted.
func (s *FS) Dir() string { return s.dir }

// keep is how long the kernel may believe what it was told: nothing changes
// behind its back while a mount lasts.
const keep = time.Hour

func (s *FS) mount() error {
	life := keep
	root := &inode{fs: s, n: s.tree.root}
	server, err := fusefs.Mount(s.dir, root, &fusefs.Options{
		EntryTimeout: &life, AttrTimeout: &life,
		RootStableAttr: &fusefs.StableAttr{Ino: s.tree.root.ino},
		MountOptions: fuse.MountOptions{
			FsName: "lossy", Name: "lossy", DirectMount: true, DisableXAttrs: true,
			Logger: log.New(io.Discard, "", 0),
		},
	})
	if err != nil {
		return fmt.Errorf("lossy: mounting %s: %w", s.dir, err)
	}
	s.server = server
	return nil
}

// PowerCut forgets what was not synced, and lets everything fail with EIO until
// PowerOn. Seed 0 forgets all of it; any other leaves some (see the package).
// What was answered before it returns, fsync above all, was answered before the
// cut.
func (s *FS) PowerCut(seed uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return
	}
	s.cut = true
	s.stats.Cuts++
	s.stats.Lost += len(s.tree.pending)
	for _, n := range reachable(s.tree.root) {
		s.stats.Lost += len(n.dirty)
	}
	var chance *rand.Rand
	if seed != 0 {
		chance = rand.New(rand.NewPCG(seed, seed))
	}
	s.tree.lose(chance)
}

// PowerOn mounts again what the disk has. Whoever had files open must be gone
// within 10 seconds.
func (s *FS) PowerOn() error {
	if err := s.unmount(); err != nil {
		return err
	}
	s.mu.Lock()
	s.cut = false
	s.mu.Unlock()
	return s.mount()
}

// Sync is sync(2): everything so far is on the disk.
func (s *FS) Sync() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if !s.cut {
		s.tree.syncAll()
	}
}

// Stats are the counts so far.
func (s *FS) Stats() Stats {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.stats
}

// Close unmounts; everything is gone.
func (s *FS) Close() error { return s.unmount() }

// unmount waits for programs that were just killed.
func (s *FS) unmount() (err error) {
	if s.server == nil {
		return nil
	}
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	for ctx.Err() == nil {
		if err = s.server.Unmount(); err == nil {
			s.server = nil
			return nil
		}
		time.Sleep(20 * time.Millisecond)
	}
	return fmt.Errorf("lossy: %s is in use still: %w", s.dir, err)
}

// do runs f under the lock, unless there is no power.
func (s *FS) do(f func(t *tree) syscall.Errno) syscall.Errno {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.cut {
		return syscall.EIO
	}
	return f(s.tree)
}
