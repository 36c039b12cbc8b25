package storagetest

import (
	"fmt"

	"github.com/hermod-im/hermod/storage"
)

// An engine may derive a head's seq and rev from the newest row instead of
// writing them: these tests look for the cases in which that goes wrong.

func (f *shardFix) head(u storage.UserID) (h storage.UserHead) {
	f.Helper()
	f.view(func(v storage.Snap) { h = must(v.User(u))(f) })
	f.expect("locked head", f.locked(storage.Locks{Users: []storage.UserID{u}}).Users[0], h)
	return h
}

func (f *shardFix) convHead(k storage.ConvKey) (h storage.ConvHead) {
	f.Helper()
	f.view(func(v storage.Snap) { h = must(v.Conv(k))(f) })
	f.expect("locked head", f.locked(storage.Locks{Convs: []storage.ConvKey{k}}).Convs[0], h)
	return h
}

// testHeadsWithoutRows: heads that no row can tell.
func testHeadsWithoutRows(f *shardFix) {
	u, c := storage.UserHead{User: shardCarol, Seq: 5, InboxEpoch: 1, Found: true}, storage.ConvHead{Conv: storage.SelfKey(shardCarol), Generation: 1, Found: true}
	for i := range uint64(4) {
		u.Seq, c.Rev, c.ConvSeq, c.LastTime = 5+i, 3+i, 1+i/2, int64(100+i)
		f.write(storage.Writes{Users: []storage.UserHead{u}, Convs: []storage.ConvHead{c}})
		f.twice(func() {
			f.expect("user", f.head(shardCarol), u)
			f.expect("conv", f.convHead(c.Conv), c)
		})
	}
	// A rev that counts nothing, with and without its entry's agreement.
	for _, entrySeq := range []uint64{c.ConvSeq, c.ConvSeq + 1} {
		c.Rev++
		f.write(storage.Writes{Convs: []storage.ConvHead{c}, Entries: []storage.Entry{{Conv: c.Conv, Rev: c.Rev, ConvSeq: entrySeq, Time: c.LastTime, Kind: 1, Sender: shardCarol}}})
		f.twice(func() { f.expect("conv", f.convHead(c.Conv), c) })
	}
}

// testHeadsFollowRows: the usual case, with neighbours that must not be taken
// for one's own rows.
func testHeadsFollowRows(f *shardFix) {
	users := []storage.UserID{shardCarol - 1, shardCarol, shardCarol + 1, shardBob}
	want := map[storage.UserID]storage.UserHead{}
	for _, u := range users {
		want[u] = storage.UserHead{User: u, InboxEpoch: uint64(u), Found: true}
		f.write(storage.Writes{Users: []storage.UserHead{want[u]}, Convs: []storage.ConvHead{{Conv: storage.SelfKey(u), Generation: uint64(u)}}})
	}
	add := func(u storage.UserID, n int, floor uint64) {
		k := storage.SelfKey(u)
		f.commit(storage.Locks{Users: []storage.UserID{u}, Convs: []storage.ConvKey{k}}, func(l *storage.Locked) (*storage.Writes, error) {
			w := &storage.Writes{}
			h, c := l.Users[0], l.Convs[0]
			for range n {
				h.Seq, c.Rev, c.ConvSeq, c.LastTime = h.Seq+1, c.Rev+1, c.ConvSeq+1, c.LastTime+1
				e := storage.Entry{Conv: k, Rev: c.Rev, ConvSeq: c.ConvSeq, Time: c.LastTime, Kind: 1, Sender: u}
				w.Entries = append(w.Entries, e)
				w.Inbox = append(w.Inbox, storage.InboxRow{User: u, Seq: h.Seq, Entry: e})
			}
			h.TokenGen += floor // any other change at the same time
			w.Users, w.Convs = []storage.UserHead{h}, []storage.ConvHead{c}
			want[u] = h
			return w, nil
		})
	}
	check := func() {
		for _, u := range users {
			f.expect(fmt.Sprint("user ", u), f.head(u), want[u])
			n := want[u].Seq
			f.expect("conv", f.convHead(storage.SelfKey(u)), storage.ConvHead{Conv: storage.SelfKey(u), Generation: uint64(u), Rev: n, ConvSeq: n, LastTime: int64(n), Found: true})
		}
	}
	add(shardCarol+1, 3, 0)
	f.twice(check)
	add(shardCarol-1, 300, 1)
	f.twice(check)
	add(shardBob, 1, 0)
	add(shardBob, 1, 5)
	add(shardBob, 2, 0)
	f.twice(check)
}

func testHeadsAfterTrim(f *shardFix) {
	h := storage.UserHead{User: shardCarol, InboxEpoch: 3, Found: true}
	var rows []storage.InboxRow
	for seq := range uint64(10) {
		rows = append(rows, storage.InboxRow{User: shardCarol, Seq: seq + 1, Entry: storage.Entry{Conv: storage.SelfKey(shardCarol), Rev: seq + 1, Time: int64(seq) + 100, Kind: 1, Sender: shardCarol}})
	}
	other := rows[0]
	other.User = shardCarol + 1
	h.Seq = 10
	f.write(storage.Writes{Users: []storage.UserHead{h, {User: other.User, Seq: 1}}, Inbox: append(rows, other)})
	for _, floor := range []uint64{1, 4, 9, 10} {
		h.Floor = floor
		f.write(storage.Writes{Users: []storage.UserHead{h}, Trims: []storage.Trim{{User: shardCarol, Floor: floor}}})
		f.twice(func() {
			f.expect("head", f.head(shardCarol), h)
			f.view(func(v storage.Snap) {
				f.expect("rows left", len(must(v.Inbox(shardCarol, 0, 100))(f)), 10-int(floor))
				f.expect("neighbour", len(must(v.Inbox(other.User, 0, 100))(f)), 1)
				seq, at, ok, err := v.OldestInbox(shardCarol)
				if want := floor < 10; err != nil || ok != want || (ok && (seq != floor+1 || at != int64(floor)+100)) {
					f.Errorf("floor %d: oldest is %d at %d, %v, %v", floor, seq, at, ok, err)
				}
			})
		})
	}
	// An inbox that was emptied goes on where it was.
	h.Seq = 11
	f.write(storage.Writes{Users: []storage.UserHead{h}, Inbox: []storage.InboxRow{{User: shardCarol, Seq: 11, Entry: rows[0].Entry}}})
	f.twice(func() { f.expect("head", f.head(shardCarol), h) })
}

func testForgetSends(f *shardFix) {
	const day = 24 * 60 * 60 * 1000 // ms
	self, far := storage.SelfKey(shardCarol), storage.SelfKey(shardBob)
	var rows []storage.SendRow
	for i := range int64(6) {
		for n, k := range []storage.ConvKey{self, far} {
			rows = append(rows, storage.SendRow{Key: storage.SendKey{Conv: k, Sender: k.Home(), SendID: shardSendID((20_000+i)*day+day/2, byte(n))}, Rev: 1, Found: true})
		}
	}
	f.write(storage.Writes{Sends: rows})
	before := int64(20_003)*day + day/4 // day 3 was sent after it
	f.write(storage.Writes{DelSendsBefore: before * 1000, DelSendsSlots: []storage.Slot{self.Slot()}})
	f.twice(func() {
		l := f.locked(locksFor(&storage.Writes{Sends: rows}))
		for i, r := range l.Sends {
			gone := rows[i].Key.Conv == self && i/2 <= 2-1 // it may keep up to a day more
			kept := rows[i].Key.Conv == far || i/2 >= 3
			if gone && r.Found || kept && !r.Found {
				f.Errorf("day %d of slot %d: found %v", i/2, r.Key.Conv.Slot(), r.Found)
			}
		}
	})
}
