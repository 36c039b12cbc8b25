package peer

import (
	"context"
	"net"
	"os"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
)

func TestCommonVersion(t *testing.T) {
	for _, x := range []struct {
		a, b versions
		want uint32 // 0: none
	}{
		{versions{1, 1}, versions{1, 1}, 1},
		{versions{1, 1}, versions{1, 4}, 1},
		{versions{1, 3}, versions{2, 5}, 3},
		{versions{2, 3}, versions{3, 3}, 3},
		{versions{1, 1}, versions{2, 2}, 0},
		{versions{2, 5}, versions{1, 1}, 0},
		{versions{1, 1}, versions{0, 0}, 0},
		{versions{1, 1}, versions{3, 1}, 0}, // upside down
		{versions{0, 0}, versions{0, 0}, 0},
	} {
		for _, y := range [][2]versions{{x.a, x.b}, {x.b, x.a}} {
			got, ok := y[0].common(y[1])
			if ok != (x.want != 0) || ok && got != x.want {
				t.Errorf("%v and %v: %d %v, want %d", y[0], y[1], got, ok, x.want)
			}
		}
	}
}

// Nodes of three builds in one fleet, as while it is being updated: all links
// come up, each with the highest version that both ends speak.
func TestMixedVersions(t *testing.T) {
	w := newTown(t)
	speak := func(v versions) func(*Options) { return func(o *Options) { o.speaks = v } }
	old, middle, latest := w.start(1, 1, speak(versions{1, 1})), w.start(2, 1, speak(versions{1, 2})), w.start(3, 1, speak(versions{1, 3}))
	join(t, old, middle, latest)
	for _, x := range []struct {
		from, to *node
		want     uint32
	}{{old, middle, 1}, {old, latest, 1}, {middle, old, 1}, {middle, latest, 2}, {latest, middle, 2}} {
		for _, s := range x.from.links.Status() {
			if s.Node == x.to.run.Node && s.Version != x.want {
				t.Errorf("%d to %d speak version %d, want %d", x.from.run.Node, x.to.run.Node, s.Version, x.want)
			}
		}
	}
	old.attach(t, 10, 1, 101)
	latest.deliver(10, 1, 2)
	eventually(t, "the newest reaches the oldest", func() bool { return slices.Equal(old.home.seqs(10), []uint64{1, 2}) })
}

// A later version's elements and fields come to a node that does not know them.
func TestNewerPeerIsUnderstood(t *testing.T) {
	w := newTown(t)
	n := w.start(1, 1)
	n.attach(t, 7, 1, 70)
	f, err := dial(t, n, w.ca.identity(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	if answer, err := f.hello(helloOf(2, 1, versions{1, 9})); err != nil || answer.Refusal != nil {
		t.Fatalf("%v, %v", answer, err)
	}
	for _, v := range vectors(t) {
		if v.Why != "" {
			f.write(unhex(t, v.Hex))
		}
	}
	eventually(t, "what is known is taken", func() bool { return len(n.home.seqs(7)) == 1 })
}

func TestDisjointVersionsAreRefused(t *testing.T) {
	w := newTown(t)
	n := w.start(1, 1)
	for _, v := range []versions{{2, 3}, {0, 0}} {
		f, err := dial(t, n, w.ca.identity(t, 2))
		if err != nil {
			t.Fatal(err)
		}
		answer, err := f.hello(helloOf(2, 1, v))
		if err != nil || answer.Refusal.GetReason() != proto.PeerRefusalReason_PEER_REFUSAL_REASON_VERSION || answer.Hello.GetMaxVersion() != 1 {
			t.Errorf("%v: %v, %v", v, answer, err)
		}
	}
	// Both ends find out, whoever dials, and both tell their operators.
	b := w.start(2, 1, func(o *Options) { o.speaks = versions{2, 2} })
	for _, x := range [][2]*node{{n, b}, {b, n}} {
		eventually(t, "the status says that no version is common", func() bool {
			for _, s := range x[0].links.Status() {
				if s.Node == x[1].run.Node {
					return !s.Up && s.Err != nil && strings.Contains(s.Err.Error(), "update the older node")
				}
			}
			return false
		})
	}
}

// A later run of a node is connected: an earlier one is not let in, and where
// only the earlier answers, nothing is sent to it.
func TestEarlierRunsAreRefused(t *testing.T) {
	w := newTown(t)
	n := w.start(1, 1)
	id := w.ca.identity(t, 2)
	hello := func(incarnation uint64) (*fake, *proto.PeerFrame) {
		f, err := dial(t, n, id)
		if err != nil {
			t.Fatal(err)
		}
		answer, err := f.hello(helloOf(2, incarnation, versionsHere))
		if err != nil {
			t.Fatal(err)
		}
		return f, answer
	}
	five, answer := hello(5)
	if answer.Refusal != nil {
		t.Fatal(answer.Refusal)
	}
	if _, answer := hello(4); answer.Refusal.GetReason() != proto.PeerRefusalReason_PEER_REFUSAL_REASON_OLD_RUN {
		t.Errorf("an earlier run: %v", answer)
	}
	if _, answer := hello(6); answer.Refusal != nil {
		t.Errorf("a later run: %v", answer)
	}
	if _, err := five.next(); err == nil {
		t.Error("the earlier run's connection stays")
	}

	l := w.fake(3, 8, w.ca.identity(t, 3))
	l.greet(helloOf(3, 7, versionsHere))
	eventually(t, "the earlier run is not used", func() bool {
		for _, s := range n.links.Status() {
			if s.Node == 3 {
				return !s.Up && s.Err == errOldRun
			}
		}
		return false
	})
	// One that is later than listed is: the list is behind.
	f := l.greet(helloOf(3, 9, versionsHere))
	eventually(t, "the later run is used", func() bool {
		for _, s := range n.links.Status() {
			if s.Node == 3 {
				return s.Up && s.Incarnation == 9
			}
		}
		return false
	})
	_ = f.raw.Close()
}

// What was taken for a later run and is never heard of does not keep the node
// away for good.
func TestRunThatNeverCame(t *testing.T) {
	w := newTown(t)
	a := w.start(1, 1, func(o *Options) { o.Forget = 50 * time.Millisecond })
	b := w.start(2, 3)
	join(t, a, b)
	b.attach(t, 7, 1, 71)
	a.links.Forward(router.Run{Node: 2, Incarnation: 99}, []router.Forwarded{{User: 7, Seq: 1}})
	eventually(t, "pushes arrive again", func() bool {
		a.deliver(7, 2)
		return slices.Contains(b.home.seqs(7), 2)
	})
}

// Who connects and says nothing, or goes no further, is sent away.
func TestGreetingIsBounded(t *testing.T) {
	w := newTown(t)
	n := w.start(1, 1, func(o *Options) { o.greet = 100 * time.Millisecond })
	var d net.Dialer
	mute, err := d.DialContext(context.Background(), "tcp", n.links.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	defer mute.Close()
	shy, err := dial(t, n, w.ca.identity(t, 2)) // TLS and no hello
	if err != nil {
		t.Fatal(err)
	}
	_ = mute.SetDeadline(time.Now().Add(patience))
	if _, err := mute.Read(make([]byte, 1)); err == nil || os.IsTimeout(err) {
		t.Errorf("the mute one: %v", err)
	}
	if _, err := shy.next(); err == nil || os.IsTimeout(err) {
		t.Errorf("the shy one: %v", err)
	}
	f, err := dial(t, n, w.ca.identity(t, 2))
	if err != nil {
		t.Fatal(err)
	}
	f.write([]byte{0, 0, 0x10, 1}) // over the cap before the hello
	if _, err := f.next(); err == nil || os.IsTimeout(err) {
		t.Errorf("a hello over the cap: %v", err)
	}
	eventually(t, "they are counted", func() bool { return n.counter(t, "hermod_peer_refused_total") == 3 })
}
