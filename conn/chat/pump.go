package chat

import (
	"context"
	"errors"
	"fmt"
	"sync"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

// Push hands live events to the sessions of this node (router.Local). It never
// blocks: what cannot be forwarded now is read from storage later.
func (c *Chat) Push(ds []router.Delivery) (found int) {
	b := c.bursts.Get().(*burst)
	for i := range ds {
		b.found = c.table.find(storage.UserID(ds[i].User), b.found[:0])
		for _, s := range b.found {
			c.push(b, s, &ds[i])
		}
		if len(b.found) > 0 {
			found++
			if isNotice(ds[i].Event) {
				c.recheck(storage.UserID(ds[i].User))
			}
		}
	}
	for _, s := range b.touched {
		s.mu.Lock()
		c.flush(s, b)
		s.mu.Unlock()
	}
	clear(b.found[:cap(b.found)])
	clear(b.touched)
	b.found, b.touched = b.found[:0], b.touched[:0]
	c.bursts.Put(b)
	return found
}

// burst is what one Push needs; pooled.
type burst struct {
	found   []*session
	touched []*session // have events in pend
	frame   []byte
}

// push offers one event to one session.
func (c *Chat) push(b *burst, s *session, d *router.Delivery) {
	event := d.Event
	if d.OriginEvent != nil && d.Origin == s.conn.ID() {
		event = d.OriginEvent
	}
	lim, size := c.limits.Load(), proto.EventSize(d.Seq, len(event))
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	v := s.flow.push(d.Seq, size, lim)
	c.metrics.pushes[v].Inc()
	switch v {
	case forward:
		if s.pend == nil {
			b.touched = append(b.touched, s)
		}
		c.put(s, b, d.Seq, event, markIn(event, s.id.user), size, lim)
	case gap:
		c.startPump(s)
	}
}

// put appends the next event to the session's burst. s.mu is held.
func (c *Chat) put(s *session, b *burst, seq uint64, event []byte, m mark, size int, lim *Limits) {
	if s.pend != nil && len(*s.pend)+size > pageBytes {
		c.flush(s, b)
	}
	if s.pend == nil {
		s.pend = c.buffers.get()
	}
	*s.pend = proto.AppendEventSeq(*s.pend, seq, event)
	s.flow.note(seq, size, m, lim, &c.windows)
}

// flush hands the session's burst to the outbox, as one frame. s.mu is held.
func (c *Chat) flush(s *session, b *burst) {
	if s.pend == nil {
		return
	}
	b.frame = proto.AppendEventsFrame(b.frame[:0], *s.pend)
	c.buffers.put(s.pend)
	s.pend = nil
	_ = s.conn.SendBytes(b.frame) // fails on a closed connection only: Closed follows
}

// buffers is the pool of event buffers.
type buffers struct{ pool sync.Pool }

func (p *buffers) get() *[]byte {
	if b, ok := p.pool.Get().(*[]byte); ok {
		return b
	}
	return new([]byte)
}

func (p *buffers) put(b *[]byte) {
	*b = (*b)[:0]
	p.pool.Put(b)
}

// startPump begins a storage read that sends all up to the newest event, or
// until the window is full. It is the one way in which events get to a session
// other than by live push: for resume, gaps, a window that opens again and what
// the audit finds. s.mu is held.
func (c *Chat) startPump(s *session) {
	s.flow.reading = true
	c.enqueuePump(s)
}

// enqueuePump takes a reader for a session that has the right to read.
func (c *Chat) enqueuePump(s *session) {
	err := c.store.Go(s.id.user.Slot(), func(ctx context.Context) { c.pump(ctx, s) })
	if err != nil {
		c.backlog.add(s, errors.Is(err, storage.ErrBusy))
	}
}

// pumpPages is how many pages a session may read before others that wait for a
// reader have their turn. A reader's time is bounded too: a long backlog would
// end in the middle, as if the shard had failed.
const pumpPages = 16

// pump sends page after page. A panic in it costs that session only.
func (c *Chat) pump(ctx context.Context, s *session) {
	defer func() {
		if p := recover(); p != nil {
			c.panicked(s, p)
		}
	}()
	c.metrics.pumps.Inc()
	for range pumpPages {
		after, events, bytes := c.pumpNext(s)
		if events == 0 {
			return
		}
		page, err := c.store.Sync(ctx, s.id.user, after, events, bytes)
		if err != nil {
			c.pumpFailed(s, err)
			return
		}
		more, fault := c.putPage(s, after, &page)
		if fault != nil {
			c.log.Warn().Err(fault).Int64("user", int64(s.id.user)).Uint64("conn", s.conn.ID()).Msg("session closed: its events cannot be continued")
			c.closeSession(s, fault)
		}
		if !more {
			return
		}
	}
	c.enqueuePump(s)
}

// pumpNext says what to read next. Where there is nothing, or no room, it gives
// the right to read back; whoever learns of more, or of an ack, starts anew.
func (c *Chat) pumpNext(s *session) (after uint64, events, bytes int) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return 0, 0, 0
	}
	after, events, bytes = s.flow.next(c.limits.Load())
	if events > 0 {
		return after, events, bytes
	}
	s.flow.reading = false
	c.tellCaughtUp(s)
	return 0, 0, 0
}

// tellCaughtUp sends CaughtUp the first time that everything known is sent.
// s.mu is held, nothing is pending.
func (c *Chat) tellCaughtUp(s *session) {
	if s.flow.caughtUp || s.flow.known > s.flow.sent {
		return
	}
	s.flow.caughtUp = true
	_ = s.conn.Send(&proto.Frame{Body: &proto.Frame_CaughtUp{CaughtUp: &proto.CaughtUp{Seq: s.flow.sent}}})
}

// pumpFailed keeps the right to read and comes back to it.
func (c *Chat) pumpFailed(s *session, err error) {
	c.metrics.pumpFailures.Inc()
	c.often.Warn().Err(err).Int64("user", int64(s.id.user)).Msg("reading events for a session failed; trying again")
	c.backlog.add(s, false)
}

// putPage sends one page of rows that follow `after`. If a row does not fit the
// window any more, it gives the right to read back, and more is false: reading
// that row again before an ack has come would be a busy loop.
func (c *Chat) putPage(s *session, after uint64, page *storage.Page) (more bool, _ *proto.Fault) {
	b := c.bursts.Get().(*burst)
	defer c.bursts.Put(b)
	lim := c.limits.Load()
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false, nil
	}
	if after < page.Head.Floor {
		// Retention went past a device that did not read. Only a new Hello can
		// carry the Reset.
		return false, proto.Errorf(proto.ErrorCode_ERROR_CODE_SLOW_CONSUMER, "events were deleted before this device has read them")
	}
	f := &s.flow
	f.known = max(f.known, page.Head.Seq)
	if len(page.Rows) == 0 {
		f.known = f.sent // what was announced is not there; the audit looks again
	}
	var scratch []byte
	for i := range page.Rows {
		row := &page.Rows[i]
		if row.Seq != f.sent+1 {
			return false, proto.Errorf(proto.ErrorCode_ERROR_CODE_INTERNAL, "").
				WithCause(fmt.Errorf("chat: inbox of %d has a hole: %d follows %d", row.User, row.Seq, f.sent))
		}
		scratch = appendEvent(scratch[:0], &row.Entry, false)
		size := proto.EventSize(row.Seq, len(scratch))
		if !f.fits(size, lim) {
			f.reading = false
			break
		}
		c.put(s, b, row.Seq, scratch, markOf(&row.Entry, s.id.user), size, lim)
		c.metrics.pumped.Inc()
	}
	c.flush(s, b)
	return f.reading, nil
}

// deliveryAck takes a cumulative acknowledgement; there is no answer.
func (c *Chat) deliveryAck(s *session, f *proto.Frame) (park bool) {
	c.acknowledge(s, f.GetDeliveryAck().Seq)
	return false
}

// acknowledge opens the window, and goes on reading if that was shut.
func (c *Chat) acknowledge(s *session, seq uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	before := s.flow.acked
	if !s.flow.ack(seq, &c.windows, s.fold) {
		c.metrics.nonsense.Inc()
		return
	}
	s.unstored = s.unstored || s.flow.acked > before
	if s.isDirty() {
		c.marks.add(s)
	}
	if s.flow.wants(c.limits.Load()) {
		c.startPump(s)
	}
}
