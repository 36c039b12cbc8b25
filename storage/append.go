package storage

import (
	"fmt"
	"math/rand/v2"
)

// Append is a new entry of a conversation's log and of its recipients' inboxes:
// both sides of a pair, or the one user of a self key.
type Append struct {
	Conv   ConvKey
	Sender UserID
	// Kind is the caller's own numbering, above 0.
	Kind uint16
	// Counts makes it a message: it raises conv_seq, and unread counts.
	Counts bool
	// SendID is a UUIDv7 made by the client on server time: a retry within 29
	// days gets the first result. Zero: this append is nobody's retry.
	SendID [16]byte
	// Body is kept byte for byte. It is not copied: never change it.
	Body []byte
	// Origin is passed on to Delivery.Origin.
	Origin uint64
	// Still, if not nil, is asked when the append takes its place in line behind
	// those of its conversation; on false it is refused with ErrBusy. A caller
	// who lets nothing overtake what was refused looks there: while it was about
	// to call Append, an earlier append may have been refused, and the line
	// begun anew. It is quick, may be asked twice, and calls nothing here.
	Still func() bool
	// UnlessBlocked, if not zero, must be {recipient, sender}: refuse with
	// ErrBlocked if that block exists.
	UnlessBlocked BlockKey
}

// Appended tells where an entry stands.
type Appended struct {
	Rev, ConvSeq uint64
	Time         int64
	// Duplicate: the send id was used before, this is that send's result.
	Duplicate bool
}

// Delivery is a durable inbox row of a user, with its body.
type Delivery struct {
	User  UserID
	Seq   uint64
	Entry Entry
	// Origin is the Append's, where this node made it; else 0.
	Origin uint64
}

func (a *Append) check() error {
	switch {
	case a.Kind == 0:
		return fmt.Errorf("%w: Append.Kind is 0", ErrInvalid)
	case !a.Conv.IsPair() && !a.Conv.IsSelf():
		return fmt.Errorf("%w: %v is not the key of a pair or of one's own devices", ErrInvalid, a.Conv)
	case !a.Conv.Has(a.Sender):
		return fmt.Errorf("%w: sender %d is no side of %v", ErrInvalid, a.Sender, a.Conv)
	case a.SendID != [16]byte{} && !validSendID(a.SendID):
		return ErrIDInvalid
	case a.UnlessBlocked != BlockKey{} && a.UnlessBlocked != BlockKey{User: a.Conv.Peer(a.Sender), Peer: a.Sender}:
		return fmt.Errorf("%w: UnlessBlocked must name {recipient, sender}", ErrInvalid)
	}
	return nil
}

// side is one recipient of a conversation that lives on this shard.
type side struct{ user, userConv int32 }

// convRefs are the positions of all that an entry of a conversation changes.
type convRefs struct {
	conv  int32
	task  int32 // -1: all recipients are here
	n     int8
	sides [2]side
	// lost: the other recipient's slot has no owner that we know.
	lost bool
}

// nameConv names the rows that an entry of k changes.
func (w *work) nameConv(k ConvKey) (r convRefs) {
	w.useSlot(k.Slot())
	r.conv, r.task = w.convs.add(k), -1
	w.nameSide(&r, k, k.Home())
	if k.Other() != k.Home() {
		w.nameSide(&r, k, k.Other())
	}
	return r
}

func (w *work) nameSide(r *convRefs, k ConvKey, u UserID) {
	slot := u.Slot()
	if !w.here(slot) {
		owner := w.slots.owner[slot]
		if r.lost = owner < 0; !r.lost {
			r.task = w.tasks.add(TaskKey{Conv: k, Target: w.s.shards[owner].ID()})
		}
		return
	}
	w.useSlot(slot)
	r.sides[r.n] = side{user: w.users.add(u), userConv: w.userConvs.add(UserConvKey{User: u, Conv: k})}
	r.n++
}

// usersExist reports whether all recipients on this shard do.
func (w *work) usersExist(r *convRefs) bool {
	for _, sd := range r.sides[:r.n] {
		if !w.users.row(sd.user).Found {
			return false
		}
	}
	return true
}

// addEntry appends an entry that has passed all checks.
func (w *work) addEntry(r *convRefs, a *Append) Appended {
	h := w.convs.touch(r.conv)
	if !h.Found {
		h.Found, h.Generation = true, rand.Uint64()|1
	}
	h.Rev++
	if a.Counts {
		h.ConvSeq++
	}
	h.LastTime = max(w.now, h.LastTime+1)
	e := Entry{Conv: a.Conv, Rev: h.Rev, ConvSeq: h.ConvSeq, Time: h.LastTime, Sender: a.Sender, Kind: a.Kind, SendID: a.SendID, Body: a.Body}
	w.out.Entries = append(w.out.Entries, e)
	for _, sd := range r.sides[:r.n] {
		if had := w.userConvs.row(sd.userConv).HeadRev; had+1 != e.Rev {
			w.owe(a.Conv, had+1, e.Rev)
			continue
		}
		w.addInbox(sd, &e, a.Counts, a.Origin, w.shard.inline)
	}
	if r.task >= 0 && !w.s.bug.forgetsTask(h.Rev) {
		t := w.tasks.touch(r.task)
		if !t.Found {
			*t = Task{Key: t.Key, NextRev: h.Rev, Found: true}
		}
		// It is the duty of whoever raised it last, who has it in mind already:
		// the row may be lingering at another node (TaskLinger), or at one that
		// has died.
		t.ToRev, t.Owner, t.Incarnation = h.Rev, w.s.opt.Node, w.s.opt.Incarnation
		w.carried = append(w.carried, carried{task: r.task, entry: e})
	}
	return Appended{Rev: e.Rev, ConvSeq: e.ConvSeq, Time: e.Time}
}

// owe makes a task for a recipient who lives here but lacks earlier entries:
// until a moment ago the two sides were on different shards, and a task of that
// time is still under way. Written here and now, the new entry would make
// delivery skip the older ones. The task row is not locked: whatever it said,
// what is owed is what the user_conv, which is locked, does not have.
func (w *work) owe(k ConvKey, next, to uint64) {
	w.owed = append(w.owed, Task{
		Key: TaskKey{Conv: k, Target: w.shard.ID()}, NextRev: next, ToRev: to,
		Owner: w.s.opt.Node, Incarnation: w.s.opt.Incarnation, Found: true,
	})
}

// addInbox gives a recipient the next seq (I2) and moves the marks along.
func (w *work) addInbox(sd side, e *Entry, counts bool, origin uint64, inline int) {
	u := w.users.touch(sd.user)
	u.Seq = w.s.bug.nextSeq(u)
	row := InboxRow{User: u.User, Seq: u.Seq, Entry: *e, Inline: len(e.Body) <= inline}
	if !row.Inline {
		row.Entry.Body = nil
	}
	w.out.Inbox = append(w.out.Inbox, row)
	uc := w.userConvs.touch(sd.userConv)
	uc.Found, uc.HeadRev = true, e.Rev
	if counts {
		uc.Head, uc.HeadTime = e.ConvSeq, e.Time
		if e.Sender == u.User {
			uc.OwnSent = e.ConvSeq
		}
	}
	w.retain(sd.user)
	w.batch.deliveries = append(w.batch.deliveries, Delivery{User: u.User, Seq: u.Seq, Entry: *e, Origin: origin})
}

// retain raises the floor of an inbox that has grown too long (R6), a chunk at
// a time, and never above what was there before this batch.
func (w *work) retain(user int32) {
	u, keep := w.users.row(user), uint64(w.s.opt.RetainEvents)
	if u.Seq-u.Floor <= keep+trimSlack(keep) {
		return
	}
	u.Floor = max(u.Floor, min(u.Seq-keep, w.locked.Users[user].Floor+maxTrim, w.locked.Users[user].Seq))
}

// maxTrim is the most rows of one inbox that one transaction deletes.
const maxTrim = 1024

// trimSlack is how far above the limit an inbox may grow, so that deletions
// come in chunks and not with every row.
func trimSlack(keep uint64) uint64 { return min(max(keep/16, 16), maxTrim/2) }
