package torture

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"
)

// times measures how long things take until they work again. What the history
// has is worked out at the end; what only the system knows is sampled.
type times struct {
	r *run
	// calm is when the first fault was due, in ms.
	calm int32

	mu      sync.Mutex
	samples []sample
}

// sample is the state of a system at one moment; below 0: it did not say.
type sample struct {
	at            int32
	tasks, routes int
	online        int
	memory        map[string]uint64
}

const sampleEvery = 500 * time.Millisecond

func newTimes(r *run) *times { return &times{r: r} }

// watch samples until ctx ends.
func (t *times) watch(ctx context.Context) {
	for t.r.opt.Times && ctx.Err() == nil {
		s := t.sample(ctx)
		t.mu.Lock()
		t.samples = append(t.samples, s)
		t.mu.Unlock()
		sleep(ctx, sampleEvery)
	}
}

func (t *times) sample(ctx context.Context) sample {
	s := sample{at: t.r.h.now(), tasks: -1, routes: -1}
	ctx, cancel := context.WithTimeout(ctx, 2*time.Second)
	defer cancel()
	sys := t.r.opt.System
	var wg sync.WaitGroup
	wg.Go(func() {
		if n, err := sys.Tasks(ctx); err == nil {
			s.tasks = n
		}
	})
	wg.Go(func() {
		if n, err := sys.Routes(ctx); err == nil {
			s.routes = n
		}
	})
	wg.Go(func() {
		if m, err := sys.Memory(ctx); err == nil {
			s.memory = m
		}
	})
	wg.Wait()
	for _, d := range t.devices() {
		if d.online() {
			s.online++
		}
	}
	return s
}

func (t *times) devices() []*record {
	t.r.h.mu.Lock()
	defer t.r.h.mu.Unlock()
	return slices.Clone(t.r.h.devices)
}

// Bounds of the times.
const (
	backMost, backAll = 10 * time.Second, 30 * time.Second
	routesWithin      = 30 * time.Second
	repairWithin      = 60 * time.Second
	tasksWithin       = 60 * time.Second
	othersFactor      = 2
	memoryFactor      = 1.2
)

// judge works out the figures. Everybody is quiet.
func (t *times) judge() []Timing {
	return slices.Concat(t.back(), t.routes(), t.repairs(), t.drained(), t.others(), t.memory())
}

// alone are the strikes of faults whose names match, with no other beside them.
func (t *times) alone(match func(name string) bool) (out []Struck) {
	all := t.r.h.struck
	for _, s := range all {
		overlaps := 0
		for _, o := range all {
			if o.At <= s.Healed && s.At <= o.Healed {
				overlaps++
			}
		}
		if match(s.Fault) && s.Error == "" && overlaps == 1 {
			out = append(out, s)
		}
	}
	return out
}

func named(names ...string) func(string) bool {
	return func(name string) bool { return slices.Contains(names, name) }
}

func prefixed(prefix string) func(string) bool {
	return func(name string) bool { return strings.HasPrefix(name, prefix) }
}

// inMillis is a duration since the start as the history counts.
func inMillis(d time.Duration) int32 { return int32(d / time.Millisecond) }

// back: how long after a node was killed those who were on it are on another
// one and have all that they missed. Where there is no other, the time counts
// from its return.
func (t *times) back() []Timing {
	var all []time.Duration
	never := 0
	for _, s := range t.alone(named("node-kill")) {
		from := inMillis(s.At)
		if len(t.r.opt.System.Endpoints()) == 1 {
			from = inMillis(s.Healed)
		}
		for _, d := range t.r.h.devices {
			took, hit := d.back(inMillis(s.At), inMillis(s.Healed), from)
			switch {
			case !hit:
			case took < 0:
				never++
			default:
				all = append(all, took)
			}
		}
	}
	slices.Sort(all)
	p95, most := quantile(all, 0.95), quantile(all, 1)
	name := "back and synced after a node's kill -9"
	return []Timing{
		bound(name+", 95 %", p95, backMost, len(all), never == 0),
		bound(name+", all", most, backAll, len(all), never == 0),
	}
}

// back is how long after from the device was caught up again, if the strike
// has cut it off and nothing else has; below 0: never.
func (r *record) back(at, healed, from int32) (took time.Duration, hit bool) {
	for i, s := range r.spans {
		if s.to < at || s.to > healed || s.to == 0 || s.left {
			continue
		}
		if i+1 == len(r.spans) {
			return -1, !r.ended
		}
		return time.Duration(max(0, r.spans[i+1].from-from)) * time.Millisecond, true
	}
	return 0, false
}

// routes: how long after the directory was emptied, or away, it has everybody
// again. Losing a part of it is none of these: a node whose lease is still there
// does not notice, and what it had comes back by itself within ten minutes. Nor
// is what the directory lacked of that already held against the next outage.
func (t *times) routes() []Timing {
	var all []time.Duration
	ok := true
	for _, s := range t.alone(named("redis-flush", "redis-kill", "redis-pause", "redis-silent")) {
		want := mostRoutes
		if named("redis-pause", "redis-silent")(s.Fault) {
			want = t.routesBefore(s)
		}
		took, back := t.after(s, func(m sample) bool { return m.routes >= 0 && float64(m.routes) >= want*float64(m.online) })
		all, ok = append(all, took), ok && back
	}
	slices.Sort(all)
	return []Timing{bound("all routes known after Redis was flushed or away", quantile(all, 1), routesWithin, len(all), ok)}
}

// mostRoutes is the share of the devices that have a route when all is well:
// some come and go all the time.
const mostRoutes = 0.98

// routesBefore is that share right before a strike, mostRoutes at most.
func (t *times) routesBefore(s Struck) float64 {
	share := mostRoutes
	for _, m := range t.samples {
		if m.at < inMillis(s.At) && m.routes >= 0 && m.online > 0 {
			share = min(mostRoutes, float64(m.routes)/float64(m.online))
		}
	}
	return share
}

// after is how long after the heal of s a sample is as it should be.
func (t *times) after(s Struck, ok func(sample) bool) (time.Duration, bool) {
	healed := inMillis(s.Healed)
	for _, m := range t.samples {
		if m.at >= healed && ok(m) {
			return time.Duration(m.at-healed) * time.Millisecond, true
		}
	}
	return t.r.rep.Elapsed, false
}

// drained: how long after a database's return no more deliveries are owed than
// while all was well.
func (t *times) drained() []Timing {
	usual := 0
	for _, m := range t.samples {
		if m.at < t.calm {
			usual = max(usual, m.tasks)
		}
	}
	var all []time.Duration
	ok := true
	for _, s := range t.alone(prefixed("database-")) {
		took, back := t.after(s, func(m sample) bool { return m.tasks >= 0 && m.tasks <= usual+usual/4+1 })
		all, ok = append(all, took), ok && back
	}
	slices.Sort(all)
	return []Timing{bound("tasks as few as before after a shard's return", quantile(all, 1), tasksWithin, len(all), ok)}
}

// memory: how much more a server has resident while a database is slow than
// in the time before.
func (t *times) memory() []Timing {
	worst, n := 0.0, 0
	for _, s := range t.alone(named("database-slow")) {
		before, during := make(map[string]uint64), make(map[string]uint64)
		for _, m := range t.samples {
			for name, b := range m.memory {
				switch at := time.Duration(m.at) * time.Millisecond; {
				case at < s.At:
					before[name] = max(before[name], b)
				case at <= s.Healed:
					during[name] = max(during[name], b)
				}
			}
		}
		for name, b := range during {
			if before[name] > 0 {
				worst = max(worst, float64(b)/float64(before[name]))
				n++
			}
		}
	}
	return []Timing{{
		Name: "server memory under a slow database, of the most before", Count: n,
		Got: fmt.Sprintf("%.2f×", worst), Want: fmt.Sprintf("≤ %.1f×", memoryFactor), OK: n == 0 || worst <= memoryFactor,
	}}
}

// quantile is one of an ascending list.
func quantile[T any](sorted []T, q float64) (v T) {
	if len(sorted) == 0 {
		return v
	}
	return sorted[min(int(q*float64(len(sorted))), len(sorted)-1)]
}

func bound(name string, got, most time.Duration, n int, ok bool) Timing {
	t := Timing{Name: name, Got: got.Round(time.Millisecond).String(), Want: "≤ " + most.String(), Count: n, OK: ok && (n == 0 || got <= most)}
	if !ok {
		t.Got = "never"
	}
	return t
}
