package conn

import (
	"encoding/binary"
	"errors"
	"net/netip"

	"github.com/hermod-im/hermod/proto"
)

// proxyMax bounds a PROXY header: addresses take 36 bytes, the rest are TLVs
// that nobody here reads.
const proxyMax = 2 << 10

const proxySignature = "\r\n\r\n\x00\r\nQUIT\n"

var errProxyHeader = errors.New("conn: not a PROXY v2 header for a TCP connection")

// parseProxy reads a PROXY v2 header at the front of buf. n is its length, 0 if
// more bytes are needed. client is not valid where the header leaves the
// connection as it is (LOCAL, which health checks use, and UNSPEC).
func parseProxy(buf []byte) (client netip.Addr, n int, err error) {
	if k := min(len(buf), len(proxySignature)); string(buf[:k]) != proxySignature[:k] {
		return netip.Addr{}, 0, errProxyHeader
	}
	if len(buf) < 16 {
		return netip.Addr{}, 0, nil
	}
	version, command, family := buf[12]>>4, buf[12]&15, buf[13]
	size := int(binary.BigEndian.Uint16(buf[14:]))
	if version != 2 || command > 1 || size > proxyMax {
		return netip.Addr{}, 0, errProxyHeader
	}
	if len(buf) < 16+size {
		return netip.Addr{}, 0, nil
	}
	body := buf[16 : 16+size]
	switch {
	case command == 0 || family == 0:
	case family == 0x11 && size >= 12: // TCP over IPv4
		client = netip.AddrFrom4([4]byte(body))
	case family == 0x21 && size >= 36: // TCP over IPv6
		client = netip.AddrFrom16([16]byte(body)).Unmap()
	default:
		return netip.Addr{}, 0, errProxyHeader
	}
	return client, 16 + size, nil
}

// proxy reads the header; behind it the stream is plain.
func (l *loop) proxy(c *Conn) {
	buf, err := c.gc.Peek(0)
	if err != nil {
		l.kill(c, ReasonIOError)
		return
	}
	client, n, err := parseProxy(buf)
	if err != nil {
		l.kill(c, ReasonProxyHeader)
		return
	}
	if n == 0 {
		return
	}
	l.took(c, n)
	if client.IsValid() {
		c.addr = client.As16()
	}
	if reason := l.srv.enter(c, l.srv.clock(), l.srv.limits.Load()); reason != ReasonUnknown {
		l.kill(c, reason)
		return
	}
	l.begin(c)
}

// begin is where frames begin: at once, behind a PROXY header, or behind a TLS
// handshake. A draining server says so, as if it had read the Hello.
func (l *loop) begin(c *Conn) {
	c.s.phase = phaseHello
	if l.srv.drain.Load() != nil {
		c.Close(ReasonDraining, proto.Errorf(proto.ErrorCode_ERROR_CODE_DRAINING, ""))
	}
}
