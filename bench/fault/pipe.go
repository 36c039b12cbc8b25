package fault

import (
	"bytes"
	"errors"
	"io"
	"net"
	"sync"
	"time"
)

// pipe is one direction of a relay. Without trouble its reader writes at once,
// one goroutine for a direction. With trouble, chunks queue for a second one
// that waits and drips; it goes when the queue is empty and the trouble over.
type pipe struct {
	r        *relay
	up       bool
	src, dst *net.TCPConn
	room     chan struct{} // of one; told when the queue has shrunk

	mu      sync.Mutex
	queue   []chunk
	queued  int // bytes in queue
	pumping bool
}

// chunk is what was read at once, and how the source ended behind it, if so.
type chunk struct {
	data     []byte
	at       time.Time
	fin, rst bool
}

func (p *pipe) state() (*linkState, Way) {
	st := p.r.l.state.Load()
	if p.up {
		return st, st.Up
	}
	return st, st.Down
}

func (p *pipe) read() {
	buf := make([]byte, 16<<10)
	for {
		n, err := p.src.Read(buf)
		c := chunk{data: buf[:n], at: time.Now()}
		if err != nil {
			c.fin = errors.Is(err, io.EOF)
			c.rst = !c.fin
		}
		if !p.pass(c) || err != nil {
			return
		}
	}
}

// pass delivers or queues a chunk; false: the connection is broken.
func (p *pipe) pass(c chunk) bool {
	p.mu.Lock()
	if _, w := p.state(); !p.pumping && w.clean() {
		p.mu.Unlock()
		return p.deliver(c)
	}
	for p.queued >= linkQueue {
		p.mu.Unlock()
		select {
		case <-p.room:
		case <-p.r.gone:
			return false
		}
		p.mu.Lock()
	}
	defer p.mu.Unlock()
	c.data = bytes.Clone(c.data)
	p.queue = append(p.queue, c)
	p.queued += len(c.data)
	if !p.pumping {
		p.pumping = true
		p.r.work.Go(p.pump)
	}
	return true
}

// pump delivers what is queued, in order, each when its time has come.
func (p *pipe) pump() {
	for {
		p.mu.Lock()
		if len(p.queue) == 0 {
			p.pumping = false
			p.mu.Unlock()
			return
		}
		c := p.queue[0]
		p.mu.Unlock()
		if !p.wait(c.at) || !p.deliver(c) {
			return
		}
		p.mu.Lock()
		p.queue = p.queue[1:]
		p.queued -= len(c.data)
		p.mu.Unlock()
		select {
		case p.room <- struct{}{}:
		default:
		}
	}
}

// wait returns true when what was sent at that time may arrive, and false if
// the connection breaks before.
func (p *pipe) wait(sent time.Time) bool {
	for {
		st, w := p.state()
		left := time.Until(sent.Add(w.Delay))
		if !w.Held && left <= 0 {
			return true
		}
		var due <-chan time.Time // never, while the way is held
		if !w.Held {
			due = time.After(left)
		}
		select {
		case <-due:
		case <-st.changed:
		case <-p.r.gone:
			return false
		}
	}
}

// deliver writes a chunk, in drips if the rate is bounded, and passes on that
// the source has ended.
func (p *pipe) deliver(c chunk) bool {
	for data := c.data; len(data) > 0; {
		_, w := p.state()
		drip := len(data)
		if w.Rate > 0 {
			drip = min(drip, max(1, int(float64(w.Rate)*dripEvery.Seconds())))
		}
		if _, err := p.dst.Write(data[:drip]); err != nil {
			p.r.end(true)
			return false
		}
		data = data[drip:]
		if w.Rate > 0 && !p.wait(time.Now().Add(time.Duration(drip)*time.Second/time.Duration(w.Rate)-w.Delay)) {
			return false
		}
	}
	switch {
	case c.rst:
		p.r.end(true)
	case c.fin:
		_ = p.dst.CloseWrite()
		p.r.finish()
	}
	return true
}
