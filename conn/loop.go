package conn

import (
	"context"
	"errors"
	"io"
	"sync"
	"sync/atomic"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"

	"github.com/hermod-im/hermod/proto"
)

// lingerBytes is how much input a closing connection may still send before it
// is cut off.
const lingerBytes = 256 << 10

// loop is what belongs to one gnet event loop. Methods run on that loop unless
// they say otherwise.
type loop struct {
	srv   *Server
	el    gnet.EventLoop
	gnet  gnetPeek
	wheel wheel
	slow  []*Conn // output is waiting: looked at on every tick
	spare []*Conn // the dirty list of the round before, reused
	stats loopStats

	// Scratch for TLS: records on their way to gnet, a record that crypto/tls
	// reads, and what it decrypts to.
	wire, record, open []byte
	pending            atomic.Int64 // bytes in outboxes
	slowSize           atomic.Int32 // len(slow), for the ticker

	// mu joins the other goroutines to the loop. dead is set before gnet
	// closes its pollers: an Execute after that would write its eight wake-up
	// bytes to whatever file has got the descriptor since.
	mu    sync.Mutex
	dirty []*Conn
	tasks []func()
	tick  bool
	awake bool // Run is on its way
	dead  bool
}

type loopStats struct{ bytesIn, bytesOut, framesIn, framesOut uint64 }

// push asks the loop to look at c. Any goroutine; one wake-up per burst.
func (l *loop) push(c *Conn) {
	l.mu.Lock()
	l.dirty = append(l.dirty, c)
	l.wakeLocked()
	l.mu.Unlock()
}

// post runs f on the loop; false: the loop has ended. Any goroutine.
func (l *loop) post(f func()) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	if l.dead {
		return false
	}
	l.tasks = append(l.tasks, f)
	l.wakeLocked()
	return true
}

// ticked makes the loop turn its wheel. Any goroutine.
func (l *loop) ticked() {
	l.mu.Lock()
	l.tick = true
	l.wakeLocked()
	l.mu.Unlock()
}

func (l *loop) wakeLocked() {
	if l.awake || l.dead {
		return
	}
	l.awake = l.el.Execute(context.Background(), l) == nil
}

// end is called when the engine stops: nothing is posted any more.
func (l *loop) end() {
	l.mu.Lock()
	l.dead = true
	l.mu.Unlock()
}

// Run is gnet's callback for Execute.
func (l *loop) Run(context.Context) error {
	l.mu.Lock()
	dirty, tasks, tick := l.dirty, l.tasks, l.tick
	l.dirty, l.tasks, l.tick, l.awake = l.spare[:0], nil, false, false
	l.mu.Unlock()
	for i, c := range dirty {
		l.guard(c, l.look)
		dirty[i] = nil
	}
	l.spare = dirty[:0]
	for _, f := range tasks {
		l.guard(nil, func(*Conn) { f() })
	}
	if tick {
		l.turn()
	}
	return nil
}

// guard runs f and survives it; only c pays.
func (l *loop) guard(c *Conn, f func(*Conn)) {
	defer func() {
		if p := recover(); p != nil {
			l.srv.panicked(p, c)
			if c != nil {
				l.kill(c, ReasonPanic)
			}
		}
	}()
	f(c)
}

// turn is one tick: deadlines, and output that was waiting for the kernel.
func (l *loop) turn() {
	l.wheel.advance(l.srv.elapsed(), func(c *Conn) { l.guard(c, l.expire) })
	keep := l.slow[:0]
	for _, c := range l.slow {
		l.guard(c, l.poll)
		if c.slow = !c.gone && c.Buffered() > 0; c.slow {
			keep = append(keep, c)
		}
	}
	clear(l.slow[len(keep):])
	l.slow = keep
	l.slowSize.Store(int32(len(keep)))
	l.srv.metrics.flush(&l.stats)
}

// look is for a connection that another goroutine has marked.
func (l *loop) look(c *Conn) {
	if !c.gone {
		l.flush(c)
	}
}

// arm puts c into the wheel for its next deadline.
func (l *loop) arm(c *Conn, now stamp) {
	at, _ := c.s.deadline(c.heartbeat.Load(), l.srv.limits.Load())
	l.wheel.arm(c, at.since(now))
}

// expire is the wheel's visit.
func (l *loop) expire(c *Conn) {
	now := l.srv.clock()
	at, why := c.s.deadline(c.heartbeat.Load(), l.srv.limits.Load())
	if at.since(now) > 0 {
		l.arm(c, now)
		return
	}
	switch c.s.phase {
	case phaseProxy, phaseTLS, phaseClosing:
		l.kill(c, why)
		return
	}
	c.cork()
	c.Close(why, proto.Errorf(proto.ErrorCode_ERROR_CODE_TIMEOUT, ""))
	l.flush(c)
	if !c.gone {
		l.arm(c, now)
	}
}

// cork keeps what is sent from now on from waking the loop, which is here
// already and flushes before it leaves.
func (c *Conn) cork() {
	c.mu.Lock()
	c.dirty = true
	c.mu.Unlock()
}

// flush is the loop's answer to dirty, whatever it was set for: output, Close,
// or Accept. It gives the outbox to gnet, if gnet has nothing left of the last
// one: so gnet's own unbounded buffer never holds more than one outbox.
func (l *loop) flush(c *Conn) {
	kernel := c.gc.OutboundBuffered()
	var out *buffer
	c.mu.Lock()
	c.dirty = false
	if kernel == 0 {
		out, c.out = c.out, nil
	}
	welcome := c.replied && c.heartbeat.Load() != 0
	c.kernel = int32(kernel)
	if out != nil {
		c.kernel += int32(len(out.b))
	}
	c.mu.Unlock()
	if out != nil {
		l.pending.Add(-int64(len(out.b)))
		l.stats.framesOut += uint64(out.frames)
		l.write(c, out.b)
		l.srv.buffers.put(out)
		if c.gone {
			return
		}
		c.moved = l.srv.clock()
		kernel = c.gc.OutboundBuffered()
	}
	l.settle(c, kernel)
	if !c.gone && c.s.phase == phaseLogin && welcome {
		c.s.accept(l.srv.clock())
		if d := l.srv.drain.Load(); d != nil && c.tellDrain() {
			_ = c.SendBytes(d.goAway)
		}
		l.inbound(c) // what came in during the login
	}
}

// tellDrain reports whether to send GoAway: to whoever is logged in, once. A
// login that ends as Drain begins is found by both the flush of its Welcome and
// Drain. Loop only.
func (c *Conn) tellDrain() bool {
	if c.told || c.s.phase != phaseLive {
		return false
	}
	c.told = true
	return true
}

// settle follows a flush: who waits for the kernel is polled, who waited for
// room is served again, who is shut takes its next step.
func (l *loop) settle(c *Conn, kernel int) {
	c.mu.Lock()
	c.kernel = int32(kernel)
	waiting, shut := c.bufferedLocked() > 0, c.shut
	resume := c.run == runPaused && c.bufferedLocked() <= l.srv.limits.Load().OutboxBytes/2
	if resume {
		c.run = runQueued
	}
	c.mu.Unlock()
	if resume {
		l.srv.queue.push(c)
	}
	if kernel > 2*l.srv.limits.Load().OutboxBytes {
		// More than an outbox makes, encrypted: a client that has crypto/tls
		// answer its key updates and does not read.
		l.kill(c, ReasonSlowConsumer)
		return
	}
	if shut {
		if waiting = l.closing(c, waiting); c.gone {
			return
		}
	}
	if waiting && !c.slow {
		c.slow, c.moved = true, l.srv.clock()
		l.slow = append(l.slow, c)
		l.slowSize.Store(int32(len(l.slow)))
	}
}

// closing takes a shut connection one step further: once everything is with
// the kernel, say that nothing follows, and wait for the client to close. To
// close at once would make the kernel answer bytes that are still coming in
// with a reset, which throws away the last frames on the client's side. It
// returns whether output is waiting now.
func (l *loop) closing(c *Conn, waiting bool) bool {
	now := l.srv.clock()
	if c.s.phase != phaseClosing {
		if c.s.phase < phaseHello {
			l.kill(c, ReasonUnknown)
			return false
		}
		c.s.phase, c.s.need = phaseClosing, 0
		c.s.closeAt = now.plus(l.srv.limits.Load().CloseGrace)
		c.s.started = false
		if n := c.gc.InboundBuffered(); n > 0 {
			l.took(c, n)
		}
		l.arm(c, now)
	}
	if waiting || c.s.started {
		return waiting
	}
	if c.tls != nil {
		if l.closeNotify(c); c.gone {
			return false
		}
		if kernel := c.gc.OutboundBuffered(); kernel > 0 {
			c.mu.Lock()
			c.kernel = int32(kernel)
			c.mu.Unlock()
			return true
		}
	}
	c.s.started = true // the FIN is sent once
	if err := unix.Shutdown(c.gc.Fd(), unix.SHUT_WR); err != nil {
		l.kill(c, ReasonUnknown)
	}
	return false
}

// poll looks at a connection whose output waits for the kernel: gnet does not
// tell when its buffer moves.
func (l *loop) poll(c *Conn) {
	if c.gone {
		return
	}
	kernel := c.gc.OutboundBuffered()
	now := l.srv.clock()
	c.mu.Lock()
	if kernel < int(c.kernel) {
		c.moved = now
	}
	c.mu.Unlock()
	if lim := l.srv.limits.Load(); now.since(c.moved.plus(lim.OutboxStall)) > 0 {
		l.kill(c, ReasonStalled)
		return
	}
	l.flush(c)
}

// write gives b to gnet, encrypted where needed. gnet may close c meanwhile.
func (l *loop) write(c *Conn, b []byte) {
	if c.tls != nil {
		l.writeTLS(c, b)
		return
	}
	l.writeRaw(c, b)
}

func (l *loop) writeRaw(c *Conn, b []byte) {
	l.stats.bytesOut += uint64(len(b))
	if _, err := c.gc.Write(b); err != nil {
		l.kill(c, ReasonIOError)
	}
}

// kill closes c now. reason holds unless c is shut for another one already.
func (l *loop) kill(c *Conn, reason Reason) {
	if c.gone {
		return
	}
	c.mu.Lock()
	if !c.shut {
		c.shut, c.reason = true, reason
	}
	c.mu.Unlock()
	if err := l.el.Close(c.gc); err != nil {
		l.srv.log.Debug().Err(err).Uint64("conn", c.id).Msg("closing a socket")
	}
}

// closed is gnet's last word on c.
func (l *loop) closed(c *Conn, err error) {
	c.gone = true
	c.gc = nil
	l.wheel.remove(c)
	if c.tls != nil {
		c.tls.abort()
	}
	reason := ReasonPeerClosed
	switch {
	case l.srv.stopping.Load():
		reason = ReasonShutdown
	case err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, unix.ECONNRESET) && !errors.Is(err, unix.EPIPE):
		reason = ReasonIOError
	}
	c.mu.Lock()
	if !c.shut {
		c.shut, c.reason = true, reason
	}
	reason = c.reason
	c.closed, c.kernel = true, 0
	c.dropOutLocked()
	switch c.run {
	case runQueued, runBusy:
		c.mu.Unlock() // the worker will see
	default:
		if !c.served {
			c.finish()
			break
		}
		c.run = runQueued
		c.mu.Unlock()
		l.srv.queue.push(c)
	}
	l.srv.left(c, reason)
}
