package conn

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"time"
)

// ALPN is the protocol name in the TLS handshake. It is required: it keeps a
// TLS connection that was meant for another service from being served here.
const ALPN = "hermod/1"

const (
	recordHeader = 5
	// recordMax is the longest TLS 1.3 record body.
	recordMax = 16<<10 + 256
	// plainMax is the most one record decrypts to.
	plainMax = 16 << 10
)

// hardened is c with what this package insists on.
func hardened(c *tls.Config) *tls.Config {
	c = c.Clone()
	c.MinVersion, c.MaxVersion = tls.VersionTLS13, 0
	c.NextProtos = []string{ALPN}
	choose := c.GetConfigForClient
	c.GetConfigForClient = func(hello *tls.ClientHelloInfo) (*tls.Config, error) {
		if len(hello.SupportedProtos) == 0 { // crypto/tls would let that pass
			return nil, fmt.Errorf("conn: the client offers no ALPN protocol, %q is required", ALPN)
		}
		if choose == nil {
			return nil, nil
		}
		chosen, err := choose(hello)
		if chosen != nil && err == nil {
			chosen = chosen.Clone()
			chosen.MinVersion, chosen.MaxVersion = tls.VersionTLS13, 0
			chosen.NextProtos = []string{ALPN}
			chosen.GetConfigForClient = nil
		}
		return chosen, err
	}
	return c
}

// tlsState is the TLS side of a connection, and the net.Conn that crypto/tls
// reads from and writes to. It is fed whole records only, one Read never
// crosses from one record into the next, and so crypto/tls holds no input between two
// calls. During the handshake it belongs to the handshake's goroutine,
// before and after to the loop.
type tlsState struct {
	conn  *tls.Conn  // nil before the handshake
	hs    *handshake // only during the handshake
	in    []byte     // whole records that crypto/tls may read
	left  int        // of these, bytes of the record that is being read
	out   *[]byte    // where crypto/tls writes to
	plain *buffer    // decrypted bytes of an unfinished frame; nil when none
	need  int        // records: input is not worth looking at below this
}

// errEmpty says that there is no record to read now. Because it is Temporary
// crypto/tls does not remember it as the end.
var errEmpty net.Error = emptyError{}

type emptyError struct{}

func (emptyError) Error() string   { return "conn: no TLS record yet" }
func (emptyError) Timeout() bool   { return true }
func (emptyError) Temporary() bool { return true }

func (t *tlsState) Read(p []byte) (int, error) {
	if len(t.in) == 0 {
		if t.hs == nil {
			return 0, errEmpty
		}
		if err := t.hs.wait(t); err != nil {
			return 0, err
		}
	}
	if t.left == 0 {
		t.left = recordHeader + int(binary.BigEndian.Uint16(t.in[3:]))
	}
	n := copy(p, t.in[:min(t.left, len(t.in))])
	t.in, t.left = t.in[n:], t.left-n
	return n, nil
}

func (t *tlsState) Write(p []byte) (int, error) {
	*t.out = append(*t.out, p...)
	return len(p), nil
}

func (t *tlsState) Close() error                     { return nil }
func (t *tlsState) LocalAddr() net.Addr              { return noAddr{} }
func (t *tlsState) RemoteAddr() net.Addr             { return noAddr{} }
func (t *tlsState) SetDeadline(time.Time) error      { return nil }
func (t *tlsState) SetReadDeadline(time.Time) error  { return nil }
func (t *tlsState) SetWriteDeadline(time.Time) error { return nil }

type noAddr struct{}

func (noAddr) Network() string { return "tcp" }
func (noAddr) String() string  { return "hermod" }

var errRecord = errors.New("conn: not a TLS record")

// wholeRecords returns the length of the whole TLS records at the front of
// buf, and how long buf must be for one more.
func wholeRecords(buf []byte) (n, need int, err error) {
	for {
		rest := buf[n:]
		if len(rest) > 0 && (rest[0] < 20 || rest[0] > 23) || len(rest) > 1 && rest[1] != 3 {
			return n, 0, errRecord
		}
		if len(rest) < recordHeader {
			return n, n + recordHeader, nil
		}
		size := int(binary.BigEndian.Uint16(rest[3:]))
		if size > recordMax {
			return n, 0, errRecord
		}
		if len(rest) < recordHeader+size {
			return n, n + recordHeader + size, nil
		}
		n += recordHeader + size
	}
}

// wholeHello reports whether the records in buf, all whole, hold a whole
// ClientHello. A handshake is begun with no less: crypto/tls remembers a
// temporary error in a handshake for good, and a goroutine per client that
// has sent one byte is what slowloris wants.
func wholeHello(buf []byte) (bool, error) {
	size, have := -1, 0
	var head [4]byte
	for len(buf) > 0 {
		n := int(binary.BigEndian.Uint16(buf[3:]))
		if buf[0] != 22 || n == 0 {
			return false, errRecord
		}
		body := buf[recordHeader : recordHeader+n]
		if have < len(head) {
			copy(head[have:], body)
		}
		if have += n; have >= len(head) {
			size = len(head) + int(binary.BigEndian.Uint32(head[:])&0xffffff)
			if head[0] != 1 || size > 16<<10 {
				return false, errRecord
			}
			if have >= size {
				return true, nil
			}
		}
		buf = buf[recordHeader+n:]
	}
	return false, nil
}

// inboundTLS takes whole records out of gnet's buffer.
func (l *loop) inboundTLS(c *Conn, now stamp) {
	t, have := c.tls, c.gc.InboundBuffered()
	if c.s.phase != phaseTLS && t.plain != nil {
		if l.plaintext(c, nil, now); c.gone {
			return
		}
	}
	if have == 0 || have < t.need {
		return
	}
	buf, err := c.gc.Peek(0)
	if err != nil {
		l.kill(c, ReasonIOError)
		return
	}
	n, need, err := wholeRecords(buf)
	if err != nil && n == 0 {
		l.kill(c, ReasonTLS)
		return
	}
	if c.s.phase == phaseTLS {
		n = l.handshakeBytes(c, buf, n)
	} else if n > 0 {
		l.records(c, buf[:n], now)
	}
	if c.gone {
		return
	}
	t.need = need - n
	if n == have {
		t.need = 0
	} else if c.s.phase == phaseLive {
		c.s.begin(now) // an unfinished record is an unfinished frame
	}
	if n > 0 {
		l.took(c, n)
	}
}

// records decrypts whole records and handles the frames in them.
func (l *loop) records(c *Conn, raw []byte, now stamp) {
	t := c.tls
	if t.plain == nil {
		c.s.unfinished = false
	}
	if l.open == nil {
		l.open = make([]byte, plainMax)
	}
	t.in, t.out, l.wire = raw, &l.wire, l.wire[:0]
	l.srv.peek.lend(t.conn, &l.record)
	var err error
	for err == nil {
		var n int
		if n, err = t.conn.Read(l.open); n > 0 {
			if l.plaintext(c, l.open[:n], now); c.gone {
				return
			}
		}
	}
	l.srv.peek.takeBack(t.conn, &l.record)
	t.in, t.out = nil, nil
	if len(l.wire) > 0 { // an alert, or the answer to a key update
		if l.writeRaw(c, l.wire); c.gone {
			return
		}
	}
	switch {
	case errors.Is(err, errEmpty):
	case errors.Is(err, io.EOF): // close_notify
		l.kill(c, ReasonPeerClosed)
	default:
		l.srv.log.Debug().Err(err).Uint64("conn", c.id).Msg("TLS record")
		l.kill(c, ReasonTLS)
	}
}

// plaintext handles b, behind what was left of the record before, and keeps
// what is left of b.
func (l *loop) plaintext(c *Conn, b []byte, now stamp) {
	t := c.tls
	if t.plain != nil {
		t.plain.b = append(t.plain.b, b...)
		b = t.plain.b
	}
	used := 0
	if c.s.phase == phaseLogin {
		l.loginBytes(c, len(b))
	} else if len(b) >= int(c.s.need) {
		if used = l.consume(c, b, now); c.gone {
			return
		}
		if c.s.phase == phaseLogin {
			l.loginBytes(c, len(b)-used)
		}
	}
	switch {
	case used == len(b) && t.plain != nil:
		l.srv.buffers.put(t.plain)
		t.plain = nil
	case used < len(b) && t.plain == nil:
		t.plain = l.srv.buffers.get()
		t.plain.b = append(t.plain.b, b[used:]...)
	case used > 0 && t.plain != nil:
		t.plain.b = t.plain.b[:copy(b, b[used:])]
	}
}

// writeTLS encrypts b and gives it to gnet.
func (l *loop) writeTLS(c *Conn, b []byte) {
	if c.s.phase < phaseHello {
		l.kill(c, ReasonUnknown)
		return
	}
	t := c.tls
	t.out, l.wire = &l.wire, l.wire[:0]
	_, err := t.conn.Write(b)
	t.out = nil
	if err != nil {
		l.kill(c, ReasonTLS)
		return
	}
	l.writeRaw(c, l.wire)
}

// closeNotify tells the client, once, that nothing was cut off.
func (l *loop) closeNotify(c *Conn) {
	t := c.tls
	t.out, l.wire = &l.wire, l.wire[:0]
	err := t.conn.CloseWrite()
	t.out = nil
	if err == nil && len(l.wire) > 0 {
		l.writeRaw(c, l.wire)
	}
}

// shaken is called on the loop when the handshake's goroutine has ended. What
// the client sent behind its Finished is waiting in hs.
func (l *loop) shaken(c *Conn, err error) {
	if c.gone {
		return
	}
	t := c.tls
	rest := t.hs.rest(t)
	t.hs, t.in, t.left, t.out = nil, nil, 0, nil
	if err != nil {
		l.srv.log.Debug().Err(err).Uint64("conn", c.id).Msg("TLS handshake")
		l.kill(c, ReasonTLS)
		return
	}
	l.srv.metrics.handshakes.Inc()
	l.srv.peek.release(t.conn)
	now := l.srv.clock()
	c.cork()
	l.begin(c)
	if len(rest) > 0 {
		if l.records(c, rest, now); c.gone {
			return
		}
	}
	l.flush(c)
	if !c.gone {
		l.inbound(c)
	}
}

// scratch for crypto/tls: one record, its header, and the room it asks for
// beyond that.
func recordBuffer() []byte { return make([]byte, 0, recordHeader+recordMax+2*bytes.MinRead) }
