package router

import (
	"context"
	"math"
	"strconv"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus/testutil"

	"github.com/hermod-im/hermod/bench/local"
)

// populate attaches users 1 to n to the node, two slots for every third, and
// returns the number of each first slot.
func (n *node) populate(users int64) map[int64]uint64 {
	no := map[int64]uint64{}
	for u := int64(1); u <= users; u++ {
		no[u] = n.attach(u, 1, uint64(100+u), 1).AttachNo
		if u%3 == 0 {
			n.attach(u, 2, uint64(5000+u), 1)
		}
	}
	return no
}

// complete waits until another node finds everybody again, under the old
// numbers.
func (n *node) complete(by *node, no map[int64]uint64) {
	n.t.Helper()
	for u, want := range no {
		refs := []Ref{n.ref(uint64(100 + u))}
		if u%3 == 0 {
			refs = append(refs, n.ref(uint64(5000+u)))
		}
		by.sees(u, refs...)
		if got := by.routes(u)[0].AttachNo; got != want {
			n.t.Fatalf("user %d: attach number %d, was %d", u, got, want)
		}
	}
}

func TestAFlushIsNoticedAndRepaired(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a, b := f.start(1, 1), f.start(2, 1)
	no := a.populate(300)
	f.do("FLUSHALL")
	a.complete(b, no)
	if told := a.toldOf(); len(told) != 0 {
		t.Errorf("told to go: %+v", told)
	}
	if testutil.ToFloat64(a.metrics.losses) != 1 || testutil.ToFloat64(a.metrics.anew) < 400 {
		t.Errorf("%v losses, %v anew", testutil.ToFloat64(a.metrics.losses), testutil.ToFloat64(a.metrics.anew))
	}
	// The next one is above those that were used again.
	if r := a.attach(1, 1, 999, 1); r.AttachNo <= no[1] || r.Loser != a.ref(101) {
		t.Errorf("after the flush: %+v, was %d", r, no[1])
	}
}

func TestScriptsAreSentAgainAfterTheyWereForgotten(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a, b := f.start(1, 1), f.start(2, 1)
	no := a.populate(30)
	f.do("SCRIPT", "FLUSH")
	f.do("FLUSHALL")
	a.complete(b, no)
	f.do("SCRIPT", "FLUSH")
	a.attach(1, 1, 999, 1)
	b.sees(1, a.ref(999))
}

func TestAPartialLossIsRepairedByTheRound(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a := f.start(1, 1, func(o *RedisOptions) { o.Reassert = 50 * time.Millisecond })
	b := f.start(2, 1)
	no := a.populate(60)
	for u := int64(1); u <= 60; u += 2 {
		f.do("DEL", a.layout.key(u))
	}
	a.complete(b, no)
	if n := testutil.ToFloat64(a.metrics.losses); n != 0 {
		t.Errorf("%v losses of the lease", n)
	}
}

func TestALostLeaseIsRepairedAtTheRate(t *testing.T) {
	const users, rate = 900, 1000
	f := newFleet(t, local.RedisOptions{})
	a := f.start(1, 1, func(o *RedisOptions) { o.Rate = rate })
	b := f.start(2, 1)
	no := a.populate(users)
	for u := range no {
		f.do("DEL", a.layout.key(u))
	}
	before := testutil.ToFloat64(a.metrics.anew)
	begin := time.Now()
	f.do("HDEL", a.layout.nodes, 1)
	eventually(t, func() bool { return testutil.ToFloat64(a.metrics.anew) >= before+users*4/3 },
		func() any { return testutil.ToFloat64(a.metrics.anew) })
	// All but the last part of the mirror, whose pause comes after it.
	if took := time.Since(begin); took < time.Second*users*4/3/rate*9/10 {
		t.Errorf("%d entries registered anew in %v, at %d a second", users*4/3, took, rate)
	}
	a.complete(b, no)
}

func TestAnOlderConnectionDoesNotComeBack(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a, b := f.start(1, 1), f.start(2, 1)
	a.attach(7, 1, 70, 1)
	a.attach(8, 1, 80, 1)
	if r := b.attach(7, 1, 71, 1); r.Loser != a.ref(70) || r.NewLogin {
		t.Fatalf("loser %+v", r)
	}
	if r := b.attach(8, 1, 81, 2); r.Loser != a.ref(80) || !r.NewLogin {
		t.Fatalf("loser %+v", r)
	}
	// The kicks never arrive, and a still has both when Redis forgets all.
	f.do("FLUSHALL")
	eventually(t, func() bool {
		told := append(a.toldOf(), b.toldOf()...)
		has := map[kick]bool{}
		for _, k := range told {
			has[k] = true
		}
		return has[kick{7, 1, 70, false}] && has[kick{8, 1, 80, true}] && !has[kick{7, 1, 71, false}]
	}, func() any { return [2][]kick{a.toldOf(), b.toldOf()} })
	a.sees(7, b.ref(71))
	a.sees(8, b.ref(81))
}

func TestADetachWhileRegisteringAnewIsNotUndone(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	f.noted = &noted{}
	a := f.start(1, 1)
	a.attach(7, 1, 70, 1)
	rt := a.routes(7)
	a.detach(7, 1, 70)
	if !a.registerBatch(rt) { // as read before the detach
		t.Fatal("not registered")
	}
	if rs := a.routes(7); len(rs) != 0 {
		t.Errorf("a connection that is gone was registered: %+v", rs)
	}
}

func TestRedisDownAndUp(t *testing.T) {
	defer noLeaks(t)
	f := newFleet(t, local.RedisOptions{})
	for name, c := range map[string]struct {
		down, up func() error
		// keeps: what was registered is there afterwards.
		keeps bool
	}{
		"killed": {func() error { f.server.Kill(); return nil }, func() error { return f.server.Start(context.Background()) }, false},
		"paused": {f.server.Pause, f.server.Continue, true},
	} {
		t.Run(name, func(t *testing.T) {
			f := &fleet{t: t, server: f.server}
			a, b := f.start(1, 1, impatient(f)), f.start(2, 1, impatient(f))
			no := a.populate(60)
			b.attach(90, 1, 90, 1)
			a.sees(90, b.ref(90))
			must(t, c.down())
			begin := time.Now()
			testDown(t, a)
			if took := time.Since(begin); took > 10*time.Second {
				t.Errorf("a node without Redis took %v", took)
			}
			if ms, err := a.Members(context.Background()); err != nil || len(ms) != 2 {
				t.Errorf("members %v, %v", ms, err)
			}
			must(t, c.up())
			eventually(t, a.Up, func() any { return a.log })
			for _, u := range []int64{1, 2, 3} { // changed by testDown
				delete(no, u)
			}
			a.complete(b, no)
			b.sees(1)
			b.sees(2, a.ref(777))
			b.sees(1000, a.ref(1000))
			a.sees(90, b.ref(90))
			eventually(t, func() bool { return a.owed.count() == 0 }, func() any { return a.owed.count() })
			must(t, a.Close())
			must(t, b.Close())
		})
	}
	must(t, f.server.Close())
}

// testDown is what a node can do while Redis is away.
func testDown(t *testing.T, a *node) {
	t.Helper()
	if r := a.attach(1000, 1, 1000, 1); r.Lost || r.AttachNo == 0 {
		t.Fatalf("attach without Redis: %+v", r)
	}
	eventually(t, func() bool { return !a.Up() }, func() any { return a.log })
	begin := time.Now()
	for range 1000 {
		a.routes(1000)
	}
	if took := time.Since(begin); took > time.Second {
		t.Errorf("1,000 look-ups with the breaker open took %v", took)
	}
	if r := a.attach(2, 1, 777, 1); r.Lost || r.Loser != a.ref(102) || r.AttachNo <= uint64(time.Now().Add(-time.Minute).UnixMicro()) {
		t.Fatalf("a second connection without Redis: %+v", r)
	}
	if r := a.attach(3, 1, 778, 0); !r.Lost || r.Loser != a.ref(778) || !r.NewLogin {
		t.Fatalf("an older login without Redis: %+v", r)
	}
	a.detach(1, 1, 101)
	a.detach(3, 1, 103)
	a.detach(3, 2, 5003)
	a.sees(1)
	a.sees(2, a.ref(777))
	a.sees(1000, a.ref(1000))
	if rs := a.routes(90); len(rs) != 0 {
		t.Errorf("routes of another node's user: %+v", rs)
	}
	for _, op := range []string{opAttach, opDetach, opLookup} {
		if testutil.ToFloat64(a.metrics.mirrored.WithLabelValues(op)) == 0 {
			t.Errorf("%s without Redis is not counted", op)
		}
	}
	if testutil.ToFloat64(a.metrics.up) != 0 {
		t.Error("Redis counts as up")
	}
}

func TestANodeStartsWithoutRedis(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	must(t, f.server.Stop())
	a := f.start(1, 1, impatient(f))
	if _, err := a.Members(context.Background()); err == nil {
		t.Error("members are known without Redis")
	}
	a.attach(7, 1, 70, 1)
	a.sees(7, a.ref(70))
	must(t, f.server.Start(context.Background()))
	f.start(2, 1).sees(7, a.ref(70))
}

func TestNumbersWithoutRedisFollowItsClock(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	// A node whose clock is an hour slow.
	a := f.start(1, 1, func(o *RedisOptions) { o.Now = func() time.Time { return time.Now().Add(-time.Hour) } })
	real := a.attach(7, 1, 70, 1).AttachNo
	own, err := a.attachHere(context.Background(), 8, 1, Entry{Ref: a.ref(80), LoginEpoch: 1})
	must(t, err)
	if apart := math.Abs(float64(own.AttachNo) - float64(real)); apart > 1e6*60 {
		t.Errorf("a provisional number is %v s from Redis's", apart/1e6)
	}
}

func TestTooMuchOwedBecomesEverything(t *testing.T) {
	var o owed
	o.init()
	for i := range maxOwed + 1 {
		o.attach(userSlot{int64(i), 1})
		if ok := o.detach(detached{key: strconv.Itoa(i)}); ok != (i < maxOwed) {
			t.Fatalf("detach %d: %v", i, ok)
		}
	}
	everything, as, ds := o.take()
	if !everything || len(as) != 0 || len(ds) != maxOwed {
		t.Errorf("owed: everything %v, %d attaches, %d detaches", everything, len(as), len(ds))
	}
	if o.count() != 0 {
		t.Error("owed still")
	}
}

func TestTheSweepRemovesWhatIsLongDead(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	few := func(o *RedisOptions) { o.Buckets, o.Rate = 1024, 1<<30 }
	dead, live := f.start(1, 1, few), f.start(2, 1, few)
	for u := int64(1); u <= 50; u++ {
		dead.attach(u, 1, uint64(u), 1)
		live.attach(u, 2, uint64(u), 1)
	}
	must(t, dead.Close())
	var later atomic.Int64
	n := f.start(3, 1, few, func(o *RedisOptions) {
		o.Reassert = time.Hour
		o.Now = func() time.Time { return time.Now().Add(time.Duration(later.Load())) }
	})
	s := n.newSweeper()
	round := func() {
		for range sweepParts {
			s.sweep(n.Redis)
		}
	}
	entries := func() (n int) {
		for u := int64(1); u <= 50; u++ {
			fields, _ := f.do("HLEN", live.layout.key(u)).(int64)
			n += int(fields)
		}
		return n
	}
	eventually(t, func() bool { return n.owed.count() == 0 }, func() any { return n.owed.count() })
	round()
	later.Store(int64(2 * time.Hour))
	round()
	if got := entries(); got != 100 {
		t.Fatalf("%d entries two hours after a node ended, want all 100", got)
	}
	later.Store(int64(4 * time.Hour))
	round()
	if got := entries(); got != 50 || testutil.ToFloat64(n.metrics.swept) != 50 {
		t.Fatalf("%d entries after the sweep, want the 50 of the live node; %v counted", got, testutil.ToFloat64(n.metrics.swept))
	}
	if len(live.routes(1, 2, 3)) != 3 {
		t.Error("the sweep removed entries of a live node")
	}
}
