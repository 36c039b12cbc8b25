package pebble

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"strings"
	"testing"

	"github.com/hermod-im/hermod/storage"
)

// decodeRow decodes a row of any table and encodes what it got again.
func decodeRow(key, val []byte) (row any, again []byte, err error) {
	if len(key) < prefixLen {
		_, err := decodeName(key, val)
		return nil, nil, err
	}
	switch table(key[1]) {
	case tableAccounts:
		return roundTrip(key, val, decodeAccount, appendAccount)
	case tableBlocks:
		return roundTrip(key, val, decodeBlock, appendBlock)
	case tableUserConvs:
		return roundTrip(key, val, decodeUserConv, appendUserConv)
	case tableSends:
		return roundTrip(key, val, decodeSend, appendSend)
	case tableEntries:
		return roundTrip(key, val, decodeEntry, appendEntry)
	case tableShard:
		return roundTrip(key, val, decodeShard, func(b []byte, id *storage.ShardID) []byte { return appendShard(b, *id) })
	case tableConvs:
		return roundTrip(key, val, decodeConv, appendConv)
	case tableInbox:
		return roundTrip(key, val, decodeInbox, appendInbox)
	case tableLeases:
		return roundTrip(key, val, func(key, val []byte) (lease, error) { _, l, err := decodeLease(key, val); return l, err },
			func(b []byte, l *lease) []byte { return appendLease(b, *l) })
	case tableMeta:
		return roundTrip(key, val, decodeMeta, appendMeta)
	case tableNames:
		return roundTrip(key, val, decodeName, appendName)
	case tableSlots:
		return roundTrip(key, val, decodeSlot, appendSlot)
	case tableTasks:
		return roundTrip(key, val, decodeTask, appendTask)
	case tableUsers:
		return roundTrip(key, val, decodeUser, appendUser)
	case tableDevices:
		return roundTrip(key, val, decodeDevice, appendDevice)
	}
	n, k, err := decodeOwner(key)
	if err != nil {
		return nil, nil, err
	}
	return storage.Task{Key: k, Owner: n}, val, nil
}

func roundTrip[T any](key, val []byte, decode func(k, v []byte) (T, error), encode func([]byte, *T) []byte) (any, []byte, error) {
	row, err := decode(key, val)
	if err != nil {
		return nil, nil, err
	}
	return row, encode(nil, &row), nil
}

var (
	seedUser = storage.UserIDIn(77, 123)
	seedPeer = storage.UserIDIn(4095, math.MaxUint64)
	seedPair = storage.PairKey(seedUser, seedPeer)
)

func seedEntry(sender storage.UserID, body []byte) storage.Entry {
	return storage.Entry{Conv: seedPair, Rev: 5, ConvSeq: 300, Time: 1_700_000_000_000_000, Sender: sender, Kind: 9, SendID: [16]byte{1, 2, 3}, Body: body}
}

// rowSeeds has a row of every table, as it is stored.
func rowSeeds() (seeds [][2][]byte) {
	add := func(key, val []byte) { seeds = append(seeds, [2][]byte{key, val}) }
	for _, e := range []storage.Entry{seedEntry(seedUser, []byte("hi")), seedEntry(seedPeer, nil), seedEntry(5, []byte{}), {Conv: seedPair}} {
		add(entryKey(nil, seedPair, 5), appendEntry(nil, &e))
	}
	for _, in := range []storage.InboxRow{
		{User: seedUser, Seq: 1, Entry: seedEntry(seedPeer, nil)},
		{User: seedPeer, Seq: 2, Entry: seedEntry(seedPeer, []byte("x")), Inline: true},
		{User: 9, Seq: 3, Entry: seedEntry(8, []byte("x"))},
	} {
		add(inboxKey(nil, in.User, in.Seq), appendInbox(nil, &in))
	}
	send := storage.SendRow{Key: storage.SendKey{Conv: seedPair, Sender: seedUser}, Hash: [16]byte{1}, Rev: 2, ConvSeq: 3, Time: 4}
	add(sendKey(nil, send.Key), appendSend(nil, &send))
	uc := storage.UserConv{Key: storage.UserConvKey{User: seedUser, Conv: seedPair}, HeadRev: 1, Head: 2, Read: 3, OwnSent: 4, Cleared: 5, Joined: 6, Delivered: 7, HeadTime: 8}
	add(userConvKey(nil, uc.Key), appendUserConv(nil, &uc))
	conv := storage.ConvHead{Conv: seedPair, Generation: 1, Rev: 2, ConvSeq: 3, LastTime: 4, MemberVersion: 5}
	add(convKey(nil, tableConvs, seedPair), appendConv(nil, &conv))
	user := storage.UserHead{User: seedUser, Seq: 1, Floor: 2, InboxEpoch: 3, TokenGen: 4, LoginEpoch: 5, SlotEpochs: [7]uint64{1, 2, 3, 4, 5, 6, 7}}
	add(userKey(nil, tableUsers, seedUser), appendUser(nil, &user))
	account := storage.Account{User: seedUser, Name: "anna", Created: 1, Auth: []byte("hash"), Profile: []byte("p")}
	add(userKey(nil, tableAccounts, seedUser), appendAccount(nil, &account))
	device := storage.Device{Key: storage.DeviceKey{User: seedUser}, Slot: 1, LoginEpoch: 2, Created: 3, LastSeen: 4, AckedSeq: 5, Info: []byte("i")}
	add(deviceKey(nil, device.Key), appendDevice(nil, &device))
	name := storage.NameRow{Name: "anna", User: seedUser}
	add(textKey(nil, tableNames, name.Name), appendName(nil, &name))
	block := storage.Block{Key: storage.BlockKey{User: seedUser, Peer: seedPeer}, Time: 5}
	add(blockKey(nil, block.Key), appendBlock(nil, &block))
	task := storage.Task{Key: storage.TaskKey{Conv: seedPair, Target: 2}, NextRev: 1, ToRev: 2, Owner: 3, Incarnation: 4}
	add(taskKey(nil, task.Key), appendTask(nil, &task))
	add(ownerKey(nil, 5, task.Key), row(nil))
	slot := storage.SlotRow{Slot: 4095, State: storage.SlotFrozen, Epoch: 5}
	add(slotKey(nil, slot.Slot), appendSlot(nil, &slot))
	add(leaseKey(nil, 5), appendLease(nil, lease{Incarnation: 1, Until: 2}))
	meta := storage.MetaRow{Name: "key", Value: []byte("value")}
	add(textKey(nil, tableMeta, meta.Name), appendMeta(nil, &meta))
	add(start(nil, tableShard), appendShard(nil, 7))
	return seeds
}

// FuzzRow checks the decoders of all tables: no panic, an error that names the
// key, and what one accepts, written again, reads the same.
func FuzzRow(f *testing.F) {
	for _, s := range rowSeeds() {
		f.Add(s[0], s[1])
		f.Add(s[0], s[1][:len(s[1])/2])
		f.Add(s[0][:len(s[0])-1], s[1])
		f.Add(s[0], append(bytes.Clone(s[1]), 0))
	}
	f.Fuzz(func(t *testing.T, key, val []byte) {
		row, again, err := decodeRow(key, val)
		if err != nil {
			if !errors.Is(err, ErrCorrupt) || !strings.Contains(err.Error(), "key") {
				t.Fatalf("error does not tell the key: %v", err)
			}
			return
		}
		same, _, err := decodeRow(key, again)
		if err != nil || !reflect.DeepEqual(row, same) {
			t.Fatalf("read %+v, written and read again %+v, %v", row, same, err)
		}
	})
}

// TestKeyOrder: every table keeps a slot's rows together, in the order of slots.
func TestKeyOrder(t *testing.T) {
	low, high := storage.UserIDIn(6, math.MaxUint64), storage.UserIDIn(7, 0)
	keys := map[table]func(u storage.UserID) []byte{
		tableAccounts:  func(u storage.UserID) []byte { return userKey(nil, tableAccounts, u) },
		tableUsers:     func(u storage.UserID) []byte { return userKey(nil, tableUsers, u) },
		tableInbox:     func(u storage.UserID) []byte { return inboxKey(nil, u, math.MaxUint64) },
		tableUserConvs: func(u storage.UserID) []byte { return userConvKey(nil, storage.UserConvKey{User: u, Conv: seedPair}) },
		tableBlocks:    func(u storage.UserID) []byte { return blockKey(nil, storage.BlockKey{User: u, Peer: seedPeer}) },
		tableDevices:   func(u storage.UserID) []byte { return deviceKey(nil, storage.DeviceKey{User: u}) },
		tableConvs:     func(u storage.UserID) []byte { return convKey(nil, tableConvs, storage.SelfKey(u)) },
		tableEntries:   func(u storage.UserID) []byte { return entryKey(nil, storage.SelfKey(u), math.MaxUint64) },
		tableTasks:     func(u storage.UserID) []byte { return taskKey(nil, storage.TaskKey{Conv: storage.SelfKey(u)}) },
		tableSends: func(u storage.UserID) []byte {
			return sendKey(nil, storage.SendKey{Conv: storage.SelfKey(u), Sender: u, SendID: [16]byte{0xff}})
		},
	}
	for table, key := range keys {
		if a, b := key(low), key(high); bytes.Compare(a, b) >= 0 || a[1] != byte(table) {
			t.Errorf("%s: %x is not below %x", table, a, b)
		}
	}
	seen := map[byte]bool{}
	for _, tt := range []table{tableAccounts, tableBlocks, tableUserConvs, tableSends, tableEntries, tableShard, tableConvs, tableInbox,
		tableLeases, tableMeta, tableNames, tableOwners, tableSlots, tableTasks, tableUsers, tableDevices} {
		if seen[byte(tt)] || tt.String() == "unknown" {
			t.Errorf("table %c is named twice or has no name", byte(tt))
		}
		seen[byte(tt)] = true
	}
}

func TestUpperBound(t *testing.T) {
	for _, tt := range [][2]string{{"\x01a", "\x01b"}, {"\x01\xff", "\x02"}, {"\x01a\xff\xff", "\x01b"}} {
		if got := upperBound(nil, []byte(tt[0])); string(got) != tt[1] {
			t.Errorf("after all of %q comes %q, want %q", tt[0], got, tt[1])
		}
	}
}

// TestCompact holds the size of a message on disk: it is most of what a sync writes.
func TestCompact(t *testing.T) {
	e := seedEntry(seedUser, nil)
	in := storage.InboxRow{User: seedUser, Seq: 1, Entry: e}
	for what, tt := range map[string][2]int{
		"entry":     {len(appendEntry(nil, &e)), 30},
		"inbox row": {len(appendInbox(nil, &in)), 39},
	} {
		if tt[0] > tt[1] {
			t.Errorf("%s takes %d bytes without its key and body, at most %d", what, tt[0], tt[1])
		}
	}
}
