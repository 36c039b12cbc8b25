package storage

import (
	"errors"
	"fmt"
	"sync"
)

// appendOp is an Append on its way.
type appendOp struct {
	opHead
	a    Append
	hash [16]byte
	// made: the send id was made here and only guards our own retries.
	made bool
	// far is what is known of the recipient on another shard; near numbers the
	// slot map that has the recipient on the same one.
	far  verdict
	near uint64
	// positions in the batch's working set
	refs        convRefs
	send, block int32
	// outcome of the last run of the plan
	res  Appended
	err  error
	done func(Appended, error)
}

var appendOps = sync.Pool{New: func() any { return new(appendOp) }}

// Append adds an entry, exactly once per send id, and answers through done
// when it is durable, tasks included. done is called once, from any goroutine,
// perhaps before Append returns, and must not block: later answers wait for
// it. Appends to one conversation keep the order of the calls; when one is
// refused with a retryable error, so are those behind it in the queue.
//
// Errors: ErrConflict, ErrIDExpired, ErrIDInvalid, ErrBlocked, ErrNoUser,
// ErrInvalid are final; ErrBusy, ErrFull, ErrUnavailable mean try again later
// with the same send id; ErrClosed.
func (s *Store) Append(a Append, done func(Appended, error)) {
	if err := a.check(); err != nil {
		done(Appended{}, err)
		return
	}
	o := appendOps.Get().(*appendOp)
	*o = appendOp{a: a, done: done, hash: contentHash(a.Kind, a.Body)}
	o.slot, o.size, o.patient = a.Conv.Slot(), len(a.Body)+opOverhead, true
	if a.SendID == [16]byte{} {
		o.made, o.a.SendID = true, newSendID(s.opt.Now().UnixMicro())
	}
	s.admit(o)
}

// admit queues an append, after a look at the recipient where that is on
// another shard.
func (s *Store) admit(o *appendOp) {
	for {
		m := s.slots.Load()
		if other := o.a.Conv.Other(); m.owner[other.Slot()] != m.owner[o.a.Conv.Slot()] {
			s.far.admit(o, other)
			return
		}
		if s.far.behind(o) {
			return
		}
		o.near = m.n
		if err := s.put(o); !errors.Is(err, errOldMap) {
			if err != nil {
				o.answer(err)
			}
			return
		}
	}
}

// errOvertakes: what came before o was refused while o was on its way here.
var errOvertakes = fmt.Errorf("%w: an earlier append was refused meanwhile", ErrBusy)

// overtakes reports whether o has to be refused for that. It is asked under the
// lock of the line, as refusals are told before the line opens again.
func overtakes(o op) bool {
	a, ok := o.(*appendOp)
	return ok && a.a.Still != nil && !a.a.Still()
}

func (o *appendOp) stand(m *slotMap, idx int) standing {
	home, other := o.slot, o.a.Conv.Other().Slot()
	st := m.standOf(idx, home)
	switch {
	case st != standHere || home == other:
		return st
	case int(m.owner[other]) == idx:
		return m.standOf(idx, other)
	case !o.far.known:
		return standAsk
	}
	return standHere
}

func (o *appendOp) needs(slot Slot) bool { return o.slot == slot || o.a.Conv.Other().Slot() == slot }

// nearBy is the map by which the recipient was found to be on the same shard,
// 0 where it was asked for.
func (o *appendOp) nearBy() uint64 {
	if o.far.known {
		return 0
	}
	return o.near
}

func (o *appendOp) lock(w *work) {
	o.refs = w.nameConv(o.a.Conv)
	o.send = w.sends.add(SendKey{Conv: o.a.Conv, Sender: o.a.Sender, SendID: o.a.SendID})
	o.block = -1
	if b := o.a.UnlessBlocked; b != (BlockKey{}) && w.here(b.User.Slot()) {
		o.block = w.blocks.add(b)
	}
}

func (o *appendOp) plan(w *work) {
	o.res, o.err = o.run(w)
	if o.err == nil && !o.res.Duplicate {
		*w.sends.touch(o.send) = SendRow{
			Key: w.sends.keys[o.send], Hash: o.hash, Rev: o.res.Rev, ConvSeq: o.res.ConvSeq, Time: o.res.Time, Found: true,
		}
	}
}

// run keeps the order of R2: duplicates first, then permissions, then insert.
func (o *appendOp) run(w *work) (Appended, error) {
	if !o.made {
		switch t := sendIDTime(o.a.SendID); {
		case w.now-t > sendIDMaxAge:
			return Appended{}, ErrIDExpired
		case t-w.now > sendIDMaxAhead:
			return Appended{}, ErrIDInvalid
		}
	}
	if r := w.s.bug.sent(w, o.send); r.Found {
		if r.Hash != o.hash {
			return Appended{}, ErrConflict
		}
		return Appended{Rev: r.Rev, ConvSeq: r.ConvSeq, Time: r.Time, Duplicate: true}, nil
	}
	if o.block >= 0 && w.blocks.row(o.block).Found {
		return Appended{}, ErrBlocked
	}
	if o.refs.lost {
		return Appended{}, ErrBusy
	}
	if o.refs.task >= 0 {
		switch {
		case o.far.missing:
			return Appended{}, ErrNoUser
		case o.far.blocked && o.block < 0 && o.a.UnlessBlocked != BlockKey{}:
			return Appended{}, ErrBlocked
		}
	}
	if !w.usersExist(&o.refs) {
		return Appended{}, ErrNoUser
	}
	return w.addEntry(&o.refs, &o.a), nil
}

func (o *appendOp) answer(err error) {
	res, done := o.res, o.done
	if err == nil {
		err = o.err
	}
	if err != nil {
		res = Appended{}
	}
	*o = appendOp{}
	appendOps.Put(o)
	done(res, err)
}
