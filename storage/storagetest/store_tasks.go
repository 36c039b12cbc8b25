package storagetest

import (
	"fmt"
	"slices"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// testRestart: after a restart, retries get their first result, and all is
// where it was.
func testRestart(f *storeFix) {
	a, b := f.pairOn(0, 1)
	var ms []storage.Append
	var first []storage.Appended
	for i := range 20 {
		m := message(a, b, fmt.Sprintf("%02d", i))
		ms, first = append(ms, m), append(first, f.send(m))
	}
	f.reopen()
	for i, m := range ms {
		r := f.send(m)
		if !r.Duplicate || r.Rev != first[i].Rev || r.Time != first[i].Time || r.ConvSeq != first[i].ConvSeq {
			f.Errorf("retry %d after a restart: %+v, first was %+v", i, r, first[i])
		}
	}
	f.waitHead(b, 20)
	f.waitTasks(1)
	for _, u := range []storage.UserID{a, b} {
		rows := f.inbox(u)
		f.contiguous(u, rows)
		if len(rows) != 20 || !slices.IsSorted(bodies(rows)) {
			f.Errorf("inbox of %d: %q", u, bodies(rows))
		}
	}
}

// testTakeover: a node dies between the commit at home and the delivery; when
// its lease runs out another one delivers, exactly once. The dead one was only
// stopped: it wakes, and does no harm.
func testTakeover(f *storeFix) {
	a, b := f.pairOn(0, 1)
	k := storage.PairKey(a, b)
	var last storage.Appended
	for i := range 3 {
		last = f.send(message(a, b, fmt.Sprint(i)))
	}
	f.waitHead(b, 3)
	f.waitTasks(1)
	f.ghostEntries(k, a, last, 4, 6)
	if got := f.head(b).Seq; got != 3 {
		f.Fatalf("the recipient has %d rows before the takeover", got)
	}
	// Alive: its tasks are its own.
	if _, err := f.shards[0].Lease(f.ctx(), ghost, 1, time.Hour); err != nil {
		f.Fatal(err)
	}
	if n := f.countTasks(ghost); n != 1 {
		f.Fatalf("%d tasks of the other node", n)
	}
	f.envs[0].Advance(2 * time.Hour)
	f.waitHead(b, 6)
	f.waitTasks(1, ghost)
	// The ghost wakes, believing that the task is still its own.
	f.ghostTask(k, 2, 6)
	f.envs[0].Advance(2 * time.Hour)
	f.waitTasks(1, ghost)
	f.send(message(b, a, "seven"))
	f.waitHead(b, 7)
	rows := f.inbox(b)
	f.contiguous(b, rows)
	if want := []string{"0", "1", "2", "ghost 4", "ghost 5", "ghost 6", "seven"}; !slices.Equal(bodies(rows), want) {
		f.Errorf("inbox is %q, want %q", bodies(rows), want)
	}
	f.ordered(b, rows)
	f.waitTasks(1, ghost)
}

// ghost is a node that commits and then does nothing.
const ghost = storage.NodeID(99)

// ghostEntries commits entries from … to as the ghost would, task included.
func (f *storeFix) ghostEntries(k storage.ConvKey, sender storage.UserID, last storage.Appended, from, to uint64) {
	f.Helper()
	w := &storage.Writes{Tasks: []storage.Task{{
		Key: storage.TaskKey{Conv: k, Target: 2}, NextRev: from, ToRev: to, Owner: ghost, Incarnation: 1, Found: true,
	}}}
	l := &storage.Locks{Convs: []storage.ConvKey{k}, Users: []storage.UserID{k.Home()}, UserConvs: []storage.UserConvKey{{User: k.Home(), Conv: k}}}
	f.commit(0, l, func(r *storage.Locked) (*storage.Writes, error) {
		h, u, c := r.Convs[0], r.Users[0], r.UserConvs[0]
		w.Entries, w.Inbox = nil, nil
		for rev := from; rev <= to; rev++ {
			h.Rev, h.ConvSeq, h.LastTime = rev, h.ConvSeq+1, max(h.LastTime+1, r.Now)
			e := storage.Entry{Conv: k, Rev: rev, ConvSeq: h.ConvSeq, Time: h.LastTime, Sender: sender, Kind: 1, Body: fmt.Appendf(nil, "ghost %d", rev)}
			u.Seq++
			c.Head, c.HeadRev, c.HeadTime = h.ConvSeq, rev, h.LastTime
			w.Entries = append(w.Entries, e)
			w.Inbox = append(w.Inbox, storage.InboxRow{User: u.User, Seq: u.Seq, Entry: e, Inline: true})
		}
		w.Convs, w.Users, w.UserConvs = []storage.ConvHead{h}, []storage.UserHead{u}, []storage.UserConv{c}
		return w, nil
	})
	if last.Rev+1 != from {
		f.Fatalf("the ghost begins at %d after %d", from, last.Rev)
	}
}

func (f *storeFix) ghostTask(k storage.ConvKey, next, to uint64) {
	f.Helper()
	f.commit(0, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) {
		return &storage.Writes{Tasks: []storage.Task{{
			Key: storage.TaskKey{Conv: k, Target: 2}, NextRev: next, ToRev: to, Owner: ghost, Incarnation: 1, Found: true,
		}}}, nil
	})
}

// commit runs a transaction on a shard, past the Store.
func (f *storeFix) commit(shard int, l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error)) {
	f.Helper()
	done := make(chan error, 1)
	err := f.shards[shard].Commit(f.ctx(), l, plan, func(err error) { done <- err })
	if err == nil {
		err = <-done
	}
	if err != nil {
		f.Fatalf("commit: %v", err)
	}
}

// testRetentionByCount: an inbox keeps about RetainEvents rows, its floor says
// so, its seqs go on, and the log stays.
func testRetentionByCount(f *storeFix) {
	const keep, total = 64, 300
	f.reopenWith(func(o *storage.Options) { o.RetainEvents = keep })
	us := f.users(2)
	var cs []<-chan sent
	for i := range total {
		cs = append(cs, start(f.s, message(us[0], us[1], fmt.Sprintf("%03d", i))))
	}
	for _, c := range cs {
		if _, err := f.result(c); err != nil {
			f.Fatal(err)
		}
	}
	for _, u := range us {
		h, rows := f.head(u), f.inbox(u)
		f.contiguous(u, rows)
		if h.Seq != total || len(rows) < keep || len(rows) > 2*keep+128 {
			f.Errorf("user %d: seq %d, %d rows left; want %d and about %d", u, h.Seq, len(rows), total, keep)
		}
		p, err := f.s.Sync(f.ctx(), u, h.Floor-1, 10, 0)
		if err != nil || len(p.Rows) != 0 || p.Head.Floor != h.Floor {
			f.Errorf("Sync below the floor: %d rows, floor %d, %v", len(p.Rows), p.Head.Floor, err)
		}
	}
	if es, err := f.s.History(f.ctx(), storage.PairKey(us[0], us[1]), 1, 0, total+1, 0, false); err != nil || len(es) != total {
		f.Errorf("the log has %d entries, %v; want all %d", len(es), err, total)
	}
}

// testRetentionByAge: the sweep deletes what is too old, and dedupe rows that
// nobody may ask for.
func testRetentionByAge(f *storeFix) {
	us := f.users(2)
	for i := range 5 {
		f.send(message(us[0], us[1], fmt.Sprintf("old %d", i)))
	}
	f.envs[0].Advance(31 * 24 * time.Hour)
	fresh := message(us[0], us[1], "new")
	fresh.SendID = sendIDAt(time.UnixMicro(f.shardNow(0)))
	f.send(fresh)
	for _, u := range us {
		f.wait("the sweep", func() bool { return f.head(u).Floor == 5 })
		rows := f.inbox(u)
		f.contiguous(u, rows)
		if got := bodies(rows); !slices.Equal(got, []string{"new"}) {
			f.Errorf("user %d keeps %q", u, got)
		}
	}
	if r := f.send(fresh); !r.Duplicate {
		f.Error("the sweep forgot a young send id")
	}
}

// testSlots: a Store learns that a slot moved, and goes on at its new place.
// (Rows do not move here; an empty slot does.)
func testSlots(f *storeFix) {
	const slot = 100
	u := storage.UserIDIn(slot, 1)
	f.commit(0, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) {
		return &storage.Writes{Slots: []storage.SlotRow{{Slot: slot, State: storage.SlotFrozen, Epoch: 1}}}, nil
	})
	done := make(chan error, 2)
	go func() {
		done <- f.s.Update(f.ctx(), storage.Reads{Users: []storage.UserID{u}}, func(tx *storage.Tx) error {
			tx.PutUser(tx.User(u))
			return nil
		})
	}()
	go func() {
		done <- f.s.View(f.ctx(), slot, func(storage.Snap) error { return nil })
	}()
	select {
	case err := <-done:
		f.Fatalf("a call on a frozen slot ended: %v", err)
	case <-time.After(20 * time.Millisecond):
	}
	if err := f.s.View(f.ctx(), slot+1, func(storage.Snap) error { return nil }); err != nil {
		f.Errorf("a read of another slot of that shard: %v", err)
	}
	f.commit(1, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) {
		return &storage.Writes{Slots: []storage.SlotRow{{Slot: slot, State: storage.SlotOwned, Epoch: 2}}}, nil
	})
	for range 2 {
		if err := <-done; err != nil {
			f.Fatalf("a call did not follow its slot: %v", err)
		}
	}
	if err := f.shards[1].View(f.ctx(), []storage.SlotRef{{Slot: slot, Epoch: 2}}, func(sn storage.Snap) error {
		h, err := sn.User(u)
		if !h.Found {
			f.Error("the user is not on the new shard")
		}
		return err
	}); err != nil {
		f.Fatal(err)
	}
	if !f.head(u).Found {
		f.Error("reads do not follow")
	}
	f.reopen() // the claim of the first Open is not repeated
	if !f.head(u).Found {
		f.Error("after a restart the slot is back")
	}
}
