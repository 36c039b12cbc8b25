package pebble

import (
	"encoding/binary"

	"github.com/hermod-im/hermod/storage"
)

// Rows of the log and the inbox: many of them for every message, so packed.

// entry flags. A sender is usually one of the two ids in the conversation's key.
const (
	senderOther  = 1 << 0 // the key's second id
	senderSpelt  = 1 << 1 // neither: 8 bytes follow
	hasSendID    = 1 << 2
	hasBody      = 1 << 3 // tells an empty body from none
	convSpelt    = 1 << 4 // inbox: the conversation's 16 bytes follow
	convPeerHome = 1 << 5 // inbox: the peer is home; else the user is
	inline       = 1 << 6 // inbox: the row carries the entry's body

	entryMask = senderOther | senderSpelt | hasSendID | hasBody
	inboxMask = entryMask | convSpelt | convPeerHome | inline
)

func entryFlags(e *storage.Entry) (flags byte) {
	switch e.Sender {
	case e.Conv.Home():
	case e.Conv.Other():
		flags |= senderOther
	default:
		flags |= senderSpelt
	}
	if e.SendID != ([16]byte{}) {
		flags |= hasSendID
	}
	if e.Body != nil {
		flags |= hasBody
	}
	return flags
}

// appendEntryFields writes what log and inbox have in common, all but key and body.
func appendEntryFields(dst []byte, e *storage.Entry, flags byte) []byte {
	dst = appendUvarint(dst, e.ConvSeq)
	dst = appendUint64(dst, uint64(e.Time))
	dst = appendUvarint(dst, uint64(e.Kind))
	if flags&senderSpelt != 0 {
		dst = appendUint64(dst, uint64(e.Sender))
	}
	if flags&hasSendID != 0 {
		dst = append(dst, e.SendID[:]...)
	}
	return dst
}

// readEntryFields needs e.Conv.
func readEntryFields(r *reader, e *storage.Entry, flags byte) {
	e.ConvSeq = r.uvarint()
	e.Time = int64(r.uint64())
	kind := r.uvarint()
	if kind > 1<<16-1 && r.err == nil {
		r.err = errRange
	}
	e.Kind = uint16(kind)
	switch {
	case flags&senderSpelt != 0:
		e.Sender = storage.UserID(r.uint64())
	case flags&senderOther != 0:
		e.Sender = e.Conv.Other()
	default:
		e.Sender = e.Conv.Home()
	}
	if flags&hasSendID != 0 {
		e.SendID = r.array16()
	}
}

// readBody takes the rest of the row.
func readBody(r *reader, flags byte) []byte {
	p := r.rest()
	if flags&hasBody == 0 {
		r.b = p // nothing may be left
		return nil
	}
	return append([]byte{}, p...)
}

// appendEntry: flags, conv_seq, time, kind, [sender], [send id], body.
func appendEntry(dst []byte, e *storage.Entry) []byte {
	flags := entryFlags(e)
	dst = append(row(dst), flags)
	return append(appendEntryFields(dst, e, flags), e.Body...)
}

func decodeEntry(key, val []byte) (e storage.Entry, err error) {
	if len(key) != prefixLen+24 {
		return e, corrupt(key, errKey)
	}
	copy(e.Conv[:], key[prefixLen:])
	e.Rev = binary.BigEndian.Uint64(key[prefixLen+16:])
	r := newReader(val)
	flags := r.flags(entryMask)
	readEntryFields(&r, &e, flags)
	if r.err == nil {
		e.Body = readBody(&r, flags)
	}
	return e, r.end(key)
}

// appendInbox: flags, conversation (peer only, where the key has the other
// half), rev, the entry's fields, [body].
func appendInbox(dst []byte, in *storage.InboxRow) []byte {
	e := &in.Entry
	flags := entryFlags(e)
	switch in.User {
	case e.Conv.Home():
	case e.Conv.Other():
		flags |= convPeerHome
	default:
		flags |= convSpelt
	}
	if in.Inline {
		flags |= inline
	} else {
		flags &^= hasBody
	}
	dst = append(row(dst), flags)
	switch {
	case flags&convSpelt != 0:
		dst = append(dst, e.Conv[:]...)
	case flags&convPeerHome != 0:
		dst = append(dst, e.Conv[:8]...)
	default:
		dst = append(dst, e.Conv[8:]...)
	}
	dst = appendUvarint(dst, e.Rev)
	dst = appendEntryFields(dst, e, flags)
	if in.Inline {
		dst = append(dst, e.Body...)
	}
	return dst
}

func decodeInbox(key, val []byte) (in storage.InboxRow, err error) {
	if len(key) != prefixLen+16 {
		return in, corrupt(key, errKey)
	}
	in.User = storage.UserID(binary.BigEndian.Uint64(key[prefixLen:]))
	in.Seq = binary.BigEndian.Uint64(key[prefixLen+8:])
	e := &in.Entry
	r := newReader(val)
	flags := r.flags(inboxMask)
	if flags&(hasBody|inline) == hasBody && r.err == nil {
		r.err = errRange
	}
	switch {
	case flags&convSpelt != 0:
		e.Conv = r.array16()
	case flags&convPeerHome != 0:
		copy(e.Conv[:8], r.take(8))
		copy(e.Conv[8:], key[prefixLen:])
	default:
		copy(e.Conv[:8], key[prefixLen:])
		copy(e.Conv[8:], r.take(8))
	}
	e.Rev = r.uvarint()
	readEntryFields(&r, e, flags)
	in.Inline = flags&inline != 0
	if r.err == nil {
		e.Body = readBody(&r, flags)
	}
	return in, r.end(key)
}

// appendSend: hash, rev, conv_seq, time.
func appendSend(dst []byte, s *storage.SendRow) []byte {
	dst = append(row(dst), s.Hash[:]...)
	dst = appendUvarint(dst, s.Rev)
	dst = appendUvarint(dst, s.ConvSeq)
	return appendUint64(dst, uint64(s.Time))
}

// decodeSend fills all but the key, which the caller has.
func decodeSend(key, val []byte) (s storage.SendRow, err error) {
	if len(key) != sendKeyLen {
		return s, corrupt(key, errKey)
	}
	r := newReader(val)
	s.Hash = r.array16()
	s.Rev = r.uvarint()
	s.ConvSeq = r.uvarint()
	s.Time = int64(r.uint64())
	s.Found = true
	return s, r.end(key)
}

// decodeSendRow is decodeSend with the key.
func decodeSendRow(key, val []byte) (storage.SendRow, error) {
	s, err := decodeSend(key, val)
	if err != nil {
		return s, err
	}
	p := key[prefixLen+4:] // after slot and day
	copy(s.Key.Conv[:], p)
	s.Key.Sender = storage.UserID(binary.BigEndian.Uint64(p[16:]))
	copy(s.Key.SendID[:], p[24:])
	return s, nil
}

// appendUserConv: the numbers in the order of the struct.
func appendUserConv(dst []byte, c *storage.UserConv) []byte {
	dst = appendUvarint(row(dst), c.HeadRev)
	dst = appendUvarint(dst, c.Head)
	for _, mark := range [...]uint64{c.Read, c.OwnSent, c.Cleared, c.Joined, c.Delivered} {
		dst = appendUvarint(dst, mark)
	}
	return appendUint64(dst, uint64(c.HeadTime))
}

func decodeUserConv(key, val []byte) (c storage.UserConv, err error) {
	if len(key) != prefixLen+24 {
		return c, corrupt(key, errKey)
	}
	c.Key.User = storage.UserID(binary.BigEndian.Uint64(key[prefixLen:]))
	copy(c.Key.Conv[:], key[prefixLen+8:])
	r := newReader(val)
	c.HeadRev = r.uvarint()
	c.Head = r.uvarint()
	for _, mark := range [...]*uint64{&c.Read, &c.OwnSent, &c.Cleared, &c.Joined, &c.Delivered} {
		*mark = r.uvarint()
	}
	c.HeadTime = int64(r.uint64())
	c.Found = true
	return c, r.end(key)
}

// decodeEntryEnd is decodeEntry without the body: all that a head needs.
func decodeEntryEnd(key, val []byte) (e storage.Entry, err error) {
	if len(key) != prefixLen+24 {
		return e, corrupt(key, errKey)
	}
	copy(e.Conv[:], key[prefixLen:])
	e.Rev = binary.BigEndian.Uint64(key[prefixLen+16:])
	r := newReader(val)
	readEntryFields(&r, &e, r.flags(entryMask))
	if r.err != nil {
		return e, corrupt(key, r.err)
	}
	return e, nil
}

// decodeInboxSeq takes the seq from the key; the value is not looked at.
func decodeInboxSeq(key, _ []byte) (uint64, error) {
	if len(key) != prefixLen+16 {
		return 0, corrupt(key, errKey)
	}
	return binary.BigEndian.Uint64(key[prefixLen+8:]), nil
}
