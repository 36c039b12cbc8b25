package bench

import (
	"context"
	"crypto/tls"
	"fmt"
	"net"
	"net/netip"
	"os"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// dialer opens connections to the server's address, or to several in turn. Over
// loopback it spreads them over several source addresses where one has too few
// ports.
type dialer struct {
	servers []server
	// perSource is how many users share a source address; 0: the system picks.
	perSource int
}

// server is one address, and how TLS is done there; nil: plain.
type server struct {
	addr string
	tls  *tls.Config
}

// spareFiles is what a process needs beside its connections.
const spareFiles = 64

// newDialer checks that conns connections to addr, host:port or several with
// commas between them, can be open at a time.
func newDialer(addr string, tlsConf *tls.Config, conns int) (*dialer, error) {
	d := &dialer{}
	host := ""
	for one := range strings.SplitSeq(addr, ",") {
		h, _, err := net.SplitHostPort(one)
		if err != nil {
			return nil, fmt.Errorf("bench: server address %q: give host:port: %w", one, err)
		}
		d.servers = append(d.servers, server{one, tlsFor(tlsConf, h)})
		host = h
	}
	if err := checkFiles(conns); err != nil {
		return nil, err
	}
	// A fifth of the ports is left to the rest of the machine.
	usable := localPorts() * 4 / 5
	if conns <= usable*len(d.servers) {
		return d, nil
	}
	ip, err := netip.ParseAddr(host)
	if len(d.servers) > 1 || host != "localhost" && (err != nil || !ip.Is4() || !ip.IsLoopback()) {
		return nil, fmt.Errorf("bench: %d connections to %s need more than the %d local ports in net.ipv4.ip_local_port_range: widen it, or run from several machines", conns, addr, usable)
	}
	d.perSource = usable
	return d, nil
}

func tlsFor(c *tls.Config, host string) *tls.Config {
	if c == nil {
		return nil
	}
	c = c.Clone()
	c.MinVersion = tls.VersionTLS13
	c.NextProtos = []string{"hermod/1"}
	if c.ServerName == "" {
		c.ServerName = host
	}
	return c
}

// checkFiles refuses what RLIMIT_NOFILE would refuse later, half-way.
func checkFiles(conns int) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return fmt.Errorf("bench: RLIMIT_NOFILE: %w", err)
	}
	if need := uint64(conns + spareFiles); lim.Cur < need {
		return fmt.Errorf("bench: %d connections need %d open files, and this process may open %d: raise it (ulimit -n %d); the server needs as many", conns, need, lim.Cur, need)
	}
	return nil
}

// localPorts returns how many ports one source address has for outgoing
// connections.
func localPorts() int {
	low, high := 32768, 60999 // Linux' default
	if text, err := os.ReadFile("/proc/sys/net/ipv4/ip_local_port_range"); err == nil {
		var l, h int
		if n, _ := fmt.Sscan(string(text), &l, &h); n == 2 && h > l {
			low, high = l, h
		}
	}
	return high - low + 1
}

// dial opens the connection of user n. Neighbours are on different servers: so
// are the two of a pair.
func (d *dialer) dial(ctx context.Context, n int) (net.Conn, error) {
	to := &d.servers[n%len(d.servers)]
	conn, err := d.raw(ctx, n)
	if err != nil || to.tls == nil {
		return conn, err
	}
	tc := tls.Client(conn, to.tls)
	if err := tc.HandshakeContext(ctx); err != nil {
		conn.Close()
		return nil, err
	}
	return tc, nil
}

// raw is dial without TLS.
func (d *dialer) raw(ctx context.Context, n int) (net.Conn, error) {
	nd := net.Dialer{KeepAlive: -1} // heartbeats do that
	network := "tcp"
	if d.perSource > 0 {
		source := n / d.perSource // 127.0.0.2 and up
		network = "tcp4"
		nd.LocalAddr = &net.TCPAddr{IP: net.IPv4(127, 0, byte((source+2)/250), byte((source+2)%250))}
		nd.Control = lateBind
	}
	return nd.DialContext(ctx, network, d.servers[n%len(d.servers)].addr)
}

// lateBind lets the system choose the port when it knows the destination:
// ports are then scarce per destination only.
func lateBind(_, _ string, c syscall.RawConn) error {
	var opt error
	err := c.Control(func(fd uintptr) {
		opt = unix.SetsockoptInt(int(fd), unix.IPPROTO_IP, unix.IP_BIND_ADDRESS_NO_PORT, 1)
	})
	if err != nil {
		return err
	}
	return opt
}
