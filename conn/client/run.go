package client

import (
	"context"
	"math/rand/v2"
	"time"
)

// verdict is what to do after a connection has ended.
type verdict uint8

const (
	retry verdict = iota
	retryAtOnce
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
	failures := 0
	for {
		name := c.opts.Endpoints[endpoint%len(c.opts.Endpoints)]
		if !c.enter(State{Phase: Connecting, Endpoint: name}) {
			return
		}
		a := c.connect(name)
		if a.verdict == giveUp {
			c.finish(a.err)
			c.settle()
			return
		}
		if a.online >= c.opts.StableAfter {
			failures = 0
		}
		if a.verdict == retryAtOnce {
			if a.online > 0 {
				endpoint++
			}
			continue
		}
		endpoint++
		delay := c.backoff(failures, a.err)
		failures++
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

// backoff is full jitter: any moment up to a bound that doubles with every
// failure, so that those who lost the same server do not come back together. A
// server's hint comes before it.
func (c *Client) backoff(failures int, err *Error) time.Duration {
	bound := c.opts.BackoffMax
	if failures < 20 {
		bound = min(bound, c.opts.BackoffBase<<failures)
	}
	return err.RetryAfter + rand.N(bound+1)
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
		return attempt{err: asError(e, ErrDisconnected)}
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
		a.verdict = retryAtOnce
	}
	return a
}

func verdictOf(err *Error) verdict {
	if err.terminal() {
		return giveUp
	}
	return retry
}
