package chat

import (
	"context"
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

// The directory is a help, not a judge. Where it does not answer, logins go on:
// a session that could not be registered serves all the same (its own sends,
// syncs and what is pushed on this node), misses pushes from other nodes until
// the audit finds it behind, and is registered as soon as the directory is
// back. An older login is found by the audit, which asks storage.

const (
	// attachTimeout bounds what a login waits for the directory, detachTimeout
	// what the end of a session costs one of the leavers, onlineTimeout a list
	// of devices.
	attachTimeout, detachTimeout, onlineTimeout = 500 * time.Millisecond, 2 * time.Second, 500 * time.Millisecond
	// rejoinEvery is how often what is not registered is tried again.
	rejoinEvery = 2 * time.Second
	// leavers is how many sessions are taken out of the directory at once,
	// maxLeaving how many may wait for that. What is left in there does no
	// harm: it leads to a node that says that the user is not here.
	leavers    = 8
	maxLeaving = 1 << 16
	// leaveGrace bounds the wait for them at Close.
	leaveGrace = time.Second
)

// attach takes the device slot in the directory; the connection that had it is
// kicked by the router. The fault says that s has lost against a newer one.
func (c *Chat) attach(ctx context.Context, s *session) *proto.Fault {
	defer storage.Leave(ctx)()
	ctx, cancel := context.WithTimeout(ctx, attachTimeout)
	defer cancel()
	a, err := c.router.Attach(ctx, int64(s.id.user), s.slot, s.conn.ID(), s.id.loginEpoch)
	if err != nil {
		c.metrics.attachFailures.Inc()
		c.often.Warn().Err(err).Int64("user", int64(s.id.user)).Msg("the directory does not answer; the session goes on without it")
		c.rejoin.add(s)
		return nil
	}
	return lostTo(a)
}

func lostTo(a router.Attached) *proto.Fault {
	switch {
	case a.Lost && a.NewLogin:
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_KICKED, "")
	case a.Lost:
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_REPLACED, "")
	}
	return nil
}

// online asks where a user is attached.
func (c *Chat) online(ctx context.Context, user storage.UserID) ([]router.Route, error) {
	defer storage.Leave(ctx)()
	ctx, cancel := context.WithTimeout(ctx, onlineTimeout)
	defer cancel()
	return c.router.Online(ctx, int64(user))
}

// rejoiner registers the sessions that the directory did not answer for.
type rejoiner struct {
	c    *Chat
	wake chan struct{} // of capacity 1

	mu      sync.Mutex
	waiting []outsider // in the order in which they came
}

// outsider is a session that is not in the directory.
type outsider struct {
	s    *session
	came uint64 // µs; orders it among the connections of its device
}

func newRejoiner(c *Chat) *rejoiner { return &rejoiner{c: c, wake: make(chan struct{}, 1)} }

func (j *rejoiner) add(s *session) {
	j.mu.Lock()
	j.waiting = append(j.waiting, outsider{s, uint64(j.c.now().UnixMicro())})
	j.mu.Unlock()
	select {
	case j.wake <- struct{}{}:
	default:
	}
}

func (j *rejoiner) run() {
	defer j.c.work.Done()
	for {
		select {
		case <-j.wake:
		case <-j.c.ctx.Done():
			return
		}
		for more := true; more; more = j.round() {
			if !j.c.sleep(rejoinEvery) {
				return
			}
		}
	}
}

// round registers one after the other until the directory fails again, and
// reports whether any are left.
func (j *rejoiner) round() (more bool) {
	j.mu.Lock()
	todo := j.waiting
	j.waiting = nil
	j.mu.Unlock()
	for i, o := range todo {
		s := o.s
		if s.isClosed() {
			continue
		}
		ctx, cancel := context.WithTimeout(j.c.ctx, attachTimeout)
		a, err := j.c.router.Rejoin(ctx, int64(s.id.user), s.slot, s.conn.ID(), s.id.loginEpoch, o.came)
		cancel()
		if err != nil {
			j.mu.Lock()
			j.waiting = append(todo[i:], j.waiting...)
			j.mu.Unlock()
			return true
		}
		if fault := lostTo(a); fault != nil {
			j.c.closeSession(s, fault)
		}
		if s.isClosed() {
			j.c.leaving.add(s) // its own detach came before this attach
		}
	}
	return false
}

// leaving takes sessions that have ended out of the directory, off the edge's
// workers: a directory that is slow must not keep them from the others' frames.
type leaving struct {
	c *Chat

	mu    sync.Mutex
	queue []*session
	busy  int
	idle  sync.WaitGroup
}

func newLeaving(c *Chat) *leaving { return &leaving{c: c} }

func (l *leaving) add(s *session) {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) >= maxLeaving {
		return
	}
	l.queue = append(l.queue, s)
	if l.busy < leavers {
		l.busy++
		l.idle.Go(l.run)
	}
}

func (l *leaving) next() *session {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.queue) == 0 {
		l.busy--
		l.queue = nil
		return nil
	}
	s := l.queue[0]
	l.queue[0] = nil
	l.queue = l.queue[1:]
	return s
}

func (l *leaving) run() {
	for s := l.next(); s != nil; s = l.next() {
		ctx, cancel := context.WithTimeout(l.c.ctx, detachTimeout)
		err := l.c.router.Detach(ctx, int64(s.id.user), s.slot, s.conn.ID())
		cancel()
		if err != nil {
			l.c.often.Debug().Err(err).Int64("user", int64(s.id.user)).Msg("detach failed; the directory forgets by itself")
		}
	}
}

// stop waits for those who are leaving, for leaveGrace; end is what then ends
// the rest.
func (l *leaving) stop(end context.CancelFunc) {
	timer := time.AfterFunc(leaveGrace, end)
	l.idle.Wait()
	timer.Stop()
	end()
}
