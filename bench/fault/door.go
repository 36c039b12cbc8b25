package fault

import (
	"errors"
	"net"
	"sync"
	"time"
)

// Door is a listener whose connections go through links.
type Door struct {
	ln   *net.TCPListener
	pick func(net.Addr) *Link
	work sync.WaitGroup
}

// Open listens on a TCP address, like 127.0.0.1:0. pick is asked about every
// connection, by the address it comes from; nil: it is reset. Who owns such an
// address tells [Owner].
func Open(addr string, pick func(from net.Addr) *Link) (*Door, error) {
	ln, err := net.Listen("tcp", addr)
	if err != nil {
		return nil, err
	}
	d := &Door{ln: ln.(*net.TCPListener), pick: pick}
	d.work.Go(d.accept)
	return d, nil
}

// OpenLink listens for one link alone.
func OpenLink(addr string, l *Link) (*Door, error) {
	return Open(addr, func(net.Addr) *Link { return l })
}

// Addr is where the door is.
func (d *Door) Addr() string { return d.ln.Addr().String() }

// Close lets nobody in any more. Who is in stays: that is the links' business.
func (d *Door) Close() error {
	err := d.ln.Close()
	d.work.Wait()
	return err
}

func (d *Door) accept() {
	for {
		c, err := d.ln.AcceptTCP()
		if errors.Is(err, net.ErrClosed) {
			return
		}
		if err != nil {
			time.Sleep(10 * time.Millisecond) // out of descriptors, most likely
			continue
		}
		// In a goroutine, since it may take a while to find out who that is.
		d.work.Go(func() {
			if l := d.pick(c.RemoteAddr()); l != nil {
				l.take(c)
			} else {
				reset(c)
			}
		})
	}
}
