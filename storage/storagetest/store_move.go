package storagetest

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// mover is a Mover over the shards under test.
func (f *storeFix) mover(o storage.MoverOptions) *storage.Mover {
	f.Helper()
	o.Shards = f.shards
	if o.PageRows == 0 {
		o.PageRows = 10 // many pages
	}
	m, err := storage.NewMover(o)
	if err != nil {
		f.Fatalf("NewMover: %v", err)
	}
	return m
}

func (f *storeFix) move(m *storage.Mover, slot storage.Slot, to int) storage.Moved {
	f.Helper()
	res, err := m.Move(f.ctx(), slot, f.shards[to].ID())
	if err != nil {
		f.Fatalf("moving slot %d to shard %d: %v", slot, f.shards[to].ID(), err)
	}
	return res
}

func (f *storeFix) closeMover(m *storage.Mover) {
	f.Helper()
	if err := m.Close(); err != nil {
		f.Errorf("closing a mover: %v", err)
	}
}

// keptAt counts what a shard keeps under a slot.
func (f *storeFix) keptAt(shard int, slot storage.Slot) (n int) {
	f.Helper()
	err := f.shards[shard].View(f.ctx(), nil, func(sn storage.Snap) error {
		w, _, err := sn.Export(slot, nil, 1000)
		n = rowsOf(&w)
		return err
	})
	if err != nil {
		f.Fatal(err)
	}
	return n
}

// account gives u a name, an account, a device and a block.
func (f *storeFix) account(u storage.UserID, name string) {
	f.Helper()
	r := storage.Reads{Users: []storage.UserID{u}, Accounts: []storage.UserID{u}, DevicesOf: []storage.UserID{u},
		Blocks: []storage.BlockKey{{User: u, Peer: 7}}}
	if f.s.NameSlot(name) == u.Slot() {
		r.Names = []string{name}
	}
	err := f.s.Update(f.ctx(), r, func(tx *storage.Tx) error {
		h := tx.User(u)
		h.TokenGen, h.LoginEpoch = 3, 4
		tx.PutUser(h)
		if len(r.Names) > 0 {
			tx.PutName(storage.NameRow{Name: name, User: u})
		}
		tx.PutAccount(storage.Account{User: u, Name: name, Created: 5, Auth: []byte("a"), Profile: []byte("p")})
		tx.PutDevice(storage.Device{Key: storage.DeviceKey{User: u, ID: [16]byte{1}}, Slot: 2, LoginEpoch: 4})
		tx.PutBlock(storage.Block{Key: storage.BlockKey{User: u, Peer: 7}, Time: 6})
		return nil
	})
	if err != nil {
		f.Fatalf("account of %d: %v", u, err)
	}
}

// testMove: a slot is as it was, wherever it is; the shard that it left keeps
// nothing; retries get their first results; and sending goes on.
func testMove(f *storeFix) {
	const name = "mover's friend"
	b := storage.UserIDIn(f.s.NameSlot(name), 77)
	home := int(b.Slot()) * len(f.shards) / storage.Slots
	f.addUser(b)
	f.account(b, name)
	others := []storage.UserID{b}
	for i := range f.shards {
		others = append(others, f.userOn(i, 50+i), f.userOn(i, 60+i))
	}
	var ms []storage.Append
	var first []storage.Appended
	for i := range 6 {
		for _, o := range others {
			for _, m := range []storage.Append{message(b, o, fmt.Sprintf("to %d: %02d", o, i)), message(o, b, fmt.Sprintf("from %d: %02d", o, i))} {
				ms, first = append(ms, m), append(first, f.send(m))
			}
		}
	}
	f.waitTasks(1)
	before := f.inbox(b)
	head := f.head(b)
	m := f.mover(storage.MoverOptions{})
	at := home
	for _, to := range []int{(home + 1) % len(f.shards), (home + 2) % len(f.shards), home} {
		res := f.move(m, b.Slot(), to)
		if res.Already || res.From != f.shards[at].ID() || res.Rows.Total() == 0 {
			f.Errorf("the move: %+v", res)
		}
		if n := f.keptAt(at, b.Slot()); n != 0 {
			f.Errorf("the shard that the slot left keeps %d rows of it", n)
		}
		if again := f.move(m, b.Slot(), to); !again.Already {
			f.Errorf("moved twice: %+v", again)
		}
		at = to
		if got := f.head(b); got != head {
			f.Errorf("the head is %+v, was %+v", got, head)
		}
		after := f.inbox(b)
		if !slices.Equal(bodies(after), bodies(before)) {
			f.Errorf("the inbox is %q, was %q", bodies(after), bodies(before))
		}
		for i, a := range ms {
			if r := f.send(a); !r.Duplicate || r.Rev != first[i].Rev || r.Time != first[i].Time {
				f.Fatalf("retry %d after the move: %+v, first was %+v", i, r, first[i])
			}
		}
		f.movedAccount(b, name)
		for _, o := range others {
			a := message(o, b, fmt.Sprintf("from %d: at %d", o, to))
			ms, first = append(ms, a), append(first, f.send(a))
		}
		f.waitTasks(1)
		before, head = f.inbox(b), f.head(b)
		f.contiguous(b, before)
	}
	f.closeMover(m)
	for _, o := range others {
		f.contiguous(o, f.inbox(o))
	}
}

func (f *storeFix) movedAccount(u storage.UserID, name string) {
	f.Helper()
	err := f.s.View(f.ctx(), u.Slot(), func(sn storage.Snap) error {
		n, err1 := sn.Name(name)
		a, err2 := sn.Account(u)
		ds, err3 := sn.Devices(u)
		bl, err4 := sn.Block(storage.BlockKey{User: u, Peer: 7})
		if n.User != u || a.Created != 5 || string(a.Auth) != "a" || len(ds) != 1 || ds[0].LoginEpoch != 4 || bl.Time != 6 {
			f.Errorf("after the move: %+v, %+v, %+v, %+v", n, a, ds, bl)
		}
		return firstError(err1, err2, err3, err4)
	})
	if err != nil {
		f.Error(err)
	}
}

// testMoveUnderLoad: two nodes send flat out, in pipelines, while the slots of
// most users move to and fro. No send is refused, none is lost or doubled, and
// the order of each sender stays.
func testMoveUnderLoad(f *storeFix) {
	o := f.opt
	o.Node, o.Deliver = 2, f.deliver
	second := f.store(o)
	defer second.Close()
	var us []storage.UserID
	for i := range 5 {
		us = append(us, f.userOn(i%len(f.shards), i/len(f.shards)))
	}
	var stop atomic.Bool
	var wg sync.WaitGroup
	counts := make(map[storage.UserID]*atomic.Int64)
	for _, u := range us {
		counts[u] = new(atomic.Int64)
	}
	for ai, a := range us {
		for bi, b := range us {
			node := f.s
			if (ai+bi)%2 == 1 {
				node = second
			}
			wg.Go(func() { f.pipeline(node, a, b, 15*time.Millisecond, 1<<30, &stop, counts) })
		}
	}
	m := f.mover(storage.MoverOptions{PageRows: 1000})
	frozen := time.Duration(0)
	for i := range 3 * (len(us) - 1) {
		enough := counts[us[0]].Load() + 10
		f.wait("messages between two moves", func() bool { return counts[us[0]].Load() >= enough || stop.Load() })
		res := f.move(m, us[1+i%(len(us)-1)].Slot(), (i*2+i/4)%len(f.shards)) // the first user stays
		frozen = max(frozen, res.Frozen)
	}
	stop.Store(true)
	wg.Wait()
	f.closeMover(m)
	f.Logf("at most %v without a slot", frozen)
	f.waitTasks(1, 2)
	order := map[storage.ConvKey][]string{}
	for _, u := range us {
		want := uint64(counts[u].Load())
		f.waitHead(u, want)
		rows := f.inbox(u)
		f.contiguous(u, rows)
		if h := f.head(u); h.Seq != want {
			f.Errorf("inbox of %d ends at %d, want %d", u, h.Seq, want)
		}
		f.oneOrder(u, rows, order)
	}
}

// pipeline sends from a to b, up to 8 at a time, a pace apart, until stop or
// until there are so many.
func (f *storeFix) pipeline(s *storage.Store, a, b storage.UserID, pace time.Duration, most int, stop *atomic.Bool, counts map[storage.UserID]*atomic.Int64) {
	var open []<-chan sent
	var last storage.Appended
	settle := func() bool {
		r, err := f.result(open[0])
		open = open[1:]
		if err != nil {
			f.Errorf("%d to %d: %v", a, b, err)
			return false
		}
		if r.Rev <= last.Rev || r.Time <= last.Time || r.Duplicate {
			f.Errorf("%d to %d: %+v after %+v", a, b, r, last)
		}
		last = r
		counts[a].Add(1)
		if a != b {
			counts[b].Add(1)
		}
		return true
	}
	for i := 0; !stop.Load() && i < most; i++ {
		time.Sleep(pace)
		open = append(open, start(s, message(a, b, fmt.Sprintf("%d>%d:%07d", a, b, i))))
		if len(open) == 8 && !settle() {
			stop.Store(true)
		}
	}
	for len(open) > 0 {
		settle()
	}
}

// testFrozen: while a slot is frozen everything else of its shard goes on,
// whatever waits for it; then that goes on as well, in order.
func testFrozen(f *storeFix) {
	a, b := f.userOn(0, 1), f.userOn(0, 2)
	x, y := f.userOn(0, 3), f.userOn(1, 4)
	f.setSlot(0, storage.SlotRow{Slot: b.Slot(), State: storage.SlotFrozen, Epoch: 2})
	var waiting []<-chan sent
	for i := range 50 {
		for _, from := range []storage.UserID{a, b, y} {
			waiting = append(waiting, start(f.s, message(from, b, fmt.Sprintf("%d>%d:%02d", from, b, i))))
		}
		waiting = append(waiting, start(f.s, message(b, a, fmt.Sprintf("%d>%d:%02d", b, a, i))))
	}
	var reads sync.WaitGroup
	read := func(u storage.UserID) {
		reads.Add(1)
		if err := f.s.Go(u.Slot(), func(ctx context.Context) {
			defer reads.Done()
			err := f.s.View(ctx, u.Slot(), func(sn storage.Snap) error {
				_, err := sn.User(u)
				return err
			})
			if err != nil {
				f.Errorf("reading %d: %v", u, err)
			}
		}); err != nil {
			f.Errorf("Go: %v", err)
			reads.Done()
		}
	}
	for range 40 { // more than there are readers
		read(b)
	}
	began := time.Now()
	for i := range 20 {
		for _, m := range []storage.Append{message(a, x, fmt.Sprintf("%d>%d:%02d", a, x, i)), message(x, y, fmt.Sprintf("%d>%d:%02d", x, y, i))} {
			f.send(m)
		}
		if _, err := f.s.Sync(f.ctx(), a, 0, 10, 0); err != nil {
			f.Errorf("Sync: %v", err)
		}
		read(x)
	}
	f.waitHead(y, 20)
	if took := time.Since(began); took > 3*time.Second {
		f.Errorf("the others took %v while a slot was frozen", took)
	}
	for _, c := range waiting {
		if len(c) > 0 {
			f.Fatal("something that needs a frozen slot was answered")
		}
	}
	m := f.mover(storage.MoverOptions{})
	f.move(m, b.Slot(), 1)
	f.closeMover(m)
	last := map[storage.ConvKey]uint64{}
	for i, c := range waiting {
		if r, err := f.result(c); err != nil || r.Duplicate {
			f.Errorf("send %d: %+v, %v", i, r, err)
		}
	}
	reads.Wait()
	f.waitTasks(1)
	order := map[storage.ConvKey][]string{}
	for _, u := range []storage.UserID{a, b, x, y} {
		rows := f.inbox(u)
		f.contiguous(u, rows)
		f.oneOrder(u, rows, order)
		for _, r := range rows {
			last[r.Entry.Conv] = max(last[r.Entry.Conv], r.Entry.Rev)
		}
	}
	if n := last[storage.PairKey(a, b)]; n != 100 {
		f.Errorf("%d entries of two hundred halves", n)
	}
}

func (f *storeFix) setSlot(shard int, r storage.SlotRow) {
	f.Helper()
	f.commit(shard, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) {
		return &storage.Writes{Slots: []storage.SlotRow{r}}, nil
	})
}
