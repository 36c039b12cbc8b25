package storagetest

import (
	"fmt"
	"math/rand/v2"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// CrashDisk is a disk that one shard lives on and that can lose its power.
type CrashDisk interface {
	// Open opens the shard. hook is to be called before every operation on the
	// disk, from whichever goroutine; it may call Cut.
	Open(t testing.TB, hook func()) storage.Shard
	// Cut returns a copy of what would be left if the power went now: all that
	// was synced, and of the rest about keep percent, picked by rng.
	Cut(keep int, rng *rand.Rand) CrashDisk
}

// CrashSeed is the environment variable with the seed of RunCrash, to repeat a
// failure. The choices repeat; the timing of an engine's own goroutines does not,
// so it may take a few runs.
const CrashSeed = "HERMOD_CRASH_SEED"

// RunCrash runs a random workload of messages, retries, retention and
// revocations, cuts the power at random moments of it, and checks every
// remaining disk: nothing acknowledged is missing, logs and inboxes have no
// holes, user_convs agree with them, every retry gets the first result or is
// applied once, and the numbers go on from there. Then it goes on from one of the
// cuts. Each of rounds takes well under a second on a disk in memory.
func RunCrash(t *testing.T, rounds int, disk func(t testing.TB) CrashDisk) {
	seed := uint64(time.Now().UnixNano())
	if s := os.Getenv(CrashSeed); s != "" {
		n, err := strconv.ParseUint(s, 10, 64)
		if err != nil {
			t.Fatalf("%s: %v", CrashSeed, err)
		}
		seed = n
	}
	t.Logf("%s=%d", CrashSeed, seed)
	rng := rand.New(rand.NewPCG(seed, 0))
	at := crashCut{disk: disk(t), told: newCrashModel()}
	for round := range rounds {
		cuts := crashRound(t, rng, at)
		for i, c := range cuts {
			c.check(t, fmt.Sprintf("seed %d, round %d, cut %d of %d (operation %d, keeping %d%%)", seed, round, i, len(cuts), c.op, c.keep))
		}
		if t.Failed() {
			return
		}
		// Carry on from a cut as it was left: the checks worked on copies.
		at = cuts[rng.IntN(len(cuts))]
		if round%5 == 4 { // and start afresh now and then: short histories have bugs of their own
			at = crashCut{disk: disk(t), told: newCrashModel()}
		}
	}
}

// crashCut is a disk after a power cut, and what the world had been told by then.
type crashCut struct {
	disk CrashDisk
	told *crashModel
	op   int
	keep int
}

// crashRound opens the disk, runs the workload, and returns what cuts at random
// operations left of it.
func crashRound(t *testing.T, rng *rand.Rand, from crashCut) []crashCut {
	told := from.told.clone()
	c := &cutter{rng: rand.New(rand.NewPCG(rng.Uint64(), 1)), disk: from.disk, told: told, next: rng.IntN(60)}
	s := from.disk.Open(t, c.hook)
	var wg sync.WaitGroup
	var workers []*crashWorkload
	settle := func() {
		for _, w := range workers {
			w.settle()
		}
	}
	for range 1 + rng.IntN(3) {
		r := rand.New(rand.NewPCG(rng.Uint64(), 2))
		w := &crashWorkload{s: s, told: told, fail: t.Errorf}
		workers = append(workers, w)
		wg.Go(func() {
			for range 60 + r.IntN(60) {
				w.step(r)
			}
		})
	}
	wg.Wait()
	if rng.IntN(2) == 0 {
		settle()
	}
	c.cut() // one at rest, or right behind the last commits
	settle()
	if err := s.Close(); err != nil {
		t.Errorf("Close: %v", err)
	}
	c.cut() // and one after a proper end
	c.mu.Lock()
	defer c.mu.Unlock()
	c.disk = nil
	return c.cuts
}

// cutter takes copies of the disk at random operations.
type cutter struct {
	mu   sync.Mutex
	rng  *rand.Rand
	disk CrashDisk
	told *crashModel
	cuts []crashCut
	op   int
	next int
}

// maxCuts bounds the copies of a round.
const maxCuts = 8

func (c *cutter) hook() {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.op++; c.op < c.next || len(c.cuts) >= maxCuts-2 || c.disk == nil {
		return
	}
	c.next = c.op + 1 + c.rng.IntN(1+c.op/2)
	c.cutLocked()
}

func (c *cutter) cut() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.cutLocked()
}

func (c *cutter) cutLocked() {
	// What was told comes first: an ack that is sent while the power goes may be
	// for a row that is just in time, but none in told may be for one too late.
	told := c.told.clone()
	keep := [...]int{0, 0, 100, c.rng.IntN(101)}[c.rng.IntN(4)]
	c.cuts = append(c.cuts, crashCut{disk: c.disk.Cut(keep, c.rng), told: told, op: c.op, keep: keep})
}

// check opens a copy of the cut and holds it against what was told.
func (c crashCut) check(t *testing.T, what string) {
	// A copy: the next round may go on from this cut, unchanged.
	disk := c.disk.Cut(100, rand.New(rand.NewPCG(1, 1)))
	s := disk.Open(t, func() {})
	defer func() {
		if err := s.Close(); err != nil {
			t.Errorf("%s: Close: %v", what, err)
		}
	}()
	told := c.told.clone()
	v := &crashCheck{s: s, fail: func(format string, args ...any) {
		t.Helper()
		t.Errorf("%s: %s", what, fmt.Sprintf(format, args...))
	}}
	found := v.read()
	v.compare(told, found)
	if t.Failed() {
		return
	}
	// Everybody who got no answer asks again, and so do some who got one.
	w := &crashWorkload{s: s, told: told, fail: v.fail}
	w.retryAll()
	after := v.read()
	v.compare(told, after)
	v.appliedOnce(told, found, after)
}
