package pebble

import (
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"path"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/hermod-im/hermod/storage"
)

// logFault lets a test hold or fail the operations on the write-ahead log.
type logFault struct {
	mu   sync.Mutex
	hold chan struct{} // syncs wait until it is closed
	err  error         // answer of syncs, and of writes unless syncs are held
}

func (l *logFault) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !strings.HasSuffix(op.Path, ".log") {
			return nil
		}
		l.mu.Lock()
		hold, err := l.hold, l.err
		l.mu.Unlock()
		switch op.Kind {
		case errorfs.OpFileSync, errorfs.OpFileSyncData:
			if hold != nil {
				<-hold
			}
			return err
		case errorfs.OpFileWrite:
			if hold == nil {
				return err
			}
		}
		return nil
	}))
}

func (l *logFault) set(hold chan struct{}, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.hold, l.err = hold, err
}

// TestNothingBeforeTheSync: while the disk has not answered, rows can be seen,
// but neither done nor Barrier vouch for them; later transactions go on meanwhile.
func TestNothingBeforeTheSync(t *testing.T) {
	var fault logFault
	s := open(t, Options{FS: fault.wrap(vfs.NewMem())})
	hold := make(chan struct{})
	fault.set(hold, nil)
	done := make(chan int, 3)
	for i, w := range []*storage.Writes{meta("one"), meta("two"), nil} {
		err := s.Commit(context.Background(), &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return w, nil }, func(err error) {
			if err != nil {
				t.Error(err)
			}
			done <- i
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	if got := metaValue(t, s); got != "two" {
		t.Errorf("while the disk syncs, a view sees %q", got)
	}
	barrier := make(chan error, 1)
	go func() { barrier <- s.Barrier(context.Background()) }()
	if err := expired(s.Barrier); !errors.Is(err, storage.ErrBusy) {
		t.Errorf("a barrier that ran out of time: %v, want ErrBusy", err)
	}
	if len(done) > 0 || len(barrier) > 0 {
		t.Fatalf("before the sync: %d dones, %d barriers passed", len(done), len(barrier))
	}
	fault.set(nil, nil)
	close(hold)
	for want := range 3 {
		if got := <-done; got != want {
			t.Errorf("done %d came at place %d", got, want)
		}
	}
	if err := <-barrier; err != nil {
		t.Error(err)
	}
	if n := testing.AllocsPerRun(100, func() { _ = s.Barrier(context.Background()) }); n != 0 {
		t.Errorf("a barrier with nothing pending allocates %v times", n)
	}
}

// expired calls f with a context that ends soon.
func expired(f func(context.Context) error) error {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	return f(ctx)
}

// TestInFlightIsBounded: with the disk stuck, Commit waits for a place, and says
// busy when its context ends; nothing is left behind.
func TestInFlightIsBounded(t *testing.T) {
	var fault logFault
	s := open(t, Options{FS: fault.wrap(vfs.NewMem()), MaxInFlight: 4})
	hold := make(chan struct{})
	fault.set(hold, nil)
	var dones atomic.Int32
	try := func(ctx context.Context) error {
		return s.Commit(ctx, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return meta("x"), nil }, func(error) { dones.Add(1) })
	}
	for range 4 {
		if err := try(context.Background()); err != nil {
			t.Fatal(err)
		}
	}
	if err := expired(try); !errors.Is(err, storage.ErrBusy) || !errors.Is(err, context.DeadlineExceeded) {
		t.Errorf("the fifth transaction: %v, want ErrBusy and the deadline", err)
	}
	fault.set(nil, nil)
	close(hold)
	eventually(t, "four dones", func() bool { return dones.Load() == 4 })
	if err := try(context.Background()); err != nil {
		t.Error(err)
	}
}

// TestLogFailure: if a sync fails, the outcome is unknown, the process is told to
// end, and nothing is vouched for any more, even if the disk seems fine again.
func TestLogFailure(t *testing.T) {
	var fault logFault
	var fatal atomic.Int32
	mem := vfs.NewCrashableMem()
	o := Options{Dir: "data", FS: fault.wrap(mem), Fatal: func(error) { fatal.Add(1) }}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	write(t, s, meta("kept"))
	broken := errors.New("the disk is on fire")
	hold, done := make(chan struct{}), make(chan error, 2)
	fault.set(hold, broken)
	for _, w := range []*storage.Writes{meta("lost"), nil} { // the second only reads what is lost
		if err := s.Commit(context.Background(), &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return w, nil }, func(err error) { done <- err }); err != nil {
			t.Fatal(err)
		}
	}
	close(hold)
	for range 2 {
		if err := <-done; !errors.Is(err, storage.ErrUnknown) || !errors.Is(err, broken) {
			t.Errorf("done: %v, want ErrUnknown and the cause", err)
		}
	}
	eventually(t, "Fatal is called", func() bool { return fatal.Load() == 1 })
	fault.set(nil, nil)
	err = commit(s, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return nil, nil })
	if !errors.Is(err, storage.ErrClosed) {
		t.Errorf("after the failure, Commit answers %v, want ErrClosed", err)
	}
	if err := s.Barrier(context.Background()); err == nil {
		t.Error("after the failure, a barrier passed")
	}
	disk := mem.CrashClone(vfs.CrashCloneCfg{})
	_ = s.Close() // as far as it gets; the process would be gone
	if got := metaValue(t, open(t, Options{FS: disk})); got != "kept" {
		t.Errorf("the disk has %q", got)
	}
	if n := fatal.Load(); n != 1 {
		t.Errorf("Fatal was called %d times", n)
	}
}

// TestFullDisk: the disk fills up without the reserve having been noticed. What
// was acknowledged is there when there is space again.
func TestFullDisk(t *testing.T) {
	var fault logFault
	mem := vfs.NewCrashableMem()
	o := Options{Dir: "data", FS: fault.wrap(mem), FreeReserveBytes: -1, Fatal: func(error) {}}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	acked := 0
	for i := range 50 {
		if i == 30 {
			fault.set(nil, syscall.ENOSPC)
		}
		err := commit(s, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return meta(strings.Repeat("x", i)), nil })
		if err == nil {
			acked = i
			continue
		}
		if !errors.Is(err, syscall.ENOSPC) || i != 30 {
			t.Errorf("write %d: %v", i, err)
		}
		break
	}
	disk := mem.CrashClone(vfs.CrashCloneCfg{})
	_ = s.Close()
	if got := len(metaValue(t, open(t, Options{FS: disk}))); acked != 29 || got != acked {
		t.Errorf("acknowledged up to %d, found %d", acked, got)
	}
}

// TestReserve: near the end of the disk, only what needs no room is accepted.
func TestReserve(t *testing.T) {
	fs := vfs.NewMem()
	usage := func(free uint64) { fs.TestingSetDiskUsage(vfs.DiskUsage{AvailBytes: free, TotalBytes: 1 << 40}) }
	usage(1 << 30)
	s := open(t, Options{FS: fs, FreeReserveBytes: 1 << 20, DiskCheckEvery: time.Millisecond})
	u := storage.UserIDIn(3, 3)
	device := storage.Device{Key: storage.DeviceKey{User: u, ID: [16]byte{1}}, Slot: 1}
	write(t, s, &storage.Writes{Users: []storage.UserHead{{User: u}}, Devices: []storage.Device{device}})
	blocks := uint64(0)
	full := func() bool {
		blocks++
		w := &storage.Writes{Blocks: []storage.Block{{Key: storage.BlockKey{User: u, Peer: storage.UserID(blocks)}}}}
		err := commit(s, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return w, nil })
		view(t, s, func(v storage.Snap) {
			if b, berr := v.Block(w.Blocks[0].Key); berr != nil || b.Found != (err == nil) {
				t.Errorf("a write answered %v: found %v, %v", err, b.Found, berr)
			}
		})
		return errors.Is(err, storage.ErrFull)
	}
	usage(1<<20 - 1)
	eventually(t, "writes are refused", full)
	for what, w := range map[string]*storage.Writes{
		"nothing":    nil,
		"revocation": {Users: []storage.UserHead{{User: u, TokenGen: 1}}, DelDevices: []storage.DeviceKey{device.Key}},
		"retention":  {Users: []storage.UserHead{{User: u, TokenGen: 1, Seq: 5, Floor: 5}}, Trims: []storage.Trim{{User: u, Floor: 5}}},
		"task":       {DelTasks: []storage.TaskKey{{Target: 1}}},
		"slot":       {Slots: []storage.SlotRow{{Slot: 1, State: storage.SlotFrozen}}},
		"mover":      meta("y"),
	} {
		if err := commit(s, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return w, nil }); err != nil {
			t.Errorf("%s on a full disk: %v", what, err)
		}
	}
	if _, err := s.Lease(context.Background(), 1, 1, time.Second); err != nil {
		t.Errorf("lease on a full disk: %v", err)
	}
	if err := s.Purge(context.Background(), 9); err != nil {
		t.Errorf("purge on a full disk: %v", err)
	}
	usage(1<<20 + 1) // above the reserve, but not by enough: no flapping
	for range 5 {
		s.checkDisk()
		if !full() {
			t.Fatal("writes go on one byte above the reserve")
		}
	}
	usage(2 << 20)
	eventually(t, "writes go on", func() bool { return !full() })
}

// TestKilledProcess: a process that is killed leaves rows in the page cache that
// were never synced. The next one shows them only once they are on the disk: a
// power cut right after its start loses none of them.
func TestKilledProcess(t *testing.T) {
	var fault logFault
	mem := vfs.NewCrashableMem()
	s := open(t, Options{Dir: "data", FS: fault.wrap(mem)})
	write(t, s, meta("durable"))
	hold := make(chan struct{})
	fault.set(hold, nil)
	done := make(chan error, 1)
	if err := s.Commit(context.Background(), &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return meta("page cache"), nil }, func(err error) { done <- err }); err != nil {
		t.Fatal(err)
	}
	// Without power nothing but the synced row is left: the test can fail.
	if got := metaValue(t, open(t, Options{FS: mem.CrashClone(vfs.CrashCloneCfg{})})); got != "durable" {
		t.Errorf("after a power cut: %q", got)
	}
	var killed *vfs.MemFS
	eventually(t, "the log has reached the page cache", func() bool {
		killed = pageCache(t, mem)
		probe := open(t, Options{FS: killed.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: 100, RNG: rand.New(rand.NewPCG(1, 1))})})
		return metaValue(t, probe) == "page cache"
	})
	if got := metaValue(t, open(t, Options{FS: killed.CrashClone(vfs.CrashCloneCfg{})})); got != "durable" {
		t.Errorf("the killed process's disk after a power cut: %q", got)
	}
	next, err := Open(Options{Dir: "data", FS: killed})
	if err != nil {
		t.Fatal(err)
	}
	shown := metaValue(t, next)
	cut := killed.CrashClone(vfs.CrashCloneCfg{})
	if err := next.Close(); err != nil {
		t.Error(err)
	}
	if got := metaValue(t, open(t, Options{FS: cut})); shown != "page cache" || got != shown {
		t.Errorf("the new process showed %q, after a power cut there is %q", shown, got)
	}
	fault.set(nil, nil)
	close(hold)
	if err := <-done; err != nil {
		t.Error(err)
	}
}

// pageCache copies a disk as a killed process leaves it to the next: logs have
// their content, but none of it was synced; all else is settled.
func pageCache(t *testing.T, from *vfs.MemFS) *vfs.MemFS {
	t.Helper()
	to := vfs.NewCrashableMem()
	check := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	settled := from.CrashClone(vfs.CrashCloneCfg{}) // what was synced
	check(to.MkdirAll("data", 0o755))
	names, err := settled.List("data")
	check(err)
	read := func(fs vfs.FS, name string) []byte {
		f, err := fs.Open(path.Join("data", name))
		check(err)
		defer f.Close()
		b, err := io.ReadAll(f)
		check(err)
		return b
	}
	for _, name := range names {
		f, err := to.Create(path.Join("data", name), vfs.WriteCategoryUnspecified)
		check(err)
		synced := read(settled, name)
		_, err = f.Write(synced)
		check(err)
		check(f.Sync())
		if strings.HasSuffix(name, ".log") {
			_, err = f.Write(read(from, name)[len(synced):])
			check(err)
		}
		check(f.Close())
	}
	for _, dir := range []string{"", "data"} {
		d, err := to.OpenDir(dir)
		check(err)
		check(d.Sync())
		check(d.Close())
	}
	return to
}

// TestApplyFailure: if Pebble refuses a batch, which it never should, the
// transaction fails, and nobody gets to see or build upon its rows.
func TestApplyFailure(t *testing.T) {
	var fatal atomic.Int32
	s := open(t, Options{Fatal: func(error) { fatal.Add(1) }})
	u := storage.UserIDIn(1, 1)
	rows := func(n uint64) *storage.Writes { return &storage.Writes{Users: []storage.UserHead{{User: u, Seq: n}}} }
	write(t, s, rows(1))
	s.write = func(*crdb.Batch, *crdb.WriteOptions) error { return crdb.ErrInvalidBatch }
	err := commit(s, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return rows(2), nil })
	if !errors.Is(err, crdb.ErrInvalidBatch) || fatal.Load() != 1 {
		t.Errorf("Commit: %v; Fatal called %d times", err, fatal.Load())
	}
	if err := s.Barrier(context.Background()); err == nil {
		t.Error("a barrier passed")
	}
	err = commit(s, &storage.Locks{Users: []storage.UserID{u}}, func(l *storage.Locked) (*storage.Writes, error) { return nil, nil })
	if !errors.Is(err, storage.ErrClosed) {
		t.Errorf("the next Commit: %v, want ErrClosed", err)
	}
	view(t, s, func(v storage.Snap) {
		if h, err := v.User(u); err != nil || h.Seq != 1 {
			t.Errorf("a view sees %+v, %v", h, err)
		}
	})
}
