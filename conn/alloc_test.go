//go:build !race

package conn

import (
	"crypto/tls"
	"runtime"
	"testing"
	"unsafe"
)

// Hot paths do not allocate, and an idle connection is small.

// idleConn is a Conn of a server that does not run: its loop is never woken.
func idleConn(t testing.TB) *Conn {
	t.Helper()
	s := &Server{opts: Options{Now: nil}.withDefaults()}
	s.limits.Store(&s.opts.Limits)
	m, err := newMetrics(s)
	if err != nil {
		t.Fatal(err)
	}
	s.metrics = m
	return &Conn{loop: &loop{srv: s, dead: true}, slot: -1}
}

func TestSendDoesNotAllocate(t *testing.T) {
	c := idleConn(t)
	c.cork()
	f := request(1)
	encoded := framed(t, f)
	for name, send := range map[string]func(){
		"Send":      func() { _ = c.Send(f) },
		"SendBytes": func() { _ = c.SendBytes(encoded) },
		"heartbeat": func() { c.heartbeatBack() },
	} {
		c.mu.Lock()
		c.outLocked().b = make([]byte, 0, 64<<10) // an existing outbox
		c.mu.Unlock()
		if n := testing.AllocsPerRun(500, send); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestReadDoesNotAllocate(t *testing.T) {
	lim := testLimits()
	s := session{phase: phaseLive}
	b := append(framed(t, request(1)), framed(t, request(2))...)
	now := stamp(0)
	if n := testing.AllocsPerRun(500, func() {
		now += 1000
		a := s.read(b, now, lim)
		a = s.read(b[a.size:], now, lim)
		if a.step != stepFrame {
			t.Fatalf("%+v", a)
		}
		s.read(b[:3], now, lim)
	}); n != 0 {
		t.Errorf("next frame: %v allocations", n)
	}
}

func TestConnIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(Conn{}); size > 192 { // a size class of the allocator
		t.Errorf("a Conn takes %d bytes", size)
	} else {
		t.Logf("a Conn takes %d bytes, its session %d", size, unsafe.Sizeof(session{}))
	}
}

// gnet keeps no address of a client: fails when a release of it has moved them.
func TestGnetKeepsNoAddress(t *testing.T) {
	h := &echo{}
	e := start(t, h, nil)
	e.dial().login()
	c := h.conn(0)
	done := make(chan struct{})
	c.loop.post(func() {
		defer close(done)
		if !c.loop.gnet.ok {
			t.Error("gnet's connection has changed: see gnetPeek")
		}
		if c.gc.RemoteAddr() != nil {
			t.Error("gnet still knows the client's address")
		}
	})
	<-done
	if !c.RemoteIP().IsLoopback() {
		t.Errorf("we do not: %v", c.RemoteIP())
	}
}

// An idle TLS connection keeps none of crypto/tls's buffers: fails when a Go
// release has moved them.
func TestTLSKeepsNothing(t *testing.T) {
	if !newTLSPeek().ok {
		t.Fatal("crypto/tls.Conn has changed: see tlsPeek")
	}
	h := &echo{}
	e := start(t, h, withTLS(t, nil))
	const n = 100
	config := clientTLS.Clone()
	var clients []*tls.Conn
	for range n {
		c := e.dialTLS(config).login()
		clients = append(clients, c.Conn.(*tls.Conn))
	}
	for i := range n {
		done := make(chan struct{})
		c := h.conn(i)
		c.loop.post(func() {
			defer close(done)
			for _, offset := range []uintptr{e.peek.rawInput, e.peek.hand} {
				if b := at(c.tls.conn, offset); b.Cap() != 0 {
					t.Errorf("crypto/tls keeps %d bytes", b.Cap())
				}
			}
			if c.tls.plain != nil || c.tls.in != nil || c.tls.hs != nil {
				t.Error("the handshake has left something behind")
			}
		})
		<-done
	}
	runtime.KeepAlive(clients)
}
