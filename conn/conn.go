package conn

import (
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"sync/atomic"
	"time"

	"github.com/panjf2000/gnet/v2"

	"github.com/hermod-im/hermod/proto"
)

// Handler is what runs behind the edge. Its methods must not block.
type Handler interface {
	// Hello gets the first frame of a connection, which is a Hello; Serve gets
	// every later one, in arrival order. Both run on a worker, one call at a
	// time per Conn. If park is true nothing further of this Conn is served
	// until c.Resume. No further frame is read before c.Accept and the Reply.
	// Frames with an id hold one credit each until c.Reply. f is the Handler's.
	Hello(c *Conn, f *proto.Frame) (park bool)
	Serve(c *Conn, f *proto.Frame) (park bool)
	// Refuse answers a frame that the edge will not queue: BUSY (no credit
	// left) or RATE_LIMITED. If f has an id it must Reply (or Fail) before it
	// returns. Runs on the loop, beside Serve: it must be quick.
	Refuse(c *Conn, f *proto.Frame, code proto.ErrorCode)
	// Closed is called once per Conn that was given to Hello, on a worker,
	// after the last Hello or Serve has returned. Nothing follows it.
	Closed(c *Conn, reason Reason)
}

// ErrClosed is what Send and Reply return on a connection that is closed or
// closing. Nothing needs to be done about it: Handler.Closed comes.
var ErrClosed = errors.New("conn: connection is closed")

// Conn is one client connection. Its methods may be called from any goroutine
// and do not block.
//
// There are hundreds of thousands of these, nearly all of them idle: an idle
// one has no goroutine, no channel, no buffer. Mind the size (a test does).
type Conn struct {
	id   uint64
	gc   gnet.Conn // loop only; never used once gone is set
	loop *loop
	tls  *tlsState // loop only; nil without TLS

	next, prev *Conn // wheel, loop only

	heartbeat atomic.Uint32 // milliseconds; 0 until Accept
	open      atomic.Int32  // requests without a reply

	addr     [16]byte // the client's address, IPv4 mapped
	s        session  // loop only
	moved    stamp    // loop only: when output last made progress
	slot     int16    // wheel, loop only; -1: not in it
	listener uint8    // index into Options.Listeners
	counted  bool     // loop only: the guard has counted this address
	slow     bool     // loop only: in loop.slow
	told     bool     // loop only: GoAway was sent, or is about to be
	gone     bool     // loop only: gnet has closed it

	// mu guards what follows. It is held for copying bytes and moving
	// pointers, never while calling out.
	mu      sync.Mutex
	data    any
	out     *buffer  // frames not given to gnet yet; nil when empty
	mail    *mailbox // frames not served yet; nil when empty
	kernel  int32    // bytes in gnet's buffer when the loop last looked
	run     runState
	served  bool // Hello was called: Closed is owed
	resumed bool // Resume came while Serve was still running
	replied bool // Hello was answered: input may be read once it is accepted
	dirty   bool // the loop will look at this connection soon
	shut    bool // no more input or output is taken
	closed  bool // gnet has closed it
	reason  Reason
}

// ID is unique among the connections of this process and does not start at 1.
func (c *Conn) ID() uint64 { return c.id }

// RemoteIP is the client's address: behind a proxy, the one the PROXY header
// names.
func (c *Conn) RemoteIP() netip.Addr { return netip.AddrFrom16(c.addr).Unmap() }

// Exempt reports whether the address is in Limits.Exempt: rates do not hold.
func (c *Conn) Exempt() bool { return c.s.exempt }

// Secure reports whether this connection is encrypted by this server.
func (c *Conn) Secure() bool { return c.loop.srv.listeners[c.listener].Mode == TLS }

// Data returns what SetData has left.
func (c *Conn) Data() any {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.data
}

// SetData keeps the Handler's own state with the connection.
func (c *Conn) SetData(v any) {
	c.mu.Lock()
	c.data = v
	c.mu.Unlock()
}

// Accept ends the login, together with the Reply to Hello, which tells the
// client: once there are both, the larger frames are read, rates and
// heartbeats hold. Nothing that the client has pipelined is answered before that
// Reply. Accept returns the heartbeat that holds, which is the wish brought into
// the bounds of Limits; 0 asks for the largest.
func (c *Conn) Accept(heartbeat time.Duration) time.Duration {
	lim := c.loop.srv.limits.Load()
	if heartbeat <= 0 {
		heartbeat = lim.MaxHeartbeat
	}
	heartbeat = min(max(heartbeat, lim.MinHeartbeat), lim.MaxHeartbeat)
	c.mu.Lock()
	if !c.closed && c.heartbeat.CompareAndSwap(0, uint32(heartbeat/time.Millisecond)) {
		c.loop.srv.loggedIn.Add(1) // under mu: left takes it back if this was before closed
	}
	push := c.markLocked()
	c.mu.Unlock()
	if push {
		c.loop.push(c)
	}
	return heartbeat
}

// Reply answers a request and gives its credit back. It takes f.Id = id. A
// frame that cannot be sent is answered with INTERNAL in its place, and the
// error returned.
func (c *Conn) Reply(id uint64, f *proto.Frame) error {
	f.Id = id
	c.release()
	push, err := c.send(f, true)
	if push {
		c.loop.push(c)
	}
	if err != nil && !errors.Is(err, ErrClosed) {
		fault := proto.AsFault(fmt.Errorf("conn: answer cannot be sent: %w", err))
		_ = c.Send(&proto.Frame{Id: id, Body: &proto.Frame_Error{Error: fault.Wire()}})
	}
	return err
}

// Fail answers a request with the error that the client may see of err.
func (c *Conn) Fail(id uint64, err error) {
	_ = c.Reply(id, &proto.Frame{Body: &proto.Frame_Error{Error: proto.AsFault(err).Wire()}})
}

// release gives one credit back, if one is taken.
func (c *Conn) release() {
	for {
		n := c.open.Load()
		if n <= 0 || c.open.CompareAndSwap(n, n-1) {
			return
		}
	}
}

// Resume continues a connection that Hello or Serve has parked. It may come
// before that call has returned.
func (c *Conn) Resume() {
	c.mu.Lock()
	switch c.run {
	case runBusy:
		c.resumed = true
	case runParked:
		c.run = runQueued
		c.mu.Unlock()
		c.loop.srv.queue.push(c)
		return
	}
	c.mu.Unlock()
}

// Close ends the connection: an Error frame with id 0 if f is not nil, then
// what is in the outbox, for Limits.CloseGrace at most. Frames that were not
// served yet are thrown away. The first reason stays.
func (c *Conn) Close(reason Reason, f *proto.Fault) {
	if c.shutdown(reason, f) {
		c.loop.push(c)
	}
}

func (c *Conn) shutdown(reason Reason, f *proto.Fault) (push bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.shut {
		return false
	}
	if f != nil {
		_ = c.appendLocked(&proto.Frame{Body: &proto.Frame_Error{Error: f.Wire()}})
	}
	if !c.shut { // the Error may have been what overflowed the outbox
		c.shut, c.reason = true, reason
	}
	return c.markLocked()
}

// markLocked marks the connection and reports whether the caller has to push
// it to the loop.
func (c *Conn) markLocked() bool {
	if c.dirty || c.closed {
		return false
	}
	c.dirty = true
	return true
}
