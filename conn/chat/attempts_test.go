package chat

import (
	"encoding/binary"
	"net/netip"
	"sync"
	"testing"
	"time"
)

// fakeClock is a clock that stands until it is moved.
type fakeClock struct {
	mu  sync.Mutex
	now time.Time
}

func newFakeClock() *fakeClock {
	return &fakeClock{now: time.Date(2026, 1, 2, 3, 4, 5, 0, time.UTC)}
}

func (c *fakeClock) Now() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.now
}

func (c *fakeClock) Add(d time.Duration) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.now = c.now.Add(d)
}

var (
	homeIP  = netip.MustParseAddr("192.0.2.1")
	otherIP = netip.MustParseAddr("192.0.2.2")
)

func TestBackoff(t *testing.T) {
	clock := newFakeClock()
	a := newAttempts(1024, clock.Now)
	k := guessKey("alice", homeIP)
	for i := range freeGuesses {
		if wait := a.begin(k); wait != 0 {
			t.Fatalf("guess %d at once has to wait %v", i+1, wait)
		}
	}
	want := []time.Duration{1, 2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600, 600, 600, 600, 3600, 3600}
	for i, s := range want {
		s *= time.Second
		if wait := a.begin(k); wait != s {
			t.Fatalf("after %d wrong ones: wait %v, want %v", freeGuesses+i, wait, s)
		}
		clock.Add(s - time.Millisecond)
		if wait := a.begin(k); wait != time.Millisecond {
			t.Fatalf("after %d wrong ones, just before the time: wait %v", freeGuesses+i, wait)
		}
		clock.Add(time.Millisecond)
		if wait := a.begin(k); wait != 0 {
			t.Fatalf("after %d wrong ones, at the time: wait %v", freeGuesses+i, wait)
		}
	}
}

func TestBackoffIsPerAccountAndAddress(t *testing.T) {
	clock := newFakeClock()
	a := newAttempts(1<<16, clock.Now)
	// An attacker with ten thousand addresses spends every guess on alice.
	for i := range 10_000 {
		ip := netip.AddrFrom4([4]byte{10, 1, byte(i >> 8), byte(i)})
		for range freeGuesses {
			a.begin(guessKey("alice", ip))
		}
		if a.begin(guessKey("alice", ip)) == 0 {
			t.Fatalf("address %v has no limit", ip)
		}
	}
	if wait := a.begin(guessKey("alice", homeIP)); wait != 0 {
		t.Errorf("alice is locked out of her own account: %v", wait)
	}
	if wait := a.begin(guessKey("bob", netip.AddrFrom4([4]byte{10, 1, 0, 0}))); wait != 0 {
		t.Errorf("bob, behind the same address, is locked out: %v", wait)
	}
}

func TestBackoffEnds(t *testing.T) {
	clock := newFakeClock()
	a := newAttempts(1024, clock.Now)
	k := guessKey("alice", homeIP)
	fill := func() {
		for range freeGuesses {
			a.begin(k)
		}
		if a.begin(k) == 0 {
			t.Fatal("no limit")
		}
	}
	fill()
	a.right(k)
	if n := a.table.len(); n != 0 {
		t.Fatalf("%d entries after the right password", n)
	}
	fill() // a right one gives all five back
	clock.Add(forgetGuesses + time.Second)
	fill() // so does a day
	clock.Add(forgetGuesses + time.Second)
	for range 100 { // refusals for load are no guesses
		if wait := a.begin(k); wait != 0 {
			t.Fatalf("wait %v", wait)
		}
		a.unknown(k)
	}
}

func TestBackoffCountsGuessesUnderWay(t *testing.T) {
	a := newAttempts(1024, newFakeClock().Now)
	k := guessKey("alice", homeIP)
	var wg sync.WaitGroup
	var mu sync.Mutex
	passed := 0
	for range 100 {
		wg.Go(func() {
			if a.begin(k) == 0 {
				mu.Lock()
				passed++
				mu.Unlock()
			}
		})
	}
	wg.Wait()
	if passed != freeGuesses {
		t.Fatalf("%d guesses at the same moment, want %d", passed, freeGuesses)
	}
}

func TestAttemptTableIsBounded(t *testing.T) {
	clock := newFakeClock()
	const size = 1024
	a := newAttempts(size, clock.Now)
	locked := guessKey("alice", homeIP)
	for range freeGuesses {
		a.begin(locked)
	}
	var name [8]byte
	for i := range 20 * size {
		binary.BigEndian.PutUint64(name[:], uint64(i))
		a.begin(guessKey(string(name[:]), otherIP))
	}
	if n := a.table.len(); n > size {
		t.Fatalf("%d entries, at most %d are allowed", n, size)
	}
	if a.begin(locked) == 0 {
		t.Error("single guesses have pushed out a key with many")
	}
}

func TestAddressKey(t *testing.T) {
	same := func(a, b string) bool {
		return addressKey(netip.MustParseAddr(a)) == addressKey(netip.MustParseAddr(b))
	}
	for _, tt := range []struct {
		a, b string
		same bool
	}{
		{"192.0.2.1", "192.0.2.1", true},
		{"192.0.2.1", "::ffff:192.0.2.1", true},
		{"192.0.2.1", "192.0.2.2", false},
		{"2001:db8::1", "2001:db8::ffff:2", true},
		{"2001:db8::1", "2001:db8:0:1::1", false},
		{"fe80::1%eth0", "fe80::1%eth1", true},
	} {
		if same(tt.a, tt.b) != tt.same {
			t.Errorf("%s and %s: same %v, want %v", tt.a, tt.b, !tt.same, tt.same)
		}
	}
}

func TestRegisterRate(t *testing.T) {
	clock := newFakeClock()
	r := newRegisters(1024, clock.Now)
	take := func(ip netip.Addr, want time.Duration) {
		t.Helper()
		if wait := r.take(ip, 5); wait != want {
			t.Fatalf("wait %v, want %v", wait, want)
		}
	}
	for range 5 {
		take(homeIP, 0)
	}
	take(homeIP, 12*time.Second)
	take(otherIP, 0)
	clock.Add(11 * time.Second)
	take(homeIP, time.Second)
	clock.Add(time.Second)
	take(homeIP, 0)
	take(homeIP, 12*time.Second)
	clock.Add(10 * time.Minute)
	for range 5 {
		take(homeIP, 0)
	}
	take(homeIP, 12*time.Second)
	for i := range 100_000 {
		r.take(netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)}), 5)
	}
	if n := r.table.len(); n > 1024 {
		t.Fatalf("%d addresses tracked, at most 1024 are allowed", n)
	}
}

func TestLimitsSurviveAClockSetBack(t *testing.T) {
	clock := newFakeClock()
	a, r := newAttempts(1024, clock.Now), newRegisters(1024, clock.Now)
	k := guessKey("alice", homeIP)
	for range freeGuesses {
		a.begin(k)
		r.take(homeIP, 5)
	}
	clock.Add(-48 * time.Hour)
	if wait := a.begin(k); wait != time.Second {
		t.Errorf("guesses wait %v, want 1s", wait)
	}
	if wait := r.take(homeIP, 5); wait != 12*time.Second {
		t.Errorf("registrations wait %v, want 12s", wait)
	}
}
