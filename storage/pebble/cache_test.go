package pebble

import (
	"math"
	"sync"
	"testing"
	"unsafe"

	"github.com/hermod-im/hermod/storage"
)

func TestCache(t *testing.T) {
	c := newCache[uint64, [4]uint64](1) // one set
	for k := range uint64(cacheWays) {
		c.put(k, [4]uint64{k}, k)
	}
	c.get(0) // now 1 is the oldest
	c.put(100, [4]uint64{100}, 100)
	if _, ok := c.get(1); ok {
		t.Error("the least recently used value was kept")
	}
	if v, ok := c.get(0); !ok || v[0] != 0 {
		t.Error("the value in use was dropped")
	}
	c.put(0, [4]uint64{7}, 200)
	if v, _ := c.get(0); v[0] != 7 {
		t.Errorf("replaced, but got %d", v[0])
	}
	c.dropIf(func(k uint64) bool { return k%2 == 0 })
	if _, ok := c.get(0); ok {
		t.Error("dropped, but found")
	}
	if _, ok := c.get(3); !ok {
		t.Error("dropped more than was asked for")
	}
}

// TestCacheSharedSet: keys that push each other out are kept apart, whoever
// asks at the same time.
func TestCacheSharedSet(t *testing.T) {
	c := newCache[uint64, [4]uint64](1)
	var wg sync.WaitGroup
	for g := range uint64(4) {
		wg.Go(func() {
			for i := range uint64(20_000) {
				k := (i + g) % 64
				if g == 0 {
					c.put(k, [4]uint64{k, k, k, k}, 0)
				} else if v, ok := c.peek(k, 1); ok && v != [4]uint64{k, k, k, k} {
					t.Errorf("asked for %d, got %v", k, v)
					return
				}
			}
		})
	}
	wg.Wait()
}

// TestCachePeek: a snapshot gets no value that is newer than itself, and looking
// leaves no trace.
func TestCachePeek(t *testing.T) {
	c := newCache[uint64, uint64](1)
	for k := range uint64(cacheWays) {
		c.put(k, k, 10)
	}
	for n, want := range map[uint64]bool{9: false, 10: true, 11: true} {
		if _, ok := c.peek(3, n); ok != want {
			t.Errorf("written by commit 10, peek at %d: %v", n, ok)
		}
	}
	for range 100 {
		c.peek(0, 99) // the oldest stays the oldest
	}
	c.put(50, 50, 11)
	if _, ok := c.get(0); ok {
		t.Error("a peek made a value the newest")
	}
	if n := testing.AllocsPerRun(100, func() { c.peek(3, 99); c.get(3); c.put(3, 3, 3) }); n != 0 {
		t.Errorf("%v allocations", n)
	}
}

func TestCacheTickWraps(t *testing.T) {
	c := newCache[uint64, uint64](1)
	for k := range uint64(4) {
		c.put(k, k, 1)
	}
	c.sets[0].tick = math.MaxUint32 - 1
	for k := range uint64(cacheWays) {
		c.put(k, k, 1)
	}
	for k := range uint64(cacheWays) {
		if v, ok := c.get(k); !ok || v != k {
			t.Errorf("lost %d when the tick wrapped", k)
		}
	}
}

// TestHeadCacheSize: all of it is there at Open, and not more than was allowed.
func TestHeadCacheSize(t *testing.T) {
	const allowed = 1 << 20
	s := open(t, Options{HeadCacheBytes: allowed})
	size := func(n int, set uintptr) uintptr { return uintptr(n) * set }
	sum := size(len(s.users.sets), unsafe.Sizeof(s.users.sets[0])) + size(len(s.convs.sets), unsafe.Sizeof(s.convs.sets[0])) +
		size(len(s.userConvs.sets), unsafe.Sizeof(s.userConvs.sets[0]))
	if sum > allowed || sum < allowed/4 {
		t.Errorf("%d bytes of caches, %d allowed", sum, allowed)
	}
}

// TestAuditKeepsHeads: reading many heads in views neither pushes the active
// ones out of the cache nor takes their place.
func TestAuditKeepsHeads(t *testing.T) {
	s := open(t, Options{HeadCacheBytes: 64 << 10})
	active := storage.UserIDIn(1, 1)
	var idle []storage.UserID
	w := &storage.Writes{}
	for i := range uint64(5000) {
		idle = append(idle, storage.UserIDIn(2, i+1))
		w.Users = append(w.Users, storage.UserHead{User: idle[i], InboxEpoch: i})
	}
	write(t, s, w)
	write(t, s, &storage.Writes{Users: []storage.UserHead{{User: active}}})
	n := s.applied.Load()
	view(t, s, func(v storage.Snap) {
		for i, u := range idle {
			if h, err := v.User(u); err != nil || !h.Found || h.InboxEpoch != uint64(i) {
				t.Fatalf("user %d: %+v, %v", i, h, err)
			}
		}
	})
	if _, ok := s.users.peek(active, n); !ok {
		t.Error("an audit of idle users pushed the active one out")
	}
	hits := 0
	for _, u := range idle[:1000] { // long overwritten by the later ones
		if _, ok := s.users.peek(u, n); ok {
			hits++
		}
	}
	if hits > 200 {
		t.Errorf("an audit put %d of 1000 idle users into the cache", hits)
	}
}
