package chat

import (
	"context"
	"fmt"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// fleet is some nodes on the same shards. Their routers know nothing of each
// other: what joins the nodes is storage alone.
type fleet struct {
	nodes  []*rig
	shards []*storagetest.Ill
}

// lent is a shard that the fleet closes, not a node.
type lent struct{ storage.Shard }

func (lent) Close() error { return nil }

func newFleet(t *testing.T, nodes, shards int, change func(*rigOptions)) *fleet {
	t.Helper()
	var mems []storage.Shard
	for i := range shards {
		mems = append(mems, storagetest.NewMem(storage.ShardID(i+1), storagetest.MemOptions{}))
	}
	return newFleetOn(t, nodes, mems, change)
}

// newFleetOn takes the shards over.
func newFleetOn(t *testing.T, nodes int, shards []storage.Shard, change func(*rigOptions)) *fleet {
	t.Helper()
	leaks := goleak.IgnoreCurrent()
	f := new(fleet)
	for _, sh := range shards {
		f.shards = append(f.shards, storagetest.NewIll(sh))
	}
	t.Cleanup(func() { // after the nodes'
		for _, sh := range f.shards {
			if err := sh.Close(); err != nil {
				t.Error(err)
			}
		}
		goleak.VerifyNone(t, leaks)
	})
	keys := t.TempDir()
	for i := range nodes {
		f.nodes = append(f.nodes, newRig(t, func(o *rigOptions) {
			o.beside = true
			o.store.Node = storage.NodeID(i + 1)
			o.chat.Tokens.Dir = keys
			o.store.Shards = nil
			for _, sh := range f.shards {
				o.store.Shards = append(o.store.Shards, lent{sh})
			}
			if change != nil {
				change(o)
			}
		}))
	}
	t.Cleanup(func() { // before the nodes'
		for _, sh := range f.shards {
			sh.Well()
		}
	})
	return f
}

// impatient makes a shard's troubles known to the store soon.
func impatient(o *rigOptions) {
	o.store.BreakAfter, o.store.StallTimeout, o.store.ReadTimeout = 100*time.Millisecond, 200*time.Millisecond, 400*time.Millisecond
	o.store.RetryMin, o.store.RetryMax = 5*time.Millisecond, 100*time.Millisecond
}

// apps are n people whose accounts live on one shard.
func (f *fleet) apps(node, shard, n int) (as []*app) {
	r := f.nodes[node]
	for i := 0; len(as) < n; i++ {
		if name := fmt.Sprintf("user-%d", i); shardOf(r.store.NameSlot(name), len(f.shards)) == shard {
			as = append(as, r.app(name, phone))
		}
	}
	return as
}

// at is the same installation, talking to another node.
func (a *app) at(r *rig) *app {
	b := *a
	b.r = r
	return &b
}

// beside is another installation of the same person.
func (a *app) beside(r *rig, slot proto.DeviceSlot) *app { return r.app(a.name, slot) }

// illDirectory is a directory that fails on command.
type illDirectory struct {
	router.Directory
	mu   sync.Mutex
	down error
	hang bool
}

// set makes every call answer err, or wait for the end of its context.
func (d *illDirectory) set(err error, hang bool) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.down, d.hang = err, hang
}

func (d *illDirectory) suffer(ctx context.Context) error {
	d.mu.Lock()
	down, hang := d.down, d.hang
	d.mu.Unlock()
	if hang {
		<-ctx.Done()
		return ctx.Err()
	}
	return down
}

func (d *illDirectory) Attach(ctx context.Context, user int64, slot router.Slot, e router.Entry) (router.Attached, error) {
	if err := d.suffer(ctx); err != nil {
		return router.Attached{}, err
	}
	return d.Directory.Attach(ctx, user, slot, e)
}

func (d *illDirectory) Detach(ctx context.Context, user int64, slot router.Slot, ref router.Ref) error {
	if err := d.suffer(ctx); err != nil {
		return err
	}
	return d.Directory.Detach(ctx, user, slot, ref)
}

func (d *illDirectory) Lookup(ctx context.Context, users []int64, dst []router.Route) ([]router.Route, error) {
	if err := d.suffer(ctx); err != nil {
		return dst, err
	}
	return d.Directory.Lookup(ctx, users, dst)
}

// shardOf is the place among n shards of the one that owns a slot after the
// first start, which gives the i-th the slots from i × Slots / n on.
func shardOf(slot storage.Slot, n int) int { return ((int(slot)+1)*n - 1) / storage.Slots }
