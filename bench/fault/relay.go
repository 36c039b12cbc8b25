package fault

import (
	"net"
	"sync"
)

// relay is one connection through a link.
type relay struct {
	l    *Link
	in   *net.TCPConn
	gone chan struct{} // closed by end
	// work counts the goroutines of the pipes.
	work sync.WaitGroup

	mu    sync.Mutex
	out   *net.TCPConn // nil until the target has accepted
	done  int          // directions that have come to their end
	ended bool
}

// run relays until both directions have ended, or the connection is broken.
func (r *relay) run() {
	defer r.l.forget(r)
	defer r.end(true)
	out, err := r.l.dial(r.gone)
	if err != nil || !r.join(out) {
		return
	}
	for _, p := range []*pipe{{r: r, up: true, src: r.in, dst: out}, {r: r, src: out, dst: r.in}} {
		p.room = make(chan struct{}, 1)
		r.work.Go(p.read)
	}
	r.work.Wait()
}

// join gives the relay its other end, unless it was broken meanwhile.
func (r *relay) join(out *net.TCPConn) bool {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		reset(out)
		return false
	}
	r.out = out
	return true
}

// finish is called by each direction that has delivered all it ever will.
func (r *relay) finish() {
	r.mu.Lock()
	r.done++
	both := r.done == 2
	r.mu.Unlock()
	if both {
		r.end(false)
	}
}

// end closes both ends, the hard way if the connection is broken. The first
// call counts.
func (r *relay) end(broken bool) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.ended {
		return
	}
	r.ended = true
	close(r.gone)
	for _, c := range []*net.TCPConn{r.in, r.out} {
		switch {
		case c == nil:
		case broken:
			reset(c)
		default:
			_ = c.Close()
		}
	}
}

// reset closes a connection so that its other end gets a RST.
func reset(c *net.TCPConn) {
	_ = c.SetLinger(0)
	_ = c.Close()
}
