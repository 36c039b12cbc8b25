package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// memoryShards spreads the lock; a power of two.
const memoryShards = 64

// errTooManyNodes cannot happen on a node that runs alone.
var errTooManyNodes = errors.New("router: the in-memory directory holds up to 65,536 nodes")

// maxLoginEpoch is the highest login epoch that fits: a trillion logins.
const maxLoginEpoch = 1<<40 - 1

// Memory is the directory of a node that runs alone. A million idle devices
// are mostly a million of these rows, so they are packed: 32 bytes, key included,
// where the plain structs took 80, in a table that is never half empty. Nodes
// are named by a number; a user's further devices stand in a map of their own.
type Memory struct {
	now    func() time.Time
	bug    bug // none, but in a server for the torture
	shards [memoryShards]memoryShard

	// nodes by number. Replaced as a whole under mu, never changed in place:
	// every lookup reads it.
	nodes atomic.Pointer[[]memoryNode]
	mu    sync.Mutex
}

type memoryNode struct{ node, incarnation uint64 }

type memoryShard struct {
	mu sync.RWMutex
	// first holds one device of each user, more the others.
	first rows
	more  map[userSlot]packed
}

type userSlot struct {
	user int64
	slot Slot
}

// packed is an entry and its slot: login epoch (40 bits), number of the node
// (16), slot (7; maxSlot at most), and whether the user has further devices (1).
type packed struct {
	conn, attach, word uint64
}

const hasMore = 1

// maxSlot is the highest slot that is looked for.
const maxSlot = 15

func (p packed) slot() Slot    { return Slot(p.word >> 1 & 0x7f) }
func (p packed) epoch() uint64 { return p.word >> 24 }

// NewMemory returns an empty directory. now gives attach numbers.
func NewMemory(now func() time.Time) *Memory {
	m := &Memory{now: now, bug: openBug()}
	m.nodes.Store(new([]memoryNode))
	for i := range m.shards {
		m.shards[i].more = make(map[userSlot]packed)
	}
	return m
}

func (m *Memory) shard(user int64) *memoryShard {
	return &m.shards[memoryHash(user)>>58%memoryShards]
}

func memoryHash(user int64) uint64 { return uint64(user) * 0x9e3779b97f4a7c15 }

// pack makes an entry small.
func (m *Memory) pack(slot Slot, e Entry) (packed, error) {
	n, err := m.number(memoryNode{e.Node, e.Incarnation})
	if err != nil {
		return packed{}, err
	}
	word := min(e.LoginEpoch, maxLoginEpoch)<<24 | uint64(n)<<8 | uint64(slot)<<1
	return packed{conn: e.Conn, attach: e.AttachNo, word: word}, nil
}

// number returns a node's number, giving it one the first time.
func (m *Memory) number(want memoryNode) (int, error) {
	if n := slices.Index(*m.nodes.Load(), want); n >= 0 {
		return n, nil
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	nodes := *m.nodes.Load()
	n := slices.Index(nodes, want)
	if n < 0 {
		if n = len(nodes); n == 1<<16 {
			return 0, errTooManyNodes
		}
		nodes = append(slices.Clone(nodes), want)
		m.nodes.Store(&nodes)
	}
	return n, nil
}

func (m *Memory) unpack(p packed) Entry {
	n := (*m.nodes.Load())[p.word>>8&0xffff]
	return Entry{
		Ref:        Ref{Node: n.node, Incarnation: n.incarnation, Conn: p.conn},
		LoginEpoch: p.epoch(), AttachNo: p.attach,
	}
}

// get returns the row of (user, slot).
func (s *memoryShard) get(user int64, slot Slot) (packed, bool) {
	if p, ok := s.first.get(user); ok && p.slot() == slot {
		return p, true
	}
	p, ok := s.more[userSlot{user, slot}]
	return p, ok
}

// put writes the row of (user, slot), new or not.
func (s *memoryShard) put(user int64, p packed) {
	first, ok := s.first.get(user)
	switch {
	case !ok:
		s.first.put(user, p)
	case first.slot() == p.slot():
		p.word |= first.word & hasMore
		s.first.put(user, p)
	default:
		s.more[userSlot{user, p.slot()}] = p
		first.word |= hasMore
		s.first.put(user, first)
	}
}

// remove takes the row of (user, slot) out. A further device moves up.
func (s *memoryShard) remove(user int64, slot Slot) {
	first, _ := s.first.get(user)
	if first.slot() != slot {
		delete(s.more, userSlot{user, slot})
		return
	}
	s.first.remove(user)
	if first.word&hasMore == 0 {
		return
	}
	s.each(user, func(p packed) {
		delete(s.more, userSlot{user, p.slot()})
		s.put(user, p)
	})
}

// each calls f for the rows of a user that are in more.
func (s *memoryShard) each(user int64, f func(packed)) {
	for slot := Slot(0); slot <= maxSlot; slot++ {
		if p, ok := s.more[userSlot{user, slot}]; ok {
			f(p)
		}
	}
}

// Attach implements Directory. It fails for slots and nodes beyond what fits.
func (m *Memory) Attach(_ context.Context, user int64, slot Slot, e Entry) (Attached, error) {
	if user <= 0 {
		return Attached{}, fmt.Errorf("router: there is no user %d: ids are above 0", user)
	}
	if slot > maxSlot {
		return Attached{}, fmt.Errorf("router: slot %d: the in-memory directory holds slots up to %d", slot, maxSlot)
	}
	s := m.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	row, found := s.get(user, slot)
	var old Entry
	if found {
		old = m.unpack(row)
	}
	if e.AttachNo == 0 {
		e.AttachNo = max(uint64(m.now().UnixMicro()), old.AttachNo+1)
	}
	out := Attached{AttachNo: e.AttachNo}
	switch {
	case !found:
	case old.Ref == e.Ref:
		e.LoginEpoch = max(e.LoginEpoch, old.LoginEpoch)
		e.AttachNo = max(e.AttachNo, old.AttachNo)
		out.AttachNo = e.AttachNo
	case !e.Beats(old) && !m.bug.ignoresOrder():
		out.Lost, out.Loser, out.NewLogin = true, e.Ref, old.LoginEpoch > e.LoginEpoch
		return out, nil
	default:
		out.Loser, out.NewLogin = old.Ref, e.LoginEpoch > old.LoginEpoch
	}
	p, err := m.pack(slot, e)
	if err != nil {
		return Attached{}, err
	}
	s.put(user, p)
	return out, nil
}

// Detach implements Directory; it never fails.
func (m *Memory) Detach(_ context.Context, user int64, slot Slot, ref Ref) error {
	s := m.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	if p, ok := s.get(user, slot); ok && m.unpack(p).Ref == ref {
		s.remove(user, slot)
	}
	return nil
}

// Lookup implements Directory; it never fails.
func (m *Memory) Lookup(_ context.Context, users []int64, dst []Route) ([]Route, error) {
	for _, user := range users {
		s := m.shard(user)
		s.mu.RLock()
		if p, ok := s.first.get(user); ok {
			dst = append(dst, Route{User: user, Slot: p.slot(), Entry: m.unpack(p)})
			if p.word&hasMore != 0 {
				s.each(user, func(p packed) {
					dst = append(dst, Route{User: user, Slot: p.slot(), Entry: m.unpack(p)})
				})
			}
		}
		s.mu.RUnlock()
	}
	return dst, nil
}

// Close implements Directory.
func (m *Memory) Close() error { return nil }

// find returns the entry of one slot.
func (m *Memory) find(user int64, slot Slot) (Entry, bool) {
	s := m.shard(user)
	s.mu.RLock()
	defer s.mu.RUnlock()
	p, ok := s.get(user, slot)
	if !ok {
		return Entry{}, false
	}
	return m.unpack(p), true
}

// renumber raises the attach number of ref's entry to at least no, and reports
// whether the slot is ref's at all.
func (m *Memory) renumber(user int64, slot Slot, ref Ref, no uint64) bool {
	s := m.shard(user)
	s.mu.Lock()
	defer s.mu.Unlock()
	p, ok := s.get(user, slot)
	if !ok || m.unpack(p).Ref != ref {
		return false
	}
	p.attach = max(p.attach, no)
	s.put(user, p)
	return true
}

// appendPart appends the nth of memoryShards parts of everything there is.
func (m *Memory) appendPart(dst []Route, nth int) []Route {
	s := &m.shards[nth]
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, r := range s.first.places {
		if r.user != 0 {
			dst = append(dst, Route{User: r.user, Slot: r.slot(), Entry: m.unpack(r.packed)})
		}
	}
	for at, p := range s.more {
		dst = append(dst, Route{User: at.user, Slot: at.slot, Entry: m.unpack(p)})
	}
	return dst
}
