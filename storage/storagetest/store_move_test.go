package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// mortal is a mover's shard: everything goes well until, over all its shards,
// the call for which stop answers that it does not.
type mortal struct {
	storage.Shard
	life *life
}

// life is shared by the shards of one mover.
type life struct {
	calls atomic.Int64
	// at is the call that ends it. With after it happens, but nobody hears.
	at    int64
	after bool
	dead  atomic.Bool
	// sleep, if not nil, is what the call at does instead of dying.
	sleep func()
}

var errDead = errors.New("killed")

// live runs do, unless the mover is dead or dies.
func (l *life) live(do func() error) error {
	if l.dead.Load() {
		return errDead
	}
	if l.calls.Add(1) != l.at {
		return do()
	}
	if l.sleep != nil {
		l.sleep()
		return do()
	}
	if l.after {
		_ = do()
	}
	l.dead.Store(true)
	return errDead
}

func (m mortal) Commit(ctx context.Context, k *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error)) error {
	return m.life.live(func() error {
		heard := make(chan error, 1)
		if err := m.Shard.Commit(ctx, k, plan, func(err error) { heard <- err }); err != nil {
			return err
		}
		err := <-heard
		if !m.life.after || m.life.calls.Load() != m.life.at {
			done(err)
		}
		return nil
	})
}

func (m mortal) View(ctx context.Context, slots []storage.SlotRef, read func(storage.Snap) error) error {
	return m.life.live(func() error { return m.Shard.View(ctx, slots, read) })
}

func (m mortal) Purge(ctx context.Context, slot storage.Slot) error {
	return m.life.live(func() error { return m.Shard.Purge(ctx, slot) })
}

func (m mortal) Barrier(ctx context.Context) error {
	return m.life.live(func() error { return m.Shard.Barrier(ctx) })
}

func (m mortal) Lease(ctx context.Context, n storage.NodeID, inc uint64, ttl time.Duration) ([]storage.NodeID, error) {
	var dead []storage.NodeID
	err := m.life.live(func() (err error) { dead, err = m.Shard.Lease(ctx, n, inc, ttl); return err })
	return dead, err
}

// mortalMover is a mover whose lock is taken over at once when it dies.
func (f *storeFix) mortalMover(l *life) *storage.Mover {
	f.Helper()
	// A page takes several steps, and each killed mover leaves more rows: with
	// small pages on a slow machine the steps would outrun those who count them.
	o := storage.MoverOptions{PageRows: 100, LockTTL: time.Microsecond, Patience: 5 * time.Second}
	for _, sh := range f.shards {
		o.Shards = append(o.Shards, mortal{sh, l})
	}
	m, err := storage.NewMover(o)
	if err != nil {
		f.Fatal(err)
	}
	return m
}

// talk is a user whose slot moves, what that user has heard, and said.
type talk struct {
	f     *storeFix
	b     storage.UserID
	peers []storage.UserID
	sends []storage.Append
	first []storage.Appended
	want  []string
}

func newTalk(f *storeFix) *talk {
	k := &talk{f: f, b: f.userOn(0, 9)}
	k.peers = []storage.UserID{f.userOn(0, 10), f.userOn(1, 11), k.b}
	f.account(k.b, "nobody's name here")
	for i := range 10 {
		k.say(fmt.Sprint(i))
	}
	f.waitTasks(1)
	return k
}

func (k *talk) say(what string) {
	k.f.Helper()
	for _, p := range k.peers {
		m := message(p, k.b, what)
		k.sends, k.first = append(k.sends, m), append(k.first, k.f.send(m))
		k.f.waitTasks(1) // arrival order is then the order of sends
		k.want = append(k.want, what)
	}
}

// check wants everything there once, in order, and one shard that owns it.
func (k *talk) check(when string) {
	f := k.f
	f.Helper()
	if got := bodies(f.inbox(k.b)); !slices.Equal(got, k.want) {
		f.Fatalf("%s: the inbox is %q, want %q", when, got, k.want)
	}
	for i := len(k.sends) - 4; i < len(k.sends); i++ {
		if r := f.send(k.sends[i]); !r.Duplicate || r.Rev != k.first[i].Rev {
			f.Fatalf("%s: retry %d: %+v, first was %+v", when, i, r, k.first[i])
		}
	}
	for _, p := range k.peers {
		f.contiguous(p, f.inbox(p))
	}
}

// owner is the shard (by index) that owns the slot, alone.
func (k *talk) owner() int {
	f := k.f
	f.Helper()
	owner := -1
	for i, sh := range f.shards {
		err := sh.View(f.ctx(), nil, func(sn storage.Snap) error {
			rows, err := sn.SlotRows()
			for _, r := range rows {
				if r.Slot == k.b.Slot() && r.State == storage.SlotOwned {
					if owner >= 0 {
						f.Fatal("two shards own the slot")
					}
					owner = i
				}
			}
			return err
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	return owner
}

// A mover killed at any step is followed by another one, which finishes what
// it began or calls it off; who waited meanwhile goes on, and nothing is lost.
func TestMoverKilled(t *testing.T) {
	for _, after := range []bool{false, true} {
		t.Run(fmt.Sprintf("after=%v", after), func(t *testing.T) {
			f, _ := newFaultFix(t, 2, MemOptions{}, nil)
			k := newTalk(f)
			for n := int64(1); ; n++ {
				from := k.owner()
				to := 1 - from
				l := &life{at: n, after: after}
				_, err := f.mortalMover(l).Move(f.ctx(), k.b.Slot(), f.shards[to].ID())
				if !l.dead.Load() {
					if err != nil {
						t.Fatal(err)
					}
					if n < 20 {
						t.Fatalf("a move has only %d steps?", n)
					}
					break
				}
				m := message(k.b, k.b, fmt.Sprintf("sent to a dead mover's slot %d", n))
				waits := start(f.s, m)
				k.want = append(k.want, string(m.Body))
				if n%3 == 0 {
					to = from
				}
				next := f.mortalMover(new(life))
				f.move(next, k.b.Slot(), to)
				f.closeMover(next)
				if r, err := f.result(waits); err != nil || r.Duplicate {
					t.Fatalf("killed at step %d: what waited: %+v, %v", n, r, err)
				}
				if k.owner() != to {
					t.Fatalf("killed at step %d: the slot is not where it should be", n)
				}
				if left := f.keptAt(1-to, k.b.Slot()); left > 0 {
					t.Fatalf("killed at step %d: %d rows are left at the other shard", n, left)
				}
				k.check(fmt.Sprintf("killed at step %d", n))
			}
			k.say("the end")
			k.check("the end")
		})
	}
}

// A mover that only slept, at any step, finds another at work or done, and
// does no harm.
func TestMoverSleeps(t *testing.T) {
	f, _ := newFaultFix(t, 2, MemOptions{}, nil)
	k := newTalk(f)
	for n := int64(1); ; n++ {
		from := k.owner()
		asleep, wake := make(chan struct{}), make(chan struct{})
		l := &life{at: n, sleep: func() { close(asleep); <-wake }}
		first := f.mortalMover(l)
		done := make(chan error, 1)
		go func() {
			_, err := first.Move(f.ctx(), k.b.Slot(), f.shards[1-from].ID())
			done <- err
		}()
		select {
		case <-asleep:
		case err := <-done:
			if err != nil {
				t.Fatal(err)
			}
			k.check("at last")
			return
		}
		next := f.mortalMover(new(life))
		to := 1 - from
		if n%2 == 0 {
			to = from
		}
		f.move(next, k.b.Slot(), to)
		if n%5 != 0 { // else it is still at work
			f.closeMover(next)
		}
		close(wake)
		if err := <-done; err == nil && n%5 == 0 && k.owner() != 1-from {
			t.Fatalf("asleep at step %d: it moved nothing, without an error", n)
		}
		f.move(next, k.b.Slot(), to)
		f.closeMover(next)
		k.check(fmt.Sprintf("asleep at step %d", n))
	}
}

// A copy that is not what was read is not used; nor is one for which there is
// no room. The slot stays where it was, and nobody waits.
func TestMoveGivenBack(t *testing.T) {
	lossy := func(mems []*Mem) storage.Shard { return &dropping{Shard: mems[1]} }
	full := func(mems []*Mem) storage.Shard {
		mems[1].SetFault(func(_ int, w *storage.Writes) Fault {
			if len(w.Inbox) > 0 {
				return Fault{Err: storage.ErrFull, Early: true}
			}
			return Fault{}
		})
		return mems[1]
	}
	for name, tt := range map[string]struct {
		target func([]*Mem) storage.Shard
		want   error
		text   string
	}{
		"lossy": {lossy, storage.ErrCorrupt, "inbox rows: "},
		"full":  {full, storage.ErrFull, "no room"},
	} {
		t.Run(name, func(t *testing.T) {
			f, mems := newFaultFix(t, 2, MemOptions{}, nil)
			k := newTalk(f)
			m, err := storage.NewMover(storage.MoverOptions{Shards: []storage.Shard{mems[0], tt.target(mems)}, PageRows: 20})
			if err != nil {
				t.Fatal(err)
			}
			_, err = m.Move(f.ctx(), k.b.Slot(), 2)
			if !errors.Is(err, tt.want) || name == "lossy" && !strings.Contains(err.Error(), tt.text) {
				t.Errorf("Move: %v", err)
			}
			f.closeMover(m)
			mems[1].SetFault(nil)
			if k.owner() != 0 || f.keptAt(1, k.b.Slot()) != 0 {
				t.Errorf("the slot is at shard %d, the other keeps %d rows", k.owner(), f.keptAt(1, k.b.Slot()))
			}
			k.say("after all")
			k.check("given back")
		})
	}
}

// dropping loses an inbox row of every page.
type dropping struct{ storage.Shard }

func (d *dropping) Commit(ctx context.Context, l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error)) error {
	return d.Shard.Commit(ctx, l, func(r *storage.Locked) (*storage.Writes, error) {
		w, err := plan(r)
		if err == nil && len(w.Inbox) > 0 {
			lost := *w
			lost.Inbox = lost.Inbox[1:]
			w = &lost
		}
		return w, err
	}, done)
}

// A page whose outcome is unknown is copied again, with all others.
func TestMoveUnknownOutcome(t *testing.T) {
	for _, applied := range []bool{false, true} {
		f, mems := newFaultFix(t, 2, MemOptions{}, nil)
		k := newTalk(f)
		var n int
		mems[1].SetFault(func(_ int, w *storage.Writes) Fault {
			if len(w.Entries)+len(w.Inbox)+len(w.Slots) > 0 {
				if n++; n%4 == 0 && n < 20 {
					return Fault{Err: storage.ErrUnknown, Applied: applied}
				}
			}
			return Fault{}
		})
		m := f.mover(storage.MoverOptions{PageRows: 20})
		f.move(m, k.b.Slot(), 1)
		f.closeMover(m)
		k.check("moved")
		if k.owner() != 1 || n < 8 {
			t.Errorf("the slot is at shard %d after %d commits", k.owner(), n)
		}
	}
}

// One move at a time: the second is told who is at work.
func TestOneMover(t *testing.T) {
	f, _ := newFaultFix(t, 2, MemOptions{}, nil)
	u := f.userOn(0, 5)
	first := f.mover(storage.MoverOptions{Who: "anna"})
	f.move(first, u.Slot(), 1)
	second := f.mover(storage.MoverOptions{})
	if _, err := second.Move(f.ctx(), u.Slot(), 1); !errors.Is(err, storage.ErrMoving) || !strings.Contains(err.Error(), "anna") {
		t.Errorf("a second mover: %v", err)
	}
	f.closeMover(first)
	if res := f.move(second, u.Slot(), 1); !res.Already {
		t.Errorf("moved twice: %+v", res)
	}
	f.closeMover(second)
	if _, err := second.Move(f.ctx(), u.Slot(), 9); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("to a shard that is not there: %v", err)
	}
	if _, err := storage.NewMover(storage.MoverOptions{Shards: f.shards[:1]}); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("one shard: %v", err)
	}
}

// A copy may take longer than a lock lives: it renews its locks on all shards.
func TestMoverStays(t *testing.T) {
	f, mems := newFaultFix(t, 3, MemOptions{Delay: 2 * time.Millisecond}, nil)
	k := newTalk(f)
	const ttl = 300 * time.Millisecond
	began := time.Now()
	rival, err := storage.NewMover(storage.MoverOptions{Shards: f.shards, Who: "rival"})
	if err != nil {
		t.Fatal(err)
	}
	tries := 0
	slow := &pausing{Shard: mems[0], pause: func() {
		time.Sleep(ttl / 15)
		if time.Since(began) > ttl { // while the first one copies
			tries++
			if _, err := rival.Move(f.ctx(), k.b.Slot(), 3); !errors.Is(err, storage.ErrMoving) {
				t.Errorf("a second mover, after %v: %v", time.Since(began), err)
			}
		}
	}}
	m, err := storage.NewMover(storage.MoverOptions{Shards: []storage.Shard{slow, mems[1], mems[2]}, PageRows: 5, LockTTL: ttl})
	if err != nil {
		t.Fatal(err)
	}
	f.move(m, k.b.Slot(), 1)
	f.closeMover(m)
	f.closeMover(rival)
	if tries < 5 {
		t.Errorf("a second mover had %d chances", tries)
	}
	k.check("moved slowly")
}

// pausing is a shard of which pages are read slowly.
type pausing struct {
	storage.Shard
	pause func()
}

func (p *pausing) View(ctx context.Context, slots []storage.SlotRef, read func(storage.Snap) error) error {
	return p.Shard.View(ctx, slots, func(sn storage.Snap) error {
		p.pause()
		return read(sn)
	})
}
