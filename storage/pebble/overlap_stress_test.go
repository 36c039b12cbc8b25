package pebble

import (
	"context"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// TestOverlapUnderEviction: many writers on caches so small that heads are
// pushed out while their transaction is on its way. No seq is given twice or
// left out, a send is stored once however many race for it, and every view is
// of one moment, whether it reads a cache or the disk.
func TestOverlapUnderEviction(t *testing.T) {
	const users, writers, sends = 600, 6, 40
	s := open(t, Options{HeadCacheBytes: 64 << 10, MaxInFlight: 32, MemTableBytes: 1 << 20})
	apply := s.write
	s.write = func(b *crdb.Batch, o *crdb.WriteOptions) error {
		time.Sleep(100 * time.Microsecond) // while the next one plans
		return apply(b, o)
	}
	id := func(i int) storage.UserID { return storage.UserIDIn(storage.Slot(i%7), uint64(i)+1) }
	end := time.Now().Add(1500 * time.Millisecond)
	var wg sync.WaitGroup
	var commits, reads atomic.Int64
	stored := make([]atomic.Int32, sends)
	for w := range writers {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(w), 1))
			for time.Now().Before(end) {
				if !storeSome(t, s, rng, id, users, stored) {
					return
				}
				commits.Add(1)
			}
		})
	}
	for r := range 2 {
		wg.Go(func() {
			rng := rand.New(rand.NewPCG(uint64(r), 2))
			for time.Now().Before(end) && !t.Failed() {
				view(t, s, func(v storage.Snap) { seeOneMoment(t, v, id(rng.IntN(users))) })
				reads.Add(1)
			}
		})
	}
	wg.Wait()
	if err := s.Barrier(context.Background()); err != nil {
		t.Fatal(err)
	}
	for i := range users {
		view(t, s, func(v storage.Snap) {
			u := id(i)
			seeOneMoment(t, v, u)
			rows, err := v.Inbox(u, 0, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			for j, r := range rows {
				if r.Seq != uint64(j)+1 {
					t.Fatalf("user %d: row %d has seq %d", u, j, r.Seq)
				}
			}
		})
	}
	for i := range stored {
		if n := stored[i].Load(); n > 1 {
			t.Errorf("send %d was stored %d times", i, n)
		}
	}
	t.Logf("%d transactions, %d views", commits.Load(), reads.Load())
}

// storeSome is one transaction: an entry of the own log, with its inbox row and
// user_conv, for a few users, and a send that others may be storing as well.
func storeSome(t *testing.T, s *Shard, rng *rand.Rand, id func(int) storage.UserID, users int, stored []atomic.Int32) bool {
	var l storage.Locks
	seen := map[storage.UserID]bool{}
	n := 1 + rng.IntN(6)
	if rng.IntN(4) == 0 {
		n = 250 // more than the caches hold: even what was just written is pushed out
	}
	for range n {
		if u := id(rng.IntN(users)); !seen[u] {
			seen[u] = true
			l.Users = append(l.Users, u)
			l.Convs = append(l.Convs, storage.SelfKey(u))
			l.UserConvs = append(l.UserConvs, storage.UserConvKey{User: u, Conv: storage.SelfKey(u)})
		}
	}
	which := rng.IntN(len(stored))
	send := storage.SendKey{Conv: storage.SelfKey(id(0)), Sender: id(0), SendID: [16]byte{1, byte(which)}}
	l.Sends = []storage.SendKey{send}
	fresh := false
	err := s.Commit(context.Background(), &l, func(in *storage.Locked) (*storage.Writes, error) {
		w := &storage.Writes{}
		if fresh = !in.Sends[0].Found; fresh {
			w.Sends = []storage.SendRow{{Key: send, Rev: 1}}
		}
		for i, u := range l.Users {
			seq, conv := in.Users[i].Seq+1, l.Convs[i]
			if in.Convs[i].Rev != in.Users[i].Seq || in.UserConvs[i].HeadRev != in.Users[i].Seq {
				t.Errorf("user %d: seq %d, rev %d, user_conv %d", u, in.Users[i].Seq, in.Convs[i].Rev, in.UserConvs[i].HeadRev)
			}
			e := storage.Entry{Conv: conv, Rev: seq, ConvSeq: seq, Time: int64(seq), Sender: u, Kind: 1}
			w.Entries = append(w.Entries, e)
			w.Inbox = append(w.Inbox, storage.InboxRow{User: u, Seq: seq, Entry: e})
			w.Convs = append(w.Convs, storage.ConvHead{Conv: conv, Rev: seq, ConvSeq: seq, LastTime: int64(seq)})
			w.Users = append(w.Users, storage.UserHead{User: u, Seq: seq})
			w.UserConvs = append(w.UserConvs, storage.UserConv{Key: l.UserConvs[i], HeadRev: seq, Head: seq})
		}
		return w, nil
	}, func(err error) {
		if err != nil {
			t.Error(err)
		} else if fresh {
			stored[which].Add(1)
		}
	})
	if err != nil {
		t.Error(err)
	}
	return err == nil && !t.Failed()
}

// seeOneMoment wants the heads of u to go with its rows.
func seeOneMoment(t *testing.T, v storage.Snap, u storage.UserID) {
	head, err := v.User(u)
	if err != nil {
		t.Error(err)
	}
	conv, err := v.Conv(storage.SelfKey(u))
	if err != nil {
		t.Error(err)
	}
	uc, err := v.UserConv(storage.UserConvKey{User: u, Conv: storage.SelfKey(u)})
	if err != nil {
		t.Error(err)
	}
	rows, err := v.Inbox(u, max(head.Seq, 1)-1, 2)
	if err != nil {
		t.Error(err)
	}
	last := uint64(0)
	if len(rows) > 0 {
		last = rows[len(rows)-1].Seq
	}
	if head.Seq != last || conv.Rev != last || uc.HeadRev != last {
		t.Errorf("one view of user %d: seq %d, rev %d, user_conv %d, newest row %d", u, head.Seq, conv.Rev, uc.HeadRev, last)
	}
}

// TestFullBetween: the disk fills up between one transaction and the next one
// that rests on it: nothing of the refused one is to be seen, in a cache either.
func TestFullBetween(t *testing.T) {
	s := open(t, Options{})
	u := storage.UserIDIn(1, 1)
	add := func() error {
		return commit(s, &storage.Locks{Users: []storage.UserID{u}}, func(l *storage.Locked) (*storage.Writes, error) {
			seq := l.Users[0].Seq + 1
			return &storage.Writes{Users: []storage.UserHead{{User: u, Seq: seq}}, Inbox: []storage.InboxRow{{User: u, Seq: seq}}}, nil
		})
	}
	for i := range 10 {
		s.full.Store(i%2 == 1)
		if err := add(); (err != nil) != (i%2 == 1) {
			t.Errorf("transaction %d: %v", i, err)
		}
		if err := s.Barrier(context.Background()); err != nil {
			t.Error(err)
		}
	}
	view(t, s, func(v storage.Snap) {
		if h, err := v.User(u); err != nil || h.Seq != 5 {
			t.Errorf("head %+v, %v", h, err)
		}
	})
}
