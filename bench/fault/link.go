package fault

import (
	"net"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// Way is what happens to the bytes of one direction; zero: nothing.
type Way struct {
	// Held: nothing gets through. Connections stay open, the sender's buffers
	// fill up, and what it wrote arrives when this is over, as with packets that
	// are lost and sent again.
	Held bool
	// Delay is how long each byte is on its way. It costs no throughput, but for
	// linkQueue bytes at most being under way.
	Delay time.Duration
	// Rate bounds the bytes per second, which then arrive in drips, 20 a second;
	// 0: no bound.
	Rate int
}

func (w Way) clean() bool { return w == Way{} }

// Trouble is what is wrong with a link; zero: nothing.
type Trouble struct {
	// Refused: open connections are reset, and so is every new one.
	Refused bool
	// Up is the direction from whoever connects, Down the answers to it.
	Up, Down Way
}

// and is the trouble of both at once.
func (t Trouble) and(o Trouble) Trouble {
	return Trouble{Refused: t.Refused || o.Refused, Up: t.Up.and(o.Up), Down: t.Down.and(o.Down)}
}

func (w Way) and(o Way) Way {
	out := Way{Held: w.Held || o.Held, Delay: w.Delay + o.Delay, Rate: max(w.Rate, o.Rate)}
	if w.Rate > 0 && o.Rate > 0 {
		out.Rate = min(w.Rate, o.Rate)
	}
	return out
}

// Link is the way between two parts of a system, in user space: connections
// that a [Door] takes are relayed to the target, byte by byte (TLS passes
// through untouched), with whatever trouble the link has. No rights are needed
// and nobody else's traffic is touched, as it would be with the firewall of the
// kernel, which was the other way to do this.
//
// It cannot do everything: connecting always succeeds, since the door is in
// front of the trouble; what a broken network shows as a timeout while
// connecting is one while greeting here.
type Link struct {
	Name   string
	target string

	// state is replaced as a whole, under mu.
	state atomic.Pointer[linkState]

	mu       sync.Mutex
	troubles []*Trouble
	relays   map[*relay]struct{}
	closed   bool
	work     sync.WaitGroup
}

// linkState is the trouble of a time; changed is closed when it is over.
type linkState struct {
	Trouble
	changed chan struct{}
}

// NewLink makes a link to a TCP address, without trouble.
func NewLink(name, target string) *Link {
	l := &Link{Name: name, target: target, relays: make(map[*relay]struct{})}
	l.state.Store(&linkState{changed: make(chan struct{})})
	return l
}

// Add gives the link one more trouble, until remove is called. Several add up.
func (l *Link) Add(t Trouble) (remove func()) {
	own := &t
	l.mu.Lock()
	l.troubles = append(l.troubles, own)
	l.settle()
	l.mu.Unlock()
	if t.Refused {
		l.Break()
	}
	return func() {
		l.mu.Lock()
		defer l.mu.Unlock()
		l.troubles = slices.DeleteFunc(l.troubles, func(o *Trouble) bool { return o == own })
		l.settle()
	}
}

// settle adds up the troubles; mu is held.
func (l *Link) settle() {
	next := &linkState{changed: make(chan struct{})}
	for _, t := range l.troubles {
		next.Trouble = next.and(*t)
	}
	close(l.state.Swap(next).changed)
}

// Break resets every open connection. New ones are welcome.
func (l *Link) Break() {
	for _, r := range l.open() {
		r.end(true)
	}
}

// Open is how many connections there are.
func (l *Link) Open() int { return len(l.open()) }

func (l *Link) open() (rs []*relay) {
	l.mu.Lock()
	defer l.mu.Unlock()
	for r := range l.relays {
		rs = append(rs, r)
	}
	return rs
}

// Close resets everything and returns when all goroutines have ended.
func (l *Link) Close() {
	l.mu.Lock()
	l.closed = true
	l.mu.Unlock()
	l.Break()
	l.work.Wait()
}

// take relays a connection, in goroutines of its own.
func (l *Link) take(in *net.TCPConn) {
	r := &relay{l: l, in: in, gone: make(chan struct{})}
	l.mu.Lock()
	if l.closed {
		l.mu.Unlock()
		reset(in)
		return
	}
	l.relays[r] = struct{}{}
	l.work.Go(r.run)
	l.mu.Unlock()
}

// forget is called by a relay that has ended.
func (l *Link) forget(r *relay) {
	l.mu.Lock()
	defer l.mu.Unlock()
	delete(l.relays, r)
}

// dial connects to the target once the way there is free.
func (l *Link) dial(gone <-chan struct{}) (*net.TCPConn, error) {
	for {
		st := l.state.Load()
		if st.Refused {
			return nil, net.ErrClosed
		}
		if !st.Up.Held {
			break
		}
		select {
		case <-st.changed:
		case <-gone:
			return nil, net.ErrClosed
		}
	}
	c, err := net.DialTimeout("tcp", l.target, dialTimeout)
	if err != nil {
		return nil, err
	}
	return c.(*net.TCPConn), nil
}

const (
	// dialTimeout is how long a target may take to accept, not counting a way
	// that is held.
	dialTimeout = 10 * time.Second
	// linkQueue is how many bytes of a connection are under way at most, in one
	// direction, besides the kernel's buffers.
	linkQueue = 256 << 10
	// dripEvery is the pause between two drips of a bounded rate.
	dripEvery = 50 * time.Millisecond
)
