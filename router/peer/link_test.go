package peer

import (
	"testing"
	"time"

	"github.com/hermod-im/hermod/router"
)

// A node can be owed so many kicks and no more; what an echo vouches for is
// counted from what is left.
func TestKicksAreBounded(t *testing.T) {
	w := newTown(t)
	a := w.start(1, 1)
	to := router.Run{Node: 2, Incarnation: 1} // nobody lists it
	l := a.links.link(2)
	for range 2 * maxKicks { // questions take half of the room
		a.links.Kick(to, router.Place{User: 3}, false)
	}
	if dropped := a.counter(t, "hermod_peer_dropped_total", dropKick); len(l.kicks) != maxKicks/2 || dropped != 3*maxKicks/2 {
		t.Errorf("%d questions are kept, %v were dropped", len(l.kicks), dropped)
	}
	for i := range uint64(maxKicks) {
		a.links.Kick(to, router.Place{User: 1, Conn: 1 + i}, false)
	}
	written := l.take(nil, false)
	if l.told != maxKicks || l.beat.IsZero() || len(written) < maxKicks*10 {
		t.Fatalf("%d told in %d bytes", l.told, len(written))
	}
	for i := range uint64(3) {
		a.links.Kick(to, router.Place{User: 2, Conn: 1 + i}, false)
	}
	if len(l.kicks) != maxKicks || l.kicks[0].at.Conn != 4 || a.counter(t, "hermod_peer_dropped_total", dropKick) != 2*maxKicks+3 {
		t.Errorf("%d are kept, from %+v on", len(l.kicks), l.kicks[0])
	}
	l.echoed()
	if len(l.kicks) != 3 || l.kicks[0].at.User != 2 || l.told != 0 {
		t.Errorf("after the echo: %+v, %d told", l.kicks, l.told)
	}
	l.echoed() // of nothing
	if len(l.kicks) != 3 {
		t.Error("an echo that nobody asked for counts")
	}
}

// Entries that name ever more nodes do not make ever more links.
func TestLinksAreBounded(t *testing.T) {
	w := newTown(t)
	a := w.start(1, 1, func(o *Options) { o.MembersEvery = time.Hour })
	for node := uint64(2); node < maxLinks+12; node++ {
		to := router.Run{Node: node, Incarnation: 1}
		a.links.Forward(to, []router.Forwarded{{User: 1, Seq: 1}})
		a.links.Kick(to, router.Place{User: 1}, false)
	}
	if n := len(a.links.Status()); n != maxLinks {
		t.Errorf("%d links, at most %d may be", n, maxLinks)
	}
	if n := a.counter(t, "hermod_peer_dropped_total", dropUnknown); n != 20 {
		t.Errorf("%v dropped, want 20", n)
	}
	if a.links.link(1) != nil {
		t.Error("a link to itself")
	}
}

// What waits for a link that is not there is bounded in time: afterwards a dead
// node costs nothing.
func TestGrace(t *testing.T) {
	w := newTown(t)
	a := w.start(1, 1, func(o *Options) { o.Grace = time.Hour })
	to := router.Run{Node: 2, Incarnation: 1}
	l := a.links.link(2)
	a.links.Forward(to, []router.Forwarded{{User: 1, Seq: 1}, {User: 1, Hint: true}})
	if l.out.items != 1 || a.counter(t, "hermod_peer_dropped_total", dropDown) != 1 {
		t.Errorf("%d wait; want the event and not the hint", l.out.items)
	}
	l.mu.Lock()
	l.since = l.since.Add(-2 * time.Hour)
	l.mu.Unlock()
	a.links.Forward(to, []router.Forwarded{{User: 1, Seq: 2}})
	a.links.Forward(router.Run{Node: 2, Incarnation: 0}, []router.Forwarded{{User: 1, Seq: 3}})
	if l.out.items != 1 || a.counter(t, "hermod_peer_dropped_total", dropDown) != 2 || a.counter(t, "hermod_peer_dropped_total", dropRun) != 1 {
		t.Errorf("%d wait; want what came in time", l.out.items)
	}
	a.links.Forward(router.Run{Node: 2, Incarnation: 2}, nil)
	if l.out.items != 0 {
		t.Error("what was for the earlier run still waits")
	}
}
