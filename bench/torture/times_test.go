package torture

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// timedRun is the world of TestChecker, with a schedule behind it. In it a
// message of ms 1000 is acknowledged at 1010.
func timedRun(t *testing.T, struck ...Struck) (*run, *held) {
	t.Helper()
	w := newHeld(t)
	w.h.struck = struck
	sys := &fakeSystem{endpoints: []string{"a", "b"}, place: map[int64]string{ann: "db1", bob: "db1", carl: "db2"}}
	r := &run{opt: &Options{System: sys, Evidence: t.TempDir(), Seed: 42}, h: w.h, rep: &Report{Begun: w.h.begun, Strikes: struck}}
	r.times = newTimes(r)
	return r, w
}

func at(ms int) time.Duration { return time.Duration(ms) * time.Millisecond }

// TestBack: who was cut off by a kill counts, from the strike to the moment
// when all was caught up; who left by themselves does not.
func TestBack(t *testing.T) {
	for name, c := range map[string]struct {
		spans []span
		got   string
		count int
		ok    bool
	}{
		"never away":      {[]span{{from: 1}}, "0s", 0, true},
		"back soon":       {[]span{{1, 1010, false}, {from: 2500}}, "1.5s", 1, true},
		"back late":       {[]span{{1, 1010, false}, {from: 14_000}}, "13s", 1, false},
		"left by itself":  {[]span{{1, 1010, true}, {from: 60_000}}, "0s", 0, true},
		"away before":     {[]span{{1, 900, false}, {from: 60_000}}, "0s", 0, true},
		"never back":      {[]span{{1, 1010, false}}, "never", 0, false},
		"cut off at last": {[]span{{1, 2000, false}, {2100, 4000, false}, {from: 4100}}, "1.1s", 1, true},
	} {
		t.Run(name, func(t *testing.T) {
			r, w := timedRun(t, Struck{Strike: Strike{Fault: "node-kill"}, At: at(1000), Healed: at(5000)})
			w.h.devices[0].spans = c.spans
			got := r.times.back()
			if got[0].Got != c.got || got[0].Count != c.count || got[0].OK != c.ok {
				t.Errorf("%+v", got[0])
			}
		})
	}
}

// TestLag: a push is as late as no fault and no absence explains.
func TestLag(t *testing.T) {
	for name, c := range map[string]struct {
		span    span
		applied int32
		healed  int // of a fault from 900 on; 0: there is none
		want    int32
	}{
		"at once":                  {span{from: 1}, 1100, 0, 90},
		"lost and repaired":        {span{from: 1}, 41_010, 0, 40_000},
		"the device was away":      {span{from: 30_000}, 41_010, 0, 11_010},
		"while catching up":        {span{1, 500, false}, 41_010, 0, 0},
		"a fault was in the way":   {span{from: 1}, 21_000, 20_000, 1000},
		"a fault, and lost beside": {span{from: 1}, 61_000, 20_000, 41_000},
	} {
		t.Run(name, func(t *testing.T) {
			r, w := timedRun(t)
			if c.healed > 0 {
				w.h.struck = []Struck{{At: at(900), Healed: at(c.healed)}}
			}
			d := w.h.devices[1]
			d.spans = []span{c.span}
			w.h.at(1).begun, w.h.at(1).ended = 1000, 1010
			if got := r.times.lag(d, sight{message: 1, at: c.applied}); got != c.want {
				t.Errorf("late by %d, want %d", got, c.want)
			}
		})
	}
}

// TestSampled: what samples say of routes, tasks and memory.
func TestSampled(t *testing.T) {
	r, w := timedRun(t,
		Struck{Strike: Strike{Fault: "redis-flush"}, At: at(10_000), Healed: at(10_000)},
		Struck{Strike: Strike{Fault: "database-kill", Target: "db2"}, At: at(20_000), Healed: at(25_000)},
		Struck{Strike: Strike{Fault: "database-slow", Target: "db1"}, At: at(40_000), Healed: at(50_000)},
	)
	r.times.calm = 5000
	for ms := int32(0); ms < 90_000; ms += 500 {
		s := sample{at: ms, tasks: 4, routes: 100, online: 100, memory: map[string]uint64{"node": 1000}}
		if ms >= 10_000 && ms < 14_000 {
			s.routes = 50
		}
		if ms >= 20_000 && ms < 33_000 {
			s.tasks = 900
		}
		if ms == 45_000 {
			s.memory["node"] = 1500
		}
		r.times.samples = append(r.times.samples, s)
	}
	if got := r.times.routes()[0]; got.Got != "4s" || !got.OK || got.Count != 1 {
		t.Errorf("routes: %+v", got)
	}
	if got := r.times.drained()[0]; got.Got != "8s" || !got.OK || got.Count != 2 {
		t.Errorf("tasks: %+v", got)
	}
	if got := r.times.memory()[0]; got.Got != "1.50×" || got.OK {
		t.Errorf("memory: %+v", got)
	}
	w.h.struck = nil
	for _, got := range r.times.judge() {
		if !got.OK || got.Count > 0 {
			t.Errorf("with no faults: %+v", got)
		}
	}
}

// TestRoutes: a directory that was emptied has everybody again; one that was away
// what it had before; one that lost a part of it is not measured.
func TestRoutes(t *testing.T) {
	for name, c := range map[string]struct {
		fault         string
		before, after int // of 100
		want          string
		count         int
	}{
		"a part is lost":                    {"redis-loss", 100, 60, "0s", 0},
		"away, when a part was lost before": {"redis-pause", 70, 70, "0s", 1},
		"away, and then less than before":   {"redis-silent", 100, 70, "never", 1},
		"emptied, and full":                 {"redis-kill", 70, 100, "0s", 1},
		"emptied, and as full as before":    {"redis-flush", 70, 70, "never", 1},
	} {
		t.Run(name, func(t *testing.T) {
			r, _ := timedRun(t, Struck{Strike: Strike{Fault: c.fault}, At: at(10_000), Healed: at(12_000)})
			for ms := int32(0); ms < 90_000; ms += 500 {
				s := sample{at: ms, routes: c.before, online: 100}
				if ms >= 10_000 {
					s.routes = c.after
				}
				r.times.samples = append(r.times.samples, s)
			}
			if got := r.times.routes()[0]; got.Got != c.want || got.Count != c.count || got.OK != (c.want != "never") {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestOthers: acks of people whom a broken database does not concern.
func TestOthers(t *testing.T) {
	for name, c := range map[string]struct {
		during int32 // ms that acks take while db2 is away
		target string
		ok     bool
		count  int
		got    string
	}{
		"as before":       {20, "db2", true, 1, "20 ms, usually 20 ms; 20 ms in the worst, a database-kill"},
		"thrice as long":  {60, "db2", false, 1, "60 ms, usually 20 ms; 60 ms in the worst, a database-kill"},
		"one's own shard": {6000, "db1", true, 0, ""},
	} {
		t.Run(name, func(t *testing.T) {
			r, w := timedRun(t, Struck{Strike: Strike{Fault: "database-kill", Target: c.target}, At: at(10_000), Healed: at(20_000)})
			r.times.calm = 5000
			for i := range 200 {
				for _, m := range []struct{ begun, took int32 }{{int32(1000 + i), 20}, {int32(11_000 + i), c.during}} {
					n := w.h.begin([16]byte{9, byte(i), byte(m.took), byte(m.begun >> 10)}, w.h.devices[0], 1)
					w.h.answer(n, acked, nil)
					w.h.at(n).begun, w.h.at(n).ended = m.begun, m.begun+m.took
				}
			}
			// Those that a strike caught are not usual.
			for i := range 20 {
				n := w.h.begin([16]byte{8, byte(i)}, w.h.devices[0], 1)
				w.h.answer(n, acked, nil)
				w.h.at(n).begun, w.h.at(n).ended = 9_900, 30_000
			}
			if got := r.times.others()[0]; got.OK != c.ok || got.Count != c.count || got.Got != c.got {
				t.Errorf("%+v", got)
			}
		})
	}
}

// TestJudge: what is wrong with the servers' end is told, and does not keep the
// stores from being looked at.
func TestJudge(t *testing.T) {
	r, _ := timedRun(t)
	r.crowd, r.opt.System = &crowd{}, &fakeSystem{stopped: errors.New("node2 had to be killed")}
	r.rep.Counts = map[Invariant]int{}
	r.judge(t.Context())
	if got := strings.Join(r.rep.Trouble, "\n"); !strings.Contains(got, "node2 had to be killed") || r.rep.Counts[I1] == 0 {
		t.Errorf("trouble %q, found %v", got, r.rep.Counts)
	}
}

// TestEvidence: a failed run leaves what one needs to look into it.
func TestEvidence(t *testing.T) {
	r, w := timedRun(t, Struck{Strike: Strike{Fault: "node-kill", Target: "node2"}, At: at(1), Healed: at(30)})
	w.inboxes[bob].drop(1, true)
	w.h.block(1, 0)
	c := newChecker(w.h, w)
	if err := c.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	r.rep.Violations, r.schedule = c.found, Plan(42, someFaults(), 3)
	r.rep.Counts = map[Invariant]int{I1: c.count[I1]}
	if r.rep.OK() {
		t.Fatal("a report with violations is OK")
	}
	if err := r.keepEvidence(); err != nil {
		t.Fatal(err)
	}
	read := func(name string) string {
		text, err := os.ReadFile(filepath.Join(r.rep.Evidence, name))
		if err != nil {
			t.Error(err)
		}
		return string(text)
	}
	page := read("summary.txt")
	for _, want := range []string{
		"FAILED", "inbox of bob has rev 1", "Message 2, send id 02", "device 0 of ann sends it to bob",
		"acknowledged, code 0, rev 2", "device 2 of bob applies it: seq 2", "node-kill on node2",
		"bob blocks ann",
	} {
		if !strings.Contains(page, want) {
			t.Errorf("the page does not say %q:\n%s", want, page)
		}
	}
	if n := strings.Count(page, "\n"); n > 66 {
		t.Errorf("the page has %d lines", n)
	}
	if !strings.Contains(read("schedule.json"), `"seed": 42`) || !strings.Contains(read("logs/node.log"), "not me") {
		t.Error("the schedule or the logs are missing")
	}
	for _, name := range []string{"messages.tsv.gz", "applied.tsv.gz", "blocks.tsv.gz", "report.json"} {
		if len(read(name)) < 50 {
			t.Errorf("%s is empty", name)
		}
	}
}
