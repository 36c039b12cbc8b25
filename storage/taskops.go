package storage

import "fmt"

// deliverOp writes a conversation's entries into the inbox of its recipient on
// another shard than the conversation's.
type deliverOp struct {
	opHead
	user    UserID
	entries []Entry
	job     *job
	done    func()
	at      side
	rows    int
	metrics *shardMetrics
	err     error
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

func newDeliverOp(j *job, done func()) *deliverOp {
	o := &deliverOp{job: j, user: j.key.Conv.Other(), entries: j.entries, done: done}
	o.slot, o.size = o.user.Slot(), opOverhead
	for i := range j.entries {
		o.size += len(j.entries[i].Body)
	}
	return o
}

func (o *deliverOp) lock(w *work) {
	w.useSlot(o.user.Slot())
	o.at = side{user: w.users.add(o.user), userConv: w.userConvs.add(UserConvKey{User: o.user, Conv: o.entries[0].Conv})}
}

func (o *deliverOp) plan(w *work) {
	o.err, o.rows = nil, 0
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
	o.metrics = w.shard.metrics
}

func (o *deliverOp) answer(err error) {
	if err == nil && o.metrics != nil {
		o.metrics.delivered.Add(float64(o.rows))
	}
	if o.job.err = err; err == nil {
		o.job.err = o.err
	}
	o.done()
}

// completeOp tells a conversation's home how far its task has got.
type completeOp struct {
	opHead
	lane *lane
	job  *job
	key  TaskKey
	done func()
	at   int32
	left Task
}

func newCompleteOp(l *lane, j *job, done func()) *completeOp {
	o := &completeOp{lane: l, job: j, key: j.key, done: done}
	o.slot, o.size = j.key.Conv.Slot(), opOverhead
	return o
}

func (o *completeOp) lock(w *work) {
	w.useSlot(o.slot)
	o.at = w.tasks.add(o.key)
}

func (o *completeOp) plan(w *work) {
	o.left = *w.tasks.row(o.at)
	if !o.left.Found || o.left.Owner != w.s.opt.Node {
		o.left = Task{} // somebody took it over
		return
	}
	end := o.job.entriesEnd()
	if t := w.tasks.touch(o.at); end > t.ToRev {
		t.Found = false
	} else {
		t.NextRev = max(t.NextRev, end)
	}
	o.left = *w.tasks.row(o.at)
}

func (o *completeOp) answer(err error) {
	o.job.err, o.job.left = err, o.left
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
