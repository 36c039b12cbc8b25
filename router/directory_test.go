package router

import (
	"context"
	"math/rand/v2"
	"reflect"
	"sync"
	"testing"
	"time"
)

// testDirectory is the contract of Directory; every implementation passes it.
// open returns an empty directory whose clock stands still.
func testDirectory(t *testing.T, open func(t *testing.T) Directory) {
	ctx := context.Background()
	ref := func(conn uint64) Ref { return Ref{Node: 1, Incarnation: 7, Conn: conn} }
	attach := func(t *testing.T, d Directory, user int64, slot Slot, conn, epoch, no uint64) Attached {
		t.Helper()
		a, err := d.Attach(ctx, user, slot, Entry{Ref: ref(conn), LoginEpoch: epoch, AttachNo: no})
		if err != nil {
			t.Fatal(err)
		}
		return a
	}
	conns := func(t *testing.T, d Directory, users ...int64) (out []uint64) {
		t.Helper()
		rs, err := d.Lookup(ctx, users, nil)
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range rs {
			out = append(out, r.Conn)
		}
		return out
	}
	want := func(t *testing.T, got []uint64, want ...uint64) {
		t.Helper()
		if len(got) != len(want) || len(got) > 0 && !reflect.DeepEqual(got, want) {
			t.Fatalf("connections %v, want %v", got, want)
		}
	}

	t.Run("numbers rise while the clock stands", func(t *testing.T) {
		d := open(t)
		a := attach(t, d, 1, 1, 10, 1, 0)
		b := attach(t, d, 1, 1, 11, 1, 0)
		if b.AttachNo <= a.AttachNo {
			t.Fatalf("attach numbers %d then %d", a.AttachNo, b.AttachNo)
		}
		if b.Lost || b.Loser != ref(10) || b.NewLogin {
			t.Fatalf("second connection of one login: %+v", b)
		}
		want(t, conns(t, d, 1), 11)
	})
	t.Run("an older login loses, however late it comes", func(t *testing.T) {
		d := open(t)
		attach(t, d, 1, 1, 10, 5, 0)
		a := attach(t, d, 1, 1, 11, 4, 0)
		if !a.Lost || a.Loser != ref(11) || !a.NewLogin {
			t.Fatalf("older login: %+v", a)
		}
		want(t, conns(t, d, 1), 10)
		b := attach(t, d, 1, 1, 12, 6, 0)
		if b.Lost || b.Loser != ref(10) || !b.NewLogin {
			t.Fatalf("newer login: %+v", b)
		}
		want(t, conns(t, d, 1), 12)
	})
	t.Run("registering anew keeps the order of attaching", func(t *testing.T) {
		d := open(t)
		a := attach(t, d, 1, 1, 10, 1, 100)
		b := attach(t, d, 1, 1, 11, 1, 200)
		if again := attach(t, d, 1, 1, 10, 1, a.AttachNo); !again.Lost || again.NewLogin {
			t.Fatalf("older connection registered anew: %+v", again)
		}
		if again := attach(t, d, 1, 1, 11, 1, b.AttachNo); again.Lost || again.Loser != (Ref{}) {
			t.Fatalf("the owner registered anew: %+v", again)
		}
		want(t, conns(t, d, 1), 11)
	})
	t.Run("detach compares the connection", func(t *testing.T) {
		d := open(t)
		attach(t, d, 1, 1, 10, 1, 0)
		attach(t, d, 1, 1, 11, 1, 0)
		must(t, d.Detach(ctx, 1, 1, ref(10)))
		want(t, conns(t, d, 1), 11)
		must(t, d.Detach(ctx, 1, 1, Ref{Node: 2, Incarnation: 7, Conn: 11}))
		want(t, conns(t, d, 1), 11)
		must(t, d.Detach(ctx, 1, 2, ref(11)))
		must(t, d.Detach(ctx, 2, 1, ref(11)))
		must(t, d.Detach(ctx, 1, 1, ref(11)))
		want(t, conns(t, d, 1))
	})
	t.Run("slots are independent and looked up in order", func(t *testing.T) {
		d := open(t)
		for slot := Slot(1); slot <= 6; slot++ {
			attach(t, d, 1, slot, uint64(10+slot), uint64(slot), 0)
		}
		attach(t, d, 3, 2, 30, 1, 0)
		want(t, conns(t, d, 3, 2, 1), 30, 11, 12, 13, 14, 15, 16)
		must(t, d.Detach(ctx, 1, 1, ref(11)))
		must(t, d.Detach(ctx, 1, 4, ref(14)))
		got := conns(t, d, 1)
		seen := map[uint64]bool{}
		for _, c := range got {
			seen[c] = true
		}
		if len(got) != 4 || !seen[12] || !seen[13] || !seen[15] || !seen[16] {
			t.Fatalf("after two detaches: %v", got)
		}
	})
	t.Run("lookup appends", func(t *testing.T) {
		d := open(t)
		attach(t, d, 1, 1, 10, 1, 0)
		rs, err := d.Lookup(ctx, []int64{1, 1}, make([]Route, 1, 8))
		must(t, err)
		if len(rs) != 3 || rs[1].Conn != 10 || rs[2].Conn != 10 || rs[1].User != 1 || rs[1].Slot != 1 {
			t.Fatalf("routes %+v", rs)
		}
	})
	t.Run("one winner of many", func(t *testing.T) {
		d := open(t)
		var wg sync.WaitGroup
		var mu sync.Mutex
		gone := map[uint64]bool{}
		if d, ok := d.(Rejoiner); ok {
			d.OnLoser(func(_ int64, _ Slot, loser Ref, _ bool) {
				mu.Lock()
				defer mu.Unlock()
				gone[loser.Conn] = true
			})
		}
		for c := uint64(1); c <= 200; c++ {
			wg.Go(func() {
				a, err := d.Attach(ctx, 1, 1, Entry{Ref: ref(c), LoginEpoch: 1 + rand.Uint64N(3)})
				if err != nil {
					t.Error(err)
				}
				mu.Lock()
				defer mu.Unlock()
				if a.Loser != (Ref{}) {
					gone[a.Loser.Conn] = true
				}
			})
		}
		wg.Wait()
		got := conns(t, d, 1)
		mu.Lock() // a directory may go on telling what it has told
		defer mu.Unlock()
		if len(got) != 1 || gone[got[0]] || len(gone) != 199 {
			t.Fatalf("%d winners %v, %d told to go", len(got), got, len(gone))
		}
	})
}

func must(t testing.TB, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func TestMemoryDirectory(t *testing.T) {
	testDirectory(t, func(t *testing.T) Directory {
		d := NewMemory(func() time.Time { return time.UnixMicro(1_700_000_000_000_000) })
		t.Cleanup(func() { must(t, d.Close()) })
		return d
	})
}
