package storage

import (
	"fmt"
	"slices"
)

// guarded is a Snap that knows two rules: what is read belongs to a slot that
// was checked in this snapshot (R5), and whether it may be too young to be
// durable (R1).
type guarded struct {
	Snap
	s     *Store
	slots []SlotRef
	shard *shard
	// young: an answer that rests on what was read must wait for a barrier.
	young bool
}

// youngAge is how old a dated row of this shard must be to be surely durable.
const youngAge = int64(60 * 1e6)

// use checks a slot. Rows without a time of their own, and rows that are not
// there (they may just have been deleted), count as young.
func (g *guarded) use(slot Slot) error {
	if !slices.ContainsFunc(g.slots, func(r SlotRef) bool { return r.Slot == slot }) {
		return fmt.Errorf("%w: a row of slot %d was read in a view of other slots", ErrInvalid, slot)
	}
	return nil
}

func (g *guarded) undated(slot Slot) error {
	g.young = true
	return g.use(slot)
}

// dated notes the time of a row that is written once: old ones are durable.
func (g *guarded) dated(t int64) {
	if g.Now()-t < youngAge {
		g.young = true
	}
}

func (g *guarded) User(u UserID) (UserHead, error) {
	if err := g.undated(u.Slot()); err != nil {
		return UserHead{}, err
	}
	return g.Snap.User(u)
}

func (g *guarded) UserHeads(us []UserID) ([]UserHead, error) {
	for _, u := range us {
		if err := g.undated(u.Slot()); err != nil {
			return nil, err
		}
	}
	return g.Snap.UserHeads(us)
}

func (g *guarded) UserConvRows(ks []UserConvKey) ([]UserConv, error) {
	for _, k := range ks {
		if err := g.undated(k.User.Slot()); err != nil {
			return nil, err
		}
	}
	return g.Snap.UserConvRows(ks)
}

func (g *guarded) Conv(k ConvKey) (ConvHead, error) {
	if err := g.undated(k.Slot()); err != nil {
		return ConvHead{}, err
	}
	return g.Snap.Conv(k)
}

func (g *guarded) Inbox(u UserID, after uint64, limit int) ([]InboxRow, error) {
	if err := g.use(u.Slot()); err != nil {
		return nil, err
	}
	rows, err := g.Snap.Inbox(u, after, limit)
	g.datedInbox(rows)
	return rows, err
}

// datedInbox looks at all rows: their times are those of their conversations,
// which need not rise with seq. A row that came by a task is younger than its
// entry, so its time says nothing; and where there are several shards, any row
// of a conversation that is at home elsewhere may have come by one (see owe).
func (g *guarded) datedInbox(rows []InboxRow) {
	for i := range rows {
		if len(g.s.shards) > 1 && rows[i].Entry.Conv.Slot() != rows[i].User.Slot() {
			g.young = true
			return
		}
		g.dated(rows[i].Entry.Time)
	}
}

func (g *guarded) OldestInbox(u UserID) (seq uint64, time int64, ok bool, err error) {
	if err := g.undated(u.Slot()); err != nil {
		return 0, 0, false, err
	}
	return g.Snap.OldestInbox(u)
}

func (g *guarded) Entries(k ConvKey, from, to uint64, limit, maxBytes int, desc bool) ([]Entry, error) {
	if err := g.use(k.Slot()); err != nil {
		return nil, err
	}
	es, err := g.Snap.Entries(k, from, to, limit, maxBytes, desc)
	for i := range es {
		g.dated(es[i].Time)
	}
	return es, err
}

func (g *guarded) UserConv(k UserConvKey) (UserConv, error) {
	if err := g.undated(k.User.Slot()); err != nil {
		return UserConv{}, err
	}
	return g.Snap.UserConv(k)
}

func (g *guarded) UserConvs(u UserID, after *ConvKey, limit int) ([]UserConv, error) {
	if err := g.undated(u.Slot()); err != nil {
		return nil, err
	}
	return g.Snap.UserConvs(u, after, limit)
}

func (g *guarded) Name(n string) (NameRow, error) {
	if err := g.undated(g.s.NameSlot(n)); err != nil {
		return NameRow{}, err
	}
	return g.Snap.Name(n)
}

func (g *guarded) Account(u UserID) (Account, error) {
	if err := g.undated(u.Slot()); err != nil {
		return Account{}, err
	}
	return g.Snap.Account(u)
}

func (g *guarded) Devices(u UserID) ([]Device, error) {
	if err := g.undated(u.Slot()); err != nil {
		return nil, err
	}
	return g.Snap.Devices(u)
}

func (g *guarded) Block(k BlockKey) (Block, error) {
	if err := g.undated(k.User.Slot()); err != nil {
		return Block{}, err
	}
	return g.Snap.Block(k)
}

func (g *guarded) BlocksOf(u, after UserID, limit int) ([]Block, error) {
	if err := g.undated(u.Slot()); err != nil {
		return nil, err
	}
	return g.Snap.BlocksOf(u, after, limit)
}

func (g *guarded) UsersFrom(from UserID, limit int) ([]UserID, error) {
	g.young = true
	return g.Snap.UsersFrom(from, limit)
}

func (g *guarded) SlotRows() ([]SlotRow, error) {
	g.young = true
	return g.Snap.SlotRows()
}

func (g *guarded) Meta(name string) (MetaRow, error) {
	g.young = true
	return g.Snap.Meta(name)
}
