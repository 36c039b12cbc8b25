package storagetest

import (
	"context"
	"math"
	"slices"
	"sync"

	"github.com/hermod-im/hermod/storage"
)

func testInboxPages(f *shardFix) {
	var all []storage.InboxRow
	for seq := uint64(1); seq <= 25; seq++ {
		all = append(all, storage.InboxRow{User: shardCarol, Seq: seq, Entry: storage.Entry{Conv: storage.PairKey(shardCarol, shardBob), Rev: seq, Time: int64(seq), Kind: 1, Sender: shardBob}})
	}
	stranger := all[0]
	stranger.User++
	f.write(storage.Writes{Inbox: append(slices.Clone(all), stranger), Users: []storage.UserHead{{User: shardCarol, Seq: 25}}})
	f.twice(func() {
		f.view(func(v storage.Snap) {
			for _, tt := range []struct {
				after uint64
				limit int
				want  []storage.InboxRow
			}{
				{0, 100, all}, {0, 10, all[:10]}, {10, 10, all[10:20]}, {20, 10, all[20:]}, {24, 1, all[24:]},
				{25, 10, nil}, {math.MaxUint64, 10, nil}, {0, 0, nil}, {0, 1, all[:1]},
			} {
				f.expect("page", must(v.Inbox(shardCarol, tt.after, tt.limit))(f), tt.want)
			}
			f.expect("nobody", must(v.Inbox(shardAnna, 0, 10))(f), []storage.InboxRow(nil))
			if _, _, ok, err := v.OldestInbox(shardAnna); ok || err != nil {
				f.Errorf("nobody's oldest: %v, %v", ok, err)
			}
		})
	})
}

func testEntriesPages(f *shardFix) {
	k := storage.PairKey(shardCarol, shardBob)
	var all []storage.Entry
	for rev := uint64(1); rev <= 20; rev++ {
		all = append(all, storage.Entry{Conv: k, Rev: rev, Kind: 1, Sender: shardBob, Body: make([]byte, 100)})
	}
	foreign := all[0]
	foreign.Conv = storage.PairKey(shardCarol, shardBob+1)
	f.write(storage.Writes{Entries: append(slices.Clone(all), foreign)})
	rev := func(rows []storage.Entry) []storage.Entry {
		rows = slices.Clone(rows)
		slices.Reverse(rows)
		return rows
	}
	f.twice(func() {
		f.view(func(v storage.Snap) {
			for _, tt := range []struct {
				from, to uint64
				limit    int
				bytes    int
				desc     bool
				want     []storage.Entry
			}{
				{1, 20, 100, 1 << 20, false, all},
				{0, math.MaxUint64, 100, 1 << 20, false, all},
				{0, math.MaxUint64, 100, 1 << 20, true, rev(all)},
				{5, 9, 100, 1 << 20, false, all[4:9]},
				{5, 9, 100, 1 << 20, true, rev(all[4:9])},
				{5, 9, 2, 1 << 20, false, all[4:6]},
				{5, 9, 2, 1 << 20, true, rev(all[7:9])},
				{1, 20, 100, 350, false, all[:3]},
				{1, 20, 100, 350, true, rev(all[17:])},
				{1, 20, 100, 300, false, all[:3]},
				{1, 20, 100, 1, false, all[:1]}, // at least one
				{1, 20, 100, 0, false, all[:1]},
				{21, 30, 100, 1 << 20, false, nil},
				{9, 5, 100, 1 << 20, false, nil},
				{1, 20, 0, 1 << 20, false, nil},
			} {
				got := must(v.Entries(k, tt.from, tt.to, tt.limit, tt.bytes, tt.desc))(f)
				if !same(got, tt.want) {
					f.Errorf("entries %d … %d, limit %d, %d bytes, desc %v: got %d, want %d (or other ones)", tt.from, tt.to, tt.limit, tt.bytes, tt.desc, len(got), len(tt.want))
				}
			}
		})
	})
}

func testUserConvPages(f *shardFix) {
	var all []storage.UserConv
	for i := range int64(9) {
		all = append(all, storage.UserConv{Key: storage.UserConvKey{User: shardCarol, Conv: storage.PairKey(shardCarol, storage.UserIDIn(storage.Slot(i*400), uint64(i)+1))}, Head: uint64(i), Found: true})
	}
	foreign := all[0]
	foreign.Key.User++
	f.write(storage.Writes{UserConvs: append(slices.Clone(all), foreign)})
	slices.SortFunc(all, func(a, b storage.UserConv) int { return slices.Compare(a.Key.Conv[:], b.Key.Conv[:]) })
	f.twice(func() {
		f.view(func(v storage.Snap) {
			f.expect("all", must(v.UserConvs(shardCarol, nil, 100))(f), all)
			f.expect("first", must(v.UserConvs(shardCarol, nil, 4))(f), all[:4])
			f.expect("next", must(v.UserConvs(shardCarol, &all[3].Key.Conv, 4))(f), all[4:8])
			f.expect("last", must(v.UserConvs(shardCarol, &all[7].Key.Conv, 4))(f), all[8:])
			f.expect("none", must(v.UserConvs(shardCarol, &all[8].Key.Conv, 4))(f), []storage.UserConv(nil))
		})
	})
}

func testBlockPages(f *shardFix) {
	var all []storage.Block
	for i := range int64(9) {
		all = append(all, storage.Block{Key: storage.BlockKey{User: shardCarol, Peer: storage.UserIDIn(storage.Slot(i*400), 5)}, Time: i, Found: true})
	}
	foreign := all[0]
	foreign.Key.User++
	f.write(storage.Writes{Blocks: append([]storage.Block{foreign}, all...)})
	f.twice(func() {
		f.view(func(v storage.Snap) {
			f.expect("all", must(v.BlocksOf(shardCarol, 0, 100))(f), all)
			f.expect("first", must(v.BlocksOf(shardCarol, 0, 5))(f), all[:5])
			f.expect("next", must(v.BlocksOf(shardCarol, all[4].Key.Peer, 5))(f), all[5:])
			f.expect("none", must(v.BlocksOf(shardCarol, math.MaxInt64, 5))(f), []storage.Block(nil))
		})
	})
}

func testUserPages(f *shardFix) {
	ids := func(slot storage.Slot) []storage.UserID {
		return []storage.UserID{storage.UserIDIn(slot, 1), storage.UserIDIn(slot, 77), storage.UserIDIn(slot, 1<<51-1)}
	}
	var w storage.Writes
	for _, slot := range []storage.Slot{0, 3, 4, 4095} {
		w.Slots = append(w.Slots, storage.SlotRow{Slot: slot, State: storage.SlotOwned, Epoch: 1})
		for _, u := range ids(slot) {
			w.Users = append(w.Users, storage.UserHead{User: u})
		}
	}
	f.write(w)
	ref := func(s storage.Slot) storage.SlotRef { return storage.SlotRef{Slot: s, Epoch: 1} }
	f.view(func(v storage.Snap) {
		f.expect("from the start", must(v.UsersFrom(0, 2))(f), ids(0)[:2])
		f.expect("across slots", must(v.UsersFrom(ids(0)[2], 3))(f), []storage.UserID{ids(0)[2], ids(4)[0], ids(4)[1]})
		f.expect("inside a slot", must(v.UsersFrom(ids(4)[0]+1, 1))(f), ids(4)[1:2])
		f.expect("the end", must(v.UsersFrom(ids(4095)[1], 10))(f), ids(4095)[1:])
		f.expect("all", must(v.UsersFrom(0, 100))(f), slices.Concat(ids(0), ids(4), ids(4095)))
		f.expect("none", must(v.UsersFrom(0, 0))(f), []storage.UserID(nil))
	}, ref(4095), ref(0), ref(4), ref(4)) // slot 3 is not asked for
	f.view(func(v storage.Snap) {
		f.expect("no slots", must(v.UsersFrom(0, 10))(f), []storage.UserID(nil))
	})
}

// testSnapshotIsolation: a snapshot does not change, whatever is written.
func testSnapshotIsolation(f *shardFix) {
	w := sampleRows()
	w.Entries, w.Inbox = w.Entries[:3], w.Inbox[:3]
	f.write(w)
	f.view(func(v storage.Snap) {
		must(v.User(shardAnna))(f) // whatever an engine keeps between calls
		later := sampleRows()
		f.commit(locksFor(&later), func(l *storage.Locked) (*storage.Writes, error) {
			n := &storage.Writes{Convs: slices.Clone(l.Convs), Users: slices.Clone(l.Users), UserConvs: slices.Clone(l.UserConvs)}
			for i := range n.Convs {
				n.Convs[i].Rev, n.Convs[i].MemberVersion = n.Convs[i].Rev+1, 50
				n.Entries = append(n.Entries, storage.Entry{Conv: n.Convs[i].Conv, Rev: n.Convs[i].Rev, Kind: 1, Sender: shardAnna})
			}
			for i := range n.Users {
				n.Users[i].Seq++
				n.Users[i].Floor = n.Users[i].Seq - 1
				n.Inbox = append(n.Inbox, storage.InboxRow{User: n.Users[i].User, Seq: n.Users[i].Seq, Entry: n.Entries[0]})
				n.Trims = append(n.Trims, storage.Trim{User: n.Users[i].User, Floor: n.Users[i].Floor})
			}
			for i := range n.UserConvs {
				n.UserConvs[i].Read += 100
			}
			n.Accounts = []storage.Account{{User: shardAnna}}
			n.DelDevices = []storage.DeviceKey{w.Devices[0].Key, w.Devices[1].Key}
			n.DelBlocks = []storage.BlockKey{w.Blocks[0].Key}
			n.Meta = []storage.MetaRow{{Name: "key"}}
			n.Slots = []storage.SlotRow{{Slot: 0, State: storage.SlotFrozen, Epoch: 9}}
			return n, nil
		})
		checkSame := *f
		checkSame.s = fixedView{f.s, v}
		checkSame.checkSnap(&w)
	})
	f.view(func(v storage.Snap) {
		if h := must(v.User(shardAnna))(f); h.Seq != w.Users[0].Seq+1 || h.Floor != w.Users[0].Seq {
			f.Errorf("a new snapshot has the old head: %+v", h)
		}
	})
}

// fixedView answers every View with one snapshot.
type fixedView struct {
	storage.Shard
	v storage.Snap
}

func (s fixedView) View(_ context.Context, _ []storage.SlotRef, read func(storage.Snap) error) error {
	return read(s.v)
}

// testSnapshotsAgree: in every snapshot, heads and rows are of one moment, also
// while they are written.
func testSnapshotsAgree(f *shardFix) {
	const commits = 400
	k := storage.PairKey(shardCarol, shardBob)
	f.write(storage.Writes{Users: []storage.UserHead{{User: shardCarol}}, Convs: []storage.ConvHead{{Conv: k}}})
	stop := make(chan struct{})
	var wg sync.WaitGroup
	for range 3 {
		wg.Go(func() {
			for {
				select {
				case <-stop:
					return
				default:
				}
				err := f.s.View(f.Context(), nil, func(v storage.Snap) error {
					h, err1 := v.User(shardCarol)
					c, err2 := v.Conv(k)
					uc, err3 := v.UserConv(storage.UserConvKey{User: shardCarol, Conv: k})
					rows, err4 := v.Inbox(shardCarol, h.Floor, 1000)
					log, err5 := v.Entries(k, 0, math.MaxUint64, 1, 1<<20, true)
					var rev uint64
					if len(log) > 0 {
						rev = log[0].Rev
					}
					if h.Seq != c.Rev || h.Seq != uc.HeadRev || h.Seq != h.Floor+uint64(len(rows)) || h.Seq != rev {
						f.Errorf("one snapshot: seq %d, floor %d, rows %d, rev %d, log %d, user_conv %d", h.Seq, h.Floor, len(rows), c.Rev, rev, uc.HeadRev)
					}
					return firstError(err1, err2, err3, err4, err5)
				})
				if err != nil {
					f.Error(err)
					return
				}
			}
		})
	}
	for i := range uint64(commits) {
		f.commit(storage.Locks{Users: []storage.UserID{shardCarol}, Convs: []storage.ConvKey{k}}, func(l *storage.Locked) (*storage.Writes, error) {
			h, c := l.Users[0], l.Convs[0]
			h.Seq, c.Rev = h.Seq+1, c.Rev+1
			e := storage.Entry{Conv: k, Rev: c.Rev, Kind: 1, Sender: shardBob}
			w := &storage.Writes{Entries: []storage.Entry{e}, Inbox: []storage.InboxRow{{User: shardCarol, Seq: h.Seq, Entry: e}}, Convs: []storage.ConvHead{c},
				UserConvs: []storage.UserConv{{Key: storage.UserConvKey{User: shardCarol, Conv: k}, HeadRev: c.Rev}}}
			if i%10 == 9 {
				h.Floor = h.Seq - 5
				w.Trims = []storage.Trim{{User: shardCarol, Floor: h.Floor}}
			}
			w.Users = []storage.UserHead{h}
			return w, nil
		})
	}
	close(stop)
	wg.Wait()
}

func firstError(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}
