package bench

import (
	"encoding/binary"
	"hash/crc32"
	"time"
)

// The body of every message that the tool sends:
//
//	magic 4 | run 8 | pair 4 | from 1 | zero 3 | counter 8 | intended 8 | filler | crc32c 4
//
// All but the filler says which message it is, so a receiver needs no other
// source to tell what it got, from whom, and when it was meant to be sent.
const (
	contentMagic   = 0x48424e31 // "HBN1"
	contentHeader  = 36
	minContentSize = contentHeader + 4
	maxContentSize = 32 << 10
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp is what a body says about its message.
type stamp struct {
	Run  uint64
	Pair uint32
	// From is the sender's side of the pair, 0 or 1.
	From uint8
	// Counter numbers the messages of one sender in one run: 1, 2, 3, …
	Counter uint64
	// Intended is when it was meant to be sent, in nanoseconds since the run
	// began.
	Intended int64
}

// appendContent appends a body of size bytes (at least minContentSize).
func appendContent(dst []byte, s stamp, size int) []byte {
	start := len(dst)
	dst = binary.BigEndian.AppendUint32(dst, contentMagic)
	dst = binary.BigEndian.AppendUint64(dst, s.Run)
	dst = binary.BigEndian.AppendUint32(dst, s.Pair)
	dst = append(dst, s.From, 0, 0, 0)
	dst = binary.BigEndian.AppendUint64(dst, s.Counter)
	dst = binary.BigEndian.AppendUint64(dst, uint64(s.Intended))
	// The filler differs between messages, so that bytes of another one do not
	// pass for it, and does not compress well.
	x := s.Counter*0x9e3779b97f4a7c15 ^ uint64(s.Pair)<<32 ^ uint64(s.From)
	for len(dst)-start+8 <= size-4 {
		x ^= x << 13
		x ^= x >> 7
		x ^= x << 17
		dst = binary.LittleEndian.AppendUint64(dst, x)
	}
	for len(dst)-start < size-4 {
		dst = append(dst, byte(x))
		x >>= 8
	}
	return binary.BigEndian.AppendUint32(dst, crc32.Checksum(dst[start:], castagnoli))
}

// readContent is the reverse. ok is false for a body that this tool did not
// make, or that does not carry its checksum any more.
func readContent(body []byte) (s stamp, ok bool) {
	if len(body) < minContentSize || binary.BigEndian.Uint32(body) != contentMagic {
		return stamp{}, false
	}
	end := len(body) - 4
	if crc32.Checksum(body[:end], castagnoli) != binary.BigEndian.Uint32(body[end:]) {
		return stamp{}, false
	}
	return stamp{
		Run:      binary.BigEndian.Uint64(body[4:]),
		Pair:     binary.BigEndian.Uint32(body[12:]),
		From:     body[16],
		Counter:  binary.BigEndian.Uint64(body[20:]),
		Intended: int64(binary.BigEndian.Uint64(body[28:])),
	}, true
}

// sendIDCounterBits is how much of a send id is the message's counter; the
// other random bits are the run's.
const sendIDCounterBits = 40

// sendID makes the message's UUIDv7. What is random in others names the run
// and the counter here: a retry makes the same id from the same message, and
// the sender's own event, which comes without content, still names its
// message. It is unique within its scope (sender, conversation).
func sendID(made time.Time, run, counter uint64) (id [16]byte) {
	ms := uint64(made.UnixMilli())
	binary.BigEndian.PutUint16(id[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(ms))
	binary.BigEndian.PutUint16(id[6:], 0x7000|uint16(run)&0x0fff)
	low := (run>>12)&(1<<22-1)<<sendIDCounterBits | counter&(1<<sendIDCounterBits-1)
	binary.BigEndian.PutUint64(id[8:], 2<<62|low)
	return id
}

// sendIDCounter returns the counter in an id that sendID made for this run.
func sendIDCounter(id []byte, run uint64) (counter uint64, ok bool) {
	if len(id) != 16 || binary.BigEndian.Uint16(id[6:]) != 0x7000|uint16(run)&0x0fff {
		return 0, false
	}
	low := binary.BigEndian.Uint64(id[8:])
	if low>>62 != 2 || low>>sendIDCounterBits&(1<<22-1) != (run>>12)&(1<<22-1) {
		return 0, false
	}
	return low & (1<<sendIDCounterBits - 1), true
}
