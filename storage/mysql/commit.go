package mysql

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// maxTries is how often a transaction that the database gave up (a deadlock, a
// row that another one has just inserted) is run again.
const maxTries = 4

// Commit implements storage.Shard: two round trips, one that locks and reads,
// one that writes and commits. It waits for both, so done has been called when
// it returns, or is about to be by an earlier transaction's call.
func (s *Shard) Commit(ctx context.Context, locks *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error)) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	told := false
	defer func() {
		if !told {
			s.open.Done()
		}
	}()
	k, err := s.link(ctx)
	if err != nil {
		return err
	}
	defer k.release()
	for try := 1; ; try++ {
		t := tx{s: s, k: k, began: time.Now()}
		err := t.try(ctx, locks, plan, func(err error) {
			told = true
			s.order.leave(t.ticket, func() {
				defer s.open.Done()
				done(err)
			})
		})
		if n := number(err); try < maxTries && (n == errDeadlock || n == errDuplicate) {
			s.metrics.retried(n)
			continue
		}
		return err
	}
}

// tx is one run of a transaction.
type tx struct {
	s      *Shard
	k      *link
	began  time.Time
	ticket uint64
	held   bool
}

// try calls ended if the transaction was committed, or may have been; else it
// returns why it was not.
func (t *tx) try(ctx context.Context, locks *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), ended func(error)) error {
	told := false
	defer func() { // also if plan panics
		if t.held && !told {
			t.s.order.leave(t.ticket, nil)
		}
	}()
	err := t.run(ctx, locks, plan)
	if err != nil && !errors.Is(err, storage.ErrUnknown) || !t.held {
		return err
	}
	told = true
	ended(err)
	return nil
}

func (t *tx) run(ctx context.Context, locks *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error)) error {
	locked, err := t.s.lock(ctx, t.k, locks)
	if err != nil {
		return t.undo(wrapTry("lock", err))
	}
	t.ticket, t.held = t.s.order.enter(), true
	w, err := plan(locked)
	if err != nil {
		return t.undo(err)
	}
	if err := t.k.exec(ctx, t.s.writes(w)); err != nil {
		return t.undo(outcome(err))
	}
	t.s.metrics.committed(time.Since(t.began), w)
	return nil
}

// wrapTry keeps the errors that Commit tries again as they are.
func wrapTry(what string, err error) error {
	if n := number(err); n == errDeadlock {
		return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrBusy, err)
	}
	return wrap(what, err)
}

// outcome tells what became of the writes. An answer of the server means that
// it did not commit; without one it may have.
func outcome(err error) error {
	switch number(err) {
	case 0:
		return fmt.Errorf("mysql: commit: %w: %w", storage.ErrUnknown, err)
	case errShutdown, errInterrupted, errConnKilled, errServerStopped:
		// Told in the middle of COMMIT these leave it open.
		return fmt.Errorf("mysql: commit: %w: %w", storage.ErrUnknown, err)
	}
	return wrapTry("write", err)
}

// undo rolls back and returns err. A deadlock has done so already, a lock wait
// has not. If it fails, the connection is gone and the server does it.
func (t *tx) undo(err error) error {
	ctx, cancel := context.WithTimeout(context.Background(), t.s.opt.Timeout)
	defer cancel()
	_ = t.k.exec(ctx, "ROLLBACK")
	return err
}

// writes is the second round trip.
func (s *Shard) writes(w *storage.Writes) string {
	st := s.stmts.Get().(*stmt)
	defer s.stmts.Put(st)
	st.reset()
	if w != nil {
		s.insert(st, w)
		s.remove(st, w)
	}
	st.add("COMMIT")
	return st.text()
}

func (s *Shard) insert(st *stmt, w *storage.Writes) {
	if len(w.Slots) > 0 { // waits for all who rely on the slots
		st.add("UPDATE fence SET version=version+1 WHERE id=1;")
	}
	t := s.t
	t.slots.insert(st, w.Slots, true)
	t.convs.insert(st, w.Convs, true)
	t.users.insert(st, w.Users, true)
	t.entries.insert(st, w.Entries, false)
	t.inbox.insert(st, w.Inbox, false)
	t.sends.insert(st, w.Sends, false)
	t.userConvs.insert(st, w.UserConvs, true)
	t.tasks.insert(st, w.Tasks, true)
	t.names.insert(st, w.Names, false)
	t.accounts.insert(st, w.Accounts, true)
	t.devices.insert(st, w.Devices, true)
	t.blocks.insert(st, w.Blocks, true)
	t.meta.insert(st, w.Meta, true)
}

func (s *Shard) remove(st *stmt, w *storage.Writes) {
	remove(st, "tasks", &byTask, w.DelTasks)
	remove(st, "devices", &byDevice, w.DelDevices)
	remove(st, "blocks", &byBlock, w.DelBlocks)
	for i := range w.Trims {
		st.add("DELETE FROM inbox WHERE ")
		byUser.is(st, w.Trims[i].User)
		st.add(" AND seq<=")
		st.u64(w.Trims[i].Floor)
		st.end()
	}
	if w.DelSendsBefore > 0 {
		for _, slot := range w.DelSendsSlots {
			st.add("DELETE FROM sends WHERE slot=")
			st.u64(uint64(slot))
			st.add(" AND send_id<")
			id := madeAt(w.DelSendsBefore)
			st.bytes(id[:])
			st.end()
		}
	}
}

// madeAt is the least send id made at a time in microseconds.
func madeAt(us int64) (id [16]byte) {
	for ms, i := us/1000, 5; i >= 0; i-- {
		id[i] = byte(ms)
		ms >>= 8
	}
	return id
}
