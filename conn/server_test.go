package conn

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"

	"github.com/hermod-im/hermod/proto"
)

func TestEcho(t *testing.T) {
	e := start(t, &echo{}, nil)
	c := e.dial().login()
	c.send(request(7), request(8))
	for _, want := range []uint64{7, 8} {
		if f := c.frame(); f.GetId() != want || f.GetOk() == nil {
			t.Fatalf("got %v, want Ok %d", f, want)
		}
	}
	c.write([]byte{0, 0, 0, 0})
	if f := c.frame(); f != nil {
		t.Fatalf("got %v for a heartbeat", f)
	}
	if n := e.Conns(); n != 1 {
		t.Errorf("Conns() = %d", n)
	}
	var each []*Conn
	e.Each(func(c *Conn) { each = append(each, c) })
	if len(each) != 1 || each[0] != e.h.conn(0) {
		t.Errorf("Each gave %d connections", len(each))
	}
	sc := e.h.conn(0)
	if sc.Secure() || !sc.Exempt() || sc.RemoteIP() != netip.MustParseAddr("127.0.0.1") || sc.ID() == 0 {
		t.Errorf("secure %v, exempt %v, ip %v, id %d", sc.Secure(), sc.Exempt(), sc.RemoteIP(), sc.ID())
	}
	sc.SetData("mine")
	if sc.Data() != "mine" {
		t.Error("Data is lost")
	}
	_ = c.Close()
	e.closedFor(ReasonPeerClosed)
	if err := sc.Send(ok()); !errors.Is(err, ErrClosed) {
		t.Errorf("Send after the end: %v", err)
	}
	eventually(t, "counts", func() bool {
		return e.metric("frames_in_total", "") == 4 && e.metric("frames_out_total", "") == 4 &&
			e.metric("read_bytes_total", "") > 0 && e.metric("written_bytes_total", "") > 0 && e.metric("logged_in", "") == 0
	})
}

func TestAcceptBounds(t *testing.T) {
	var got atomic.Pointer[[3]time.Duration]
	h := &echo{onHello: func(c *Conn, f *proto.Frame) bool {
		got.Store(&[3]time.Duration{c.Accept(0), c.Accept(time.Second), c.Accept(time.Hour)})
		_ = c.Reply(f.GetId(), &proto.Frame{Body: &proto.Frame_Welcome{Welcome: &proto.Welcome{}}})
		return false
	}}
	e := start(t, h, nil)
	e.dial().login()
	if *got.Load() != [3]time.Duration{10 * time.Minute, 10 * time.Second, 10 * time.Minute} {
		t.Errorf("heartbeats %v", *got.Load())
	}
	if n := e.metric("logged_in", ""); n != 1 {
		t.Errorf("%v logged in", n)
	}
}

// An Accept in the middle of the loop's work on the connection is not missed.
func TestAcceptWhileCorked(t *testing.T) {
	h := &echo{onHello: func(*Conn, *proto.Frame) bool { return false }}
	e := start(t, h, quick(nil))
	c := e.dial()
	c.send(hello(1), request(2))
	eventually(t, "Hello", func() bool { return h.conn(0) != nil })
	sc := h.conn(0)
	sc.loop.post(func() {
		sc.cork()
		h.welcome(sc, hello(1))
		sc.loop.flush(sc)
	})
	for id := range uint64(2) {
		if f := c.frame(); f.GetId() != id+1 {
			t.Fatalf("got %v, want %d", f, id+1)
		}
	}
}

// A parked connection is not served; others are; Resume may come early.
func TestPark(t *testing.T) {
	var early atomic.Bool
	h := &echo{onServe: func(c *Conn, f *proto.Frame) bool {
		if early.Load() {
			c.Resume()
		}
		_ = c.Reply(f.GetId(), ok())
		return true
	}}
	e := start(t, h, func(o *Options) { o.Workers = 1 })
	a, b := e.dial().login(), e.dial().login()
	a.send(request(1), request(2))
	if f := a.frame(); f.GetId() != 1 {
		t.Fatalf("got %v", f)
	}
	b.send(request(1))
	if f := b.frame(); f.GetId() != 1 {
		t.Fatalf("got %v", f)
	}
	if n := h.served.Load(); n != 2 {
		t.Fatalf("%d served while parked", n)
	}
	h.conn(0).Resume()
	if f := a.frame(); f.GetId() != 2 {
		t.Fatalf("got %v", f)
	}
	early.Store(true)
	h.conn(0).Resume()
	var fs []*proto.Frame
	for id := range uint64(60) {
		fs = append(fs, request(id+3))
	}
	a.send(fs...)
	for id := range uint64(60) {
		if f := a.frame(); f.GetId() != id+3 {
			t.Fatalf("got %v, want %d", f, id+3)
		}
	}
	// Closing a parked connection calls Closed.
	early.Store(false)
	b.send(request(2))
	_ = b.Close()
	eventually(t, "Closed", func() bool { _, rs := h.reasons(); return rs[ReasonPeerClosed] == 1 })
}

func TestPanics(t *testing.T) {
	h := &echo{onServe: func(c *Conn, f *proto.Frame) bool {
		switch f.GetId() {
		case 13:
			panic("thirteen")
		case 14: // inside the edge, with a lock held
			_ = c.Send(&proto.Frame{Body: (*proto.Frame_Ok)(nil)})
		}
		_ = c.Reply(f.GetId(), ok())
		return false
	}}
	e := start(t, h, quick(nil))
	other := e.dial().login()
	c := e.dial().login()
	c.send(request(13), request(15))
	c.fault(proto.ErrorCode_ERROR_CODE_INTERNAL)
	e.closedFor(ReasonPanic)
	other.send(request(14), request(15))
	for {
		f, err := other.next()
		if err != nil || f.GetId() == 15 {
			break // either way the server has survived
		}
	}
	e.dial().login()
	if e.metric("panics_total", "") == 0 || !strings.Contains(e.log.String(), "thirteen") {
		t.Error("the panic was not counted and logged")
	}
}

// Close flushes: what was sent before, then the Error.
func TestCloseFlushes(t *testing.T) {
	h := &echo{onServe: func(c *Conn, f *proto.Frame) bool {
		for range 50 {
			_ = c.Send(request(1))
		}
		_ = c.Reply(f.GetId(), ok())
		c.Close(ReasonKicked, proto.Errorf(proto.ErrorCode_ERROR_CODE_KICKED, ""))
		c.Close(ReasonLogout, nil)
		return false
	}}
	e := start(t, h, quick(nil))
	c := e.dial().login()
	c.send(request(2))
	for range 50 {
		if f := c.frame(); f.GetMarkRead() == nil {
			t.Fatalf("got %v", f)
		}
	}
	if f := c.frame(); f.GetOk() == nil {
		t.Fatalf("got %v", f)
	}
	c.fault(proto.ErrorCode_ERROR_CODE_KICKED)
	e.closedFor(ReasonKicked)
	eventually(t, "Closed", func() bool { _, rs := h.reasons(); return rs[ReasonKicked] == 1 })
}

// A client that does not close its side is cut off after the grace.
func TestCloseGrace(t *testing.T) {
	h := &echo{}
	e := start(t, h, quick(func(l *Limits) { l.CloseGrace = short }))
	c := e.dial().login()
	h.conn(0).Close(ReasonLogout, nil)
	if _, err := c.next(); err == nil {
		t.Fatal("no end")
	}
	e.closedFor(ReasonLogout)
}

func TestSendErrors(t *testing.T) {
	h := &echo{}
	e := start(t, h, quick(nil))
	c := e.dial().login()
	big := request(1)
	big.GetMarkRead().Conversation = make([]byte, 70_000)
	sc := h.conn(0)
	if err := sc.Send(big); err == nil {
		t.Error("a frame over the cap was sent")
	}
	if err := sc.Send(&proto.Frame{}); err == nil {
		t.Error("a frame without a body was sent")
	}
	if err := sc.Reply(5, big); err == nil {
		t.Error("an answer over the cap was sent")
	}
	if f := c.frame(); f.GetId() != 5 || f.GetError().GetCode() != proto.ErrorCode_ERROR_CODE_INTERNAL {
		t.Errorf("got %v for an answer over the cap", f)
	}
}

func TestDrain(t *testing.T) {
	for _, mode := range []Mode{Plain, TLS} {
		t.Run(mode.String(), func(t *testing.T) {
			h := &echo{}
			e := start(t, h, func(o *Options) {
				quick(nil)(o)
				if mode == TLS {
					o.Listeners = nil
					withTLS(t, nil)(o)
				}
			})
			dial := func() *client {
				if mode == TLS {
					return e.dialTLS(&clientTLS)
				}
				return e.dial()
			}
			goes, stays := dial().login(), dial().login()
			ctx, cancel := context.WithCancel(context.Background())
			var drained atomic.Pointer[error]
			var waiting sync.WaitGroup
			waiting.Go(func() {
				err := e.Drain(ctx, 30*time.Second)
				drained.Store(&err)
			})
			for _, c := range []*client{goes, stays} {
				f := c.frame()
				if f.GetGoAway().GetReason() != proto.GoAwayReason_GO_AWAY_REASON_DRAINING || f.GetGoAway().GetWindowMs() != 30_000 {
					t.Fatalf("got %v", f)
				}
			}
			goes.send(request(4)) // still served
			if f := goes.frame(); f.GetOk() == nil {
				t.Fatalf("got %v", f)
			}
			late := e.dial()
			if mode == Plain {
				late.fault(proto.ErrorCode_ERROR_CODE_DRAINING)
			} else {
				late.end() // not worth a handshake
			}
			_ = goes.Close()
			eventually(t, "one left", func() bool { return e.Conns() == 1 })
			if drained.Load() != nil {
				t.Fatal("Drain returned before all were gone")
			}
			cancel()
			stays.fault(proto.ErrorCode_ERROR_CODE_DRAINING)
			waiting.Wait()
			if err := *drained.Load(); !errors.Is(err, context.Canceled) {
				t.Errorf("Drain: %v", err)
			}
			if e.Conns() != 0 {
				t.Errorf("%d connections left", e.Conns())
			}
		})
	}
}

func TestDrainEmpty(t *testing.T) {
	e := start(t, &echo{}, quick(nil))
	c := e.dial().login()
	go func() {
		for {
			f, err := c.next()
			if err != nil || f.GetGoAway() != nil {
				_ = c.Close()
				return
			}
		}
	}()
	if err := e.Drain(context.Background(), time.Second); err != nil {
		t.Errorf("Drain: %v", err)
	}
}

// Two servers in a process do not know of each other, although gnet has
// package variables; neither leaves descriptors behind.
func TestTwoServers(t *testing.T) {
	before := files(t)
	for range 3 {
		a := start(t, &echo{}, quick(nil))
		b := start(t, &echo{}, func(o *Options) {
			quick(nil)(o)
			o.Listeners = append(o.Listeners, Listener{Addr: "127.0.0.1:0"}, Listener{Addr: "localhost:0"})
		})
		if len(b.Addrs()) != 3 {
			t.Fatalf("addresses %v", b.Addrs())
		}
		ca, cb := a.dial().login(), b.dial().login()
		_ = a.Close()
		ca.end()
		cb.send(request(1))
		if f := cb.frame(); f.GetOk() == nil {
			t.Fatalf("got %v", f)
		}
		for _, addr := range b.Addrs() {
			nc, err := net.Dial("tcp", addr.String())
			if err != nil {
				t.Fatal(err)
			}
			newClient(t, nc).login()
			_ = nc.Close()
		}
		_ = cb.Close()
		_ = b.Close()
		if _, reasons := a.h.reasons(); reasons[ReasonShutdown] != 1 {
			t.Errorf("closed for %v", reasons)
		}
	}
	eventually(t, "descriptors are closed", func() bool { return files(t) <= before })
}

func files(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	return len(entries)
}

func TestAddressInUse(t *testing.T) {
	e := start(t, &echo{}, nil)
	addr := e.Addrs()[0].String()
	_, err := Start(Options{Listeners: []Listener{{Addr: addr}}, Handler: &echo{}})
	if err == nil || !strings.Contains(err.Error(), "in use") || !strings.Contains(err.Error(), addr) {
		t.Fatalf("a second server on %s: %v", addr, err)
	}
	c := e.dial().login()
	_ = e.Close()
	// And again at once, while the old connection is in TIME_WAIT.
	again := start(t, &echo{}, func(o *Options) { o.Listeners[0].Addr = addr })
	again.dial().login()
	_ = c.Close()
}

// An engine that ends by itself is noticed.
func TestEngineEnds(t *testing.T) {
	s, err := Start(Options{Listeners: []Listener{{Addr: "127.0.0.1:0"}}, Handler: &echo{}})
	if err != nil {
		t.Fatal(err)
	}
	if s.Err() != nil {
		t.Errorf("Err %v while running", s.Err())
	}
	over, cancel := context.WithCancel(context.Background())
	cancel()
	_ = s.eng.Stop(over)
	<-s.Done()
	if s.Err() == nil {
		t.Error("Err is nil")
	}
	if err := s.Close(); err == nil {
		t.Error("Close does not tell")
	}
}

// A registry can be used by one server after the other, not by two at once.
func TestMetricsRegistry(t *testing.T) {
	reg := prometheus.NewRegistry()
	with := func(o *Options) { o.Metrics = reg }
	a := start(t, &echo{}, with)
	if _, err := Start(Options{Listeners: []Listener{{Addr: "127.0.0.1:0"}}, Handler: &echo{}, Metrics: reg}); err == nil {
		t.Error("two servers share metrics")
	}
	a.reg = reg
	if a.metric("open", "") != 0 {
		t.Error("the first server's metrics are gone")
	}
	_ = a.Close()
	start(t, &echo{}, with)
}

func TestEveryAddress(t *testing.T) {
	e := start(t, &echo{}, func(o *Options) { o.Listeners = []Listener{{Addr: ":0", Insecure: true}} })
	port := e.Addrs()[0].(*net.TCPAddr).Port
	for _, ip := range []string{"127.0.0.1", "::1"} {
		nc, err := net.DialTCP("tcp", nil, &net.TCPAddr{IP: net.ParseIP(ip), Port: port})
		if err != nil {
			if ip == "::1" {
				continue // no IPv6 here
			}
			t.Fatal(err)
		}
		newClient(t, nc).login()
	}
	if got := e.h.conn(0).RemoteIP(); got != netip.MustParseAddr("127.0.0.1") {
		t.Errorf("RemoteIP %v", got)
	}
}

func TestValidate(t *testing.T) {
	base := func() Options {
		return Options{Handler: &echo{}, Listeners: []Listener{{Addr: "127.0.0.1:0"}}}
	}
	if err := base().Validate(); err != nil {
		t.Fatal(err)
	}
	for want, change := range map[string]func(*Options){
		"Handler is missing":  func(o *Options) { o.Handler = nil },
		"Listeners is empty":  func(o *Options) { o.Listeners = nil },
		"plaintext is for":    func(o *Options) { o.Listeners[0].Addr = ":0" },
		"plaintext":           func(o *Options) { o.Listeners[0].Addr = "192.0.2.1:0" },
		"missing port":        func(o *Options) { o.Listeners[0].Addr = "127.0.0.1" },
		"no certificate":      func(o *Options) { o.Listeners[0].Mode = TLS },
		"no trusted networks": func(o *Options) { o.Listeners[0].Mode = Proxy },
		"unknown mode":        func(o *Options) { o.Listeners[0].Mode = 9 },
		"insecure is for plain": func(o *Options) {
			o.Listeners[0] = Listener{Addr: ":0", Mode: Proxy, Insecure: true, Trusted: []netip.Prefix{{}}}
		},
		"Loops":                  func(o *Options) { o.Loops = -1 },
		"Login is":               func(o *Options) { o.Limits.Login = -1 },
		"MaxInFlight is":         func(o *Options) { o.Limits.MaxInFlight = -1 },
		"is over MaxHeartbeat":   func(o *Options) { o.Limits.MinHeartbeat = time.Hour },
		"LoginBytes is":          func(o *Options) { o.Limits.LoginBytes = 10 },
		"MailboxBytes is":        func(o *Options) { o.Limits.MailboxBytes = 10 },
		"OutboxBytes is":         func(o *Options) { o.Limits.OutboxBytes = 10 },
		"MaxConns is -1":         func(o *Options) { o.Limits.MaxConns = -1 },
		"MaxInFlight is 1000000": func(o *Options) { o.Limits.MaxInFlight = 1_000_000 },
	} {
		o := base()
		change(&o)
		err := o.Validate()
		if want == "Loops" {
			want = "-1 loops"
		}
		if err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%q expected, got %v", want, err)
		}
		if _, err2 := Start(o); err2 == nil {
			t.Errorf("%q: Start did not mind", want)
		}
	}
}

func TestReasonNames(t *testing.T) {
	seen := map[string]bool{}
	for r := range numReasons {
		if s := r.String(); s == "" || seen[s] {
			t.Errorf("reason %d is called %q", r, s)
		} else {
			seen[s] = true
		}
	}
	for d := range numDrops {
		if d.String() == "" {
			t.Errorf("drop %d has no name", d)
		}
	}
}
