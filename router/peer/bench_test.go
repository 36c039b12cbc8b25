package peer

import (
	"bytes"
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/hermod-im/hermod/router"
)

// counting is a Local that only counts.
type counting struct{ n atomic.Int64 }

func (c *counting) Push(ds []router.Delivery) int         { c.n.Add(int64(len(ds))); return len(ds) }
func (c *counting) Hint([]router.Hint)                    {}
func (c *counting) Kick(int64, router.Slot, uint64, bool) {}
func (c *counting) Has(int64, uint64) bool                { return true }

// wait spins until n have come: a pause would be measured with the rest.
func (c *counting) wait(n int64) {
	for c.n.Load() < n {
		runtime.Gosched()
	}
}

// batchFor is a batch of events, each for two users: a pair's message goes to
// both inboxes.
func batchFor(users int64, size, event int) (ds []router.Delivery) {
	body := make([]byte, event)
	for i := range size {
		if i%2 == 0 {
			body = bytes.Clone(body)
		}
		ds = append(ds, router.Delivery{User: int64(i)%users + 1, Seq: uint64(i + 1), Event: body})
	}
	return ds
}

// BenchmarkLink is deliveries from one node to another: look-up in memory,
// encoding, TLS over loopback, decoding, Push. Both nodes share the machine.
func BenchmarkLink(b *testing.B) {
	for _, x := range []struct {
		name        string
		size, event int
	}{{"batch=128", 128, 200}, {"batch=8", 8, 200}, {"batch=1", 1, 200}} {
		b.Run(x.name, func(b *testing.B) {
			w := newTown(b)
			from, to := w.start(1, 1), w.start(2, 1)
			join(b, from, to)
			got := &counting{}
			to.router.SetLocal(got)
			for u := int64(1); u <= 128; u++ {
				to.attach(b, u, 1, uint64(u)+1<<62)
			}
			ds := batchFor(128, x.size, x.event)
			b.ReportAllocs()
			var sent int64
			for b.Loop() {
				from.router.Deliver(context.Background(), ds)
				sent += int64(len(ds))
				got.wait(sent - 8192)
			}
			got.wait(sent)
			b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "deliveries/s")
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/delivery")
			if n := from.counter(b, "hermod_peer_dropped_total"); n > 0 {
				b.Errorf("%v dropped", n)
			}
		})
	}
}
