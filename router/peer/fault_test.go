package peer

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
)

// While the network between two nodes is cut, kicks wait and are then told;
// pushes go on afterwards; and a kick that was written into a connection that
// broke is told again.
func TestNetworkCut(t *testing.T) {
	w := newTown(t)
	a := w.start(1, 1, func(o *Options) { o.Grace = time.Millisecond })
	b := w.start(2, 1)
	p := newProxy(t, b.links.Addr().String())
	w.list(router.Member{Node: 2, Incarnation: 1, Addr: p.addr()})
	eventually(t, "the link goes through the proxy", func() bool {
		for _, s := range a.links.Status() {
			return s.Up && s.Addr == p.addr()
		}
		return false
	})
	for user := int64(1); user <= 9; user++ {
		b.attach(t, user, 1, uint64(user))
	}
	p.setCut(true)
	eventually(t, "the link is down", func() bool { return !a.up(b) })
	for user := int64(1); user <= 5; user++ {
		a.attach(t, user, 1, uint64(100+user))
	}
	eventually(t, "pushes are dropped at once after the grace", func() bool {
		a.deliver(9, 1)
		return a.counter(t, "hermod_peer_dropped_total", dropDown) > 0
	})
	p.setCut(false)
	eventually(t, "the kicks arrive", func() bool { return len(b.home.kickedNow()) >= 5 })
	eventually(t, "pushes arrive again", func() bool {
		a.deliver(9, 2)
		return slices.Contains(b.home.seqs(9), 2)
	})
	a.links.Kick(b.run, router.Place{User: 6, Slot: 1, Conn: 6}, true)
	eventually(t, "the next kick arrives", func() bool { return slices.Contains(b.home.kickedNow(), kicked{6, 1, 6, true}) })
}

// A kick counts as told when the node has read it, not when it was written.
func TestKicksAreToldUntilEchoed(t *testing.T) {
	w := newTown(t)
	l := w.fake(2, 1, w.ca.identity(t, 2))
	a := w.start(1, 1)
	want := kick{router.Place{User: 7, Slot: 1, Conn: 70}, true}
	readKick := func(f *fake) {
		t.Helper()
		var in inbox
		for len(in.kicks) == 0 {
			payload, err := f.next()
			if err != nil || in.decode(payload) != nil {
				t.Fatal("no kick: ", err)
			}
		}
		if in.kicks[0] != want {
			t.Fatalf("kicked %+v", in.kicks[0])
		}
	}
	f := l.greet(helloOf(2, 1, versionsHere))
	a.links.Kick(router.Run{Node: 2, Incarnation: 1}, want.at, true)
	readKick(f)
	_ = f.raw.Close() // before the heartbeat behind it is echoed
	f = l.greet(helloOf(2, 1, versionsHere))
	readKick(f)
	for {
		payload, err := f.next()
		if err != nil {
			t.Fatal(err)
		}
		if proto.IsHeartbeat(payload) {
			break
		}
	}
	f.write(proto.AppendHeartbeat(nil))
	link := a.links.link(2)
	eventually(t, "the echo settles it", func() bool { link.mu.Lock(); defer link.mu.Unlock(); return len(link.kicks) == 0 })
	_ = f.raw.Close()
	f = l.greet(helloOf(2, 1, versionsHere))
	// The first thing behind the hello is what waits; nothing does.
	a.links.Kick(router.Run{Node: 2, Incarnation: 1}, router.Place{User: 8}, false)
	var in inbox
	payload, err := f.next()
	if err != nil || in.decode(payload) != nil || len(in.kicks) != 1 || in.kicks[0].at.User != 8 {
		t.Errorf("%+v, %v; want the new kick alone", in.kicks, err)
	}
	// What the node's earlier run held went with it.
	a.links.Kick(router.Run{Node: 2, Incarnation: 9}, router.Place{User: 9}, false)
	a.links.Kick(router.Run{Node: 2, Incarnation: 1}, router.Place{User: 10}, false)
	f = l.greet(helloOf(2, 9, versionsHere))
	in = inbox{}
	payload, err = f.next()
	if err != nil || in.decode(payload) != nil || len(in.kicks) != 1 || in.kicks[0].at.User != 9 {
		t.Errorf("%+v, %v; want the later run's kick alone", in.kicks, err)
	}
}

// A node that takes no bytes costs its own queue and nothing else.
func TestSlowPeer(t *testing.T) {
	w := newTown(t)
	l := w.fake(2, 1, w.ca.identity(t, 2))
	a := w.start(1, 1, func(o *Options) { o.QueueBytes = 256 << 10 })
	b := w.start(3, 1)
	f := l.greet(helloOf(2, 1, versionsHere)) // and reads no more
	join(t, a, b)
	if _, err := w.dir.Attach(context.Background(), 7, 1, router.Entry{Ref: router.Ref{Node: 2, Incarnation: 1, Conn: 1}, LoginEpoch: 1}); err != nil {
		t.Fatal(err)
	}
	b.attach(t, 8, 1, 81)
	event := bytes.Repeat([]byte("x"), 8<<10)
	slowest, seq := time.Duration(0), uint64(0)
	eventually(t, "the queue is full", func() bool {
		for range 50 {
			seq++
			began := time.Now()
			a.router.Deliver(context.Background(), []router.Delivery{{User: 7, Seq: seq, Event: event}, {User: 8, Seq: seq, Event: event[:8]}})
			slowest = max(slowest, time.Since(began))
		}
		return a.counter(t, "hermod_peer_dropped_total", dropFull) > 1000
	})
	for _, s := range a.links.Status() {
		if s.Node == 2 && s.QueuedBytes > 256<<10 {
			t.Errorf("%d bytes wait, at most %d may", s.QueuedBytes, 256<<10)
		}
	}
	eventually(t, "the other node got everything", func() bool { return len(b.home.seqs(8)) == int(seq) })
	if slowest > 2*time.Second {
		t.Errorf("a Deliver took %v", slowest)
	}
	_ = f.raw.Close()
}

// A peer that answers no heartbeat is given up; so is one that sends rubbish.
func TestSilentAndBrokenPeers(t *testing.T) {
	w := newTown(t)
	quick := func(o *Options) { o.Heartbeat, o.Silence = 50*time.Millisecond, 300*time.Millisecond }
	l := w.fake(2, 1, w.ca.identity(t, 2))
	a := w.start(1, 1, quick)
	l.greet(helloOf(2, 1, versionsHere))
	eventually(t, "the silent node's link is down", func() bool {
		for _, s := range a.links.Status() {
			if s.Node == 2 {
				return !s.Up && s.Err == errNoAnswer
			}
		}
		return false
	})
	w.unlist(2)
	for name, bytes := range map[string][]byte{
		"silence":             nil,
		"over the cap":        {0, 0x10, 0, 1},
		"no protobuf":         {0, 0, 0, 1, 0xff},
		"a group":             {0, 0, 0, 2, 0x0b, 0x0c},
		"a second hello only": {0, 0, 0, 2, 0x42, 0},
	} {
		f, err := dial(t, a, w.ca.identity(t, 5))
		if err != nil {
			t.Fatal(err)
		}
		if answer, err := f.hello(helloOf(5, 1, versionsHere)); err != nil || answer.Refusal != nil {
			t.Fatalf("%v, %v", answer, err)
		}
		f.write(bytes)
		if _, err := f.next(); err == nil {
			t.Errorf("%s: the connection stays", name)
		}
	}
}
