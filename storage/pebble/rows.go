package pebble

import (
	"encoding/binary"

	"github.com/hermod-im/hermod/storage"
)

// Rows that change seldom.

// appendConv writes a head's row: generation, member version, and the log's end
// as it was then. The end counts only where no newer entry is in the log.
func appendConv(dst []byte, h *storage.ConvHead) []byte {
	dst = appendUint64(row(dst), h.Generation)
	dst = appendUvarint(dst, h.MemberVersion)
	dst = appendUvarint(dst, h.Rev)
	dst = appendUvarint(dst, h.ConvSeq)
	return appendUint64(dst, uint64(h.LastTime))
}

func decodeConv(key, val []byte) (h storage.ConvHead, err error) {
	if len(key) != prefixLen+16 {
		return h, corrupt(key, errKey)
	}
	copy(h.Conv[:], key[prefixLen:])
	r := newReader(val)
	h.Generation = r.uint64()
	h.MemberVersion = r.uvarint()
	h.Rev = r.uvarint()
	h.ConvSeq = r.uvarint()
	h.LastTime = int64(r.uint64())
	h.Found = true
	return h, r.end(key)
}

// appendUser writes a user head's row. Seq counts only where the inbox has no
// newer row.
func appendUser(dst []byte, h *storage.UserHead) []byte {
	dst = appendUvarint(row(dst), h.Seq)
	dst = appendUvarint(dst, h.Floor)
	dst = appendUint64(dst, h.InboxEpoch)
	dst = appendUvarint(dst, h.TokenGen)
	dst = appendUvarint(dst, h.LoginEpoch)
	for _, e := range h.SlotEpochs {
		dst = appendUvarint(dst, e)
	}
	return dst
}

func decodeUser(key, val []byte) (h storage.UserHead, err error) {
	if len(key) != prefixLen+8 {
		return h, corrupt(key, errKey)
	}
	h.User = storage.UserID(binary.BigEndian.Uint64(key[prefixLen:]))
	r := newReader(val)
	h.Seq = r.uvarint()
	h.Floor = r.uvarint()
	h.InboxEpoch = r.uint64()
	h.TokenGen = r.uvarint()
	h.LoginEpoch = r.uvarint()
	for i := range h.SlotEpochs {
		h.SlotEpochs[i] = r.uvarint()
	}
	h.Found = true
	return h, r.end(key)
}

func appendName(dst []byte, n *storage.NameRow) []byte {
	return appendUint64(row(dst), uint64(n.User))
}

func decodeName(key, val []byte) (n storage.NameRow, err error) {
	if len(key) < prefixLen {
		return n, corrupt(key, errKey)
	}
	n.Name = string(key[prefixLen:])
	r := newReader(val)
	n.User = storage.UserID(r.uint64())
	n.Found = true
	return n, r.end(key)
}

func appendAccount(dst []byte, a *storage.Account) []byte {
	dst = appendUint64(row(dst), uint64(a.Created))
	dst = appendBytes(dst, []byte(a.Name))
	dst = appendBytes(dst, a.Auth)
	return appendBytes(dst, a.Profile)
}

func decodeAccount(key, val []byte) (a storage.Account, err error) {
	if len(key) != prefixLen+8 {
		return a, corrupt(key, errKey)
	}
	a.User = storage.UserID(binary.BigEndian.Uint64(key[prefixLen:]))
	r := newReader(val)
	a.Created = int64(r.uint64())
	a.Name = string(r.bytes())
	a.Auth = r.bytes()
	a.Profile = r.bytes()
	a.Found = true
	return a, r.end(key)
}

func appendDevice(dst []byte, d *storage.Device) []byte {
	dst = append(row(dst), d.Slot)
	dst = appendUvarint(dst, d.LoginEpoch)
	dst = append(dst, d.SecretHash[:]...)
	dst = append(dst, d.PrevHash[:]...)
	dst = appendUint64(dst, uint64(d.Created))
	dst = appendUint64(dst, uint64(d.LastSeen))
	dst = appendUvarint(dst, d.AckedSeq)
	return appendBytes(dst, d.Info)
}

func decodeDevice(key, val []byte) (d storage.Device, err error) {
	if len(key) != prefixLen+24 {
		return d, corrupt(key, errKey)
	}
	d.Key.User = storage.UserID(binary.BigEndian.Uint64(key[prefixLen:]))
	copy(d.Key.ID[:], key[prefixLen+8:])
	r := newReader(val)
	d.Slot = r.byte()
	d.LoginEpoch = r.uvarint()
	d.SecretHash = r.array32()
	d.PrevHash = r.array32()
	d.Created = int64(r.uint64())
	d.LastSeen = int64(r.uint64())
	d.AckedSeq = r.uvarint()
	d.Info = r.bytes()
	return d, r.end(key)
}

func appendBlock(dst []byte, b *storage.Block) []byte {
	return appendUint64(row(dst), uint64(b.Time))
}

func decodeBlock(key, val []byte) (b storage.Block, err error) {
	if len(key) != prefixLen+16 {
		return b, corrupt(key, errKey)
	}
	b.Key.User = storage.UserID(binary.BigEndian.Uint64(key[prefixLen:]))
	b.Key.Peer = storage.UserID(binary.BigEndian.Uint64(key[prefixLen+8:]))
	r := newReader(val)
	b.Time = int64(r.uint64())
	b.Found = true
	return b, r.end(key)
}

func appendTask(dst []byte, t *storage.Task) []byte {
	dst = appendUvarint(row(dst), t.NextRev)
	dst = appendUvarint(dst, t.ToRev)
	dst = appendUint64(dst, uint64(t.Owner))
	return appendUvarint(dst, t.Incarnation)
}

func decodeTask(key, val []byte) (t storage.Task, err error) {
	if len(key) != prefixLen+20 {
		return t, corrupt(key, errKey)
	}
	copy(t.Key.Conv[:], key[prefixLen:])
	t.Key.Target = storage.ShardID(binary.BigEndian.Uint32(key[prefixLen+16:]))
	r := newReader(val)
	t.NextRev = r.uvarint()
	t.ToRev = r.uvarint()
	t.Owner = storage.NodeID(r.uint64())
	t.Incarnation = r.uvarint()
	t.Found = true
	return t, r.end(key)
}

// decodeOwner reads a key of the index of tasks by owner.
func decodeOwner(key []byte) (n storage.NodeID, t storage.TaskKey, err error) {
	if len(key) != prefixLen+28 {
		return 0, t, corrupt(key, errKey)
	}
	n = storage.NodeID(binary.BigEndian.Uint64(key[prefixLen:]))
	copy(t.Conv[:], key[prefixLen+8:])
	t.Target = storage.ShardID(binary.BigEndian.Uint32(key[prefixLen+24:]))
	return n, t, nil
}

func appendSlot(dst []byte, s *storage.SlotRow) []byte {
	return appendUvarint(append(row(dst), byte(s.State)), s.Epoch)
}

func decodeSlot(key, val []byte) (s storage.SlotRow, err error) {
	if len(key) != prefixLen+2 {
		return s, corrupt(key, errKey)
	}
	slot := binary.BigEndian.Uint16(key[prefixLen:])
	r := newReader(val)
	s = storage.SlotRow{Slot: storage.Slot(slot), State: storage.SlotState(r.byte()), Epoch: r.uvarint()}
	if r.err == nil && (slot >= storage.Slots || s.State > storage.SlotFrozen) {
		r.err = errRange
	}
	return s, r.end(key)
}

// lease is a node's promise to be alive until Until, on the shard's clock.
type lease struct {
	Incarnation uint64
	Until       int64
}

func appendLease(dst []byte, l lease) []byte {
	return appendUint64(appendUvarint(row(dst), l.Incarnation), uint64(l.Until))
}

func decodeLease(key, val []byte) (n storage.NodeID, l lease, err error) {
	if len(key) != prefixLen+8 {
		return 0, l, corrupt(key, errKey)
	}
	n = storage.NodeID(binary.BigEndian.Uint64(key[prefixLen:]))
	r := newReader(val)
	l.Incarnation = r.uvarint()
	l.Until = int64(r.uint64())
	return n, l, r.end(key)
}

// appendMeta's value is free: it is everything after the version.
func appendMeta(dst []byte, m *storage.MetaRow) []byte { return append(row(dst), m.Value...) }

func decodeMeta(key, val []byte) (m storage.MetaRow, err error) {
	if len(key) < prefixLen {
		return m, corrupt(key, errKey)
	}
	m.Name = string(key[prefixLen:])
	r := newReader(val)
	if r.err == nil {
		m.Value = append([]byte{}, r.rest()...)
	}
	m.Found = true
	return m, r.end(key)
}

func appendShard(dst []byte, id storage.ShardID) []byte {
	return binary.BigEndian.AppendUint32(row(dst), uint32(id))
}

func decodeShard(key, val []byte) (storage.ShardID, error) {
	r := newReader(val)
	id := storage.ShardID(r.uint32())
	return id, r.end(key)
}

// decodeUserID takes the id from the key; the value is not looked at.
func decodeUserID(key, _ []byte) (storage.UserID, error) {
	if len(key) != prefixLen+8 {
		return 0, corrupt(key, errKey)
	}
	return storage.UserID(binary.BigEndian.Uint64(key[prefixLen:])), nil
}
