package client

import (
	"context"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Target is whom a message is for. Messages to the same Target arrive in the
// order in which they were sent; use one form for one conversation.
type Target struct {
	user int64
	conv string
}

// User is the 1:1 conversation with a user; the own id is the conversation with
// one's own devices.
func User(id int64) Target { return Target{user: id} }

// Conversation is one that the server has given a key for.
func Conversation(key []byte) Target { return Target{conv: string(key)} }

// Ack says that a message is durable, and where it stands.
type Ack struct {
	// SendID is set in a failed send, too, unless no id was made yet.
	SendID       SendID
	Conversation []byte
	Rev, ConvSeq uint64
	Time         time.Time
	Durability   proto.Durability
}

const (
	busyDelay    = 50 * time.Millisecond // first wait after a refusal without a hint
	maxBusyDelay = 5 * time.Second
	maxInternal  = 5 // so many INTERNAL answers and a message has failed
	maxSent      = 4096
)

// outgoing is one message until it is acked. Its frame is part of it: one
// allocation a message.
type outgoing struct {
	id         SendID
	done       func(Ack, error)
	lane       *lane
	prev, next *outgoing
	gone       bool // its answer interests nobody any more
	internal   uint8

	frame proto.Frame
	body  proto.Frame_Send
	req   proto.SendRequest
	user  proto.SendRequest_ToUserId
	conv  proto.SendRequest_Conversation
}

// lane is the messages to one target, in order. After a retryable refusal the
// server refuses everything behind it; the lane then waits until all answers
// are there, and starts again at the earliest message left, alone, with
// resume_order. When that is acked the rest follows.
type lane struct {
	target     Target
	head, tail *outgoing
	next       *outgoing // the first that is not on its way
	open       int
	refusals   int
	refused    bool          // waits for the answers to the rest
	hint       time.Duration // the longest retry_after of this refusal
	retryAt    time.Duration // parked until then
	parked     bool
	resume     bool // set resume_order on the next
	alone      bool // one at a time until an ack comes
	ready      bool // in outbox.ready
}

// outbox is everything unacked. All of it is Client.mu's.
type outbox struct {
	lanes  map[Target]*lane
	ready  []*lane // with something to send, served in turn
	parked []*lane // after a refusal
	count  int
}

// Send sends one message and waits until it is durable. It survives lost
// connections: the message goes out again, under the same id, until the server
// says yes or no. If ctx ends first the error is ErrCanceled, and the message
// may or may not arrive: only SendWithID with Ack.SendID tells.
func (c *Client) Send(ctx context.Context, to Target, content *proto.Content) (Ack, error) {
	return c.SendWithID(ctx, SendID{}, to, content)
}

// SendWithID is Send under an id of the caller's, made by NewSendID: store it
// together with the content, and after a crash send both again. The zero id
// has one made.
func (c *Client) SendWithID(ctx context.Context, id SendID, to Target, content *proto.Content) (Ack, error) {
	type result struct {
		ack Ack
		err error
	}
	ch := make(chan result, 1)
	o, err := c.post(id, to, content, func(a Ack, err error) { ch <- result{a, err} })
	if err != nil {
		return Ack{SendID: id}, err
	}
	select {
	case r := <-ch:
		return r.ack, r.err
	case <-ctx.Done():
	}
	c.mu.Lock()
	c.abandon(o)
	id = o.id
	c.mu.Unlock()
	select {
	case r := <-ch: // just in time
		return r.ack, r.err
	default:
		return Ack{SendID: id}, localError(ErrCanceled, ctx.Err(), "no ack yet")
	}
}

// SendAsync sends one message and returns at once; done gets what Send would
// return. It runs on the connection's reader: it must not block, and may call
// SendAsync. If SendAsync fails (ErrOutboxFull, ErrClosed, …), done is not
// called. content must not be changed afterwards.
func (c *Client) SendAsync(id SendID, to Target, content *proto.Content, done func(Ack, error)) error {
	_, err := c.post(id, to, content, done)
	return err
}

// NewSendID makes an id on server time, above all that this client made. It
// fails before the first Welcome: until then nobody knows server time.
func (c *Client) NewSendID() (SendID, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !c.clock.known {
		return SendID{}, localError(ErrDisconnected, nil, "server time is not known before the first connection")
	}
	return c.ids.next(c.serverTime()), nil
}

// Outbox is how many messages wait for their ack.
func (c *Client) Outbox() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.outbox.count
}

func (c *Client) post(id SendID, to Target, content *proto.Content, done func(Ack, error)) (*outgoing, error) {
	if to.user <= 0 && to.conv == "" {
		return nil, localError(ErrInvalidArgument, nil, "no target")
	}
	if content == nil {
		return nil, localError(ErrInvalidArgument, nil, "no content")
	}
	o := &outgoing{id: id, done: done}
	if to.conv != "" {
		o.conv.Conversation = []byte(to.conv)
		o.req.Target = &o.conv
	} else {
		o.user.ToUserId = to.user
		o.req.Target = &o.user
	}
	o.req.Content = content
	o.body.Send = &o.req
	o.frame.Body = &o.body

	c.mu.Lock()
	defer c.mu.Unlock()
	switch {
	case c.ended != nil:
		return nil, localError(ErrClosed, c.ended, "")
	case c.outbox.count >= c.opts.MaxOutbox:
		return nil, localError(ErrOutboxFull, nil, "%d messages wait", c.outbox.count)
	case c.limits != nil && len(content.GetBody()) > int(c.limits.GetMaxContentBytes()):
		return nil, localError(ErrContentTooLarge, nil, "%d bytes, at most %d are allowed", len(content.GetBody()), c.limits.GetMaxContentBytes())
	}
	if o.id.IsZero() && c.clock.known {
		o.id = c.ids.next(c.serverTime())
	}
	c.outbox.add(to, o)
	c.pump(c.link)
	return o, nil
}

func (b *outbox) add(to Target, o *outgoing) {
	ln := b.lanes[to]
	if ln == nil {
		if b.lanes == nil {
			b.lanes = map[Target]*lane{}
		}
		ln = &lane{target: to}
		b.lanes[to] = ln
	}
	o.lane, o.prev = ln, ln.tail
	if ln.tail != nil {
		ln.tail.next = o
	} else {
		ln.head = o
	}
	ln.tail = o
	if ln.next == nil {
		ln.next = o
	}
	b.count++
	b.offer(ln)
}

// remove takes o out of its lane; an answer may still come.
func (b *outbox) remove(o *outgoing) {
	ln := o.lane
	if ln.next == o {
		ln.next = o.next
	}
	if o.prev != nil {
		o.prev.next = o.next
	} else {
		ln.head = o.next
	}
	if o.next != nil {
		o.next.prev = o.prev
	} else {
		ln.tail = o.prev
	}
	o.prev, o.next, o.gone = nil, nil, true
	b.count--
}

// offer puts the lane into the queue of those that may send.
func (b *outbox) offer(ln *lane) {
	switch {
	case ln.ready, ln.refused, ln.parked, ln.next == nil, ln.alone && ln.open > 0:
	default:
		ln.ready = true
		b.ready = append(b.ready, ln)
	}
}

// restart readies everything for a new connection: all of it goes out again.
func (b *outbox) restart() {
	clear(b.ready)
	b.ready, b.parked = b.ready[:0], nil
	for _, ln := range b.lanes {
		ln.next, ln.open, ln.hint = ln.head, 0, 0
		ln.refused, ln.parked, ln.resume, ln.ready = false, false, false, false
		b.retire(ln)
		b.offer(ln)
	}
}

// retire drops a lane that is empty. At a new connection it has forgotten its
// refusals; the server has, too.
func (b *outbox) retire(ln *lane) {
	if ln.head == nil && ln.open == 0 && !ln.ready && !ln.parked {
		delete(b.lanes, ln.target)
	}
}

// park has the lane wait after a refusal: for the server's hint, or else a
// while that doubles.
func (b *outbox) park(ln *lane, now time.Duration) {
	bound := min(maxBusyDelay, busyDelay<<min(ln.refusals, 10))
	ln.refusals++
	ln.refused, ln.parked = false, true
	ln.retryAt = now + ln.hint + bound/2 + jitter(bound/2)
	ln.hint = 0
	ln.next, ln.resume, ln.alone = ln.head, true, true
	b.parked = append(b.parked, ln)
}

func (b *outbox) unpark(now time.Duration) {
	rest := b.parked[:0]
	for _, ln := range b.parked {
		if now < ln.retryAt {
			rest = append(rest, ln)
			continue
		}
		ln.parked = false
		b.retire(ln)
		b.offer(ln)
	}
	clear(b.parked[len(rest):])
	b.parked = rest
}

// nextRetry is when unpark or the end of a pause has something to do, 0: never.
func (b *outbox) nextRetry(now, pausedUntil time.Duration) (at time.Duration) {
	for _, ln := range b.parked {
		if at == 0 || ln.retryAt < at {
			at = ln.retryAt
		}
	}
	if pausedUntil > now && (at == 0 || pausedUntil < at) {
		at = pausedUntil
	}
	return at
}

// takeAll empties the outbox and returns what was in it, in order by lane.
func (b *outbox) takeAll() (all []*outgoing) {
	for _, ln := range b.lanes {
		for o := ln.head; o != nil; o = o.next {
			o.gone = true
			all = append(all, o)
		}
	}
	*b = outbox{}
	return all
}

// abandon gives a message up, with mu held.
func (c *Client) abandon(o *outgoing) {
	if o.gone {
		return
	}
	c.outbox.remove(o)
	c.outbox.retire(o.lane)
}

// pump sends what may be sent: other requests first, then messages, lane by
// lane. Called with mu held; l may be nil.
func (c *Client) pump(l *link) {
	if l == nil || l.why != nil || l.leaving {
		return
	}
	now := c.pool.now()
	if now < l.pausedUntil {
		return
	}
	most := int(c.limits.GetMaxInFlight())
	for len(c.calls) > 0 && len(l.open) < most {
		k := c.calls[0]
		c.calls[0] = nil
		c.calls = c.calls[1:]
		c.sendCall(l, k, now)
	}
	// A part is kept for other requests, so that messages do not starve them.
	messages := most - min(4, most/4)
	b := &c.outbox
	for len(b.ready) > 0 && len(l.open) < most && l.sends < messages {
		ln := b.ready[0]
		b.ready[0] = nil
		b.ready = b.ready[1:]
		ln.ready = false
		if o := ln.next; o != nil {
			c.sendNext(l, ln, o, now)
		}
		b.retire(ln)
		b.offer(ln)
	}
}

func (c *Client) sendNext(l *link, ln *lane, o *outgoing, now time.Duration) {
	if o.id.IsZero() {
		o.id = c.ids.next(c.serverTime())
	}
	o.req.SendId = o.id[:]
	o.req.ResumeOrder = ln.resume
	l.lastID++
	o.frame.Id = l.lastID
	if err := c.write(l, &o.frame); err != nil {
		c.outbox.remove(o)
		// Not with mu held, and not before the caller knows that it was taken.
		e := asError(err, ErrFrameTooLarge)
		e.Retryable = false
		c.wg.Add(1)
		go func() { defer c.wg.Done(); o.done(Ack{SendID: o.id}, e) }()
		return
	}
	ln.next, ln.resume = o.next, false
	ln.open++
	l.sends++
	c.track(l, pending{send: o}, now)
	if l.sent == nil || len(l.sent) >= maxSent {
		l.sent = map[SendID]*proto.Content{}
	}
	l.sent[o.id] = o.req.Content
}

// track notes the request that lastID was given to.
func (c *Client) track(l *link, p pending, now time.Duration) {
	if len(l.open) == 0 {
		l.lastAnswer = now
		c.wake(now + c.opts.RequestTimeout)
	}
	l.open[l.lastID] = p
}

// answered takes the open request id out, with mu held.
func (c *Client) answered(l *link, id uint64) pending {
	p := l.open[id]
	delete(l.open, id)
	l.lastAnswer = c.pool.now()
	if p.send != nil {
		l.sends--
		p.send.lane.open--
	}
	if l.leaving {
		c.leave(l, l.lastAnswer)
	}
	return p
}

func (c *Client) onAck(l *link, id uint64, a *proto.SendAck) {
	c.mu.Lock()
	o := c.answered(l, id).send
	if o == nil {
		c.mu.Unlock()
		return
	}
	ln := o.lane
	gone := o.gone
	if !gone {
		c.outbox.remove(o)
	}
	ln.refusals, ln.alone = 0, false
	c.proceed(l, ln)
	c.mu.Unlock()
	if !gone {
		o.done(Ack{
			SendID: o.id, Conversation: a.GetConversation(), Rev: a.GetRev(), ConvSeq: a.GetConvSeq(),
			Time: time.UnixMicro(a.GetTimeUs()), Durability: a.GetDurability(),
		}, nil)
	}
}

// proceed goes on with a lane after one of its answers.
func (c *Client) proceed(l *link, ln *lane) {
	if ln.refused && ln.open == 0 {
		c.outbox.park(ln, c.pool.now())
		c.wake(ln.retryAt)
	}
	c.outbox.retire(ln)
	c.outbox.offer(ln)
	c.pump(l)
}

// onError serves an error that answers a request.
func (c *Client) onError(l *link, id uint64, err *Error) {
	c.mu.Lock()
	p := c.answered(l, id)
	if err.Kind == ErrRateLimited {
		l.pausedUntil = max(l.pausedUntil, c.pool.now()+max(err.RetryAfter, busyDelay))
		c.wake(l.pausedUntil)
	}
	if p.send == nil {
		c.pump(l)
		c.mu.Unlock()
		if p.call != nil {
			p.call.done(nil, err)
		}
		return
	}
	o, ln := p.send, p.send.lane
	failed := !err.Retryable
	if err.Kind == ErrInternal {
		o.internal++
		failed = failed || o.internal >= maxInternal
	}
	if err.Retryable {
		ln.refused = true
		ln.hint = max(ln.hint, err.RetryAfter)
	}
	delete(l.sent, o.id)
	failed = failed && !o.gone
	if failed {
		c.outbox.remove(o)
	}
	c.proceed(l, ln)
	c.mu.Unlock()
	if failed {
		o.done(Ack{SendID: o.id}, err)
	}
}
