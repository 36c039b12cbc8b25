package router

import (
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"strconv"
	"strings"
	"testing"

	"github.com/prometheus/client_golang/prometheus/testutil"
	"github.com/redis/go-redis/v9"

	"github.com/hermod-im/hermod/bench/local"
)

func TestLayoutNamesEverySlotOnce(t *testing.T) {
	for _, buckets := range []int{1, 2, 64, 1 << 16, maxBuckets} {
		l := newLayout("p", buckets)
		seen := map[[2]string]string{}
		for range 2000 {
			user, slot := rand.Int64(), Slot(1+rand.IntN(maxSlots))
			at := [2]string{l.key(user), l.field(user, slot)}
			who := fmt.Sprint(user, slot)
			if other, ok := seen[at]; ok && other != who {
				t.Fatalf("%d buckets: %s and %s share %q", buckets, who, other, at)
			}
			seen[at] = who
			n, err := strconv.ParseUint(strings.TrimPrefix(at[0], "p:u:"), 16, 64)
			if err != nil || n >= uint64(buckets) || len(at[1]) != l.rest+1 {
				t.Fatalf("%d buckets: key %q, field of %d bytes", buckets, at[0], len(at[1]))
			}
		}
	}
	l := newLayout("p", 1<<16)
	if n := len(l.field(1, 1)); n != 7 {
		t.Errorf("a field has %d bytes", n)
	}
}

func TestBucketsFillEvenly(t *testing.T) {
	const buckets, each = 256, 64
	l := newLayout("p", buckets)
	for name, user := range map[string]func(i int) int64{
		"random":     func(int) int64 { return rand.Int64() },
		"successive": func(i int) int64 { return int64(i + 1) },
		"one slot":   func(int) int64 { return 7<<51 | rand.Int64N(1<<51) },
	} {
		fill := map[string]int{}
		for i := range buckets * each {
			fill[l.key(user(i))]++
		}
		for key, n := range fill {
			if n > 2*each {
				t.Errorf("%s: %d users in bucket %s, %d expected", name, n, key, each)
			}
		}
	}
}

func TestValuesAreWhatScriptsMake(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a := f.start(3, 4)
	for _, want := range []Entry{
		{Ref: a.ref(1), LoginEpoch: 1, AttachNo: 1},
		{Ref: a.ref(1<<64 - 1), LoginEpoch: maxEpoch, AttachNo: maxAttachNo},
		{Ref: a.ref(0x0102030405060708), LoginEpoch: 0x0a0b0c0d, AttachNo: 1_700_000_000_123_457},
	} {
		user := rand.Int64()
		if _, err := a.Attach(context.Background(), user, 6, want); err != nil {
			t.Fatal(err)
		}
		s, _ := f.do("HGET", a.layout.key(user), a.layout.field(user, 6)).(string)
		v, ok := parseValue(s)
		if !ok || len(s) > 24 || v.tag != a.self {
			t.Fatalf("value %x", s)
		}
		if rs := a.routes(user); len(rs) != 1 || rs[0].Entry != want || rs[0].Slot != 6 {
			t.Errorf("found %+v, want %+v", rs, want)
		}
	}
	// What is beyond a value's room is the most that there is room for.
	a.attach(1, 1, 1, 1<<40)
	if rs := a.routes(1); len(rs) != 1 || rs[0].LoginEpoch != maxEpoch {
		t.Errorf("found %+v", rs)
	}
}

// TestScriptsUseOneKey reads what goes over the wire: on a Cluster every command
// may name one key only, and no script may touch another.
func TestScriptsUseOneKey(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	f.noted = &noted{}
	a := f.start(1, 1)
	a.attach(7, 1, 70, 1)
	a.attach(7, 2, 71, 1)
	a.routes(7, 8, 9)
	a.detach(7, 1, 70)
	a.owed.all()
	eventually(t, func() bool { return a.owed.count() == 0 }, func() any { return a.owed.count() })
	must(t, a.Close())
	f.noted.mu.Lock()
	defer f.noted.mu.Unlock()
	seen := map[string]int{}
	for _, c := range f.noted.cmds {
		name, _ := c[0].(string)
		switch name {
		case "eval", "evalsha":
			if fmt.Sprint(c[2]) != "1" {
				t.Errorf("%s with %v keys", name, c[2])
			}
		case "hmget", "hello", "info": // info has no key
		default:
			t.Errorf("command %v", c)
		}
		seen[name]++
	}
	if seen["evalsha"] == 0 || seen["hmget"] != 3 {
		t.Errorf("commands %v", seen)
	}
	for _, script := range []string{attachScript, detachScript, renewScript, releaseScript} {
		for _, call := range strings.Split(script, "redis.call(")[1:] {
			if !strings.HasPrefix(call, "'TIME')") && !strings.Contains(call[:strings.Index(call, ")")+1], "KEYS[1]") {
				t.Errorf("a script calls %s", call[:min(len(call), 40)])
			}
		}
		if strings.Contains(script, "KEYS[2]") {
			t.Error("a script has two keys")
		}
	}
}

var devices = flag.Int("devices", 20_000, "devices of TestMemoryPerDevice; one million is what the promise is about")

// TestMemoryPerDevice measures Redis: at most 64 bytes per online device. Fewer
// devices get fewer buckets, so that these are as full as a million devices
// make the default ones.
func TestMemoryPerDevice(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a := f.start(1, 1, func(o *RedisOptions) {
		for o.Buckets = 1; o.Buckets*1_000_000 < *devices<<16; o.Buckets *= 2 {
		}
		o.Rate = 1 << 30
	})
	used := func() int {
		text := fmt.Sprint(f.do("INFO", "memory"))
		_, text, _ = strings.Cut(text, "used_memory:")
		n, err := strconv.Atoi(text[:strings.IndexByte(text, '\r')])
		must(t, err)
		return n
	}
	fill := func(n int) {
		batch := make([]Route, 0, rejoinBatch)
		for range n {
			batch = append(batch, Route{User: rand.Int64(), Slot: 1, Entry: Entry{Ref: a.ref(rand.Uint64()), LoginEpoch: 1 + rand.Uint64N(50), AttachNo: 1_700_000_000_000_000 + rand.Uint64N(1<<40)}})
			if len(batch) == cap(batch) {
				a.registerQuietly(t, batch)
				batch = batch[:0]
			}
		}
		a.registerQuietly(t, batch)
	}
	before := used()
	fill(*devices)
	each := float64(used()-before) / float64(*devices)
	t.Logf("%d devices in %d buckets: %.1f bytes of Redis each", *devices, a.opt.Buckets, each)
	if each > 64 {
		t.Errorf("%.1f bytes of Redis per device", each)
	}
	packed := 0
	for range 200 {
		key := a.layout.key(rand.Int64())
		enc, err := f.server.Do(context.Background(), "OBJECT", "ENCODING", key)
		if err == redis.Nil {
			continue
		}
		must(t, err)
		if enc != "listpack" && enc != "ziplist" {
			t.Fatalf("bucket %s is a %v of %v", key, enc, f.do("HLEN", key))
		}
		packed++
	}
	if packed == 0 {
		t.Error("no bucket found")
	}
}

// registerQuietly registers routes as after a loss, without the mirror.
func (n *node) registerQuietly(t *testing.T, routes []Route) {
	t.Helper()
	cmds := n.pipeline(n.scripts.attach, len(routes), func(i int) (string, []any) {
		rt := &routes[i]
		return n.layout.key(rt.User), n.attachArgs(rt.User, rt.Slot, rt.Entry, 0, "", maxAttachNo)
	})
	for _, c := range cmds {
		must(t, c.Err())
	}
}

// TestAFullBucketStaysPacked: 100 devices in a bucket are the limit that
// buckets are sized for, and it is counted when there are more.
func TestAFullBucketStaysPacked(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	a := f.start(1, 1, func(o *RedisOptions) { o.Buckets = 1 })
	for user := int64(1); user <= crowded; user++ {
		a.attach(user, 1, rand.Uint64(), 1)
	}
	if enc := f.do("OBJECT", "ENCODING", a.layout.key(1)); enc != "listpack" && enc != "ziplist" {
		t.Errorf("%d devices are a %v", crowded, enc)
	}
	if n := crowdedCount(t, a); n != 0 {
		t.Errorf("%v counted as crowded", n)
	}
	a.attach(crowded+1, 1, 1, 1)
	if n := crowdedCount(t, a); n != 1 {
		t.Errorf("%v counted as crowded", n)
	}
}

func FuzzParseValue(f *testing.F) {
	f.Add("")
	f.Add(strings.Repeat("\xff", valueBytes))
	f.Fuzz(func(t *testing.T, s string) {
		v, ok := parseValue(s)
		if ok != (len(s) == valueBytes) {
			t.Fatalf("%d bytes: %v", len(s), ok)
		}
		if ok && who(v.tag, v.entry.Conn) != s[orderBytes:] {
			t.Fatalf("%x is not %+v", s, v)
		}
	})
}

func FuzzParseLease(f *testing.F) {
	f.Add("1", "2 1700000000000000 65536 host:5190")
	f.Add("1", "2 3 4 ")
	f.Add("x", "-1  a b")
	f.Fuzz(func(t *testing.T, node, text string) {
		l, err := parseLease(node, text)
		if err == nil && (!validAddr(l.Addr) || fmt.Sprint(l.Node) != strings.TrimLeft(node, "0") && l.Node != 0) {
			t.Fatalf("%q %q: %+v", node, text, l)
		}
	})
}

func crowdedCount(t *testing.T, n *node) float64 {
	t.Helper()
	return testutil.ToFloat64(n.metrics.crowded)
}
