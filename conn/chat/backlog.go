package chat

import (
	"context"
	"errors"
	"sync"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// backlog holds sessions that have the right to read and found no reader, or
// an error. It offers them again at a pace: a timer each would be a storm just
// when the shard is in trouble. Each shard has its queue, so that the first
// refusal speaks for all behind it, and for none of the others'.
type backlog struct {
	c    *Chat
	wake chan struct{} // of capacity 1

	mu     sync.Mutex
	lanes  map[storage.ShardID]*pumpLane
	failed []failedPump // due ascending
}

// pumpLane is the sessions that wait for readers of one shard.
type pumpLane struct {
	queue []*session
	rest  time.Time // the shard answers nobody: not before
}

type failedPump struct {
	s   *session
	due time.Time
}

const (
	backlogTick = 20 * time.Millisecond
	failedPause = time.Second
)

func newBacklog(c *Chat) *backlog {
	return &backlog{c: c, wake: make(chan struct{}, 1), lanes: make(map[storage.ShardID]*pumpLane)}
}

// add takes a session: busy, if there was only no reader. s.mu may be held.
func (b *backlog) add(s *session, busy bool) {
	b.mu.Lock()
	if busy {
		b.queue(s)
	} else {
		b.failed = append(b.failed, failedPump{s, time.Now().Add(failedPause)})
	}
	b.mu.Unlock()
	select {
	case b.wake <- struct{}{}:
	default:
	}
}

// queue lets s wait for a reader. b.mu is held.
func (b *backlog) queue(s *session) {
	id, _ := b.c.store.ShardOf(s.id.user.Slot()) // without an owner it is refused, and waits
	l := b.lanes[id]
	if l == nil {
		l = new(pumpLane)
		b.lanes[id] = l
	}
	l.queue = append(l.queue, s)
}

func (b *backlog) run() {
	defer b.c.work.Done()
	for {
		select {
		case <-b.c.ctx.Done():
			return
		case <-b.wake:
		}
		for b.round(time.Now()) {
			if !b.c.sleep(backlogTick) {
				return
			}
		}
	}
}

// round offers what is ready, and reports whether anything is left. Sessions
// that have ended are offered, too: their pump sees it at once.
func (b *backlog) round(now time.Time) (more bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	n := 0
	for ; n < len(b.failed) && !b.failed[n].due.After(now); n++ {
		b.queue(b.failed[n].s)
	}
	rest := copy(b.failed, b.failed[n:])
	clear(b.failed[rest:])
	b.failed = b.failed[:rest]
	more = rest > 0
	for _, l := range b.lanes {
		if !l.rest.After(now) {
			b.offer(l, now)
		}
		more = more || len(l.queue) > 0
	}
	return more
}

// offer gives a lane's sessions to readers, as long as there are any.
func (b *backlog) offer(l *pumpLane, now time.Time) {
	for len(l.queue) > 0 {
		s := l.queue[0]
		err := b.c.store.Go(s.id.user.Slot(), func(ctx context.Context) { b.c.pump(ctx, s) })
		if err != nil {
			if !errors.Is(err, storage.ErrBusy) {
				l.rest = now.Add(failedPause)
			}
			return
		}
		l.queue[0] = nil
		l.queue = l.queue[1:]
	}
	l.queue = nil
}
