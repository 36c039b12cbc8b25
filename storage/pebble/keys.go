package pebble

import (
	"encoding/binary"

	"github.com/hermod-im/hermod/storage"
)

// keyVersion is the first byte of every key. A new layout gets a new number,
// so that old and new rows can live side by side while one is rewritten.
const keyVersion = 1

// table is the second byte of every key. The values are on disk: never reuse one.
type table byte

// The rest of the key, numbers big-endian. Everything that belongs to a user or
// a conversation is ordered by an id, hence by slot: a slot is a key range in
// every table but the names, which follow from the accounts of the same slot.
const (
	tableAccounts  table = 'a' // user
	tableBlocks    table = 'b' // user ‖ peer
	tableUserConvs table = 'c' // user ‖ conv
	tableSends     table = 'd' // slot, day, conv, sender, send id: see sendKey
	tableEntries   table = 'e' // conv ‖ rev
	tableShard     table = 'f' // nothing: the shard's identity
	tableConvs     table = 'h' // conv: the static part of a head
	tableInbox     table = 'i' // user ‖ seq
	tableLeases    table = 'l' // node
	tableMeta      table = 'm' // name
	tableNames     table = 'n' // name
	tableOwners    table = 'o' // node ‖ conv ‖ shard: an index of the tasks
	tableSlots     table = 's' // slot
	tableTasks     table = 't' // conv ‖ shard
	tableUsers     table = 'u' // user: the static part of a head
	tableDevices   table = 'v' // user ‖ device id
)

func (t table) String() string {
	switch t {
	case tableAccounts:
		return "accounts"
	case tableBlocks:
		return "blocks"
	case tableUserConvs:
		return "user_convs"
	case tableSends:
		return "sends"
	case tableEntries:
		return "entries"
	case tableShard:
		return "shard"
	case tableConvs:
		return "convs"
	case tableInbox:
		return "inbox"
	case tableLeases:
		return "leases"
	case tableMeta:
		return "meta"
	case tableNames:
		return "names"
	case tableOwners:
		return "owners"
	case tableSlots:
		return "slots"
	case tableTasks:
		return "tasks"
	case tableUsers:
		return "users"
	case tableDevices:
		return "devices"
	}
	return "unknown"
}

// prefixLen is the length of version and table.
const prefixLen = 2

// The append functions below build a key into dst[:0].

func start(dst []byte, t table) []byte { return append(dst[:0], keyVersion, byte(t)) }

func appendUint64(dst []byte, v uint64) []byte { return binary.BigEndian.AppendUint64(dst, v) }

func userKey(dst []byte, t table, u storage.UserID) []byte {
	return appendUint64(start(dst, t), uint64(u))
}

func convKey(dst []byte, t table, c storage.ConvKey) []byte {
	return append(start(dst, t), c[:]...)
}

func entryKey(dst []byte, c storage.ConvKey, rev uint64) []byte {
	return appendUint64(convKey(dst, tableEntries, c), rev)
}

func inboxKey(dst []byte, u storage.UserID, seq uint64) []byte {
	return appendUint64(userKey(dst, tableInbox, u), seq)
}

func userConvKey(dst []byte, k storage.UserConvKey) []byte {
	return append(userKey(dst, tableUserConvs, k.User), k.Conv[:]...)
}

func blockKey(dst []byte, k storage.BlockKey) []byte {
	return appendUint64(userKey(dst, tableBlocks, k.User), uint64(k.Peer))
}

func deviceKey(dst []byte, k storage.DeviceKey) []byte {
	return append(userKey(dst, tableDevices, k.User), k.ID[:]...)
}

func taskKey(dst []byte, k storage.TaskKey) []byte {
	return binary.BigEndian.AppendUint32(convKey(dst, tableTasks, k.Conv), uint32(k.Target))
}

func ownerKey(dst []byte, n storage.NodeID, k storage.TaskKey) []byte {
	dst = append(appendUint64(start(dst, tableOwners), uint64(n)), k.Conv[:]...)
	return binary.BigEndian.AppendUint32(dst, uint32(k.Target))
}

func leaseKey(dst []byte, n storage.NodeID) []byte {
	return appendUint64(start(dst, tableLeases), uint64(n))
}

func slotKey(dst []byte, s storage.Slot) []byte {
	return binary.BigEndian.AppendUint16(start(dst, tableSlots), uint16(s))
}

func textKey(dst []byte, t table, name string) []byte { return append(start(dst, t), name...) }

const (
	sendKeyLen = prefixLen + 2 + 2 + 16 + 8 + 16
	dayMillis  = 24 * 60 * 60 * 1000
)

// sendKey orders the dedupe rows of a slot by the day that their ids were made
// on, so that forgetting a day is one range deletion. Keyed by conversation
// alone, each row would have to be read and deleted by itself.
func sendKey(dst []byte, k storage.SendKey) []byte {
	dst = sendDayKey(dst, k.Conv.Slot(), sendDay(k.SendID))
	dst = append(dst, k.Conv[:]...)
	dst = appendUint64(dst, uint64(k.Sender))
	return append(dst, k.SendID[:]...)
}

// sendDayKey is the first key of a slot's dedupe rows of a day.
func sendDayKey(dst []byte, slot storage.Slot, day uint16) []byte {
	dst = binary.BigEndian.AppendUint16(start(dst, tableSends), uint16(slot))
	return binary.BigEndian.AppendUint16(dst, day)
}

// sendDay is the day since 1970 in a UUIDv7's first 48 bits, milliseconds. An id
// that is no UUIDv7 falls on some day too, always the same one.
func sendDay(id [16]byte) uint16 {
	ms := binary.BigEndian.Uint64(id[:8]) >> 16
	return uint16(min(ms/dayMillis, 1<<16-1))
}

// upperBound appends to dst[:0] the first key after all those that begin with
// prefix. The version byte never is 0xff, so there always is one.
func upperBound(dst, prefix []byte) []byte {
	dst = append(dst[:0], prefix...)
	for i := len(dst) - 1; i >= 0; i-- {
		if dst[i]++; dst[i] != 0 {
			return dst[:i+1]
		}
	}
	return dst
}
