package mysql

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/hermod-im/hermod/storage"
)

// maxTries is how often a transaction that the database gave up (a deadlock, a
// row that another one has just inserted) is run again.
const maxTries = 4

// retryPause bounds the pause before the first retry; later ones grow.
const retryPause = 5 * time.Millisecond

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
			// Whoever it met is trying again in this very moment, too.
			if rest(ctx, rand.N(time.Duration(try)*retryPause)); ctx.Err() != nil {
				return err
			}
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
	had := presentIn(locked)
	w, err := t.plan(locked, plan)
	if err != nil {
		return t.undo(err)
	}
	if err := t.k.exec(ctx, t.s.writes(w, locks, &had)); err != nil {
		return t.undo(outcome(err))
	}
	t.s.metrics.committed(time.Since(t.began), w)
	return nil
}

// plan runs it. If it panics the locks go before the connection does: back in
// the pool it would keep them until somebody uses it again.
func (t *tx) plan(locked *storage.Locked, plan func(*storage.Locked) (*storage.Writes, error)) (*storage.Writes, error) {
	returned := false
	defer func() {
		if !returned {
			_ = t.undo(nil)
		}
	}()
	w, err := plan(locked)
	returned = true
	return w, err
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
		if errors.Is(err, mysql.ErrPktTooLarge) { // the driver did not send it
			return fmt.Errorf("mysql: write: %w", err)
		}
		return fmt.Errorf("mysql: commit: %w: %w", storage.ErrUnknown, err)
	case errShutdown, errInterrupted, errConnKilled, errServerStopped, errMaxStatement, errQueryTimeout, errDuringCommit:
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
	if e := t.k.exec(ctx, "ROLLBACK"); e != nil || readOnly(err) {
		t.k.drop()
	}
	return err
}

// writes is the second round trip.
func (s *Shard) writes(w *storage.Writes, l *storage.Locks, had *present) string {
	st := s.stmts.Get().(*stmt)
	defer s.stmts.Put(st)
	st.reset()
	if w != nil {
		s.insert(st, w, l, had)
		s.remove(st, w)
	}
	if w == nil || len(w.Entries)+len(w.Inbox)+len(w.Sends)+len(w.Names) == 0 {
		tick(st)
	}
	st.add("COMMIT")
	return st.text()
}

// tickRows is over how many rows ticks are spread: the row is locked until the
// disk has the commit.
const tickRows = 16

// tick changes a row that is nobody's. A COMMIT that changed nothing returns at
// once, though what it read (visible, not durable: R1) may still be on its way
// to the disk, by another node. One that changed something has a place in the
// log behind that, and waits for it. Whole rows written again may be the same
// as before, so only new rows count as a change.
func tick(st *stmt) {
	st.add("INSERT INTO fence (id,version,ticks) VALUES (")
	st.u64(2 + rand.Uint64N(tickRows))
	st.add(",0,1) ON DUPLICATE KEY UPDATE ticks=ticks+1")
	st.end()
}

// versionStep is how far the slots' version may go at once: at random, so that
// one that was visible, and lost with the server's power before it was durable,
// is not given to other slots afterwards. A node may have it in memory.
const versionStep = 1 << 20

func (s *Shard) insert(st *stmt, w *storage.Writes, l *storage.Locks, had *present) {
	if len(w.Slots) > 0 { // waits for all who rely on the slots
		st.add("UPDATE fence SET version=version+")
		st.u64(1 + rand.Uint64N(versionStep))
		st.add(" WHERE id=1;")
	}
	t := s.t
	t.slots.insert(st, w.Slots, true)
	t.convs.insert(st, w.Convs, true)
	put(st, &t.users, w.Users, l.Users, had.users, func(h *storage.UserHead) storage.UserID { return h.User })
	t.entries.insert(st, w.Entries, false)
	t.inbox.insert(st, w.Inbox, false)
	t.sends.insert(st, w.Sends, false)
	put(st, &t.userConvs, w.UserConvs, l.UserConvs, had.userConvs, func(c *storage.UserConv) storage.UserConvKey { return c.Key })
	put(st, &t.tasks, w.Tasks, l.Tasks, had.tasks, func(r *storage.Task) storage.TaskKey { return r.Key })
	t.names.insert(st, w.Names, false)
	put(st, &t.accounts, w.Accounts, l.Accounts, had.accounts, func(a *storage.Account) storage.UserID { return a.User })
	t.devices.insert(st, w.Devices, true)
	put(st, &t.blocks, w.Blocks, l.Blocks, had.blocks, func(b *storage.Block) storage.BlockKey { return b.Key })
	put(st, &t.meta, w.Meta, l.Meta, had.meta, func(m *storage.MetaRow) string { return m.Name })
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
