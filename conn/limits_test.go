package conn

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

const (
	short = 60 * time.Millisecond
	long  = time.Minute
)

// quick has every deadline far away: each test brings its own near.
func quick(change func(*Limits)) func(*Options) {
	return func(o *Options) {
		o.Limits = Limits{FirstByte: long, Login: long, PartialFrame: long, MinHeartbeat: long, MaxHeartbeat: 2 * long, CloseGrace: time.Second}
		if change != nil {
			change(&o.Limits)
		}
	}
}

// nobody is exempt: rates hold for loopback too.
func nobody(l *Limits) { l.Exempt = []netip.Prefix{} }

func TestDeadlines(t *testing.T) {
	for _, test := range []struct {
		name   string
		change func(*Limits)
		attack func(*client)
		reason Reason
	}{
		{"no first byte", func(l *Limits) { l.FirstByte = short }, func(*client) {}, ReasonFirstByte},
		{"no hello", func(l *Limits) { l.Login = short }, func(c *client) { c.write([]byte{0}) }, ReasonLogin},
		{"half a hello", func(l *Limits) { l.Login = short }, func(c *client) { c.write(framed(c.t, hello(1))[:5]) }, ReasonLogin},
		{"half a frame", func(l *Limits) { l.PartialFrame = short }, func(c *client) {
			c.login()
			c.write(framed(c.t, request(9))[:6])
		}, ReasonPartialFrame},
		{"a byte of a frame", func(l *Limits) { l.PartialFrame = short }, func(c *client) {
			c.login()
			c.write([]byte{0})
		}, ReasonPartialFrame},
		{"no heartbeat", func(l *Limits) { l.MinHeartbeat, l.MaxHeartbeat = short, short }, func(c *client) { c.login() }, ReasonIdle},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := start(t, &echo{}, quick(test.change))
			c := e.dial()
			test.attack(c)
			began := time.Now()
			c.fault(proto.ErrorCode_ERROR_CODE_TIMEOUT)
			if took := time.Since(began); took < short/2 || took > 20*short {
				t.Errorf("closed after %v", took)
			}
			e.closedFor(test.reason)
		})
	}
}

// A frame that comes byte by byte does not move its own deadline.
func TestDribble(t *testing.T) {
	e := start(t, &echo{}, quick(func(l *Limits) { l.PartialFrame = 3 * short }))
	c := e.dial().login()
	stop := make(chan struct{})
	var feeding sync.WaitGroup
	feeding.Go(func() {
		_, _ = c.Write([]byte{0, 0, 100, 0})
		for {
			select {
			case <-stop:
				return
			case <-time.After(5 * time.Millisecond):
				if _, err := c.Write([]byte{1}); err != nil {
					return
				}
			}
		}
	})
	c.fault(proto.ErrorCode_ERROR_CODE_TIMEOUT)
	close(stop)
	feeding.Wait()
	e.closedFor(ReasonPartialFrame)
}

// Heartbeats, and they alone, keep a connection open.
func TestHeartbeatKeeps(t *testing.T) {
	e := start(t, &echo{}, quick(func(l *Limits) { l.MinHeartbeat, l.MaxHeartbeat = short, short }))
	c := e.dial().login()
	for began := time.Now(); time.Since(began) < 6*short; {
		c.write([]byte{0, 0, 0, 0})
		if f, err := c.next(); f != nil || err != nil {
			t.Fatalf("got %v, %v", f, err)
		}
		time.Sleep(short / 3)
	}
	c.fault(proto.ErrorCode_ERROR_CODE_TIMEOUT)
}

func TestBadInput(t *testing.T) {
	for _, test := range []struct {
		name   string
		login  bool
		bytes  []byte
		code   proto.ErrorCode
		reason Reason
	}{
		{"too large before login", false, []byte{0, 0, 0x10, 1}, proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, ReasonFrameTooLarge},
		{"too large after login", true, []byte{0, 1, 0, 1}, proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, ReasonFrameTooLarge},
		{"huge", true, []byte{0xff, 0xff, 0xff, 0xff}, proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, ReasonFrameTooLarge},
		{"http", false, []byte("GET / HTTP/1.1\r\n\r\n"), proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, ReasonFrameTooLarge},
		{"garbage before login", false, []byte{0, 0, 0, 3, 0xff, 0xff, 0xff}, proto.ErrorCode_ERROR_CODE_BAD_FRAME, ReasonBadFrame},
		{"garbage after login", true, []byte{0, 0, 0, 3, 0xff, 0xff, 0xff}, proto.ErrorCode_ERROR_CODE_BAD_FRAME, ReasonBadFrame},
		{"heartbeat before login", false, []byte{0, 0, 0, 0}, proto.ErrorCode_ERROR_CODE_HELLO_EXPECTED, ReasonHelloExpected},
		{"request before login", false, framed(t, request(1)), proto.ErrorCode_ERROR_CODE_HELLO_EXPECTED, ReasonHelloExpected},
		{"second hello", true, framed(t, hello(2)), proto.ErrorCode_ERROR_CODE_HELLO_REPEATED, ReasonHelloRepeated},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := &echo{}
			e := start(t, h, quick(nil))
			c := e.dial()
			if test.login {
				c.login()
			}
			c.write(test.bytes)
			c.fault(test.code)
			e.closedFor(test.reason)
			if n := h.served.Load(); n != 0 {
				t.Errorf("%d frames were served", n)
			}
		})
	}
}

// Before Accept nothing behind the Hello is read, and no more is kept than
// LoginBytes.
func TestLoginBytes(t *testing.T) {
	h := &echo{onHello: func(*Conn, *proto.Frame) bool { return true }}
	e := start(t, h, quick(nil))
	c := e.dial()
	c.send(hello(1), request(2), request(3))
	eventually(t, "Hello", func() bool { return h.conn(0) != nil })
	if h.served.Load() != 0 {
		t.Fatal("a request was served before Accept")
	}
	h.welcome(h.conn(0), hello(1))
	h.conn(0).Resume()
	for _, id := range []uint64{1, 2, 3} {
		if f := c.frame(); f.GetId() != id {
			t.Fatalf("got %v, want %d", f, id)
		}
	}

	c = e.dial()
	c.send(hello(1))
	c.write(make([]byte, 17<<10))
	c.fault(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	e.closedFor(ReasonLoginBytes)
}

func TestRateLimit(t *testing.T) {
	h := &echo{}
	e := start(t, h, quick(func(l *Limits) { nobody(l); l.FrameRate, l.FrameBurst = 20, 10 }))
	c := e.dial().login()
	var b []byte
	for id := range uint64(50) {
		b = append(b, framed(t, request(id+2))...)
	}
	c.write(b)
	limited := 0
	for range 50 {
		if f := c.frame(); f.GetError().GetCode() == proto.ErrorCode_ERROR_CODE_RATE_LIMITED && f.GetId() != 0 {
			limited++
		}
	}
	if limited < 35 || limited > 40 {
		t.Errorf("%d of 50 refused, with a burst of 10", limited)
	}
	// Slowing down is enough.
	time.Sleep(200 * time.Millisecond)
	c.send(request(99))
	if f := c.frame(); f.GetOk() == nil {
		t.Errorf("got %v", f)
	}
	// Ten times as much is not.
	for id := range uint64(150) {
		b = append(b, framed(t, request(id+100))...)
	}
	c.write(b)
	c.fault(proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
	e.closedFor(ReasonRateLimited)
	if n := e.metric("refused_total", "RATE_LIMITED"); n < 80 {
		t.Errorf("%v refused by the metric", n)
	}
}

// Heartbeats count, and cost nothing when there are too many.
func TestHeartbeatFlood(t *testing.T) {
	e := start(t, &echo{}, quick(func(l *Limits) { nobody(l); l.FrameRate, l.FrameBurst = 10, 10 }))
	c := e.dial().login()
	c.write(make([]byte, 4*2000))
	c.fault(proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
	e.closedFor(ReasonRateLimited)
	if e.metric("dropped_total", "heartbeat") < 50 {
		t.Error("heartbeats were not dropped")
	}
}

// A client with all its requests open is refused, and closed if it goes on.
func TestCredits(t *testing.T) {
	const credits = 8
	var open []uint64
	var mu sync.Mutex
	h := &echo{onServe: func(c *Conn, f *proto.Frame) bool {
		mu.Lock()
		open = append(open, f.GetId())
		mu.Unlock()
		return false
	}}
	e := start(t, h, quick(func(l *Limits) { l.MaxInFlight = credits }))
	c := e.dial().login()
	send := func(from, n int) {
		var b []byte
		for i := range n {
			b = append(b, framed(t, request(uint64(from+i)))...)
		}
		c.write(b)
	}
	send(10, credits+3)
	for i := range 3 {
		f := c.frame()
		if f.GetError().GetCode() != proto.ErrorCode_ERROR_CODE_BUSY || f.GetId() != uint64(10+credits+i) {
			t.Fatalf("got %v", f)
		}
	}
	var held []uint64
	eventually(t, "the requests", func() bool {
		mu.Lock()
		defer mu.Unlock()
		held = append(held[:0], open...)
		return len(held) == credits
	})
	for _, id := range held {
		_ = h.conn(0).Reply(id, ok())
		if f := c.frame(); f.GetOk() == nil || f.GetId() != id {
			t.Fatalf("got %v, want Ok %d", f, id)
		}
	}
	// The credits are back, and refused ones have not taken any.
	send(100, credits)
	eventually(t, "the requests", func() bool { return h.served.Load() == 2*credits })
	send(1000, floodFactor*credits+10)
	c.fault(proto.ErrorCode_ERROR_CODE_BUSY)
	e.closedFor(ReasonBusy)
}

// One-way frames have no credit, and no more room than twice the requests.
func TestOneWayFlood(t *testing.T) {
	release := make(chan struct{})
	h := &echo{onServe: func(c *Conn, f *proto.Frame) bool { <-release; return false }}
	e := start(t, h, quick(func(l *Limits) { l.MaxInFlight = 8 }))
	c := e.dial().login()
	ack := framed(t, &proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: 1}}})
	c.write(bytes.Repeat(ack, 40))
	eventually(t, "refusals", func() bool { return e.metric("refused_total", "BUSY") >= 40-16-2 })
	close(release)
	eventually(t, "the rest served", func() bool { return h.served.Load() >= 16 })
}

// A client that does not read is closed, with bounded memory.
func TestSlowReader(t *testing.T) {
	for _, mode := range []Mode{Plain, TLS} {
		t.Run(mode.String(), func(t *testing.T) {
			h := &echo{}
			e := start(t, h, func(o *Options) {
				if mode == TLS {
					withTLS(t, nil)(o)
				}
				o.Limits.OutboxBytes, o.Limits.CloseGrace = 192<<10, 100*time.Millisecond
			})
			var c *client
			if mode == TLS {
				c = e.dialTLS(&clientTLS)
			} else {
				c = e.dial()
			}
			c.login()
			event := framed(t, &proto.Frame{Body: &proto.Frame_Events{Events: &proto.EventBatch{
				Events: []*proto.Event{{Seq: 1, Conversation: make([]byte, 10_000)}},
			}}})
			sc := h.conn(0)
			most := 0
			for range 100_000 {
				err := sc.SendBytes(event)
				most = max(most, sc.Buffered())
				if errors.Is(err, ErrClosed) {
					break
				}
			}
			e.closedFor(ReasonSlowConsumer)
			if limit := e.limits.Load().OutboxBytes + len(event); most > limit {
				t.Errorf("%d bytes were buffered, the cap is %d", most, limit)
			}
			eventually(t, "nothing is left in outboxes", func() bool { return e.metric("outbox_bytes", "") == 0 })
		})
	}
}

// Output that does not move at all is given up, however little it is.
func TestStalled(t *testing.T) {
	h := &echo{}
	e := start(t, h, quick(func(l *Limits) { l.OutboxStall = 5 * short; l.OutboxBytes = 64 << 20 }))
	c := e.dial().login()
	event := make([]byte, 32<<10)
	copy(event, []byte{0, 0, 0x7f, 0xfc})
	sc := h.conn(0)
	eventually(t, "the kernel takes no more", func() bool {
		err := sc.SendBytes(event)
		return sc.Buffered() > 1<<20 || errors.Is(err, ErrClosed)
	})
	e.closedFor(ReasonStalled)
	_ = c
}

// While the client does not read its answers, its requests are not served.
func TestServingPauses(t *testing.T) {
	big := &proto.Frame{Body: &proto.Frame_Profiles_{Profiles_: &proto.Profiles{
		Profiles: []*proto.Profile{{Name: string(bytes.Repeat([]byte("x"), 50_000))}},
	}}}
	h := &echo{}
	h.onServe = func(c *Conn, f *proto.Frame) bool {
		_ = c.SendBytes(framed(t, &proto.Frame{Id: f.GetId(), Body: big.Body}))
		c.release()
		return false
	}
	e := start(t, h, quick(func(l *Limits) { l.MaxInFlight = 1000; l.OutboxBytes = 256 << 10 }))
	c := e.dial().login()
	const n = 400 // 20 MB of answers
	var b []byte
	for i := range uint64(n) {
		b = append(b, framed(t, request(i+2))...)
	}
	c.write(b)
	eventually(t, "the server pauses", func() bool {
		return h.conn(0).Buffered() > 128<<10 && h.served.Load() < n
	})
	for i := range uint64(n) {
		if f := c.frame(); f.GetId() != i+2 {
			t.Fatalf("got %d, want %d", f.GetId(), i+2)
		}
	}
}

func TestPerIPLive(t *testing.T) {
	e := start(t, &echo{}, quick(func(l *Limits) { nobody(l); l.PerIPLive = 3; l.PerIPRate = 1000 }))
	cs := []*client{e.dial().login(), e.dial().login(), e.dial().login()}
	e.dial().end()
	e.closedFor(ReasonPerIPLive)
	_ = cs[0].Close()
	eventually(t, "room", func() bool { return e.Conns() == 2 })
	e.dial().login()
}

func TestPerIPRate(t *testing.T) {
	e := start(t, &echo{}, quick(func(l *Limits) { nobody(l); l.PerIPRate = 5 }))
	for range 5 {
		e.dial().login()
	}
	e.dial().end()
	e.closedFor(ReasonPerIPRate)
	time.Sleep(300 * time.Millisecond)
	e.dial().login()
}

func TestMaxConns(t *testing.T) {
	e := start(t, &echo{}, quick(func(l *Limits) { l.MaxConns = 4 }))
	for range 4 {
		e.dial().login()
	}
	for range 20 {
		e.dial().end()
	}
	if n := e.metric("closed_total", "max_conns"); n != 20 {
		t.Errorf("%v turned away", n)
	}
	if n := e.Conns(); n != 4 {
		t.Errorf("%d connections", n)
	}
}

// Descriptors of the process run short: connections are turned away, and the
// engine lives.
func TestMaxFiles(t *testing.T) {
	e := start(t, &echo{}, quick(func(l *Limits) { l.MaxFiles = 120 }))
	var cs []net.Conn
	for range 150 {
		nc, err := net.Dial("tcp", e.Addrs()[0].String())
		if err != nil {
			t.Fatal(err)
		}
		cs = append(cs, nc)
	}
	e.closedFor(ReasonMaxConns)
	for _, nc := range cs {
		_ = nc.Close()
	}
	eventually(t, "all gone", func() bool { return e.Conns() == 0 })
	e.dial().login()
}

// Frames pipelined and cut anywhere come out whole and in order.
func TestSplits(t *testing.T) {
	var mu sync.Mutex
	var got []uint64
	h := &echo{onServe: func(c *Conn, f *proto.Frame) bool {
		mu.Lock()
		got = append(got, f.GetId())
		mu.Unlock()
		_ = c.Reply(f.GetId(), ok())
		return false
	}}
	e := start(t, h, quick(func(l *Limits) { l.MaxInFlight, l.MailboxBytes = 5000, 64<<20 }))
	c := e.dial().login()
	const n = 2000
	rnd := rand.New(rand.NewPCG(1, 2))
	var b []byte
	for i := range uint64(n) {
		f := request(i + 2)
		f.GetMarkRead().Conversation = make([]byte, rnd.IntN(300))
		if i%100 == 0 {
			f.GetMarkRead().Conversation = make([]byte, 60_000)
		}
		b = append(b, framed(t, f)...)
	}
	var writing sync.WaitGroup
	writing.Go(func() {
		for len(b) > 0 {
			k := min(1+rnd.IntN(4000), len(b))
			if rnd.IntN(4) == 0 {
				k = min(1+rnd.IntN(8), len(b))
			}
			if _, err := c.Write(b[:k]); err != nil {
				return
			}
			b = b[k:]
		}
	})
	for i := range uint64(n) {
		if f := c.frame(); f.GetId() != i+2 || f.GetOk() == nil {
			t.Fatalf("got %v, want Ok %d", f, i+2)
		}
	}
	writing.Wait()
	mu.Lock()
	defer mu.Unlock()
	for i, id := range got {
		if id != uint64(i)+2 {
			t.Fatalf("frame %d served at place %d", id, i)
		}
	}
}

// The Error arrives although the client keeps sending: no reset.
func TestErrorArrives(t *testing.T) {
	for range 20 {
		e := start(t, &echo{}, quick(nil))
		c := e.dial().login()
		go func() {
			for range 50 {
				if _, err := c.Write(make([]byte, 4096)); err != nil {
					return
				}
			}
		}()
		c.send(hello(2))
		f, err := c.next()
		for err == nil && f.GetError() == nil {
			f, err = c.next()
		}
		if err != nil {
			t.Fatalf("connection ended without an Error: %v", err)
		}
		_, _ = io.Copy(io.Discard, c)
		_ = c.Close()
		_ = e.Close()
	}
}
