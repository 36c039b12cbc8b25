package conn

import (
	"net/netip"
	"testing"
)

// proxyHeader is a PROXY v2 header for a TCP connection from client.
func proxyHeader(client string, tlvs int) []byte {
	b := append([]byte(proxySignature), 0x21)
	a := netip.MustParseAddr(client)
	if a.Is4() {
		b = append(b, 0x11, byte((12+tlvs)>>8), byte(12+tlvs))
		b = append(b, a.AsSlice()...)
		b = append(b, 10, 0, 0, 1)
	} else {
		b = append(b, 0x21, byte((36+tlvs)>>8), byte(36+tlvs))
		b = append(b, a.AsSlice()...)
		b = append(b, make([]byte, 16)...)
	}
	b = append(b, 0x30, 0x39, 0x13, 0xec)
	return append(b, make([]byte, tlvs)...)
}

var proxyLocal = append([]byte(proxySignature), 0x20, 0, 0, 0)

func withProxy(trusted string, change func(*Limits)) func(*Options) {
	return func(o *Options) {
		quick(change)(o)
		o.Listeners = []Listener{{Addr: "127.0.0.1:0", Mode: Proxy, Trusted: []netip.Prefix{netip.MustParsePrefix(trusted)}}}
	}
}

func TestProxy(t *testing.T) {
	for _, test := range []struct {
		name   string
		header []byte
		ip     string
	}{
		{"v4", proxyHeader("203.0.113.9", 0), "203.0.113.9"},
		{"v6", proxyHeader("2001:db8::9", 0), "2001:db8::9"},
		{"mapped", proxyHeader("::ffff:203.0.113.9", 0), "203.0.113.9"},
		{"tlvs", proxyHeader("203.0.113.9", 200), "203.0.113.9"},
		{"local", proxyLocal, "127.0.0.1"},
		{"unspec", append([]byte(proxySignature), 0x21, 0, 0, 0), "127.0.0.1"},
		{"loopback", proxyHeader("127.0.0.1", 0), "127.0.0.1"},
	} {
		t.Run(test.name, func(t *testing.T) {
			h := &echo{}
			e := start(t, h, withProxy("127.0.0.0/8", nil))
			c := e.dial()
			c.write(append(test.header, framed(t, hello(1))...))
			if f := c.frame(); f.GetWelcome() == nil {
				t.Fatalf("got %v", f)
			}
			if got := h.conn(0).RemoteIP().String(); got != test.ip {
				t.Errorf("RemoteIP %s, want %s", got, test.ip)
			}
			if h.conn(0).Exempt() {
				t.Error("exempt behind a proxy")
			}
		})
	}
}

func TestProxyByteByByte(t *testing.T) {
	e := start(t, &echo{}, withProxy("127.0.0.0/8", nil))
	c := e.dial()
	for _, b := range append(proxyHeader("203.0.113.9", 5), framed(t, hello(1))...) {
		c.write([]byte{b})
	}
	if f := c.frame(); f.GetWelcome() == nil {
		t.Fatalf("got %v", f)
	}
}

func TestProxyRefuses(t *testing.T) {
	udp := proxyHeader("203.0.113.9", 0)
	udp[13] = 0x12
	for _, test := range []struct {
		name    string
		trusted string
		bytes   []byte
		reason  Reason
	}{
		{"untrusted", "10.0.0.0/8", nil, ReasonProxyUntrusted},
		{"no header", "127.0.0.0/8", framed(t, hello(1)), ReasonProxyHeader},
		{"version 1", "127.0.0.0/8", []byte("PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\n"), ReasonProxyHeader},
		{"udp", "127.0.0.0/8", udp, ReasonProxyHeader},
		{"too long", "127.0.0.0/8", append([]byte(proxySignature), 0x21, 0x11, 0xff, 0xff), ReasonProxyHeader},
		{"too short", "127.0.0.0/8", append([]byte(proxySignature), 0x21, 0x11, 0, 4, 1, 2, 3, 4), ReasonProxyHeader},
	} {
		t.Run(test.name, func(t *testing.T) {
			e := start(t, &echo{}, withProxy(test.trusted, nil))
			c := e.dial()
			_, _ = c.Write(test.bytes)
			c.end()
			e.closedFor(test.reason)
		})
	}
	t.Run("half a header", func(t *testing.T) {
		e := start(t, &echo{}, withProxy("127.0.0.0/8", func(l *Limits) { l.Login = short }))
		c := e.dial()
		c.write(proxyLocal[:7])
		c.end()
		e.closedFor(ReasonLogin)
	})
}

// The limits hold for the client's address, not the proxy's; IPv6 counts by
// /64.
func TestProxyPerIP(t *testing.T) {
	e := start(t, &echo{}, withProxy("127.0.0.0/8", func(l *Limits) { l.PerIPLive = 1 }))
	login := func(ip string) *client {
		c := e.dial()
		c.write(append(proxyHeader(ip, 0), framed(t, hello(1))...))
		return c
	}
	for _, ip := range []string{"203.0.113.1", "203.0.113.2", "2001:db8:0:1::1", "2001:db8:0:2::1"} {
		if f := login(ip).frame(); f.GetWelcome() == nil {
			t.Fatalf("%s: got %v", ip, f)
		}
	}
	for _, ip := range []string{"203.0.113.1", "2001:db8:0:1:ffff::9"} {
		login(ip).end()
	}
	eventually(t, "two turned away", func() bool { return e.metric("closed_total", "per_ip_live") == 2 })
}

func FuzzProxy(f *testing.F) {
	f.Add(proxyHeader("203.0.113.9", 3))
	f.Add(proxyHeader("2001:db8::9", 0))
	f.Add(proxyLocal)
	f.Fuzz(func(t *testing.T, b []byte) {
		addr, n, err := parseProxy(b)
		if n > len(b) || err != nil && n != 0 {
			t.Fatalf("n %d of %d, %v", n, len(b), err)
		}
		if n == 0 {
			return
		}
		// Every shorter prefix asks for more and gives the same in the end.
		for i := range n {
			if _, m, err := parseProxy(b[:i]); m != 0 || err != nil {
				t.Fatalf("prefix of %d: %d, %v", i, m, err)
			}
		}
		if again, m, err := parseProxy(b[:n]); again != addr || m != n || err != nil {
			t.Fatal("the bytes behind a header matter")
		}
	})
}

func TestGuard(t *testing.T) {
	lim := &Limits{PerIPRate: 2, PerIPLive: 3}
	g := guard{peers: map[uint64]peer{}}
	a := netip.MustParseAddr("203.0.113.1")
	for i, test := range []struct {
		at   stamp
		want Reason
	}{
		{0, ReasonUnknown}, {0, ReasonUnknown}, {0, ReasonPerIPRate},
		{1000, ReasonUnknown}, {2000, ReasonPerIPLive},
	} {
		if got := g.enter(a, test.at, lim); got != test.want {
			t.Errorf("%d: %v, want %v", i, got, test.want)
		}
	}
	for range 3 {
		g.leave(a)
	}
	g.sweep(10_000, lim)
	if len(g.peers) != 0 {
		t.Errorf("%d addresses are remembered", len(g.peers))
	}
	// However many addresses come, the table is bounded.
	for i := range 2 * maxPeers {
		ip := netip.AddrFrom4([4]byte{1, byte(i >> 16), byte(i >> 8), byte(i)})
		if g.enter(ip, 20_000, lim) == ReasonUnknown {
			g.leave(ip)
		}
	}
	if len(g.peers) > maxPeers {
		t.Errorf("%d addresses are remembered, at most %d may be", len(g.peers), maxPeers)
	}
}
