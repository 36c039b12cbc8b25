package mysql

import (
	"slices"

	"github.com/hermod-im/hermod/storage"
)

// tables is every table of rows. It is made once for a Shard: functions of the
// columns, and nothing that changes.
type tables struct {
	convs     table[storage.ConvHead]
	users     table[storage.UserHead]
	entries   table[storage.Entry]
	inbox     table[storage.InboxRow]
	sends     table[storage.SendRow]
	userConvs table[storage.UserConv]
	tasks     table[storage.Task]
	names     table[storage.NameRow]
	accounts  table[storage.Account]
	devices   table[storage.Device]
	blocks    table[storage.Block]
	slots     table[storage.SlotRow]
	meta      table[storage.MetaRow]
}

func newTables() *tables {
	return &tables{
		convs: convTable(), users: userTable(), entries: entryTable(), inbox: inboxTable(),
		sends: sendTable(), userConvs: userConvTable(), tasks: taskTable(), names: nameTable(),
		accounts: accountTable(), devices: deviceTable(), blocks: blockTable(), slots: slotTable(), meta: metaTable(),
	}
}

func convTable() table[storage.ConvHead] {
	return table[storage.ConvHead]{
		name: "convs", keys: []string{"conv"},
		cols: []string{"generation", "rev", "conv_seq", "last_time_us", "member_version"},
		put: func(s *stmt, h *storage.ConvHead) {
			s.vb(h.Conv[:])
			s.vu(h.Generation)
			s.vu(h.Rev)
			s.vu(h.ConvSeq)
			s.vi(h.LastTime)
			s.vu(h.MemberVersion)
		},
		get: func(r *row) (h storage.ConvHead) {
			r.into(h.Conv[:])
			h.Found = !r.null()
			h.Generation, h.Rev, h.ConvSeq, h.LastTime, h.MemberVersion = r.u64(), r.u64(), r.u64(), r.i64(), r.u64()
			return h
		},
	}
}

func userTable() table[storage.UserHead] {
	return table[storage.UserHead]{
		name: "user_heads", keys: []string{"user_id"},
		cols: []string{"seq", "floor_seq", "inbox_epoch", "token_gen", "login_epoch", "epoch_1", "epoch_2", "epoch_3", "epoch_4", "epoch_5", "epoch_6"},
		put: func(s *stmt, h *storage.UserHead) {
			s.vi(int64(h.User))
			for _, v := range [...]uint64{h.Seq, h.Floor, h.InboxEpoch, h.TokenGen, h.LoginEpoch} {
				s.vu(v)
			}
			for _, v := range h.SlotEpochs[1:] {
				s.vu(v)
			}
		},
		get: func(r *row) (h storage.UserHead) {
			h.User = storage.UserID(r.i64())
			h.Seq, h.Floor, h.InboxEpoch, h.TokenGen, h.LoginEpoch = r.u64(), r.u64(), r.u64(), r.u64(), r.u64()
			for i := 1; i < len(h.SlotEpochs); i++ {
				h.SlotEpochs[i] = r.u64()
			}
			h.Found = true
			return h
		},
	}
}

func putEntry(s *stmt, e *storage.Entry) {
	s.vb(e.Conv[:])
	s.vu(e.Rev)
	s.vu(e.ConvSeq)
	s.vi(e.Time)
	s.vi(int64(e.Sender))
	s.vu(uint64(e.Kind))
	s.vb(e.SendID[:])
}

func getEntry(r *row) (e storage.Entry) {
	r.into(e.Conv[:])
	e.Rev, e.ConvSeq, e.Time, e.Sender, e.Kind = r.u64(), r.u64(), r.i64(), storage.UserID(r.i64()), uint16(r.u64())
	r.into(e.SendID[:])
	e.Body = r.bytes()
	return e
}

func entryTable() table[storage.Entry] {
	return table[storage.Entry]{
		name: "entries", keys: []string{"conv", "rev"},
		cols: []string{"conv_seq", "time_us", "sender", "kind", "send_id", "body"},
		put:  func(s *stmt, e *storage.Entry) { putEntry(s, e); s.vb(e.Body) },
		get:  getEntry,
	}
}

func inboxTable() table[storage.InboxRow] {
	return table[storage.InboxRow]{
		name: "inbox", keys: []string{"user_id", "seq"},
		cols: []string{"conv", "rev", "conv_seq", "time_us", "sender", "kind", "send_id", "body"},
		put: func(s *stmt, r *storage.InboxRow) {
			s.vi(int64(r.User))
			s.vu(r.Seq)
			putEntry(s, &r.Entry)
			if r.Inline {
				s.vb(r.Entry.Body)
			} else {
				s.add(",NULL")
			}
		},
		get: func(r *row) (in storage.InboxRow) {
			in.User, in.Seq = storage.UserID(r.i64()), r.u64()
			in.Entry = getEntry(r)
			in.Inline = in.Entry.Body != nil
			return in
		},
	}
}

func sendTable() table[storage.SendRow] {
	return table[storage.SendRow]{
		name: "sends", keys: []string{"slot", "send_id", "conv", "sender"},
		cols: []string{"hash", "rev", "conv_seq", "time_us"},
		put: func(s *stmt, r *storage.SendRow) {
			s.vu(uint64(r.Key.Conv.Slot()))
			s.vb(r.Key.SendID[:])
			s.vb(r.Key.Conv[:])
			s.vi(int64(r.Key.Sender))
			s.vb(r.Hash[:])
			s.vu(r.Rev)
			s.vu(r.ConvSeq)
			s.vi(r.Time)
		},
		get: func(r *row) (d storage.SendRow) {
			r.next() // the slot follows from conv
			r.into(d.Key.SendID[:])
			r.into(d.Key.Conv[:])
			d.Key.Sender = storage.UserID(r.i64())
			r.into(d.Hash[:])
			d.Rev, d.ConvSeq, d.Time, d.Found = r.u64(), r.u64(), r.i64(), true
			return d
		},
	}
}

func userConvTable() table[storage.UserConv] {
	return table[storage.UserConv]{
		name: "user_convs", keys: []string{"user_id", "conv"},
		cols: []string{"head_rev", "head", "read_seq", "own_sent", "cleared", "joined", "delivered", "head_time_us"},
		put: func(s *stmt, c *storage.UserConv) {
			s.vi(int64(c.Key.User))
			s.vb(c.Key.Conv[:])
			for _, v := range [...]uint64{c.HeadRev, c.Head, c.Read, c.OwnSent, c.Cleared, c.Joined, c.Delivered} {
				s.vu(v)
			}
			s.vi(c.HeadTime)
		},
		get: func(r *row) (c storage.UserConv) {
			c.Key.User = storage.UserID(r.i64())
			r.into(c.Key.Conv[:])
			c.HeadRev, c.Head, c.Read, c.OwnSent = r.u64(), r.u64(), r.u64(), r.u64()
			c.Cleared, c.Joined, c.Delivered, c.HeadTime = r.u64(), r.u64(), r.u64(), r.i64()
			c.Found = true
			return c
		},
	}
}

func taskTable() table[storage.Task] {
	return table[storage.Task]{
		name: "tasks", keys: []string{"conv", "target"},
		cols: []string{"next_rev", "to_rev", "owner", "incarnation"},
		put: func(s *stmt, t *storage.Task) {
			s.vb(t.Key.Conv[:])
			for _, v := range [...]uint64{uint64(t.Key.Target), t.NextRev, t.ToRev, uint64(t.Owner), t.Incarnation} {
				s.vu(v)
			}
		},
		get: func(r *row) (t storage.Task) {
			r.into(t.Key.Conv[:])
			t.Key.Target = storage.ShardID(r.u64())
			t.NextRev, t.ToRev, t.Owner, t.Incarnation, t.Found = r.u64(), r.u64(), storage.NodeID(r.u64()), r.u64(), true
			return t
		},
	}
}

func nameTable() table[storage.NameRow] {
	return table[storage.NameRow]{
		name: "account_names", keys: []string{"name"}, cols: []string{"user_id"},
		put: func(s *stmt, n *storage.NameRow) { s.vb([]byte(n.Name)); s.vi(int64(n.User)) },
		get: func(r *row) storage.NameRow {
			return storage.NameRow{Name: string(r.bytes()), User: storage.UserID(r.i64()), Found: true}
		},
	}
}

func accountTable() table[storage.Account] {
	return table[storage.Account]{
		name: "accounts", keys: []string{"user_id"}, cols: []string{"name", "created_us", "auth", "profile"},
		put: func(s *stmt, a *storage.Account) {
			s.vi(int64(a.User))
			s.vb([]byte(a.Name))
			s.vi(a.Created)
			s.vb(a.Auth)
			s.vb(a.Profile)
		},
		get: func(r *row) storage.Account {
			return storage.Account{
				User: storage.UserID(r.i64()), Name: string(r.bytes()), Created: r.i64(), Auth: r.some(), Profile: r.some(), Found: true,
			}
		},
	}
}

func deviceTable() table[storage.Device] {
	return table[storage.Device]{
		name: "devices", keys: []string{"user_id", "id"},
		cols: []string{"slot", "login_epoch", "secret_hash", "prev_hash", "created_us", "last_seen_us", "acked_seq", "info"},
		put: func(s *stmt, d *storage.Device) {
			s.vi(int64(d.Key.User))
			s.vb(d.Key.ID[:])
			s.vu(uint64(d.Slot))
			s.vu(d.LoginEpoch)
			s.vb(d.SecretHash[:])
			s.vb(d.PrevHash[:])
			s.vi(d.Created)
			s.vi(d.LastSeen)
			s.vu(d.AckedSeq)
			s.vb(d.Info)
		},
		get: func(r *row) (d storage.Device) {
			d.Key.User = storage.UserID(r.i64())
			r.into(d.Key.ID[:])
			d.Slot, d.LoginEpoch = uint8(r.u64()), r.u64()
			r.into(d.SecretHash[:])
			r.into(d.PrevHash[:])
			d.Created, d.LastSeen, d.AckedSeq, d.Info = r.i64(), r.i64(), r.u64(), r.some()
			return d
		},
	}
}

func blockTable() table[storage.Block] {
	return table[storage.Block]{
		name: "blocks", keys: []string{"user_id", "peer"}, cols: []string{"time_us"},
		put: func(s *stmt, b *storage.Block) { s.vi(int64(b.Key.User)); s.vi(int64(b.Key.Peer)); s.vi(b.Time) },
		get: func(r *row) storage.Block {
			return storage.Block{Key: storage.BlockKey{User: storage.UserID(r.i64()), Peer: storage.UserID(r.i64())}, Time: r.i64(), Found: true}
		},
	}
}

func slotTable() table[storage.SlotRow] {
	return table[storage.SlotRow]{
		name: "slots", keys: []string{"slot"}, cols: []string{"state", "epoch"},
		put: func(s *stmt, r *storage.SlotRow) { s.vu(uint64(r.Slot)); s.vu(uint64(r.State)); s.vu(r.Epoch) },
		get: func(r *row) storage.SlotRow {
			return storage.SlotRow{Slot: storage.Slot(r.u64()), State: storage.SlotState(r.u64()), Epoch: r.u64()}
		},
	}
}

func metaTable() table[storage.MetaRow] {
	return table[storage.MetaRow]{
		name: "meta", keys: []string{"name"}, cols: []string{"val"},
		put: func(s *stmt, m *storage.MetaRow) { s.vb([]byte(m.Name)); s.vb(m.Value) },
		get: func(r *row) storage.MetaRow {
			return storage.MetaRow{Name: string(r.bytes()), Value: r.some(), Found: true}
		},
	}
}

// some is bytes, nil where there are none: nobody tells the two apart.
func (r *row) some() []byte {
	if b := r.bytes(); len(b) > 0 {
		return b
	}
	return nil
}

// key says how rows are named: columns, and what is written for them.
type key[K any] struct {
	cols string
	many bool // columns
	put  func(*stmt, *K)
}

var (
	byUser = key[storage.UserID]{cols: "user_id", put: func(s *stmt, u *storage.UserID) { s.vi(int64(*u)) }}
	byConv = key[storage.ConvKey]{cols: "conv", put: func(s *stmt, k *storage.ConvKey) { s.vb(k[:]) }}
	byName = key[string]{cols: "name", put: func(s *stmt, n *string) { s.vb([]byte(*n)) }}

	byUserConv = key[storage.UserConvKey]{"user_id,conv", true, func(s *stmt, k *storage.UserConvKey) {
		s.vi(int64(k.User))
		s.vb(k.Conv[:])
	}}
	bySend = key[storage.SendKey]{"slot,send_id,conv,sender", true, func(s *stmt, k *storage.SendKey) {
		s.vu(uint64(k.Conv.Slot()))
		s.vb(k.SendID[:])
		s.vb(k.Conv[:])
		s.vi(int64(k.Sender))
	}}
	byTask = key[storage.TaskKey]{"conv,target", true, func(s *stmt, k *storage.TaskKey) {
		s.vb(k.Conv[:])
		s.vu(uint64(k.Target))
	}}
	byDevice = key[storage.DeviceKey]{"user_id,id", true, func(s *stmt, k *storage.DeviceKey) {
		s.vi(int64(k.User))
		s.vb(k.ID[:])
	}}
	byBlock = key[storage.BlockKey]{"user_id,peer", true, func(s *stmt, k *storage.BlockKey) {
		s.vi(int64(k.User))
		s.vi(int64(k.Peer))
	}}
)

// is is a condition: one of the keys. Lists of AND and OR mean the same, but
// the server spends twice the time on finding the ranges in them.
func (k *key[K]) is(s *stmt, keys ...K) {
	if k.many {
		s.open("(" + k.cols + ") IN (")
	} else {
		s.open(k.cols + " IN (")
	}
	for i := range keys {
		if k.many {
			s.sep(",")
			s.open("(")
		}
		k.put(s, &keys[i])
		if k.many {
			s.add(")")
		}
	}
	s.add(")")
}

// sorted returns the keys in order, each once.
func sorted[K comparable](keys []K, compare func(a, b K) int) []K {
	c := slices.Clone(keys)
	slices.SortFunc(c, compare)
	return slices.Compact(c)
}
