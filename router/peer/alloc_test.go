//go:build !race

// The race detector makes sync.Pool forget on purpose.

package peer

import (
	"context"
	"testing"
)

// A forwarded delivery allocates nothing on its way: not where it is looked up
// and encoded, not in the link, not where it is decoded and pushed. What TLS
// allocates for a record is shared by all that are in it.
func TestForwardedDeliveryDoesNotAllocate(t *testing.T) {
	w := newTown(t)
	from, to := w.start(1, 1), w.start(2, 1)
	join(t, from, to)
	got := &counting{}
	to.router.SetLocal(got)
	for u := int64(1); u <= 128; u++ {
		to.attach(t, u, 1, uint64(u))
	}
	ds := batchFor(128, 128, 200)
	var sent int64
	perBatch := testing.AllocsPerRun(100, func() {
		from.router.Deliver(context.Background(), ds)
		sent += int64(len(ds))
		got.wait(sent)
	})
	if perBatch/128 > 0.1 {
		t.Errorf("%.2f allocations for each of %d forwarded deliveries", perBatch/128, len(ds))
	}
}
