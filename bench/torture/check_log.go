package torture

import "context"

// readLog reads a conversation and checks it against itself and against what
// was sent.
func (c *checker) readLog(ctx context.Context, conv uint32) error {
	log, err := c.stores.Log(ctx, c.h.keys[conv])
	if err != nil {
		return err
	}
	l := &convLog{key: log.Conv}
	c.logs[conv] = l
	before := entry{}
	newest := make(map[int32]uint32) // device → its newest message
	for i := range log.Entries {
		r := &log.Entries[i]
		e := entry{rev: uint32(r.Rev), convSeq: uint32(r.ConvSeq), sender: r.Sender, time: r.Time, kind: r.Kind}
		if r.Kind == KindMessage {
			e.message = c.stand(conv, r, newest)
		}
		c.follows(l, before, e)
		l.entries = append(l.entries, e)
		before = e
	}
	if log.Rev != uint64(before.rev) || log.ConvSeq != uint64(before.convSeq) {
		c.violated(I3, []uint32{before.message}, "conversation %v ends with rev %d, place %d; its head says %d, %d", l.key, before.rev, before.convSeq, log.Rev, log.ConvSeq)
	}
	return nil
}

// follows: revs rise by one, messages count places by one, times rise (I3).
func (c *checker) follows(l *convLog, before, e entry) {
	step := e.convSeq - before.convSeq
	if e.rev != before.rev+1 || step > 1 || step == 0 && e.kind == KindMessage {
		c.violated(I3, []uint32{before.message, e.message}, "conversation %v: rev %d, place %d comes after rev %d, place %d", l.key, e.rev, e.convSeq, before.rev, before.convSeq)
	}
	if e.time <= before.time {
		c.violated(I3, []uint32{before.message, e.message}, "conversation %v: rev %d was written at %d, the one before at %d", l.key, e.rev, e.time, before.time)
	}
}

// stand finds out which message an entry is, and notes where it stands.
func (c *checker) stand(conv uint32, r *Row, newest map[int32]uint32) uint32 {
	n := c.h.byID[r.SendID]
	if n == 0 {
		c.violated(I8, nil, "conversation %v: rev %d is a message that nobody sent (%x)", r.Conv, r.Rev, r.SendID)
		return 0
	}
	m := c.h.at(n)
	from, to := c.h.people[m.from].id, c.h.people[m.to].id
	if r.Sender != from || !r.Conv.of(from, to) {
		c.violated(I5, []uint32{n}, "message %d from %d to %d is rev %d of %v, by %d", n, from, to, r.Rev, r.Conv, r.Sender)
	}
	if s, ok := readStored(r.Body); !ok || s != (stamp{c.h.run, n, from, to}) {
		c.violated(I1, []uint32{n}, "message %d has another content at rev %d of %v", n, r.Rev, r.Conv)
	}
	if old := c.stands[n]; old.conv != 0 {
		i := I8
		if m.outcome == acked {
			i = I1
		}
		c.twice++
		c.violated(i, []uint32{n}, "message %d is rev %d of %v, and rev %d of %v", n, old.rev, c.h.keys[old.conv], r.Rev, r.Conv)
		return n
	}
	c.stands[n] = standing{conv, uint32(r.Rev), uint32(r.ConvSeq)}
	if later := newest[m.device]; later > n && !c.mayBeRefused(m) {
		c.violated(I3, []uint32{later, n}, "message %d stands behind message %d, which the same device sent after it to the same person", n, later)
	}
	newest[m.device] = max(newest[m.device], n)
	return n
}
