package router

import (
	"context"
	"sync"
	"time"
)

// memoryShards spreads the lock; a power of two.
const memoryShards = 64

// Memory is the directory of a node that runs alone. It keeps about 75 bytes
// per online device: the first device of a user stands in the map itself, only
// further ones are allocated.
type Memory struct {
	now    func() time.Time
	shards [memoryShards]memoryShard
}

type memoryShard struct {
	mu    sync.RWMutex
	users map[int64]memoryUser
}

// memoryUser holds a user's first entry inline; an idle fleet has one a user.
type memoryUser struct {
	entry Entry
	slot  Slot
	more  []slotEntry
}

type slotEntry struct {
	slot Slot
	Entry
}

// NewMemory returns an empty directory. now gives attach numbers.
func NewMemory(now func() time.Time) *Memory {
	m := &Memory{now: now}
	for i := range m.shards {
		m.shards[i].users = make(map[int64]memoryUser)
	}
	return m
}

func (m *Memory) shard(user int64) *memoryShard {
	h := uint64(user) * 0x9e3779b97f4a7c15
	return &m.shards[h>>58%memoryShards]
}

// find returns the entry of slot, or nil. It points into u.
func (u *memoryUser) find(slot Slot) *Entry {
	if u.slot == slot {
		return &u.entry
	}
	for i := range u.more {
		if u.more[i].slot == slot {
			return &u.more[i].Entry
		}
	}
	return nil
}

// Attach implements Directory; it never fails.
func (m *Memory) Attach(_ context.Context, user int64, slot Slot, e Entry) (Attached, error) {
	s := m.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[user]
	old := u.find(slot)
	if e.AttachNo == 0 {
		e.AttachNo = uint64(m.now().UnixMicro())
		if old != nil {
			e.AttachNo = max(e.AttachNo, old.AttachNo+1)
		}
	}
	switch {
	case old == nil && u.slot == 0:
		u.slot, u.entry = slot, e
	case old == nil:
		u.more = append(u.more, slotEntry{slot, e})
	case old.Ref == e.Ref:
		old.LoginEpoch = max(old.LoginEpoch, e.LoginEpoch)
		old.AttachNo = max(old.AttachNo, e.AttachNo)
		e = *old
	case !e.Beats(*old):
		return Attached{
			AttachNo: e.AttachNo, Lost: true, Loser: e.Ref,
			NewLogin: old.LoginEpoch > e.LoginEpoch,
		}, nil
	default:
		out := Attached{
			AttachNo: e.AttachNo, Loser: old.Ref,
			NewLogin: e.LoginEpoch > old.LoginEpoch,
		}
		*old = e
		s.users[user] = u
		return out, nil
	}
	s.users[user] = u
	return Attached{AttachNo: e.AttachNo}, nil
}

// Detach implements Directory; it never fails.
func (m *Memory) Detach(_ context.Context, user int64, slot Slot, ref Ref) error {
	s := m.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	u := s.users[user]
	old := u.find(slot)
	if old == nil || old.Ref != ref {
		return nil
	}
	u.remove(slot)
	if u.slot == 0 {
		delete(s.users, user)
	} else {
		s.users[user] = u
	}
	return nil
}

// remove takes slot out; slot 0 then means that nothing is left.
func (u *memoryUser) remove(slot Slot) {
	if u.slot == slot {
		if len(u.more) == 0 {
			*u = memoryUser{}
			return
		}
		u.slot, u.entry = u.more[0].slot, u.more[0].Entry
		slot = u.slot
	}
	rest := make([]slotEntry, 0, len(u.more))
	for _, e := range u.more {
		if e.slot != slot {
			rest = append(rest, e)
		}
	}
	u.more = rest
	if len(rest) == 0 {
		u.more = nil
	}
}

// Lookup implements Directory; it never fails.
func (m *Memory) Lookup(_ context.Context, users []int64, dst []Route) ([]Route, error) {
	for _, user := range users {
		s := m.shard(user)
		s.mu.RLock()
		if u, ok := s.users[user]; ok {
			dst = append(dst, Route{User: user, Slot: u.slot, Entry: u.entry})
			for _, e := range u.more {
				dst = append(dst, Route{User: user, Slot: e.slot, Entry: e.Entry})
			}
		}
		s.mu.RUnlock()
	}
	return dst, nil
}

// Close implements Directory.
func (m *Memory) Close() error { return nil }
