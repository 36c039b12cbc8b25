package proto

import (
	"crypto/rand"
	"encoding/binary"
	"time"
)

const (
	// SendIDMaxAge: a send id older than this is ID_EXPIRED.
	SendIDMaxAge = 29 * 24 * time.Hour
	// SendIDMaxAhead: one further ahead of server time is ID_INVALID.
	SendIDMaxAhead = 10 * time.Minute
	// DeviceIDLen and DeviceSecretLen are the sizes of DeviceInfo.id and of
	// Hello.next_secret, in bytes.
	DeviceIDLen     = 16
	DeviceSecretLen = 32
)

// NewSendID makes a UUIDv7 for the time now, which must be server time.
func NewSendID(now time.Time) (id [16]byte) {
	rand.Read(id[6:]) // never fails: it ends the process instead
	ms := uint64(now.UnixMilli())
	binary.BigEndian.PutUint16(id[0:], uint16(ms>>32))
	binary.BigEndian.PutUint32(id[2:], uint32(ms))
	id[6] = id[6]&0x0f | 0x70
	id[8] = id[8]&0x3f | 0x80
	return id
}

// SendIDTime returns when id was made, to the millisecond; ok is false if id is
// not a UUIDv7.
func SendIDTime(id [16]byte) (made time.Time, ok bool) {
	if id[6]>>4 != 7 || id[8]>>6 != 2 {
		return time.Time{}, false
	}
	ms := int64(binary.BigEndian.Uint16(id[0:]))<<32 | int64(binary.BigEndian.Uint32(id[2:]))
	return time.UnixMilli(ms), true
}

// Valid reports whether x is a slot a device may log in to.
func (x DeviceSlot) Valid() bool {
	return x >= DeviceSlot_DEVICE_SLOT_PHONE && x <= DeviceSlot_DEVICE_SLOT_OTHER
}
