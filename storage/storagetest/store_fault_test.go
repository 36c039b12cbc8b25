package storagetest

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// newFaultFix is a Store on n shards that fail on command.
func newFaultFix(t *testing.T, n int, mem MemOptions, change func(*storage.Options)) (*storeFix, []*Mem) {
	leaks := goleak.IgnoreCurrent()
	var mems []*Mem
	f := &storeFix{T: t, delivered: map[storage.UserID][]storage.Delivery{}, opt: quick(1)}
	f.opt.Deliver = f.deliver
	if change != nil {
		change(&f.opt)
	}
	for i := range n {
		m := NewMem(storage.ShardID(i+1), mem)
		mems = append(mems, m)
		f.envs = append(f.envs, ShardEnv{Open: func(testing.TB) storage.Shard { return mems[i] }})
	}
	f.open()
	t.Cleanup(func() {
		f.close()
		goleak.VerifyNone(t, leaks)
	})
	return f, mems
}

// Nothing that rests on a row leaves before that row is durable (R1): not a
// retry's answer, not a refusal, not a read.
func TestNothingLeavesBeforeDurable(t *testing.T) {
	f, mems := newFaultFix(t, 1, MemOptions{}, nil)
	us := f.users(2)
	m := message(us[0], us[1], "first")
	release := mems[0].Hold()
	first := start(f.s, m)
	f.wait("the row is visible", func() bool {
		visible := false
		err := mems[0].View(f.ctx(), nil, func(sn Snap) error {
			h, err := sn.User(us[0])
			visible = h.Seq == 1
			return err
		})
		return err == nil && visible
	})
	retry := start(f.s, m)
	other := m
	other.Body = []byte("other")
	conflict := start(f.s, other)
	var reads atomic.Int32
	var wg sync.WaitGroup
	for _, read := range []func() error{
		func() error { _, err := f.s.Sync(f.ctx(), us[1], 0, 10, 0); return err },
		func() error { _, err := f.s.History(f.ctx(), m.Conv, 1, 0, 10, 0, false); return err },
		func() error { _, err := f.s.Heads(f.ctx(), us); return err },
		func() error { _, err := f.s.Conversations(f.ctx(), us[1], nil, 10); return err },
		func() error {
			return f.s.Update(f.ctx(), storage.Reads{Users: us}, func(tx *storage.Tx) error { tx.User(us[0]); return nil })
		},
	} {
		wg.Add(1)
		go func() {
			defer wg.Done()
			if err := read(); err != nil {
				t.Errorf("read: %v", err)
			}
			reads.Add(1)
		}()
	}
	time.Sleep(30 * time.Millisecond) // what is wrong here would come at once
	if len(first)+len(retry)+len(conflict) > 0 || reads.Load() > 0 || f.got(us[1]) > 0 {
		t.Errorf("left before the first row was durable: %d, %d, %d answers, %d reads, %d deliveries",
			len(first), len(retry), len(conflict), reads.Load(), f.got(us[1]))
	}
	release()
	if r, err := f.result(first); err != nil || r.Duplicate {
		t.Errorf("first: %+v, %v", r, err)
	}
	if r, err := f.result(retry); err != nil || !r.Duplicate {
		t.Errorf("retry: %+v, %v", r, err)
	}
	if _, err := f.result(conflict); !errors.Is(err, storage.ErrConflict) {
		t.Errorf("conflict: %v", err)
	}
	wg.Wait()
}

// Snap is storage.Snap, for short.
type Snap = storage.Snap

func (f *storeFix) got(u storage.UserID) int {
	f.mu.Lock()
	defer f.mu.Unlock()
	return len(f.delivered[u])
}

// Whatever a shard does to commits (unknown outcomes both ways, busy, moved
// slots), every send happens once, in order, and so does every update.
func TestFailingCommits(t *testing.T) {
	for name, fault := range map[string]func() Fault{
		"unknown, applied":    func() Fault { return Fault{Err: storage.ErrUnknown, Applied: true} },
		"unknown, lost":       func() Fault { return Fault{Err: storage.ErrUnknown} },
		"unknown, either":     func() Fault { return Fault{Err: storage.ErrUnknown, Applied: rand.IntN(2) == 0} },
		"unknown at once":     func() Fault { return Fault{Err: storage.ErrUnknown, Applied: rand.IntN(2) == 0, Early: true} },
		"busy":                func() Fault { return Fault{Err: fmt.Errorf("later: %w", storage.ErrBusy), Early: true} },
		"slot moved, perhaps": func() Fault { return Fault{Err: storage.ErrSlotMoved, Early: true} },
	} {
		t.Run(name, func(t *testing.T) {
			f, mems := newFaultFix(t, 2, MemOptions{Delay: 200 * time.Microsecond}, nil)
			us := f.users(4)
			var n atomic.Int64
			for _, m := range mems {
				m.SetFault(func(int, *storage.Writes) Fault {
					if n.Add(1)%3 == 0 {
						return fault()
					}
					return Fault{}
				})
			}
			f.everybodyOnce(us, 30)
		})
	}
}

// everybodyOnce lets users write to each other, and to their own logs, and
// checks that all is there once and in order.
func (f *storeFix) everybodyOnce(us []storage.UserID, perPair int) {
	f.Helper()
	var wg sync.WaitGroup
	for _, a := range us {
		for _, b := range us {
			if a == b {
				continue
			}
			wg.Add(1)
			go func() {
				defer wg.Done()
				var cs []<-chan sent
				for i := range perPair {
					m := message(a, b, fmt.Sprintf("%d>%d:%03d", a, b, i))
					if i%3 == 0 {
						m.SendID = [16]byte{} // guarded against our own retries all the same
					}
					cs = append(cs, start(f.s, m))
				}
				for i, c := range cs {
					if _, err := f.result(c); err != nil {
						f.Errorf("append %d: %v", i, err)
					}
				}
			}()
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			for i := range perPair {
				f.bump(a, i)
			}
		}()
	}
	wg.Wait()
	total := uint64(2*perPair*(len(us)-1) + perPair)
	order := map[storage.ConvKey][]string{}
	for _, u := range us {
		f.waitHead(u, total)
	}
	f.waitTasks(1)
	for _, u := range us {
		rows := f.inbox(u)
		f.contiguous(u, rows)
		f.ordered(u, rows)
		if h := f.head(u); h.Seq != total {
			f.Errorf("inbox of %d ends at %d, want %d", u, h.Seq, total)
		}
		f.oneOrder(u, slices.DeleteFunc(rows, func(r storage.InboxRow) bool { return r.Entry.Conv.IsSelf() }), order)
	}
}

// bump appends the i-th entry to u's own log.
func (f *storeFix) bump(u storage.UserID, i int) {
	f.Helper()
	self := storage.SelfKey(u)
	var got storage.Appended
	err := f.s.Update(f.ctx(), storage.Reads{Convs: []storage.ConvKey{self}}, func(tx *storage.Tx) (err error) {
		got, err = tx.Append(storage.Append{Conv: self, Sender: u, Kind: 2, Body: fmt.Appendf(nil, "%03d", i)})
		return err
	})
	if err != nil || got.Rev != uint64(i+1) {
		f.Errorf("update %d of %d: rev %d, %v", i, u, got.Rev, err)
	}
}

// An op that the shard refuses for good is found by halves. What was sent after
// it in the same conversation is refused, too, since the sender may try it again;
// nobody else is hurt.
func TestBisect(t *testing.T) {
	f, mems := newFaultFix(t, 1, MemOptions{}, func(o *storage.Options) {
		o.CommittersPerShard, o.MaxBatch, o.MaxFlying = 1, 32, 1
	})
	us := f.users(4)
	cursed := errors.New("the row is cursed")
	hold, before := mems[0].Hold(), mems[0].Commits()
	first := start(f.s, message(us[0], us[0], "first"))
	f.wait("the first commit", func() bool { return mems[0].Commits() > before })
	mems[0].SetFault(func(_ int, w *storage.Writes) Fault {
		if slices.ContainsFunc(w.Entries, func(e storage.Entry) bool { return string(e.Body) == "poison" }) {
			return Fault{Err: cursed, Early: len(w.Entries)%2 == 0}
		}
		return Fault{}
	})
	var ms []storage.Append
	var cs []<-chan sent
	var want []error
	refused := map[storage.UserID]bool{}
	for i := range 200 {
		to, body, err := us[1+i%3], fmt.Sprintf("%03d", i), error(nil)
		switch {
		case i%37 == 6 && to != us[3]:
			body, err = "poison", cursed
		}
		if refused[to] {
			err = storage.ErrUnavailable
		}
		refused[to] = err != nil
		ms, want = append(ms, message(us[0], to, body)), append(want, err)
		cs = append(cs, start(f.s, ms[i]))
	}
	hold()
	if _, err := f.result(first); err != nil {
		t.Error(err)
	}
	for i, c := range cs {
		if _, err := f.result(c); !errors.Is(err, want[i]) {
			t.Errorf("append %d (%q to %d): %v, want %v", i, ms[i].Body, ms[i].Conv.Peer(us[0]), err, want[i])
		}
	}
	var all [3][]string
	for i, m := range ms {
		if string(m.Body) != "poison" {
			f.wait("the conversation goes on", func() bool { _, err := f.try(m); return err == nil })
			all[i%3] = append(all[i%3], string(m.Body))
		}
	}
	for i, u := range us[1:] {
		rows := f.inbox(u)
		f.contiguous(u, rows)
		if got := bodies(rows); !slices.Equal(got, all[i]) {
			t.Errorf("user %d got %q, want %q", u, got, all[i])
		}
	}
}

// A shard that is down for a moment costs time only; for longer, what waits is
// refused, and nothing that was sent later overtakes what was refused.
func TestShardDown(t *testing.T) {
	f, mems := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) {
		o.CommitTimeout, o.CommittersPerShard = 200*time.Millisecond, 1
	})
	us := []storage.UserID{f.userOn(0, 1), f.userOn(0, 2)}
	elsewhere := f.userOn(1, 3)
	down := fmt.Errorf("connection refused: %w", storage.ErrBusy)
	mems[0].SetDown(down)
	short := start(f.s, message(us[0], us[1], "short"))
	f.send(message(elsewhere, elsewhere, "the other shard works"))
	mems[0].SetDown(nil)
	if _, err := f.result(short); err != nil {
		t.Errorf("a short failure: %v", err)
	}
	mems[0].SetDown(down)
	var cs []<-chan sent
	for i := range 300 {
		cs = append(cs, start(f.s, message(us[0], us[1], fmt.Sprint(i))))
	}
	var ok, refused int
	for _, c := range cs {
		_, err := f.result(c)
		switch {
		case err == nil:
			ok++
		case errors.Is(err, storage.ErrUnavailable):
			refused++
		default:
			t.Errorf("a long failure: %v", err)
		}
	}
	if ok != 0 || refused != 300 {
		t.Errorf("%d sent, %d refused", ok, refused)
	}
	mems[0].SetDown(nil)
	f.wait("the shard is back", func() bool { _, err := f.try(message(us[0], us[1], "back")); return err == nil })
	rows := f.inbox(us[1])
	f.contiguous(us[1], rows)
	if got := bodies(rows); !slices.Equal(got, []string{"short", "back"}) {
		t.Errorf("inbox: %q", got)
	}
}

// A full disk refuses at once; reads go on.
func TestFull(t *testing.T) {
	f, mems := newFaultFix(t, 1, MemOptions{}, nil)
	us := f.users(2)
	mems[0].SetFault(func(int, *storage.Writes) Fault { return Fault{Err: storage.ErrFull, Early: true} })
	f.wantErr(message(us[0], us[1], "x"), storage.ErrFull)
	if !f.head(us[0]).Found {
		t.Error("no read")
	}
	mems[0].SetFault(nil)
	// While the refused ones are still being told, new ones are refused too.
	f.wait("the disk has room", func() bool { _, err := f.try(message(us[0], us[1], "x")); return err == nil })
}

// Queues are bounded, in number and in bytes, and so is what is in flight.
func TestQueueBounds(t *testing.T) {
	for name, tt := range map[string]struct {
		change func(*storage.Options)
		body   int
		most   int
	}{
		"operations": {func(o *storage.Options) { o.Queue, o.MaxBatch, o.MaxFlying = 50, 10, 2 }, 1, 50 + 2*10 + 10},
		"bytes":      {func(o *storage.Options) { o.QueueBytes, o.MaxBatch, o.MaxFlying = 64<<10, 2, 2 }, 8 << 10, 8 + 3*2},
	} {
		t.Run(name, func(t *testing.T) {
			f, mems := newFaultFix(t, 1, MemOptions{}, func(o *storage.Options) { o.CommittersPerShard = 1; tt.change(o) })
			us := f.users(2)
			release := mems[0].Hold()
			var cs []<-chan sent
			for range 300 {
				cs = append(cs, start(f.s, message(us[0], us[1], strings.Repeat("x", tt.body))))
			}
			time.Sleep(10 * time.Millisecond)
			if n := mems[0].MaxFlying(); n > 2 {
				t.Errorf("%d commits in flight", n)
			}
			release()
			ok, busy := 0, 0
			for _, c := range cs {
				switch _, err := f.result(c); {
				case err == nil:
					ok++
				case errors.Is(err, storage.ErrBusy):
					busy++
				default:
					t.Error(err)
				}
			}
			if ok > tt.most || ok == 0 || busy == 0 {
				t.Errorf("%d went through, %d were refused; want at most %d", ok, busy, tt.most)
			}
			rows := f.inbox(us[1])
			f.contiguous(us[1], rows)
			if len(rows) != ok {
				t.Errorf("%d rows of %d sent", len(rows), ok)
			}
		})
	}
}

// The bulkhead runs so many reads at once, lets so many wait, and refuses the
// rest.
func TestReadersBounded(t *testing.T) {
	f, _ := newFaultFix(t, 2, MemOptions{}, func(o *storage.Options) { o.Readers, o.ReaderQueue = 3, 5 })
	leave := make(chan struct{})
	var running, most atomic.Int32
	var wg sync.WaitGroup
	read := func(slot storage.Slot) error {
		wg.Add(1)
		err := f.s.Go(slot, func(ctx Context) {
			defer wg.Done()
			most.Store(max(most.Load(), running.Add(1)))
			<-leave
			running.Add(-1)
		})
		if err != nil {
			wg.Done()
		}
		return err
	}
	var refused int
	for range 20 {
		if err := read(1); errors.Is(err, storage.ErrBusy) {
			refused++
		}
	}
	if refused != 20-3-5 {
		t.Errorf("%d refused", refused)
	}
	if err := read(storage.Slots - 1); err != nil {
		t.Errorf("the other shard: %v", err)
	}
	close(leave)
	wg.Wait()
	if most.Load() > 4 {
		t.Errorf("%d at once", most.Load())
	}
}

// A registration whose commit is in doubt does not find its own name taken.
func TestNameInDoubt(t *testing.T) {
	for _, applied := range []bool{true, false} {
		f, mems := newFaultFix(t, 1, MemOptions{}, nil)
		doubt := true
		mems[0].SetFault(func(_ int, w *storage.Writes) Fault {
			if len(w.Names) > 0 && doubt {
				doubt = false
				return Fault{Err: storage.ErrUnknown, Applied: applied}
			}
			return Fault{}
		})
		name := "linus"
		u := storage.UserIDIn(f.s.NameSlot(name), 5)
		runs := 0
		err := f.s.Update(f.ctx(), storage.Reads{Names: []string{name}, Users: []storage.UserID{u}}, func(tx *storage.Tx) error {
			runs++
			tx.PutName(storage.NameRow{Name: name, User: u})
			tx.PutUser(tx.User(u))
			return nil
		})
		if err != nil || !f.head(u).Found {
			t.Errorf("applied %v: %v, after %d runs", applied, err, runs)
		}
		if want := map[bool]int{true: 1, false: 2}[applied]; runs != want {
			t.Errorf("applied %v: ran %d times, want %d", applied, runs, want)
		}
	}
}

// When a part of a bisected batch is refused for lack of time, so is the rest:
// it was sent later.
func TestBisectThenDown(t *testing.T) {
	f, mems := newFaultFix(t, 1, MemOptions{}, func(o *storage.Options) {
		o.CommitTimeout, o.CommittersPerShard, o.MaxFlying = 50*time.Millisecond, 1, 1
	})
	us := f.users(2)
	hold, before := mems[0].Hold(), mems[0].Commits()
	first := start(f.s, message(us[0], us[1], "first"))
	f.wait("the first commit", func() bool { return mems[0].Commits() > before })
	var cs []<-chan sent
	for i := range 8 {
		cs = append(cs, start(f.s, message(us[0], us[1], fmt.Sprint(i))))
	}
	// As a whole the batch is refused for good; of its parts, the first finds
	// the shard down for long, and the others would find it up again.
	mems[0].SetFault(func(_ int, w *storage.Writes) Fault {
		switch {
		case len(w.Entries) > 4:
			return Fault{Err: errors.New("cursed"), Early: true}
		case slices.ContainsFunc(w.Entries, func(e storage.Entry) bool { return string(e.Body) == "0" }):
			return Fault{Err: storage.ErrBusy, Early: true}
		}
		return Fault{}
	})
	hold()
	if _, err := f.result(first); err != nil {
		t.Error(err)
	}
	for i, c := range cs {
		if _, err := f.result(c); !errors.Is(err, storage.ErrUnavailable) {
			t.Errorf("append %d: %v", i, err)
		}
	}
}
