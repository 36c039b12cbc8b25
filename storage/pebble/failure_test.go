package pebble

import (
	"context"
	"errors"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// TestFailedOpenLeavesNothing: on the machine's own file system, which is
// watched by a goroutine.
func TestFailedOpenLeavesNothing(t *testing.T) {
	o := Options{Dir: t.TempDir()}
	first, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	before := goleak.IgnoreCurrent()
	refused(t, o, "another hermod runs on this data")
	goleak.VerifyNone(t, before)
	if err := first.Close(); err != nil {
		t.Fatal(err)
	}
	o.ID = 9
	refused(t, o, "holds shard 0, not 9")
}

// failing opens a shard whose log can be made to fail.
func failing(t *testing.T) (s *Shard, fault *logFault, fatal *atomic.Int32) {
	fault, fatal = new(logFault), new(atomic.Int32)
	s, err := Open(Options{Dir: "data", FS: fault.wrap(vfs.NewMem()), Fatal: func(error) { fatal.Add(1) }})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() }) // as far as it gets; the process would be gone
	return s, fault, fatal
}

var errDisk = errors.New("the disk is on fire")

// TestBarrierAfterFailedSync: whenever it asks, it is told at once, the moment
// between the failure and the end of the process included.
func TestBarrierAfterFailedSync(t *testing.T) {
	s, fault, fatal := failing(t)
	hold := make(chan struct{})
	fault.set(hold, errDisk)
	told := make(chan error, 2)
	ask := func() {
		ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
		defer cancel()
		told <- s.Barrier(ctx)
	}
	err := s.Commit(context.Background(), &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return meta("lost"), nil }, func(err error) {
		if !errors.Is(err, storage.ErrUnknown) {
			t.Errorf("done: %v, want ErrUnknown", err)
		}
		ask() // nobody is woken after this
	})
	if err != nil {
		t.Fatal(err)
	}
	go ask() // registered, mostly, before the failure
	close(hold)
	for range 2 {
		if err := <-told; err == nil || errors.Is(err, storage.ErrBusy) || !errors.Is(err, errDisk) {
			t.Errorf("barrier: %v, want the failure", err)
		}
	}
	eventually(t, "Fatal is called", func() bool { return fatal.Load() == 1 })
}

// TestSyncFailsDuringPlan: a plan that has read rows of a transaction whose
// sync failed meanwhile is not vouched for.
func TestSyncFailsDuringPlan(t *testing.T) {
	s, fault, fatal := failing(t)
	u := storage.UserIDIn(1, 1)
	hold := make(chan struct{})
	fault.set(hold, errDisk)
	write := func(seq uint64) *storage.Writes {
		return &storage.Writes{Users: []storage.UserHead{{User: u, Seq: seq}}, Inbox: []storage.InboxRow{{User: u, Seq: seq}}}
	}
	first := make(chan error, 1)
	if err := s.Commit(context.Background(), &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return write(1), nil }, func(err error) { first <- err }); err != nil {
		t.Fatal(err)
	}
	err := commit(s, &storage.Locks{Users: []storage.UserID{u}}, func(l *storage.Locked) (*storage.Writes, error) {
		if l.Users[0].Seq != 1 {
			t.Errorf("the plan sees seq %d", l.Users[0].Seq)
		}
		close(hold)
		if err := <-first; !errors.Is(err, storage.ErrUnknown) {
			t.Errorf("the first: %v, want ErrUnknown", err)
		}
		fault.set(nil, nil) // even if the disk is well again
		return write(2), nil
	})
	if err == nil {
		t.Error("acknowledged, though it rests on what may be lost")
	}
	if n := fatal.Load(); n > 1 {
		t.Errorf("Fatal was called %d times", n)
	}
}

// TestApplyFails: the transaction, the one planned on its rows, and the
// barriers get an error, and Close does not wait for what never comes.
func TestApplyFails(t *testing.T) {
	s, _, fatal := failing(t)
	u := storage.UserIDIn(1, 1)
	entered, hold := make(chan struct{}), make(chan struct{})
	s.write = func(*crdb.Batch, *crdb.WriteOptions) error {
		close(entered)
		<-hold
		return errDisk
	}
	var wg sync.WaitGroup
	try := func(seen func()) {
		wg.Go(func() {
			err := commit(s, &storage.Locks{Users: []storage.UserID{u}}, func(*storage.Locked) (*storage.Writes, error) {
				seen()
				return &storage.Writes{Users: []storage.UserHead{{User: u, Seq: 1}}}, nil
			})
			if !errors.Is(err, errDisk) {
				t.Errorf("commit: %v", err)
			}
		})
	}
	try(func() {})
	<-entered
	planned := make(chan struct{})
	try(func() { close(planned) })
	<-planned
	wg.Go(func() {
		if err := s.Barrier(context.Background()); !errors.Is(err, errDisk) {
			t.Errorf("barrier: %v", err)
		}
	})
	close(hold)
	wg.Wait()
	view(t, s, func(v storage.Snap) {
		if h, err := v.User(u); err != nil || h.Found {
			t.Errorf("a row that was never applied: %+v, %v", h, err)
		}
	})
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	if n := fatal.Load(); n != 1 {
		t.Errorf("Fatal was called %d times", n)
	}
}

// TestCloseDuringOverlap: with one transaction being applied and the next one
// planned, Close waits for both, and for their done.
func TestCloseDuringOverlap(t *testing.T) {
	s := open(t, Options{})
	u := storage.UserIDIn(1, 1)
	apply, entered, hold := s.write, make(chan struct{}, 2), make(chan struct{})
	s.write = func(b *crdb.Batch, o *crdb.WriteOptions) error {
		entered <- struct{}{}
		<-hold
		return apply(b, o)
	}
	var dones []uint64 // of the one goroutine that calls done
	var wg sync.WaitGroup
	planned := make(chan struct{}, 2)
	add := func() {
		wg.Go(func() {
			var seq uint64
			err := s.Commit(context.Background(), &storage.Locks{Users: []storage.UserID{u}}, func(l *storage.Locked) (*storage.Writes, error) {
				seq = l.Users[0].Seq + 1
				planned <- struct{}{}
				return &storage.Writes{Users: []storage.UserHead{{User: u, Seq: seq}}}, nil
			}, func(err error) {
				if err != nil {
					t.Error(err)
				}
				dones = append(dones, seq)
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	add()
	<-planned
	<-entered
	s.users.put(u, storage.UserHead{User: u, Found: true, Seq: 1}, 1) // its head is known: the next plan runs
	add()
	<-planned
	closed := make(chan error, 1)
	go func() { closed <- s.Close() }()
	over, cancel := context.WithCancel(context.Background())
	cancel()
	eventually(t, "no new use is let in", func() bool { return errors.Is(s.Barrier(over), storage.ErrClosed) })
	if len(closed) > 0 {
		t.Fatal("Close did not wait")
	}
	close(hold)
	if err := <-closed; err != nil {
		t.Error(err)
	}
	if len(dones) != 2 || dones[0] != 1 || dones[1] != 2 {
		t.Errorf("dones when Close returned: %v", dones)
	}
	wg.Wait()
}
