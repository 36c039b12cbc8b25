package conn

import (
	"crypto/tls"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// What a request of the stress test asks the Handler to do: its ConvSeq.
const (
	doAnswer = iota
	doLater  // answer from another goroutine
	doPark   // park, answer and resume from another goroutine
	doSpray  // some events, then the answer
	doTwice  // park, and resume several times from several goroutines
	doTame   // below, a client may count on an answer
	doPanic  = iota - 1
	doClose
	doForget // no answer: the credit stays taken
	doEnd
)

// unruly is a Handler that does what its clients ask for, and looks whether
// the edge keeps its promises to a Handler.
type unruly struct {
	t       *testing.T
	async   sync.WaitGroup
	helloed atomic.Int64
	closed  atomic.Int64
}

// watch is the Data of a connection.
type watch struct{ inside, over atomic.Bool }

func (h *unruly) enter(c *Conn) func() {
	w := c.Data().(*watch)
	if w.inside.Swap(true) {
		h.t.Error("two calls at a time for one connection")
	}
	if w.over.Load() {
		h.t.Error("a call after Closed")
	}
	return func() { w.inside.Store(false) }
}

func (h *unruly) later(f func()) {
	h.async.Go(func() {
		for range rand.IntN(20) {
			runtime.Gosched()
		}
		f()
	})
}

func (h *unruly) Hello(c *Conn, f *proto.Frame) bool {
	h.helloed.Add(1)
	c.SetData(new(watch))
	defer h.enter(c)()
	welcome := func() {
		c.Accept(0)
		_ = c.Reply(f.GetId(), &proto.Frame{Body: &proto.Frame_Welcome{Welcome: &proto.Welcome{}}})
	}
	if rand.IntN(2) == 0 {
		welcome()
		return false
	}
	h.later(func() { welcome(); c.Resume() })
	return true
}

func (h *unruly) Serve(c *Conn, f *proto.Frame) bool {
	defer h.enter(c)()
	id := f.GetId()
	if id == 0 {
		return false
	}
	switch f.GetMarkRead().GetConvSeq() {
	case doLater:
		h.later(func() { _ = c.Reply(id, ok()) })
	case doPark:
		h.later(func() { _ = c.Reply(id, ok()); c.Resume() })
		return true
	case doSpray:
		event := framed(h.t, &proto.Frame{Body: &proto.Frame_CaughtUp{CaughtUp: &proto.CaughtUp{Seq: 1}}})
		for range 50 {
			_ = c.SendBytes(event)
		}
		_ = c.Reply(id, ok())
	case doTwice:
		h.later(c.Resume)
		h.later(func() { _ = c.Reply(id, ok()); c.Resume() })
		return true
	case doPanic:
		panic("asked for")
	case doClose:
		c.Close(ReasonKicked, proto.Errorf(proto.ErrorCode_ERROR_CODE_KICKED, ""))
	case doForget:
	default:
		_ = c.Reply(id, ok())
	}
	return false
}

func (h *unruly) Refuse(c *Conn, f *proto.Frame, code proto.ErrorCode) {
	if c.Data().(*watch).over.Load() {
		h.t.Error("Refuse after Closed")
	}
	if f.GetId() != 0 {
		c.Fail(f.GetId(), proto.Errorf(code, ""))
	}
}

func (h *unruly) Closed(c *Conn, _ Reason) {
	w := c.Data().(*watch)
	if w.inside.Load() {
		h.t.Error("Closed before the last call has returned")
	}
	if w.over.Swap(true) {
		h.t.Error("Closed twice")
	}
	h.closed.Add(1)
}

// tame pipelines what gets an answer, and counts the answers.
func tame(t *testing.T, nc net.Conn, inFlight int) {
	c := &client{Conn: nc, t: t}
	b := framed(t, hello(1))
	sent, answers := 0, -1 // the Welcome is one too
	for round := range 20 {
		for range 1 + rand.IntN(inFlight-1) {
			sent++
			f := request(uint64(sent + 1))
			f.GetMarkRead().ConvSeq = rand.Uint64N(doTame)
			b = append(b, framed(t, f)...)
		}
		if round > 0 && rand.IntN(2) == 0 {
			b = proto.AppendHeartbeat(b)
		}
		for len(b) > 0 {
			n := 1 + rand.IntN(len(b))
			if _, err := nc.Write(b[:n]); err != nil {
				t.Errorf("tame client: %v", err)
				return
			}
			b = b[n:]
		}
		for answers < sent {
			f, err := c.next()
			if err != nil {
				t.Errorf("tame client: %v with %d of %d answers", err, answers, sent)
				return
			}
			if f.GetError() != nil {
				t.Errorf("tame client: %v", f)
				return
			}
			if f.GetId() != 0 {
				answers++
			}
		}
	}
}

// wild does anything, and ends in any way.
func wild(t *testing.T, nc net.Conn) {
	b := framed(t, hello(1))
	for i := range rand.Uint64N(60) {
		f := request(i + 2)
		f.GetMarkRead().ConvSeq = rand.Uint64N(doEnd)
		b = append(b, framed(t, f)...)
	}
	if rand.IntN(4) == 0 {
		b[rand.IntN(len(b))] ^= 1 << rand.IntN(8)
	}
	_ = nc.SetDeadline(time.Now().Add(200 * time.Millisecond))
	_, _ = nc.Write(b[:rand.IntN(len(b)+1)])
	switch rand.IntN(4) {
	case 0:
		if raw, ok := nc.(*net.TCPConn); ok {
			_ = raw.SetLinger(0) // a reset
		}
	case 1:
		_, _ = io.CopyN(io.Discard, nc, rand.Int64N(2000))
	case 2:
		_ = nc.SetDeadline(time.Now().Add(30 * time.Millisecond))
		_, _ = io.Copy(io.Discard, nc)
	}
}

// Everything at once: tame clients get all their answers, the Handler is
// called as promised, and nothing is left over.
func TestStress(t *testing.T) {
	for _, procs := range []int{1, 2, 4} {
		t.Run("", func(t *testing.T) {
			defer runtime.GOMAXPROCS(runtime.GOMAXPROCS(procs))
			stress(t, 90)
		})
	}
}

func stress(t *testing.T, clients int) {
	const inFlight = 8
	h := &unruly{t: t}
	limits := Limits{
		MaxInFlight: inFlight, FrameRate: 100_000, PerIPRate: 100_000, OutboxBytes: 2 * (64<<10 + 4),
		CloseGrace: 50 * time.Millisecond, PartialFrame: 10 * time.Second, Exempt: []netip.Prefix{},
	}
	e := start(t, &echo{}, func(o *Options) {
		withTLS(t, nil)(o)
		o.Listeners = append(o.Listeners, Listener{Addr: "127.0.0.1:0"},
			Listener{Addr: "127.0.0.1:0", Mode: Proxy, Trusted: []netip.Prefix{netip.MustParsePrefix("127.0.0.0/8")}})
		o.Handler, o.Limits = h, limits
	})
	var all, beside sync.WaitGroup
	stop := make(chan struct{})
	beside.Go(func() {
		for {
			select {
			case <-stop:
				return
			case <-time.After(2 * time.Millisecond):
			}
			e.Each(func(c *Conn) {
				c.Buffered()
				c.Resume() // nobody has asked for it
				_ = c.Send(&proto.Frame{Body: &proto.Frame_CaughtUp{CaughtUp: &proto.CaughtUp{Seq: 2}}})
			})
			if err := e.Reload(nil, limits); err != nil {
				t.Error(err)
			}
		}
	})
	gate := make(chan struct{}, 40)
	for i := range clients {
		gate <- struct{}{}
		all.Go(func() {
			defer func() { <-gate }()
			nc, err := net.Dial("tcp", e.Addrs()[i%3].String())
			if err != nil {
				t.Error(err)
				return
			}
			defer nc.Close()
			_ = nc.SetDeadline(time.Now().Add(30 * time.Second))
			switch i % 3 {
			case 0:
				secured := tls.Client(nc, &clientTLS)
				if err := secured.Handshake(); err != nil {
					t.Errorf("handshake: %v", err)
					return
				}
				nc = secured
			case 2:
				_, _ = nc.Write(proxyHeader(netip.AddrFrom4([4]byte{10, 0, byte(i >> 8), byte(i)}).String(), 0))
			}
			if i%2 == 0 {
				tame(t, nc, inFlight)
			} else {
				wild(t, nc)
			}
		})
	}
	all.Wait()
	close(stop)
	beside.Wait()
	h.async.Wait()
	eventually(t, "all gone", func() bool { return e.Conns() == 0 })
	eventually(t, "every Closed", func() bool { return h.closed.Load() == h.helloed.Load() })
	for _, gauge := range []string{"logged_in", "outbox_bytes", "handshakes_pending", "open"} {
		if n := e.metric(gauge, ""); n != 0 {
			t.Errorf("%s: %v left", gauge, n)
		}
	}
	e.guard.mu.Lock()
	for key, p := range e.guard.peers {
		if p.live != 0 {
			t.Errorf("peer %x: %d live", key, p.live)
		}
	}
	e.guard.mu.Unlock()
}
