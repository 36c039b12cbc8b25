package pebble

import (
	"context"
	"fmt"
	"slices"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// Commit implements storage.Shard. A transaction has three stages, and three may
// be under way at once: reading and planning under mu, applying under applyMu,
// syncing behind both. mu stands for all the locks of R2. Its holder takes
// applyMu before it lets go of mu, so all stages keep the same order. A plan that
// runs while the one before it is being applied sees its rows in the caches, or
// waits: see settle. Its done, which follows in order, vouches for what it saw.
//
// One mutex for reading and applying was simpler, but left the second core idle:
// each takes about half of the time.
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
	err := s.transact(done, func() (*crdb.Batch, *storage.Writes, error) { return s.prepare(locks, plan) })
	accepted = err == nil
	return err
}

// transact runs the first two stages and hands over to the third. prepare
// returns a nil batch if there is nothing to write: done then vouches for what
// was read (R1).
func (s *Shard) transact(done func(error), prepare func() (*crdb.Batch, *storage.Writes, error)) error {
	t := pending{done: done, began: time.Now()}
	s.mu.Lock()
	held := true
	defer func() { // also if a plan panics
		if held {
			s.mu.Unlock()
		}
	}()
	if err := s.failure(); err != nil {
		return err
	}
	batch, w, err := prepare()
	if err != nil {
		return err
	}
	if batch != nil {
		t.batch = batch
		s.begun.Add(1)
		s.remember(w, s.begun.Load())
	}
	t.n = s.begun.Load()
	s.applyMu.Lock()
	defer s.applyMu.Unlock()
	if batch != nil && overlaps(w) {
		held = false
		s.mu.Unlock()
	}
	if err := s.failure(); err != nil {
		return err // this plan may have seen rows that were not applied
	}
	if batch != nil {
		if err := s.apply(t, w); err != nil {
			return err
		}
	}
	s.pipe.push(t)
	return nil
}

// prepare is the first stage. Needs mu.
func (s *Shard) prepare(locks *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error)) (*crdb.Batch, *storage.Writes, error) {
	if err := s.checkSlots(locks.Slots); err != nil {
		return nil, nil, err
	}
	locked, err := s.read(locks)
	if err != nil {
		return nil, nil, fmt.Errorf("pebble: read locked rows: %w", err)
	}
	w, err := plan(locked)
	if err != nil || w == nil {
		return nil, nil, err
	}
	if s.full.Load() && needsRoom(w) {
		return nil, nil, storage.ErrFull
	}
	batch, err := s.enc.encode(s, w)
	if err != nil {
		return nil, nil, fmt.Errorf("pebble: encode rows: %w", err)
	}
	return batch, w, nil
}

// failure tells whether the log has failed: then nothing more is accepted.
func (s *Shard) failure() error {
	if p := s.failed.Load(); p != nil {
		return fmt.Errorf("%w after a failure of its log: %w", storage.ErrClosed, *p)
	}
	return nil
}

// apply is the second stage: it makes t visible. Needs applyMu, and mu unless w
// overlaps.
func (s *Shard) apply(t pending, w *storage.Writes) error {
	if len(w.Slots) > 0 {
		s.slotMu.Lock()
		defer s.slotMu.Unlock()
	}
	if err := s.write(t.batch, crdb.Sync); err != nil {
		// A batch that Pebble does not take for a batch. Later plans may have
		// seen its rows already: no way on from here.
		err = fmt.Errorf("pebble: apply: %w", err)
		fatal := s.broken(err)
		s.pipe.push(pending{n: t.n, outside: true}) // for the barriers
		if fatal {
			s.opts.Fatal(err)
		}
		return err
	}
	for _, r := range w.Slots {
		s.slots[r.Slot] = r
	}
	if len(w.Slots) > 0 {
		s.slotWrites.Add(1)
	}
	s.applied.Store(t.n)
	return nil
}

// overlaps tells whether the next plan may run while w is being applied: only
// rows that it finds in the caches, that it never locks, or that unapplied names.
func overlaps(w *storage.Writes) bool {
	return len(w.Tasks)+len(w.DelTasks)+len(w.Names)+len(w.Accounts)+len(w.Devices)+len(w.DelDevices)+
		len(w.Blocks)+len(w.DelBlocks)+len(w.Slots)+len(w.Meta)+len(w.Trims)+len(w.DelSendsSlots) == 0
}

// settle waits until everything before this transaction is applied: it wants to
// read a row from the database that may be among that. Needs mu.
func (s *Shard) settle() {
	if s.applied.Load() != s.begun.Load() {
		s.applyMu.Lock()
		defer s.applyMu.Unlock()
	}
}

// remember puts rows into the caches. That comes before applying them: see
// cache.peek. Needs mu.
func (s *Shard) remember(w *storage.Writes, n uint64) {
	clear(s.unapplied)
	for i := range w.Sends {
		s.unapplied[w.Sends[i].Key] = struct{}{}
	}
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

// needsRoom tells writes that grow the data from those that may go on when the
// disk is nearly full: retention, finished tasks, revocations, slots and the
// lock of a mover, who may be there to make room.
func needsRoom(w *storage.Writes) bool {
	return len(w.Entries)+len(w.Inbox)+len(w.Sends)+len(w.UserConvs)+len(w.Tasks)+
		len(w.Names)+len(w.Accounts)+len(w.Devices)+len(w.Blocks)+len(w.Convs) > 0
}

// read answers locks position by position. What is not in the caches comes from
// the database, which the transaction before may still be on its way to. Needs mu.
func (s *Shard) read(locks *storage.Locks) (l *storage.Locked, err error) {
	src := source{r: s.db}
	defer func() {
		if cerr := src.close(); err == nil {
			err = cerr
		}
	}()
	l = &storage.Locked{Now: s.now()}
	if l.Convs, err = cached(locks.Convs, s.convs, s, src.conv, convFound); err != nil {
		return nil, err
	}
	if l.Users, err = cached(locks.Users, s.users, s, src.user, userFound); err != nil {
		return nil, err
	}
	if slices.ContainsFunc(locks.Sends, s.isUnapplied) {
		s.settle()
	}
	if l.Sends, err = src.sends(locks.Sends); err != nil {
		return nil, err
	}
	if l.UserConvs, err = cached(locks.UserConvs, s.userConvs, s, src.userConv, userConvFound); err != nil {
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

func (s *Shard) isUnapplied(k storage.SendKey) bool {
	_, ok := s.unapplied[k]
	return ok
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
func cached[K comparable, V any](keys []K, c *cache[K, V], s *Shard, load func(K) (V, error), found func(*V) bool) ([]V, error) {
	return each(keys, func(k K) (V, error) {
		if v, ok := c.get(k); ok {
			return v, nil
		}
		s.settle()
		v, err := load(k)
		if err == nil && found(&v) {
			c.put(k, v, s.begun.Load())
		}
		return v, err
	})
}
