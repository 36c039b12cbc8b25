package peer

import (
	"crypto/tls"
	"net"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
)

// fake is the other end of a connection, played by a test.
type fake struct {
	t   testing.TB
	raw net.Conn
	c   *tls.Conn
	rd  *reader
}

// dial connects to a node as whoever id proves, and does TLS.
func dial(t testing.TB, n *node, id Identity) (*fake, error) {
	t.Helper()
	raw, err := net.Dial("tcp", n.links.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(patience))
	c := tls.Client(raw, id.client(n.run.Node))
	return &fake{t, raw, c, newReader(c)}, c.Handshake()
}

// hello sends one and returns the answer.
func (f *fake) hello(h *proto.PeerHello) (*proto.PeerFrame, error) {
	f.t.Helper()
	b, err := appendFirst(nil, &proto.PeerFrame{Hello: h})
	if err != nil {
		f.t.Fatal(err)
	}
	f.write(b)
	return f.rd.first()
}

func (f *fake) write(b []byte) {
	f.t.Helper()
	if _, err := f.c.Write(b); err != nil {
		f.t.Fatal(err)
	}
}

// next returns the next frame; empty: a heartbeat.
func (f *fake) next() ([]byte, error) {
	for {
		payload, ok, err := f.rd.next()
		if ok || err != nil {
			return payload, err
		}
		if err := f.rd.fill(); err != nil {
			return nil, err
		}
	}
}

// listener is a node played by a test: the fleet lists it, and it takes what
// dials.
type listener struct {
	t  testing.TB
	ln net.Listener
	id Identity
}

func (w *town) fake(node, incarnation uint64, id Identity) *listener {
	w.t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		w.t.Fatal(err)
	}
	w.t.Cleanup(func() { _ = ln.Close() })
	w.list(router.Member{Node: node, Incarnation: incarnation, Addr: ln.Addr().String()})
	return &listener{w.t, ln, id}
}

// accept takes one connection and reads its hello.
func (l *listener) accept() (*fake, *proto.PeerHello, error) {
	l.t.Helper()
	_ = l.ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	raw, err := l.ln.Accept()
	if err != nil {
		l.t.Fatal("nobody dials: ", err)
	}
	l.t.Cleanup(func() { _ = raw.Close() })
	_ = raw.SetDeadline(time.Now().Add(patience))
	c := tls.Server(raw, l.id.server())
	f := &fake{l.t, raw, c, newReader(c)}
	if err := c.Handshake(); err != nil {
		return f, nil, err
	}
	first, err := f.rd.first()
	if err != nil {
		return f, nil, err
	}
	return f, first.Hello, nil
}

// greet takes one connection and answers its hello with h.
func (l *listener) greet(h *proto.PeerHello) *fake {
	l.t.Helper()
	f, _, err := l.accept()
	if err != nil {
		l.t.Fatal(err)
	}
	b, err := appendFirst(nil, &proto.PeerFrame{Hello: h})
	if err != nil {
		l.t.Fatal(err)
	}
	f.write(b)
	return f
}

func helloOf(node, incarnation uint64, v versions) *proto.PeerHello {
	return &proto.PeerHello{MinVersion: v.min, MaxVersion: v.max, Node: node, Incarnation: incarnation}
}
