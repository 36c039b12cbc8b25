package chat

import (
	"crypto/sha256"
	"hash/maphash"
	"net/netip"
	"sync"
	"time"
)

// tracker is a table that cannot grow: it remembers at most so many keys, and
// gives up the least telling of a few it looks at when a new one comes. An
// attacker with many addresses can make it forget, at the price of that many
// attempts; he cannot make it refuse somebody else.
type tracker[K comparable, V any] struct {
	seed maphash.Seed
	cap  int // per shard
	// worth says how much is lost if v is forgotten; below 0: nothing.
	worth  func(v *V) int64
	shards [trackerShards]trackerShard[K, V]
}

const (
	trackerShards = 16
	trackerSample = 8
)

type trackerShard[K comparable, V any] struct {
	mu sync.Mutex
	m  map[K]*V
}

func newTracker[K comparable, V any](size int, worth func(*V) int64) *tracker[K, V] {
	t := &tracker[K, V]{seed: maphash.MakeSeed(), cap: max(1, size/trackerShards), worth: worth}
	for i := range t.shards {
		t.shards[i].m = make(map[K]*V)
	}
	return t
}

// with calls fn with k's value, under a lock. A new key gets the zero value,
// or, unless create, no call. Values that are worth nothing after fn go.
func (t *tracker[K, V]) with(k K, create bool, fn func(*V)) {
	sh := &t.shards[maphash.Comparable(t.seed, k)%trackerShards]
	sh.mu.Lock()
	defer sh.mu.Unlock()
	v := sh.m[k]
	if v == nil {
		if !create {
			return
		}
		if len(sh.m) >= t.cap {
			t.evict(sh)
		}
		v = new(V)
		sh.m[k] = v
	}
	fn(v)
	if t.worth(v) < 0 {
		delete(sh.m, k)
	}
}

// evict relies on a map's range beginning at a random place.
func (t *tracker[K, V]) evict(sh *trackerShard[K, V]) {
	var victim K
	least, seen := int64(0), 0
	for k, v := range sh.m {
		if w := t.worth(v); seen == 0 || w < least {
			victim, least = k, w
		}
		if seen++; seen == trackerSample {
			break
		}
	}
	delete(sh.m, victim)
}

func (t *tracker[K, V]) len() (n int) {
	for i := range t.shards {
		t.shards[i].mu.Lock()
		n += len(t.shards[i].m)
		t.shards[i].mu.Unlock()
	}
	return n
}

// addressKey is who an address belongs to, as far as limits go: an IPv4
// address, or an IPv6 /64.
func addressKey(ip netip.Addr) (k [16]byte) {
	ip = ip.Unmap()
	if ip.Is4() {
		return ip.As16()
	}
	b := ip.As16()
	copy(k[:8], b[:8])
	return k
}

// attempts slows guessing of passwords down, per account and address: five
// at once, then waits that double from 1 s to 10 min, an hour from the
// twentieth on. Forgotten with a right one, or after a day without any. It is never
// per account alone: whoever knows a name could lock its owner out.
type attempts struct {
	now   func() time.Time
	table *tracker[attemptKey, guesses]
}

type attemptKey struct {
	name    [16]byte // of its hash
	address [16]byte
}

// guesses counts what went wrong, in unix ns.
type guesses struct {
	wrong      int
	last, next int64
}

const (
	freeGuesses   = 5
	manyGuesses   = 20
	maxGuessWait  = 10 * time.Minute
	manyGuessWait = time.Hour
	forgetGuesses = 24 * time.Hour
)

func newAttempts(size int, now func() time.Time) *attempts {
	return &attempts{now: now, table: newTracker[attemptKey](size, func(g *guesses) int64 {
		if g.wrong <= 0 || now().UnixNano()-g.last > int64(forgetGuesses) {
			return -1
		}
		return int64(g.wrong)<<40 | g.last>>30&(1<<40-1)
	})}
}

func guessKey(name string, ip netip.Addr) attemptKey {
	sum := sha256.Sum256([]byte(name))
	return attemptKey{name: [16]byte(sum[:16]), address: addressKey(ip)}
}

// guessWait is how long the next guess has to wait after so many wrong ones.
func guessWait(wrong int) time.Duration {
	switch {
	case wrong < freeGuesses:
		return 0
	case wrong >= manyGuesses:
		return manyGuessWait
	}
	return min(time.Second<<(wrong-freeGuesses), maxGuessWait)
}

// begin asks whether k may guess now; if not it returns how long to wait. What
// has begun counts as wrong until right or unknown is called, or else many
// guesses at the same moment would count as none.
func (a *attempts) begin(k attemptKey) (wait time.Duration) {
	now := a.now().UnixNano()
	a.table.with(k, true, func(g *guesses) {
		if now-g.last > int64(forgetGuesses) {
			*g = guesses{}
		}
		if g.last > now { // the clock was set back
			g.last, g.next = now, now+int64(guessWait(g.wrong))
		}
		if wait = time.Duration(g.next - now); wait > 0 {
			return
		}
		wait = 0
		g.wrong++
		g.last, g.next = now, now+int64(guessWait(g.wrong))
	})
	return wait
}

// right forgets everything about k.
func (a *attempts) right(k attemptKey) {
	a.table.with(k, false, func(g *guesses) { *g = guesses{} })
}

// unknown takes one begin back: nobody looked at the password.
func (a *attempts) unknown(k attemptKey) {
	a.table.with(k, false, func(g *guesses) {
		g.wrong--
		g.next = g.last + int64(guessWait(g.wrong))
	})
}

// registers bounds registrations per address: a bucket that holds one minute's
// worth and refills evenly.
type registers struct {
	now   func() time.Time
	table *tracker[[16]byte, bucket]
}

// bucket will be full again at this moment, in unix ns, if nothing is taken.
type bucket struct{ full int64 }

func newRegisters(size int, now func() time.Time) *registers {
	return &registers{now: now, table: newTracker[[16]byte](size, func(b *bucket) int64 {
		return b.full - now().UnixNano() - 1
	})}
}

// take takes one registration of so many a minute, or returns how long to wait
// for it.
func (r *registers) take(ip netip.Addr, perMinute int) (wait time.Duration) {
	now := r.now().UnixNano()
	each := int64(time.Minute) / int64(perMinute)
	r.table.with(addressKey(ip), true, func(b *bucket) {
		full := max(min(b.full, now+int64(time.Minute)), now) + each // also if the clock was set back
		if over := full - now - each*int64(perMinute); over > 0 {
			wait = time.Duration(over)
			return
		}
		b.full = full
	})
	return wait
}
