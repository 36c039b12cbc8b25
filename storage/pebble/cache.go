package pebble

import (
	"hash/maphash"
	"sync"
	"unsafe"
)

// cache keeps the newest value of hot rows in memory that is allocated once, at
// Open: neither many users nor many commits make it grow, and the garbage
// collector never looks into it (K and V hold no pointers). Sets of eight; the
// least recently used of a set makes room.
//
// Every value carries the number of the commit that wrote it, or the newest one
// when it was read. That lets a snapshot use it: see peek.
type cache[K comparable, V any] struct {
	seed  maphash.Seed
	mask  uint64
	sets  []cacheSet[K, V]
	locks [64]struct {
		sync.Mutex
		_ [56]byte // one cache line each
	}
}

const cacheWays = 8

type cacheSet[K comparable, V any] struct {
	tick    uint32
	used    [cacheWays]uint32 // the tick of the last use; 0: empty
	commits [cacheWays]uint64
	keys    [cacheWays]K
	vals    [cacheWays]V
}

// newCache rounds bytes down to a power of two of sets, at least one.
func newCache[K comparable, V any](bytes int64) *cache[K, V] {
	size := int64(unsafe.Sizeof(cacheSet[K, V]{}))
	n := int64(1)
	for n*2*size <= bytes {
		n *= 2
	}
	c := &cache[K, V]{seed: maphash.MakeSeed(), mask: uint64(n - 1), sets: make([]cacheSet[K, V], n)}
	for i := range c.sets {
		c.sets[i].tick = 1 // touch every page now: memory use is then flat from the start
	}
	return c
}

// lock returns k's set, locked.
func (c *cache[K, V]) lock(k K) (*cacheSet[K, V], *sync.Mutex) {
	return c.lockSet(maphash.Comparable(c.seed, k) & c.mask)
}

// lockSet locks set n. All keys of a set share one lock: any of them may be
// the one that makes room for another.
func (c *cache[K, V]) lockSet(n uint64) (*cacheSet[K, V], *sync.Mutex) {
	mu := &c.locks[n%uint64(len(c.locks))].Mutex
	mu.Lock()
	return &c.sets[n], mu
}

func (s *cacheSet[K, V]) find(k K) int {
	for i := range s.keys {
		if s.used[i] != 0 && s.keys[i] == k {
			return i
		}
	}
	return -1
}

func (s *cacheSet[K, V]) touch(i int) {
	if s.tick++; s.tick == 0 { // wrapped: forget the order
		s.tick = 2
		for j, u := range s.used {
			s.used[j] = min(u, 1)
		}
	}
	s.used[i] = s.tick
}

// get returns k's newest value and makes it the last to go.
func (c *cache[K, V]) get(k K) (v V, ok bool) {
	s, mu := c.lock(k)
	defer mu.Unlock()
	if i := s.find(k); i >= 0 {
		s.touch(i)
		return s.vals[i], true
	}
	return v, false
}

// peek returns k's value if no commit after number n wrote it, and changes
// nothing: an audit of a million users must not push the active ones out.
//
// A snapshot taken once commit n was applied may use it: commits put their rows
// here before they apply them, so a row older than n here was not changed by
// anything the snapshot can see beyond n.
func (c *cache[K, V]) peek(k K, n uint64) (v V, ok bool) {
	s, mu := c.lock(k)
	defer mu.Unlock()
	if i := s.find(k); i >= 0 && s.commits[i] <= n {
		return s.vals[i], true
	}
	return v, false
}

// put stores k's value as of commit n.
func (c *cache[K, V]) put(k K, v V, n uint64) {
	s, mu := c.lock(k)
	defer mu.Unlock()
	i := s.find(k)
	if i < 0 {
		i = 0
		for j, u := range s.used {
			if u < s.used[i] {
				i = j
			}
		}
	}
	s.keys[i], s.vals[i], s.commits[i] = k, v, n
	s.touch(i)
}

// dropIf forgets every key of which gone is true. It looks at all of them.
func (c *cache[K, V]) dropIf(gone func(K) bool) {
	for n := range c.sets {
		s, mu := c.lockSet(uint64(n))
		for i := range s.keys {
			if s.used[i] != 0 && gone(s.keys[i]) {
				s.used[i] = 0
			}
		}
		mu.Unlock()
	}
}
