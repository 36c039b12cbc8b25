package torture

// checkDevice compares what an installation applied with its user's inbox.
func (c *checker) checkDevice(d *record) {
	in := c.inboxes[d.person]
	if len(d.lives) == 0 && !d.ended && in.Seq > 0 {
		c.short(d, in, 1)
	}
	for i, l := range d.lives {
		c.applied += len(l.seen)
		if l.epoch != in.Epoch {
			c.violated(I6, nil, "device %d of %s is in epoch %d of the inbox, stored is %d", d.number, c.h.people[d.person].name, l.epoch, in.Epoch)
		}
		c.checkRebuilt(d, l, in)
		want := uint32(l.base) + 1
		for _, s := range l.seen {
			c.checkSight(d, in, s, want)
			want = s.seq + 1
		}
		if i == len(d.lives)-1 && !d.ended && uint64(want) != in.Seq+1 {
			c.short(d, in, want)
		}
	}
}

// checkSight: an event is the next one (I4), the one that is stored (I6), and
// one for this person (I5).
func (c *checker) checkSight(d *record, in *inbox, s sight, want uint32) {
	name := c.h.people[d.person].name
	switch {
	case s.seq > want:
		c.violated(I4, []uint32{s.message}, "device %d of %s has applied seq %d after seq %d", d.number, name, s.seq, want-1)
	case s.seq < want:
		c.violated(I6, []uint32{s.message}, "device %d of %s has applied seq %d again, after seq %d", d.number, name, s.seq, want-1)
	}
	if s.kind == sawDamaged {
		c.violated(I6, []uint32{s.message}, "device %d of %s was given message %d with another content, seq %d", d.number, name, s.message, s.seq)
	}
	if s.message != 0 {
		if m := c.h.at(s.message); m.from != d.person && m.to != d.person {
			c.violated(I5, []uint32{s.message}, "device %d of %s was given message %d, seq %d, which is between others", d.number, name, s.message, s.seq)
		}
	}
	if uint64(s.seq) <= in.Floor {
		return
	}
	i := int(uint64(s.seq) - in.Floor - 1)
	if i >= len(in.rows) {
		c.violated(I6, []uint32{s.message}, "device %d of %s has applied seq %d (message %d); the inbox ends with %d", d.number, name, s.seq, s.message, in.Seq)
		return
	}
	r := in.rows[i]
	if r.seq != s.seq || r.conv != s.conv || r.rev != s.rev || r.convSeq != s.convSeq || r.message != s.message || (r.kind == KindMessage) != (s.kind != sawOther) {
		c.violated(I6, []uint32{s.message, r.message}, "device %d of %s has applied seq %d as message %d, rev %d of %v, place %d; stored is message %d, rev %d of %v, place %d",
			d.number, name, s.seq, s.message, s.rev, c.h.keys[s.conv], s.convSeq, r.message, r.rev, c.h.keys[r.conv], r.convSeq)
	}
}

// short: the device has not all that its user has.
func (c *checker) short(d *record, in *inbox, want uint32) {
	var lacks []uint32
	for _, r := range in.rows {
		if r.seq >= want && r.message != 0 && len(lacks) < mostFound {
			lacks = append(lacks, r.message)
		}
	}
	c.violated(I6, lacks, "device %d of %s has everything up to seq %d; the inbox goes on to %d", d.number, c.h.people[d.person].name, want-1, in.Seq)
}

// checkRebuilt: a rebuild has read the conversations as they are, and nothing
// of what it stands for is missing (I4).
func (c *checker) checkRebuilt(d *record, l *life, in *inbox) {
	name := c.h.people[d.person].name
	heads := make(map[uint32]uint64)
	for _, b := range l.rebuilt {
		heads[b.conv] = b.head
		if b.head == 0 {
			continue // nothing in it
		}
		log := c.logs[b.conv]
		if uint64(len(b.messages)) != b.head-b.rev+1 || b.head > uint64(len(log.entries)) {
			c.violated(I4, nil, "device %d of %s was given %d entries, rev %d to %d of %v, which has %d", d.number, name, len(b.messages), b.rev, b.head, log.key, len(log.entries))
			continue
		}
		for i, n := range b.messages {
			if e := log.entries[int(b.rev)-1+i]; e.message != n {
				c.violated(I6, []uint32{n, e.message}, "device %d of %s has rebuilt rev %d of %v as message %d; stored is message %d", d.number, name, e.rev, log.key, n, e.message)
			}
		}
	}
	for _, r := range in.rows {
		if uint64(r.seq) > l.base {
			break
		}
		if r.kind == KindMessage && heads[r.conv] < uint64(r.rev) {
			c.violated(I4, []uint32{r.message}, "device %d of %s has rebuilt for seq %d, without seq %d: message %d, rev %d of %v", d.number, name, l.base, r.seq, r.message, r.rev, c.h.keys[r.conv])
			return
		}
	}
}
