package peer

import (
	"context"
	"slices"
	"testing"

	"github.com/hermod-im/hermod/router"
)

func TestDeliveriesReachUsersOnOtherNodes(t *testing.T) {
	w := newTown(t)
	a, b, c := w.start(1, 1), w.start(2, 7), w.start(3, 1)
	join(t, a, b, c)
	b.attach(t, 20, 1, 201)
	c.attach(t, 30, 1, 301)
	// One user with devices everywhere, two of them on one node.
	a.attach(t, 99, 1, 901)
	b.attach(t, 99, 2, 902)
	b.attach(t, 99, 3, 903)
	c.attach(t, 99, 4, 904)

	a.deliver(20, 1, 2, 3)
	a.deliver(30, 5)
	a.deliver(99, 1, 2)
	a.router.Hint(context.Background(), []router.Hint{{User: 20, Frame: []byte("typing")}})
	for _, x := range []struct {
		n    *node
		user int64
		want []uint64
	}{{b, 20, []uint64{1, 2, 3}}, {c, 30, []uint64{5}}, {a, 99, []uint64{1, 2}}, {b, 99, []uint64{1, 2}}, {c, 99, []uint64{1, 2}}} {
		eventually(t, "the deliveries arrive once", func() bool { return slices.Equal(x.n.home.seqs(x.user), x.want) })
	}
	eventually(t, "the hint arrives", func() bool {
		b.home.mu.Lock()
		defer b.home.mu.Unlock()
		return len(b.home.hints) == 1 && string(b.home.hints[0].Frame) == "typing" && b.home.hints[0].User == 20
	})
	if n := a.home.total() + b.home.total() + c.home.total(); n != 3+1+6 {
		t.Errorf("%d deliveries in all, want 10", n)
	}
	for i, e := range b.home.events {
		if len(e) != 3 || e[2] != 'e' {
			t.Errorf("event %d is %q", i, e)
		}
	}
}
