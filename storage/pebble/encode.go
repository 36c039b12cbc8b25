package pebble

import (
	"bytes"
	"errors"
	"fmt"
	"slices"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// Limits of a row: far above what chat allows, far below what could hurt.
const (
	maxBody = 1 << 20
	maxText = 1 << 10
)

// maxScratch is what the encoder keeps allocated between transactions.
const maxScratch = 1 << 20

// encoder turns writes into a batch. Guarded by Shard.mu; what it allocates is
// used again.
type encoder struct {
	batch    *crdb.Batch
	key, val []byte
	end      []byte
	// sets are put into the batch in the order of their keys: a memtable's
	// skiplist then finds each place from the one before, in half the time.
	sets []keyed
	buf  []byte
	// The newest entry of a log, and inbox row, among the writes.
	newest map[storage.ConvKey]*storage.Entry
	seqs   map[storage.UserID]uint64
	err    error
}

// encode returns nil if w writes nothing.
func (e *encoder) encode(s *Shard, w *storage.Writes) (*crdb.Batch, error) {
	if err := validate(w); err != nil {
		return nil, err
	}
	e.batch, e.err = s.db.NewBatchWithSize(batchSize(w)), nil
	e.messages(w)
	e.heads(s, w)
	e.tasks(s, w)
	e.rest(w)
	e.flush()
	e.deletions(w)
	b, err := e.batch, e.err
	e.batch = nil
	if err != nil || b.Empty() {
		return nil, errors.Join(err, b.Close())
	}
	return b, nil
}

func validate(w *storage.Writes) error {
	for i := range w.Entries {
		if n := len(w.Entries[i].Body); n > maxBody {
			return fmt.Errorf("body of %d bytes, at most %d", n, maxBody)
		}
	}
	for i := range w.Inbox {
		if n := len(w.Inbox[i].Entry.Body); w.Inbox[i].Inline && n > maxBody {
			return fmt.Errorf("inline body of %d bytes, at most %d", n, maxBody)
		}
	}
	for i := range w.Names {
		if n := len(w.Names[i].Name); n > maxText {
			return fmt.Errorf("name of %d bytes, at most %d", n, maxText)
		}
	}
	for i := range w.Meta {
		if m := &w.Meta[i]; len(m.Name) > maxText || len(m.Value) > maxBody {
			return fmt.Errorf("meta name of %d bytes or value of %d, at most %d and %d", len(m.Name), len(m.Value), maxText, maxBody)
		}
	}
	for _, r := range w.Slots {
		if r.Slot >= storage.Slots || r.State > storage.SlotFrozen {
			return fmt.Errorf("no slot %d or no state %d", r.Slot, r.State)
		}
	}
	return nil
}

// batchSize guesses high, so that a batch grows at most once.
func batchSize(w *storage.Writes) int {
	n := 256 + 96*len(w.Sends) + 88*len(w.Inbox) + 72*len(w.UserConvs) + 96*(len(w.Convs)+len(w.Users))
	for i := range w.Entries {
		n += 80 + len(w.Entries[i].Body)
	}
	return n
}

// keyed is a row in encoder.buf, from start: the key, then the value.
type keyed struct{ start, val, end int }

func (e *encoder) set() {
	start := len(e.buf)
	e.buf = append(append(e.buf, e.key...), e.val...)
	e.sets = append(e.sets, keyed{start, start + len(e.key), len(e.buf)})
}

// flush moves the sets to the batch.
func (e *encoder) flush() {
	slices.SortFunc(e.sets, func(a, b keyed) int { return bytes.Compare(e.buf[a.start:a.val], e.buf[b.start:b.val]) })
	for _, r := range e.sets {
		if e.err == nil {
			e.err = e.batch.Set(e.buf[r.start:r.val], e.buf[r.val:r.end], nil)
		}
	}
	e.sets = e.sets[:0]
	if e.buf = e.buf[:0]; cap(e.buf) > maxScratch {
		e.buf = nil
	}
}

func (e *encoder) del() {
	if e.err == nil {
		e.err = e.batch.Delete(e.key, nil)
	}
}

// delRange deletes key ≤ k < end.
func (e *encoder) delRange() {
	if e.err == nil {
		e.err = e.batch.DeleteRange(e.key, e.end, nil)
	}
}

// messages writes what every message has: entry, inbox rows, dedupe row, user_convs.
func (e *encoder) messages(w *storage.Writes) {
	for i := range w.Entries {
		en := &w.Entries[i]
		e.key, e.val = entryKey(e.key, en.Conv, en.Rev), appendEntry(e.val, en)
		e.set()
	}
	for i := range w.Inbox {
		in := &w.Inbox[i]
		e.key, e.val = inboxKey(e.key, in.User, in.Seq), appendInbox(e.val, in)
		e.set()
	}
	for i := range w.Sends {
		e.key, e.val = sendKey(e.key, w.Sends[i].Key), appendSend(e.val, &w.Sends[i])
		e.set()
	}
	for i := range w.UserConvs {
		e.key, e.val = userConvKey(e.key, w.UserConvs[i].Key), appendUserConv(e.val, &w.UserConvs[i])
		e.set()
	}
}

// heads writes a head's row only if it changed otherwise than a new entry or
// inbox row can tell: see source.conv and source.user.
func (e *encoder) heads(s *Shard, w *storage.Writes) {
	e.index(w)
	for i := range w.Convs {
		h := &w.Convs[i]
		if old, ok := s.convs.get(h.Conv); ok && e.convFollows(&old, h) {
			continue
		}
		e.key, e.val = convKey(e.key, tableConvs, h.Conv), appendConv(e.val, h)
		e.set()
	}
	for i := range w.Users {
		h := &w.Users[i]
		if old, ok := s.users.get(h.User); ok && e.userFollows(&old, h) {
			continue
		}
		e.key, e.val = userKey(e.key, tableUsers, h.User), appendUser(e.val, h)
		e.set()
	}
}

// index finds the newest entry and inbox row of each head.
func (e *encoder) index(w *storage.Writes) {
	if e.newest == nil {
		e.newest = make(map[storage.ConvKey]*storage.Entry)
		e.seqs = make(map[storage.UserID]uint64)
	}
	clear(e.newest)
	clear(e.seqs)
	for i := range w.Entries {
		en := &w.Entries[i]
		if old := e.newest[en.Conv]; old == nil || old.Rev < en.Rev {
			e.newest[en.Conv] = en
		}
	}
	for i := range w.Inbox {
		in := &w.Inbox[i]
		e.seqs[in.User] = max(e.seqs[in.User], in.Seq)
	}
}

func (e *encoder) convFollows(old, h *storage.ConvHead) bool {
	if old.Generation != h.Generation || old.MemberVersion != h.MemberVersion {
		return false
	}
	if en := e.newest[h.Conv]; en != nil {
		return en.Rev > old.Rev && en.Rev == h.Rev && en.ConvSeq == h.ConvSeq && en.Time == h.LastTime
	}
	return old.Rev == h.Rev && old.ConvSeq == h.ConvSeq && old.LastTime == h.LastTime
}

func (e *encoder) userFollows(old, h *storage.UserHead) bool {
	seq := old.Seq
	if n := e.seqs[h.User]; n > 0 {
		seq = n
	}
	return seq == h.Seq && old.Floor == h.Floor && old.InboxEpoch == h.InboxEpoch && old.TokenGen == h.TokenGen &&
		old.LoginEpoch == h.LoginEpoch && old.SlotEpochs == h.SlotEpochs
}

// tasks keeps the index by owner: the old owner's row goes, wherever there is
// one. Its deletion is in the batch before the sets, so the same key may follow.
func (e *encoder) tasks(s *Shard, w *storage.Writes) {
	src := source{r: s.db}
	for i := range w.Tasks {
		t := &w.Tasks[i]
		e.disown(&src, t.Key, t.Owner)
		e.key, e.val = taskKey(e.key, t.Key), appendTask(e.val, t)
		e.set()
		e.key, e.val = ownerKey(e.key, t.Owner, t.Key), row(e.val)
		e.set()
	}
	for _, k := range w.DelTasks {
		e.disown(&src, k, 0)
		e.key = taskKey(e.key, k)
		e.del()
	}
}

// disown deletes the index row of k's owner unless it is keep.
func (e *encoder) disown(src *source, k storage.TaskKey, keep storage.NodeID) {
	old, err := src.task(k)
	if err != nil && e.err == nil {
		e.err = err
	}
	if old.Found && (keep == 0 || old.Owner != keep) {
		e.key = ownerKey(e.key, old.Owner, k)
		e.del()
	}
}

func (e *encoder) rest(w *storage.Writes) {
	for i := range w.Names {
		e.key, e.val = textKey(e.key, tableNames, w.Names[i].Name), appendName(e.val, &w.Names[i])
		e.set()
	}
	for i := range w.Accounts {
		e.key, e.val = userKey(e.key, tableAccounts, w.Accounts[i].User), appendAccount(e.val, &w.Accounts[i])
		e.set()
	}
	for i := range w.Devices {
		e.key, e.val = deviceKey(e.key, w.Devices[i].Key), appendDevice(e.val, &w.Devices[i])
		e.set()
	}
	for i := range w.Blocks {
		e.key, e.val = blockKey(e.key, w.Blocks[i].Key), appendBlock(e.val, &w.Blocks[i])
		e.set()
	}
	for i := range w.Slots {
		e.key, e.val = slotKey(e.key, w.Slots[i].Slot), appendSlot(e.val, &w.Slots[i])
		e.set()
	}
	for i := range w.Meta {
		e.key, e.val = textKey(e.key, tableMeta, w.Meta[i].Name), appendMeta(e.val, &w.Meta[i])
		e.set()
	}
}

func (e *encoder) deletions(w *storage.Writes) {
	for _, k := range w.DelDevices {
		e.key = deviceKey(e.key, k)
		e.del()
	}
	for _, k := range w.DelBlocks {
		e.key = blockKey(e.key, k)
		e.del()
	}
	for _, t := range w.Trims {
		e.key, e.end = inboxKey(e.key, t.User, 0), inboxKey(e.end, t.User, t.Floor)
		e.end = append(e.end, 0) // the first key after floor's
		e.delRange()
	}
	if day := uint16(min(max(w.DelSendsBefore, 0)/1000/dayMillis, 1<<16-1)); day > 0 {
		for _, slot := range w.DelSendsSlots {
			e.key, e.end = sendDayKey(e.key, slot, 0), sendDayKey(e.end, slot, day)
			e.delRange()
		}
	}
}
