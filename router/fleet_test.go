package router

import (
	"context"
	"errors"
	"runtime"
	"slices"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"
)

func TestDeliverForwardsToOtherNodes(t *testing.T) {
	ctx := context.Background()
	for name, d := range map[string]Directory{"near": NewMemory(time.Now), "far": open(newFar())} {
		t.Run(name, func(t *testing.T) {
			r, l, w := newFleetRouter(t, d, nil)
			// User 7 is here, twice on node 2, on node 3, and left behind by an
			// earlier run of this node.
			l.has[7] = 71
			if _, err := r.Attach(ctx, 7, 1, 71, 1); err != nil {
				t.Fatal(err)
			}
			place(t, d, 7, 2, node2.conn(72))
			place(t, d, 7, 3, node2.conn(73))
			place(t, d, 7, 4, node3.conn(74))
			place(t, d, 7, 5, Run{Node: 1, Incarnation: 1}.conn(75))
			place(t, d, 8, 1, node3.conn(81))

			r.Deliver(ctx, []Delivery{{User: 7, Seq: 1}, {User: 8, Seq: 1}, {User: 7, Seq: 2}, {User: 9, Seq: 1}, {User: 7, Seq: 3}})
			r.Hint(ctx, []Hint{{User: 8, Frame: []byte("h")}})
			if l.calls != 2 || len(l.pushed) != 3 {
				t.Errorf("%d calls, %d pushes here before Deliver has returned; want 2 and 3", l.calls, len(l.pushed))
			}
			for _, x := range []struct {
				to   Run
				user int64
				want []uint64
			}{{node2, 7, []uint64{1, 2, 3}}, {node3, 7, []uint64{1, 2, 3}}, {node3, 8, []uint64{1, 0}}} {
				soon(t, "forwarded once to each node, in order", func() bool { return slices.Equal(w.seqs(x.to, x.user), x.want) })
			}
			w.mu.Lock()
			defer w.mu.Unlock()
			if len(w.sent) != 2 {
				t.Errorf("sent to %d runs, want 2", len(w.sent))
			}
			for _, f := range w.sent[node2] {
				if len(f.Routes) != 5 {
					t.Errorf("%d routes go with it, want all 5", len(f.Routes))
				}
			}
			if f := w.sent[node3]; !slices.ContainsFunc(f, func(f Forwarded) bool { return f.Hint && string(f.Event) == "h" }) {
				t.Error("the hint was not forwarded as one")
			}
			soon(t, "the user without a connection is counted", func() bool { return testutil.ToFloat64(r.metrics.offline) == 1 })
		})
	}
}

// open lets all look-ups through.
func open(d *farDirectory) *farDirectory { close(d.gate); return d }

func TestDeliverNeverWaitsForTheDirectory(t *testing.T) {
	d := newFar()
	r, l, w := newFleetRouter(t, d, func(o *Options) { o.LookupTimeout = time.Minute })
	place(t, d, 7, 1, node2.conn(71))
	l.has[7] = 70
	const n = 500
	for seq := uint64(1); seq <= n; seq++ {
		r.Deliver(context.Background(), []Delivery{{User: 7, Seq: seq}}) // no look-up is answered
	}
	if len(l.pushed) != n {
		t.Fatalf("%d of %d pushed here", len(l.pushed), n)
	}
	close(d.gate)
	soon(t, "all is forwarded, in order", func() bool {
		got := w.seqs(node2, 7)
		return len(got) == n && slices.IsSorted(got)
	})
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.asked) > 2 {
		t.Errorf("%d look-ups for what waited during one; want one more", len(d.asked))
	}
	for _, users := range d.asked {
		if len(users) != 1 {
			t.Errorf("a look-up of %d users, want each once", len(users))
		}
	}
}

func TestLaneIsBounded(t *testing.T) {
	d := newFar()
	r, _, w := newFleetRouter(t, d, func(o *Options) {
		o.QueueEvents, o.QueueBytes, o.LookupTimeout = 100*laneCount, 1<<20, time.Minute
	})
	place(t, d, 7, 1, node2.conn(71))
	for seq := uint64(1); seq <= 500; seq++ {
		r.Deliver(context.Background(), []Delivery{{User: 7, Seq: seq}})
	}
	if n := testutil.ToFloat64(r.metrics.dropped.WithLabelValues(dropQueue)); n != 400 {
		t.Errorf("%v dropped, want 400", n)
	}
	r.Hint(context.Background(), []Hint{{User: 7}})
	if n := testutil.ToFloat64(r.metrics.dropped.WithLabelValues(dropHint)); n != 1 {
		t.Errorf("%v hints dropped, want 1", n)
	}
	close(d.gate)
	soon(t, "what was kept is forwarded", func() bool { return len(w.seqs(node2, 7)) == 100 })
	if got := w.seqs(node2, 7); got[0] != 1 || got[99] != 100 {
		t.Errorf("kept %d … %d, want 1 … 100", got[0], got[99])
	}
	// Room comes back, and is bounded by bytes too.
	big := make([]byte, 100<<10)
	soon(t, "there is room again", func() bool {
		l := r.lanes[laneOf(7)]
		l.mu.Lock()
		defer l.mu.Unlock()
		return l.held == 0 && l.bytes == 0
	})
	l := r.lanes[laneOf(7)]
	l.mu.Lock()
	defer l.mu.Unlock()
	taken := 0
	for range 3 {
		if l.put(item{user: 7, event: big}) {
			taken++
		}
	}
	if taken != 2 {
		t.Errorf("took %d: %d bytes wait, at most %d may", taken, l.bytes, l.maxBytes)
	}
	l.items, l.held, l.bytes = nil, 0, 0
}

// Pushes here go on while the directory is down, and those to other nodes when
// it is back.
func TestDirectoryDown(t *testing.T) {
	ctx := context.Background()
	d := open(newFar())
	r, l, w := newFleetRouter(t, d, nil)
	place(t, d, 7, 1, node2.conn(71))
	l.has[7] = 70
	d.fail(errors.New("down"))
	r.Deliver(ctx, []Delivery{{User: 7, Seq: 1}})
	soon(t, "the lost push is counted", func() bool { return testutil.ToFloat64(r.metrics.dropped.WithLabelValues(dropLookup)) == 1 })
	if len(l.pushed) != 1 {
		t.Error("not pushed here")
	}
	d.fail(nil)
	r.Deliver(ctx, []Delivery{{User: 7, Seq: 2}})
	soon(t, "the next push is forwarded", func() bool { return slices.Equal(w.seqs(node2, 7), []uint64{2}) })
	// What was attached meanwhile is registered anew, and finds losers.
	d.onLoser(7, 1, node2.conn(71), true)
	d.onLoser(8, 2, Run{1, 2}.conn(80), false)
	d.onLoser(9, 2, Run{1, 1}.conn(90), false) // an earlier run's: nobody is there
	if want := []kick{{7, 1, 71, true}}; !slices.Equal(w.kicks, want) || w.kicked[0] != node2 {
		t.Errorf("kicked elsewhere: %v %v, want %v on %v", w.kicks, w.kicked, want, node2)
	}
	// A loser whom nobody can name is for the directory to find, not for sessions.
	if !r.ReceiveKick(Place{User: 7, Slot: 1}, false) || !slices.Equal(d.again, []userSlot{{7, 1}}) || len(l.kicked) != 1 {
		t.Errorf("looked again for %v, kicked %v", d.again, l.kicked)
	}
	if want := []kick{{8, 2, 80, false}}; !slices.Equal(l.kicked, want) {
		t.Errorf("kicked here: %v, want %v", l.kicked, want)
	}
}

func TestAttachKicksTheLoserOnItsNode(t *testing.T) {
	d := NewMemory(time.Now)
	r, l, w := newFleetRouter(t, d, nil)
	place(t, d, 7, 1, node2.conn(71))
	if a, err := r.Attach(context.Background(), 7, 1, 70, 2); err != nil || a.Lost {
		t.Fatalf("%+v, %v", a, err)
	}
	if want := []kick{{7, 1, 71, true}}; !slices.Equal(w.kicks, want) || w.kicked[0] != node2 || len(l.kicked) != 0 {
		t.Errorf("kicked %v on %v, want %v on %v", w.kicks, w.kicked, want, node2)
	}
}

// What comes from another node is for the sessions here: whatever the directory
// says, it goes no further.
func TestReceivedIsNotForwarded(t *testing.T) {
	d := open(newFar())
	r, l, w := newFleetRouter(t, d, nil)
	l.has[7] = 70
	place(t, d, 7, 1, node3.conn(71))
	place(t, d, 8, 1, node3.conn(81))
	gone := r.Receive(&Arrived{
		Deliveries: []Delivery{{User: 7, Seq: 1}, {User: 8, Seq: 4}},
		Hints:      []Hint{{User: 8}},
		Places:     []Place{{7, 1, 70}, {8, 1, 81}, {7, 2, 72}},
	}, nil)
	if want := []Place{{8, 1, 81}, {7, 2, 72}}; !slices.Equal(gone, want) {
		t.Errorf("not here: %v, want %v", gone, want)
	}
	if len(l.pushed) != 1 || len(l.hinted) != 1 {
		t.Errorf("pushed %v, hinted %v", l.pushed, l.hinted)
	}
	if !r.ReceiveKick(Place{7, 1, 70}, true) || r.ReceiveKick(Place{7, 1, 69}, true) || len(l.kicked) != 1 {
		t.Errorf("kicked %v; want the one that is here", l.kicked)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if len(d.asked) != 0 || w.calls != 0 {
		t.Errorf("%d look-ups and %d forwards for what was received", len(d.asked), w.calls)
	}
}

func TestNotHereRemovesTheEntryThatMisled(t *testing.T) {
	ctx := context.Background()
	d := NewMemory(time.Now)
	r, _, _ := newFleetRouter(t, d, nil)
	place(t, d, 7, 1, node2.conn(71))
	place(t, d, 7, 2, node2.conn(72))
	place(t, d, 8, 1, node2.conn(82)) // has come back since
	r.NotHere(node2, []Place{{7, 1, 71}, {8, 1, 81}})
	soon(t, "both are looked into", func() bool { return testutil.ToFloat64(r.metrics.forgotten) == 2 })
	rs, err := r.Online(ctx, 7)
	if err != nil || len(rs) != 1 || rs[0].Conn != 72 {
		t.Errorf("user 7 is at %v (%v), want 72 only", rs, err)
	}
	if rs, _ := r.Online(ctx, 8); len(rs) != 1 || rs[0].Conn != 82 {
		t.Errorf("user 8 is at %v, want 82", rs)
	}
}

func TestUsersAreSpreadAndKeepOrder(t *testing.T) {
	d := open(newFar())
	r, _, w := newFleetRouter(t, d, nil)
	const users, each = 300, 40
	lanes := map[int]int{}
	for u := int64(1); u <= users; u++ {
		id := u<<51 | u*7919
		lanes[laneOf(id)]++
		place(t, d, id, 1, node2.conn(uint64(u)))
	}
	for nth := range laneCount {
		if lanes[nth] < users/laneCount/2 {
			t.Errorf("lane %d has %d of %d users", nth, lanes[nth], users)
		}
	}
	for seq := uint64(1); seq <= each; seq++ {
		var ds []Delivery
		for u := int64(1); u <= users; u++ {
			ds = append(ds, Delivery{User: u<<51 | u*7919, Seq: seq})
		}
		r.Deliver(context.Background(), ds)
	}
	for u := int64(1); u <= users; u++ {
		soon(t, "every user gets all", func() bool { return len(w.seqs(node2, u<<51|u*7919)) == each })
		if got := w.seqs(node2, u<<51|u*7919); !slices.IsSorted(got) {
			t.Fatalf("user %d got %v", u, got)
		}
	}
}

// More users than one look-up takes.
func TestLookupsAreCut(t *testing.T) {
	d := open(newFar())
	r, _, w := newFleetRouter(t, d, nil)
	var ds []Delivery
	for u := int64(1); u <= laneCount*maxLookup*3; u++ {
		place(t, d, u, 1, node3.conn(uint64(u)))
		ds = append(ds, Delivery{User: u, Seq: uint64(u)})
	}
	r.Deliver(context.Background(), ds)
	soon(t, "all are forwarded", func() bool { w.mu.Lock(); defer w.mu.Unlock(); return len(w.sent[node3]) == len(ds) })
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, users := range d.asked {
		if len(users) > maxLookup {
			t.Errorf("a look-up of %d users", len(users))
		}
	}
}

// BenchmarkDeliverElsewhere is the way of a delivery to the links: near with a
// directory in memory, far through the lanes.
func BenchmarkDeliverElsewhere(b *testing.B) {
	for name, d := range map[string]Directory{"near": NewMemory(time.Now), "far": open(newFar())} {
		b.Run(name, func(b *testing.B) {
			r, _, w := newFleetRouter(b, d, nil)
			w.discard = true
			ds := make([]Delivery, 128)
			for i := range ds {
				place(b, d, int64(i/2+1), 1, node2.conn(uint64(i)))
				ds[i] = Delivery{User: int64(i/2 + 1), Seq: 1, Event: make([]byte, 200)}
			}
			b.ReportAllocs()
			sent := 0.0
			for b.Loop() {
				r.Deliver(context.Background(), ds)
				for sent += float64(len(ds)); testutil.ToFloat64(r.metrics.forwarded) < sent-8192; {
					runtime.Gosched()
				}
			}
			b.ReportMetric(float64(b.Elapsed().Nanoseconds())/float64(b.N)/float64(len(ds)), "ns/delivery")
		})
	}
}
