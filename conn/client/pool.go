package client

import (
	"sync"
	"time"
)

// Pool is the shared clockwork of many clients: heartbeats, delivery acks,
// retries and token refreshes of all of them run off one timer. It holds no
// goroutine and needs no closing; it rests while no client is connected. Give
// one Pool to all clients of a process (Options.Pool).
//
// It is a wheel of slots, each a list of clients; a client is on it at most
// once, with its earliest deadline, and works out by itself what is due. One
// runtime timer per duty and client, as one would write first, costs thousands
// of clients more than their traffic.
type Pool struct {
	mu    sync.Mutex
	start time.Time
	tick  int64 // the last one that was run
	count int
	armed bool
	timer *time.Timer
	wheel [wheelSlots]*alarm

	buffers sync.Pool // *[]byte, for writing
}

const (
	wheelSlots = 1024
	wheelTick  = 16 * time.Millisecond
)

// alarm is a client's place on the wheel. All fields are Pool.mu's.
type alarm struct {
	ring       func() // called without locks held; must not block
	at         int64  // tick; 0: not set
	prev, next *alarm
}

// NewPool makes a Pool.
func NewPool() *Pool {
	p := &Pool{start: time.Now()}
	p.buffers.New = func() any { b := make([]byte, 0, 2048); return &b }
	return p
}

// now is the time since the pool was made, on the monotonic clock.
func (p *Pool) now() time.Duration { return time.Since(p.start) }

// wake has a rung at the time at (as of now) or up to a tick and a bit later.
// An earlier alarm that is set already stays: a rings then, and asks again.
func (p *Pool) wake(a *alarm, at time.Duration) {
	p.mu.Lock()
	defer p.mu.Unlock()
	tick := int64(at/wheelTick) + 1
	if a.at != 0 {
		if a.at <= tick {
			return
		}
		p.unlink(a)
	}
	if !p.armed { // the wheel stood still
		p.tick = int64(p.now() / wheelTick)
	}
	a.at = max(tick, p.tick+1)
	p.link(a)
	if !p.armed {
		p.armed = true
		if p.timer == nil {
			p.timer = time.AfterFunc(wheelTick, p.turn)
		} else {
			p.timer.Reset(wheelTick)
		}
	}
}

// cancel takes a off the wheel. It may be ringing at this moment.
func (p *Pool) cancel(a *alarm) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if a.at != 0 {
		p.unlink(a)
	}
}

func (p *Pool) link(a *alarm) {
	slot := &p.wheel[a.at%wheelSlots]
	a.prev, a.next = nil, *slot
	if *slot != nil {
		(*slot).prev = a
	}
	*slot = a
	p.count++
}

func (p *Pool) unlink(a *alarm) {
	if a.prev != nil {
		a.prev.next = a.next
	} else {
		p.wheel[a.at%wheelSlots] = a.next
	}
	if a.next != nil {
		a.next.prev = a.prev
	}
	a.at, a.prev, a.next = 0, nil, nil
	p.count--
}

// turn is the timer: it runs every tick up to now, a whole round at most.
func (p *Pool) turn() {
	var due []*alarm
	p.mu.Lock()
	now := int64(p.now() / wheelTick)
	for t := max(p.tick+1, now-wheelSlots+1); t <= now; t++ {
		for a := p.wheel[t%wheelSlots]; a != nil; {
			next := a.next
			if a.at <= now {
				p.unlink(a)
				due = append(due, a)
			}
			a = next
		}
	}
	p.tick = now
	if p.armed = p.count > 0; p.armed {
		p.timer.Reset(wheelTick)
	}
	p.mu.Unlock()
	for _, a := range due {
		a.ring()
	}
}

// maxPooled keeps the odd large buffer from living for ever.
const maxPooled = 64 << 10

func (p *Pool) buffer() *[]byte { return p.buffers.Get().(*[]byte) }

func (p *Pool) recycle(b *[]byte) {
	if cap(*b) <= maxPooled {
		*b = (*b)[:0]
		p.buffers.Put(b)
	}
}
