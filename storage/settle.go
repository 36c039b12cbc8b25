package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"slices"
	"time"
)

// settle brings a failed batch to an end while nothing else of this committer
// runs: it is tried again as it is until it succeeds, or its time is over.
//
//	ErrUnknown      again, with the same ops: whatever guards a send against
//	                its own retry (the dedupe row) guards it against ours.
//	ErrSlotMoved    read the slot map, put everything back in line: see adopt.go.
//	ErrBusy and the like  again, after a pause.
//	(both not when the shard answers nobody: see breaker)
//	ErrFull         nobody waits for a disk: refuse what takes room, with all of
//	                it that queued behind.
//	anything else   some op's fault: bisect, so that only that op suffers.
func (c *committer) settle(b *batch) {
	err, pause := b.err, c.s.opt.RetryMin
	for {
		var out error
		switch {
		case err == nil:
			c.drop(b)
			return
		case errors.Is(err, ErrFull):
			c.full(b, err)
			return
		case errors.Is(err, ErrClosed) || c.s.ctx.Err() != nil:
			out = fmt.Errorf("%w: %w", ErrClosed, err)
		case errors.Is(err, ErrUnknown), errors.Is(err, context.Canceled): // the latter: see watch
			c.m.retry("unknown")
			for _, o := range b.ops {
				o.head().again = true
			}
			out = c.sh.breakers.commits.given()
		case errors.Is(err, ErrSlotMoved):
			c.m.retry("slot_moved")
			if c.s.isClosing() {
				out = fmt.Errorf("%w: %w", ErrClosed, err)
			}
		case errors.Is(err, ErrBusy), errors.Is(err, ErrUnavailable):
			c.m.retry("busy")
			out = c.sh.breakers.commits.given()
			if c.s.isClosing() {
				out = fmt.Errorf("%w: %w", ErrClosed, err) // nothing happened: no reason to stay
			}
		default:
			c.bisect(b, err)
			return
		}
		if out == nil && len(b.ops) > 0 && c.s.opt.Now().Sub(b.ops[0].head().queued) > c.s.opt.CommitTimeout {
			out = fmt.Errorf("%w: tried for %v: %w", ErrUnavailable, c.s.opt.CommitTimeout, err)
		}
		if out != nil {
			c.shed(b, out)
			return
		}
		if errors.Is(err, ErrSlotMoved) {
			c.moved(b)
			return
		}
		sleep(c.s.ctx.Done(), jitter(pause))
		pause = min(2*pause, c.s.opt.RetryMax)
		err = c.commitWait(b)
	}
}

// commitWait commits b and waits until it is durable or has failed.
func (c *committer) commitWait(b *batch) error {
	b.landed = make(chan error, 1)
	if err := c.commit(b); err != nil {
		c.back(b, err)
		return err
	}
	return <-b.landed
}

func (c *committer) drop(b *batch) {
	c.mu.Lock()
	c.recycle(b)
	c.mu.Unlock()
}

// full refuses the sends of a batch and all that queued behind, for lack of
// room. Everything else is tried by itself: what needs no room (retention,
// finished tasks, a revocation) was only in the wrong company, and without the
// first of these there would never be any.
func (c *committer) full(b *batch, err error) {
	if len(b.ops) == 1 && !isSend(b.ops[0]) {
		b.ops[0].answer(err)
		c.drop(b)
		return
	}
	c.mu.Lock()
	var sends, rest []op
	for _, o := range c.takeAll(b) {
		if isSend(o) {
			sends = append(sends, o)
		} else {
			rest = append(rest, o)
		}
	}
	c.refuse(sends, err)
	for i, o := range rest {
		c.behind = rest[i+1:]
		c.part([]op{o})
		if c.behind == nil {
			return // shed meanwhile
		}
	}
	c.behind = nil
}

func isSend(o op) bool {
	_, send := o.(*appendOp)
	return send
}

// shed refuses a batch, those that failed after it and all that queued behind:
// were a later send of a conversation to succeed after an earlier one was
// refused, the order would be lost. Until all are told, new ops are refused
// too, since their callers cannot know yet.
func (c *committer) shed(b *batch, err error) {
	c.mu.Lock()
	c.refuse(c.takeAll(b), err)
}

// takeAll empties b and returns its ops and all that come after it, in order.
// c.mu is held.
func (c *committer) takeAll(b *batch) []op {
	ops := slices.Concat(b.ops, c.behind)
	c.behind = nil
	for _, f := range c.failed {
		for _, o := range f.ops {
			o.head().again = true // what its own error says is not looked at
		}
		ops = append(ops, f.ops...)
		c.recycle(f)
	}
	c.failed = c.failed[:0]
	c.recycle(b)
	return append(ops, c.emptyQueue()...)
}

// emptyQueue takes all that is queued. c.mu is held.
func (c *committer) emptyQueue() []op {
	ops := slices.Clone(c.queue)
	clear(c.queue)
	c.queue, c.bytes = c.queue[:0], 0
	return ops
}

// refuse tells ops why they are not done. c.mu is held, and free afterwards.
func (c *committer) refuse(ops []op, err error) {
	c.refusing = err
	c.telling++
	c.mu.Unlock()
	if len(ops) > 0 {
		c.m.shed.Add(float64(len(ops)))
		c.s.log.Warn().Err(err).Uint32("shard", uint32(c.sh.ID())).Int("operations", len(ops)).Msg("refused operations")
	}
	for _, o := range ops {
		o.answer(err)
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.telling--; c.telling == 0 {
		c.refusing = nil
	}
}

// sleep waits for d, or until stop is closed.
func sleep(stop <-chan struct{}, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-stop:
	}
}

// jitter returns half to all of d.
func jitter(d time.Duration) time.Duration { return d/2 + rand.N(d/2+1) }
