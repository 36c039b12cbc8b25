package conn

import (
	"testing"

	"github.com/hermod-im/hermod/proto"
)

func oneWay() *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: 1}}}
}

// One-way frames hold no credit and need none: a client whose requests are all
// open, as it may, goes on acknowledging, and is not closed for that.
func TestOneWayNeedsNoCredit(t *testing.T) {
	const credits, acks = 4, 3 * floodFactor * 4
	h := &echo{onServe: func(*Conn, *proto.Frame) bool { return false }}
	e := start(t, h, quick(func(l *Limits) { l.MaxInFlight = credits }))
	c := e.dial().login()
	for id := range uint64(credits) {
		c.send(request(id + 2))
	}
	for i := range int64(acks) {
		c.send(oneWay())
		eventually(t, "an ack served", func() bool { return h.served.Load() == credits+i+1 })
	}
	if n := e.metric("refused_total", ""); n != 0 {
		t.Errorf("%v refused", n)
	}
}

// With a single credit, too, only refusals in a row close.
func TestRefusalsInARow(t *testing.T) {
	for _, credits := range []int{1, 2, 3, 64} {
		lim := testLimits()
		lim.MaxInFlight = credits
		s := session{phase: phaseLive}
		for range 3 * floodFactor {
			for range credits {
				if a := s.admit(request(1), credits, 0, 0, lim); a.step != stepRefuse {
					t.Fatalf("%d credits, all taken: %+v", credits, a)
				}
			}
			if a := s.admit(request(1), 0, 0, 0, lim); a.step != stepFrame || s.refused != 0 {
				t.Fatalf("%d credits, none taken: %+v, %d refusals kept", credits, a, s.refused)
			}
		}
	}
}
