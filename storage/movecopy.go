package storage

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// copyOnce copies the slot's rows to the target, which holds none, and compares
// what is there then with what was read.
func (v *move) copyOnce(ctx context.Context) error {
	m := v.m
	m.opt.Step(v.slot, fmt.Sprintf("copy to shard %d", v.dst.ID()))
	if err := m.setSlot(ctx, v.dst, SlotRow{Slot: v.slot, State: SlotFrozen, Epoch: v.next()}); err != nil {
		return err
	}
	v.sum = SlotSum{}
	owners := map[NodeID]uint64{}
	err := v.pages(ctx, v.src, func(sn Snap, w *Writes) error {
		return v.inline(sn, w)
	}, func(w *Writes) error {
		v.sum.add(w)
		for i := range w.Tasks {
			owners[w.Tasks[i].Owner] = max(owners[w.Tasks[i].Owner], w.Tasks[i].Incarnation)
		}
		return m.put(ctx, v.dst, w)
	})
	if err != nil {
		return fmt.Errorf("copying: %w", err)
	}
	if err := v.vouchFor(ctx, owners); err != nil {
		return err
	}
	m.opt.Step(v.slot, "verify")
	var there SlotSum
	err = v.pages(ctx, v.dst, func(Snap, *Writes) error { return nil }, func(w *Writes) error {
		there.add(w)
		return nil
	})
	if err != nil {
		return fmt.Errorf("reading the copy: %w", err)
	}
	if there != v.sum {
		return fmt.Errorf("%w: the copy differs: %s", ErrCorrupt, v.sum.diff(&there))
	}
	return nil
}

// put writes a page. Unlike a slot row it cannot be repeated when its outcome
// is unknown, since many of its rows are insert only.
func (m *Mover) put(ctx context.Context, sh Shard, w *Writes) error {
	var unknown error
	err := m.try(ctx, func() error {
		err := m.lock.commit(ctx, sh, w)
		if errors.Is(err, ErrUnknown) {
			unknown = err
			return nil
		}
		return err
	})
	if unknown != nil {
		return unknown
	}
	return err
}

// pages reads all rows of the slot on a shard: prepare runs with the snapshot,
// and perhaps again; then each runs without.
func (v *move) pages(ctx context.Context, sh Shard, prepare func(Snap, *Writes) error, each func(*Writes) error) error {
	for after := []byte(nil); ; {
		began := time.Now()
		var w Writes
		var next []byte
		err := v.m.try(ctx, func() error {
			return sh.View(ctx, nil, func(sn Snap) (err error) {
				if w, next, err = sn.Export(v.slot, after, v.m.pace.next()); err == nil {
					err = prepare(sn, &w)
				}
				return err
			})
		})
		if err == nil {
			err = each(&w)
		}
		if err != nil || next == nil {
			return err
		}
		after = next
		v.m.pace.rest(ctx, time.Since(began))
		if err := v.m.stay(ctx); err != nil {
			return err
		}
	}
}

// inline puts small bodies into inbox rows whose log stays at the source, so
// that reading them at the target costs no second look elsewhere.
func (v *move) inline(sn Snap, w *Writes) error {
	if v.src.InlineBody() >= v.m.opt.InlineBody {
		return nil // what is small was inline from the start
	}
	for i := range w.Inbox {
		r := &w.Inbox[i]
		if r.Inline || r.Entry.Conv.Slot() == v.slot {
			continue
		}
		es, err := sn.Entries(r.Entry.Conv, r.Entry.Rev, r.Entry.Rev, 1, 1<<30, false)
		if err != nil {
			return err
		}
		if len(es) == 1 && len(es[0].Body) <= v.m.opt.InlineBody {
			r.Inline, r.Entry.Body = true, es[0].Body
		}
	}
	return nil
}

// ownerTTL is for how long the owners of tasks are taken for alive at a shard
// that their tasks have come to.
const ownerTTL = 10 * time.Second

// vouchFor makes the owners of tasks known to the target. A node that died
// before it ever saw this shard has no lease here that could run out, and its
// tasks would stay for ever. Those that live renew theirs anyway.
func (v *move) vouchFor(ctx context.Context, owners map[NodeID]uint64) error {
	for node, incarnation := range owners {
		err := v.m.try(ctx, func() error {
			_, err := v.dst.Lease(ctx, node, incarnation, ownerTTL)
			return err
		})
		if err != nil {
			return fmt.Errorf("shard %d: a lease for node %d: %w", v.dst.ID(), node, err)
		}
	}
	return nil
}
