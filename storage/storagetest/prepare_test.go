package storagetest

import (
	"errors"
	"testing"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
)

func TestPrepare(t *testing.T) {
	ctx := t.Context()
	mem := func(id storage.ShardID) storage.Shard {
		m := NewMem(id, MemOptions{})
		t.Cleanup(func() {
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		return m
	}
	owned := func(sh storage.Shard) (n int) {
		t.Helper()
		err := sh.View(ctx, nil, func(sn storage.Snap) error {
			rows, err := sn.SlotRows()
			n = len(rows)
			return err
		})
		if err != nil {
			t.Fatal(err)
		}
		return n
	}
	prepare := func(shards ...storage.Shard) error { return storage.Prepare(ctx, shards, zerolog.Nop()) }
	if err := prepare(); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("no shards: %v", err)
	}
	a, b, added := mem(1), mem(2), mem(3)
	for range 2 { // also when all is done
		if err := prepare(b, a); err != nil {
			t.Fatal(err)
		}
	}
	if owned(a) != storage.Slots/2 || owned(b) != storage.Slots/2 {
		t.Errorf("%d and %d slots", owned(a), owned(b))
	}
	// The server needs nothing else.
	st, err := storage.Open(ctx, storage.Options{Shards: []storage.Shard{a, b}, Node: 1, Incarnation: 1})
	if err != nil {
		t.Fatal(err)
	}
	if err := st.Close(); err != nil {
		t.Error(err)
	}
	if err := prepare(a, b, added); err != nil {
		t.Fatal(err)
	}
	if owned(added) != 0 || owned(a) != storage.Slots/2 {
		t.Errorf("a shard was added: it owns %d slots, the first %d", owned(added), owned(a))
	}
	foreign := mem(4)
	if err := prepare(foreign); err != nil {
		t.Fatal(err)
	}
	if err := prepare(a, b, added, foreign); !errors.Is(err, storage.ErrInvalid) {
		t.Errorf("a shard of another installation: %v", err)
	}
}
