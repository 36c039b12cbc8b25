package storage

import (
	"fmt"
	"slices"
)

// How a batch that the engine refuses for good is taken apart. One of its ops is
// to blame, and only that gets the engine's error. But what was sent after it in
// the same conversation cannot go on either: who sent it may well send it again
// (it is INTERNAL to a client, which may be told the next time what was a state
// of the engine, and not the op's fault), and would find itself overtaken. So
// these are refused with ErrUnavailable (some may have been tried already), up to
// the last one that queued before its caller could know. At first they went on, as if a refusal for good were final
// to everybody.

// bisect finds the op that the engine refuses for good, by halves.
func (c *committer) bisect(b *batch, err error) {
	c.m.retry("bisect")
	if len(b.ops) == 1 {
		c.s.log.Error().Err(err).Uint32("shard", uint32(c.sh.ID())).Uint16("slot", uint16(b.ops[0].head().slot)).
			Msg("the shard refuses an operation for good")
		if a, ok := b.ops[0].(*appendOp); ok {
			c.cursed = append(c.cursed, a.a.Conv)
		}
		b.ops[0].answer(err)
		c.drop(b)
		return
	}
	half, outer := len(b.ops)/2, c.behind
	c.behind = slices.Concat(b.ops[half:], outer)
	c.part(b.ops[:half])
	if c.behind != nil { // not shed meanwhile
		c.behind = outer
		c.part(b.ops[half:])
	}
	c.drop(b)
}

// part commits some of a batch by themselves.
func (c *committer) part(ops []op) {
	var late []op
	c.mu.Lock()
	b := c.newBatch()
	c.mu.Unlock()
	for _, o := range ops {
		if c.isCursed(o) {
			late = append(late, o)
		} else {
			b.ops = append(b.ops, o)
		}
	}
	c.tellLate(late)
	if len(b.ops) == 0 {
		c.drop(b)
		return
	}
	b.err = c.commitWait(b)
	c.settle(b)
}

// isCursed reports whether o belongs to a conversation of which an earlier op
// has just been refused for good.
func (c *committer) isCursed(o op) bool {
	a, ok := o.(*appendOp)
	return ok && slices.Contains(c.cursed, a.a.Conv)
}

// tellLate refuses what was sent after an op that was refused for good.
func (c *committer) tellLate(ops []op) {
	c.m.shed.Add(float64(len(ops)))
	for _, o := range ops {
		o.answer(fmt.Errorf("%w: an earlier entry of the conversation was refused", ErrUnavailable))
	}
}

// lift ends what bisect has begun: all that queued behind is told, too.
func (c *committer) lift() {
	if len(c.cursed) == 0 {
		return
	}
	var late []op
	out := func(o op) bool {
		gone := c.isCursed(o)
		if gone {
			late = append(late, o)
		}
		return gone
	}
	c.mu.Lock()
	c.failed = slices.DeleteFunc(c.failed, func(f *batch) bool {
		if f.ops = slices.DeleteFunc(f.ops, out); len(f.ops) > 0 {
			return false
		}
		c.recycle(f)
		return true
	})
	c.queue = slices.DeleteFunc(c.queue, out)
	c.bytes = sizes(c.queue)
	c.barred = c.isCursed
	c.mu.Unlock()
	c.tellLate(late)
	c.mu.Lock()
	c.barred, c.cursed = nil, nil
	c.mu.Unlock()
}
