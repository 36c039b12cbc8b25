package storagetest

import (
	"bytes"
	"cmp"
	"encoding/binary"
	"fmt"
	"maps"
	"slices"

	"github.com/hermod-im/hermod/storage"
)

type entryKey struct {
	conv storage.ConvKey
	rev  uint64
}

type inboxKey struct {
	user storage.UserID
	seq  uint64
}

// memState is the rows of a Mem: those that are visible.
type memState struct {
	convs     map[storage.ConvKey]storage.ConvHead
	users     map[storage.UserID]storage.UserHead
	entries   map[entryKey]storage.Entry
	inbox     map[inboxKey]storage.InboxRow
	sends     map[storage.SendKey]storage.SendRow
	userConvs map[storage.UserConvKey]storage.UserConv
	tasks     map[storage.TaskKey]storage.Task
	names     map[string]storage.NameRow
	accounts  map[storage.UserID]storage.Account
	devices   map[storage.DeviceKey]storage.Device
	blocks    map[storage.BlockKey]storage.Block
	slots     map[storage.Slot]storage.SlotRow
	meta      map[string]storage.MetaRow
	leases    map[storage.NodeID]int64
}

func newMemState() *memState {
	return &memState{
		convs: map[storage.ConvKey]storage.ConvHead{}, users: map[storage.UserID]storage.UserHead{},
		entries: map[entryKey]storage.Entry{}, inbox: map[inboxKey]storage.InboxRow{},
		sends: map[storage.SendKey]storage.SendRow{}, userConvs: map[storage.UserConvKey]storage.UserConv{},
		tasks: map[storage.TaskKey]storage.Task{}, names: map[string]storage.NameRow{},
		accounts: map[storage.UserID]storage.Account{}, devices: map[storage.DeviceKey]storage.Device{},
		blocks: map[storage.BlockKey]storage.Block{}, slots: map[storage.Slot]storage.SlotRow{},
		meta: map[string]storage.MetaRow{}, leases: map[storage.NodeID]int64{},
	}
}

// copy is a snapshot.
func (s *memState) copy() *memState {
	return &memState{
		convs: maps.Clone(s.convs), users: maps.Clone(s.users), entries: maps.Clone(s.entries), inbox: maps.Clone(s.inbox),
		sends: maps.Clone(s.sends), userConvs: maps.Clone(s.userConvs), tasks: maps.Clone(s.tasks), names: maps.Clone(s.names),
		accounts: maps.Clone(s.accounts), devices: maps.Clone(s.devices), blocks: maps.Clone(s.blocks),
		slots: maps.Clone(s.slots), meta: maps.Clone(s.meta), leases: maps.Clone(s.leases),
	}
}

func (s *memState) checkSlots(refs []storage.SlotRef) error {
	for _, r := range refs {
		if have := s.slots[r.Slot]; have.State != storage.SlotOwned || have.Epoch != r.Epoch {
			return fmt.Errorf("slot %d at epoch %d: %w", r.Slot, r.Epoch, storage.ErrSlotMoved)
		}
	}
	return nil
}

// lock reads the rows that l names. The plan gets copies that are its own.
func (s *memState) lock(l *storage.Locks, now int64) *storage.Locked {
	r := &storage.Locked{Now: now}
	for _, k := range l.Convs {
		v := s.convs[k]
		v.Conv = k
		r.Convs = append(r.Convs, v)
	}
	for _, k := range l.Users {
		v := s.users[k]
		v.User = k
		r.Users = append(r.Users, v)
	}
	for _, k := range l.Sends {
		v := s.sends[k]
		v.Key = k
		r.Sends = append(r.Sends, v)
	}
	for _, k := range l.UserConvs {
		v := s.userConvs[k]
		v.Key = k
		r.UserConvs = append(r.UserConvs, v)
	}
	for _, k := range l.Tasks {
		v := s.tasks[k]
		v.Key = k
		r.Tasks = append(r.Tasks, v)
	}
	for _, k := range l.Names {
		v := s.names[k]
		v.Name = k
		r.Names = append(r.Names, v)
	}
	for _, k := range l.Accounts {
		r.Accounts = append(r.Accounts, s.account(k))
	}
	for _, k := range l.DevicesOf {
		r.Devices = append(r.Devices, s.devicesOf(k))
	}
	for _, k := range l.Blocks {
		v := s.blocks[k]
		v.Key = k
		r.Blocks = append(r.Blocks, v)
	}
	for _, k := range l.Meta {
		r.Meta = append(r.Meta, s.metaRow(k))
	}
	return r
}

func (s *memState) devicesOf(u storage.UserID) (ds []storage.Device) {
	for k, d := range s.devices {
		if k.User == u {
			d.Info = bytes.Clone(d.Info)
			ds = append(ds, d)
		}
	}
	slices.SortFunc(ds, func(a, b storage.Device) int { return bytes.Compare(a.Key.ID[:], b.Key.ID[:]) })
	return ds
}

func (s *memState) account(u storage.UserID) storage.Account {
	v := s.accounts[u]
	v.User, v.Auth, v.Profile = u, bytes.Clone(v.Auth), bytes.Clone(v.Profile)
	return v
}

func (s *memState) metaRow(name string) storage.MetaRow {
	v := s.meta[name]
	v.Name, v.Value = name, bytes.Clone(v.Value)
	return v
}

// refuse finds writes that a strict engine would refuse: rows that are insert
// only and exist, and keys that appear twice.
func (s *memState) refuse(w *storage.Writes) error {
	seen := map[any]bool{}
	once := func(kind string, k any, exists bool) error {
		if exists || seen[k] {
			return fmt.Errorf("%w: %s %v", errTwice, kind, k)
		}
		seen[k] = true
		return nil
	}
	for _, e := range w.Entries {
		k := entryKey{e.Conv, e.Rev}
		if _, ok := s.entries[k]; ok || once("entry", k, false) != nil {
			return once("entry", k, true)
		}
	}
	for _, r := range w.Inbox {
		k := inboxKey{r.User, r.Seq}
		if _, ok := s.inbox[k]; ok || once("inbox row", k, false) != nil {
			return once("inbox row", k, true)
		}
	}
	for _, r := range w.Sends {
		if _, ok := s.sends[r.Key]; ok || once("send", r.Key, false) != nil {
			return once("send", r.Key, true)
		}
	}
	for _, r := range w.Names {
		if _, ok := s.names[r.Name]; ok {
			return once("name", r.Name, true)
		}
	}
	for _, u := range w.Users {
		if err := once("user", u.User, false); err != nil {
			return err
		}
	}
	for _, c := range w.Convs {
		if err := once("conversation", c.Conv, false); err != nil {
			return err
		}
	}
	for _, c := range w.UserConvs {
		if err := once("user_conv", c.Key, false); err != nil {
			return err
		}
	}
	return nil
}

func (s *memState) apply(w *storage.Writes) {
	for _, v := range w.Convs {
		v.Found = true
		s.convs[v.Conv] = v
	}
	for _, v := range w.Users {
		v.Found = true
		s.users[v.User] = v
	}
	for _, v := range w.Entries {
		s.entries[entryKey{v.Conv, v.Rev}] = v
	}
	for _, v := range w.Inbox {
		s.inbox[inboxKey{v.User, v.Seq}] = v
	}
	for _, v := range w.Sends {
		v.Found = true
		s.sends[v.Key] = v
	}
	for _, v := range w.UserConvs {
		v.Found = true
		s.userConvs[v.Key] = v
	}
	for _, v := range w.Tasks {
		v.Found = true
		s.tasks[v.Key] = v
	}
	for _, v := range w.Names {
		v.Found = true
		s.names[v.Name] = v
	}
	for _, v := range w.Accounts {
		v.Found = true
		s.accounts[v.User] = v
	}
	for _, v := range w.Devices {
		s.devices[v.Key] = v
	}
	for _, v := range w.Blocks {
		v.Found = true
		s.blocks[v.Key] = v
	}
	for _, v := range w.Slots {
		s.slots[v.Slot] = v
	}
	for _, v := range w.Meta {
		v.Found = true
		s.meta[v.Name] = v
	}
	s.remove(w)
}

func (s *memState) remove(w *storage.Writes) {
	for _, k := range w.DelTasks {
		delete(s.tasks, k)
	}
	for _, k := range w.DelDevices {
		delete(s.devices, k)
	}
	for _, k := range w.DelBlocks {
		delete(s.blocks, k)
	}
	for _, t := range w.Trims {
		for k := range s.inbox {
			if k.user == t.User && k.seq <= t.Floor {
				delete(s.inbox, k)
			}
		}
	}
	if w.DelSendsBefore > 0 {
		for k := range s.sends {
			made := int64(binary.BigEndian.Uint64(k.SendID[:8])>>16) * 1000
			if made < w.DelSendsBefore && slices.Contains(w.DelSendsSlots, k.Conv.Slot()) {
				delete(s.sends, k)
			}
		}
	}
}

// clone copies all that w points to: it is the caller's again after Commit.
func clone(w *storage.Writes) *storage.Writes {
	c := &storage.Writes{
		Convs: slices.Clone(w.Convs), Users: slices.Clone(w.Users), Entries: slices.Clone(w.Entries), Inbox: slices.Clone(w.Inbox),
		Sends: slices.Clone(w.Sends), UserConvs: slices.Clone(w.UserConvs), Tasks: slices.Clone(w.Tasks), Names: slices.Clone(w.Names),
		Accounts: slices.Clone(w.Accounts), Devices: slices.Clone(w.Devices), Blocks: slices.Clone(w.Blocks), Slots: slices.Clone(w.Slots),
		Meta: slices.Clone(w.Meta), DelTasks: slices.Clone(w.DelTasks), DelDevices: slices.Clone(w.DelDevices),
		DelBlocks: slices.Clone(w.DelBlocks), Trims: slices.Clone(w.Trims), DelSendsBefore: w.DelSendsBefore,
		DelSendsSlots: slices.Clone(w.DelSendsSlots),
	}
	for i := range c.Entries {
		c.Entries[i].Body = bytes.Clone(c.Entries[i].Body)
	}
	for i := range c.Inbox {
		c.Inbox[i].Entry.Body = bytes.Clone(c.Inbox[i].Entry.Body)
		if !c.Inbox[i].Inline {
			c.Inbox[i].Entry.Body = nil
		}
	}
	for i := range c.Accounts {
		c.Accounts[i].Auth, c.Accounts[i].Profile = bytes.Clone(c.Accounts[i].Auth), bytes.Clone(c.Accounts[i].Profile)
	}
	for i := range c.Devices {
		c.Devices[i].Info = bytes.Clone(c.Devices[i].Info)
	}
	for i := range c.Meta {
		c.Meta[i].Value = bytes.Clone(c.Meta[i].Value)
	}
	return c
}

// memSnap is a storage.Snap.
type memSnap struct {
	*memState
	now   int64
	slots []storage.SlotRef
}

func (s *memSnap) Now() int64 { return s.now }

func (s *memSnap) User(u storage.UserID) (storage.UserHead, error) {
	v := s.users[u]
	v.User = u
	return v, nil
}

func (s *memSnap) Conv(k storage.ConvKey) (storage.ConvHead, error) {
	v := s.convs[k]
	v.Conv = k
	return v, nil
}

func (s *memSnap) Inbox(u storage.UserID, after uint64, limit int) (rows []storage.InboxRow, err error) {
	for k, r := range s.inbox {
		if k.user == u && k.seq > after {
			rows = append(rows, r)
		}
	}
	slices.SortFunc(rows, func(a, b storage.InboxRow) int { return cmp.Compare(a.Seq, b.Seq) })
	rows = rows[:min(len(rows), limit)]
	for i := range rows {
		rows[i].Entry.Body = bytes.Clone(rows[i].Entry.Body)
	}
	return rows, nil
}

func (s *memSnap) OldestInbox(u storage.UserID) (seq uint64, time int64, ok bool, err error) {
	rows, _ := s.Inbox(u, 0, 1)
	if len(rows) == 0 {
		return 0, 0, false, nil
	}
	return rows[0].Seq, rows[0].Entry.Time, true, nil
}

func (s *memSnap) Entries(k storage.ConvKey, from, to uint64, limit, maxBytes int, desc bool) (es []storage.Entry, err error) {
	for ek, e := range s.entries {
		if ek.conv == k && ek.rev >= from && ek.rev <= to {
			es = append(es, e)
		}
	}
	slices.SortFunc(es, func(a, b storage.Entry) int {
		if desc {
			return cmp.Compare(b.Rev, a.Rev)
		}
		return cmp.Compare(a.Rev, b.Rev)
	})
	size := 0
	for i := range es {
		if size += len(es[i].Body); i == limit || i > 0 && size > maxBytes {
			return es[:i], nil
		}
		es[i].Body = bytes.Clone(es[i].Body)
	}
	return es, nil
}

func (s *memSnap) UserConv(k storage.UserConvKey) (storage.UserConv, error) {
	v := s.userConvs[k]
	v.Key = k
	return v, nil
}

func (s *memSnap) UserHeads(us []storage.UserID) (hs []storage.UserHead, err error) {
	for _, u := range us {
		h, _ := s.User(u)
		hs = append(hs, h)
	}
	return hs, nil
}

func (s *memSnap) UserConvRows(ks []storage.UserConvKey) (cs []storage.UserConv, err error) {
	for _, k := range ks {
		c, _ := s.UserConv(k)
		cs = append(cs, c)
	}
	return cs, nil
}

func (s *memSnap) UserConvs(u storage.UserID, after *storage.ConvKey, limit int) (cs []storage.UserConv, err error) {
	for k, c := range s.userConvs {
		if k.User == u && (after == nil || bytes.Compare(k.Conv[:], after[:]) > 0) {
			cs = append(cs, c)
		}
	}
	slices.SortFunc(cs, func(a, b storage.UserConv) int { return bytes.Compare(a.Key.Conv[:], b.Key.Conv[:]) })
	return cs[:min(len(cs), limit)], nil
}

func (s *memSnap) Name(n string) (storage.NameRow, error) {
	v := s.names[n]
	v.Name = n
	return v, nil
}

func (s *memSnap) Account(u storage.UserID) (storage.Account, error) {
	return s.account(u), nil
}

func (s *memSnap) Devices(u storage.UserID) ([]storage.Device, error) { return s.devicesOf(u), nil }

func (s *memSnap) Block(k storage.BlockKey) (storage.Block, error) {
	v := s.blocks[k]
	v.Key = k
	return v, nil
}

func (s *memSnap) BlocksOf(u, after storage.UserID, limit int) (bs []storage.Block, err error) {
	for k, b := range s.blocks {
		if k.User == u && k.Peer > after {
			bs = append(bs, b)
		}
	}
	slices.SortFunc(bs, func(a, b storage.Block) int { return cmp.Compare(a.Key.Peer, b.Key.Peer) })
	return bs[:min(len(bs), limit)], nil
}

func (s *memSnap) UsersFrom(from storage.UserID, limit int) (us []storage.UserID, err error) {
	for u := range s.users {
		if u >= from && slices.ContainsFunc(s.slots, func(r storage.SlotRef) bool { return r.Slot == u.Slot() }) {
			us = append(us, u)
		}
	}
	slices.Sort(us)
	return us[:min(len(us), limit)], nil
}

func (s *memSnap) SlotRows() (rows []storage.SlotRow, err error) {
	for _, r := range s.memState.slots {
		rows = append(rows, r)
	}
	slices.SortFunc(rows, func(a, b storage.SlotRow) int { return cmp.Compare(a.Slot, b.Slot) })
	return rows, nil
}

func (s *memSnap) Meta(name string) (storage.MetaRow, error) {
	return s.metaRow(name), nil
}
