package router

import (
	"context"
	"math/rand/v2"
	"testing"
	"time"
	"unsafe"
)

// rows does what a map does, through whatever comes and goes.
func TestRowsAreAMap(t *testing.T) {
	for seed := range uint64(20) {
		rnd := rand.New(rand.NewPCG(seed, 7))
		var got rows
		want := make(map[int64]packed)
		users := 1 + rnd.Int64N(3000)
		for range 20_000 {
			user := 1 + rnd.Int64N(users)
			switch rnd.IntN(3) {
			case 0:
				got.remove(user)
				delete(want, user)
			default:
				p := packed{conn: rnd.Uint64()}
				got.put(user, p)
				want[user] = p
			}
			user = 1 + rnd.Int64N(users)
			p, ok := got.get(user)
			if q, there := want[user]; p != q || ok != there {
				t.Fatalf("seed %d, user %d: %v %v, want %v %v", seed, user, p, ok, q, there)
			}
		}
		left := 0
		for _, r := range got.places {
			if r.user != 0 {
				left++
				if want[r.user] != r.packed {
					t.Fatalf("seed %d: a row of user %d that nobody wrote", seed, r.user)
				}
			}
		}
		if left != len(want) || got.count != len(want) {
			t.Fatalf("seed %d: %d rows, counted as %d, want %d", seed, left, got.count, len(want))
		}
	}
}

// A million idle users take at most 50 bytes each, whatever their number is.
func TestRowsAreSmall(t *testing.T) {
	var r rows
	for n := int64(1); n <= 100_000; n++ {
		r.put(n*7919, packed{conn: uint64(n)})
		if per := len(r.places) * int(unsafe.Sizeof(row{})) / r.count; n > 50 && per > 50 {
			t.Fatalf("%d users take %d bytes each", n, per)
		}
	}
}

// Ids are above 0; what is not would be taken for a free place.
func TestMemoryRefusesOddUsers(t *testing.T) {
	m := NewMemory(time.Now)
	for _, user := range []int64{0, -1} {
		if _, err := m.Attach(context.Background(), user, 1, Entry{}); err == nil {
			t.Errorf("user %d was attached", user)
		}
		if _, found := m.find(user, 1); found {
			t.Errorf("user %d was found", user)
		}
	}
}
