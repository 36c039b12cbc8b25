package router

import (
	"context"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/hermod-im/hermod/bench/local"
)

func TestRedisDirectory(t *testing.T) {
	for name, cluster := range map[string]bool{"single": false, "cluster": true} {
		t.Run(name, func(t *testing.T) {
			defer noLeaks(t)
			f := newFleet(t, local.RedisOptions{Cluster: cluster})
			var nth atomic.Int64
			testDirectory(t, func(t *testing.T) Directory {
				opt := f.options(1, 7)
				if cluster {
					_ = opt.Client.Close()
					opt.Client = f.client(true, 5*time.Second)
				}
				opt.Prefix = fmt.Sprint("contract", nth.Add(1))
				d, err := NewRedis(opt)
				must(t, err)
				t.Cleanup(func() { must(t, d.Close()) })
				return d
			})
			must(t, f.server.Close())
		})
	}
}

func TestTwoNodesAttachTheSameSlotAtOnce(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a, b := f.start(1, 1), f.start(2, 1)
	for user := int64(1); user <= 200; user++ {
		var ra, rb Attached
		var wg sync.WaitGroup
		wg.Go(func() { ra = a.attach(user, 1, 10, 1) })
		wg.Go(func() { rb = b.attach(user, 1, 20, 1) })
		wg.Wait()
		rs := a.routes(user)
		if len(rs) != 1 {
			t.Fatalf("user %d has %d connections", user, len(rs))
		}
		// Whoever lost is told once: by its own Attach, or by the winner's.
		told := map[Ref]int{ra.Loser: 1}
		told[rb.Loser]++
		loser := b.ref(20)
		if rs[0].Ref == loser {
			loser = a.ref(10)
		}
		if told[loser] != 1 || told[rs[0].Ref] != 0 || ra.AttachNo == rb.AttachNo {
			t.Fatalf("user %d is at %v; told %v", user, rs[0].Ref, told)
		}
	}
}

func TestNodesFindEachOther(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a := f.start(1, 1)
	// a renews no more: it learns of b because it meets an entry of it.
	slow := f.start(3, 1, func(o *RedisOptions) { o.Renew, o.LeaseTTL = time.Hour, 3*time.Hour })
	b := f.start(2, 9, func(o *RedisOptions) { o.Addr = "other.example:1" })
	b.attach(7, 2, 70, 1)
	slow.sees(7, b.ref(70))
	a.sees(7, b.ref(70))
	ms, err := slow.Members(context.Background())
	must(t, err)
	addr := map[uint64]string{}
	for _, m := range ms {
		addr[m.Node] = m.Addr
	}
	if len(ms) != 3 || addr[2] != "other.example:1" {
		t.Fatalf("members %+v", ms)
	}
	must(t, b.Close())
	slow.renew()
	if rs := slow.routes(7); len(rs) != 0 {
		t.Errorf("routed to a node that has closed: %+v", rs)
	}
	if n := testutil.ToFloat64(slow.metrics.stale); n == 0 {
		t.Error("stale entries are not counted")
	}
}

func TestStaleEntriesOfDeadNodes(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	dead := f.start(1, 1)
	dead.attach(7, 1, 70, 9)
	dead.attach(8, 1, 80, 1)
	must(t, dead.Close())
	b := f.start(2, 1)
	if rs := b.routes(7, 8); len(rs) != 0 {
		t.Fatalf("routed to a dead node: %+v", rs)
	}
	// Even a newer login gives way when its node is gone: what a login epoch is
	// worth, storage knows.
	if a := b.attach(7, 1, 71, 3); a.Lost || a.Loser != (Ref{}) {
		t.Fatalf("attach over a stale entry: %+v", a)
	}
	b.sees(7, b.ref(71))

	// An older incarnation of this node is as dead as any.
	again := f.start(1, 2)
	if a := again.attach(8, 1, 81, 1); a.Lost || a.Loser != (Ref{}) {
		t.Fatalf("attach over one's own earlier run: %+v", a)
	}
	again.sees(8, again.ref(81))
}

func TestAStaleEntryThatSomebodyReplacesMeanwhileStays(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	dead := f.start(1, 1)
	dead.attach(7, 1, 70, 5)
	must(t, dead.Close())
	b := f.start(2, 1)
	f.noted = &noted{}
	slow := f.start(3, 1)
	var once sync.Once
	hook := func(c redis.Cmder) {
		// Its second attempt, which names the stale value.
		if c.Name() == "evalsha" && len(c.Args()) == 11 && c.Args()[9] != "" {
			once.Do(func() { b.attach(7, 1, 71, 4) })
		}
	}
	f.noted.before.Store(&hook)
	if a := slow.attach(7, 1, 72, 3); !a.Lost || !a.NewLogin {
		t.Fatalf("an older login took the slot of a newer one: %+v", a)
	}
	slow.sees(7, b.ref(71))
}

func TestAnOlderIncarnationStandsBack(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	older := f.start(1, 1)
	newer := f.start(1, 2)
	newer.attach(7, 1, 70, 1)
	eventually(t, func() bool { return strings.Contains(older.log.String(), "another process runs as this node") },
		func() any { return older.log.String() })
	other := f.start(2, 1)
	other.sees(7, newer.ref(70))
	ms, err := other.Members(context.Background())
	must(t, err)
	for _, m := range ms {
		if m.Node == 1 && m.Incarnation != 2 {
			t.Errorf("the older run took its lease back: %+v", ms)
		}
	}
	must(t, older.Close())
	other.renew()
	other.sees(7, newer.ref(70))
}

func TestBucketsThatDifferAreReported(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	f.start(1, 1)
	b := f.start(2, 1, func(o *RedisOptions) { o.Buckets = 16 })
	if n := testutil.ToFloat64(b.metrics.mismatched); n != 1 || !strings.Contains(b.log.String(), "same number of buckets") {
		t.Errorf("%v mismatched nodes; log %s", n, b.log)
	}
}

func TestRedisOptionsValidate(t *testing.T) {
	client := DialRedis(redis.UniversalOptions{Addrs: []string{"127.0.0.1:1"}})
	defer client.Close()
	deaf := redis.NewClient(&redis.Options{})
	defer deaf.Close()
	good := RedisOptions{Client: client, Node: 1, Metrics: prometheus.NewRegistry()}
	must(t, good.Validate())
	for name, change := range map[string]func(*RedisOptions){
		"Client is missing":   func(o *RedisOptions) { o.Client = nil },
		"ignores deadlines":   func(o *RedisOptions) { o.Client = deaf },
		"Node is 0":           func(o *RedisOptions) { o.Node = 0 },
		"Addr":                func(o *RedisOptions) { o.Addr = "a b" },
		"Buckets is 3":        func(o *RedisOptions) { o.Buckets = 3 },
		"Buckets is -4":       func(o *RedisOptions) { o.Buckets = -4 },
		"below two Renew":     func(o *RedisOptions) { o.LeaseTTL = 5 * time.Second },
		"negative":            func(o *RedisOptions) { o.Rate = -1 },
		"Metrics is missing":  func(o *RedisOptions) { o.Metrics = nil },
		"up to 16777216":      func(o *RedisOptions) { o.Buckets = 1 << 25 },
		"more than 255 bytes": func(o *RedisOptions) { o.Addr = strings.Repeat("a", 256) },
	} {
		opt := good
		change(&opt)
		if _, err := NewRedis(opt); err == nil || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: error %v", name, err)
		}
	}
}

func TestWhatDoesNotBelongIsRefused(t *testing.T) {
	ctx := context.Background()
	f := newFleet(t, local.RedisOptions{})
	a := f.start(1, 1)
	for _, e := range []Entry{{Ref: Ref{2, 1, 5}}, {Ref: Ref{1, 2, 5}}} {
		if _, err := a.Attach(ctx, 1, 1, e); err == nil {
			t.Errorf("attached %+v", e)
		}
	}
	for _, slot := range []Slot{0, 7} {
		if _, err := a.Attach(ctx, 1, slot, Entry{Ref: a.ref(1)}); err == nil {
			t.Errorf("attached to slot %d", slot)
		}
		must(t, a.Detach(ctx, 1, slot, a.ref(1)))
	}
	// Rubbish in Redis is nobody's entry, and gives way.
	f.do("HSET", a.layout.key(9), a.layout.field(9, 1), "rubbish", a.layout.field(9, 2), strings.Repeat("x", 24))
	if rs := a.routes(9); len(rs) != 0 {
		t.Errorf("rubbish is routed to: %+v", rs)
	}
	for slot := Slot(1); slot <= 2; slot++ {
		if r := a.attach(9, slot, 90, 1); r.Lost {
			t.Errorf("lost to rubbish in slot %d: %+v", slot, r)
		}
	}
	f.do("HSET", a.layout.nodes, "77", "rubbish", "x", "1 99999999999999999 1 addr")
	a.renew()
	a.attach(10, 1, 100, 1)
	a.sees(10, a.ref(100))
	if !strings.Contains(a.log.String(), "a lease that is none") {
		t.Errorf("log %s", a.log)
	}
}
