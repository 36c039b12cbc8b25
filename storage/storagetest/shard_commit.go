package storagetest

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// testPlanError: the plan's error comes back as it is, nothing is written, done
// is not called.
func testPlanError(f *shardFix) {
	boom := fmt.Errorf("plan says no")
	called := make(chan error, 1)
	err := f.s.Commit(f.ctx(), &storage.Locks{Meta: []string{"m"}}, func(*storage.Locked) (*storage.Writes, error) {
		return &storage.Writes{Meta: []storage.MetaRow{{Name: "m", Value: []byte("x")}}}, boom
	}, func(err error) { called <- err })
	if err != boom {
		f.Errorf("Commit answers %v, want the plan's own error", err)
	}
	if l := f.locked(storage.Locks{Meta: []string{"m"}}); l.Meta[0].Found {
		f.Error("a refused plan was written")
	}
	if len(called) != 0 {
		f.Error("done was called for a refused plan")
	}
}

// testEmptyWrites: done vouches for what the plan read.
func testEmptyWrites(f *shardFix) {
	for _, w := range []*storage.Writes{nil, {}} {
		f.commit(storage.Locks{Users: []storage.UserID{shardAnna}}, func(*storage.Locked) (*storage.Writes, error) { return w, nil })
	}
	var wrote atomic.Bool
	for range 50 {
		wrote.Store(false)
		w := &storage.Writes{Meta: []storage.MetaRow{{Name: "m", Value: []byte("x")}}}
		if err := f.s.Commit(f.ctx(), &storage.Locks{Meta: []string{"m"}}, func(*storage.Locked) (*storage.Writes, error) { return w, nil }, func(error) { wrote.Store(true) }); err != nil {
			f.Fatal(err)
		}
		f.locked(storage.Locks{Meta: []string{"m"}})
		if !wrote.Load() {
			f.Fatal("an empty transaction was done before the one whose row it read")
		}
	}
}

// testDoneOrder: transactions of the same row follow each other without waiting
// for the disk; their dones keep the order, and none is lost or called twice.
func testDoneOrder(f *shardFix) {
	const n = 500
	var mu sync.Mutex
	var order []uint64
	all := make(chan struct{})
	for i := range uint64(n) {
		var seen uint64
		err := f.s.Commit(f.ctx(), &storage.Locks{Users: []storage.UserID{shardAnna}}, func(l *storage.Locked) (*storage.Writes, error) {
			h := l.Users[0]
			seen = h.Seq
			h.Seq++
			if i%7 == 3 {
				return nil, nil // reads only
			}
			return &storage.Writes{Users: []storage.UserHead{h}, Inbox: []storage.InboxRow{{User: shardAnna, Seq: h.Seq, Entry: storage.Entry{Conv: storage.SelfKey(shardAnna), Kind: 1, Sender: shardAnna}}}}, nil
		}, func(err error) {
			if err != nil {
				f.Error(err)
			}
			mu.Lock()
			defer mu.Unlock()
			if order = append(order, i); len(order) == n {
				close(all)
			}
		})
		if err != nil {
			f.Fatal(err)
		}
		if want := i - (i+3)/7; seen != want {
			f.Fatalf("transaction %d saw seq %d, want %d", i, seen, want)
		}
	}
	select {
	case <-all:
	case <-time.After(shardWait):
		f.Fatal("a done is missing")
	}
	f.locked(storage.Locks{})
	mu.Lock()
	defer mu.Unlock()
	if len(order) != n {
		f.Fatalf("%d dones for %d transactions", len(order), n)
	}
	for i, got := range order {
		if got != uint64(i) {
			f.Fatalf("done %d was called at place %d", got, i)
		}
	}
}

// testConcurrentCommits: no update is lost between transactions that share rows.
func testConcurrentCommits(f *shardFix) {
	const workers, each = 8, 60
	users := []storage.UserID{shardAnna, shardBob, shardCarol}
	// Heads are there from the registration on, and a row that is not there
	// locks nothing (R2).
	f.commit(storage.Locks{Users: users}, func(l *storage.Locked) (*storage.Writes, error) {
		return &storage.Writes{Users: append([]storage.UserHead(nil), l.Users...)}, nil
	})
	var pending, wg sync.WaitGroup
	for n := range workers {
		wg.Go(func() {
			for i := range each {
				pair := []storage.UserID{users[(n+i)%3], users[(n+i+1)%3]}
				if i%2 == 0 {
					pair[0], pair[1] = pair[1], pair[0] // an engine must sort out lock order
				}
				pending.Add(1)
				err := f.s.Commit(f.ctx(), &storage.Locks{Users: pair}, func(l *storage.Locked) (*storage.Writes, error) {
					w := &storage.Writes{}
					for _, h := range l.Users {
						h.Seq++
						w.Users = append(w.Users, h)
						w.Inbox = append(w.Inbox, storage.InboxRow{User: h.User, Seq: h.Seq, Entry: storage.Entry{Conv: storage.SelfKey(h.User), Kind: 1, Sender: h.User}})
					}
					return w, nil
				}, func(err error) {
					if err != nil {
						f.Error(err)
					}
					pending.Done()
				})
				if err != nil {
					f.Error(err)
					pending.Done()
				}
			}
		})
	}
	wg.Wait()
	pending.Wait()
	f.twice(func() {
		var sum uint64
		f.view(func(v storage.Snap) {
			for _, u := range users {
				h := must(v.User(u))(f)
				rows := must(v.Inbox(u, 0, 10_000))(f)
				for i, r := range rows {
					if r.Seq != uint64(i)+1 {
						f.Fatalf("user %d: row %d has seq %d", u, i, r.Seq)
					}
				}
				if h.Seq != uint64(len(rows)) {
					f.Errorf("user %d: head says %d, %d rows", u, h.Seq, len(rows))
				}
				sum += h.Seq
			}
		})
		if sum != workers*each*2 {
			f.Errorf("%d increments are there, %d were committed", sum, workers*each*2)
		}
	})
}

// testManyHeads: more heads than an engine's caches may hold, in one
// transaction and over many.
func testManyHeads(f *shardFix) {
	const users, rounds = 3000, 3
	for round := range uint64(rounds) {
		for first := 0; first < users; first += 1000 {
			var l storage.Locks
			for i := first; i < first+1000; i++ {
				u := storage.UserIDIn(storage.Slot(i%storage.Slots), uint64(i)*7919)
				l.Users = append(l.Users, u)
				l.Convs = append(l.Convs, storage.SelfKey(u))
				l.UserConvs = append(l.UserConvs, storage.UserConvKey{User: u, Conv: storage.SelfKey(u)})
			}
			f.commit(l, func(x *storage.Locked) (*storage.Writes, error) {
				w := &storage.Writes{}
				for i, h := range x.Users {
					c, uc := x.Convs[i], x.UserConvs[i]
					if h.Seq != round || c.Rev != round || uc.Head != round || h.Found != (round > 0) || c.Found != h.Found || uc.Found != h.Found {
						return nil, fmt.Errorf("round %d: %+v, %+v, %+v", round, h, c, uc)
					}
					h.Seq, c.Rev, uc.Head, h.InboxEpoch, c.Generation = round+1, round+1, round+1, 5, 6
					e := storage.Entry{Conv: c.Conv, Rev: c.Rev, Kind: 1, Sender: h.User}
					w.Users, w.Convs, w.UserConvs = append(w.Users, h), append(w.Convs, c), append(w.UserConvs, uc)
					w.Entries, w.Inbox = append(w.Entries, e), append(w.Inbox, storage.InboxRow{User: h.User, Seq: h.Seq, Entry: e})
				}
				return w, nil
			})
		}
	}
	f.view(func(v storage.Snap) {
		var us []storage.UserID
		var ks []storage.UserConvKey
		var heads []storage.UserHead
		var convs []storage.UserConv
		for i := range 450 { // every third is nobody, and one comes twice
			u := storage.UserIDIn(storage.Slot(i%storage.Slots), uint64(max(i, 1))*7919)
			h, c := storage.UserHead{User: u, Seq: rounds, InboxEpoch: 5, Found: true}, storage.UserConv{Key: storage.UserConvKey{User: u, Conv: storage.SelfKey(u)}, Head: rounds, Found: true}
			if i%3 == 0 {
				h, c = storage.UserHead{User: u + 1}, storage.UserConv{Key: storage.UserConvKey{User: u + 1, Conv: c.Key.Conv}}
			}
			us, ks, heads, convs = append(us, h.User), append(ks, c.Key), append(heads, h), append(convs, c)
		}
		us, ks, heads, convs = append(us, us[1]), append(ks, ks[1]), append(heads, heads[1]), append(convs, convs[1])
		f.expect("heads", must(v.UserHeads(us))(f), heads)
		f.expect("user_convs", must(v.UserConvRows(ks))(f), convs)
		f.expect("no heads", len(must(v.UserHeads(nil))(f)), 0)
		f.expect("no user_convs", len(must(v.UserConvRows(nil))(f)), 0)
	})
}

func testSlotFence(f *shardFix) {
	ref := func(epoch uint64) []storage.SlotRef {
		return []storage.SlotRef{{Slot: 7, Epoch: 1}, {Slot: 17, Epoch: epoch}}
	}
	refused := func(why string, slots []storage.SlotRef) {
		f.Helper()
		err := f.try(storage.Locks{Slots: slots}, func(*storage.Locked) (*storage.Writes, error) {
			f.Errorf("%s: the plan ran", why)
			return nil, nil
		})
		if !errors.Is(err, storage.ErrSlotMoved) {
			f.Errorf("%s: Commit answers %v, want ErrSlotMoved", why, err)
		}
		err = f.s.View(f.ctx(), slots, func(storage.Snap) error {
			f.Errorf("%s: the read ran", why)
			return nil
		})
		if !errors.Is(err, storage.ErrSlotMoved) {
			f.Errorf("%s: View answers %v, want ErrSlotMoved", why, err)
		}
	}
	f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 7, State: storage.SlotOwned, Epoch: 1}}})
	f.twice(func() { refused("absent", ref(0)) })
	f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 17, State: storage.SlotOwned, Epoch: 3}}})
	f.twice(func() {
		f.commit(storage.Locks{Slots: ref(3)}, func(*storage.Locked) (*storage.Writes, error) { return nil, nil })
		f.view(func(storage.Snap) {}, ref(3)...)
		refused("older epoch", ref(2))
		refused("newer epoch", ref(4))
		refused("no such slot", []storage.SlotRef{{Slot: storage.Slots, Epoch: 1}})
	})
	f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 17, State: storage.SlotFrozen, Epoch: 3}}})
	f.twice(func() { refused("frozen", ref(3)) })
	f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 17, State: storage.SlotOwned, Epoch: 4}}})
	f.view(func(v storage.Snap) {
		f.expect("rows", must(v.SlotRows())(f), []storage.SlotRow{{Slot: 7, State: storage.SlotOwned, Epoch: 1}, {Slot: 17, State: storage.SlotOwned, Epoch: 4}})
	}, ref(4)...)
}

// testSlotFenceRace: no snapshot is of another moment than its slots' check.
// The slot comes and goes; while it is owned, and only then, a row is there.
func testSlotFenceRace(f *shardFix) {
	stop := make(chan struct{})
	var epoch atomic.Uint64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				at := epoch.Load()
				err := f.s.View(f.Context(), []storage.SlotRef{{Slot: 17, Epoch: at}}, func(v storage.Snap) error {
					m, err := v.Meta("owned at")
					if want := fmt.Sprint(at); err == nil && string(m.Value) != want {
						f.Errorf("checked at epoch %s, read the rows of %q", want, m.Value)
					}
					return err
				})
				if err != nil && !errors.Is(err, storage.ErrSlotMoved) {
					f.Error(err)
					return
				}
			}
		})
	}
	for i := range uint64(200) {
		f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 17, State: storage.SlotOwned, Epoch: i}}, Meta: []storage.MetaRow{{Name: "owned at", Value: fmt.Append(nil, i)}}})
		epoch.Store(i)
		f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 17, State: storage.SlotAbsent, Epoch: i}}, Meta: []storage.MetaRow{{Name: "owned at", Value: []byte("nobody")}}})
	}
	close(stop)
	wg.Wait()
}

// testBarrier: after it, the dones of everything seen before it are due.
func testBarrier(f *shardFix) {
	if err := f.s.Barrier(f.ctx()); err != nil {
		f.Fatalf("with nothing pending: %v", err)
	}
	var durable atomic.Uint64
	var wg sync.WaitGroup
	for range 2 {
		wg.Go(func() {
			for range 100 {
				var seen uint64
				err := f.s.View(f.Context(), nil, func(v storage.Snap) error {
					h, err := v.User(shardAnna)
					seen = h.Seq
					return err
				})
				if err := firstError(err, f.s.Barrier(f.Context())); err != nil {
					f.Error(err)
				}
				// done runs right after the barrier is answered, or before.
				for deadline := time.Now().Add(shardWait); durable.Load() < seen; time.Sleep(50 * time.Microsecond) {
					if time.Now().After(deadline) {
						f.Errorf("the barrier passed, but seq %d is not done", seen)
						return
					}
				}
			}
		})
	}
	for i := range uint64(300) {
		h := storage.UserHead{User: shardAnna, Seq: i + 1}
		err := f.s.Commit(f.ctx(), &storage.Locks{Users: []storage.UserID{shardAnna}}, func(*storage.Locked) (*storage.Writes, error) {
			return &storage.Writes{Users: []storage.UserHead{h}}, nil
		}, func(err error) {
			if err == nil {
				durable.Store(i + 1)
			}
		})
		if err != nil {
			f.Fatal(err)
		}
	}
	wg.Wait()
	if err := f.s.Barrier(f.ctx()); err != nil {
		f.Error(err)
	}
}

func testCanceled(f *shardFix) {
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	ran := false
	err1 := f.s.Commit(ctx, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { ran = true; return nil, nil }, func(error) { f.Error("done was called") })
	err2 := f.s.View(ctx, nil, func(storage.Snap) error { ran = true; return nil })
	if err1 == nil || err2 == nil || ran {
		f.Errorf("a dead context: Commit %v, View %v, ran %v", err1, err2, ran)
	}
	if _, err := f.s.Tasks(ctx, 1, nil, 1); err == nil {
		f.Error("a dead context: Tasks did not notice")
	}
}

func testClosed(f *shardFix) {
	if err := f.s.Close(); err != nil {
		f.Fatal(err)
	}
	_, tasks := f.s.Tasks(f.ctx(), 1, nil, 1)
	_, lease := f.s.Lease(f.ctx(), 1, 1, time.Second)
	for name, err := range map[string]error{
		"Commit":  f.try(storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return nil, nil }),
		"View":    f.s.View(f.ctx(), nil, func(storage.Snap) error { return nil }),
		"Barrier": f.s.Barrier(f.ctx()),
		"Tasks":   tasks,
		"Lease":   lease,
	} {
		if !errors.Is(err, storage.ErrClosed) {
			f.Errorf("%s after Close: %v, want ErrClosed", name, err)
		}
	}
	if err := f.s.Close(); err != nil {
		f.Errorf("second Close: %v", err)
	}
}

// testCloseWaits: Close lets open reads and transactions finish, and every done
// has been called when it returns.
func testCloseWaits(f *shardFix) {
	entered, leave, closed := make(chan struct{}), make(chan struct{}), make(chan error, 1)
	view := make(chan error, 1)
	go func() {
		view <- f.s.View(f.ctx(), nil, func(v storage.Snap) error {
			close(entered)
			<-leave
			_, err := v.User(shardAnna)
			return err
		})
	}()
	<-entered
	var dones atomic.Int32
	for i := range 100 {
		w := &storage.Writes{Meta: []storage.MetaRow{{Name: "m", Value: []byte{byte(i)}}}}
		if err := f.s.Commit(f.ctx(), &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return w, nil }, func(error) { dones.Add(1) }); err != nil {
			f.Fatal(err)
		}
	}
	go func() { closed <- f.s.Close() }()
	select {
	case <-closed:
		f.Error("Close did not wait for a view")
	case <-time.After(20 * time.Millisecond):
	}
	close(leave)
	if err := <-view; err != nil {
		f.Errorf("the open view: %v", err)
	}
	if err := <-closed; err != nil {
		f.Error(err)
	}
	if n := dones.Load(); n != 100 {
		f.Errorf("Close returned after %d of 100 dones", n)
	}
}
