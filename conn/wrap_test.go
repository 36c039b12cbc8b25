package conn

import (
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// The clock of the edge wraps after 49.7 days. Connections that live then keep
// their heartbeats, and are closed for silence no sooner and no later.
func TestClockWraps(t *testing.T) {
	const wrap, beat = (1 << 32) * time.Millisecond, 10 * time.Second
	var clock atomic.Int64
	base := time.Now()
	e := start(t, &echo{heartbeat: beat}, func(o *Options) {
		quick(func(l *Limits) { l.MinHeartbeat = beat; nobody(l) })(o)
		o.Now = func() time.Time { return base.Add(time.Duration(clock.Load())) }
	})
	clock.Store(int64(wrap - 2*beat))
	lively, silent := e.dial().login(), e.dial().login()
	advance := func(d time.Duration) {
		clock.Add(int64(d))
		for range 2 { // the wheels have turned
			for _, l := range e.allLoops() {
				done := make(chan struct{})
				l.post(func() { l.turn(); close(done) })
				<-done
			}
		}
	}
	alive := func() {
		t.Helper()
		lively.write(proto.AppendHeartbeat(nil))
		if f, err := lively.next(); f != nil || err != nil {
			t.Fatalf("after %v: %v, %v", time.Duration(clock.Load()), f, err)
		}
	}
	for range 8 {
		advance(beat / 2)
		alive()
	}
	silent.fault(proto.ErrorCode_ERROR_CODE_TIMEOUT)
	advance(beat*3/2 - 10*time.Millisecond)
	if n := e.Conns(); n != 1 {
		t.Fatalf("%d connections a moment before the deadline", n)
	}
	advance(200 * time.Millisecond)
	lively.fault(proto.ErrorCode_ERROR_CODE_TIMEOUT)
}
