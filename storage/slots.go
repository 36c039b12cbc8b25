package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"
)

// slotMap says which shard (by index in Store.shards) owns each slot. It is
// never changed, only replaced.
type slotMap struct {
	n     uint64       // later maps have higher numbers
	owner [Slots]int16 // -1: nobody that we know
	epoch [Slots]uint64
	// frozen: its owner holds the slot for a mover (R5). Nobody can use it, and
	// soon another shard will own it: what needs it waits.
	frozen [Slots]bool
}

func (m *slotMap) ref(s Slot) SlotRef { return SlotRef{Slot: s, Epoch: m.epoch[s]} }

// open reports whether the slot can be used.
func (m *slotMap) open(s Slot) bool { return m.owner[s] >= 0 && !m.frozen[s] }

// differs reports whether a shard's part of two maps is not the same.
func (m *slotMap) differs(old *slotMap, idx int) bool {
	for s := range m.owner {
		if (int(m.owner[s]) == idx) != (int(old.owner[s]) == idx) ||
			int(m.owner[s]) == idx && (m.epoch[s] != old.epoch[s] || m.frozen[s] != old.frozen[s]) {
			return true
		}
	}
	return false
}

// newSlotMap merges the claims of all shards. While a slot moves several may
// have a row of it: the highest epoch is right, and what it says is checked on
// use. Of two frozen ones the higher is the target of the move (see Mover), and
// the slot still counts as the source's.
func newSlotMap(shards []*shard) (*slotMap, error) {
	m := new(slotMap)
	for i := range m.owner {
		m.owner[i] = -1
	}
	for i, sh := range shards {
		for _, r := range sh.claims {
			switch o := m.owner[r.Slot%Slots]; {
			case r.Slot >= Slots:
				return nil, fmt.Errorf("%w: shard %d claims slot %d", ErrCorrupt, sh.ID(), r.Slot)
			case r.State == SlotAbsent:
			case o >= 0 && m.frozen[r.Slot] && r.State == SlotFrozen:
				if r.Epoch < m.epoch[r.Slot] {
					m.owner[r.Slot], m.epoch[r.Slot] = int16(i), r.Epoch
				}
			case o >= 0 && m.epoch[r.Slot] == r.Epoch && r.State == SlotOwned && !m.frozen[r.Slot]:
				return nil, fmt.Errorf("%w: shards %d and %d both own slot %d at epoch %d: they do not belong to one installation",
					ErrCorrupt, shards[o].ID(), sh.ID(), r.Slot, r.Epoch)
			case o < 0 || r.Epoch > m.epoch[r.Slot]:
				m.owner[r.Slot], m.epoch[r.Slot], m.frozen[r.Slot] = int16(i), r.Epoch, r.State == SlotFrozen
			}
		}
	}
	return m, nil
}

// learn reads the slot rows of one shard again and puts a new map in place if
// they change something. Whoever met ErrSlotMoved with a map that has been
// replaced meanwhile need not ask again. A shard that does not answer keeps its
// claims, so that its slots stay where they are while it is down.
func (s *Store) learn(ctx context.Context, sh *shard, failed *slotMap) error {
	sh.claimMu.Lock()
	defer sh.claimMu.Unlock()
	if failed != nil && s.slots.Load() != failed {
		return nil
	}
	rows, err := readSlots(ctx, sh.Shard)
	if err != nil {
		return fmt.Errorf("shard %d: reading its slots: %w", sh.ID(), err)
	}
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	sh.claims = rows
	m, err := newSlotMap(s.shards)
	if err != nil {
		return err
	}
	if old := s.slots.Load(); old != nil {
		m.keep(old)
	}
	s.publish(m)
	return nil
}

// keep leaves a slot that no shard claims with its old owner, as frozen. It has
// moved, to a shard that has not been asked since: whoever waits will ask.
func (m *slotMap) keep(old *slotMap) {
	for slot, o := range m.owner {
		if o < 0 && old.owner[slot] >= 0 {
			m.owner[slot], m.epoch[slot], m.frozen[slot] = old.owner[slot], old.epoch[slot], true
		}
	}
}

// publish puts m in place, and tells those who wait for a change. slotMu is held.
func (s *Store) publish(m *slotMap) {
	old := s.slots.Load()
	if old != nil {
		m.n = old.n
		if *m == *old {
			return
		}
	}
	m.n++
	s.slots.Store(m)
	close(s.changed)
	s.changed = make(chan struct{})
	for _, sh := range s.shards {
		for _, c := range sh.committers {
			c.signal()
		}
	}
}

// loadSlots reads the claims of all shards, all at once.
func (s *Store) loadSlots(ctx context.Context) error {
	errs := make(chan error, len(s.shards))
	for _, sh := range s.shards {
		go func() { errs <- s.learn(ctx, sh, nil) }()
	}
	var failed error
	for range s.shards {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}

// await waits until all slots can be used, or may be: the caller looks again.
// It keeps the map fresh meanwhile. ErrUnavailable after CommitTimeout.
func (s *Store) await(ctx context.Context, slots ...Slot) error {
	s.waiting.Add(1)
	defer s.waiting.Add(-1)
	s.pokeSlots()
	timeout := time.NewTimer(s.opt.CommitTimeout)
	defer timeout.Stop()
	defer Leave(ctx)()
	for {
		s.slotMu.Lock()
		m, changed := s.slots.Load(), s.changed
		s.slotMu.Unlock()
		if !slices.ContainsFunc(slots, func(slot Slot) bool { return m.frozen[slot] }) {
			return nil
		}
		select {
		case <-changed:
		case <-timeout.C:
			return fmt.Errorf("%w: a slot has been on the move for %v", ErrUnavailable, s.opt.CommitTimeout)
		case <-ctx.Done():
			return fmt.Errorf("%w: a slot is on the move: %w", ErrUnavailable, ctx.Err())
		case <-s.closing:
			return ErrClosed
		}
	}
}

// slotPollMin and slotPollMax bound the pause between two looks at the shards'
// slots while somebody waits for one.
const slotPollMin, slotPollMax = 10 * time.Millisecond, 500 * time.Millisecond

// pokeSlots tells slotLoop that somebody waits.
func (s *Store) pokeSlots() {
	select {
	case s.poke <- struct{}{}:
	default:
	}
}

// slotLoop reads the map again, once for every poke and again and again while
// something waits for a slot that is on the move; otherwise the map is read
// again when it fails on use. A slot that is on the move in the map may long
// have arrived: whoever leaves such a one alone must poke, or nobody looks
// again until somebody else needs the slot. What is parked at committers is
// looked at each time, too, since it may be late.
func (s *Store) slotLoop() {
	defer s.loops.Done()
	pause, seen := slotPollMin, s.slots.Load()
	for {
		select {
		case <-s.closing:
			return
		case <-s.poke:
		}
		for again := true; again; again = s.waiting.Load() > 0 {
			if m := s.slots.Load(); m != seen {
				pause, seen = slotPollMin, m
			}
			sleep(s.closing, pause)
			if s.isClosing() {
				return
			}
			pause = min(2*pause, slotPollMax)
			ctx, cancel := context.WithTimeout(s.ctx, min(s.opt.ReadTimeout, slotReadTimeout))
			if err := s.loadSlots(ctx); err != nil && !s.isClosing() {
				s.log.Warn().Err(err).Msg("reading the slot map while a slot moves")
			}
			cancel()
			for _, sh := range s.shards {
				for _, c := range sh.committers {
					c.signal()
				}
			}
		}
	}
}

// slotReadTimeout is how long a shard that hangs may hold up those who wait
// for a slot to come from another one.
const slotReadTimeout = time.Second

func readSlots(ctx context.Context, sh Shard) (rows []SlotRow, err error) {
	err = sh.View(ctx, nil, func(sn Snap) (err error) {
		rows, err = sn.SlotRows()
		return err
	})
	return rows, err
}

// claimSlots divides the slots evenly among shards that own none. It is the
// same on every node, and goes on where a crash cut it off: shards may already
// own exactly what they would get.
func (s *Store) claimSlots(ctx context.Context) error {
	n := len(s.shards)
	share := func(i int) (from, to int) { return i * Slots / n, (i + 1) * Slots / n }
	var empty []int
	for i, sh := range s.shards {
		rows, err := readSlots(ctx, sh.Shard)
		if err != nil {
			return fmt.Errorf("storage: shard %d: reading its slots: %w", sh.ID(), err)
		}
		if len(rows) == 0 {
			empty = append(empty, i)
			continue
		}
		from, to := share(i)
		whole := len(rows) == to-from && !slices.ContainsFunc(rows, func(r SlotRow) bool {
			return int(r.Slot) < from || int(r.Slot) >= to || r.Epoch != 1 || r.State != SlotOwned
		})
		if !whole {
			return nil // divided before, in another way: not ours to change
		}
	}
	for _, i := range empty {
		from, to := share(i)
		w := &Writes{}
		for slot := from; slot < to; slot++ {
			w.Slots = append(w.Slots, SlotRow{Slot: Slot(slot), State: SlotOwned, Epoch: 1})
		}
		if err := commitNow(ctx, s.shards[i].Shard, &Locks{}, func(*Locked) (*Writes, error) { return w, nil }); err != nil {
			return fmt.Errorf("storage: shard %d: claiming its slots: %w", s.shards[i].ID(), err)
		}
		s.log.Info().Uint32("shard", uint32(s.shards[i].ID())).Int("from", from).Int("to", to-1).Msg("claimed slots of an empty shard")
	}
	return nil
}

// checkSlots refuses to start where some ids would have no home.
func (s *Store) checkSlots() error {
	m, none := s.slots.Load(), 0
	for _, o := range m.owner {
		if o < 0 {
			none++
		}
	}
	switch {
	case none == Slots:
		return fmt.Errorf("%w: no shard owns any slot: this is an empty installation; set ClaimSlots to divide it", ErrInvalid)
	case none > 0:
		return fmt.Errorf("%w: %d of %d slots have no owner: is a shard missing from the configuration?", ErrInvalid, none, Slots)
	}
	return nil
}

// shardOf returns the shard that owns a slot, and the map that says so.
func (s *Store) shardOf(slot Slot) (*shard, *slotMap, error) {
	m := s.slots.Load()
	o := m.owner[slot%Slots]
	if o < 0 {
		return nil, m, fmt.Errorf("%w: slot %d has no owner", ErrUnavailable, slot)
	}
	return s.shards[o], m, nil
}

// commitNow is a commit of its own, outside the batches, for start-up.
func commitNow(ctx context.Context, sh Shard, l *Locks, plan func(*Locked) (*Writes, error)) error {
	done := make(chan error, 1)
	if err := sh.Commit(ctx, l, plan, func(err error) { done <- err }); err != nil {
		return err
	}
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}
