package conn

import (
	"crypto/tls"
	"fmt"
	"net"
	"sync"
)

// handshakeRoom is what a client's side of a handshake may take, beside the
// Limits.LoginBytes that may follow at once.
const handshakeRoom = 16 << 10

// handshake is a TLS handshake on its way. It runs on a goroutine of its own,
// because signing takes longer than a loop may be kept. As many compute at a time
// as there are loops; one that waits for the client computes nothing and
// lets the next one go on.
type handshake struct {
	srv *Server
	c   *Conn
	out []byte // goroutine only: records not given to the loop yet

	mu      sync.Mutex
	more    sync.Cond
	in      []byte // whole records from the client
	total   int    // bytes that have come in
	aborted bool   // the connection is gone
}

// handshakeBytes is given buf[:n], whole records, while c shakes hands; it
// returns how many bytes it took.
func (l *loop) handshakeBytes(c *Conn, buf []byte, n int) int {
	t, most := c.tls, l.srv.limits.Load().LoginBytes+handshakeRoom
	if len(buf) > most {
		l.kill(c, ReasonLoginBytes)
		return 0
	}
	if t.hs != nil {
		if !t.hs.add(buf[:n], most) {
			l.kill(c, ReasonLoginBytes)
		}
		return n
	}
	whole, err := wholeHello(buf[:n])
	if err != nil {
		l.kill(c, ReasonTLS)
		return 0
	}
	if !whole {
		return 0
	}
	if int(l.srv.shaking.Add(1)) > l.srv.limits.Load().Handshakes {
		l.srv.shaking.Add(-1)
		l.kill(c, ReasonHandshakesFull)
		return 0
	}
	h := &handshake{srv: l.srv, c: c, in: append([]byte(nil), buf[:n]...), total: n}
	h.more.L = &h.mu
	t.hs, t.out = h, &h.out
	t.conn = tls.Server(t, l.srv.tlsConfig.Load())
	l.srv.handshakes.Add(1)
	go h.run(t)
	return n
}

func (h *handshake) run(t *tlsState) {
	defer h.srv.handshakes.Done()
	h.srv.compute <- struct{}{}
	err := h.shake(t.conn)
	<-h.srv.compute
	h.srv.shaking.Add(-1)
	l, last := h.c.loop, h.out
	h.out = nil
	// In one go: a client that is told why it is refused may be gone before the
	// loop comes to know, and would count as one that left by itself.
	l.post(func() {
		l.guard(h.c, func(c *Conn) {
			if len(last) > 0 && !c.gone {
				l.writeRaw(c, last)
			}
			l.shaken(c, err)
		})
	})
}

func (h *handshake) shake(conn *tls.Conn) (err error) {
	defer func() {
		if p := recover(); p != nil { // such as in a GetCertificate
			h.srv.panicked(p, nil)
			err = fmt.Errorf("conn: panic in the TLS handshake: %v", p)
		}
	}()
	return conn.Handshake()
}

// flush gives what crypto/tls has written to the loop. A client that does not
// even take a handshake runs into its deadline.
func (h *handshake) flush() {
	if len(h.out) == 0 {
		return
	}
	b, c := h.out, h.c
	h.out = nil
	c.loop.post(func() {
		if !c.gone {
			c.loop.writeRaw(c, b)
		}
	})
}

// wait moves new records to t, when there are some.
func (h *handshake) wait(t *tlsState) error {
	if h.take(t, false) {
		return nil
	}
	h.flush()
	<-h.srv.compute
	ok := h.take(t, true)
	h.srv.compute <- struct{}{}
	if !ok {
		return net.ErrClosed
	}
	return nil
}

func (h *handshake) take(t *tlsState, block bool) bool {
	h.mu.Lock()
	defer h.mu.Unlock()
	for block && len(h.in) == 0 && !h.aborted {
		h.more.Wait()
	}
	t.in, h.in = h.in, nil
	return len(t.in) > 0 && !h.aborted
}

// add is called by the loop; false: too many bytes.
func (h *handshake) add(b []byte, most int) bool {
	h.mu.Lock()
	h.in = append(h.in, b...)
	h.total += len(b)
	ok := h.total <= most
	h.mu.Unlock()
	h.more.Signal()
	return ok
}

// rest returns the records that the handshake has not read. It has ended.
func (h *handshake) rest(t *tlsState) []byte {
	h.mu.Lock()
	defer h.mu.Unlock()
	return append(t.in[:len(t.in):len(t.in)], h.in...)
}

// abort ends a handshake that is waiting, when the connection is gone.
func (t *tlsState) abort() {
	if t.plain != nil {
		t.plain = nil
	}
	if h := t.hs; h != nil {
		h.mu.Lock()
		h.aborted = true
		h.mu.Unlock()
		h.more.Signal()
	}
}
