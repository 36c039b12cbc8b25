package client

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// SendID names one message for good: a UUIDv7 on server time. Sending again
// under the same id and with the same content, within 29 days, yields the first
// result, and one message.
type SendID [16]byte

// IsZero reports whether id is not set.
func (id SendID) IsZero() bool { return id == SendID{} }

// String is the usual form of a UUID.
func (id SendID) String() string {
	return fmt.Sprintf("%x-%x-%x-%x-%x", id[:4], id[4:6], id[6:8], id[8:10], id[10:])
}

// ParseSendID reads what String wrote.
func ParseSendID(s string) (SendID, error) {
	var id SendID
	if len(s) != 36 || s[8] != '-' || s[13] != '-' || s[18] != '-' || s[23] != '-' {
		return id, fmt.Errorf("client: %q is not a UUID", s)
	}
	if _, err := hex.Decode(id[:], []byte(s[:8]+s[9:13]+s[14:18]+s[19:23]+s[24:])); err != nil {
		return SendID{}, fmt.Errorf("client: %q is not a UUID", s)
	}
	if _, ok := proto.SendIDTime(id); !ok {
		return SendID{}, fmt.Errorf("client: %q is not a UUIDv7", s)
	}
	return id, nil
}

// idMaker makes send ids that rise strictly, even when the clock does not.
type idMaker struct {
	last SendID
}

// next returns the id for server time now. Within one millisecond, or while the
// clock is behind the last id, it counts up in the last one's random part:
// rand_a and rand_b stay unpredictable, and the order holds.
func (m *idMaker) next(now time.Time) SendID {
	id := SendID(proto.NewSendID(now))
	if string(id[:6]) <= string(m.last[:6]) {
		id = m.last
		id.increment()
	}
	m.last = id
	return id
}

// increment adds a random-looking odd step to the 62 bits of rand_b; on
// overflow it goes on in rand_a, and then in the time.
func (id *SendID) increment() {
	const step = 0x9e3779b97f4a7c15 >> 16 // about 2^47: some 2^14 steps to the overflow of rand_b
	low := binary.BigEndian.Uint64(id[8:])&(1<<62-1) + step
	carry := low >> 62
	binary.BigEndian.PutUint64(id[8:], low&(1<<62-1)|1<<63)
	if carry == 0 {
		return
	}
	high := binary.BigEndian.Uint64(id[:8])
	a := high&0xfff + 1
	ms := high >> 16
	if a > 0xfff {
		a, ms = 0, ms+1
	}
	binary.BigEndian.PutUint64(id[:8], ms<<16|0x7000|a)
}
