package conn

import (
	"crypto/tls"
	"io"
	"net"
	"testing"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// stuffed is a gnet connection whose socket takes nothing any more.
type stuffed struct {
	gnet.Conn
	held []byte
}

func (s *stuffed) Write(p []byte) (int, error) {
	s.held = append(s.held, p...)
	return len(p), nil
}

func (s *stuffed) OutboundBuffered() int { return len(s.held) }

// The last thing a TLS client is told may find the kernel's buffer full. The
// FIN waits for it, or the client would take the end for an attack, and gnet
// would run into a closed socket and reset the connection.
func TestFinWaitsForCloseNotify(t *testing.T) {
	h := &echo{}
	e := start(t, h, withTLS(t, nil))
	c := e.dialTLS(&clientTLS).login()
	sc := h.conn(0)
	full := &stuffed{}
	done := make(chan struct{})
	sc.loop.post(func() {
		defer close(done)
		full.Conn, sc.gc = sc.gc, full
		sc.Close(ReasonKicked, nil)
		sc.loop.flush(sc)
		sc.loop.turn()
	})
	<-done
	finSent := func() bool {
		state := make(chan bool)
		sc.loop.post(func() {
			info, err := unix.GetsockoptTCPInfo(full.Fd(), unix.IPPROTO_TCP, unix.TCP_INFO)
			state <- err != nil || info.State != 1 // TCP_ESTABLISHED
		})
		return <-state
	}
	if len(full.held) == 0 {
		t.Fatal("no close_notify")
	}
	if finSent() {
		t.Fatal("the FIN went ahead of the close_notify")
	}
	sc.loop.post(func() { // there is room again
		held := full.held
		full.held = nil
		_, _ = full.Conn.Write(held)
		sc.gc = full.Conn
	})
	if _, err := c.Conn.(*tls.Conn).Read(make([]byte, 1)); err != io.EOF {
		t.Errorf("the client sees %v", err)
	}
	_ = c.Conn.(*tls.Conn).NetConn().(*net.TCPConn).Close()
	e.closedFor(ReasonKicked)
}
