package client

import (
	"context"
	"errors"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func goAway(window time.Duration) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_GoAway{GoAway: &proto.GoAway{
		Reason: proto.GoAwayReason_GO_AWAY_REASON_DRAINING, WindowMs: uint32(window / time.Millisecond)}}}
}

func TestDelay(t *testing.T) {
	c := &Client{opts: Options{BackoffBase: time.Second, BackoffMax: 30 * time.Second}}
	lost := wrap(ErrDisconnected, io.EOF)
	for _, tc := range []struct {
		name     string
		failures int
		err      *Error
		min, max time.Duration
	}{
		{"first", 0, lost, 0, time.Second},
		{"third", 2, lost, 0, 4 * time.Second},
		{"capped", 7, lost, 0, 30 * time.Second},
		{"no overflow", 1000, lost, 0, 30 * time.Second},
		{"hint", 0, fromWire(fault(proto.ErrorCode_ERROR_CODE_OVERLOADED).WithRetry(8 * time.Second).Wire()), 8 * time.Second, 10 * time.Second},
		{"hint of a year", 0, fromWire(fault(proto.ErrorCode_ERROR_CODE_OVERLOADED).WithRetry(9000 * time.Hour).Wire()), maxRetryAfter, maxRetryAfter * 5 / 4},
	} {
		var sum time.Duration
		const n = 400
		for range n {
			d := c.delay(&tally{failures: tc.failures}, tc.err)
			if d < tc.min || d > tc.max {
				t.Fatalf("%s: %v is not in %v … %v", tc.name, d, tc.min, tc.max)
			}
			sum += d
		}
		if mean, want := sum/n, (tc.min+tc.max)/2; (mean - want).Abs() > (tc.max-tc.min)/8 {
			t.Errorf("%s: mean %v, want %v: not full jitter", tc.name, mean, want)
		}
	}
	var y tally
	bug := fromWire(fault(proto.ErrorCode_ERROR_CODE_BAD_FRAME).Wire())
	for i := range maxBugs + 1 {
		if d := c.delay(&y, bug); (d >= bugDelay) != (i == maxBugs) {
			t.Fatalf("attempt %d after a bug waits for %v", i, d)
		}
	}
}

func TestRetryAfterIsObeyed(t *testing.T) {
	for _, atHello := range []bool{true, false} {
		srv, a := newServer(t), &app{}
		o := a.options(srv.addr())
		o.Store, o.Credentials = resumed(0), Credentials{}
		c := start(t, o)
		e := fault(proto.ErrorCode_ERROR_CODE_OVERLOADED).WithRetry(100 * time.Millisecond)
		if atHello {
			p := srv.accept()
			id, _ := p.hello()
			p.send(wireError(id, e))
		} else {
			p, _ := srv.login()
			p.send(wireError(0, e))
		}
		at := time.Now()
		eventually(t, "waiting", func() bool { return c.State().Phase == Waiting })
		s := c.State()
		wantKind(t, s.Err, ErrOverloaded)
		if d := s.RetryAt.Sub(at); d < 80*time.Millisecond || d > patience/2 {
			t.Fatalf("retry at %v", d)
		}
		srv.login()
		if d := time.Since(at); d < 100*time.Millisecond {
			t.Fatalf("back after %v", d)
		}
	}
}

func TestGoAway(t *testing.T) {
	old, next := newServer(t), newServer(t)
	a := &app{}
	// Which of the two is first is chance.
	o := a.options(old.addr(), next.addr())
	o.Store, o.Credentials, o.StableAfter = resumed(0), Credentials{}, time.Millisecond
	o.BackoffBase, o.BackoffMax = time.Hour, time.Hour
	c := start(t, o)
	eventually(t, "connecting", func() bool { return c.State().Endpoint != "" })
	if c.State().Endpoint == next.addr() {
		old, next = next, old
	}
	p, _ := old.login()
	var r results
	r.send(t, c, User(friend), "open")
	f := p.sends(1)
	at := time.Now()
	p.send(goAway(100 * time.Millisecond))
	eventually(t, "leaving", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.link != nil && c.link.leaving })
	r.send(t, c, User(friend), "later") // waits for the next connection
	p.send(ack(f[0].GetId(), 1))
	p.gone()
	if d := time.Since(at); d > leaveGrace {
		t.Fatalf("left after %v", d)
	}
	r.wait(t, "open")
	p, _ = next.login() // without a wait
	f = p.sends(1)
	wantTexts(t, f, "later")
}

// A server that sends everybody away at once is backed off from.
func TestGoAwayAtOnceIsNotFollowedAtOnce(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	o.BackoffBase, o.BackoffMax = time.Hour, time.Hour
	c := start(t, o)
	p, _ := srv.login()
	p.send(goAway(0))
	p.gone()
	eventually(t, "waiting", func() bool { return c.State().Phase == Waiting })
}

func TestTerminalCodes(t *testing.T) {
	for _, code := range []proto.ErrorCode{
		proto.ErrorCode_ERROR_CODE_KICKED, proto.ErrorCode_ERROR_CODE_REPLACED, proto.ErrorCode_ERROR_CODE_REVOKED,
		proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION,
	} {
		srv, a := newServer(t), &app{}
		o := a.options(srv.addr())
		o.Store, o.Credentials = resumed(0), Credentials{}
		c := start(t, o)
		p, _ := srv.login()
		var r results
		r.send(t, c, User(friend), "lost")
		p.send(wireError(0, fault(code)))
		p.gone()
		<-c.Done()
		wantKind(t, c.Err(), Kind(code))
		r.wait(t, "lost")
		wantKind(t, r.errs["lost"], ErrClosed)
		wantKind(t, r.errs["lost"], Kind(code))
		wantKind(t, c.WaitOnline(ctxFor(t)), Kind(code))
		_, err := c.ListDevices(ctxFor(t))
		wantKind(t, err, ErrClosed)
		srv.nobody(30 * time.Millisecond)
		c.Close()
		last := a.states[len(a.states)-1]
		if last.Phase != Closed {
			t.Fatal(a.states)
		}
		wantKind(t, last.Err, Kind(code))
		srv.ln.Close()
	}
}

func TestStatesAreTold(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	c := start(t, o)
	p, _ := srv.login()
	p.close()
	srv.login()
	eventually(t, "online twice", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.states) == 5 })
	c.Close()
	want := []Phase{Connecting, Online, Waiting, Connecting, Online, Closed}
	for i, s := range a.states {
		if s.Phase != want[i] || s.Endpoint != srv.addr() || s.RetryAt.IsZero() == (s.Phase == Waiting) {
			t.Fatalf("%d: %+v", i, s)
		}
	}
	wantKind(t, a.states[2].Err, ErrDisconnected)
	wantKind(t, a.states[5].Err, ErrClosed)
}

func TestEndpointsAreRotated(t *testing.T) {
	dead, alive := newServer(t), newServer(t)
	dead.ln.Close()
	for range 5 { // the first one is chance
		o := (&app{}).options(dead.addr(), alive.addr())
		o.Store, o.Credentials = resumed(0), Credentials{}
		c := start(t, o)
		p, _ := alive.login()
		if err := c.WaitOnline(ctxFor(t)); err != nil {
			t.Fatal(err)
		}
		p.close()
		alive.login()
		c.Close()
	}
}

func TestDrainingPointsToTheOthers(t *testing.T) {
	a, b := newServer(t), newServer(t)
	o := (&app{}).options(a.addr(), b.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	o.BackoffBase, o.BackoffMax = time.Hour, time.Hour
	c := start(t, o)
	eventually(t, "connecting", func() bool { return c.State().Endpoint != "" })
	if c.State().Endpoint == b.addr() {
		a, b = b, a
	}
	for _, s := range []*server{a, b} {
		p := s.accept()
		id, _ := p.hello()
		p.send(wireError(id, fault(proto.ErrorCode_ERROR_CODE_DRAINING)))
	}
	eventually(t, "waiting", func() bool { return c.State().Phase == Waiting }) // all of them drain
}

func short(w *proto.Welcome) { w.Limits.HeartbeatSeconds = 1 }

func TestHeartbeats(t *testing.T) {
	_, c, p := online(t, nil, short)
	for p.beats < 3 {
		before := time.Now()
		if f, err := p.read(); err != nil || f != nil {
			t.Fatal(f, err)
		}
		if d := time.Since(before); d < 800*time.Millisecond || d > 1500*time.Millisecond {
			t.Fatalf("heartbeat after %v", d)
		}
		p.conn.Write(proto.AppendHeartbeat(nil))
	}
	if c.State().Phase != Online {
		t.Fatal(c.State())
	}
}

func TestSilentServerIsLeft(t *testing.T) {
	srv, c, p := online(t, func(o *Options) { o.BackoffBase, o.BackoffMax = time.Hour, time.Hour }, short)
	at := time.Now()
	// What the client itself sends is no sign of life of the server.
	for range 4 {
		c.Typing(User(friend), true)
		time.Sleep(100 * time.Millisecond) // to be quiet on purpose
	}
	p.gone()
	if d := time.Since(at); d < 1400*time.Millisecond || d > patience/2 {
		t.Fatalf("left after %v", d)
	}
	if p.beats == 0 {
		t.Fatal("left without asking")
	}
	eventually(t, "waiting", func() bool { return c.State().Phase == Waiting })
	wantKind(t, c.State().Err, ErrDisconnected)
	c.Reconnect()
	srv.login()
	if err := c.WaitOnline(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
}

func TestServerThatAnswersNothingIsLeft(t *testing.T) {
	_, c, p := online(t, func(o *Options) { o.RequestTimeout = 50 * time.Millisecond })
	var r results
	r.send(t, c, User(friend), "hello")
	p.sends(1)
	p.gone()
}

// The server reads nothing, so that the client's write hangs.
func TestHangingWriteIsLeft(t *testing.T) {
	here, there := net.Pipe()
	defer there.Close()
	first := make(chan net.Conn, 1)
	first <- here
	a := &app{}
	o := a.options("127.0.0.1:1")
	o.Store, o.Credentials, o.WriteTimeout = resumed(0), Credentials{}, 50*time.Millisecond
	o.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case c := <-first:
			return c, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c := start(t, o)
	p := &peer{t: t, conn: there}
	id, _ := p.hello()
	p.send(welcome(id, short))
	if err := c.WaitOnline(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	c.Typing(User(friend), true)
	eventually(t, "left", func() bool { return c.State().Phase != Online })
	wantKind(t, c.State().Err, ErrDisconnected)
}

func TestSlowLoginTimesOut(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.ConnectTimeout = 50 * time.Millisecond
	c := start(t, o)
	p := srv.accept()
	p.hello()
	p.gone()
	eventually(t, "the reason", func() bool { return errors.Is(c.State().Err, ErrDisconnected) })
}

// Close ends the client, whatever it is doing.
func TestCloseAnytime(t *testing.T) {
	for stage := range 4 {
		srv, a := newServer(t), &app{} // the one before may still have a connection to accept
		o := a.options(srv.addr())
		o.Store, o.Credentials = resumed(0), Credentials{}
		o.BackoffBase, o.BackoffMax = time.Hour, time.Hour
		c := start(t, o)
		switch stage {
		case 1: // Hello is sent
			srv.accept().hello()
		case 2: // online, with events and an unanswered request
			p, _ := srv.login()
			p.send(events(1, 10))
			go c.ListDevices(context.Background())
			p.next()
		case 3: // waiting
			p, _ := srv.login()
			p.close()
			eventually(t, "waiting", func() bool { return c.State().Phase == Waiting })
		}
		if err := c.Close(); err != nil {
			t.Fatal(err)
		}
		c.Close() // again
		<-c.Done()
		wantKind(t, c.Err(), ErrClosed)
	}
}
