package mysql

import (
	"context"
	"fmt"
	"slices"
	"sync"

	"github.com/hermod-im/hermod/storage"
)

// fence is what a version of the slots says: the rows there are, and by number.
type fence struct {
	version uint64
	rows    []storage.SlotRow
	slots   [storage.Slots]storage.SlotRow
}

// fences keeps the newest fence that was read. All 4,096 slots are read again
// when any of them changes, by one transaction: a move of a slot changes the
// version five times, and whatever is under way at that moment would read them.
type fences struct {
	mu      sync.Mutex
	known   *fence
	reading *fenceRead
}

// fenceRead is a read of a version; fence is nil if it failed, and there for
// good when done is closed.
type fenceRead struct {
	version uint64
	done    chan struct{}
	fence   *fence
}

// at returns the fence of a version that the caller's transaction on k sees:
// known, or about to be, or read there.
func (s *fences) at(ctx context.Context, k *link, version uint64) (*fence, error) {
	s.mu.Lock()
	if f := s.known; f != nil && f.version == version {
		s.mu.Unlock()
		return f, nil
	}
	if r := s.reading; r != nil && r.version == version {
		s.mu.Unlock()
		select {
		case <-r.done:
		case <-ctx.Done():
			return nil, ctx.Err()
		}
		if r.fence != nil {
			return r.fence, nil
		}
		return readFence(ctx, k, version) // each for itself: the next would keep the others waiting as well
	}
	r := &fenceRead{version: version, done: make(chan struct{})}
	s.reading = r
	s.mu.Unlock()
	f, err := readFence(ctx, k, version)
	s.mu.Lock()
	defer s.mu.Unlock()
	r.fence = f
	close(r.done)
	if s.reading == r {
		s.reading = nil
	}
	if f != nil {
		s.known = f
	}
	return f, err
}

func readFence(ctx context.Context, k *link, version uint64) (*fence, error) {
	f := &fence{version: version, rows: make([]storage.SlotRow, 0, storage.Slots)}
	get := slotTable().get
	err := k.query(ctx, "SELECT slot,state,epoch FROM slots ORDER BY slot", []func(*row){func(r *row) {
		if v := get(r); v.Slot < storage.Slots {
			f.rows, f.slots[v.Slot] = append(f.rows, v), v
		}
	}})
	if err != nil {
		return nil, err
	}
	return f, nil
}

// checkSlots makes sure that this shard owns them, at the epochs that the
// caller knows, in the transaction that has read version.
func (s *Shard) checkSlots(ctx context.Context, k *link, refs []storage.SlotRef, version uint64) error {
	if len(refs) == 0 {
		return nil
	}
	f, err := s.fences.at(ctx, k, version)
	if err != nil {
		return err
	}
	for _, r := range refs {
		if have := &f.slots[r.Slot%storage.Slots]; have.State != storage.SlotOwned || have.Epoch != r.Epoch {
			return fmt.Errorf("mysql: shard %d, slot %d at epoch %d: %w", s.opt.ID, r.Slot, r.Epoch, storage.ErrSlotMoved)
		}
	}
	return nil
}

func (v *snap) SlotRows() ([]storage.SlotRow, error) {
	f, err := v.s.fences.at(v.ctx, v.k, v.version)
	if err != nil {
		return nil, wrap("read the slots", err)
	}
	return slices.Clone(f.rows), nil
}
