package peer

import (
	"bytes"
	"context"
	"runtime"
	"sync/atomic"
	"testing"

	"github.com/hermod-im/hermod/bench/local"
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
		name string
		size int
	}{{"batch=128", 128}, {"batch=8", 8}, {"batch=1", 1}} {
		b.Run(x.name, func(b *testing.B) {
			w := newTown(b)
			measure(b, w.start(1, 1), w.start(2, 1), 128, x.size)
		})
	}
}

// BenchmarkLinkOverRedis looks the users up in a Redis on the same machine.
func BenchmarkLinkOverRedis(b *testing.B) {
	for _, x := range []struct {
		name        string
		users, size int
	}{{"hot", 128, 128}, {"spread", 20000, 128}, {"spread, batch=8", 20000, 8}} {
		b.Run(x.name, func(b *testing.B) {
			w := newTown(b)
			server := local.TestRedis(b, local.RedisOptions{})
			measure(b, w.shared(server, 1, 1), w.shared(server, 2, 1), x.users, x.size)
		})
	}
}

// measure delivers batches of size from one node to users on another, up to
// 8,192 of them on their way.
func measure(b *testing.B, from, to *node, users, size int) {
	join(b, from, to)
	got := &counting{}
	to.router.SetLocal(got)
	for u := 1; u <= users; u++ {
		if _, err := to.router.Attach(context.Background(), int64(u), 1, uint64(u)+1<<62, 1); err != nil {
			b.Fatal(err)
		}
	}
	ds := batchFor(int64(users), max(users, size), 200)
	b.ReportAllocs()
	sent := 0
	for b.Loop() {
		at := sent % len(ds)
		batch := ds[at:min(at+size, len(ds))]
		from.router.Deliver(context.Background(), batch)
		sent += len(batch)
		got.wait(int64(sent) - 8192)
	}
	got.wait(int64(sent))
	b.ReportMetric(float64(sent)/b.Elapsed().Seconds(), "deliveries/s")
	b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(sent), "ns/delivery")
	if n := from.counter(b, "hermod_peer_dropped_total") + from.counter(b, "hermod_router_dropped_total"); n > 0 {
		b.Errorf("%v dropped", n)
	}
}
