package storagetest

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// newIllFix is a Store on three shards; the first one can be made ill. Its
// time-outs are so long that no test ends in time by waiting for them, unless
// it changes them.
func newIllFix(t *testing.T, change func(*storage.Options)) (*storeFix, *Ill) {
	leaks := goleak.IgnoreCurrent()
	ill := NewIll(NewMem(1, MemOptions{}))
	f := &storeFix{T: t, delivered: map[storage.UserID][]storage.Delivery{}, opt: quick(1)}
	f.opt.Deliver = f.deliver
	f.opt.SweepPause = time.Hour
	change(&f.opt)
	for _, sh := range []storage.Shard{ill, NewMem(2, MemOptions{}), NewMem(3, MemOptions{})} {
		f.envs = append(f.envs, ShardEnv{Open: func(testing.TB) storage.Shard { return sh }})
	}
	f.open()
	t.Cleanup(func() {
		ill.Well()
		f.close()
		goleak.VerifyNone(t, leaks)
	})
	return f, ill
}

// refusedSoon expects ErrUnavailable with a hint when to come again.
func (f *storeFix) refusedSoon(what string, err error) {
	f.Helper()
	if !errors.Is(err, storage.ErrUnavailable) || storage.RetryAfter(err) <= 0 {
		f.Errorf("%s: %v, to be repeated after %v", what, err, storage.RetryAfter(err))
	}
}

// othersWork lets users of the other shards do everything, and counts: nothing
// of it may wait for the ill shard, which stays as it is meanwhile.
func (f *storeFix) othersWork(a, b storage.UserID) {
	f.Helper()
	const rounds = 50
	for i := range rounds {
		f.send(message(a, b, fmt.Sprint(i)))
		f.send(message(b, a, fmt.Sprint(i)))
	}
	f.waitHead(a, 2*rounds)
	f.waitHead(b, 2*rounds)
	for _, u := range []storage.UserID{a, b} {
		rows := f.inbox(u)
		f.contiguous(u, rows)
		if _, err := f.s.Conversations(f.ctx(), u, nil, 10); err != nil {
			f.Errorf("conversations: %v", err)
		}
		if f.s.Load(u.Slot()) >= 1 {
			f.Error("a shard that is well counts as overloaded")
		}
	}
}

// A shard that is down, or hangs, is given up after BreakAfter or StallTimeout:
// from then on everything that needs it is refused at once, the rest goes on,
// and so does all when it is back.
func TestGivenUp(t *testing.T) {
	for name, trouble := range map[string]func(*Ill){
		"down":  func(i *Ill) { i.Down(fmt.Errorf("connection refused: %w", storage.ErrBusy)) },
		"hangs": func(i *Ill) { i.Hang() },
	} {
		t.Run(name, func(t *testing.T) {
			f, ill := newIllFix(t, func(o *storage.Options) {
				o.BreakAfter, o.StallTimeout, o.ReadTimeout = 100*time.Millisecond, 100*time.Millisecond, 200*time.Millisecond
				o.CommitTimeout = time.Hour // never by this one
			})
			us := []storage.UserID{f.userOn(0, 1), f.userOn(0, 2)}
			a, b := f.pairOn(1, 2)
			trouble(ill)
			// One by one: whoever comes first waits until it is given up.
			_, err := f.try(message(us[0], us[1], "first"))
			f.refusedSoon("the first send", err)
			f.wait("reads are given up", func() bool {
				_, err := f.s.Heads(f.ctx(), us)
				return storage.RetryAfter(err) > 0
			})
			f.othersWork(a, b)

			const calls = 200
			before, began := ill.Calls(), time.Now()
			for range calls {
				_, err := f.try(message(us[0], us[1], "x"))
				f.refusedSoon("a send", err)
				_, err = f.s.Sync(f.ctx(), us[0], 0, 10, 0)
				f.refusedSoon("a sync", err)
				err = f.s.Update(f.ctx(), storage.Reads{Users: us[:1]}, func(tx *storage.Tx) error { tx.PutUser(tx.User(us[0])); return nil })
				f.refusedSoon("an update", err)
			}
			// Some are let through to find out, and lanes and leases go on.
			if n := ill.Calls() - before; n > calls/2 && time.Since(began) < 10*time.Second {
				t.Errorf("%d calls reached the shard", n)
			}
			heads, err := f.s.Heads(f.ctx(), []storage.UserID{us[0], a, b})
			if !errors.Is(err, storage.ErrUnavailable) || heads[0].Found || !heads[1].Found || !heads[2].Found {
				t.Errorf("heads of three shards: %+v, %v", heads, err)
			}
			if f.s.Load(us[0].Slot()) < 1 {
				t.Error("the ill shard does not count as overloaded")
			}
			f.othersWorkOn(a, b)

			ill.Well()
			f.wait("the shard is back", func() bool { _, err := f.try(message(us[0], us[1], "back")); return err == nil })
			f.wait("its reads are, too", func() bool { _, err := f.s.Sync(f.ctx(), us[1], 0, 10, 0); return err == nil })
			rows := f.inbox(us[1])
			f.contiguous(us[1], rows)
			if got := bodies(rows); got[len(got)-1] != "back" || slices.Contains(got, "x") && name == "down" {
				t.Errorf("inbox %q", got)
			}
		})
	}
}

// The read that is let through to find out whether a shard is back is refused
// like all others when it is not, and knows when to come again.
func TestProbeIsRefused(t *testing.T) {
	f, ill := newIllFix(t, func(o *storage.Options) { o.BreakAfter = 10 * time.Millisecond })
	u := f.userOn(0, 1)
	var asked int // calls that came to the shard, all but a few of them these
	ill.Down(fmt.Errorf("connection refused: %w", storage.ErrBusy))
	sync := func() error {
		before := ill.Calls()
		_, err := f.s.Sync(f.ctx(), u, 0, 10, 0)
		asked += ill.Calls() - before
		return err
	}
	f.wait("reads are given up", func() bool { return storage.RetryAfter(sync()) > 0 })
	asked = 0
	f.wait("some were let through", func() bool {
		f.refusedSoon("a sync", sync())
		return asked >= 5
	})
}

// othersWorkOn is a second othersWork with the same users.
func (f *storeFix) othersWorkOn(a, b storage.UserID) {
	f.Helper()
	was := f.head(a).Seq
	for i := range 20 {
		f.send(message(a, b, fmt.Sprint("again ", i)))
	}
	f.waitHead(b, was+20)
}

// What waits for readers of a shard that hangs is answered within ReadTimeout,
// however much it is; and somebody else's readers are not touched.
func TestHangingReads(t *testing.T) {
	f, ill := newIllFix(t, func(o *storage.Options) {
		o.BreakAfter, o.ReadTimeout, o.Readers = 50*time.Millisecond, 200*time.Millisecond, 2
	})
	u := f.userOn(0, 1)
	other := f.userOn(1, 1)
	ill.Hang()
	var wg sync.WaitGroup
	var served, refused atomic.Int32
	for range 500 {
		wg.Add(1)
		err := f.s.Go(u.Slot(), func(ctx context.Context) {
			defer wg.Done()
			_, err := f.s.Sync(ctx, u, 0, 10, 0)
			if !errors.Is(err, storage.ErrUnavailable) && !errors.Is(err, storage.ErrBusy) {
				t.Errorf("a read: %v", err)
			}
			served.Add(1)
		})
		if err != nil {
			if !errors.Is(err, storage.ErrUnavailable) {
				t.Errorf("refused with %v", err)
			}
			refused.Add(1)
			wg.Done()
		}
	}
	done := make(chan error, 1)
	if err := f.s.Go(other.Slot(), func(ctx context.Context) {
		_, err := f.s.Sync(ctx, other, 0, 10, 0)
		done <- err
	}); err != nil {
		t.Fatal(err)
	}
	if err := <-done; err != nil {
		t.Errorf("the other shard's read: %v", err)
	}
	wg.Wait() // 500 reads, 2 readers: 50 s, were each to wait for its own time-out
	if served.Load()+refused.Load() != 500 {
		t.Errorf("%d were answered, %d refused", served.Load(), refused.Load())
	}
}

// A shard that is slow refuses with ErrBusy what would wait for too long, and
// does the rest: it is not given up.
func TestSlowShard(t *testing.T) {
	f, ill := newIllFix(t, func(o *storage.Options) {
		o.QueueWait, o.MaxBatch, o.CommittersPerShard, o.MaxFlying = 50*time.Millisecond, 4, 1, 1
	})
	us := []storage.UserID{f.userOn(0, 1), f.userOn(0, 2)}
	a, b := f.pairOn(1, 2)
	ill.Slow(20 * time.Millisecond) // 200 sends a second
	var cs []<-chan sent
	busy := 0
	for end := time.Now().Add(500 * time.Millisecond); time.Now().Before(end); time.Sleep(time.Millisecond) {
		cs = append(cs, start(f.s, message(us[0], us[1], fmt.Sprintf("%05d", len(cs)))))
	}
	f.othersWork(a, b)
	var ok []string
	for i, c := range cs {
		switch _, err := f.result(c); {
		case err == nil:
			ok = append(ok, fmt.Sprintf("%05d", i))
		case errors.Is(err, storage.ErrBusy):
			busy++
		default:
			t.Errorf("send %d: %v", i, err)
		}
	}
	if len(ok) == 0 || busy == 0 {
		t.Errorf("%d were sent, %d refused", len(ok), busy)
	}
	ill.Well()
	rows := f.inbox(us[1])
	f.contiguous(us[1], rows)
	if got := bodies(rows); !slices.Equal(got, ok) {
		t.Errorf("inbox %q, want %q", got, ok)
	}
}

// An engine that does not come back at all: what queued behind is refused,
// what is at the engine waits for its outcome, and comes first.
func TestStalledEngine(t *testing.T) {
	f, mems := newFaultFix(t, 1, MemOptions{}, func(o *storage.Options) {
		o.StallTimeout, o.CommittersPerShard, o.MaxFlying = 40*time.Millisecond, 1, 1
		o.CommitTimeout, o.SweepPause = time.Hour, time.Hour
	})
	us := f.users(2)
	release, before := mems[0].Hold(), mems[0].Commits()
	first := start(f.s, message(us[0], us[1], "first"))
	f.wait("the first commit", func() bool { return mems[0].Commits() > before })
	_, err := f.try(message(us[0], us[1], "second"))
	f.refusedSoon("what queued behind", err)
	if len(first) > 0 {
		t.Error("the first was answered without an outcome")
	}
	release()
	if _, err := f.result(first); err != nil {
		t.Errorf("the first: %v", err)
	}
	f.wait("the shard is back", func() bool { _, err := f.try(message(us[0], us[1], "third")); return err == nil })
	if got := bodies(f.inbox(us[1])); !slices.Equal(got, []string{"first", "third"}) {
		t.Errorf("inbox %q", got)
	}
}

// The barrier has a breaker of its own: a disk that does not sync refuses what
// is young at once, and goes on with the old.
func TestStalledBarrier(t *testing.T) {
	f, mems := newFaultFix(t, 1, MemOptions{}, func(o *storage.Options) {
		o.BreakAfter, o.ReadTimeout, o.SweepPause = 50*time.Millisecond, 100*time.Millisecond, time.Hour
	})
	us := f.users(2)
	release, before := mems[0].Hold(), mems[0].Commits()
	first := start(f.s, message(us[0], us[1], "first"))
	f.wait("a commit that is not durable", func() bool { return mems[0].Commits() > before })
	f.wait("the barrier is given up", func() bool {
		ctx, cancel := context.WithTimeout(f.ctx(), 100*time.Millisecond)
		defer cancel()
		_, err := f.s.Heads(ctx, us)
		return storage.RetryAfter(err) > 0
	})
	if es, err := f.s.History(f.ctx(), storage.PairKey(us[0], us[1]), 5, 9, 10, 0, false); err != nil || len(es) > 0 {
		t.Errorf("a read without young rows: %v, %v", es, err)
	}
	release()
	if _, err := f.result(first); err != nil {
		t.Error(err)
	}
	f.wait("the barrier is back", func() bool { _, err := f.s.Heads(f.ctx(), us); return err == nil })
}

// Readers that look at another shard, which hangs, are no readers of their own
// meanwhile; and only so many may look there.
func TestVisitsTakeNoPlace(t *testing.T) {
	f, ill := newIllFix(t, func(o *storage.Options) { o.Readers, o.ReaderQueue = 1, 1000 })
	there, here := f.userOn(0, 1), f.userOn(1, 1)
	ill.Hang()
	const visits = 30 // of which one may wait, for one reader
	var wg sync.WaitGroup
	var busy atomic.Int32
	for range visits {
		wg.Add(1)
		if err := f.s.Go(here.Slot(), func(ctx context.Context) {
			defer wg.Done()
			switch _, err := f.s.Heads(ctx, []storage.UserID{here, there}); {
			case errors.Is(err, storage.ErrBusy):
				busy.Add(1)
			case err != nil:
				t.Error(err)
			}
			if _, err := f.s.Sync(ctx, here, 0, 10, 0); err != nil {
				t.Errorf("back at home: %v", err)
			}
		}); err != nil {
			t.Fatal(err)
		}
	}
	f.wait("too many look at the shard that hangs", func() bool { return busy.Load() == visits-1 })
	for range 100 {
		done := make(chan error, 1)
		if err := f.s.Go(here.Slot(), func(ctx context.Context) {
			_, err := f.s.Sync(ctx, here, 0, 10, 0)
			done <- err
		}); err != nil {
			t.Fatal(err)
		}
		if err := <-done; err != nil {
			t.Fatal(err)
		}
	}
	ill.Well()
	wg.Wait()
	// All places are there again, and no more than before.
	leave, running := make(chan struct{}), make(chan struct{}, 10)
	for range 5 {
		if err := f.s.Go(here.Slot(), func(ctx context.Context) {
			running <- struct{}{}
			<-leave
		}); err != nil {
			t.Fatal(err)
		}
	}
	<-running
	time.Sleep(20 * time.Millisecond) // what is wrong here would come at once
	if n := len(running); n > 0 {
		t.Errorf("%d more readers than there may be", n)
	}
	close(leave)
}

// On a full disk sends are refused, and what needs no room goes on, even where
// it was in one batch with sends.
func TestFullRefusesSendsOnly(t *testing.T) {
	f, mems := newFaultFix(t, 1, MemOptions{}, func(o *storage.Options) {
		o.CommittersPerShard, o.MaxFlying, o.SweepPause = 1, 1, time.Hour
	})
	us := f.users(2)
	release, before := mems[0].Hold(), mems[0].Commits()
	first := start(f.s, message(us[0], us[1], "first"))
	f.wait("the first commit", func() bool { return mems[0].Commits() > before })
	mems[0].SetFault(func(_ int, w *storage.Writes) Fault {
		if len(w.Entries) > 0 {
			return Fault{Err: storage.ErrFull, Early: true}
		}
		return Fault{}
	})
	const n = 20
	var sends []<-chan sent
	updates := make(chan error, n)
	for i := range n {
		sends = append(sends, start(f.s, message(us[0], us[1], "x")))
		go func() {
			updates <- f.s.Update(f.ctx(), storage.Reads{Users: us, Convs: []storage.ConvKey{storage.SelfKey(us[0])}}, func(tx *storage.Tx) (err error) {
				h := tx.User(us[0])
				h.TokenGen++
				tx.PutUser(h)
				if i == 0 { // one of them takes room
					_, err = tx.Append(storage.Append{Conv: storage.SelfKey(us[0]), Sender: us[0], Kind: 2, Body: []byte("x")})
				}
				return err
			})
		}()
	}
	release()
	if _, err := f.result(first); err != nil {
		t.Error(err)
	}
	full := 0
	for range n {
		if err := <-updates; errors.Is(err, storage.ErrFull) {
			full++
		} else if err != nil {
			t.Errorf("an update: %v", err)
		}
	}
	if full != 1 || f.head(us[0]).TokenGen != n-1 {
		t.Errorf("%d updates found no room, token generation %d", full, f.head(us[0]).TokenGen)
	}
	for _, c := range sends {
		if _, err := f.result(c); !errors.Is(err, storage.ErrFull) {
			t.Errorf("a send: %v", err)
		}
	}
}
