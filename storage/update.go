package storage

import (
	"context"
	"fmt"
	"slices"
	"sync/atomic"
)

// Reads names the rows that an Update may read and write. All must live on one
// shard; a conversation brings with it what an entry of it changes: its sides'
// heads and marks.
type Reads struct {
	Convs     []ConvKey
	Users     []UserID
	Sends     []SendKey
	UserConvs []UserConvKey
	Names     []string
	Accounts  []UserID
	DevicesOf []UserID
	Blocks    []BlockKey
}

// Update runs fn in a write transaction over the rows that r names, together
// with other calls' operations, and returns when what it wrote is durable. An
// error of fn undoes what fn did and is returned as it is, once what fn read
// is durable.
//
// fn runs on the committer, where everybody waits for it: it must be quick,
// touch nothing but tx and variables of its own, and set those afresh each
// time, because it may run more than once. It is never applied twice where it
// appends or makes a name; other writes are whole rows, so that a repetition
// does no harm. ctx counts only until fn has first run.
//
// Errors: as Append's; ErrInvalid if r is empty or spans shards.
func (s *Store) Update(ctx context.Context, r Reads, fn func(*Tx) error) error {
	slots := s.slotsOf(&r)
	if len(slots) == 0 {
		return fmt.Errorf("%w: Update names no rows", ErrInvalid)
	}
	m := s.slots.Load()
	for _, slot := range slots[1:] {
		if m.owner[slot] != m.owner[slots[0]] {
			return fmt.Errorf("%w: Update names rows of several shards", ErrInvalid)
		}
	}
	o := &updateOp{s: s, reads: r, slots: slots, fn: fn, result: make(chan error, 1)}
	o.slot, o.size, o.patient = slots[0], opOverhead, true
	home := UserIDIn(o.slot, 1)
	o.token = SendKey{Conv: SelfKey(home), Sender: home, SendID: newSendID(s.opt.Now().UnixMicro())}
	s.enqueue(o)
	select {
	case err := <-o.result:
		return err
	case <-ctx.Done():
		if o.state.CompareAndSwap(updateQueued, updateGone) {
			return ctx.Err()
		}
		return <-o.result // fn may be running: its variables are not the caller's yet
	}
}

// slotsOf returns the slot of every row in r, conversations first.
func (s *Store) slotsOf(r *Reads) (slots []Slot) {
	for _, k := range r.Convs {
		slots = append(slots, k.Slot())
	}
	for _, u := range r.Users {
		slots = append(slots, u.Slot())
	}
	for _, n := range r.Names {
		slots = append(slots, s.NameSlot(n))
	}
	for _, k := range r.Sends {
		slots = append(slots, k.Conv.Slot())
	}
	for _, k := range r.UserConvs {
		slots = append(slots, k.User.Slot())
	}
	for _, u := range r.Accounts {
		slots = append(slots, u.Slot())
	}
	for _, u := range r.DevicesOf {
		slots = append(slots, u.Slot())
	}
	for _, k := range r.Blocks {
		slots = append(slots, k.User.Slot())
	}
	return slots
}

const (
	updateQueued = iota
	updateRunning
	updateGone
)

// updateOp is an Update on its way.
type updateOp struct {
	opHead
	s      *Store
	reads  Reads
	slots  []Slot
	fn     func(*Tx) error
	state  atomic.Int32
	result chan error
	err    error

	// token is a dedupe row that says that this update happened. It is looked
	// for only when an earlier attempt may have been committed.
	token   SendKey
	tokenAt int32

	convs []convRefs
	pos   positions
}

// positions are those of an op's rows in the working set, by kind.
type positions struct {
	convs, users, sends, userConvs, tasks, names, accounts, devices, blocks []int32
}

func (o *updateOp) stand(m *slotMap, idx int) standing {
	if st := m.standOf(idx, o.slots...); st != standHere {
		return st
	}
	for _, k := range o.reads.Convs {
		if other := k.Other().Slot(); int(m.owner[other]) == idx && !m.open(other) {
			return standWait
		}
	}
	return standHere
}

func (o *updateOp) needs(slot Slot) bool {
	return slices.Contains(o.slots, slot) ||
		slices.ContainsFunc(o.reads.Convs, func(k ConvKey) bool { return k.Other().Slot() == slot })
}

func (o *updateOp) lock(w *work) {
	for _, slot := range o.slots {
		w.useSlot(slot)
	}
	o.convs, o.pos = o.convs[:0], positions{}
	p, r := &o.pos, &o.reads
	for _, k := range r.Convs {
		c := w.nameConv(k)
		o.convs = append(o.convs, c)
		p.convs = append(p.convs, c.conv)
		if c.task >= 0 {
			p.tasks = append(p.tasks, c.task)
		}
		for _, sd := range c.sides[:c.n] {
			p.users, p.userConvs = append(p.users, sd.user), append(p.userConvs, sd.userConv)
		}
	}
	p.users = addAll(&w.users, r.Users, p.users)
	p.sends = addAll(&w.sends, r.Sends, p.sends)
	p.userConvs = addAll(&w.userConvs, r.UserConvs, p.userConvs)
	p.names = addAll(&w.names, r.Names, p.names)
	p.accounts = addAll(&w.accounts, r.Accounts, p.accounts)
	p.devices = addAll(&w.devices, r.DevicesOf, p.devices)
	p.blocks = addAll(&w.blocks, r.Blocks, p.blocks)
	if o.tokenAt = -1; o.again {
		o.tokenAt = w.sends.add(o.token)
	}
}

func addAll[K comparable, V any](x *index[K, V], keys []K, dst []int32) []int32 {
	for _, k := range keys {
		dst = append(dst, x.add(k))
	}
	return dst
}

func (o *updateOp) plan(w *work) {
	if !o.state.CompareAndSwap(updateQueued, updateRunning) && o.state.Load() == updateGone {
		return
	}
	if o.tokenAt >= 0 && w.sends.row(o.tokenAt).Found {
		return // an earlier attempt was committed; o.err and fn's variables are that one's
	}
	undo := w.save(&o.pos)
	tx := &Tx{w: w, op: o}
	o.err = tx.run(o.fn)
	if o.err != nil {
		undo()
		return
	}
	if tx.once {
		w.out.Sends = append(w.out.Sends, SendRow{Key: o.token, Time: w.now, Found: true})
	}
}

func (o *updateOp) answer(err error) {
	if err == nil {
		err = o.err
	}
	o.result <- err
}

// save returns a function that puts back the rows at p, and what was appended.
func (w *work) save(p *positions) (undo func()) {
	undos := []func(){
		saveRows(&w.convs, p.convs), saveRows(&w.users, p.users), saveRows(&w.sends, p.sends),
		saveRows(&w.userConvs, p.userConvs), saveRows(&w.tasks, p.tasks), saveRows(&w.names, p.names),
		saveRows(&w.accounts, p.accounts), saveRows(&w.devices, p.devices), saveRows(&w.blocks, p.blocks),
	}
	entries, inbox, deliveries, owed, far := len(w.out.Entries), len(w.out.Inbox), len(w.batch.deliveries), len(w.owed), len(w.carried)
	return func() {
		for _, f := range undos {
			f()
		}
		w.out.Entries, w.out.Inbox = w.out.Entries[:entries], w.out.Inbox[:inbox]
		w.batch.deliveries, w.owed = w.batch.deliveries[:deliveries], w.owed[:owed]
		w.carried = w.carried[:far]
	}
}

func saveRows[K comparable, V any](x *index[K, V], pos []int32) func() {
	if len(pos) == 0 {
		return func() {}
	}
	rows := make([]workRow[V], len(pos))
	for i, p := range pos {
		rows[i] = x.rows[p]
	}
	return func() {
		for i, p := range pos {
			x.rows[p] = rows[i]
		}
	}
}
