package client

import (
	"context"
	"time"
)

// verdict is what to do after a connection has ended.
type verdict uint8

const (
	retry     verdict = iota // at the next endpoint, after a wait
	retryNext                // at the next endpoint, at once
	retrySame                // at the same endpoint, at once
	giveUp
)

// attempt is what became of one connection.
type attempt struct {
	online  time.Duration // for how long; 0: it was never welcomed
	err     *Error
	verdict verdict
}

// run is the client's one lasting goroutine: it connects, reads until the
// connection breaks, waits, and connects again.
func (c *Client) run(endpoint int) {
	defer c.wg.Done()
	defer close(c.done)
	var t tally
	var last error // for those who wait for the first connection
	for {
		name := c.opts.Endpoints[endpoint%len(c.opts.Endpoints)]
		if !c.enter(State{Phase: Connecting, Endpoint: name, Err: last}) {
			return
		}
		a := c.connect(name)
		last = a.err
		if a.verdict == giveUp {
			c.finish(a.err)
			c.settle()
			return
		}
		if a.online >= c.opts.StableAfter {
			t = tally{}
		}
		if a.verdict != retrySame {
			endpoint++
		}
		// A drained server points to the others, until all of them are drained.
		if a.err.Kind == ErrDraining && a.online == 0 && t.draining < len(c.opts.Endpoints)-1 {
			t.draining++
			continue
		}
		if a.verdict != retry {
			continue
		}
		delay := c.delay(&t, a.err)
		select {
		case <-c.hurry: // meant for an earlier wait
		default:
		}
		if !c.enter(State{Phase: Waiting, Endpoint: name, RetryAt: time.Now().Add(delay), Err: a.err}) || !c.wait(delay) {
			return
		}
	}
}

// enter sets the state, unless the client has ended.
func (c *Client) enter(s State) bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.ended == nil {
		c.setState(s)
	}
	return c.ended == nil
}

// tally is what went wrong since the last stable connection.
type tally struct {
	failures int
	draining int // endpoints that said so in a row
	bugs     int // times that the server did not understand this client
}

const (
	maxBugs  = 3
	bugDelay = 10 * time.Minute
)

// delay is the wait before the next attempt. It is full jitter: any moment up to
// a bound that doubles with every failure, so that those who lost the same
// server do not come back together. A server's hint takes its place.
func (c *Client) delay(t *tally, err *Error) time.Duration {
	bound := c.opts.BackoffMax
	if t.failures < 20 {
		bound = min(bound, c.opts.BackoffBase<<t.failures)
	}
	t.failures++
	t.draining = 0
	if err.Code > 1000 && err.Code < 2000 && !err.Retryable {
		t.bugs++
	}
	switch {
	case t.bugs > maxBugs:
		return bugDelay + jitter(bugDelay/4)
	case err.RetryAfter > 0:
		return err.RetryAfter + jitter(err.RetryAfter/4)
	}
	return jitter(bound)
}

func (c *Client) wait(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-c.hurry:
	case <-c.ctx.Done():
		return false
	}
	return true
}

// settle stores what the end has changed. If that fails, Close tries again.
func (c *Client) settle() {
	c.mu.Lock()
	dirty := c.dirty
	c.mu.Unlock()
	if dirty {
		c.save()
	}
}

// connect makes one connection and stays until it ends.
func (c *Client) connect(endpoint string) attempt {
	ctx, cancel := context.WithTimeout(c.ctx, c.opts.ConnectTimeout)
	defer cancel()
	hello, err := c.hello()
	if err != nil {
		return attempt{err: err, verdict: verdictOf(err)}
	}
	conn, e := c.opts.dial(ctx, endpoint)
	if e != nil {
		return attempt{err: wrap(ErrDisconnected, e)}
	}
	defer conn.Close()
	defer context.AfterFunc(c.ctx, func() { rawConn(conn).Close() })()

	l := newLink(c.pool, conn)
	deadline, _ := ctx.Deadline()
	conn.SetDeadline(deadline)
	sent := c.pool.now()
	welcome, err := l.login(hello)
	if err != nil {
		return attempt{err: err, verdict: c.refused(hello, err)}
	}
	conn.SetDeadline(time.Time{})
	if err := c.welcome(l, hello, welcome, sent); err != nil {
		return attempt{err: err}
	}
	start := c.pool.now()
	err = c.read(l)
	c.offline(l)
	a := attempt{online: c.pool.now() - start, err: err, verdict: verdictOf(err)}
	// A server that always sends its clients away is like one that is down.
	if l.leaving && a.online >= c.opts.StableAfter {
		a.verdict = retryNext
	}
	return a
}

func verdictOf(err *Error) verdict {
	if err.terminal() {
		return giveUp
	}
	return retry
}
