package mysql

import (
	"context"
	"fmt"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// purgeRows is how many rows a transaction of Purge deletes: the undo log and
// the replicas stay small, and whoever comes meanwhile is not held up.
const purgeRows = 500

// Purge implements storage.Shard. The fence is share-locked in each of its
// transactions, so that the slot cannot be claimed meanwhile.
func (s *Shard) Purge(ctx context.Context, slot storage.Slot) error {
	if slot >= storage.Slots {
		return fmt.Errorf("%w: there is no slot %d", storage.ErrInvalid, slot)
	}
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	k, err := s.link(ctx)
	if err != nil {
		return err
	}
	defer k.release()
	for _, of := range slotTables {
		x := of(s.t)
		for {
			began := time.Now()
			n, err := s.purgeSome(ctx, k, &x, slot)
			if err != nil {
				return err
			}
			if n < purgeRows {
				break
			}
			rest(ctx, time.Since(began)) // nobody waits for this
		}
	}
	return nil
}

// rest waits for d, or until ctx ends.
func rest(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

func (s *Shard) purgeSome(ctx context.Context, k *link, x *exported, slot storage.Slot) (n int64, err error) {
	t := tx{s: s, k: k}
	state := storage.SlotAbsent
	check := fmt.Sprintf("START TRANSACTION; SELECT version FROM fence WHERE id=1 LOCK IN SHARE MODE; SELECT state FROM slots WHERE slot=%d", slot)
	err = k.query(ctx, check, []func(*row){func(*row) {}, func(r *row) { state = storage.SlotState(r.u64()) }})
	if err == nil && state != storage.SlotAbsent {
		err = fmt.Errorf("%w: slot %d is in state %d here: only what this shard does not own can be purged", storage.ErrInvalid, slot, state)
	}
	if err != nil {
		return 0, t.undo(wrap("purge", err))
	}
	st := &stmt{}
	st.add("DELETE FROM " + x.name + " WHERE ")
	x.inSlot(st, slot)
	st.limit(purgeRows)
	st.add("; SELECT ROW_COUNT(); COMMIT")
	if err := k.query(ctx, st.text(), []func(*row){func(r *row) { n = r.i64() }}); err != nil {
		return 0, t.undo(wrap("purge", err))
	}
	return n, nil
}
