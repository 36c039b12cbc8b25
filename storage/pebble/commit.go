package pebble

import (
	"context"
	"fmt"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// Commit implements storage.Shard. One mutex stands for all the locks of R2: a
// transaction holds it from its reads until its rows are applied, some
// microseconds for each message, and not while the disk syncs. Then the next one
// may read what is applied but not yet durable; its done, which follows in
// order, vouches for both.
//
// ctx bounds only the wait for a place among the transactions in flight
// (ErrBusy); from there on Commit does not wait for anything slow. done must
// neither block nor call Commit: the one goroutine that calls it also makes room
// for later transactions.
func (s *Shard) Commit(ctx context.Context, locks *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error)) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.gate.exit()
	if err := s.pipe.acquire(ctx); err != nil {
		return err
	}
	accepted := false
	defer func() { // also if plan panics
		if !accepted {
			s.pipe.release()
		}
	}()
	err := s.commit(locks, plan, done, time.Now())
	accepted = err == nil
	return err
}

func (s *Shard) commit(locks *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error), began time.Time) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if err := s.failure(); err != nil {
		return err
	}
	if err := s.checkSlots(locks.Slots); err != nil {
		return err
	}
	locked, err := s.read(locks)
	if err != nil {
		return fmt.Errorf("pebble: read locked rows: %w", err)
	}
	w, err := plan(locked)
	if err != nil {
		return err
	}
	var batch *crdb.Batch
	if w != nil {
		if s.full.Load() && needsRoom(w) {
			return storage.ErrFull
		}
		if batch, err = s.enc.encode(s, w); err != nil {
			return fmt.Errorf("pebble: encode rows: %w", err)
		}
	}
	if batch == nil {
		// Nothing to write: done vouches for what was read (R1).
		s.pipe.push(pending{n: s.begun.Load(), done: done, began: began})
		return nil
	}
	n, err := s.apply(batch, w)
	if err != nil {
		return err
	}
	s.pipe.push(pending{batch: batch, n: n, done: done, began: began})
	return nil
}

// failure tells whether the log has failed: then nothing more is accepted.
func (s *Shard) failure() error {
	if p := s.failed.Load(); p != nil {
		return fmt.Errorf("%w after a failure of its log: %w", storage.ErrClosed, *p)
	}
	return nil
}

// apply makes w visible. The caches come first: see cache.peek.
func (s *Shard) apply(batch *crdb.Batch, w *storage.Writes) (n uint64, err error) {
	n = s.begun.Add(1)
	if len(w.Slots) > 0 {
		s.slotMu.Lock()
		defer s.slotMu.Unlock()
	}
	s.remember(w, n)
	if err := s.write(batch, crdb.Sync); err != nil {
		// Pebble refuses a batch before it touches anything, or ends the process.
		s.forget(w)
		s.pipe.push(pending{n: n, outside: true})
		return n, fmt.Errorf("pebble: apply: %w", err)
	}
	for _, r := range w.Slots {
		s.slots[r.Slot] = r
	}
	s.applied.Store(n)
	return n, nil
}

func (s *Shard) remember(w *storage.Writes, n uint64) {
	for i := range w.Convs {
		h := w.Convs[i]
		h.Found = true
		s.convs.put(h.Conv, h, n)
	}
	for i := range w.Users {
		h := w.Users[i]
		h.Found = true
		s.users.put(h.User, h, n)
	}
	for i := range w.UserConvs {
		c := w.UserConvs[i]
		c.Found = true
		s.userConvs.put(c.Key, c, n)
	}
}

func (s *Shard) forget(w *storage.Writes) {
	for i := range w.Convs {
		s.convs.drop(w.Convs[i].Conv)
	}
	for i := range w.Users {
		s.users.drop(w.Users[i].User)
	}
	for i := range w.UserConvs {
		s.userConvs.drop(w.UserConvs[i].Key)
	}
}

// needsRoom tells writes that grow the data from those that may go on when the
// disk is nearly full: retention, finished tasks, revocations, slots.
func needsRoom(w *storage.Writes) bool {
	return len(w.Entries)+len(w.Inbox)+len(w.Sends)+len(w.UserConvs)+len(w.Tasks)+
		len(w.Names)+len(w.Accounts)+len(w.Devices)+len(w.Blocks)+len(w.Convs)+len(w.Meta) > 0
}

// read answers locks position by position.
func (s *Shard) read(locks *storage.Locks) (l *storage.Locked, err error) {
	src := source{r: s.db}
	defer func() {
		if cerr := src.close(); err == nil {
			err = cerr
		}
	}()
	l = &storage.Locked{Now: s.now()}
	if l.Convs, err = cached(locks.Convs, s.convs, s.begun.Load(), src.conv, convFound); err != nil {
		return nil, err
	}
	if l.Users, err = cached(locks.Users, s.users, s.begun.Load(), src.user, userFound); err != nil {
		return nil, err
	}
	if l.Sends, err = src.sends(locks.Sends); err != nil {
		return nil, err
	}
	if l.UserConvs, err = cached(locks.UserConvs, s.userConvs, s.begun.Load(), src.userConv, userConvFound); err != nil {
		return nil, err
	}
	if l.Tasks, err = each(locks.Tasks, src.task); err != nil {
		return nil, err
	}
	if l.Names, err = each(locks.Names, src.name); err != nil {
		return nil, err
	}
	if l.Accounts, err = each(locks.Accounts, src.account); err != nil {
		return nil, err
	}
	if l.Devices, err = each(locks.DevicesOf, src.devices); err != nil {
		return nil, err
	}
	if l.Blocks, err = each(locks.Blocks, src.block); err != nil {
		return nil, err
	}
	l.Meta, err = each(locks.Meta, src.meta)
	return l, err
}

func convFound(h *storage.ConvHead) bool     { return h.Found }
func userFound(h *storage.UserHead) bool     { return h.Found }
func userConvFound(c *storage.UserConv) bool { return c.Found }

func each[K, V any](keys []K, load func(K) (V, error)) ([]V, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	rows := make([]V, len(keys))
	for i, k := range keys {
		v, err := load(k)
		if err != nil {
			return nil, err
		}
		rows[i] = v
	}
	return rows, nil
}

// cached is each through a cache. Rows that do not exist are not kept: asking
// for many of them must not push real ones out.
func cached[K comparable, V any](keys []K, c *cache[K, V], n uint64, load func(K) (V, error), found func(*V) bool) ([]V, error) {
	return each(keys, func(k K) (V, error) {
		if v, ok := c.get(k); ok {
			return v, nil
		}
		v, err := load(k)
		if err == nil && found(&v) {
			c.put(k, v, n)
		}
		return v, err
	})
}
