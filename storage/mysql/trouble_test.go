package mysql

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// A row that somebody else keeps: ErrBusy when the server has waited for long
// enough, and nothing is left of the transaction.
func TestLockWait(t *testing.T) {
	f := newFix(t, func(o *Options) { o.Timeout = 2 * time.Second }) // a second for locks
	f.write(storage.Writes{Users: []storage.UserHead{head(anna), head(bob)}})
	held := f.hold(fmt.Sprintf("SELECT * FROM user_heads WHERE user_id=%d FOR UPDATE", bob))
	err := f.try(storage.Locks{Users: []storage.UserID{anna, bob}}, plans(storage.Writes{}))
	if !errors.Is(err, storage.ErrBusy) || number(err) != errLockWait {
		t.Errorf("waiting for a lock ended with %v", err)
	}
	// The row that it did get is free again: only the wait was rolled back by
	// the server.
	if err := f.try(storage.Locks{Users: []storage.UserID{anna}}, plans(storage.Writes{})); err != nil {
		t.Errorf("the row that was locked first: %v", err)
	}
	_ = held.Rollback()
	if err := f.try(storage.Locks{Users: []storage.UserID{anna, bob}}, plans(storage.Writes{})); err != nil {
		t.Errorf("after the other one ended: %v", err)
	}
}

// Somebody who locks the other way round: the deadlock is run again and counted.
func TestDeadlock(t *testing.T) {
	f := newFix(t, nil)
	f.write(storage.Writes{Users: []storage.UserHead{head(anna), head(bob)}})
	// Of two the server gives up the one that has written less: let that be ours.
	other := f.hold(fmt.Sprintf("UPDATE user_heads SET seq=7 WHERE user_id=%d", bob),
		"INSERT INTO meta (name,val) VALUES ('a',''),('b',''),('c',''),('d',''),('e','')")
	result := make(chan error, 1)
	go func() {
		result <- f.try(storage.Locks{Users: []storage.UserID{anna, bob}}, func(l *storage.Locked) (*storage.Writes, error) {
			for i := range l.Users {
				l.Users[i].Seq++
			}
			return &storage.Writes{Users: l.Users}, nil
		})
	}()
	f.waiting(1)
	if _, err := other.Exec(fmt.Sprintf("UPDATE user_heads SET seq=7 WHERE user_id=%d", anna)); err != nil {
		t.Fatalf("the other one: %v", err)
	}
	if err := other.Commit(); err != nil {
		t.Fatal(err)
	}
	if err := <-result; err != nil {
		t.Fatalf("Commit: %v", err)
	}
	if n := f.number("SELECT SUM(seq) FROM user_heads"); n != 16 {
		t.Errorf("the sum of the seqs is %d, want 8 and 8", n)
	}
	if n := f.retries("deadlock"); n != 1 {
		t.Errorf("%v deadlocks counted, want 1", n)
	}
}

// Two register one name at the same time: neither finds it, the second runs
// into the first and is run again, seeing it.
func TestDuplicate(t *testing.T) {
	f := newFix(t, nil)
	var both sync.WaitGroup
	both.Add(2)
	register := func(u storage.UserID) (found bool, err error) {
		tries := 0
		err = f.try(storage.Locks{Names: []string{"anna"}}, func(l *storage.Locked) (*storage.Writes, error) {
			if tries++; tries == 1 {
				both.Done()
				both.Wait() // both have seen that there is none
			}
			if found = l.Names[0].Found; found {
				return &storage.Writes{}, nil
			}
			return &storage.Writes{Names: []storage.NameRow{{Name: "anna", User: u}}}, nil
		})
		return found, err
	}
	var taken atomic.Int64
	var wg sync.WaitGroup
	for _, u := range []storage.UserID{anna, bob} {
		wg.Go(func() {
			found, err := register(u)
			if err != nil {
				t.Errorf("registering: %v", err)
			}
			if found {
				taken.Add(1)
			}
		})
	}
	wg.Wait()
	if taken.Load() != 1 || f.retries("duplicate") != 1 {
		t.Errorf("%d found the name taken after %v retries, want one after one", taken.Load(), f.retries("duplicate"))
	}
}

// A row that can never be inserted is refused for good, so that a Store does
// not try it for ever.
func TestDuplicateForGood(t *testing.T) {
	f := newFix(t, nil)
	name := storage.Writes{Names: []storage.NameRow{{Name: "anna", User: anna}}}
	f.write(name)
	err := f.try(storage.Locks{}, plans(name))
	if number(err) != errDuplicate || errors.Is(err, storage.ErrBusy) || errors.Is(err, storage.ErrUnknown) {
		t.Errorf("a name that is there: %v", err)
	}
	if !f.idle() {
		t.Error("a transaction is left open")
	}
}

// A plan that panics holds no lock, no connection, and no later done.
func TestPlanPanics(t *testing.T) {
	f := newFix(t, nil)
	f.write(storage.Writes{Users: []storage.UserHead{head(anna)}})
	lock := storage.Locks{Users: []storage.UserID{anna}}
	func() {
		defer func() {
			if recover() == nil {
				t.Error("the panic was swallowed")
			}
		}()
		_ = f.try(lock, func(*storage.Locked) (*storage.Writes, error) { panic("a bug") })
	}()
	f.until("the transaction ends", f.idle)
	if err := f.try(lock, plans(storage.Writes{})); err != nil {
		t.Errorf("the next commit: %v", err)
	}
}

// A context that ends while rows are locked, at each place where it may, leaves
// no transaction behind on a connection of the pool.
func TestCanceledMidway(t *testing.T) {
	f := newFix(t, nil)
	f.write(storage.Writes{Users: []storage.UserHead{head(anna), head(bob)}})
	lock := &storage.Locks{Users: []storage.UserID{anna}}
	never := func(err error) { t.Errorf("done(%v)", err) }

	ctx, cancel := context.WithCancel(f.ctx())
	err := f.s.Commit(ctx, lock, func(*storage.Locked) (*storage.Writes, error) { cancel(); return nil, errors.New("no") }, never)
	if err == nil || err.Error() != "no" {
		t.Errorf("the plan's error became %v", err)
	}
	ctx, cancel = context.WithCancel(f.ctx())
	told := make(chan error, 2)
	err = f.s.Commit(ctx, lock, func(*storage.Locked) (*storage.Writes, error) { cancel(); return nil, nil }, func(err error) { told <- err })
	if err == nil {
		err = <-told
	}
	if !errors.Is(err, storage.ErrUnknown) && !errors.Is(err, storage.ErrBusy) {
		t.Errorf("before the writes: %v", err)
	}
	held := f.hold(fmt.Sprintf("SELECT * FROM user_heads WHERE user_id=%d FOR UPDATE", bob))
	ctx, cancel = context.WithCancel(f.ctx())
	result := make(chan error, 1)
	go func() {
		result <- f.s.Commit(ctx, &storage.Locks{Users: []storage.UserID{anna, bob}}, plans(storage.Writes{}), never)
	}()
	f.waiting(1)
	cancel()
	if err := <-result; !errors.Is(err, storage.ErrBusy) {
		t.Errorf("while waiting for a lock: %v", err)
	}
	_ = held.Rollback()
	f.until("all transactions end", f.idle)
}

// A connection that is killed in the middle of a transaction: nothing of it
// happened where that is certain, else the outcome is unknown; the next commit
// gets a new one.
func TestConnectionKilled(t *testing.T) {
	f := newFix(t, nil)
	f.write(storage.Writes{Users: []storage.UserHead{head(anna)}})
	lock := storage.Locks{Users: []storage.UserID{anna}}
	raise := func(l *storage.Locked) (*storage.Writes, error) {
		l.Users[0].Seq++
		return &storage.Writes{Users: l.Users}, nil
	}
	err := f.try(lock, func(l *storage.Locked) (*storage.Writes, error) {
		id := f.thread("")
		if _, err := f.sql.Exec(fmt.Sprintf("KILL %d", id)); err != nil {
			t.Error(err)
		}
		return raise(l)
	})
	if !errors.Is(err, storage.ErrUnknown) && !errors.Is(err, storage.ErrBusy) {
		t.Errorf("the commit that was killed: %v", err)
	}
	held := f.hold(fmt.Sprintf("SELECT * FROM user_heads WHERE user_id=%d FOR UPDATE", anna))
	result := make(chan error, 1)
	go func() { result <- f.try(lock, raise) }()
	f.waiting(1)
	id := f.thread("AND t.trx_state='LOCK WAIT'")
	if _, err := f.sql.Exec(fmt.Sprintf("KILL %d", id)); err != nil {
		t.Error(err)
	}
	if err := <-result; !errors.Is(err, storage.ErrBusy) {
		t.Errorf("killed while it waited for a lock: %v", err)
	}
	_ = held.Rollback()
	if err := f.try(lock, raise); err != nil {
		t.Errorf("afterwards: %v", err)
	}
	if n := f.number("SELECT seq FROM user_heads"); n != 2 {
		t.Errorf("seq %d, want 2", n)
	}
}

// A commit that only looked waits for the disk all the same: what it saw may be
// another node's commit that is still on its way there.
func TestEmptyCommitIsOne(t *testing.T) {
	f := newFix(t, nil)
	f.write(storage.Writes{Users: []storage.UserHead{head(anna)}})
	ticks := func() int64 { return f.number("SELECT CAST(SUM(ticks) AS SIGNED) FROM fence") }
	for _, w := range []*storage.Writes{nil, {}, {Users: []storage.UserHead{head(anna)}}, {DelBlocks: []storage.BlockKey{{User: anna, Peer: bob}}}} {
		before := ticks()
		if err := f.try(storage.Locks{Users: []storage.UserID{anna}}, func(*storage.Locked) (*storage.Writes, error) { return w, nil }); err != nil {
			t.Fatal(err)
		}
		if ticks() != before+1 {
			t.Errorf("the commit of %+v changed nothing", w)
		}
	}
	before := ticks()
	if err := f.s.Barrier(f.ctx()); err != nil || ticks() != before+1 {
		t.Errorf("a barrier changed nothing (%v)", err)
	}
}

func literal(b []byte) string { return fmt.Sprintf("X'%x'", b) }

// Deletions touch the rows that they name, and wait for no other, however small
// the table is.
func TestDeletionsLockNoOthers(t *testing.T) {
	f := newFix(t, func(o *Options) { o.Timeout = 2 * time.Second })
	var w storage.Writes
	for u := anna; u < anna+6; u++ {
		w.Tasks = append(w.Tasks, storage.Task{Key: storage.TaskKey{Conv: storage.SelfKey(u), Target: 2}, NextRev: 1, ToRev: 1, Owner: 1})
		w.Blocks = append(w.Blocks, storage.Block{Key: storage.BlockKey{User: u, Peer: 9}})
		w.Devices = append(w.Devices, storage.Device{Key: storage.DeviceKey{User: u}, Slot: 1})
		w.Inbox = append(w.Inbox, storage.InboxRow{User: u, Seq: 1, Entry: storage.Entry{Conv: storage.SelfKey(u), Rev: 1}})
		w.Sends = append(w.Sends, storage.SendRow{Key: storage.SendKey{Conv: storage.SelfKey(storage.UserIDIn(storage.Slot(u), 1)), SendID: [16]byte{1}, Sender: u}})
	}
	f.write(w)
	f.hold("SELECT * FROM tasks FORCE INDEX (PRIMARY) WHERE conv="+literal(w.Tasks[0].Key.Conv[:])+" FOR UPDATE", "SELECT * FROM blocks FORCE INDEX (PRIMARY) WHERE user_id=1 FOR UPDATE",
		"SELECT * FROM devices FORCE INDEX (PRIMARY) WHERE user_id=1 FOR UPDATE", "SELECT * FROM inbox FORCE INDEX (PRIMARY) WHERE user_id=1 FOR UPDATE",
		"SELECT * FROM sends FORCE INDEX (PRIMARY) WHERE slot=1 FOR UPDATE")
	for what, del := range map[string]storage.Writes{
		"tasks":   {DelTasks: []storage.TaskKey{w.Tasks[1].Key, w.Tasks[2].Key, w.Tasks[3].Key, w.Tasks[4].Key}},
		"blocks":  {DelBlocks: []storage.BlockKey{w.Blocks[1].Key, w.Blocks[2].Key, w.Blocks[3].Key, w.Blocks[4].Key}},
		"devices": {DelDevices: []storage.DeviceKey{w.Devices[1].Key, w.Devices[2].Key, w.Devices[3].Key, w.Devices[4].Key}},
		"inbox":   {Trims: []storage.Trim{{User: 2, Floor: 1}, {User: 3, Floor: 1}}},
		"sends":   {DelSendsBefore: time.Now().UnixMicro(), DelSendsSlots: []storage.Slot{2, 3}},
	} {
		if err := f.try(storage.Locks{}, plans(del)); err != nil {
			t.Errorf("deleting from %s beside a locked row: %v", what, err)
		}
	}
}

// Locking and deleting many rows locks those and no others, and finds out which
// of many heads is missing.
func TestManyRows(t *testing.T) {
	f := newFix(t, func(o *Options) { o.Timeout = 4 * time.Second })
	var w storage.Writes
	var l storage.Locks
	for u := anna; u < anna+1500; u++ {
		w.Users = append(w.Users, head(u))
		w.Blocks = append(w.Blocks, storage.Block{Key: storage.BlockKey{User: u, Peer: 1}})
		w.Convs = append(w.Convs, storage.ConvHead{Conv: storage.SelfKey(u), Generation: uint64(u)})
		w.DelBlocks = append(w.DelBlocks, storage.BlockKey{User: u, Peer: 1})
		l.Users, l.Convs, l.DevicesOf = append(l.Users, u), append(l.Convs, storage.SelfKey(u)), append(l.DevicesOf, u)
	}
	del := storage.Writes{DelBlocks: w.DelBlocks[1:]}
	w.DelBlocks, w.Convs = nil, w.Convs[:1400]
	f.write(w)
	f.hold("SELECT * FROM user_heads WHERE user_id=1 FOR UPDATE", "SELECT * FROM blocks FORCE INDEX (PRIMARY) WHERE user_id=1 FOR UPDATE")
	l.Users = l.Users[1:]
	err := f.try(l, func(x *storage.Locked) (*storage.Writes, error) {
		for i := range l.Users {
			if h := x.Users[i]; !h.Found || h.User != l.Users[i] {
				t.Fatalf("head %d is %+v", i, h)
			}
		}
		for i := range l.Convs {
			if h := x.Convs[i]; h.Found != (i < 1400) || h.Conv != l.Convs[i] {
				t.Fatalf("conversation %d is %+v", i, h)
			}
		}
		return &del, nil
	})
	if err != nil {
		t.Errorf("all rows but the one that is locked: %v", err)
	}
	if n := f.number("SELECT COUNT(*) FROM blocks"); n != 1 {
		t.Errorf("%d blocks are left, want 1", n)
	}
}
