package storage

import (
	"sync"
	"time"
)

// finish notes that a task has nothing more to deliver; l.mu is held. The home
// is told when that has been so for TaskLinger: a talk that goes on raises the
// row that is there, and many that have ended are told of in one commit. Until
// then the row says less than is so, which costs whoever takes it over a look.
func (l *lane) finish(sp *span) {
	sp.since = time.Now()
	l.listDone(sp)
}

func (l *lane) listDone(sp *span) {
	if sp.inDone {
		return
	}
	sp.inDone = true
	l.done = append(l.done, sp)
	select {
	case l.s.tasks.told[l.home.idx] <- struct{}{}:
	default:
	}
}

// tellLoop tells a home of the tasks that are done.
func (s *Store) tellLoop(home *shard) {
	for pause, more := s.opt.TaskLinger, false; ; {
		if !more {
			select {
			case <-s.closing:
			case <-s.tasks.told[home.idx]:
			}
		}
		sleep(s.closing, pause)
		if s.isClosing() {
			s.tasks.flying.Wait()
			_, _ = s.tell(home, 0) // else the next Open does
			return
		}
		var err error
		if more, err = s.tell(home, s.opt.TaskLinger); err == nil {
			pause = s.opt.TaskLinger
			continue
		}
		home.metrics.taskFails.Inc()
		pause = min(2*pause, max(s.opt.TaskLinger, s.opt.RetryMax))
	}
}

// tell tells home of what has been done for that long, a batch at a time, and
// reports whether there is more, which is not due.
func (s *Store) tell(home *shard, age time.Duration) (more bool, err error) {
	for {
		g := gathering{slots: s.slots.Load(), until: time.Now().Add(-age)}
		for _, l := range s.tasks.lanes[home.idx] {
			l.takeDone(&g)
			l.hand(g.strays)
			g.strays = nil
		}
		if len(g.ops) == 0 {
			return g.more, nil
		}
		var wg sync.WaitGroup
		wg.Add(len(g.ops))
		for _, o := range g.ops {
			o.done = wg.Done
			s.enqueue(o)
		}
		wg.Wait()
		for _, o := range g.ops {
			if o.err != nil {
				return true, o.err
			}
		}
	}
}

// gathering collects what a home is told.
type gathering struct {
	slots  *slotMap
	until  time.Time
	ops    []*completeOp
	strays []owing
	more   bool
}

func (l *lane) takeDone(g *gathering) {
	l.mu.Lock()
	defer l.mu.Unlock()
	left := l.done[:0]
	for _, sp := range l.done {
		slot := sp.key.Conv.Slot()
		home := g.slots.owner[slot]
		switch {
		case l.spans[sp.key] != sp, sp.working, sp.queued:
			sp.inDone = false
		case g.slots.frozen[slot]:
			l.s.pokeSlots()
			left = append(left, sp)
			g.more = true
		case sp.since.After(g.until), len(g.ops) == laneBatch:
			left = append(left, sp)
			g.more = true
		case home >= 0 && int(home) != l.home.idx:
			l.forget(sp)
			g.strays = append(g.strays, owing{Task: Task{Key: sp.key, NextRev: sp.next, ToRev: sp.to}})
		default:
			sp.inDone = false
			g.ops = append(g.ops, newCompleteOp(l, sp))
		}
	}
	clear(l.done[len(left):])
	l.done = left
}

// told is the end of a completeOp: gone says that the row is, or is another
// node's. If it is neither, the op has raised it anew.
func (l *lane) told(sp *span, gone bool, err error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	switch {
	case l.spans[sp.key] != sp:
	case err != nil:
		l.listDone(sp)
	case gone && !sp.working && !sp.queued && sp.next > sp.to:
		l.home.metrics.drained.Inc()
		l.forget(sp)
	}
}
