//go:build !race

// The race detector makes sync.Pool forget on purpose.

package router

import (
	"context"
	"testing"
	"time"
)

func TestDeliverDoesNotAllocate(t *testing.T) {
	ctx := context.Background()
	r, l := newRouter(t, NewMemory(time.Now))
	l.has = map[int64]uint64{}
	for u := int64(1); u <= 64; u++ {
		l.has[u] = uint64(u)
		_, _ = r.Attach(ctx, u, 1, uint64(u), 1)
	}
	ds := make([]Delivery, 64)
	for i := range ds {
		ds[i] = Delivery{User: int64(i + 1), Seq: 1}
	}
	l.pushed = make([]Delivery, 0, 1<<20)
	if n := testing.AllocsPerRun(1000, func() { r.Deliver(ctx, ds); l.pushed = l.pushed[:0] }); n >= 1 {
		t.Errorf("%v allocations for a batch of %d", n, len(ds))
	}
}

func TestForwardingDoesNotAllocate(t *testing.T) {
	ctx := context.Background()
	d := NewMemory(time.Now)
	r, _, w := newFleetRouter(t, d, nil)
	w.discard = true
	ds := make([]Delivery, 64)
	for i := range ds {
		place(t, d, int64(i+1), 1, Run{uint64(i%3 + 2), 1}.conn(1))
		ds[i] = Delivery{User: int64(i + 1), Seq: 1, Event: []byte("e")}
	}
	if n := testing.AllocsPerRun(1000, func() { r.Deliver(ctx, ds) }); n >= 1 {
		t.Errorf("%v allocations for a batch of %d to three nodes", n, len(ds))
	}
}
