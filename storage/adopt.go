package storage

import (
	"fmt"
	"slices"
	"time"
)

// How slots move under a committer's hands (R5).
//
// A committer goes by the slot map that it has adopted, and adopts a newer one
// only with nothing of its own in flight. It then looks at everything queued,
// oldest first. What needs a slot that is frozen is parked, and taken up again
// with the map that says where the slot went. What belongs to another shard now
// is handed to the committer there, in order, and only with that (Store.route)
// do new operations of the slot go there, too: each conversation stays in one
// queue, first in, first out.
//
// The first design gave away what a failed batch held and left the rest to the
// map: a send made a moment later could be committed at the new shard before
// one that was still queued at the old.

// standing is what a committer can do with an op.
type standing uint8

const (
	standHere  standing = iota // take it
	standWait                  // park it: a slot that it needs is frozen
	standAway                  // hand it to where its slot is now
	standAsk                   // ask its recipient's shard first: see farUsers
	standSplit                 // its rows are on several shards now
)

// standOf is the standing, at shard idx, of an op that needs all of slots here.
func (m *slotMap) standOf(idx int, slots ...Slot) standing {
	st := standHere
	for i, slot := range slots {
		switch {
		case !m.open(slot):
			return standWait
		case int(m.owner[slot]) == idx:
		case i == 0:
			st = standAway
		case st == standHere:
			st = standSplit
		}
	}
	if st == standAway && len(slots) > 1 {
		for _, slot := range slots[1:] {
			if m.owner[slot] != m.owner[slots[0]] {
				return standSplit
			}
		}
	}
	return st
}

func (h *opHead) stand(m *slotMap, idx int) standing { return m.standOf(idx, h.slot) }

func (h *opHead) needs(slot Slot) bool { return h.slot == slot }

// park lets an op wait for its slots. c.mu is held.
func (c *committer) park(o op) {
	c.parked = append(c.parked, o)
	c.parkedBytes += o.head().size
	if len(c.parked) == 1 {
		c.s.waiting.Add(1)
		c.s.pokeSlots()
	}
}

// unpark empties the parking lot. c.mu is held.
func (c *committer) unpark() []op {
	ops := c.parked
	c.parked, c.parkedBytes = nil, 0
	if len(ops) > 0 {
		c.s.waiting.Add(-1)
	}
	return ops
}

// stale reports whether there is a newer map that concerns this shard, or
// perhaps what is parked. One that does not is adopted at once. c.mu is held.
func (c *committer) stale() bool {
	m := c.s.slots.Load()
	if m == c.slots {
		return false
	}
	if len(c.parked) > 0 || m.differs(c.slots, c.sh.idx) {
		return true
	}
	c.slots = m
	return false
}

// adopt takes the newest map, with nothing in flight.
func (c *committer) adopt() {
	s := c.s
	s.handMu.Lock()
	s.far.mu.Lock()
	c.mu.Lock()
	c.slots, c.review = s.slots.Load(), false
	ops := append(c.unpark(), c.queue...)
	c.queue, c.bytes = nil, 0
	sorted := c.sort(ops)
	c.requeue(sorted[standHere])
	for _, o := range sorted[standWait] {
		c.park(o)
	}
	asks := s.far.ask(sorted[standAsk])
	refused := append(c.handOver(sorted[standAway]), sorted[standSplit]...)
	c.mu.Unlock()
	s.far.mu.Unlock()
	s.handMu.Unlock()
	for _, ask := range asks {
		ask()
	}
	for _, o := range refused {
		o.answer(c.elsewhere())
	}
}

// sort groups ops by what becomes of them. c.mu is held.
func (c *committer) sort(ops []op) (sorted [standSplit + 1][]op) {
	asked := map[ConvKey]bool{}
	for _, o := range ops {
		st := o.stand(c.slots, c.sh.idx)
		if st == standWait && !o.head().patient {
			st = standSplit // whoever made it tries again
		}
		if a, ok := o.(*appendOp); ok && (st == standAsk || st == standHere && asked[a.a.Conv]) {
			st, asked[a.a.Conv] = standAsk, true // behind those that must ask
		}
		sorted[st] = append(sorted[st], o)
	}
	return sorted
}

// elsewhere is why an op cannot stay and has nowhere to go.
func (c *committer) elsewhere() error {
	if c.s.isClosing() {
		return ErrClosed
	}
	c.s.pokeSlots() // who tries again shall find a map of now
	return fmt.Errorf("%w: a slot that it needs is on the move", ErrBusy)
}

// handOver moves ops, and the slots that this committer had, to where those are
// now. It returns the ops that find nobody there. Store.handMu and c.mu are
// held; no other code holds the locks of two committers.
func (c *committer) handOver(ops []op) (refused []op) {
	to := map[*committer][]op{}
	for _, o := range ops {
		slot := o.head().slot
		n := c.s.shards[c.slots.owner[slot]].committerOf(slot)
		to[n] = append(to[n], o)
	}
	for n, ops := range to {
		n.mu.Lock()
		if n.closed {
			refused = append(refused, ops...)
		} else {
			n.append(ops)
		}
		n.mu.Unlock()
		n.signal()
	}
	for slot := range Slot(Slots) {
		if int(c.s.route[slot].Load()) == c.sh.idx && c.slots.open(slot) && c.sh.committerOf(slot) == c {
			c.s.route[slot].Store(int32(c.slots.owner[slot]))
		}
	}
	return refused
}

// append queues ops behind all others, whatever the bounds: they were accepted
// before. Their waiting counts anew. c.mu is held.
func (c *committer) append(ops []op) {
	now := c.s.opt.Now()
	for _, o := range ops {
		o.head().queued = now
		c.bytes += o.head().size
	}
	c.queue = append(c.queue, ops...)
}

// requeue puts ops before all others: they are older. c.mu is held.
func (c *committer) requeue(ops []op) {
	c.bytes += sizes(ops)
	c.queue = slices.Concat(ops, c.queue)
}

func sizes(ops []op) (n int) {
	for _, o := range ops {
		n += o.head().size
	}
	return n
}

// crowded reports whether o would be parked where too much is parked. c.mu is
// held.
func (c *committer) crowded(o op) bool {
	opt := &c.s.opt
	return (len(c.parked) >= opt.Queue || c.parkedBytes >= opt.QueueBytes) && o.stand(c.slots, c.sh.idx) == standWait
}

// expire refuses what has been parked for CommitTimeout, with everything that
// waits for the same slots or came after it: were a later send of a
// conversation to succeed, its order would be lost.
func (c *committer) expire() {
	c.mu.Lock()
	late := c.lateSlots()
	if len(late) == 0 {
		c.mu.Unlock()
		return
	}
	waits := func(o op) bool { return slices.ContainsFunc(late, o.needs) }
	var ops []op
	out := func(o op) bool {
		gone := waits(o)
		if gone {
			ops = append(ops, o)
		}
		return gone
	}
	if c.parked = slices.DeleteFunc(c.parked, out); len(c.parked) == 0 {
		c.s.waiting.Add(-1)
	}
	c.queue = slices.DeleteFunc(c.queue, out)
	c.parkedBytes, c.bytes = sizes(c.parked), sizes(c.queue)
	c.barred = waits
	c.mu.Unlock()
	err := error(ErrClosed)
	if !c.s.isClosing() {
		err = fmt.Errorf("%w: slot %d has been on the move for %v", ErrUnavailable, late[0], c.s.opt.CommitTimeout)
		c.s.log.Warn().Err(err).Uint32("shard", uint32(c.sh.ID())).Int("operations", len(ops)).Msg("refused operations")
	}
	c.m.shed.Add(float64(len(ops)))
	for _, o := range ops {
		o.answer(err)
	}
	c.mu.Lock()
	c.barred = nil
	c.mu.Unlock()
}

// late reports whether o has been parked for too long. c.mu is held.
func (c *committer) late(o op, now time.Time) bool {
	return c.closed || now.Sub(o.head().came) > c.s.opt.CommitTimeout
}

func (c *committer) anyLate() bool {
	if len(c.parked) == 0 {
		return false
	}
	now := c.s.opt.Now()
	return slices.ContainsFunc(c.parked, func(o op) bool { return c.late(o, now) })
}

// lateSlots are those that something has been parked for too long for. c.mu is
// held.
func (c *committer) lateSlots() (late []Slot) {
	now := c.s.opt.Now()
	for _, o := range c.parked {
		if !c.late(o, now) || slices.ContainsFunc(late, o.needs) {
			continue
		}
		for slot := range Slot(Slots) {
			if !c.slots.open(slot) && o.needs(slot) {
				late = append(late, slot)
			}
		}
	}
	return late
}

// moved is settle's part when the engine says that a slot has moved: the claims
// of this shard, which just answered, are read again, and everything that
// failed goes back to the queue, to be looked at with the new map.
func (c *committer) moved(b *batch) {
	was := c.slots
	ctx, cancel := c.s.timeout()
	if err := c.s.learn(ctx, c.sh, was); err != nil {
		c.s.log.Warn().Err(err).Msg("reading the slot map again")
	}
	cancel()
	c.mu.Lock()
	ops := slices.Concat(b.ops, c.behind)
	c.behind = nil
	c.recycle(b)
	for _, f := range c.failed {
		for _, o := range f.ops {
			o.head().again = true // what its own error says is not looked at
		}
		ops = append(ops, f.ops...)
		c.recycle(f)
	}
	c.failed = c.failed[:0]
	c.requeue(ops)
	c.mu.Unlock()
	if now := time.Now(); c.s.slots.Load() != was || now.Sub(c.movedAt) > 2*c.s.opt.RetryMax {
		c.pause, c.movedAt = 0, now
		return
	}
	c.movedAt = time.Now()
	c.pause = min(max(2*c.pause, c.s.opt.RetryMin), c.s.opt.RetryMax)
	sleep(c.s.ctx.Done(), jitter(c.pause))
}
