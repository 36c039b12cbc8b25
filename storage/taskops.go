package storage

import "fmt"

// deliverOp writes a conversation's entries into the inbox of its recipient on
// another shard than the conversation's. Those from … to are still to be read
// where none are at hand.
type deliverOp struct {
	opHead
	lane     *lane
	span     *span
	user     UserID
	from, to uint64
	entries  []Entry
	at       side
	metrics  *shardMetrics
	// outcome of the last run of the plan
	has  uint64 // the recipient has everything up to this rev
	rows int
	err  error
}

// missingRevs is the answer where a recipient lacks entries before those that a
// task is to deliver. Both sides of a pair get every entry, so their revs have
// no gaps; but two tasks of a conversation may be under way at once, one for
// the shard that the recipient has left and one for where the recipient is now.
// Whichever comes first delivers all.
type missingRevs struct{ from uint64 }

func (e *missingRevs) Error() string {
	return fmt.Sprintf("storage: the recipient lacks entries from rev %d on", e.from)
}

func newDeliverOp(l *lane, sp *span, es []Entry) *deliverOp {
	o := &deliverOp{lane: l, span: sp, user: sp.key.Conv.Other(), from: sp.next, to: sp.to, entries: es}
	if sp.next <= sp.dark {
		o.to = sp.dark
	}
	o.slot, o.size = o.user.Slot(), opOverhead+int(sizeOf(es))
	return o
}

// end is the rev after the last one that is delivered.
func (o *deliverOp) end() uint64 {
	if n := len(o.entries); n > 0 {
		return o.entries[n-1].Rev + 1
	}
	return o.from
}

func (o *deliverOp) lock(w *work) {
	w.useSlot(o.user.Slot())
	o.at = side{user: w.users.add(o.user), userConv: w.userConvs.add(UserConvKey{User: o.user, Conv: o.entries[0].Conv})}
}

func (o *deliverOp) plan(w *work) {
	o.err, o.rows, o.metrics = nil, 0, w.shard.metrics
	if !w.users.row(o.at.user).Found {
		o.err = fmt.Errorf("%w: %d", ErrNoUser, o.user)
		return
	}
	uc := w.userConvs.row(o.at.userConv)
	w.s.bug.disorder(o.entries)
	for i := range o.entries {
		e := &o.entries[i]
		if e.Rev <= uc.HeadRev {
			continue // delivered before; its row may be deleted already
		}
		if e.Rev != uc.HeadRev+1 && !w.s.bug.skipsRevs() {
			o.err = &missingRevs{from: uc.HeadRev + 1}
			return
		}
		// An entry that does not count carries the count so far.
		w.addInbox(o.at, e, e.ConvSeq > uc.Head, 0, max(w.shard.inline, w.s.opt.InlineBody))
		o.rows++
	}
	o.has = w.userConvs.row(o.at.userConv).HeadRev
}

func (o *deliverOp) answer(err error) {
	if err == nil {
		o.metrics.delivered.Add(float64(o.rows))
		err = o.err
	}
	o.lane.landed(o, err)
}

// completeOp tells a conversation's home how far its task has got.
type completeOp struct {
	opHead
	lane *lane
	span *span
	key  TaskKey
	end  uint64 // the rev after the last one delivered
	done func()
	at   int32
	gone bool
	err  error
}

func newCompleteOp(l *lane, sp *span) *completeOp {
	o := &completeOp{lane: l, span: sp, key: sp.key, end: sp.next}
	o.slot, o.size = o.key.Conv.Slot(), opOverhead
	return o
}

func (o *completeOp) lock(w *work) {
	w.useSlot(o.slot)
	o.at = w.tasks.add(o.key)
}

func (o *completeOp) plan(w *work) {
	t := w.tasks.row(o.at)
	if o.gone = !t.Found || t.Owner != w.s.opt.Node; o.gone {
		return // somebody took it over, or has done it
	}
	t = w.tasks.touch(o.at)
	if o.gone = o.end > t.ToRev; o.gone {
		t.Found = false
	} else {
		t.NextRev = max(t.NextRev, o.end)
	}
}

func (o *completeOp) answer(err error) {
	o.err = err
	o.lane.told(o.span, o.gone, err)
	o.done()
}

// claimOp makes a dead node's task this node's. What it changes is told to the
// lanes when it is durable, like every task that a batch raises.
type claimOp struct {
	opHead
	key  TaskKey
	from NodeID
	done func(took bool, err error)
	at   int32
	took bool
}

func newClaimOp(key TaskKey, from NodeID, done func(bool, error)) *claimOp {
	o := &claimOp{key: key, from: from, done: done}
	o.slot, o.size = key.Conv.Slot(), opOverhead
	return o
}

func (o *claimOp) lock(w *work) {
	w.useSlot(o.slot)
	o.at = w.tasks.add(o.key)
}

func (o *claimOp) plan(w *work) {
	t := w.tasks.row(o.at)
	if o.took = t.Found && t.Owner == o.from; o.took {
		t = w.tasks.touch(o.at)
		t.Owner, t.Incarnation = w.s.opt.Node, w.s.opt.Incarnation
	}
}

func (o *claimOp) answer(err error) { o.done(o.took && err == nil, err) }
