package conn

import (
	"sync"

	"github.com/hermod-im/hermod/proto"
)

// runState says who serves a connection's mailbox. At most one worker does.
type runState uint8

const (
	runIdle   runState = iota // nothing to serve
	runQueued                 // in the run queue
	runBusy                   // with a worker
	runParked                 // the Handler said park
	runPaused                 // the outbox is over half its cap
	runDone                   // Closed was called
)

// turn is how many frames a worker serves of one connection before the others
// in the queue get theirs.
const turn = 32

// runQueue is the queue of connections that have something to serve.
type runQueue struct {
	mu     sync.Mutex
	ready  sync.Cond
	conns  []*Conn // ring
	head   int
	n      int
	idle   int
	closed bool
}

func newRunQueue() *runQueue {
	q := &runQueue{conns: make([]*Conn, 256)}
	q.ready.L = &q.mu
	return q
}

func (q *runQueue) push(c *Conn) {
	q.mu.Lock()
	if q.n == len(q.conns) {
		grown := make([]*Conn, 2*q.n)
		copied := copy(grown, q.conns[q.head:])
		copy(grown[copied:], q.conns[:q.head])
		q.conns, q.head = grown, 0
	}
	q.conns[(q.head+q.n)%len(q.conns)] = c
	q.n++
	wake := q.idle > 0
	q.mu.Unlock()
	if wake {
		q.ready.Signal()
	}
}

// pop waits for a connection; nil: the queue is closed and empty.
func (q *runQueue) pop() *Conn {
	q.mu.Lock()
	defer q.mu.Unlock()
	for q.n == 0 {
		if q.closed {
			return nil
		}
		q.idle++
		q.ready.Wait()
		q.idle--
	}
	c := q.conns[q.head]
	q.conns[q.head] = nil
	q.head = (q.head + 1) % len(q.conns)
	q.n--
	return c
}

// close lets the workers finish what is queued and go.
func (q *runQueue) close() {
	q.mu.Lock()
	q.closed = true
	q.mu.Unlock()
	q.ready.Broadcast()
}

func (s *Server) work() {
	defer s.workers.Done()
	for c := s.queue.pop(); c != nil; c = s.queue.pop() {
		s.serve(c)
	}
}

// serve gives c one turn.
func (s *Server) serve(c *Conn) {
	park := false
	for range turn {
		f, hello, ok := c.take(park)
		if !ok {
			return
		}
		park = s.call(c, f, hello)
	}
	c.mu.Lock()
	if park && !c.resumed && !c.closed {
		c.run = runParked
		c.mu.Unlock()
		return
	}
	c.run = runQueued
	c.mu.Unlock()
	s.queue.push(c)
}

// take returns the next frame to serve. If there is none it settles what
// becomes of c, and ok is false.
func (c *Conn) take(parked bool) (f *proto.Frame, hello, ok bool) {
	c.mu.Lock()
	if c.closed {
		c.finish()
		return nil, false, false
	}
	defer c.mu.Unlock()
	lim := c.loop.srv.limits.Load()
	switch {
	case parked && !c.resumed:
		c.run = runParked
	case c.mail == nil || c.shut:
		c.run = runIdle
	case c.bufferedLocked() > lim.OutboxBytes/2:
		c.run = runPaused
	default:
		f, hello = c.mail.pop(), !c.served
		if c.mail.len() == 0 {
			c.loop.srv.mailboxes.put(c.mail)
			c.mail = nil
		}
		c.run, c.served, c.resumed = runBusy, true, false
		return f, hello, true
	}
	return nil, false, false
}

// finish is called with mu held, by the worker that serves c, after gnet has
// closed it. It releases mu.
func (c *Conn) finish() {
	srv, reason := c.loop.srv, c.reason
	owed := c.served && c.run != runDone
	c.run = runDone
	if c.mail != nil {
		srv.metrics.drop(DropUnserved, c.mail.len())
		srv.mailboxes.put(c.mail)
		c.mail = nil
	}
	c.mu.Unlock()
	if owed {
		defer srv.caught(nil)
		srv.opts.Handler.Closed(c, reason)
	}
}

// call runs the Handler and survives it.
func (s *Server) call(c *Conn, f *proto.Frame, hello bool) (park bool) {
	defer s.caught(c)
	if hello {
		return s.opts.Handler.Hello(c, f)
	}
	return s.opts.Handler.Serve(c, f)
}

// caught, deferred, contains a panic: c (if not nil) is closed, everybody else
// is served on.
func (s *Server) caught(c *Conn) {
	p := recover()
	if p == nil {
		return
	}
	s.panicked(p, c)
	if c != nil {
		c.Close(ReasonPanic, proto.Errorf(proto.ErrorCode_ERROR_CODE_INTERNAL, ""))
	}
}
