package pebble

import (
	"context"
	"errors"
	"fmt"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// exportBytes ends a page of Export: its rows' keys and values together. One
// row more may go over it.
const exportBytes = 1 << 20

// slotTables are the tables of which a slot is one key range, in the order of
// Export. Names follow from the accounts, the owners' index from the tasks.
var slotTables = [...]table{
	tableUsers, tableConvs, tableAccounts, tableDevices, tableBlocks, tableUserConvs,
	tableSends, tableTasks, tableEntries, tableInbox,
}

// slotRange builds the range of a slot in one of slotTables into low and upp.
func slotRange(low, upp []byte, t table, slot storage.Slot) ([]byte, []byte) {
	if t == tableSends {
		low = sendDayKey(low, slot, 0)
		return low[:prefixLen+2], upperBound(upp, low[:prefixLen+2])
	}
	low = appendUint64(start(low, t), uint64(slot)<<51)
	return low, appendUint64(start(upp, t), uint64(slot+1)<<51) // 1<<63 after the last slot
}

// Export implements storage.Snap. after is the key of the last row before.
func (v *snap) Export(slot storage.Slot, after []byte, limit int) (w storage.Writes, next []byte, err error) {
	at := 0
	if after != nil {
		if at = tableIndex(after); at < 0 {
			return w, nil, fmt.Errorf("%w: Export after a place that none of its pages ended at", storage.ErrInvalid)
		}
	}
	size := 0
	s := &v.src
	for ; at < len(slotTables) && limit > 0; at++ {
		s.low, s.upp = slotRange(s.low, s.upp, slotTables[at], slot)
		if after != nil {
			s.low, after = append(append(s.low[:0], after...), 0), nil
		}
		var rows exported
		err := s.scan(s.low, s.upp, false, func(key, val []byte) (bool, error) {
			next = append(next[:0], key...)
			size += len(key) + len(val)
			limit--
			return limit > 0 && size < exportBytes, rows.add(slotTables[at], key, val, &w)
		})
		if err == nil {
			err = v.complete(&rows, slot, &w)
		}
		if err != nil {
			return storage.Writes{}, nil, err
		}
		if limit <= 0 || size >= exportBytes {
			return w, next, nil
		}
	}
	return w, nil, nil
}

func tableIndex(key []byte) int {
	for i, t := range slotTables {
		if len(key) > prefixLen && key[0] == keyVersion && key[1] == byte(t) {
			return i
		}
	}
	return -1
}

// exported are keys of rows of which a page has to be completed.
type exported struct {
	users []storage.UserID
	convs []storage.ConvKey
	names []string
}

func (x *exported) add(t table, key, val []byte, w *storage.Writes) (err error) {
	switch t {
	case tableUsers:
		return appendDecoded(&x.users, decodeUserID, key, val)
	case tableConvs:
		var h storage.ConvHead
		if h, err = decodeConv(key, val); err == nil {
			x.convs = append(x.convs, h.Conv)
		}
		return err
	case tableAccounts:
		if err = appendDecoded(&w.Accounts, decodeAccount, key, val); err == nil {
			x.names = append(x.names, w.Accounts[len(w.Accounts)-1].Name)
		}
		return err
	case tableDevices:
		return appendDecoded(&w.Devices, decodeDevice, key, val)
	case tableBlocks:
		return appendDecoded(&w.Blocks, decodeBlock, key, val)
	case tableUserConvs:
		return appendDecoded(&w.UserConvs, decodeUserConv, key, val)
	case tableSends:
		return appendDecoded(&w.Sends, decodeSendRow, key, val)
	case tableTasks:
		return appendDecoded(&w.Tasks, decodeTask, key, val)
	case tableEntries:
		return appendDecoded(&w.Entries, decodeEntry, key, val)
	default:
		return appendDecoded(&w.Inbox, decodeInbox, key, val)
	}
}

func appendDecoded[T any](dst *[]T, decode func(key, val []byte) (T, error), key, val []byte) error {
	r, err := decode(key, val)
	if err == nil {
		*dst = append(*dst, r)
	}
	return err
}

// complete recovers whole heads, and the names of accounts.
func (v *snap) complete(x *exported, slot storage.Slot, w *storage.Writes) (err error) {
	if w.Users, err = appendEach(w.Users, x.users, v.src.user); err != nil {
		return err
	}
	if w.Convs, err = appendEach(w.Convs, x.convs, v.src.conv); err != nil {
		return err
	}
	names, err := each(x.names, v.src.name)
	for _, n := range names {
		if n.Found && n.User.Slot() == slot {
			w.Names = append(w.Names, n)
		}
	}
	return err
}

func appendEach[K, V any](dst []V, keys []K, load func(K) (V, error)) ([]V, error) {
	rows, err := each(keys, load)
	if dst == nil {
		return rows, err
	}
	return append(dst, rows...), err
}

// purgePage is how many rows that must be looked at one by one a transaction
// of Purge deletes. Everybody else's waits for it.
const purgePage = 200

// Purge implements storage.Shard. Most tables go by one range deletion each.
// Names and the index of tasks are found through rows that these delete, so
// they go first, in pages.
func (s *Shard) Purge(ctx context.Context, slot storage.Slot) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.gate.exit()
	for _, t := range [...]table{tableAccounts, tableTasks} {
		low, upp := slotRange(nil, nil, t, slot)
		for low != nil {
			err := s.purgeStep(ctx, slot, func(b *crdb.Batch) (err error) {
				low, err = s.purgeFrom(b, t, slot, low, upp)
				return err
			})
			if err != nil {
				return err
			}
		}
	}
	for {
		slots := s.slotWrites.Load()
		s.forget(slot)
		err := s.purgeStep(ctx, slot, func(b *crdb.Batch) (err error) {
			if s.slotWrites.Load() != slots {
				return errSlotsWritten
			}
			for _, t := range slotTables {
				low, upp := slotRange(nil, nil, t, slot)
				err = errors.Join(err, b.DeleteRange(low, upp, nil))
			}
			return err
		})
		if !errors.Is(err, errSlotsWritten) {
			return err
		}
	}
}

var errSlotsWritten = errors.New("pebble: slots were written meanwhile")

// forget drops a slot's rows from the caches. It looks at all that they hold,
// which takes milliseconds, or more where they are large: so without mu, though
// everybody would wait. A row that is dropped too much is read again; one that
// comes back before its slot is purged would stay. None does, unless slots
// change hands meanwhile, which slotWrites tells.
func (s *Shard) forget(slot storage.Slot) {
	s.users.dropIf(func(u storage.UserID) bool { return u.Slot() == slot })
	s.convs.dropIf(func(k storage.ConvKey) bool { return k.Slot() == slot })
	s.userConvs.dropIf(func(k storage.UserConvKey) bool { return k.User.Slot() == slot })
}

// purgeStep is one transaction of Purge. Nobody reads its rows but through the
// database, and not before it is applied: see overlaps.
func (s *Shard) purgeStep(ctx context.Context, slot storage.Slot, fill func(*crdb.Batch) error) error {
	return s.commitBatch(ctx, func() (*crdb.Batch, *storage.Writes, error) {
		if r := &s.slots[slot%storage.Slots]; slot >= storage.Slots || r.State != storage.SlotAbsent {
			return nil, nil, fmt.Errorf("%w: slot %d is in state %d here: only what this shard does not own can be purged", storage.ErrInvalid, slot, r.State)
		}
		s.settle()
		b := s.db.NewBatch()
		if err := fill(b); err != nil {
			return nil, nil, errors.Join(err, b.Close())
		}
		return b, &storage.Writes{DelSendsSlots: []storage.Slot{slot}}, nil
	})
}

// purgeFrom deletes what a page of accounts or tasks leads to, and returns
// where the next page begins, nil: nowhere.
func (s *Shard) purgeFrom(b *crdb.Batch, t table, slot storage.Slot, low, upp []byte) (next []byte, err error) {
	src := source{r: s.db}
	defer func() { err = errors.Join(err, src.close()) }()
	names := source{r: s.db}
	n := 0
	err = src.scan(low, upp, false, func(key, val []byte) (bool, error) {
		if n++; n > purgePage {
			next = append([]byte(nil), key...)
			return false, nil
		}
		if t == tableTasks {
			task, err := decodeTask(key, val)
			if err != nil {
				return false, err
			}
			return true, b.Delete(ownerKey(nil, task.Owner, task.Key), nil)
		}
		a, err := decodeAccount(key, val)
		if err != nil {
			return false, err
		}
		name, err := names.name(a.Name)
		if err != nil || !name.Found || name.User.Slot() != slot {
			return true, err // a name of another slot stays
		}
		return true, b.Delete(textKey(nil, tableNames, a.Name), nil)
	})
	return next, err
}
