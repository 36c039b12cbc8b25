package client

import (
	"context"
	"math/rand/v2"
	"net"
	"sync/atomic"
	"time"

	"github.com/hermod-im/hermod/proto"
)

const (
	readBuffer = 4 << 10 // grows with a large frame, and shrinks after it
	// maxUnwritten: one-way notices are dropped while so much waits.
	maxUnwritten = 64 << 10
	// leaveGrace is how long a GoAway lets open requests finish.
	leaveGrace = 5 * time.Second
)

// link is one connection. run reads it; a goroutine that lives while there is
// something to write writes it.
type link struct {
	pool   *Pool
	conn   net.Conn
	raw    net.Conn        // conn without TLS
	ctx    context.Context // for OnReset; ends with the link
	cancel context.CancelFunc

	// The reader's.
	buf     []byte
	r, w    int
	maxRead int
	frame   proto.Frame
	// frameSize is that of the frame in hand.
	frameSize int
	lastRead  atomic.Int64 // pool time

	// Client.mu's, all below.
	why    *Error // the first reason to end
	lastID uint64
	open   map[uint64]pending
	sends  int // messages among them

	out         *[]byte // to be written, nil: nothing
	flushing    bool    // a flush runs
	writeStart  time.Duration
	lastWrite   time.Duration
	lastProbe   time.Duration
	lastAnswer  time.Duration // or when the first open request was made
	heartbeat   time.Duration // how long to be quiet at most
	dead        time.Duration // how long to believe in a quiet server
	refreshAt   time.Duration // 0: no token
	leaveAt     time.Duration // GoAway; 0: none
	leaving     bool          // nothing new goes out
	acked       uint64
	ackAt       time.Duration // 0: nothing to acknowledge
	ackNow      bool
	syncing     bool
	vain        int           // Syncs in a row that did not help
	resyncAt    time.Duration // 0: none planned
	held        []*proto.Event
	caughtUp    uint64 // seq + 1 while it is to be told; 0: not
	pausedUntil time.Duration
	// sent holds the content of own messages until their event, which comes
	// without it, has come.
	sent map[SendID]*proto.Content
}

// pending is an open request: one of both.
type pending struct {
	send *outgoing
	call *call
}

func newLink(pool *Pool, conn net.Conn) *link {
	return &link{pool: pool, conn: conn, raw: rawConn(conn), maxRead: proto.MaxFrameSession, open: map[uint64]pending{}}
}

func jitter(bound time.Duration) time.Duration {
	if bound <= 0 {
		return 0
	}
	return rand.N(bound)
}

// online makes l the client's connection. cursor is the one that Hello had.
func (c *Client) online(l *link, cursor *proto.Cursor, w *proto.Welcome) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended != nil {
		return c.ended
	}
	now := c.pool.now()
	interval := time.Duration(c.limits.GetHeartbeatSeconds()) * time.Second
	l.heartbeat = interval - jitter(interval/10)
	l.dead = interval + interval/2
	l.lastRead.Store(int64(now))
	l.lastWrite = now
	l.maxRead = max(l.maxRead, int(c.limits.GetMaxFrameBytes()))
	l.acked = cursor.GetSeq()
	l.ctx, l.cancel = c.ctx, func() {}
	c.link = l
	c.setState(State{Phase: Online, Endpoint: c.state.Endpoint})
	if r := w.GetReset_(); r != nil {
		c.reset(l, r)
	} else if cursor == nil {
		// A server that has kept everything since the first event.
		c.inbox.received = Cursor{Epoch: w.GetHead().GetEpoch()}
		c.inbox.lineage++
		c.session.Cursor, c.session.HasCursor = c.inbox.received, true
		c.dirty = true
	}
	c.outbox.restart()
	c.pump(l)
	c.schedule(l, now)
	return nil
}

// offline takes l back. What it had open is for the next connection (messages)
// or has failed (other requests).
func (c *Client) offline(l *link) {
	c.mu.Lock()
	c.link = nil
	var lost []*call
	for _, p := range l.open {
		if p.call != nil {
			lost = append(lost, p.call)
		}
	}
	l.open = nil
	if l.out != nil {
		c.pool.recycle(l.out)
		l.out = nil
	}
	l.cancel()
	why := l.why
	c.mu.Unlock()
	for _, k := range lost {
		k.done(nil, localError(ErrDisconnected, why, "connection lost before the answer"))
	}
}

// fail ends the link for the reason why. Called with mu held, and so the TCP
// connection is closed: TLS would try to say goodbye first, for seconds.
func (l *link) fail(why *Error) {
	if l.why == nil {
		l.why = why
		l.raw.Close()
	}
}

// read serves the link until it ends, and returns why.
func (c *Client) read(l *link) *Error {
	for {
		f, err := l.next()
		if err == nil {
			err = c.handle(l, f)
		}
		if err == nil {
			continue
		}
		c.mu.Lock()
		if l.why == nil {
			l.why = err
		}
		err = l.why
		c.mu.Unlock()
		return err
	}
}

// next returns the next frame that is no heartbeat; it is good until the call after.
func (l *link) next() (*proto.Frame, *Error) {
	for {
		payload, n, err := proto.Next(l.buf[l.r:l.w], l.maxRead)
		if err != nil {
			return nil, wrap(ErrProtocol, err)
		}
		l.r += n
		switch {
		case n == 0:
			if err := l.fill(); err != nil {
				return nil, err
			}
		case proto.IsHeartbeat(payload):
		default:
			if err := proto.Decode(payload, &l.frame); err != nil {
				return nil, wrap(ErrProtocol, err)
			}
			l.frameSize = n
			return &l.frame, nil
		}
	}
}

// fill reads more bytes behind those in buf[r:w].
func (l *link) fill() *Error {
	rest := l.w - l.r
	switch {
	case rest == 0 && len(l.buf) != readBuffer:
		l.buf = make([]byte, readBuffer)
	case l.r == 0 && l.w == len(l.buf): // a frame larger than the buffer
		bigger := make([]byte, 2*len(l.buf))
		copy(bigger, l.buf)
		l.buf = bigger
	default:
		copy(l.buf, l.buf[l.r:l.w])
	}
	l.r, l.w = 0, rest
	n, err := l.conn.Read(l.buf[l.w:])
	l.w += n
	l.lastRead.Store(int64(l.pool.now()))
	if n == 0 && err != nil {
		return asError(err, ErrDisconnected)
	}
	return nil
}

// handle serves one frame.
func (c *Client) handle(l *link, f *proto.Frame) *Error {
	switch b := f.GetBody().(type) {
	case *proto.Frame_SendAck:
		c.onAck(l, f.GetId(), b.SendAck)
	case *proto.Frame_Events:
		return c.onEvents(l, b.Events.GetEvents())
	case *proto.Frame_Error:
		err := fromWire(b.Error)
		if f.GetId() == 0 {
			return err
		}
		c.onError(l, f.GetId(), err)
	case *proto.Frame_CaughtUp:
		c.onCaughtUp(l, b.CaughtUp.GetSeq())
	case *proto.Frame_Hint:
		c.onHint(b.Hint)
	case *proto.Frame_GoAway:
		c.onGoAway(l, b.GoAway)
	default:
		if f.GetId() != 0 {
			c.onAnswer(l, f)
		}
	}
	return nil
}

// onGoAway plans to leave at a random moment of the window, so that a draining
// server's clients do not all knock at the next one's door at once.
func (c *Client) onGoAway(l *link, g *proto.GoAway) {
	c.mu.Lock()
	defer c.mu.Unlock()
	window := min(time.Duration(g.GetWindowMs())*time.Millisecond, maxRetryAfter)
	l.leaveAt = c.pool.now() + jitter(window)
	c.wake(l.leaveAt)
}

// write appends a frame to what is to be written. Called with mu held.
func (c *Client) write(l *link, f *proto.Frame) error {
	if l.out == nil {
		l.out = c.pool.buffer()
	}
	start := len(*l.out)
	b, err := proto.AppendFrame(*l.out, f)
	size := len(b) - start - proto.HeaderLen
	if most := int(c.limits.GetMaxFrameBytes()); err == nil && size > most {
		b = b[:start]
		err = &proto.FrameError{Code: proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, Size: size, Max: most}
	}
	*l.out = b
	c.kick(l)
	return err
}

// notify writes a one-way frame, unless too much waits already.
func (c *Client) notify(l *link, f *proto.Frame) {
	if l.out == nil || len(*l.out) < maxUnwritten {
		c.write(l, f)
	}
}

// kick has a writer run. Called with mu held, by the link's reader, by methods
// and by the pool: none of them may be stopped by a slow network. A goroutine
// per burst costs less than a microsecond, and what comes while it is being
// scheduled goes into the same write.
func (c *Client) kick(l *link) {
	if !l.flushing && c.ended == nil {
		l.flushing = true
		c.wg.Add(1)
		go c.flush(l)
	}
}

// flush writes until there is nothing more. It also stores the session, since
// that may block too, and since an ack must not go out before.
func (c *Client) flush(l *link) {
	defer c.wg.Done()
	c.mu.Lock()
	defer c.mu.Unlock()
	for c.link == l && l.why == nil {
		if l.ackNow || c.dirty {
			l.ackNow, l.ackAt = false, 0
			if err := c.store(l); err != nil {
				l.fail(err)
				break
			}
			continue
		}
		b := l.out
		if b == nil || len(*b) == 0 {
			break
		}
		l.out = nil
		l.lastWrite = c.pool.now()
		l.writeStart = l.lastWrite
		c.mu.Unlock()
		_, err := l.conn.Write(*b)
		c.pool.recycle(b)
		c.mu.Lock()
		l.writeStart = 0
		if err != nil {
			l.fail(asError(err, ErrDisconnected))
		}
	}
	if l.out != nil && len(*l.out) == 0 {
		c.pool.recycle(l.out)
		l.out = nil
	}
	l.flushing = false
}

// store saves the session and acknowledges its cursor. Called with mu held,
// which it gives up meanwhile.
func (c *Client) store(l *link) *Error {
	c.mu.Unlock()
	cur, err := c.save()
	c.mu.Lock()
	if err != nil {
		return asError(err, ErrStore)
	}
	if cur.Seq > l.acked && cur.Epoch == c.session.Cursor.Epoch {
		l.acked = cur.Seq
		c.inbox.bytes = 0
		c.write(l, &proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: cur.Seq}}})
	}
	return nil
}

// tick does what is due. The pool calls it.
func (c *Client) tick() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.alarmAt = 0
	l := c.link
	if l == nil || l.why != nil || c.ended != nil {
		return
	}
	now := c.pool.now()
	c.watch(l, now)
	if l.ackAt > 0 && now >= l.ackAt {
		l.ackAt, l.ackNow = 0, true
		c.kick(l)
	}
	if l.refreshAt > 0 && now >= l.refreshAt {
		c.refresh(l, now)
	}
	if l.resyncAt > 0 && now >= l.resyncAt {
		c.resync(l)
	}
	c.leave(l, now)
	c.outbox.unpark(now)
	c.pump(l)
	c.schedule(l, now)
}

// watch keeps the connection alive, and ends it when it is not.
func (c *Client) watch(l *link, now time.Duration) {
	read := time.Duration(l.lastRead.Load())
	switch {
	case now >= read+l.dead:
		l.fail(localError(ErrDisconnected, nil, "nothing came for %v", (now - read).Round(time.Millisecond)))
		return
	case l.writeStart > 0 && now >= l.writeStart+c.opts.WriteTimeout:
		l.fail(localError(ErrDisconnected, nil, "a write did not end in %v", c.opts.WriteTimeout))
		return
	case len(l.open) > 0 && now >= l.lastAnswer+c.opts.RequestTimeout:
		l.fail(localError(ErrDisconnected, nil, "no request was answered for %v", c.opts.RequestTimeout))
		return
	}
	// A quiet server is asked even if this side is not quiet.
	quiet := max(min(l.lastWrite, read), l.lastProbe)
	if now >= quiet+l.heartbeat {
		l.lastProbe = now
		if l.out == nil {
			l.out = c.pool.buffer()
		}
		*l.out = proto.AppendHeartbeat(*l.out)
		c.kick(l)
	}
}

// leave follows a GoAway when its moment has come.
func (c *Client) leave(l *link, now time.Duration) {
	if l.leaveAt == 0 || now < l.leaveAt {
		return
	}
	l.leaving = true
	if len(l.open) == 0 || now >= l.leaveAt+leaveGrace {
		l.fail(localError(ErrDisconnected, nil, "the server asked to go elsewhere"))
	}
}

// schedule asks for the next tick.
func (c *Client) schedule(l *link, now time.Duration) {
	read := time.Duration(l.lastRead.Load())
	at := min(read+l.dead, max(min(l.lastWrite, read), l.lastProbe)+l.heartbeat)
	for _, t := range [...]time.Duration{l.ackAt, l.refreshAt, l.resyncAt, c.outbox.nextRetry(now, l.pausedUntil)} {
		if t > 0 {
			at = min(at, t)
		}
	}
	if l.writeStart > 0 {
		at = min(at, l.writeStart+c.opts.WriteTimeout)
	}
	if len(l.open) > 0 {
		at = min(at, l.lastAnswer+c.opts.RequestTimeout)
	}
	switch {
	case l.leaving:
		at = min(at, now+wheelTick)
	case l.leaveAt > 0:
		at = min(at, l.leaveAt)
	}
	c.wake(at)
}
