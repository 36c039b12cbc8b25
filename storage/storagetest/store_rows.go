package storagetest

import (
	"bytes"
	"errors"
	"fmt"
	"slices"
	"testing"

	"github.com/hermod-im/hermod/storage"
)

// testPages: Sync keeps to limit and maxBytes, and fills bodies from wherever.
func testPages(f *storeFix) {
	a, b := f.pairOn(0, 1)
	var want []string
	for i := range 60 {
		body := string(bytes.Repeat([]byte{byte('a' + i%26)}, 100*(i%17))) // inline and not
		if i%2 == 0 {
			f.send(message(a, b, body))
		} else {
			f.send(message(b, a, body))
		}
		if i%5 == 0 {
			f.send(message(b, b, "note"))
		}
		want = append(want, body)
	}
	f.waitHead(b, 60+12)
	f.waitTasks(1)
	for _, u := range []storage.UserID{a, b} {
		var got []string
		for after, n := uint64(0), 0; ; n++ {
			p, err := f.s.Sync(f.ctx(), u, after, 7, 3000)
			if err != nil {
				f.Fatal(err)
			}
			size := 0
			for _, r := range p.Rows {
				size += len(r.Entry.Body)
				if r.Entry.Conv.IsPair() {
					got = append(got, string(r.Entry.Body))
				}
			}
			if len(p.Rows) > 7 || size > 3000 && len(p.Rows) > 1 {
				f.Errorf("a page of %d rows, %d bytes", len(p.Rows), size)
			}
			if !p.More(after) {
				break
			}
			if len(p.Rows) == 0 || n > 200 {
				f.Fatal("pages do not end")
			}
			after = p.Rows[len(p.Rows)-1].Seq
		}
		if !slices.Equal(got, want) {
			f.Errorf("user %d got %d bodies, want %d in order", u, len(got), len(want))
		}
	}
	p, err := f.s.Sync(f.ctx(), a, 1000, 10, 0)
	if err != nil || len(p.Rows) != 0 || p.Head.Seq != 60 {
		f.Errorf("Sync after the head: %d rows, head %d, %v", len(p.Rows), p.Head.Seq, err)
	}
	if p, err = f.s.Sync(f.ctx(), storage.UserIDIn(1, 77), 0, 10, 0); err != nil || p.Head.Found {
		f.Errorf("Sync of nobody: %+v, %v", p.Head, err)
	}
}

// unread returns what u has unread in its talk with v.
func (f *storeFix) unread(u, v storage.UserID) uint64 {
	f.Helper()
	cs, err := f.s.UserConvs(f.ctx(), []storage.UserConvKey{{User: u, Conv: storage.PairKey(u, v)}})
	if err != nil {
		f.Fatal(err)
	}
	return cs[0].Unread()
}

// testMarks: unread follows messages, not other entries; marks are the
// caller's, heads the Store's.
func testMarks(f *storeFix) {
	a, b := f.pairOn(0, 1)
	k := storage.PairKey(a, b)
	for i := range 3 {
		f.send(message(a, b, fmt.Sprint(i)))
	}
	quiet := message(a, b, "no message")
	quiet.Counts = false
	if r := f.send(quiet); r.ConvSeq != 3 || r.Rev != 4 {
		f.Errorf("an entry that does not count: %+v", r)
	}
	f.waitHead(b, 4)
	if got := f.unread(b, a); got != 3 {
		f.Errorf("unread %d, want 3", got)
	}
	if got := f.unread(a, b); got != 0 {
		f.Errorf("the sender has %d unread", got)
	}
	key := storage.UserConvKey{User: b, Conv: k}
	err := f.s.Update(f.ctx(), storage.Reads{UserConvs: []storage.UserConvKey{key}}, func(tx *storage.Tx) error {
		c := tx.UserConv(key)
		c.Read, c.Delivered = 2, 3
		c.Head, c.HeadRev, c.OwnSent = 0, 0, 99 // not the caller's
		tx.PutUserConv(c)
		return nil
	})
	if err != nil {
		f.Fatal(err)
	}
	cs, err := f.s.UserConvs(f.ctx(), []storage.UserConvKey{key})
	if c := cs[0]; err != nil || c.Read != 2 || c.Delivered != 3 || c.Head != 3 || c.HeadRev != 4 || c.OwnSent != 0 || c.Unread() != 1 {
		f.Errorf("user_conv %+v, %v", c, err)
	}
	f.send(message(b, a, "answer")) // answering is reading
	f.waitHead(b, 5)
	f.waitTasks(1)
	if got := f.unread(b, a); got != 0 {
		f.Errorf("unread after answering: %d", got)
	}
	if got := f.unread(a, b); got != 1 {
		f.Errorf("the other side has %d unread, want 1", got)
	}
	list, err := f.s.Conversations(f.ctx(), b, nil, 10)
	if err != nil || len(list) != 1 || list[0].Key != key || list[0].HeadTime == 0 {
		f.Errorf("conversations: %+v, %v", list, err)
	}
	if list, err = f.s.Conversations(f.ctx(), b, &k, 10); err != nil || len(list) != 0 {
		f.Errorf("conversations after the last: %+v, %v", list, err)
	}
}

// testUpdate: rows are written together with an entry, and what was not named
// cannot be touched.
func testUpdate(f *storeFix) {
	u := f.userOn(0, 1)
	self := storage.SelfKey(u)
	reads := storage.Reads{Convs: []storage.ConvKey{self}, Users: []storage.UserID{u}, Accounts: []storage.UserID{u}}
	epoch := f.head(u).InboxEpoch
	if epoch == 0 {
		f.Error("a new user has no inbox epoch")
	}
	var got storage.Appended
	err := f.s.Update(f.ctx(), reads, func(tx *storage.Tx) (err error) {
		h := tx.User(u)
		if got, err = tx.Append(storage.Append{Conv: self, Sender: u, Kind: 5, Body: []byte("changed")}); err != nil {
			return err
		}
		h.TokenGen++ // h is older than the append
		h.SlotEpochs[2] = 7
		tx.PutUser(h)
		tx.PutAccount(storage.Account{User: u, Name: "ada", Created: tx.Now(), Profile: []byte("p")})
		if a := tx.Account(u); !a.Found || a.Name != "ada" {
			return fmt.Errorf("a transaction does not see its own write: %+v", a)
		}
		return nil
	})
	if err != nil || got.Rev != 1 || got.ConvSeq != 0 {
		f.Fatalf("Update: %+v, %v", got, err)
	}
	h, rows := f.head(u), f.inbox(u)
	if h.Seq != 1 || h.TokenGen != 1 || h.SlotEpochs[2] != 7 || h.InboxEpoch != epoch {
		f.Errorf("head %+v", h)
	}
	f.contiguous(u, rows)
	f.wait("delivery", func() bool { f.mu.Lock(); defer f.mu.Unlock(); return len(f.delivered[u]) == 1 })
	f.ordered(u, rows)

	stranger := storage.UserIDIn(u.Slot(), 4711)
	for name, fn := range map[string]func(*storage.Tx){
		"user":    func(tx *storage.Tx) { tx.User(stranger) },
		"account": func(tx *storage.Tx) { tx.PutAccount(storage.Account{User: stranger}) },
		"device":  func(tx *storage.Tx) { tx.Devices(u) },
		"name":    func(tx *storage.Tx) { tx.Name("bob") },
		"block":   func(tx *storage.Tx) { tx.Block(storage.BlockKey{User: u, Peer: stranger}) },
		"append": func(tx *storage.Tx) {
			_, _ = tx.Append(storage.Append{Conv: storage.SelfKey(stranger), Sender: stranger, Kind: 1})
		},
	} {
		err := f.s.Update(f.ctx(), reads, func(tx *storage.Tx) error { fn(tx); return nil })
		if !errors.Is(err, storage.ErrInvalid) {
			f.Errorf("touching a %s that was not named: %v", name, err)
		}
	}
	if err := f.s.Update(f.ctx(), storage.Reads{}, func(*storage.Tx) error { return nil }); !errors.Is(err, storage.ErrInvalid) {
		f.Errorf("an update of nothing: %v", err)
	}
}

// testUpdateUndo: an update that fails, or panics, leaves nothing; the others
// in its batch are not hurt.
func testUpdateUndo(f *storeFix) {
	u := f.userOn(0, 1)
	self := storage.SelfKey(u)
	reads := storage.Reads{
		Convs: []storage.ConvKey{self}, Accounts: []storage.UserID{u}, Names: nil, DevicesOf: []storage.UserID{u},
		Blocks: []storage.BlockKey{{User: u, Peer: 1}},
	}
	refused := errors.New("no")
	bad := func(end func() error) error {
		return f.s.Update(f.ctx(), reads, func(tx *storage.Tx) error {
			if _, err := tx.Append(storage.Append{Conv: self, Sender: u, Kind: 5}); err != nil {
				return err
			}
			h := tx.User(u)
			h.TokenGen = 99
			tx.PutUser(h)
			tx.PutAccount(storage.Account{User: u, Name: "wrong"})
			tx.PutDevice(storage.Device{Key: storage.DeviceKey{User: u, ID: [16]byte{1}}, Slot: 1})
			tx.PutBlock(storage.Block{Key: storage.BlockKey{User: u, Peer: 1}})
			return end()
		})
	}
	const n = 20
	results := make(chan error, 2*n)
	for range n {
		go func() { results <- bad(func() error { return refused }) }()
		go func() {
			err := bad(func() error { panic("on purpose") })
			if err != nil && !errors.Is(err, refused) {
				err = refused
			}
			results <- err
		}()
		f.send(message(u, u, "between"))
	}
	for range 2 * n {
		if err := <-results; !errors.Is(err, refused) {
			f.Errorf("a failed update: %v", err)
		}
	}
	h, rows := f.head(u), f.inbox(u)
	f.contiguous(u, rows)
	f.ordered(u, rows)
	if h.Seq != n || h.TokenGen != 0 {
		f.Errorf("head after failures: %+v", h)
	}
	err := f.s.View(f.ctx(), u.Slot(), func(sn storage.Snap) error {
		a, err1 := sn.Account(u)
		ds, err2 := sn.Devices(u)
		b, err3 := sn.Block(storage.BlockKey{User: u, Peer: 1})
		if a.Found || len(ds) > 0 || b.Found {
			f.Errorf("left behind: %+v, %+v, %+v", a, ds, b)
		}
		return errors.Join(err1, err2, err3)
	})
	if err != nil {
		f.Fatal(err)
	}
}

// testDevices: put, changed and deleted in one transaction and in several.
func testDevices(f *storeFix) {
	u := f.userOn(0, 1)
	reads := storage.Reads{DevicesOf: []storage.UserID{u}}
	key := func(n byte) storage.DeviceKey { return storage.DeviceKey{User: u, ID: [16]byte{n}} }
	update := func(fn func(tx *storage.Tx)) {
		f.Helper()
		if err := f.s.Update(f.ctx(), reads, func(tx *storage.Tx) error { fn(tx); return nil }); err != nil {
			f.Fatal(err)
		}
	}
	want := func(epochs ...uint64) {
		f.Helper()
		var got []uint64
		err := f.s.View(f.ctx(), u.Slot(), func(sn storage.Snap) error {
			ds, err := sn.Devices(u)
			got = nil
			for _, d := range ds {
				got = append(got, d.LoginEpoch)
			}
			return err
		})
		if err != nil || !slices.Equal(got, epochs) {
			f.Errorf("devices %v, %v; want %v", got, err, epochs)
		}
	}
	update(func(tx *storage.Tx) {
		for n := byte(1); n <= 3; n++ {
			tx.PutDevice(storage.Device{Key: key(n), Slot: n, LoginEpoch: uint64(n)})
		}
		tx.DelDevice(key(3))
	})
	want(1, 2)
	update(func(tx *storage.Tx) {
		d, ok := tx.Device(key(1))
		d.LoginEpoch = 10
		tx.PutDevice(d)
		tx.DelDevice(key(2))
		tx.PutDevice(storage.Device{Key: key(4), LoginEpoch: 4})
		if _, there := tx.Device(key(2)); !ok || there || len(tx.Devices(u)) != 2 {
			f.Error("a transaction does not see what it did to devices")
		}
	})
	want(10, 4)
	update(func(tx *storage.Tx) { tx.DelDevice(key(1)); tx.DelDevice(key(9)) })
	want(4)
}

// testNames: of many who want a name one gets it, in the slot of the name.
func testNames(f *storeFix) {
	const n = 10
	name := "grace"
	slot := f.s.NameSlot(name)
	taken := errors.New("taken")
	results := make(chan error, n)
	for i := range n {
		go func() {
			u := storage.UserIDIn(slot, uint64(i+1))
			results <- f.s.Update(f.ctx(), storage.Reads{Names: []string{name}, Users: []storage.UserID{u}}, func(tx *storage.Tx) error {
				if tx.Name(name).Found {
					return taken
				}
				tx.PutName(storage.NameRow{Name: name, User: u})
				tx.PutUser(tx.User(u))
				return nil
			})
		}()
	}
	won := 0
	for range n {
		if err := <-results; err == nil {
			won++
		} else if !errors.Is(err, taken) {
			f.Error(err)
		}
	}
	if won != 1 {
		f.Errorf("%d users got the name", won)
	}
	f.reopen()
	if f.s.NameSlot(name) != slot {
		f.Error("the name has another slot after a restart")
	}
	err := f.s.View(f.ctx(), slot, func(sn storage.Snap) error {
		r, err := sn.Name(name)
		if !r.Found || r.User.Slot() != slot {
			f.Errorf("name row %+v", r)
		}
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	seen := map[storage.Slot]bool{}
	for i := range 200 {
		seen[f.s.NameSlot(fmt.Sprint(i))] = true
	}
	if len(seen) < 150 {
		f.Errorf("200 names fell into %d slots", len(seen))
	}
}

// testReads: reads over several shards keep positions, and a view reads only
// the slot it was opened for.
func testReads(f *storeFix) {
	us := f.users(9)
	for i, u := range us {
		for range i {
			f.send(message(u, u, "x"))
		}
	}
	ask := append(slices.Clone(us), storage.UserIDIn(5, 5))
	hs, err := f.s.Heads(f.ctx(), ask)
	if err != nil {
		f.Fatal(err)
	}
	for i, h := range hs {
		if h.User != ask[i] || h.Found != (i < len(us)) || i < len(us) && h.Seq != uint64(i) {
			f.Errorf("head %d: %+v", i, h)
		}
	}
	err = f.s.View(f.ctx(), us[0].Slot(), func(sn storage.Snap) error {
		_, err := sn.User(us[3])
		return err
	})
	if !errors.Is(err, storage.ErrInvalid) {
		f.Errorf("a view read another slot: %v", err)
	}
	es, err := f.s.History(f.ctx(), storage.SelfKey(us[8]), 3, 6, 2, 0, true)
	if err != nil || len(es) != 2 || es[0].Rev != 6 || es[1].Rev != 5 {
		f.Errorf("history backwards: %+v, %v", es, err)
	}
}

// BenchStore measures durable 1:1 appends with all their rows on one shard, by
// many senders at once.
func BenchStore(b *testing.B, env func(t testing.TB, id storage.ShardID) ShardEnv) {
	for _, size := range []int{64, 1024} {
		b.Run(fmt.Sprintf("body=%d", size), func(b *testing.B) { benchAppend(b, env(b, 1), size) })
	}
}
