package peer

import (
	"context"
	"slices"
	"sync"
	"testing"
	"time"

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
		hints := b.home.hinted()
		return len(hints) == 1 && string(hints[0].Frame) == "typing" && hints[0].User == 20
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

// A directory that sends two nodes' users to each other for ever must not send
// events with them.
func TestOneHopOnly(t *testing.T) {
	w := newTown(t)
	a, b, c := w.start(1, 1), w.start(2, 1), w.start(3, 1)
	join(t, a, b, c)
	b.attach(t, 7, 1, 72)
	c.attach(t, 7, 2, 73)
	a.deliver(7, 1)
	eventually(t, "both get it", func() bool { return b.home.total() == 1 && c.home.total() == 1 })
	// b and c have each other as a route of the user. A second delivery, behind
	// the first on every link, would come after a forwarded first.
	a.deliver(7, 2)
	b.deliver(7, 3)
	c.deliver(7, 4)
	eventually(t, "everybody's own goes to the other", func() bool { return b.home.total() == 4 && c.home.total() == 4 })
	for _, n := range []*node{b, c} {
		if got := n.counter(t, "hermod_peer_sent_total"); got != 1 {
			t.Errorf("node %d sent %v events to others, want its own one", n.run.Node, got)
		}
	}
}

// An entry whose connection is gone leaves the directory when it has misled once.
func TestNotHere(t *testing.T) {
	ctx := context.Background()
	w := newTown(t)
	a, b := w.start(1, 1), w.start(2, 1)
	join(t, a, b)
	b.attach(t, 7, 1, 71)
	b.attach(t, 8, 1, 81)
	b.home.lose(7)
	a.deliver(7, 1)
	a.deliver(8, 1)
	eventually(t, "the entry is removed", func() bool {
		rs, err := a.router.Online(ctx, 7)
		return err == nil && len(rs) == 0
	})
	if rs, _ := a.router.Online(ctx, 8); len(rs) != 1 {
		t.Errorf("user 8 is at %v", rs)
	}
	if n := a.counter(t, "hermod_peer_not_here_total"); n != 1 {
		t.Errorf("%v counted, want 1", n)
	}
}

func TestKickOnAnotherNode(t *testing.T) {
	w := newTown(t)
	a, b := w.start(1, 1), w.start(2, 1)
	join(t, a, b)
	b.attach(t, 7, 1, 71)
	if got := a.attach(t, 7, 1, 72); got.Lost {
		t.Fatalf("%+v", got)
	}
	eventually(t, "the loser is kicked", func() bool { return slices.Equal(b.home.kickedNow(), []kicked{{7, 1, 71, false}}) })
	eventually(t, "nothing is kept", func() bool { l := a.links.link(2); l.mu.Lock(); defer l.mu.Unlock(); return len(l.kicks) == 0 })
}

// A node dies without a word and comes back as its next run at another address.
func TestNodeKilledAndBack(t *testing.T) {
	w := newTown(t)
	a, b, c := w.start(1, 1), w.start(2, 1), w.start(3, 1)
	join(t, a, b, c)
	b.attach(t, 7, 1, 71)
	c.attach(t, 8, 1, 81)
	a.deliver(7, 1)
	eventually(t, "the first arrives", func() bool { return len(b.home.seqs(7)) == 1 })
	b.stop()
	eventually(t, "the link is down", func() bool { return !a.up(b) })
	a.deliver(7, 2) // for the run that is gone
	a.deliver(8, 1)
	eventually(t, "others are not affected", func() bool { return len(c.home.seqs(8)) == 1 })

	b2 := w.start(2, 2)
	join(t, a, b2, c)
	b2.attach(t, 7, 1, 72) // the entry of the earlier run loses
	a.deliver(7, 3)
	eventually(t, "pushes arrive at the next run", func() bool { return slices.Equal(b2.home.seqs(7), []uint64{3}) })
	if len(b2.home.kickedNow()) != 0 {
		t.Errorf("the next run was kicked: %v", b2.home.kickedNow())
	}
}

// A node that has just started is known by the directory's entries before the
// member list is asked again: what is for it waits for the link.
func TestNewNodeIsMetByItsFirstDelivery(t *testing.T) {
	w := newTown(t)
	a := w.start(1, 1, func(o *Options) { o.MembersEvery = time.Hour })
	eventually(t, "the list has been asked", func() bool { return len(a.links.wake) == 0 })
	b := w.start(2, 1, func(o *Options) { o.MembersEvery = time.Hour })
	b.attach(t, 7, 1, 71)
	a.deliver(7, 1, 2)
	eventually(t, "what came first arrives", func() bool { return slices.Equal(b.home.seqs(7), []uint64{1, 2}) })
}

// Where the directory does not answer, links stay, and come back where they break.
func TestMembersUnknown(t *testing.T) {
	w := newTown(t)
	a := w.start(1, 1, func(o *Options) { o.Forget = time.Millisecond })
	b := w.start(2, 1)
	join(t, a, b)
	b.attach(t, 7, 1, 71)
	w.setDown(true)
	l := a.links.link(2)
	l.mu.Lock()
	_ = l.conn.Close()
	l.mu.Unlock()
	eventually(t, "pushes arrive without the member list", func() bool {
		a.deliver(7, 1)
		return len(b.home.seqs(7)) > 0
	})
	w.unlist(2)
	w.setDown(false)
	// A link that works stays though the list (of a directory that was emptied)
	// lacks the node; one that does not goes.
	asked := time.Now()
	eventually(t, "the list has been asked again", func() bool { return time.Since(asked) > 400*time.Millisecond })
	if !a.up(b) {
		t.Error("a link that works was given up")
	}
	b.stop()
	eventually(t, "the node is forgotten", func() bool { return len(a.links.Status()) == 0 })
}

// Several goroutines deliver to many users; each user's events stay in order.
func TestOrderPerUser(t *testing.T) {
	w := newTown(t)
	a, b, c := w.start(1, 1), w.start(2, 1), w.start(3, 1)
	join(t, a, b, c)
	const users, each = 40, 250
	for u := int64(1); u <= users; u++ {
		[]*node{b, c}[u%2].attach(t, u, 1, uint64(u))
	}
	var wg sync.WaitGroup
	for g := range int64(4) {
		wg.Go(func() {
			for seq := uint64(1); seq <= each; seq++ {
				var ds []router.Delivery
				for u := g + 1; u <= users; u += 4 {
					ds = append(ds, router.Delivery{User: u, Seq: seq, Event: eventOf(seq)})
				}
				a.router.Deliver(context.Background(), ds)
			}
		})
	}
	wg.Wait()
	eventually(t, "all arrive", func() bool { return b.home.total()+c.home.total() == users*each })
	for u := int64(1); u <= users; u++ {
		if got := []*node{b, c}[u%2].home.seqs(u); len(got) != each || !slices.IsSorted(got) {
			t.Fatalf("user %d got %v", u, got)
		}
	}
}

func TestStatus(t *testing.T) {
	w := newTown(t)
	quick := func(o *Options) { o.Heartbeat = 20 * time.Millisecond }
	a, b := w.start(1, 1, quick), w.start(2, 6, quick)
	join(t, a, b)
	eventually(t, "the round trip is known", func() bool { return a.links.Status()[0].RoundTrip > 0 })
	eventually(t, "the other direction is known", func() bool { return a.links.Status()[0].Inbound })
	s := a.links.Status()[0]
	if s.Node != 2 || s.Incarnation != 6 || s.Addr != b.links.Addr().String() || !s.Up || s.Version != 1 || s.Err != nil || s.Since.IsZero() {
		t.Errorf("%+v", s)
	}
	if n := a.counter(t, "hermod_peer_up"); n != 1 {
		t.Errorf("hermod_peer_up is %v", n)
	}
}

func TestOptionsValidate(t *testing.T) {
	w := newTown(t)
	n := w.start(1, 1)
	good := n.links.opt
	good.Listener = nil
	for name, change := range map[string]func(*Options){
		"no listener": func(*Options) {},
		"no node":     func(o *Options) { o.Listener, o.Node = n.links.opt.Listener, 0 },
		"no fleet":    func(o *Options) { o.Listener, o.Fleet = n.links.opt.Listener, nil },
		"no receiver": func(o *Options) { o.Listener, o.Receive = n.links.opt.Listener, nil },
		"no metrics":  func(o *Options) { o.Listener, o.Metrics = n.links.opt.Listener, nil },
		"negative":    func(o *Options) { o.Listener, o.QueueBytes = n.links.opt.Listener, -1 },
		"silence":     func(o *Options) { o.Listener, o.Silence, o.Heartbeat = n.links.opt.Listener, 1, 2 },
		"identity":    func(o *Options) { o.Listener, o.Node = n.links.opt.Listener, 2 },
	} {
		opt := good
		change(&opt)
		if err := opt.Validate(); err == nil {
			t.Errorf("%s: accepted", name)
		}
	}
	opt := n.links.opt
	if err := opt.Validate(); err != nil {
		t.Error(err)
	}
}
