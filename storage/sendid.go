package storage

import (
	"crypto/sha256"
	"encoding/binary"
	"math/rand/v2"
	"time"
)

// How far a send id's own time may be from the shard's clock. Dedupe rows live
// a day longer than the ids that may ask for them.
const (
	sendIDMaxAge   = int64(29 * 24 * time.Hour / time.Microsecond)
	sendIDMaxAhead = int64(10 * time.Minute / time.Microsecond)
	sendRowAge     = int64(30 * 24 * time.Hour / time.Microsecond)
)

// sendIDTime returns the time that a UUIDv7 was made, in µs.
func sendIDTime(id [16]byte) int64 {
	return int64(binary.BigEndian.Uint64(id[:8])>>16) * 1000
}

// validSendID reports whether id is a UUIDv7.
func validSendID(id [16]byte) bool { return id[6]>>4 == 7 && id[8]>>6 == 2 }

// newSendID makes a UUIDv7.
func newSendID(now int64) (id [16]byte) {
	binary.BigEndian.PutUint64(id[:8], uint64(now/1000)<<16|uint64(rand.Uint32()&0xfff)|0x7000)
	binary.BigEndian.PutUint64(id[8:], rand.Uint64()>>2|1<<63)
	return id
}

// contentHash tells two uses of a send id apart.
func contentHash(kind uint16, body []byte) (h [16]byte) {
	var buf [512]byte
	b := append(buf[:0], byte(kind>>8), byte(kind))
	sum := sha256.Sum256(append(b, body...))
	copy(h[:], sum[:])
	return h
}
