package storage

import (
	"errors"
	"math"
	"slices"
)

// sweepSlots is how many slots the sweep looks at together.
const sweepSlots = 64

// sweepLoop goes over one shard's inboxes, again and again, and deletes what
// is too old: inbox rows by RetainAge (those that are too many go when one is
// added), dedupe rows by their send ids. It is paced: retention may be late,
// users may not wait for it. Several nodes may sweep one shard; the floors are
// checked under lock.
func (s *Store) sweepLoop(sh *shard) {
	for {
		if s.rest(s.opt.SweepPause) || s.sweep(sh) || s.rest(s.opt.SweepEvery) {
			return
		}
	}
}

// sweep is one round. It reports whether the store is closing.
func (s *Store) sweep(sh *shard) (closing bool) {
	m := s.slots.Load()
	var group []Slot
	for slot := Slot(0); slot < Slots; slot++ {
		if int(m.owner[slot]) == sh.idx && m.open(slot) {
			group = append(group, slot)
		}
		if len(group) == sweepSlots || slot == Slots-1 && len(group) > 0 {
			if s.sweepGroup(sh, group) {
				return true
			}
			group = group[:0]
		}
	}
	return false
}

// trimTo is an inbox to be cut.
type trimTo struct {
	user  UserID
	floor uint64
}

func (s *Store) sweepGroup(sh *shard, slots []Slot) (closing bool) {
	from := UserIDIn(slots[0], 0)
	for {
		next, trims, err := s.oldInboxes(sh, slots, from)
		for _, t := range trims {
			if err == nil {
				if err = s.runOp(func(done chan error) op { return newTrimOp(t, done) }); err == nil {
					sh.metrics.trimmed.Inc()
				}
			}
		}
		if err != nil && !s.isClosing() && !errors.Is(err, errMoving) { // those slots: in the next round
			s.log.Warn().Err(err).Uint32("shard", uint32(sh.ID())).Msg("retention sweep")
		}
		if s.rest(s.opt.SweepPause) {
			return true
		}
		if err != nil || next == 0 {
			break
		}
		from = next
	}
	err := s.runOp(func(done chan error) op { return newPurgeOp(slots, done) })
	if err != nil && !s.isClosing() && !errors.Is(err, ErrBusy) { // busy, or one of the slots moves: in the next round
		s.log.Warn().Err(err).Uint32("shard", uint32(sh.ID())).Msg("deleting old dedupe rows")
	}
	return s.isClosing()
}

// oldInboxes looks at a page of users and returns those with rows older than
// RetainAge, and where to go on (0: nowhere).
func (s *Store) oldInboxes(sh *shard, slots []Slot, from UserID) (next UserID, trims []trimTo, err error) {
	ctx, cancel := s.timeout()
	defer cancel()
	err = s.view(ctx, slots, func(sn Snap) error {
		next, trims = 0, nil
		cutoff := sn.Now() - s.opt.RetainAge.Microseconds()
		users, err := sn.UsersFrom(from, s.opt.SweepUsers)
		if err != nil {
			return err
		}
		for _, u := range users {
			floor, err := oldRows(sn, u, cutoff)
			if err != nil {
				return err
			}
			if floor > 0 {
				trims = append(trims, trimTo{user: u, floor: floor})
			}
		}
		sh.metrics.swept.Add(float64(len(users)))
		if len(users) == s.opt.SweepUsers && users[len(users)-1] < math.MaxInt64 {
			next = users[len(users)-1] + 1
		}
		return nil
	})
	return next, trims, err
}

// oldRows returns the last of the leading rows older than cutoff, 0 if there
// are none; maxTrim rows at a time, the rest in the next round.
func oldRows(sn Snap, u UserID, cutoff int64) (floor uint64, err error) {
	first, at, ok, err := sn.OldestInbox(u)
	if err != nil || !ok || at >= cutoff {
		return 0, err
	}
	for first-1 < math.MaxUint64 && floor < first+maxTrim {
		after := max(floor, first-1)
		rows, err := sn.Inbox(u, after, 100)
		if err != nil {
			return 0, err
		}
		for i := range rows {
			if rows[i].Entry.Time >= cutoff {
				return floor, nil
			}
			floor = rows[i].Seq
		}
		if len(rows) < 100 {
			return floor, nil
		}
	}
	return floor, nil
}

// runOp queues an op and waits until it is durable.
func (s *Store) runOp(with func(chan error) op) error {
	done := make(chan error, 1)
	s.enqueue(with(done))
	return <-done
}

// trimOp raises the floor of an inbox.
type trimOp struct {
	opHead
	trimTo
	done chan error
	at   int32
}

func newTrimOp(t trimTo, done chan error) *trimOp {
	o := &trimOp{trimTo: t, done: done}
	o.slot, o.size = t.user.Slot(), opOverhead
	return o
}

func (o *trimOp) lock(w *work) {
	w.useSlot(o.slot)
	o.at = w.users.add(o.user)
}

func (o *trimOp) plan(w *work) {
	if u := w.users.row(o.at); u.Found && o.floor > u.Floor && o.floor <= w.locked.Users[o.at].Seq {
		w.users.touch(o.at).Floor = o.floor
	}
}

func (o *trimOp) answer(err error) { o.done <- err }

// purgeOp deletes dedupe rows that nobody may ask for any more.
type purgeOp struct {
	opHead
	slots []Slot
	done  chan error
}

func newPurgeOp(slots []Slot, done chan error) *purgeOp {
	o := &purgeOp{slots: append([]Slot(nil), slots...), done: done}
	o.slot, o.size = slots[0], opOverhead
	return o
}

func (o *purgeOp) stand(m *slotMap, idx int) standing { return m.standOf(idx, o.slots...) }

func (o *purgeOp) needs(slot Slot) bool { return slices.Contains(o.slots, slot) }

func (o *purgeOp) lock(w *work) {
	for _, slot := range o.slots {
		w.useSlot(slot)
	}
}

func (o *purgeOp) plan(w *work) {
	w.out.DelSendsBefore = w.now - sendRowAge
	w.out.DelSendsSlots = append(w.out.DelSendsSlots, o.slots...)
}

func (o *purgeOp) answer(err error) { o.done <- err }
