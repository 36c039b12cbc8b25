package bench

import "time"

// outbox holds one sender's messages from the moment they are due until they
// are answered, in order. Counters run without holes: msgs[i] is base+i.
type outbox struct {
	base uint64
	msgs []pending
	// next is the first one not yet written on this connection.
	next int
	// flight are the open requests, in the order in which they were written.
	flight []flight
	// held: a retryable refusal came. Nothing is written until what is in
	// flight is answered (the server refuses it too) and the time has come;
	// then all goes again, in order, the first with resume_order.
	held, resume bool
	holdUntil    time.Duration
	backoff      time.Duration
	// answered is when the last answer came, or the connection began.
	answered time.Duration
}

// flight is an open request: ids rise on a connection, so a message that goes
// again has a new one.
type flight struct{ id, counter uint64 }

// pending is one message.
type pending struct {
	intended time.Duration
	done     bool // answered for good
	written  bool // on some connection
}

const (
	minHold = 20 * time.Millisecond
	maxHold = time.Second
	// answerTimeout: a request open for so long is taken for lost.
	answerTimeout = 20 * time.Second
)

func (o *outbox) push(intended time.Duration) {
	o.msgs = append(o.msgs, pending{intended: intended})
}

// take returns the next message to write, if one may be written now. The
// caller writes it and says under which id, by wrote.
func (o *outbox) take(limit int) (counter uint64, m *pending, resume, ok bool) {
	if o.held || len(o.flight) >= limit {
		return 0, nil, false, false
	}
	for o.next < len(o.msgs) && o.msgs[o.next].done {
		o.next++
	}
	if o.next == len(o.msgs) {
		return 0, nil, false, false
	}
	m = &o.msgs[o.next]
	counter, resume = o.base+uint64(o.next), o.resume
	o.next++
	o.resume = false
	return counter, m, resume, true
}

// wrote opens a request.
func (o *outbox) wrote(id, counter uint64, at time.Duration) {
	if len(o.flight) == 0 {
		o.answered = at // the wait for the oldest one begins
	}
	o.flight = append(o.flight, flight{id, counter})
}

// land closes a request. Answers may come in any order, and nearly always come
// in that of the requests.
func (o *outbox) land(id uint64, at time.Duration) (counter uint64, ok bool) {
	for i := range o.flight {
		if o.flight[i].id != id {
			continue
		}
		counter = o.flight[i].counter
		if i == 0 {
			o.flight = o.flight[1:]
		} else {
			o.flight = append(o.flight[:i], o.flight[i+1:]...)
		}
		o.answered = at
		return counter, true
	}
	return 0, false
}

// settle marks a message as answered for good, and returns when it was due.
func (o *outbox) settle(counter uint64) (intended time.Duration) {
	m := &o.msgs[counter-o.base]
	m.done = true
	intended = m.intended
	o.backoff = 0
	n := 0
	for n < len(o.msgs) && o.msgs[n].done {
		n++
	}
	o.msgs = o.msgs[n:]
	o.base += uint64(n)
	o.next = max(o.next-n, 0)
	return intended
}

// hold notes a retryable refusal.
func (o *outbox) hold(at, retryAfter time.Duration) {
	if !o.held {
		o.backoff = min(max(2*o.backoff, minHold), maxHold)
		o.held = true
	}
	o.holdUntil = max(o.holdUntil, at+max(retryAfter, o.backoff))
}

// release ends a hold whose time has come.
func (o *outbox) release(at time.Duration) {
	if o.held && len(o.flight) == 0 && at >= o.holdUntil {
		o.held, o.resume, o.next = false, true, 0
	}
}

// rewind makes everything unanswered go again, on a new connection.
func (o *outbox) rewind(at time.Duration) {
	o.next, o.flight, o.held, o.resume, o.answered = 0, o.flight[:0], false, false, at
}

// stuck reports whether an answer is overdue.
func (o *outbox) stuck(at time.Duration) bool {
	return len(o.flight) > 0 && at-o.answered > answerTimeout
}

// dropUnwritten takes back the messages that no connection ever carried.
func (o *outbox) dropUnwritten() (n int) {
	for len(o.msgs) > 0 && !o.msgs[len(o.msgs)-1].written {
		o.msgs = o.msgs[:len(o.msgs)-1]
		n++
	}
	o.next = min(o.next, len(o.msgs))
	return n
}
