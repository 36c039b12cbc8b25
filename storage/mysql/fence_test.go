package mysql

import (
	"errors"
	"fmt"
	"sync"
	"testing"

	"github.com/hermod-im/hermod/storage"
)

// uses is a transaction that relies on a slot.
func (f *fix) uses(s *Shard, slot storage.Slot, epoch uint64) error {
	done := make(chan error, 1)
	err := s.Commit(f.ctx(), &storage.Locks{Slots: []storage.SlotRef{{Slot: slot, Epoch: epoch}}},
		func(*storage.Locked) (*storage.Writes, error) { return nil, nil }, func(err error) { done <- err })
	if err == nil {
		err = <-done
	}
	return err
}

func owned(slots ...storage.Slot) (w storage.Writes) {
	for _, slot := range slots {
		w.Slots = append(w.Slots, storage.SlotRow{Slot: slot, State: storage.SlotOwned, Epoch: 1})
	}
	return w
}

// A change of slots that a node saw, but that the server lost with its power,
// does not come back to that node when other slots change.
func TestLostChangeOfSlots(t *testing.T) {
	f := newFix(t, nil)
	f.write(owned(1, 2))
	if err := f.uses(f.s, 1, 1); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		version := f.number("SELECT CAST(version AS SIGNED) FROM fence WHERE id=1")
		f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 1, State: storage.SlotFrozen, Epoch: 2}}})
		if err := f.uses(f.s, 1, 1); !errors.Is(err, storage.ErrSlotMoved) {
			t.Fatalf("a frozen slot: %v", err)
		}
		// The power goes, and with it the last commit.
		run(t, f.sql, "UPDATE slots SET state=1,epoch=1", "UPDATE fence SET version="+fmt.Sprint(version)+" WHERE id=1")
		f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 2, State: storage.SlotFrozen, Epoch: 2}}})
		if err := f.uses(f.s, 1, 1); err != nil {
			t.Fatalf("a slot whose move was lost: %v", err)
		}
		if err := f.uses(f.s, 2, 1); !errors.Is(err, storage.ErrSlotMoved) {
			t.Fatalf("a slot that is frozen: %v", err)
		}
		f.write(owned(1, 2))
	}
}

// All who are under way when slots change wait for one of them to read them.
func TestSlotsAreReadOnce(t *testing.T) {
	f := newFix(t, nil)
	all := make([]storage.Slot, storage.Slots)
	for i := range all {
		all[i] = storage.Slot(i)
	}
	f.write(owned(all...))
	read := func() int64 {
		return f.number("SELECT CAST(variable_value AS SIGNED) FROM information_schema.global_status WHERE variable_name='HANDLER_READ_NEXT'")
	}
	const views = 24
	before := read()
	var wg sync.WaitGroup
	for range views {
		wg.Go(func() {
			err := f.s.View(f.ctx(), []storage.SlotRef{{Slot: 7, Epoch: 1}}, func(sn storage.Snap) error {
				rows, err := sn.SlotRows()
				if len(rows) != len(all) {
					t.Errorf("%d rows", len(rows))
				}
				return err
			})
			if err != nil {
				t.Error(err)
			}
		})
	}
	wg.Wait()
	if n := read() - before; n < storage.Slots || n > 3*storage.Slots {
		t.Errorf("%d views read %d rows", views, n)
	}
}
