package torture

import "context"

// kindRead is the kind of a read mark: an event of its reader that others see.
const kindRead = 2

// readInbox reads what the stores have of a person.
func (c *checker) readInbox(ctx context.Context, person int32) error {
	a := c.h.people[person]
	stored, ok, err := c.stores.Inbox(ctx, a.id)
	if err != nil {
		return err
	}
	in := &inbox{Inbox: stored}
	c.inboxes = append(c.inboxes, in)
	if !ok {
		c.violated(I1, nil, "%s was registered as %d, and is not there", a.name, a.id)
		return nil
	}
	for i := range stored.Rows {
		r := &stored.Rows[i]
		w := row{seq: uint32(r.Seq), conv: c.h.conv(r.Conv[:]), rev: uint32(r.Rev), convSeq: uint32(r.ConvSeq), kind: r.Kind}
		if r.Kind == KindMessage {
			w.message = c.h.byID[r.SendID]
			c.shows(a, r, w.message)
		}
		in.rows = append(in.rows, w)
	}
	for _, v := range stored.Views {
		c.h.conv(v.Conv[:])
	}
	in.Rows = nil
	return nil
}

// shows: a row has the sender and, if it has one, the content of its message n.
// Whether it is in the right place is seen later.
func (c *checker) shows(a account, r *Row, n uint32) {
	var want stamp
	if n != 0 {
		m := c.h.at(n)
		want = stamp{c.h.run, n, c.h.people[m.from].id, c.h.people[m.to].id}
		if r.Sender != want.from {
			c.violated(I5, []uint32{n}, "message %d is by %d in the inbox of %s, seq %d, and was sent by %d", n, r.Sender, a.name, r.Seq, want.from)
		}
	}
	if s, ok := readStored(r.Body); len(r.Body) > 0 && (!ok || s != want) {
		c.violated(I1, []uint32{n}, "message %d has another content in the inbox of %s, seq %d", n, a.name, r.Seq)
	}
}

// checkInbox compares an inbox with the logs, after all have been read.
func (c *checker) checkInbox(person int32, in *inbox) {
	a := c.h.people[person]
	want := uint32(in.Floor) + 1
	last := make(map[uint32]uint32) // conversation → the newest rev so far
	for _, r := range in.rows {
		if r.seq != want { // I2
			c.violated(I2, []uint32{r.message}, "inbox of %s: seq %d is followed by seq %d", a.name, want-1, r.seq)
		}
		want = r.seq + 1
		if c.points(a, r) {
			c.inOrder(a, in, r, last)
		}
		last[r.conv] = max(last[r.conv], r.rev)
	}
	if uint64(want) != in.Seq+1 {
		c.violated(I2, nil, "inbox of %s ends with seq %d; its head says %d", a.name, want-1, in.Seq)
	}
	// Whatever concerns the person has arrived, up to the end of each log.
	for conv := uint32(1); conv < uint32(len(c.h.keys)); conv++ {
		if l := c.logs[conv]; l.key.has(a.id) && (last[conv] > 0 || in.Floor == 0) {
			c.missing(a, l, last[conv], uint32(len(l.entries))+1, "its end")
		}
	}
	c.checkViews(person, in)
}

// points: a row shows an entry that there is, and that concerns its owner.
func (c *checker) points(a account, r row) bool {
	l := c.logs[r.conv]
	if l == nil || r.rev == 0 || int(r.rev) > len(l.entries) {
		c.violated(I3, []uint32{r.message}, "inbox of %s: seq %d points to rev %d of %v, which is not there", a.name, r.seq, r.rev, c.h.keys[r.conv])
		return false
	}
	e := l.entries[r.rev-1]
	if e.message != r.message || e.convSeq != r.convSeq || e.kind != r.kind {
		c.violated(I3, []uint32{e.message, r.message}, "inbox of %s: seq %d says that rev %d of %v is message %d at place %d; the conversation has message %d at %d",
			a.name, r.seq, r.rev, l.key, r.message, r.convSeq, e.message, e.convSeq)
	}
	if !l.key.has(a.id) {
		if reader, _ := l.key.ids(); e.kind != kindRead || !c.talk(a.id, reader) {
			c.violated(I5, []uint32{r.message}, "inbox of %s: seq %d is rev %d of %v, which is none of theirs", a.name, r.seq, r.rev, l.key)
		}
		return false // what others do reaches one in part only
	}
	return true
}

// talk reports whether two people have a conversation with anything in it.
func (c *checker) talk(a, b int64) bool {
	for _, k := range [...]ConvKey{keyOf(a, b), keyOf(b, a)} {
		if l := c.logs[c.h.convs[k]]; l != nil && len(l.entries) > 0 {
			return true
		}
	}
	return false
}

// inOrder: the revs of a conversation come one by one.
func (c *checker) inOrder(a account, in *inbox, r row, last map[uint32]uint32) {
	before := last[r.conv]
	switch {
	case r.rev <= before:
		c.twice++
		c.violated(I1, []uint32{r.message}, "inbox of %s: seq %d is rev %d of %v, after rev %d: twice, or out of order", a.name, r.seq, r.rev, c.h.keys[r.conv], before)
	case before > 0 || in.Floor == 0: // otherwise retention has taken what was before
		c.missing(a, c.logs[r.conv], before, r.rev, "the next one that it has")
	}
}

// missing: the entries between two revs are not in an inbox.
func (c *checker) missing(a account, l *convLog, after, before uint32, what string) {
	for rev := after + 1; rev < before; rev++ {
		n := l.entries[rev-1].message
		if n != 0 && c.h.at(n).outcome == acked {
			c.lost++
		}
		c.violated(I1, []uint32{n}, "inbox of %s has rev %d of %v, and not rev %d (message %d), which comes before %s", a.name, after, l.key, rev, n, what)
	}
}

// checkViews: a person's view of a conversation is that of the inbox, and what
// was marked read stays so.
func (c *checker) checkViews(person int32, in *inbox) {
	a := c.h.people[person]
	views := make(map[uint32]View)
	for _, v := range in.Views {
		conv := c.h.convs[v.Conv]
		views[conv] = v
		l := c.logs[conv]
		if n := len(l.entries); n > 0 && v.Conv.has(a.id) && (v.HeadRev != uint64(n) || v.Head != uint64(l.entries[n-1].convSeq)) {
			c.violated(I6, []uint32{l.entries[n-1].message}, "%s is told that %v ends with rev %d, place %d; it ends with %d, %d",
				a.name, v.Conv, v.HeadRev, v.Head, n, l.entries[n-1].convSeq)
		}
	}
	for p, convSeq := range c.h.reads {
		if p.person == person && views[p.conv].Read < convSeq {
			c.violated(I6, nil, "%s has read %v up to %d, as was acknowledged; stored is %d", a.name, c.h.keys[p.conv], convSeq, views[p.conv].Read)
		}
	}
}
