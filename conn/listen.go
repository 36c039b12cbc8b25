package conn

import (
	"errors"
	"fmt"
	"net"
	"strconv"

	"golang.org/x/sys/unix"
)

// bound is a Listener with the address it got.
type bound struct {
	Listener
	addr *net.TCPAddr
}

// gnetAddr is the address as gnet wants it. For every address the host is left
// out: gnet takes "[::]" for IPv6 only.
func (b bound) gnetAddr() string {
	if b.addr.IP.IsUnspecified() && b.addr.IP.To4() == nil {
		return "tcp://:" + strconv.Itoa(b.addr.Port)
	}
	return "tcp://" + b.addr.String()
}

// is reports whether a is this listener's address, as gnet reports it.
func (b bound) is(a *net.TCPAddr) bool {
	return a.Port == b.addr.Port && (a.IP.Equal(b.addr.IP) || len(a.IP) == 0 && b.addr.IP.IsUnspecified())
}

// bind settles the addresses before gnet listens on them. gnet opens one
// socket per loop with SO_REUSEPORT, and that has two consequences. A second
// server on the same port would not fail but silently take half of the
// connections: so each port is first tried without SO_REUSEPORT. And port 0
// would be a different port in each loop: so it is chosen here, and held by a
// socket that is bound and does not listen. release lets go of those, once gnet listens.
func bind(ls []Listener) (bs []bound, release func(), err error) {
	var held []int
	release = func() {
		for _, fd := range held {
			_ = unix.Close(fd)
		}
	}
	for _, l := range ls {
		addr, err := net.ResolveTCPAddr("tcp", l.Addr)
		if err == nil && len(addr.IP) == 0 {
			addr.IP = everyAddress()
		}
		if err == nil && addr.Port != 0 {
			err = probe(addr)
		} else if err == nil {
			var fd int
			if fd, addr.Port, err = hold(addr); err == nil {
				held = append(held, fd)
			}
		}
		if err != nil {
			release()
			return nil, nil, fmt.Errorf("conn: listener %s: %w", l.Addr, err)
		}
		bs = append(bs, bound{l, addr})
	}
	return bs, release, nil
}

// everyAddress is [::], which takes IPv4 too, or 0.0.0.0 on a kernel without
// IPv6.
func everyAddress() net.IP {
	fd, err := unix.Socket(unix.AF_INET6, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return net.IPv4zero
	}
	_ = unix.Close(fd)
	return net.IPv6unspecified
}

// probe fails if somebody listens on addr.
func probe(addr *net.TCPAddr) error {
	ln, err := net.ListenTCP("tcp", addr)
	if errors.Is(err, unix.EADDRINUSE) {
		return errors.New("the address is in use: is another server running?")
	}
	if err != nil {
		return err
	}
	return ln.Close()
}

// hold binds a free port of addr without listening on it.
func hold(addr *net.TCPAddr) (fd, port int, err error) {
	family, sa := unix.AF_INET6, unix.Sockaddr(nil)
	if ip4 := addr.IP.To4(); ip4 != nil {
		family, sa = unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte(ip4)}
	} else {
		sa6 := &unix.SockaddrInet6{Addr: [16]byte(addr.IP.To16())}
		if ifc, err := net.InterfaceByName(addr.Zone); err == nil {
			sa6.ZoneId = uint32(ifc.Index)
		}
		sa = sa6
	}
	fd, err = unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, 0, err
	}
	err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, 1)
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		sa, err = unix.Getsockname(fd)
	}
	if err != nil {
		_ = unix.Close(fd)
		return -1, 0, err
	}
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		port = sa.Port
	case *unix.SockaddrInet6:
		port = sa.Port
	}
	return fd, port, nil
}
