package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// slotMap says which shard (by index in Store.shards) owns each slot. It is
// never changed, only replaced.
type slotMap struct {
	owner [Slots]int16 // -1: nobody that we know
	epoch [Slots]uint64
}

func (m *slotMap) ref(s Slot) SlotRef { return SlotRef{Slot: s, Epoch: m.epoch[s]} }

// loadSlots reads the claims of all shards. While a slot moves two shards may
// claim it; the higher epoch is right, and the other's claim fails on use.
func (s *Store) loadSlots(ctx context.Context) error {
	m := new(slotMap)
	for i := range m.owner {
		m.owner[i] = -1
	}
	var failed error
	for i, sh := range s.shards {
		rows, err := readSlots(ctx, sh.Shard)
		if err != nil {
			// The other shards' slots must stay reachable while one is down.
			failed = errors.Join(failed, fmt.Errorf("shard %d: reading its slots: %w", sh.ID(), err))
			if old := s.slots.Load(); old != nil {
				for slot := range old.owner {
					if old.owner[slot] == int16(i) && old.epoch[slot] > m.epoch[slot] {
						m.owner[slot], m.epoch[slot] = int16(i), old.epoch[slot]
					}
				}
			}
			continue
		}
		for _, r := range rows {
			if r.State != SlotOwned {
				continue
			}
			if r.Slot >= Slots {
				return fmt.Errorf("%w: shard %d claims slot %d", ErrCorrupt, sh.ID(), r.Slot)
			}
			if o := m.owner[r.Slot]; o >= 0 && m.epoch[r.Slot] == r.Epoch {
				return fmt.Errorf("%w: shards %d and %d both own slot %d at epoch %d: they do not belong to one installation",
					ErrCorrupt, s.shards[o].ID(), sh.ID(), r.Slot, r.Epoch)
			}
			if m.owner[r.Slot] < 0 || r.Epoch > m.epoch[r.Slot] {
				m.owner[r.Slot], m.epoch[r.Slot] = int16(i), r.Epoch
			}
		}
	}
	s.slots.Store(m)
	return failed
}

// reloadSlots is loadSlots for whoever met ErrSlotMoved: one at a time, and
// not again if another call has just replaced the map that failed.
func (s *Store) reloadSlots(ctx context.Context, failed *slotMap) error {
	s.slotMu.Lock()
	defer s.slotMu.Unlock()
	if s.slots.Load() != failed {
		return nil
	}
	return s.loadSlots(ctx)
}

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
