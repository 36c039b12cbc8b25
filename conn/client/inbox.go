package client

import (
	"context"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// inbox is the way of events (and of all else that callbacks are told) from the
// reader to the application. All of it is Client.mu's.
//
// Three places in the user's log, never out of order: acknowledged ≤ applied
// (Session.Cursor) ≤ received. Hello names the applied one; what comes again up
// to the received one is dropped; what comes beyond the next one is a gap.
type inbox struct {
	received Cursor
	// lineage rises when events in the queue stop being the continuation of
	// the applied ones; those of an older lineage are skipped.
	lineage uint64
	queue   []item
	spare   []item // the queue's other backing array
	events  int    // in queue, or being applied
	bytes   int    // of events that were applied since the last ack, about
	running bool   // a deliver goroutine lives
}

// item is one thing to tell the application.
type item struct {
	events   []*proto.Event
	state    *State
	hint     *proto.Hint
	reset    *proto.Reset
	caughtUp bool
	lineage  uint64
	link     *link // for reset
	bytes    int   // for events
}

// maxHints: hints are dropped while so many things wait to be told.
const maxHints = 256

// enqueue is called with mu held.
//
// Callbacks do not run on the reader: a callback that sends and waits for the
// ack would wait for the reader, that is, for itself. The goroutine ends when
// there is nothing more to tell, so that an idle client has one goroutine.
func (c *Client) enqueue(it item) {
	q := &c.inbox
	it.lineage = q.lineage
	q.queue = append(q.queue, it)
	if !q.running {
		q.running = true
		c.wg.Add(1)
		go c.deliver()
	}
}

func (c *Client) deliver() {
	defer c.wg.Done()
	for {
		c.mu.Lock()
		items := c.inbox.queue
		if len(items) == 0 {
			c.inbox.running = false
			c.mu.Unlock()
			return
		}
		c.inbox.queue, c.inbox.spare = c.inbox.spare[:0], nil
		c.mu.Unlock()
		for i := range items {
			c.tell(&items[i])
			items[i] = item{}
		}
		if cap(items) <= maxHints {
			c.mu.Lock()
			c.inbox.spare = items[:0]
			c.mu.Unlock()
		}
	}
}

func (c *Client) tell(it *item) {
	switch {
	case it.events != nil:
		c.apply(it)
	case it.state != nil:
		c.opts.OnState(c, *it.state)
	case it.hint != nil:
		c.opts.OnHint(c, it.hint)
	case it.reset != nil:
		c.rebuild(it)
	case it.caughtUp:
		c.opts.OnCaughtUp(c)
	}
}

// current reports whether it still continues what was applied.
func (c *Client) current(it *item) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return it.lineage == c.inbox.lineage && c.ended == nil
}

func (c *Client) apply(it *item) {
	ok := c.current(it)
	if ok && c.opts.OnEvents != nil {
		c.opts.OnEvents(c, it.events)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	c.inbox.events -= len(it.events)
	if !ok || it.lineage != c.inbox.lineage || !c.session.HasCursor { // logged out meanwhile
		return
	}
	c.session.Cursor.Seq = it.events[len(it.events)-1].GetSeq()
	c.behind = true
	c.inbox.bytes += it.bytes
	c.acknowledge()
}

// ackBytes is a quarter of the window in bytes, which no Welcome tells.
const ackBytes = 32 << 10

// acknowledge plans the delivery ack: at once for a quarter of the window, else
// after AckDelay.
func (c *Client) acknowledge() {
	l := c.link
	if l == nil || l.why != nil || c.ended != nil {
		return
	}
	seq := c.session.Cursor.Seq
	switch {
	case seq <= l.acked:
	case seq-l.acked >= uint64(max(c.limits.GetEventWindow()/4, 1)), c.inbox.bytes >= ackBytes:
		l.ackNow = true
		c.kick(l)
	case l.ackAt == 0:
		l.ackAt = c.pool.now() + c.opts.AckDelay
		c.wake(l.ackAt)
	}
}

// reset puts a Reset in front of the application, with mu held. Events that
// still wait are of no use: the rebuild covers them.
func (c *Client) reset(l *link, r *proto.Reset) {
	l.cancel()
	l.ctx, l.cancel = context.WithCancel(c.ctx)
	l.held, l.syncing, l.resyncAt = nil, false, 0
	c.inbox.lineage++
	c.inbox.received = Cursor{Epoch: r.GetResume().GetEpoch(), Seq: r.GetResume().GetSeq()}
	l.acked = c.inbox.received.Seq
	c.enqueue(item{reset: r, link: l})
}

// rebuild has the application rebuild. Only then does the cursor move: if it
// fails, or the process ends, the server says Reset again. (The specification
// moves the cursor first and keeps a flag; that lets events in during a rebuild,
// and asks of the application that the two merge. This way it need not.)
func (c *Client) rebuild(it *item) {
	if !c.current(it) {
		return
	}
	if c.opts.OnReset != nil {
		c.mu.Lock()
		ctx := it.link.ctx
		c.mu.Unlock()
		if err := c.opts.OnReset(ctx, c, it.reset); err != nil {
			c.mu.Lock()
			defer c.mu.Unlock()
			if it.lineage == c.inbox.lineage {
				c.inbox.lineage++
				c.inbox.received = c.session.Cursor
				it.link.fail(wrap(ErrRebuild, err))
			}
			return
		}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if it.lineage != c.inbox.lineage {
		return
	}
	r := it.reset.GetResume()
	c.session.Cursor, c.session.HasCursor = Cursor{Epoch: r.GetEpoch(), Seq: r.GetSeq()}, true
	c.dirty = true
	if l := c.link; l != nil && l.why == nil {
		c.kick(l)
	}
}

// maxVain: after so many Syncs in a row that did not fill a gap, try another
// connection.
const maxVain = 5

// onEvents takes what continues the log, drops what is known, and fetches what
// is missing.
func (c *Client) onEvents(l *link, events []*proto.Event) *Error {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.take(l, events, l.frameSize)
}

// take is onEvents with mu held; size is that of the frame they came in.
func (c *Client) take(l *link, events []*proto.Event, size int) *Error {
	q := &c.inbox
	for len(events) > 0 && events[0].GetSeq() <= q.received.Seq {
		events = events[1:] // known
	}
	n := 0
	for n < len(events) && events[n].GetSeq() == q.received.Seq+1+uint64(n) {
		n++
	}
	if n > 0 {
		if len(l.sent) > 0 {
			l.complete(events[:n])
		}
		q.received.Seq += uint64(n)
		q.events += n
		c.enqueue(item{events: events[:n:n], bytes: size})
	}
	if n < len(events) {
		if events[n].GetSeq() <= q.received.Seq {
			return localError(ErrProtocol, nil, "events out of order: %d after %d", events[n].GetSeq(), q.received.Seq)
		}
		c.hold(l, events[n:])
	}
	if l.caughtUp > 0 && q.received.Seq+1 >= l.caughtUp {
		l.caughtUp = 0
		if c.opts.OnCaughtUp != nil {
			c.enqueue(item{caughtUp: true})
		}
	}
	if q.events+len(l.held) > c.mostEvents() {
		return localError(ErrProtocol, nil, "%d events are unacknowledged, the window is %d", q.events, c.limits.GetEventWindow())
	}
	return nil
}

// mostEvents bounds the queue: a window, what one Sync may add to it, and as
// much again, since a connection may have been lost with a full one.
func (c *Client) mostEvents() int {
	return 2 * int(c.limits.GetEventWindow()+c.limits.GetMaxSyncEvents())
}

// hold keeps events that came after a gap until the gap is filled; those beyond
// the window are dropped, to be another gap.
func (c *Client) hold(l *link, events []*proto.Event) {
	if len(l.held)+len(events) <= int(c.limits.GetEventWindow()) {
		l.held = append(l.held, events...)
	}
	if !l.syncing && l.resyncAt == 0 {
		c.resync(l)
	}
}

// complete puts the content back into own messages.
func (l *link) complete(events []*proto.Event) {
	for _, ev := range events {
		m := ev.GetMessage()
		if m == nil || len(m.GetSendId()) != len(SendID{}) {
			continue
		}
		id := SendID(m.GetSendId())
		if content, ok := l.sent[id]; ok {
			delete(l.sent, id)
			if m.Content == nil {
				m.Content = content
			}
		}
	}
}

func (c *Client) onCaughtUp(l *link, seq uint64) {
	c.mu.Lock()
	defer c.mu.Unlock()
	l.caughtUp = seq + 1
	if seq > c.inbox.received.Seq {
		c.resync(l)
		return
	}
	c.take(l, nil, 0)
}

func (c *Client) onHint(h *proto.Hint) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.opts.OnHint != nil && len(c.inbox.queue) < maxHints {
		c.enqueue(item{hint: h})
	}
}

// resync asks for what comes after the received events, with mu held. No gap
// should ever be: the specification has a client reconnect then. That comes to
// the same with a bigger hammer: a Sync on the same connection leaves the open
// requests alone, and if it does not help either, the connection ends. Not while
// the application is a window behind, or the queue would have no bound.
func (c *Client) resync(l *link) {
	l.resyncAt = 0
	if l.syncing || l.why != nil {
		return
	}
	if c.inbox.events > int(c.limits.GetEventWindow()) {
		c.resyncAfter(l, busyDelay)
		return
	}
	l.syncing = true
	cur := &proto.Cursor{Epoch: c.inbox.received.Epoch, Seq: c.inbox.received.Seq}
	k := &call{
		frame: &proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cur, Limit: c.limits.GetMaxSyncEvents()}}},
		done:  func(f *proto.Frame, err error) { c.onSync(l, cur, f, err) },
	}
	c.calls = append(c.calls, k)
	c.pump(l)
}

func (c *Client) onSync(l *link, asked *proto.Cursor, f *proto.Frame, err error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.link != l || l.why != nil || !l.syncing || asked.Epoch != c.inbox.received.Epoch {
		return
	}
	l.syncing = false
	r := f.GetSyncResponse()
	switch {
	case err != nil:
		if e := asError(err, ErrDisconnected); e.Retryable {
			c.resyncAfter(l, max(e.RetryAfter, busyDelay))
		} else {
			l.fail(wrap(ErrProtocol, e))
		}
		return
	case r == nil:
		l.fail(localError(ErrProtocol, nil, "sync was answered by something else"))
		return
	case r.GetReset_() != nil:
		c.reset(l, r.GetReset_())
		return
	}
	before := c.inbox.received.Seq
	held := l.held
	l.held = nil
	e := c.take(l, r.GetEvents(), l.frameSize)
	if e == nil && len(held) > 0 {
		e = c.take(l, held, 0)
	}
	if c.inbox.received.Seq > before {
		l.vain = 0
	}
	switch {
	case e != nil:
		l.fail(e)
	case l.syncing || l.resyncAt > 0: // the held ones showed another gap
	case !r.GetCaughtUp() && c.inbox.received.Seq > before:
		c.resync(l)
	case l.caughtUp > 0 || !r.GetCaughtUp(): // the server knows of more, and did not give it
		if l.vain++; l.vain > maxVain {
			l.fail(localError(ErrProtocol, nil, "no event after %d, though there are some", c.inbox.received.Seq))
			return
		}
		c.resyncAfter(l, busyDelay)
	}
}

// resyncAfter plans a resync, with mu held.
func (c *Client) resyncAfter(l *link, d time.Duration) {
	l.resyncAt = c.pool.now() + d
	c.wake(l.resyncAt)
}
