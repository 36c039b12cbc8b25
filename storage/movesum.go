package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"fmt"
	"strings"
)

// rowKinds are the kinds of rows that a slot has, in the order of SlotSum.
var rowKinds = [...]string{"conversations", "users", "entries", "inbox rows", "sends", "user_convs", "tasks", "names", "accounts", "devices", "blocks"}

// A SlotSum counts the rows of a slot by kind, and sums up their hashes. It is
// the same on every engine, in whatever order the rows are read.
type SlotSum [len(rowKinds)]KindSum

// KindSum is that of one kind. Sum adds up, modulo 2^64, the two first words of
// each row's SHA-256.
type KindSum struct {
	Rows uint64
	Sum  [2]uint64
}

// Total is the number of rows of all kinds.
func (s *SlotSum) Total() (n uint64) {
	for i := range s {
		n += s[i].Rows
	}
	return n
}

// String lists counts and sums, for operators to compare.
func (s *SlotSum) String() string {
	var parts []string
	for i := range s {
		if s[i].Rows > 0 {
			parts = append(parts, fmt.Sprintf("%d %s %016x%016x", s[i].Rows, rowKinds[i], s[i].Sum[0], s[i].Sum[1]))
		}
	}
	return strings.Join(parts, ", ")
}

// diff tells where two sums are not the same.
func (s *SlotSum) diff(o *SlotSum) string {
	var parts []string
	for i := range s {
		if s[i] != o[i] {
			parts = append(parts, fmt.Sprintf("%s: %d read (%016x), %d written (%016x)", rowKinds[i], s[i].Rows, s[i].Sum[0], o[i].Rows, o[i].Sum[0]))
		}
	}
	return strings.Join(parts, ", ")
}

// add takes a page. A row is hashed as its fields in order, integers as
// uvarints, whatever is variable with its length in front.
func (s *SlotSum) add(w *Writes) {
	var f fields
	kind := func(i int, b fields) {
		h := sha256.Sum256(b)
		s[i].Rows++
		s[i].Sum[0] += binary.BigEndian.Uint64(h[:])
		s[i].Sum[1] += binary.BigEndian.Uint64(h[8:])
		f = b
	}
	for i := range w.Convs {
		r := &w.Convs[i]
		kind(0, f[:0].bytes(r.Conv[:]).nums(r.Generation, r.Rev, r.ConvSeq, uint64(r.LastTime), r.MemberVersion))
	}
	for i := range w.Users {
		r := &w.Users[i]
		kind(1, f[:0].nums(uint64(r.User), r.Seq, r.Floor, r.InboxEpoch, r.TokenGen, r.LoginEpoch).nums(r.SlotEpochs[:]...))
	}
	for i := range w.Entries {
		kind(2, f[:0].entry(&w.Entries[i]).bytes(w.Entries[i].Body))
	}
	for i := range w.Inbox {
		r := &w.Inbox[i]
		b := f[:0].nums(uint64(r.User), r.Seq).entry(&r.Entry)
		if r.Inline {
			b = b.nums(1).bytes(r.Entry.Body)
		}
		kind(3, b)
	}
	for i := range w.Sends {
		r := &w.Sends[i]
		kind(4, f[:0].bytes(r.Key.Conv[:]).nums(uint64(r.Key.Sender)).bytes(r.Key.SendID[:]).bytes(r.Hash[:]).nums(r.Rev, r.ConvSeq, uint64(r.Time)))
	}
	for i := range w.UserConvs {
		r := &w.UserConvs[i]
		kind(5, f[:0].nums(uint64(r.Key.User)).bytes(r.Key.Conv[:]).
			nums(r.HeadRev, r.Head, r.Read, r.OwnSent, r.Cleared, r.Joined, r.Delivered, uint64(r.HeadTime)))
	}
	for i := range w.Tasks {
		r := &w.Tasks[i]
		kind(6, f[:0].bytes(r.Key.Conv[:]).nums(uint64(r.Key.Target), r.NextRev, r.ToRev, uint64(r.Owner), r.Incarnation))
	}
	for i := range w.Names {
		kind(7, f[:0].bytes([]byte(w.Names[i].Name)).nums(uint64(w.Names[i].User)))
	}
	for i := range w.Accounts {
		r := &w.Accounts[i]
		kind(8, f[:0].nums(uint64(r.User), uint64(r.Created)).bytes([]byte(r.Name)).bytes(r.Auth).bytes(r.Profile))
	}
	for i := range w.Devices {
		r := &w.Devices[i]
		kind(9, f[:0].nums(uint64(r.Key.User)).bytes(r.Key.ID[:]).nums(uint64(r.Slot), r.LoginEpoch).bytes(r.SecretHash[:]).bytes(r.PrevHash[:]).
			nums(uint64(r.Created), uint64(r.LastSeen), r.AckedSeq).bytes(r.Info))
	}
	for i := range w.Blocks {
		kind(10, f[:0].nums(uint64(w.Blocks[i].Key.User), uint64(w.Blocks[i].Key.Peer), uint64(w.Blocks[i].Time)))
	}
}

// fields is a row on its way to the hash.
type fields []byte

func (f fields) nums(vs ...uint64) fields {
	for _, v := range vs {
		f = binary.AppendUvarint(f, v)
	}
	return f
}

func (f fields) bytes(p []byte) fields { return append(f.nums(uint64(len(p))), p...) }

func (f fields) entry(e *Entry) fields {
	return f.bytes(e.Conv[:]).nums(e.Rev, e.ConvSeq, uint64(e.Time), uint64(e.Sender), uint64(e.Kind)).bytes(e.SendID[:])
}
