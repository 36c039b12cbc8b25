package mysql

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hermod-im/hermod/storage"
)

// exportBytes ends a page of Export: its bodies together.
const exportBytes = 1 << 20

// exportRows is the most rows of a table that are read at once: with the
// largest bodies they are a few megabytes.
const exportRows = 100

// exported is a table of which a slot is a range. A cursor is the table's place
// and the last row's key, the columns one after the other.
type exported struct {
	name string
	keys []keyColumn
	// page reads the rows that tail asks for into w, in the order of their keys,
	// until there are exportBytes of bodies. It returns how many rows there
	// were, the size of the bodies and the key of the last row in w.
	page func(v *snap, tail func(*stmt), w *storage.Writes) (rows, size int, last []byte, err error)
}

// keyColumn is a column of a key: 16 bytes, or a number.
type keyColumn struct {
	name  string
	bytes bool
}

// A slot is a range of the first column, whatever that is.
var slotTables = [...]func(*tables) exported{
	func(t *tables) exported {
		return exportOf(&t.users, []keyColumn{{name: "user_id"}}, func(w *storage.Writes) *[]storage.UserHead { return &w.Users },
			func(h *storage.UserHead) ([]byte, int) { return number64(nil, uint64(h.User)), 0 })
	},
	func(t *tables) exported {
		return exportOf(&t.convs, []keyColumn{{"conv", true}}, func(w *storage.Writes) *[]storage.ConvHead { return &w.Convs },
			func(h *storage.ConvHead) ([]byte, int) { return h.Conv[:], 0 })
	},
	func(t *tables) exported {
		return exportOf(&t.accounts, []keyColumn{{name: "user_id"}}, func(w *storage.Writes) *[]storage.Account { return &w.Accounts },
			func(a *storage.Account) ([]byte, int) {
				return number64(nil, uint64(a.User)), len(a.Auth) + len(a.Profile)
			})
	},
	func(t *tables) exported {
		return exportOf(&t.names, []keyColumn{{name: "user_id"}}, func(w *storage.Writes) *[]storage.NameRow { return &w.Names },
			func(n *storage.NameRow) ([]byte, int) { return number64(nil, uint64(n.User)), 0 })
	},
	func(t *tables) exported {
		return exportOf(&t.devices, []keyColumn{{name: "user_id"}, {"id", true}}, func(w *storage.Writes) *[]storage.Device { return &w.Devices },
			func(d *storage.Device) ([]byte, int) {
				return append(number64(nil, uint64(d.Key.User)), d.Key.ID[:]...), len(d.Info)
			})
	},
	func(t *tables) exported {
		return exportOf(&t.blocks, []keyColumn{{name: "user_id"}, {name: "peer"}}, func(w *storage.Writes) *[]storage.Block { return &w.Blocks },
			func(b *storage.Block) ([]byte, int) {
				return number64(number64(nil, uint64(b.Key.User)), uint64(b.Key.Peer)), 0
			})
	},
	func(t *tables) exported {
		return exportOf(&t.userConvs, []keyColumn{{name: "user_id"}, {"conv", true}}, func(w *storage.Writes) *[]storage.UserConv { return &w.UserConvs },
			func(c *storage.UserConv) ([]byte, int) {
				return append(number64(nil, uint64(c.Key.User)), c.Key.Conv[:]...), 0
			})
	},
	func(t *tables) exported {
		return exportOf(&t.sends, []keyColumn{{name: "slot"}, {"send_id", true}, {"conv", true}, {name: "sender"}}, func(w *storage.Writes) *[]storage.SendRow { return &w.Sends },
			func(r *storage.SendRow) ([]byte, int) {
				k := append(number64(nil, uint64(r.Key.Conv.Slot())), r.Key.SendID[:]...)
				return number64(append(k, r.Key.Conv[:]...), uint64(r.Key.Sender)), 0
			})
	},
	func(t *tables) exported {
		return exportOf(&t.tasks, []keyColumn{{"conv", true}, {name: "target"}}, func(w *storage.Writes) *[]storage.Task { return &w.Tasks },
			func(r *storage.Task) ([]byte, int) {
				return number64(append([]byte(nil), r.Key.Conv[:]...), uint64(r.Key.Target)), 0
			})
	},
	func(t *tables) exported {
		return exportOf(&t.entries, []keyColumn{{"conv", true}, {name: "rev"}}, func(w *storage.Writes) *[]storage.Entry { return &w.Entries },
			func(e *storage.Entry) ([]byte, int) {
				return number64(append([]byte(nil), e.Conv[:]...), e.Rev), len(e.Body)
			})
	},
	func(t *tables) exported {
		return exportOf(&t.inbox, []keyColumn{{name: "user_id"}, {name: "seq"}}, func(w *storage.Writes) *[]storage.InboxRow { return &w.Inbox },
			func(r *storage.InboxRow) ([]byte, int) {
				return number64(number64(nil, uint64(r.User)), r.Seq), len(r.Entry.Body)
			})
	},
}

func number64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

func exportOf[R any](t *table[R], keys []keyColumn, dst func(*storage.Writes) *[]R, keyOf func(*R) (key []byte, size int)) exported {
	return exported{name: t.name, keys: keys, page: func(v *snap, tail func(*stmt), w *storage.Writes) (int, int, []byte, error) {
		rows, err := selected(v, t, tail)
		if err != nil || len(rows) == 0 {
			return 0, 0, nil, err
		}
		var last []byte
		total, out := 0, dst(w)
		for i := 0; i < len(rows) && total < exportBytes; i++ {
			key, size := keyOf(&rows[i])
			last, total = key, total+size
			*out = append(*out, rows[i])
		}
		return len(rows), total, append([]byte(nil), last...), nil
	}}
}

// Export implements storage.Snap.
func (v *snap) Export(slot storage.Slot, after []byte, limit int) (w storage.Writes, next []byte, err error) {
	at := 0
	if after != nil {
		if !v.isPlace(after) {
			return w, nil, fmt.Errorf("%w: Export after a place that none of its pages ended at", storage.ErrInvalid)
		}
		at, after = int(after[0]), after[1:]
	}
	size := 0
	for ; at < len(slotTables); at, after = at+1, nil {
		x := slotTables[at](v.s.t)
		for {
			if limit <= 0 || size >= exportBytes {
				w.Convs = onlyWritten(w.Convs)
				return w, next, nil
			}
			n := min(limit, exportRows)
			rows, bytes, last, err := x.page(v, func(s *stmt) { x.tail(s, slot, after, n) }, &w)
			if err != nil {
				return storage.Writes{}, nil, err
			}
			limit, size = limit-rows, size+bytes
			if rows > 0 {
				after = last
				next = append([]byte{byte(at)}, last...)
			}
			if rows < n && size < exportBytes {
				break
			}
		}
	}
	w.Convs = onlyWritten(w.Convs)
	return w, nil, nil
}

// isPlace reports whether after is a cursor: a table's place and a whole key.
func (v *snap) isPlace(after []byte) bool {
	return len(after) > 0 && int(after[0]) < len(slotTables) && len(after)-1 == keyLen(slotTables[after[0]](v.s.t).keys)
}

// onlyWritten leaves out heads that were only locked: they are not kept.
func onlyWritten(heads []storage.ConvHead) []storage.ConvHead {
	heads = slices.DeleteFunc(heads, func(h storage.ConvHead) bool { return !h.Found })
	if len(heads) == 0 {
		return nil
	}
	return heads
}

func keyLen(keys []keyColumn) (n int) {
	for _, k := range keys {
		if n += 8; k.bytes {
			n += 8
		}
	}
	return n
}

// tail is what follows WHERE: the slot's range, what comes after a key, order
// and limit.
func (x *exported) tail(s *stmt, slot storage.Slot, after []byte, n int) {
	x.inSlot(s, slot)
	if after != nil {
		s.add(" AND ")
		x.after(s, x.keys, after)
	}
	s.open(" ORDER BY ")
	for _, k := range x.keys {
		s.sep(",")
		s.add(k.name)
	}
	s.limit(n)
}

// inSlot is the condition on the first column.
func (x *exported) inSlot(s *stmt, slot storage.Slot) {
	k := x.keys[0]
	s.add(k.name)
	switch {
	case k.name == "slot":
		s.add("=")
		s.u64(uint64(slot))
	case k.bytes:
		var low, high [16]byte
		binary.BigEndian.PutUint64(low[:], uint64(slot)<<51)
		binary.BigEndian.PutUint64(high[:], uint64(slot)<<51|(1<<51-1))
		binary.BigEndian.PutUint64(high[8:], 1<<64-1)
		s.add(" BETWEEN ")
		s.bytes(low[:])
		s.add(" AND ")
		s.bytes(high[:])
	default:
		slotRange(s, slot)
	}
}

// after is k1 > a OR k1 = a AND (k2 > b OR …), which every optimizer takes for
// ranges of the key. It does not for (k1, k2) > (a, b).
func (x *exported) after(s *stmt, keys []keyColumn, key []byte) {
	k, n := keys[0], 8
	if k.bytes {
		n = 16
	}
	val := func(op string) {
		s.add(k.name + op)
		if k.bytes {
			s.bytes(key[:n])
		} else {
			s.u64(binary.BigEndian.Uint64(key))
		}
	}
	s.add("(")
	val(">")
	if len(keys) > 1 {
		s.add(" OR ")
		val("=")
		s.add(" AND ")
		x.after(s, keys[1:], key[n:])
	}
	s.add(")")
}
