package conn

import (
	"context"
	"crypto/tls"
	"errors"
	"net"
	"runtime"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Between Accept and the Welcome a Handler may take its time (it signs
// tokens). What the client has pipelined is not answered before: the Welcome
// comes first, whether the edge or the Handler answers.
func TestWelcomeComesFirst(t *testing.T) {
	for _, mode := range []Mode{Plain, TLS} {
		t.Run(mode.String(), func(t *testing.T) {
			accepted := make(chan *Conn, 1)
			h := &echo{onHello: func(c *Conn, f *proto.Frame) bool {
				c.Accept(0)
				accepted <- c
				return true
			}}
			e := start(t, h, func(o *Options) {
				quick(func(l *Limits) { l.MaxInFlight = 2 })(o)
				if mode == TLS {
					withTLS(t, nil)(o)
				}
			})
			c := e.dial()
			if mode == TLS {
				c = e.dialTLS(&clientTLS)
			}
			b := proto.AppendHeartbeat(framed(t, hello(1)))
			for id := range uint64(4) { // the first takes a credit beside Hello, the others are refused
				b = append(b, framed(t, request(id+2))...)
			}
			c.write(b)
			sc := <-accepted
			for range 3 { // let the loop look at what there is
				done := make(chan struct{})
				sc.loop.post(func() {
					defer close(done)
					sc.cork()
					sc.loop.flush(sc)
				})
				<-done
			}
			_ = sc.Reply(1, &proto.Frame{Body: &proto.Frame_Welcome{Welcome: &proto.Welcome{}}})
			if f := c.frame(); f.GetWelcome() == nil {
				t.Fatalf("%v came before the Welcome", f)
			}
			sc.Resume()
			for answers := 0; answers < 4; {
				if f := c.frame(); f != nil {
					answers++
				}
			}
		})
	}
}

// A Handler whose client has gone while it was looking up a password accepts
// a connection that is closed. It must not be counted as logged in for ever.
func TestAcceptAfterClose(t *testing.T) {
	h := &echo{onHello: func(*Conn, *proto.Frame) bool { return true }}
	e := start(t, h, quick(nil))
	const n = 20
	for i := range n {
		c := e.dial()
		c.send(hello(1))
		eventually(t, "Hello", func() bool { return h.conn(i) != nil })
		_ = c.Close()
	}
	eventually(t, "all closed", func() bool { return e.Conns() == 0 })
	for i := range n {
		h.welcome(h.conn(i), hello(1))
		h.conn(i).Resume()
	}
	if got := e.metric("logged_in", ""); got != 0 {
		t.Errorf("%v logged in, and nobody is connected", got)
	}
}

// The two sides of the same race: Accept beside the close. Whatever comes
// first, nobody is left over.
func TestAcceptBesideClose(t *testing.T) {
	h := &echo{onHello: func(*Conn, *proto.Frame) bool { return true }}
	e := start(t, h, quick(nil))
	for i := range 300 {
		c := e.dial()
		c.send(hello(1))
		eventually(t, "Hello", func() bool { return h.conn(i) != nil })
		go c.Close()
		for range i % 40 {
			runtime.Gosched()
		}
		h.welcome(h.conn(i), hello(1))
	}
	eventually(t, "all closed", func() bool { return e.Conns() == 0 })
	if got := e.metric("logged_in", ""); got != 0 {
		t.Errorf("%v logged in, and nobody is connected", got)
	}
}

// LoginBytes is a promise to the client as well: so much may follow the
// Hello at once, also right behind a TLS handshake.
func TestPipelineBehindHandshake(t *testing.T) {
	h := &echo{}
	e := start(t, h, withTLS(t, nil))
	pipeline := framed(t, hello(1))
	requests := 0
	for filler := make([]byte, 700); len(pipeline) < 15<<10; requests++ {
		f := &proto.Frame{Id: uint64(requests + 2), Body: &proto.Frame_Send{Send: &proto.SendRequest{SendId: filler}}}
		pipeline = append(pipeline, framed(t, f)...)
	}
	for range 10 {
		c := e.dial()
		// The client's Finished and everything behind it leave in one piece, as
		// they do on a network.
		held := &holding{Conn: c.Conn}
		secured := tls.Client(held, &clientTLS)
		if err := secured.Handshake(); err != nil {
			t.Fatal(err)
		}
		if _, err := secured.Write(pipeline); err != nil {
			t.Fatal(err)
		}
		if _, err := c.Conn.Write(held.out); err != nil {
			t.Fatal(err)
		}
		c.Conn = secured
		if f := c.frame(); f.GetWelcome() == nil {
			t.Fatalf("got %v", f)
		}
		for range requests {
			if f := c.frame(); f.GetOk() == nil {
				t.Fatalf("got %v", f)
			}
		}
		_ = c.Close()
	}
	eventually(t, "all closed", func() bool { return e.Conns() == 0 })
	if n := e.metric("closed_total", ReasonLoginBytes.String()); n != 0 {
		t.Errorf("%v closed for %v", n, ReasonLoginBytes)
	}
}

// holding is a connection that keeps what is written after the first answer.
type holding struct {
	net.Conn
	answered bool
	out      []byte
}

func (h *holding) Read(p []byte) (int, error) {
	n, err := h.Conn.Read(p)
	h.answered = h.answered || n > 0
	return n, err
}

func (h *holding) Write(p []byte) (int, error) {
	if h.answered {
		h.out = append(h.out, p...)
		return len(p), nil
	}
	return h.Conn.Write(p)
}

// A panic in what follows a handshake costs the connection at once: it is not
// left to a deadline.
func TestPanicBehindHandshake(t *testing.T) {
	e := start(t, &echo{}, func(o *Options) {
		quick(nil)(o)
		withTLS(t, nil)(o)
		o.Now = func() time.Time {
			var pcs [8]uintptr
			frames := runtime.CallersFrames(pcs[:runtime.Callers(2, pcs[:])])
			for {
				f, more := frames.Next()
				if strings.HasSuffix(f.Function, ").shaken") {
					panic("clock")
				}
				if !more {
					return time.Now()
				}
			}
		}
	})
	c := e.dial()
	_ = c.SetDeadline(time.Now().Add(5 * time.Second))
	_ = tls.Client(c.Conn, &clientTLS).Handshake()
	c.end()
	e.closedFor(ReasonPanic)
}

// Drain in the middle of logins: who has not said Hello is told DRAINING, who
// is waiting for the Welcome gets it, and then the GoAway.
func TestDrainDuringLogin(t *testing.T) {
	h := &echo{onHello: func(*Conn, *proto.Frame) bool { return true }}
	e := start(t, h, quick(nil))
	silent, waiting := e.dial(), e.dial()
	waiting.send(hello(1))
	eventually(t, "both", func() bool { return e.Conns() == 2 && h.conn(0) != nil })
	drained := make(chan error, 1)
	go func() { drained <- e.Drain(t.Context(), time.Second) }()
	silent.fault(proto.ErrorCode_ERROR_CODE_DRAINING)
	h.welcome(h.conn(0), hello(1))
	if f := waiting.frame(); f.GetWelcome() == nil {
		t.Fatalf("got %v", f)
	}
	if f := waiting.frame(); f.GetGoAway() == nil {
		t.Fatalf("got %v", f)
	}
	_ = waiting.Close()
	if err := <-drained; err != nil {
		t.Error(err)
	}
}

// Who was welcomed when Drain had begun, and had not looked for everybody yet,
// is not told twice.
func TestDrainTellsOnce(t *testing.T) {
	h := &echo{onHello: func(*Conn, *proto.Frame) bool { return true }}
	e := start(t, h, quick(nil))
	c := e.dial()
	c.send(hello(1))
	eventually(t, "its Hello", func() bool { return h.conn(0) != nil })
	e.drain.Store(&draining{goAway: framed(t, &proto.Frame{Body: &proto.Frame_GoAway{GoAway: &proto.GoAway{}}})})
	h.welcome(h.conn(0), hello(1))
	if f := c.frame(); f.GetWelcome() == nil {
		t.Fatalf("got %v", f)
	}
	if f := c.frame(); f.GetGoAway() == nil {
		t.Fatalf("got %v", f)
	}
	over, cancel := context.WithCancel(t.Context())
	cancel()
	if err := e.Drain(over, time.Second); !errors.Is(err, context.Canceled) {
		t.Error(err)
	}
	if f := c.frame(); f.GetError().GetCode() != proto.ErrorCode_ERROR_CODE_DRAINING {
		t.Errorf("got %v", f)
	}
}
