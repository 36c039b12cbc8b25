package storagetest

import (
	"context"
	"fmt"
	"strings"
	"testing"

	"github.com/hermod-im/hermod/storage"
)

// robbed is a mover's shard that answers nothing to the commit that makes a slot
// its own, though it is done; before the mover asks again, another mover has
// taken the lock here, and not yet elsewhere.
type robbed struct {
	storage.Shard
	done bool
}

func (r *robbed) Commit(ctx context.Context, l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error)) error {
	owned := false
	heard := make(chan error, 1)
	err := r.Shard.Commit(ctx, l, func(l *storage.Locked) (*storage.Writes, error) {
		w, err := plan(l)
		owned = err == nil && len(w.Slots) == 1 && w.Slots[0].State == storage.SlotOwned
		return w, err
	}, func(err error) { heard <- err })
	if err == nil {
		err = <-heard
	}
	if err != nil {
		return err
	}
	if !owned || r.done {
		done(nil)
		return nil
	}
	r.done = true
	steal := func(*storage.Locked) (*storage.Writes, error) {
		return &storage.Writes{Meta: []storage.MetaRow{{Name: "slots_mover", Value: []byte(`{"token":"another's"}`), Found: true}}}, nil
	}
	if err := r.Shard.Commit(ctx, &storage.Locks{Meta: []string{"slots_mover"}}, steal, func(err error) { heard <- err }); err != nil {
		return err
	}
	if err := <-heard; err != nil {
		return err
	}
	return fmt.Errorf("cut off: %w", storage.ErrUnknown)
}

// A mover that does not know whether the target has got the slot never gives it
// back to the source: both would own it, and what was written meanwhile at the
// target would be lost.
func TestMoverDoesNotGiveBackWhatMayBeMoved(t *testing.T) {
	f, mems := newFaultFix(t, 2, MemOptions{}, nil)
	k := newTalk(f)
	o := storage.MoverOptions{Shards: []storage.Shard{mems[0], &robbed{Shard: mems[1]}}}
	m, err := storage.NewMover(o)
	if err != nil {
		t.Fatal(err)
	}
	slot := k.b.Slot()
	_, err = m.Move(f.ctx(), slot, 2)
	if err == nil || !strings.Contains(err.Error(), "not known") {
		t.Errorf("the move ended with %v", err)
	}
	if k.owner() != 1 {
		t.Fatal("the slot is not the target's")
	}
	k.say("after the move")
	f.waitTasks(1)
	f.closeMover(m)
	again := f.mover(storage.MoverOptions{})
	defer f.closeMover(again)
	if res := f.move(again, slot, 1); !res.Already {
		t.Errorf("called again: %+v", res)
	}
	k.say("after the source was emptied")
	f.waitTasks(1)
	k.check("in the end")
}
