package pebble

import (
	"cmp"
	"context"
	"errors"
	"math"
	"slices"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// View implements storage.Shard. The Snap is for one goroutine, and only until
// read returns. A long one costs disk space: nothing it sees can be compacted away.
func (s *Shard) View(ctx context.Context, slots []storage.SlotRef, read func(storage.Snap) error) (err error) {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.gate.exit()
	v, err := s.snapshot(slots)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, v.close()) }()
	return read(v)
}

// snap is a storage.Snap.
type snap struct {
	s     *Shard
	db    *crdb.Snapshot
	src   source
	slots []storage.SlotRef
	n     uint64 // what was applied before it was taken
	now   int64
}

var _ storage.Snap = (*snap)(nil)

func (s *Shard) snapshot(slots []storage.SlotRef) (*snap, error) {
	s.slotMu.RLock()
	defer s.slotMu.RUnlock()
	if err := s.checkSlots(slots); err != nil {
		return nil, err
	}
	n := s.applied.Load() // before the snapshot: it may see more, never less
	db := s.db.NewSnapshot()
	return &snap{s: s, db: db, src: source{r: db}, slots: slots, n: n, now: s.now()}, nil
}

func (v *snap) close() error { return errors.Join(v.src.close(), v.db.Close()) }

func (v *snap) Now() int64 { return v.now }

func (v *snap) User(u storage.UserID) (storage.UserHead, error) {
	if h, ok := v.s.users.peek(u, v.n); ok {
		return h, nil
	}
	return v.src.user(u)
}

func (v *snap) UserHeads(us []storage.UserID) ([]storage.UserHead, error) { return each(us, v.User) }

func (v *snap) UserConvRows(ks []storage.UserConvKey) ([]storage.UserConv, error) {
	return each(ks, v.UserConv)
}

func (v *snap) Conv(k storage.ConvKey) (storage.ConvHead, error) {
	if h, ok := v.s.convs.peek(k, v.n); ok {
		return h, nil
	}
	return v.src.conv(k)
}

func (v *snap) UserConv(k storage.UserConvKey) (storage.UserConv, error) {
	if c, ok := v.s.userConvs.peek(k, v.n); ok {
		return c, nil
	}
	return v.src.userConv(k)
}

func (v *snap) Inbox(u storage.UserID, after uint64, limit int) ([]storage.InboxRow, error) {
	if after == math.MaxUint64 {
		return nil, nil
	}
	s := &v.src
	s.low = inboxKey(s.low, u, after+1)
	s.upp = upperBound(s.upp, userKey(s.key, tableInbox, u))
	return collect(s, s.low, s.upp, limit, decodeInbox)
}

func (v *snap) OldestInbox(u storage.UserID) (seq uint64, time int64, ok bool, err error) {
	rows, err := v.Inbox(u, 0, 1)
	if err != nil || len(rows) == 0 {
		return 0, 0, false, err
	}
	return rows[0].Seq, rows[0].Entry.Time, true, nil
}

func (v *snap) Entries(conv storage.ConvKey, from, to uint64, limit, maxBytes int, desc bool) (rows []storage.Entry, err error) {
	if limit <= 0 || from > to {
		return nil, nil
	}
	s := &v.src
	s.low = entryKey(s.low, conv, from)
	s.upp = append(entryKey(s.upp, conv, to), 0) // the first key after to's
	size := 0
	err = s.scan(s.low, s.upp, desc, func(key, val []byte) (bool, error) {
		e, err := decodeEntry(key, val)
		if err != nil {
			return false, err
		}
		if size += len(e.Body); size > maxBytes && len(rows) > 0 {
			return false, nil
		}
		rows = append(rows, e)
		return len(rows) < limit && size < maxBytes, nil
	})
	return rows, err
}

func (v *snap) UserConvs(u storage.UserID, after *storage.ConvKey, limit int) ([]storage.UserConv, error) {
	s := &v.src
	s.low = userKey(s.low, tableUserConvs, u)
	s.upp = upperBound(s.upp, s.low)
	if after != nil {
		s.low = append(append(s.low, after[:]...), 0)
	}
	return collect(s, s.low, s.upp, limit, decodeUserConv)
}

func (v *snap) Name(name string) (storage.NameRow, error) { return v.src.name(name) }

func (v *snap) Account(u storage.UserID) (storage.Account, error) { return v.src.account(u) }

func (v *snap) Devices(u storage.UserID) ([]storage.Device, error) { return v.src.devices(u) }

func (v *snap) Block(k storage.BlockKey) (storage.Block, error) { return v.src.block(k) }

func (v *snap) BlocksOf(u, after storage.UserID, limit int) ([]storage.Block, error) {
	if after == math.MaxInt64 {
		return nil, nil
	}
	s := &v.src
	s.low = blockKey(s.low, storage.BlockKey{User: u, Peer: max(after, 0) + 1})
	s.upp = upperBound(s.upp, userKey(s.key, tableBlocks, u))
	return collect(s, s.low, s.upp, limit, decodeBlock)
}

func (v *snap) UsersFrom(from storage.UserID, limit int) (users []storage.UserID, err error) {
	slots := slices.Clone(v.slots)
	slices.SortFunc(slots, func(a, b storage.SlotRef) int { return cmp.Compare(a.Slot, b.Slot) })
	for i, ref := range slots {
		first := storage.UserIDIn(ref.Slot, 0)
		end := storage.UserID(uint64(ref.Slot+1) << 51) // 1<<63 after the last slot: as a key, that is right
		if len(users) >= limit || (i > 0 && slots[i-1].Slot == ref.Slot) || (end > 0 && end <= from) {
			continue
		}
		s := &v.src
		s.low = userKey(s.low, tableUsers, max(first, from))
		s.upp = userKey(s.upp, tableUsers, end)
		part, err := collect(s, s.low, s.upp, limit-len(users), decodeUserID)
		if err != nil {
			return nil, err
		}
		users = append(users, part...)
	}
	return users, nil
}

func (v *snap) SlotRows() ([]storage.SlotRow, error) {
	s := &v.src
	s.low = start(s.low, tableSlots)
	s.upp = upperBound(s.upp, s.low)
	return collect(s, s.low, s.upp, storage.Slots, decodeSlot)
}

func (v *snap) Meta(name string) (storage.MetaRow, error) { return v.src.meta(name) }
