package storagetest

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"

	"github.com/hermod-im/hermod/storage"
)

// testOrder: many users write to each other at once. Every inbox is contiguous
// (I2), has every message exactly once (I1), everybody sees one order (I3),
// and what one sender sent in order stays in order.
func testOrder(f *storeFix) {
	const perPair = 40
	us := f.users(6)
	var wg sync.WaitGroup
	for _, a := range us {
		for _, b := range us {
			wg.Add(1)
			go func() {
				defer wg.Done()
				var rs []<-chan sent
				for i := range perPair {
					rs = append(rs, start(f.s, message(a, b, fmt.Sprintf("%d>%d:%03d", a, b, i))))
				}
				var last storage.Appended
				for _, c := range rs {
					r, err := f.result(c)
					if err != nil {
						f.Errorf("append: %v", err)
						return
					}
					if r.Rev <= last.Rev || r.Time <= last.Time {
						f.Errorf("%+v after %+v", r, last)
					}
					last = r
				}
			}()
		}
	}
	wg.Wait()
	total := uint64(perPair * (2*len(us) - 1)) // sent to and got from each other one, and from oneself
	for _, u := range us {
		f.waitHead(u, total)
	}
	f.waitTasks(1)
	order := map[storage.ConvKey][]string{}
	for _, u := range us {
		rows := f.inbox(u)
		f.contiguous(u, rows)
		f.ordered(u, rows)
		if h := f.head(u); h.Seq != total {
			f.Errorf("inbox of %d ends at %d, want %d", u, h.Seq, total)
		}
		f.oneOrder(u, rows, order)
	}
}

// oneOrder checks that a user's rows of each conversation are all of them, in
// the order that everybody else sees.
func (f *storeFix) oneOrder(u storage.UserID, rows []storage.InboxRow, order map[storage.ConvKey][]string) {
	f.Helper()
	mine := map[storage.ConvKey][]string{}
	last := map[string]string{} // by sender and conversation
	for _, r := range rows {
		k := r.Entry.Conv
		mine[k] = append(mine[k], string(r.Entry.Body))
		if n := uint64(len(mine[k])); r.Entry.Rev != n || r.Entry.ConvSeq != n {
			f.Errorf("user %d: entry %d of %v has rev %d, conv_seq %d", u, n, k, r.Entry.Rev, r.Entry.ConvSeq)
		}
		from := fmt.Sprint(r.Entry.Sender, k)
		if body := string(r.Entry.Body); body <= last[from] {
			f.Errorf("user %d: %q after %q", u, body, last[from])
		}
		last[from] = string(r.Entry.Body)
	}
	for k, bs := range mine {
		if seen, ok := order[k]; ok {
			if !slices.Equal(seen, bs) {
				f.Errorf("the sides of %v see different orders", k)
			}
			continue // the log was held against it
		}
		order[k] = bs
		es, err := f.s.History(f.ctx(), k, 1, 0, len(bs)+1, 0, false)
		if err != nil || len(es) != len(bs) {
			f.Fatalf("history of %v: %d entries, %v; want %d", k, len(es), err, len(bs))
		}
		for i, e := range es {
			if string(e.Body) != bs[i] || e.Rev != uint64(i+1) || e.Conv != k {
				f.Errorf("history of %v: entry %d is %+v", k, i, e)
			}
		}
	}
}

// testRetries: a send id gets its first result, in one batch and in many, and
// makes one row.
func testRetries(f *storeFix) {
	a, b := f.pairOn(0, 1)
	for _, from := range []storage.UserID{a, b} {
		m := message(from, a+b-from, "hello")
		before := f.head(a).Seq
		var cs []<-chan sent
		for range 5 { // most of them in one batch
			cs = append(cs, start(f.s, m))
		}
		first, err := f.result(cs[0])
		if err != nil || first.Duplicate {
			f.Fatalf("first send: %+v, %v", first, err)
		}
		for _, c := range append(cs[1:], start(f.s, m)) {
			r, err := f.result(c)
			if want := first; err != nil || !r.Duplicate || r.Rev != want.Rev || r.ConvSeq != want.ConvSeq || r.Time != want.Time {
				f.Errorf("retry: %+v, %v; first was %+v", r, err, first)
			}
		}
		other := m
		other.Body = []byte("hullo")
		f.wantErr(other, storage.ErrConflict)
		other = m
		other.Kind++
		f.wantErr(other, storage.ErrConflict)
		if got := f.head(a).Seq; got != before+1 {
			f.Errorf("inbox grew from %d to %d", before, got)
		}
		// The same id of the other side, or elsewhere, is another send.
		same := message(a+b-from, from, "mine")
		same.SendID = m.SendID
		if r := f.send(same); r.Duplicate {
			f.Error("a send id of somebody else counted")
		}
		same = message(from, from, "notes")
		same.SendID = m.SendID
		if r := f.send(same); r.Duplicate {
			f.Error("a send id of another conversation counted")
		}
		f.waitTasks(1)
	}
}

// sendIDAt makes a send id of another time.
func sendIDAt(t time.Time) [16]byte {
	id := [16]byte(uuid.Must(uuid.NewV7()))
	ms := t.UnixMilli()
	for i := range 6 {
		id[i] = byte(ms >> (40 - 8*i))
	}
	return id
}

// testSendIDs: only UUIDv7s of about now are taken, by the shard's clock.
func testSendIDs(f *storeFix) {
	us := f.users(2)
	now := time.UnixMicro(f.shardNow(0))
	day := 24 * time.Hour
	for _, tt := range []struct {
		name string
		id   [16]byte
		want error
	}{
		{"now", sendIDAt(now), nil},
		{"almost 29 days old", sendIDAt(now.Add(-29*day + time.Minute)), nil},
		{"over 29 days old", sendIDAt(now.Add(-29*day - time.Minute)), storage.ErrIDExpired},
		{"from the seventies", sendIDAt(time.Unix(1e8, 0)), storage.ErrIDExpired},
		{"9 minutes ahead", sendIDAt(now.Add(9 * time.Minute)), nil},
		{"11 minutes ahead", sendIDAt(now.Add(11 * time.Minute)), storage.ErrIDInvalid},
		{"version 4", [16]byte(uuid.New()), storage.ErrIDInvalid},
		{"wrong variant", func() [16]byte { id := sendIDAt(now); id[8] |= 0xc0; return id }(), storage.ErrIDInvalid},
	} {
		m := message(us[0], us[1], tt.name)
		m.SendID = tt.id
		if r, err := f.try(m); !errors.Is(err, tt.want) {
			f.Errorf("%s: %+v, %v; want %v", tt.name, r, err, tt.want)
		}
	}
	// An id grows old: its retry is refused, not sent again.
	m := message(us[0], us[1], "grows old")
	m.SendID = sendIDAt(now)
	first := f.send(m)
	f.envs[0].Advance(28 * day)
	if r := f.send(m); !r.Duplicate || r.Rev != first.Rev {
		f.Errorf("retry after 28 days: %+v, first was %+v", r, first)
	}
	f.envs[0].Advance(2 * day)
	f.wantErr(m, storage.ErrIDExpired)
}

// shardNow is the clock of a shard.
func (f *storeFix) shardNow(i int) (now int64) {
	f.Helper()
	err := f.shards[i].View(f.ctx(), nil, func(sn storage.Snap) error {
		now = sn.Now()
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	return now
}

// testRefusals: what may not be appended is not, and leaves nothing behind.
func testRefusals(f *storeFix) {
	f.reopenWith(func(o *storage.Options) { o.BlockStale = 50 * time.Millisecond })
	a, b := f.pairOn(0, 1)
	nobody := storage.UserIDIn(a.Slot(), 999_999)
	farNobody := storage.UserIDIn(b.Slot(), 999_999)
	for _, to := range []storage.UserID{nobody, farNobody} {
		f.wantErr(message(a, to, "anyone?"), storage.ErrNoUser)
		f.wantErr(message(to, a, "I am nobody"), storage.ErrNoUser)
	}
	third := message(a, b, "not my talk")
	third.Sender = nobody
	f.wantErr(third, storage.ErrInvalid)
	group := message(a, b, "")
	group.Conv = storage.ConvKey{0: 1}
	f.wantErr(group, storage.ErrInvalid)
	kindless := message(a, b, "")
	kindless.Kind = 0
	f.wantErr(kindless, storage.ErrInvalid)

	local := f.userOn(0, 7)
	for _, to := range []storage.UserID{local, b, a} {
		from := a
		if to == a {
			from = b // the home blocks the far side
		}
		m := message(from, to, "let me in")
		m.UnlessBlocked = storage.BlockKey{User: to, Peer: from}
		f.block(m.UnlessBlocked, true)
		f.wait("the block counts", func() bool { _, err := f.try(m); return errors.Is(err, storage.ErrBlocked) || f.unsent(&m) })
		f.wantErr(m, storage.ErrBlocked)
		free := m
		free.UnlessBlocked = storage.BlockKey{}
		free.SendID = uuid.Must(uuid.NewV7())
		f.send(free) // a block counts only for those who ask
		f.block(m.UnlessBlocked, false)
		f.wait("the block is gone", func() bool { _, err := f.try(m); return err == nil })
		// What was sent before a block keeps its answer.
		f.block(m.UnlessBlocked, true)
		f.wait("the block counts again", func() bool {
			n := message(from, to, "again")
			n.UnlessBlocked = m.UnlessBlocked
			_, err := f.try(n)
			return errors.Is(err, storage.ErrBlocked)
		})
		if r, err := f.try(m); err != nil || !r.Duplicate {
			f.Errorf("retry of what was sent before the block: %+v, %v", r, err)
		}
	}
	f.waitTasks(1)
}

// unsent gives a message that went through a new send id; always false.
func (f *storeFix) unsent(m *storage.Append) bool {
	m.SendID = uuid.Must(uuid.NewV7())
	return false
}

func (f *storeFix) block(k storage.BlockKey, on bool) {
	f.Helper()
	err := f.s.Update(f.ctx(), storage.Reads{Blocks: []storage.BlockKey{k}}, func(tx *storage.Tx) error {
		if on {
			tx.PutBlock(storage.Block{Key: k, Time: tx.Now()})
		} else {
			tx.DelBlock(k)
		}
		return nil
	})
	if err != nil {
		f.Fatalf("Update: %v", err)
	}
}

// reopenWith changes the options.
func (f *storeFix) reopenWith(change func(*storage.Options)) {
	f.Helper()
	change(&f.opt)
	f.reopen()
}
