package conn

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/proto"
)

// echo is the Handler of the tests: it welcomes everybody and answers every
// request with Ok. Its hooks are called where set.
type echo struct {
	heartbeat time.Duration
	onHello   func(c *Conn, f *proto.Frame) bool
	onServe   func(c *Conn, f *proto.Frame) bool

	mu      sync.Mutex
	conns   []*Conn
	refused map[proto.ErrorCode]int
	closed  map[*Conn]Reason
	twice   int // Closed came more than once

	served atomic.Int64
}

func (h *echo) Hello(c *Conn, f *proto.Frame) bool {
	h.mu.Lock()
	h.conns = append(h.conns, c)
	h.mu.Unlock()
	if h.onHello != nil {
		return h.onHello(c, f)
	}
	h.welcome(c, f)
	return false
}

func (h *echo) welcome(c *Conn, f *proto.Frame) {
	beat := c.Accept(h.heartbeat)
	_ = c.Reply(f.GetId(), &proto.Frame{Body: &proto.Frame_Welcome{Welcome: &proto.Welcome{
		Limits: &proto.Limits{HeartbeatSeconds: uint32(beat / time.Second)},
	}}})
}

func (h *echo) Serve(c *Conn, f *proto.Frame) bool {
	h.served.Add(1)
	if h.onServe != nil {
		return h.onServe(c, f)
	}
	if f.GetId() != 0 {
		_ = c.Reply(f.GetId(), ok())
	}
	return false
}

func (h *echo) Refuse(c *Conn, f *proto.Frame, code proto.ErrorCode) {
	h.mu.Lock()
	if h.refused == nil {
		h.refused = make(map[proto.ErrorCode]int)
	}
	h.refused[code]++
	h.mu.Unlock()
	if f.GetId() != 0 {
		c.Fail(f.GetId(), proto.Errorf(code, ""))
	}
}

func (h *echo) Closed(c *Conn, reason Reason) {
	h.mu.Lock()
	defer h.mu.Unlock()
	if h.closed == nil {
		h.closed = make(map[*Conn]Reason)
	}
	if _, again := h.closed[c]; again {
		h.twice++
	}
	h.closed[c] = reason
}

func (h *echo) conn(i int) *Conn {
	h.mu.Lock()
	defer h.mu.Unlock()
	if i >= len(h.conns) {
		return nil
	}
	return h.conns[i]
}

func (h *echo) reasons() (helloed int, rs map[Reason]int) {
	h.mu.Lock()
	defer h.mu.Unlock()
	rs = make(map[Reason]int)
	for _, r := range h.closed {
		rs[r]++
	}
	return len(h.conns), rs
}

func ok() *proto.Frame { return &proto.Frame{Body: &proto.Frame_Ok{Ok: &proto.Ok{}}} }

// edge is a server under test.
type edge struct {
	*Server
	t   *testing.T
	h   *echo
	reg *prometheus.Registry
	log *logBuffer
}

type logBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (l *logBuffer) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.Write(p)
}

func (l *logBuffer) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.b.String()
}

// start runs an edge and, at the end of the test, closes it and looks for
// what it left behind: goroutines, missing and repeated Closed calls.
func start(t *testing.T, h *echo, change func(*Options)) *edge {
	t.Helper()
	before := goleak.IgnoreCurrent()
	e := &edge{t: t, h: h, reg: prometheus.NewRegistry(), log: new(logBuffer)}
	opts := Options{
		Listeners: []Listener{{Addr: "127.0.0.1:0"}},
		Handler:   h, Metrics: e.reg, Log: zerolog.New(e.log), Loops: 2,
	}
	if change != nil {
		change(&opts)
	}
	s, err := Start(opts)
	if err != nil {
		t.Fatalf("Start: %v", err)
	}
	e.Server = s
	t.Cleanup(func() {
		if err := s.Close(); err != nil {
			t.Errorf("Close: %v", err)
		}
		helloed, reasons := h.reasons()
		closed := 0
		for _, n := range reasons {
			closed += n
		}
		if helloed != closed || h.twice != 0 {
			t.Errorf("%d connections were given to Hello, %d to Closed (%d more than once)", helloed, closed, h.twice)
		}
		goleak.VerifyNone(t, before)
		if t.Failed() {
			t.Logf("log:\n%s", e.log)
		}
	})
	return e
}

// eventually waits for cond.
func eventually(t *testing.T, what string, cond func() bool) {
	t.Helper()
	deadline := time.Now().Add(10 * time.Second)
	for !cond() {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
		runtime.Gosched()
		time.Sleep(time.Millisecond)
	}
}

// metric sums the samples of a metric whose labels contain label.
func (e *edge) metric(name, label string) float64 {
	e.t.Helper()
	families, err := e.reg.Gather()
	if err != nil {
		e.t.Fatal(err)
	}
	sum := 0.0
	for _, f := range families {
		if f.GetName() != "hermod_conn_"+name {
			continue
		}
		for _, m := range f.GetMetric() {
			if label == "" || strings.Contains(fmt.Sprint(m.GetLabel()), `"`+label+`"`) {
				sum += m.GetCounter().GetValue() + m.GetGauge().GetValue()
			}
		}
	}
	return sum
}

// closedFor waits until a connection was closed for reason.
func (e *edge) closedFor(reason Reason) {
	e.t.Helper()
	eventually(e.t, "a connection closed for "+reason.String(), func() bool {
		return e.metric("closed_total", reason.String()) > 0
	})
}

// client is a raw client.
type client struct {
	net.Conn
	t   *testing.T
	buf []byte
}

func (e *edge) dial() *client {
	e.t.Helper()
	nc, err := net.Dial("tcp", e.Addrs()[0].String())
	if err != nil {
		e.t.Fatal(err)
	}
	return newClient(e.t, nc)
}

func newClient(t *testing.T, nc net.Conn) *client {
	t.Cleanup(func() { _ = nc.Close() })
	_ = nc.SetDeadline(time.Now().Add(20 * time.Second))
	return &client{Conn: nc, t: t}
}

func framed(t testing.TB, f *proto.Frame) []byte {
	t.Helper()
	b, err := proto.AppendFrame(nil, f)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

func hello(id uint64) *proto.Frame {
	return &proto.Frame{Id: id, Body: &proto.Frame_Hello{Hello: &proto.Hello{MaxVersion: 1}}}
}

func request(id uint64) *proto.Frame {
	return &proto.Frame{Id: id, Body: &proto.Frame_MarkRead{MarkRead: &proto.MarkRead{ConvSeq: id}}}
}

func (c *client) send(fs ...*proto.Frame) {
	c.t.Helper()
	var b []byte
	for _, f := range fs {
		b = append(b, framed(c.t, f)...)
	}
	c.write(b)
}

func (c *client) write(b []byte) {
	c.t.Helper()
	if _, err := c.Write(b); err != nil {
		c.t.Fatalf("write: %v", err)
	}
}

// next reads one frame; nil for a heartbeat.
func (c *client) next() (*proto.Frame, error) {
	for {
		payload, n, err := proto.Next(c.buf, proto.MaxFrameSession)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			c.buf = c.buf[n:]
			if len(payload) == 0 {
				return nil, nil
			}
			f := new(proto.Frame)
			return f, proto.Decode(payload, f)
		}
		chunk := make([]byte, 32<<10)
		if n, err = c.Read(chunk); n == 0 && err != nil {
			return nil, err
		}
		c.buf = append(c.buf, chunk[:n]...)
	}
}

func (c *client) frame() *proto.Frame {
	c.t.Helper()
	f, err := c.next()
	if err != nil {
		c.t.Fatalf("read: %v", err)
	}
	return f
}

// login says hello and reads the welcome.
func (c *client) login() *client {
	c.t.Helper()
	c.send(hello(1))
	if f := c.frame(); f.GetWelcome() == nil || f.GetId() != 1 {
		c.t.Fatalf("got %v for a welcome", f)
	}
	return c
}

// fault reads up to the Error with id 0 and then the end of the connection.
func (c *client) fault(code proto.ErrorCode) {
	c.t.Helper()
	for {
		f, err := c.next()
		if err != nil {
			c.t.Fatalf("connection ended (%v) before %s", err, code.Short())
		}
		if f.GetError() == nil || f.GetId() != 0 {
			continue
		}
		if got := f.GetError().GetCode(); got != code {
			c.t.Fatalf("closed with %s, want %s", got.Short(), code.Short())
		}
		c.end()
		return
	}
}

// end reads to the end of the connection, and closes it.
func (c *client) end() {
	c.t.Helper()
	_, err := io.Copy(io.Discard, c.Conn)
	_ = c.Close()
	var timeout net.Error
	if errors.As(err, &timeout) && timeout.Timeout() {
		c.t.Fatal("the connection was not closed")
	}
}
