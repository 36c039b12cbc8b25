package router

import (
	"crypto/sha256"
	"encoding/binary"
	"math/bits"
	"strconv"
)

// maxSlots is how many device slots a user has; Lookup asks for each.
const maxSlots = 6

// layout says where in Redis an entry is. A user's key hash picks the bucket
// with its top bits; the rest of it names the user within the bucket. The hash
// is a bijection, so nothing is stored twice.
type layout struct {
	prefix string
	nodes  string // key of the leases
	bits   int    // of the bucket number
	rest   int    // bytes of what remains
}

func newLayout(prefix string, buckets int) layout {
	n := bits.TrailingZeros(uint(buckets))
	return layout{prefix: prefix + ":u:", nodes: prefix + ":nodes", bits: n, rest: (64 - n + 7) / 8}
}

func mix(user int64) uint64 { return uint64(user) * 0x9e3779b97f4a7c15 }

// key is the bucket of a user.
func (l *layout) key(user int64) string { return l.bucket(mix(user) >> 1 >> (63 - l.bits)) }

// bucket is the nth bucket's key: hex, without leading zeros.
func (l *layout) bucket(nth uint64) string { return l.prefix + strconv.FormatUint(nth, 16) }

// field names (user, slot) within its bucket: 7 bytes for 65,536 buckets.
func (l *layout) field(user int64, slot Slot) string {
	var b [9]byte
	binary.BigEndian.PutUint64(b[:], mix(user)<<l.bits>>l.bits)
	b[8] = slot
	return string(b[8-l.rest:])
}

// A value is 24 bytes, big-endian: login epoch (4), attach number (7), run (5),
// connection (8). The first 11 order entries, the others say whose it is.
const (
	epochBytes = 4
	orderBytes = 11
	tagBytes   = 5
	valueBytes = 24
)

const (
	// maxEpoch is the highest login epoch that a value has room for: no user
	// logs in for the first time so often.
	maxEpoch = 1<<(8*epochBytes) - 1
	// maxAttachNo is the highest attach number that a script computes exactly,
	// since Lua's numbers are doubles: microseconds until the year 2255.
	maxAttachNo = 1<<53 - 1
)

// tag stands for a run of a node in a value. Runs are named by 128 bits, of
// which a value has room for 40: two of a thousand live runs are alike with a
// chance of one in two million. The leases say so then.
type tag uint64

func tagOf(run Run) tag {
	var b [16]byte
	binary.BigEndian.PutUint64(b[:], run.Node)
	binary.BigEndian.PutUint64(b[8:], run.Incarnation)
	sum := sha256.Sum256(b[:])
	return tag(binary.BigEndian.Uint64(sum[:]) >> (64 - 8*tagBytes))
}

// who is the part of a value that says whose entry it is.
func who(t tag, conn uint64) string {
	var b [8 + 8]byte
	binary.BigEndian.PutUint64(b[:], uint64(t))
	binary.BigEndian.PutUint64(b[8:], conn)
	return string(b[8-tagBytes:])
}

// value is a decoded one; its entry has no node yet.
type value struct {
	entry Entry
	tag   tag
}

// parseValue decodes what a bucket holds; anything but a value is not ok.
func parseValue(s string) (v value, ok bool) {
	if len(s) != valueBytes {
		return v, false
	}
	var b [8 + valueBytes]byte
	copy(b[8:], s)
	at := func(from, n int) uint64 { // n bytes at from: the end of the 8 before from+n
		return binary.BigEndian.Uint64(b[from+n:]) << (64 - 8*n) >> (64 - 8*n)
	}
	v.entry.LoginEpoch = at(0, epochBytes)
	v.entry.AttachNo = at(epochBytes, orderBytes-epochBytes)
	v.tag = tag(at(orderBytes, tagBytes))
	v.entry.Conn = at(orderBytes+tagBytes, 8)
	return v, true
}
