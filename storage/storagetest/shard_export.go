package storagetest

import (
	"cmp"
	"errors"
	"fmt"
	"slices"

	"github.com/hermod-im/hermod/storage"
)

// exportAll reads all pages of a slot, and fails where one says too little.
func (f *shardFix) exportAll(slot storage.Slot, limit int) (all storage.Writes) {
	f.Helper()
	var after []byte
	for pages := 0; ; pages++ {
		var w storage.Writes
		var next []byte
		f.view(func(v storage.Snap) {
			var err error
			if w, next, err = v.Export(slot, after, limit); err != nil {
				f.Fatalf("Export of slot %d after %x: %v", slot, after, err)
			}
		})
		if len(w.Slots)+len(w.Meta)+len(w.DelTasks)+len(w.DelDevices)+len(w.DelBlocks)+len(w.Trims)+len(w.DelSendsSlots) > 0 || w.DelSendsBefore != 0 {
			f.Fatalf("a page has more than rows of the slot: %+v", w)
		}
		if n := rowsOf(&w); n > 2*limit+16 {
			f.Fatalf("a page of %d rows, asked for %d", n, limit)
		}
		addRows(&all, &w)
		if next == nil {
			sortRows(&all)
			return all
		}
		if pages > 100_000 {
			f.Fatal("Export does not end")
		}
		after = next
	}
}

func rowsOf(w *storage.Writes) int {
	return len(w.Convs) + len(w.Users) + len(w.Entries) + len(w.Inbox) + len(w.Sends) + len(w.UserConvs) +
		len(w.Tasks) + len(w.Names) + len(w.Accounts) + len(w.Devices) + len(w.Blocks)
}

func addRows(dst, w *storage.Writes) {
	dst.Convs = append(dst.Convs, w.Convs...)
	dst.Users = append(dst.Users, w.Users...)
	dst.Entries = append(dst.Entries, w.Entries...)
	dst.Inbox = append(dst.Inbox, w.Inbox...)
	dst.Sends = append(dst.Sends, w.Sends...)
	dst.UserConvs = append(dst.UserConvs, w.UserConvs...)
	dst.Tasks = append(dst.Tasks, w.Tasks...)
	dst.Names = append(dst.Names, w.Names...)
	dst.Accounts = append(dst.Accounts, w.Accounts...)
	dst.Devices = append(dst.Devices, w.Devices...)
	dst.Blocks = append(dst.Blocks, w.Blocks...)
}

// sortRows brings rows into an order of this suite's: Export has none.
func sortRows(w *storage.Writes) {
	conv := func(a, b storage.ConvKey) int { return slices.Compare(a[:], b[:]) }
	slices.SortFunc(w.Convs, func(a, b storage.ConvHead) int { return conv(a.Conv, b.Conv) })
	slices.SortFunc(w.Users, func(a, b storage.UserHead) int { return cmp.Compare(a.User, b.User) })
	slices.SortFunc(w.Entries, func(a, b storage.Entry) int { return cmp.Or(conv(a.Conv, b.Conv), cmp.Compare(a.Rev, b.Rev)) })
	slices.SortFunc(w.Inbox, func(a, b storage.InboxRow) int { return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Seq, b.Seq)) })
	slices.SortFunc(w.Sends, func(a, b storage.SendRow) int {
		return cmp.Or(conv(a.Key.Conv, b.Key.Conv), cmp.Compare(a.Key.Sender, b.Key.Sender), slices.Compare(a.Key.SendID[:], b.Key.SendID[:]))
	})
	slices.SortFunc(w.UserConvs, func(a, b storage.UserConv) int {
		return cmp.Or(cmp.Compare(a.Key.User, b.Key.User), conv(a.Key.Conv, b.Key.Conv))
	})
	slices.SortFunc(w.Tasks, func(a, b storage.Task) int { return compareTasks(a.Key, b.Key) })
	slices.SortFunc(w.Names, func(a, b storage.NameRow) int { return cmp.Compare(a.Name, b.Name) })
	slices.SortFunc(w.Accounts, func(a, b storage.Account) int { return cmp.Compare(a.User, b.User) })
	slices.SortFunc(w.Devices, func(a, b storage.Device) int {
		return cmp.Or(cmp.Compare(a.Key.User, b.Key.User), slices.Compare(a.Key.ID[:], b.Key.ID[:]))
	})
	slices.SortFunc(w.Blocks, func(a, b storage.Block) int {
		return cmp.Or(cmp.Compare(a.Key.User, b.Key.User), cmp.Compare(a.Key.Peer, b.Key.Peer))
	})
}

// slotSample is every kind of row for some users of a slot, and what they share
// with a user of slot 9.
func slotSample(slot storage.Slot) (w storage.Writes) {
	stranger := storage.UserIDIn(9, 4)
	for i, random := range []uint64{1, 2, 1<<51 - 1} {
		u := storage.UserIDIn(slot, random)
		n := uint64(slot)*10 + uint64(i) + 1
		own, pair := storage.SelfKey(u), storage.PairKey(u, stranger)
		name := string(rune('a'+i)) + string(rune('a'+slot%26)) + "'s"
		w.Users = append(w.Users, storage.UserHead{User: u, Seq: n + 3, Floor: n, InboxEpoch: n, TokenGen: 2, LoginEpoch: 3, SlotEpochs: [7]uint64{0, 1, 2, 3, 4, 5, 6}, Found: true})
		w.Accounts = append(w.Accounts, storage.Account{User: u, Name: name, Created: int64(n), Auth: []byte("auth"), Profile: []byte("p"), Found: true})
		w.Names = append(w.Names, storage.NameRow{Name: name, User: u, Found: true})
		w.Devices = append(w.Devices, storage.Device{Key: storage.DeviceKey{User: u, ID: [16]byte{7}}, Slot: 2, LoginEpoch: n, SecretHash: [32]byte{1}, PrevHash: [32]byte{2}, Created: 3, LastSeen: 4, AckedSeq: n, Info: []byte("i")})
		w.Blocks = append(w.Blocks, storage.Block{Key: storage.BlockKey{User: u, Peer: stranger}, Time: int64(n), Found: true})
		w.Convs = append(w.Convs, storage.ConvHead{Conv: own, Generation: n, Rev: 3, ConvSeq: 2, LastTime: 1003, Found: true})
		for rev := uint64(1); rev <= 3; rev++ {
			e := storage.Entry{Conv: own, Rev: rev, ConvSeq: min(rev, 2), Time: int64(1000 + rev), Sender: u, Kind: 5, SendID: shardSendID(int64(n), byte(rev)), Body: []byte("body of an entry")}
			w.Entries = append(w.Entries, e)
			w.Sends = append(w.Sends, storage.SendRow{Key: storage.SendKey{Conv: own, Sender: u, SendID: e.SendID}, Hash: [16]byte{byte(n)}, Rev: rev, ConvSeq: e.ConvSeq, Time: e.Time, Found: true})
			in := storage.InboxRow{User: u, Seq: n + rev, Entry: e, Inline: rev == 3}
			if !in.Inline {
				in.Entry.Body = nil
			}
			w.Inbox = append(w.Inbox, in)
		}
		w.UserConvs = append(w.UserConvs,
			storage.UserConv{Key: storage.UserConvKey{User: u, Conv: own}, HeadRev: 3, Head: 2, Read: 1, OwnSent: 2, Cleared: 1, Joined: 1, Delivered: 2, HeadTime: 1003, Found: true},
			storage.UserConv{Key: storage.UserConvKey{User: u, Conv: pair}, Read: n, Found: true})
		w.Tasks = append(w.Tasks, storage.Task{Key: storage.TaskKey{Conv: own, Target: 8}, NextRev: n, ToRev: n + 1, Owner: 6, Incarnation: 2, Found: true})
	}
	sortRows(&w)
	return w
}

// testExport: a slot's rows, each once, and no others, whatever the page.
func testExport(f *shardFix) {
	slots := []storage.Slot{0, 3, 4, 4095}
	samples := map[storage.Slot]*storage.Writes{}
	for _, slot := range slots {
		w := slotSample(slot)
		samples[slot] = &w
		f.write(w)
	}
	f.twice(func() {
		for _, slot := range slots {
			for _, limit := range []int{1, 2, 7, 1000} {
				f.expectRows(f.exportAll(slot, limit), samples[slot])
			}
		}
		f.expectRows(f.exportAll(5, 10), &storage.Writes{})
	})
	// Heads are those of the moment, wherever an engine keeps them.
	w := samples[3]
	for i := range w.Users {
		u := &w.Users[i]
		u.Seq++
		u.Floor = u.Seq
		f.write(storage.Writes{
			Users: []storage.UserHead{*u}, Trims: []storage.Trim{{User: u.User, Floor: u.Floor}},
			Inbox: []storage.InboxRow{{User: u.User, Seq: u.Seq, Entry: w.Entries[0]}},
		})
	}
	w.Inbox = nil
	f.twice(func() { f.expectRows(f.exportAll(3, 5), w) })
}

func (f *shardFix) expectRows(got storage.Writes, want *storage.Writes) {
	f.Helper()
	f.expect("convs", got.Convs, want.Convs)
	f.expect("users", got.Users, want.Users)
	f.expect("entries", got.Entries, want.Entries)
	f.expect("inbox", got.Inbox, want.Inbox)
	f.expect("sends", got.Sends, want.Sends)
	f.expect("user_convs", got.UserConvs, want.UserConvs)
	f.expect("tasks", got.Tasks, want.Tasks)
	f.expect("names", got.Names, want.Names)
	f.expect("accounts", got.Accounts, want.Accounts)
	f.expect("devices", got.Devices, want.Devices)
	f.expect("blocks", got.Blocks, want.Blocks)
}

// testExportLargeBodies: a page stays something that Commit accepts.
func testExportLargeBodies(f *shardFix) {
	k := storage.SelfKey(shardCarol)
	want := storage.Writes{Convs: []storage.ConvHead{{Conv: k, Rev: 100, Found: true}}}
	for rev := uint64(1); rev <= 100; rev++ {
		want.Entries = append(want.Entries, storage.Entry{Conv: k, Rev: rev, Kind: 1, Sender: shardCarol, Body: make([]byte, 60_000)})
	}
	for page := range slices.Chunk(want.Entries, 10) {
		f.write(storage.Writes{Entries: page})
	}
	f.write(storage.Writes{Convs: want.Convs})
	f.view(func(v storage.Snap) {
		w, next, err := v.Export(shardCarol.Slot(), nil, 1000)
		if err != nil || next == nil || len(w.Entries) > 50 {
			f.Errorf("a page of %d entries of 60 kB: next %x, %v", len(w.Entries), next, err)
		}
	})
	f.expectRows(f.exportAll(shardCarol.Slot(), 1000), &want)
}

// testPurge: nothing of the slot is left, wherever it was kept, and everything
// else is; what was there can then be written again.
func testPurge(f *shardFix) {
	slots := []storage.Slot{2, 3, 4}
	samples := map[storage.Slot]storage.Writes{}
	for _, slot := range slots {
		samples[slot] = slotSample(slot)
		f.write(samples[slot])
	}
	gone := samples[3]
	locks := locksFor(&gone)
	f.locked(locks) // whatever an engine keeps in memory
	if err := f.s.Purge(f.ctx(), 3); err != nil {
		f.Fatalf("Purge: %v", err)
	}
	f.twice(func() {
		f.expectRows(f.exportAll(3, 10), &storage.Writes{})
		for _, slot := range []storage.Slot{2, 4} {
			w := samples[slot]
			f.expectRows(f.exportAll(slot, 10), &w)
		}
		l := f.locked(locks)
		for _, found := range []bool{
			slices.ContainsFunc(l.Convs, func(r storage.ConvHead) bool { return r.Found }),
			slices.ContainsFunc(l.Users, func(r storage.UserHead) bool { return r.Found }),
			slices.ContainsFunc(l.Sends, func(r storage.SendRow) bool { return r.Found }),
			slices.ContainsFunc(l.UserConvs, func(r storage.UserConv) bool { return r.Found }),
			slices.ContainsFunc(l.Tasks, func(r storage.Task) bool { return r.Found }),
			slices.ContainsFunc(l.Names, func(r storage.NameRow) bool { return r.Found }),
			slices.ContainsFunc(l.Accounts, func(r storage.Account) bool { return r.Found }),
			slices.ContainsFunc(l.Blocks, func(r storage.Block) bool { return r.Found }),
		} {
			if found {
				f.Errorf("something of a purged slot is still found: %+v", l)
			}
		}
		f.expect("tasks by owner", f.tasksOf(6, nil, 100), slices.Concat(samples[2].Tasks, samples[4].Tasks))
	})
	f.write(gone)
	f.twice(func() { f.expectRows(f.exportAll(3, 10), &gone) })
	if err := f.s.Purge(f.ctx(), 77); err != nil {
		f.Errorf("Purge of a slot with nothing: %v", err)
	}
}

// testPurgeMany: more than any one transaction should hold.
func testPurgeMany(f *shardFix) {
	var w storage.Writes
	for i := range uint64(2500) {
		u := storage.UserIDIn(7, i)
		name := fmt.Sprintf("n%d", i)
		w.Users = append(w.Users, storage.UserHead{User: u, Found: true})
		w.Accounts = append(w.Accounts, storage.Account{User: u, Name: name, Found: true})
		w.Names = append(w.Names, storage.NameRow{Name: name, User: u, Found: true})
		w.Tasks = append(w.Tasks, storage.Task{Key: storage.TaskKey{Conv: storage.SelfKey(u), Target: 3}, NextRev: 1, ToRev: 1, Owner: 5, Found: true})
	}
	f.write(w)
	sortRows(&w)
	f.expectRows(f.exportAll(7, 300), &w)
	if err := f.s.Purge(f.ctx(), 7); err != nil {
		f.Fatalf("Purge: %v", err)
	}
	f.expectRows(f.exportAll(7, 300), &storage.Writes{})
	f.expect("tasks", f.tasksOf(5, nil, 10), []storage.Task(nil))
	l := f.locked(storage.Locks{Names: []string{w.Names[0].Name, w.Names[2499].Name}})
	if l.Names[0].Found || l.Names[1].Found {
		f.Errorf("names are left: %+v", l.Names)
	}
}

// testPurgeRefuses: what the shard owns, or holds frozen, is not purged.
func testPurgeRefuses(f *shardFix) {
	w := slotSample(3)
	f.write(w)
	for _, state := range []storage.SlotState{storage.SlotOwned, storage.SlotFrozen} {
		f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 3, State: state, Epoch: 4}}})
		if err := f.s.Purge(f.ctx(), 3); !errors.Is(err, storage.ErrInvalid) {
			f.Errorf("Purge in state %d: %v", state, err)
		}
		f.expectRows(f.exportAll(3, 10), &w)
	}
	f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 3, State: storage.SlotAbsent, Epoch: 5}}})
	if err := f.s.Purge(f.ctx(), 3); err != nil {
		f.Errorf("Purge of an absent slot: %v", err)
	}
	f.expectRows(f.exportAll(3, 10), &storage.Writes{})
	f.view(func(v storage.Snap) {
		f.expect("slot rows", must(v.SlotRows())(f), []storage.SlotRow{{Slot: 3, State: storage.SlotAbsent, Epoch: 5}})
	})
}
