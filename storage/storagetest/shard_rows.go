package storagetest

import (
	"bytes"
	"fmt"
	"math"
	"reflect"
	"slices"

	"github.com/hermod-im/hermod/storage"
)

// Ids that the tests use. Slots 0 and 4095 are the ends of the key space.
var (
	shardAnna  = storage.UserIDIn(0, 1)
	shardBob   = storage.UserIDIn(4095, 1<<51-1)
	shardCarol = storage.UserIDIn(17, 3)
	shardGroup = storage.UserIDIn(17, 99)
)

func shardGroupKey(g storage.UserID) (k storage.ConvKey) {
	k = storage.SelfKey(g)
	clear(k[8:])
	return k
}

// shardSendID makes a UUIDv7 of a time in milliseconds.
func shardSendID(ms int64, n byte) (id [16]byte) {
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	id[6], id[8], id[15] = 0x70, 0x80, n
	return id
}

// sampleRows has every kind of row, every field of it, and the extremes.
func sampleRows() storage.Writes {
	pair := storage.PairKey(shardAnna, shardBob)
	group := shardGroupKey(shardGroup)
	entry := func(k storage.ConvKey, rev uint64, from storage.UserID, body []byte) storage.Entry {
		return storage.Entry{Conv: k, Rev: rev, ConvSeq: rev + 1, Time: 1_700_000_000_000_000 + int64(rev), Sender: from, Kind: 7, SendID: shardSendID(int64(rev), 1), Body: body}
	}
	pointer := entry(pair, 1, shardAnna, nil)
	user := func(u storage.UserID, n uint64) storage.UserHead {
		return storage.UserHead{User: u, Seq: n, Floor: n / 2, InboxEpoch: math.MaxUint64 - n, TokenGen: n + 2, LoginEpoch: n + 3, SlotEpochs: [7]uint64{0, n, 2, 3, 4, 5, n + 3}, Found: true}
	}
	w := storage.Writes{
		Convs: []storage.ConvHead{
			{Conv: pair, Generation: math.MaxUint64, Rev: 2, ConvSeq: 3, LastTime: 1_700_000_000_000_002, MemberVersion: 0, Found: true},
			{Conv: group, Generation: 5, Rev: 40, ConvSeq: 30, LastTime: 77, MemberVersion: 9, Found: true},
			{Conv: storage.SelfKey(shardCarol), Generation: 1, Found: true},
		},
		Users: []storage.UserHead{user(shardAnna, 4), user(shardBob, 1), {User: shardCarol, Found: true}},
		Entries: []storage.Entry{
			entry(pair, 1, shardAnna, []byte("hello")), entry(pair, 2, shardBob, bytes.Repeat([]byte{0xff}, 40_000)),
			entry(group, 40, shardCarol, []byte{0}),
			{Conv: group, Rev: math.MaxUint64 - 1, ConvSeq: math.MaxUint64, Time: math.MaxInt64, Sender: 1, Kind: math.MaxUint16, Body: []byte("x")},
		},
		Inbox: []storage.InboxRow{
			{User: shardAnna, Seq: 3, Entry: pointer}, {User: shardBob, Seq: 1, Entry: pointer},
			{User: shardAnna, Seq: 4, Entry: entry(group, 40, shardCarol, []byte("inline")), Inline: true},
			{User: shardCarol, Seq: math.MaxUint64, Entry: storage.Entry{Conv: storage.SelfKey(shardCarol), Rev: 1, Kind: 1, Sender: shardCarol}},
		},
		Sends: []storage.SendRow{
			{Key: storage.SendKey{Conv: pair, Sender: shardAnna, SendID: shardSendID(1_700_000_000_000, 1)}, Hash: [16]byte{1, 15: 2}, Rev: 1, ConvSeq: 2, Time: 3, Found: true},
			{Key: storage.SendKey{Conv: pair, Sender: shardAnna, SendID: [16]byte{0: 0xff, 15: 0xff}}, Rev: math.MaxUint64, ConvSeq: 5, Time: 6, Found: true},
		},
		UserConvs: []storage.UserConv{
			{Key: storage.UserConvKey{User: shardAnna, Conv: pair}, HeadRev: 1, Head: 2, Read: 3, OwnSent: 4, Cleared: 5, Joined: 6, Delivered: 7, HeadTime: 8, Found: true},
			{Key: storage.UserConvKey{User: shardAnna, Conv: group}, Found: true},
		},
		Tasks: []storage.Task{{Key: storage.TaskKey{Conv: pair, Target: math.MaxUint32}, NextRev: 1, ToRev: 2, Owner: math.MaxUint64, Incarnation: 3, Found: true}},
		Names: []storage.NameRow{{Name: "anna", User: shardAnna, Found: true}, {Name: "aнна世", User: shardBob, Found: true}},
		Accounts: []storage.Account{
			{User: shardAnna, Name: "anna", Created: 1, Auth: []byte("auth"), Profile: []byte("profile"), Found: true},
			{User: shardBob, Name: "aнна世", Created: 2, Found: true},
		},
		Devices: []storage.Device{
			{Key: storage.DeviceKey{User: shardAnna, ID: [16]byte{1}}, Slot: 1, LoginEpoch: 2, SecretHash: [32]byte{3}, PrevHash: [32]byte{4}, Created: 5, LastSeen: 6, AckedSeq: 7, Info: []byte("phone")},
			{Key: storage.DeviceKey{User: shardAnna, ID: [16]byte{2}}, Slot: 6, SecretHash: [32]byte{31: 9}},
		},
		Blocks: []storage.Block{{Key: storage.BlockKey{User: shardAnna, Peer: shardBob}, Time: 9, Found: true}},
		Slots:  []storage.SlotRow{{Slot: 0, State: storage.SlotOwned, Epoch: 1}, {Slot: 4095, State: storage.SlotFrozen, Epoch: math.MaxUint64}},
		Meta:   []storage.MetaRow{{Name: "key", Value: []byte{0, 1, 2}, Found: true}},
	}
	return w
}

// same compares rows; an empty slice of bytes equals none.
func same(a, b any) bool {
	norm := func(v any) string { return fmt.Sprintf("%+v", v) }
	return reflect.DeepEqual(a, b) || norm(a) == norm(b)
}

func (f *shardFix) expect(what string, got, want any) {
	f.Helper()
	if !same(got, want) {
		f.Errorf("%s:\n got %.500s\nwant %.500s", what, fmt.Sprintf("%+v", got), fmt.Sprintf("%+v", want))
	}
}

// locksFor names all rows of w.
func locksFor(w *storage.Writes) (l storage.Locks) {
	for _, r := range w.Convs {
		l.Convs = append(l.Convs, r.Conv)
	}
	for _, r := range w.Users {
		l.Users = append(l.Users, r.User)
	}
	for _, r := range w.Sends {
		l.Sends = append(l.Sends, r.Key)
	}
	for _, r := range w.UserConvs {
		l.UserConvs = append(l.UserConvs, r.Key)
	}
	for _, r := range w.Tasks {
		l.Tasks = append(l.Tasks, r.Key)
	}
	for _, r := range w.Names {
		l.Names = append(l.Names, r.Name)
	}
	for _, r := range w.Accounts {
		l.Accounts = append(l.Accounts, r.User)
	}
	for _, r := range w.Blocks {
		l.Blocks = append(l.Blocks, r.Key)
	}
	for _, r := range w.Meta {
		l.Meta = append(l.Meta, r.Name)
	}
	l.DevicesOf = []storage.UserID{shardAnna, shardBob}
	return l
}

func testRows(f *shardFix) {
	w := sampleRows()
	// What the heads say must be the logs' end, or there is no right answer.
	w.Entries = w.Entries[:3]
	w.Inbox = w.Inbox[:3]
	f.write(w)
	f.twice(func() { f.checkLocked(&w); f.checkSnap(&w) })

	// All rows that may be replaced, replaced by their zero.
	z := w
	z.Entries, z.Inbox, z.Sends, z.Names = nil, nil, nil, nil
	z.Convs = slices.Clone(w.Convs)
	for i := range z.Convs {
		z.Convs[i].MemberVersion++
	}
	z.Users = slices.Clone(w.Users)
	for i := range z.Users {
		z.Users[i].InboxEpoch, z.Users[i].TokenGen, z.Users[i].SlotEpochs = 0, 0, [7]uint64{}
	}
	z.UserConvs = []storage.UserConv{{Key: w.UserConvs[0].Key, Found: true}, {Key: w.UserConvs[1].Key, HeadRev: math.MaxUint64, HeadTime: math.MaxInt64, Found: true}}
	z.Tasks = []storage.Task{{Key: w.Tasks[0].Key, Found: true}}
	z.Accounts = []storage.Account{{User: shardAnna, Found: true}, {User: shardBob, Profile: []byte("p"), Found: true}}
	z.Devices = []storage.Device{{Key: w.Devices[0].Key}, w.Devices[1]}
	z.Blocks = []storage.Block{{Key: w.Blocks[0].Key, Time: math.MaxInt64, Found: true}}
	z.Slots = []storage.SlotRow{{Slot: 0, State: storage.SlotAbsent, Epoch: 2}, {Slot: 4095, State: storage.SlotOwned, Epoch: 3}}
	z.Meta = []storage.MetaRow{{Name: "key", Value: []byte("other"), Found: true}}
	f.write(z)
	z.Sends, z.Names, z.Entries, z.Inbox = w.Sends, w.Names, w.Entries, w.Inbox
	f.twice(func() { f.checkLocked(&z); f.checkSnap(&z) })
}

func (f *shardFix) checkLocked(w *storage.Writes) {
	f.Helper()
	l := f.locked(locksFor(w))
	f.expect("locked convs", l.Convs, w.Convs)
	f.expect("locked users", l.Users, w.Users)
	f.expect("locked sends", l.Sends, w.Sends)
	f.expect("locked user_convs", l.UserConvs, w.UserConvs)
	f.expect("locked tasks", l.Tasks, w.Tasks)
	f.expect("locked names", l.Names, w.Names)
	f.expect("locked accounts", l.Accounts, w.Accounts)
	f.expect("locked devices", l.Devices, [][]storage.Device{w.Devices, nil})
	f.expect("locked blocks", l.Blocks, w.Blocks)
	f.expect("locked meta", l.Meta, w.Meta)
	if l.Now <= 0 {
		f.Errorf("Locked.Now is %d", l.Now)
	}
}

func (f *shardFix) checkSnap(w *storage.Writes) {
	f.Helper()
	f.view(func(v storage.Snap) {
		if v.Now() <= 0 {
			f.Errorf("Snap.Now is %d", v.Now())
		}
		for _, r := range w.Convs {
			f.expect("conv", must(v.Conv(r.Conv))(f), r)
		}
		for _, r := range w.Users {
			f.expect("user", must(v.User(r.User))(f), r)
		}
		for _, r := range w.Entries {
			f.expect("entry", must(v.Entries(r.Conv, r.Rev, r.Rev, 10, 1<<20, false))(f), []storage.Entry{r})
		}
		for _, r := range w.Inbox {
			f.expect("inbox", must(v.Inbox(r.User, r.Seq-1, 1))(f), []storage.InboxRow{r})
		}
		for _, r := range w.UserConvs {
			f.expect("user_conv", must(v.UserConv(r.Key))(f), r)
		}
		for _, r := range w.Names {
			f.expect("name", must(v.Name(r.Name))(f), r)
		}
		for _, r := range w.Accounts {
			f.expect("account", must(v.Account(r.User))(f), r)
		}
		for _, r := range w.Blocks {
			f.expect("block", must(v.Block(r.Key))(f), r)
		}
		for _, r := range w.Meta {
			f.expect("meta", must(v.Meta(r.Name))(f), r)
		}
		f.expect("devices", must(v.Devices(shardAnna))(f), w.Devices)
		f.expect("slots", must(v.SlotRows())(f), w.Slots)
	})
}

// testLockedPositions: rows that are not there, duplicates, any order.
func testLockedPositions(f *shardFix) {
	w := sampleRows()
	f.write(w)
	none := storage.UserIDIn(9, 9)
	pair, gone := w.Convs[0].Conv, storage.PairKey(none, shardAnna)
	l := f.locked(storage.Locks{
		Convs:     []storage.ConvKey{gone, pair, pair, gone},
		Users:     []storage.UserID{none, shardBob, shardAnna, shardBob},
		Sends:     []storage.SendKey{{Conv: gone, Sender: none}, w.Sends[0].Key, {Conv: pair, Sender: shardBob, SendID: w.Sends[0].Key.SendID}},
		UserConvs: []storage.UserConvKey{{User: none, Conv: pair}, w.UserConvs[0].Key},
		Tasks:     []storage.TaskKey{{Conv: pair, Target: 1}, w.Tasks[0].Key},
		Names:     []string{"ann", "anna", "annab", "", "anna"},
		Accounts:  []storage.UserID{none, shardAnna},
		DevicesOf: []storage.UserID{none, shardAnna, none},
		Blocks:    []storage.BlockKey{{User: shardBob, Peer: shardAnna}, w.Blocks[0].Key},
		Meta:      []string{"ke", "key"},
	})
	f.expect("convs", l.Convs, []storage.ConvHead{{Conv: gone}, w.Convs[0], w.Convs[0], {Conv: gone}})
	f.expect("users", l.Users, []storage.UserHead{{User: none}, w.Users[1], w.Users[0], w.Users[1]})
	f.expect("sends", l.Sends, []storage.SendRow{
		{Key: storage.SendKey{Conv: gone, Sender: none}}, w.Sends[0],
		{Key: storage.SendKey{Conv: pair, Sender: shardBob, SendID: w.Sends[0].Key.SendID}},
	})
	f.expect("user_convs", l.UserConvs, []storage.UserConv{{Key: storage.UserConvKey{User: none, Conv: pair}}, w.UserConvs[0]})
	f.expect("tasks", l.Tasks, []storage.Task{{Key: storage.TaskKey{Conv: pair, Target: 1}}, w.Tasks[0]})
	f.expect("names", l.Names, []storage.NameRow{{Name: "ann"}, w.Names[0], {Name: "annab"}, {Name: ""}, w.Names[0]})
	f.expect("accounts", l.Accounts, []storage.Account{{User: none}, w.Accounts[0]})
	f.expect("devices", l.Devices, [][]storage.Device{nil, w.Devices, nil})
	f.expect("blocks", l.Blocks, []storage.Block{{Key: storage.BlockKey{User: shardBob, Peer: shardAnna}}, w.Blocks[0]})
	f.expect("meta", l.Meta, []storage.MetaRow{{Name: "ke"}, w.Meta[0]})
}

func testDeletions(f *shardFix) {
	w := sampleRows()
	f.write(w)
	f.write(storage.Writes{
		DelTasks:   []storage.TaskKey{w.Tasks[0].Key, {Target: 1}}, // the second was never there
		DelDevices: []storage.DeviceKey{w.Devices[0].Key},
		DelBlocks:  []storage.BlockKey{w.Blocks[0].Key},
	})
	f.twice(func() {
		l := f.locked(storage.Locks{Tasks: []storage.TaskKey{w.Tasks[0].Key}, DevicesOf: []storage.UserID{shardAnna}, Blocks: []storage.BlockKey{w.Blocks[0].Key}})
		f.expect("task", l.Tasks, []storage.Task{{Key: w.Tasks[0].Key}})
		f.expect("devices", l.Devices, [][]storage.Device{w.Devices[1:]})
		f.expect("block", l.Blocks, []storage.Block{{Key: w.Blocks[0].Key}})
		f.expect("tasks of owner", must(f.s.Tasks(f.ctx(), w.Tasks[0].Owner, nil, 9))(f), []storage.Task(nil))
	})
}

// testCallersOwnBytes: neither side sees what the other does to a slice later.
func testCallersOwnBytes(f *shardFix) {
	pair := storage.PairKey(shardAnna, shardBob)
	body, auth := []byte("body"), []byte("auth")
	f.write(storage.Writes{
		Convs:    []storage.ConvHead{{Conv: pair, Rev: 1}},
		Entries:  []storage.Entry{{Conv: pair, Rev: 1, Kind: 1, Sender: shardAnna, Body: body}},
		Accounts: []storage.Account{{User: shardAnna, Auth: auth}},
		Meta:     []storage.MetaRow{{Name: "m", Value: auth}},
	})
	copy(body, "XXXX")
	copy(auth, "XXXX")
	for range 2 {
		f.view(func(v storage.Snap) {
			e := must(v.Entries(pair, 1, 1, 1, 100, false))(f)
			a := must(v.Account(shardAnna))(f)
			m := must(v.Meta("m"))(f)
			if string(e[0].Body) != "body" || string(a.Auth) != "auth" || string(m.Value) != "auth" {
				f.Fatalf("got %q, %q, %q", e[0].Body, a.Auth, m.Value)
			}
			copy(e[0].Body, "YYYY")
			copy(a.Auth, "YYYY")
			copy(m.Value, "YYYY")
		})
	}
}
