package storage

import (
	"encoding/binary"
	"encoding/hex"
	"math/bits"
)

// Slots is the number of slots that user and group ids are spread over.
const Slots = 4096

// Slot is a range of ids that moves between shards as a whole: 0 … Slots-1.
type Slot uint16

// UserID names a user (or, in a ConvKey, a group): a positive int64 whose top
// 12 bits are its slot, so that a slot is a key range in every table.
type UserID int64

// Slot returns the slot that u lives in.
func (u UserID) Slot() Slot { return Slot(uint64(u) >> 51) }

// Valid reports whether u can name a user.
func (u UserID) Valid() bool { return u > 0 }

// UserIDIn makes an id from a slot and 51 random bits.
func UserIDIn(slot Slot, random uint64) UserID {
	return UserID(uint64(slot%Slots)<<51 | random&(1<<51-1))
}

// ConvKey names a conversation: home ‖ other, 8 bytes big-endian each.
//
//	home ‖ peer   a pair; PairKey picks the home
//	user ‖ user   one's own devices
//	group ‖ 0     a group
type ConvKey [16]byte

// PairKey returns the key of the conversation of a and b, in whichever order.
// The home hash is fixed for good: changing it would lose every conversation.
func PairKey(a, b UserID) ConvKey {
	lo, hi := uint64(min(a, b)), uint64(max(a, b))
	x := lo ^ bits.RotateLeft64(hi, 32)
	x = (x ^ x>>30) * 0xbf58476d1ce4e5b9
	x = (x ^ x>>27) * 0x94d049bb133111eb
	if (x^x>>31)&1 == 1 {
		lo, hi = hi, lo
	}
	return makeKey(lo, hi)
}

// SelfKey returns the key of a user's conversation with the own devices.
func SelfKey(u UserID) ConvKey { return makeKey(uint64(u), uint64(u)) }

func makeKey(home, other uint64) (k ConvKey) {
	binary.BigEndian.PutUint64(k[:8], home)
	binary.BigEndian.PutUint64(k[8:], other)
	return k
}

// Home is the id whose shard holds the conversation's log.
func (k ConvKey) Home() UserID { return UserID(binary.BigEndian.Uint64(k[:8])) }

// Other is the second id: the peer, the user again, or 0 for a group.
func (k ConvKey) Other() UserID { return UserID(binary.BigEndian.Uint64(k[8:])) }

// Slot returns the home's slot.
func (k ConvKey) Slot() Slot { return k.Home().Slot() }

// IsPair reports whether k is a well-formed key of two different users.
func (k ConvKey) IsPair() bool {
	return k.Home().Valid() && k.Other().Valid() && k.Home() != k.Other() && PairKey(k.Home(), k.Other()) == k
}

// IsSelf reports whether k is a user's conversation with the own devices.
func (k ConvKey) IsSelf() bool { return k.Home().Valid() && k.Home() == k.Other() }

// Has reports whether u is one of the two sides of a pair, or its only side.
func (k ConvKey) Has(u UserID) bool { return u.Valid() && (k.Home() == u || k.Other() == u) }

// Peer returns the side that is not u (u itself for its own devices).
func (k ConvKey) Peer(u UserID) UserID {
	if k.Home() == u {
		return k.Other()
	}
	return k.Home()
}

// String returns k in hex, for logs.
func (k ConvKey) String() string { return hex.EncodeToString(k[:]) }
