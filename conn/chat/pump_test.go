package chat

import (
	"bytes"
	"fmt"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

func TestWindowStopsAndGoesOn(t *testing.T) {
	for _, tt := range []struct {
		name   string
		limits Limits
		size   int
		most   int // events that fit
	}{
		{"by count", Limits{WindowEvents: 10}, 1, 10},
		{"by bytes", Limits{WindowBytes: 10_000}, 900, 10},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := newRig(t, func(o *rigOptions) { o.chat.Limits = tt.limits })
			a, b := r.register("alice"), r.register("bob")
			at := b.welcome.Head.Seq
			const n = 100
			for i := range n {
				a.send(textTo(b.d.user, fmt.Sprintf("%03d%s", i, bytes.Repeat([]byte("x"), tt.size))))
				a.ack(a.events(1)[0].Seq) // or its own window would shut
			}
			s := r.chat.sessionsOf(storage.UserID(b.d.user))[0]
			s.mu.Lock()
			sent := int(s.flow.sent - at)
			s.mu.Unlock()
			if sent > tt.most || sent < tt.most/2 {
				t.Fatalf("%d events were sent without an ack, the window holds %d", sent, tt.most)
			}
			for i, got := 0, uint64(0); i < n; i++ {
				ev := b.events(1)[0]
				if text(ev)[:3] != fmt.Sprintf("%03d", i) || got != 0 && ev.Seq != got+1 {
					t.Fatalf("event %d is %v", i, ev)
				}
				got = ev.Seq
				if i%3 == 2 || i == n-1 || i%tt.most == tt.most-1 {
					b.ack(got)
				}
			}
		})
	}
}

func TestLostPushIsRepaired(t *testing.T) {
	t.Run("by the next push", func(t *testing.T) {
		r := newRig(t, nil)
		a, b := r.register("alice"), r.register("bob")
		bob := storage.UserID(b.d.user)
		r.dropping(func(d storage.Delivery) bool { return d.User == bob })
		a.send(textTo(b.d.user, "lost"))
		r.dropping(nil)
		a.send(textTo(b.d.user, "arrives"))
		if evs := b.events(2); text(evs[0]) != "lost" || text(evs[1]) != "arrives" {
			t.Errorf("got %v", evs)
		}
	})
	t.Run("by the audit", func(t *testing.T) {
		r := newRig(t, func(o *rigOptions) { o.chat.AuditEvery = 40 * time.Millisecond })
		a, b := r.register("alice"), r.register("bob")
		r.dropping(func(storage.Delivery) bool { return true })
		a.send(textTo(b.d.user, "lost"))
		if ev := b.events(1)[0]; text(ev) != "lost" {
			t.Errorf("got %v", ev)
		}
		// The sender's connection lost its own event too: it gets it whole.
		if ev := a.events(1)[0]; text(ev) != "lost" {
			t.Errorf("the sender got %v", ev)
		}
	})
}

// With pushes dropped and repeated at random, and several senders, everybody
// gets every event once and in order.
func TestLossyPushes(t *testing.T) {
	r := newRig(t, func(o *rigOptions) {
		o.chat.AuditEvery = 20 * time.Millisecond
		o.chat.Limits = Limits{WindowEvents: 50, WindowBytes: 4000}
	})
	b := r.register("bob")
	var senders []*peer
	for i := range 3 {
		senders = append(senders, r.register(fmt.Sprintf("sender%d", i)))
	}
	var n atomic.Uint64
	r.dropping(func(storage.Delivery) bool { return n.Add(0x9e3779b97f4a7c15)>>62 == 0 })
	const each = 300
	for i := range each {
		for j, p := range senders {
			f := sendFrame(textTo(b.d.user, fmt.Sprintf("%d.%d", j, i)))
			f.Id = r.ids.Add(1) + 1
			p.write(f)
			if i%20 == 19 {
				p.answer(f.Id)
			}
		}
	}
	next := make([]int, len(senders))
	for range each * len(senders) {
		ev := b.events(1)[0]
		var j, i int
		fmt.Sscanf(text(ev), "%d.%d", &j, &i)
		if next[j] != i {
			t.Fatalf("sender %d: message %d after %d", j, i, next[j]-1)
		}
		next[j]++
		if ev.Seq%7 == 0 {
			b.ack(ev.Seq)
		}
	}
}

func TestNonsenseAcks(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	b.ack(1 << 60)
	a.send(textTo(b.d.user, "x"))
	ev := b.events(1)[0]
	b.ack(ev.Seq)
	b.ack(0)
	eventually(t, "the good ack counts", func() bool {
		s := r.chat.sessionsOf(storage.UserID(b.d.user))[0]
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.flow.acked == ev.Seq
	})
	b.refused(&proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: 1}}}, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
}

func TestSlowDeviceBelowTheFloor(t *testing.T) {
	r := newRig(t, func(o *rigOptions) {
		o.store.RetainEvents = 10
		o.chat.Limits = Limits{WindowEvents: 2}
	})
	a, b := r.register("alice"), r.register("bob")
	for range 100 {
		a.send(textTo(b.d.user, "x"))
	}
	b.ack(b.events(2)[1].Seq)
	if code := b.closed(); code != proto.ErrorCode_ERROR_CODE_SLOW_CONSUMER {
		t.Errorf("closed with %v", code)
	}
}

func TestRequestsWithoutID(t *testing.T) {
	r := newRig(t, nil)
	a := r.register("alice")
	a.write(sendFrame(textTo(a.d.user, "x")))
	if code := a.closed(); code != proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT {
		t.Errorf("closed with %v", code)
	}
}

func TestUnknownRequests(t *testing.T) {
	r := newRig(t, nil)
	a := r.register("alice")
	a.refused(&proto.Frame{Body: &proto.Frame_Ok{Ok: &proto.Ok{}}}, proto.ErrorCode_ERROR_CODE_UNKNOWN_REQUEST)
	a.send(textTo(a.d.user, "still here"))
}

// TestSendsKeepTheirOrder sends far more at once than may be in flight, and
// follows the rule for refusals: the recipient gets all of it in order.
func TestSendsKeepTheirOrder(t *testing.T) {
	t.Run("refused by the edge", func(t *testing.T) { sendInOrder(t, newRig(t, nil)) })
	t.Run("refused by storage", func(t *testing.T) {
		sendInOrder(t, newRig(t, func(o *rigOptions) {
			o.conn.MaxInFlight = 1000
			o.store.Queue = 8
		}))
	})
}

func sendInOrder(t *testing.T, r *rig) {
	a, b := r.register("alice"), r.register("bob")
	const n = 400
	reqs := make([]*proto.SendRequest, n)
	for i := range reqs {
		reqs[i] = textTo(b.d.user, fmt.Sprint(i))
	}
	refusals, resumed := 0, false
	for todo := reqs; len(todo) > 0; {
		var again []*proto.SendRequest
		fs := make([]*proto.Frame, len(todo))
		for i, req := range todo {
			req.ResumeOrder = resumed && i == 0
			fs[i] = sendFrame(req)
			fs[i].Id = r.ids.Add(1) + 1
		}
		a.write(fs...)
		for i, f := range fs {
			got := a.answer(f.Id)
			if e := got.GetError(); e != nil {
				if !e.Retryable || e.Code != proto.ErrorCode_ERROR_CODE_BUSY && e.Code != proto.ErrorCode_ERROR_CODE_OVERLOADED {
					t.Fatalf("send was answered with %v", e)
				}
				refusals++
				again = append(again, todo[i])
			} else if len(again) > 0 {
				t.Fatalf("message %d was taken after an earlier one had been refused", i)
			}
		}
		todo, resumed = again, true
	}
	if refusals == 0 {
		t.Error("nothing was refused: this tested nothing")
	}
	for i, ev := range b.events(n) {
		if text(ev) != fmt.Sprint(i) || ev.ConvSeq != uint64(i+1) {
			t.Fatalf("event %d is %v", i, ev)
		}
	}
}

func TestNoAllocations(t *testing.T) {
	if raceEnabled {
		return // the race detector allocates
	}
	tb := newTable()
	for i := range 1000 {
		tb.add(&session{id: member{user: storage.UserIDIn(storage.Slot(i), uint64(i)*7919+1)}})
	}
	u := storage.UserIDIn(500, 500*7919+1)
	dst := make([]*session, 0, 8)
	if n := testing.AllocsPerRun(1000, func() { dst = tb.find(u, dst[:0]) }); n != 0 || len(dst) != 1 {
		t.Errorf("finding a local session allocates %v times and finds %d", n, len(dst))
	}
	var f flow
	lim, pool := testLimits(), new(windows)
	m := mark{storage.PairKey(1, 2), 1}
	if n := testing.AllocsPerRun(1000, func() {
		if f.push(f.sent+1, 100, lim) == forward {
			f.note(f.sent+1, 100, m, lim, pool)
		}
		f.ack(f.sent, pool, func(mark) {})
	}); n != 0 {
		t.Errorf("an event and its ack allocate %v times", n)
	}
}
