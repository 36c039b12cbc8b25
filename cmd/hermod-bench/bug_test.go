package main

import (
	"bytes"
	"context"
	"os"
	"os/exec"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/bench/torture"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
	"github.com/hermod-im/hermod/cmd/internal/config"
)

// seeded is a run that shows a bug which the server has on purpose: what it is
// tortured with, and by which invariant the torture finds it.
type seeded struct {
	bug   string
	fleet bool // it takes several nodes
	with  trial
	finds []torture.Invariant // one of these
}

// trial is a short run, always the same.
type trial struct {
	// environ is added to the servers' environment.
	environ  []string
	schedule []torture.Strike
	change   func(*torture.Options)
}

// slowDisk: a sync takes a while, and what is not synced dies with the process.
const slowDisk = "HERMOD_TORTURE_SYNC=300ms"

// slowerDisk: deliveries to the other shard wait for each other, and go together.
const slowerDisk = "HERMOD_TORTURE_SYNC=100ms"

// shortInboxes: retention takes what is older than a hundred events.
const shortInboxes = "HERMOD_STORAGE_RETAIN_EVENTS=100"

var (
	kills = []torture.Strike{
		{After: 1500 * time.Millisecond, Fault: "node-kill", Target: "node"},
		{After: 1500 * time.Millisecond, Fault: "node-kill", Target: "node"},
	}
	// comeBack: everybody is cut off and comes back with sends that are on their
	// way to the disk; before they get there the node dies.
	comeBack = []torture.Strike{
		{After: time.Second, Fault: "clients-cut", Target: "clients→node"},
		{After: 200 * time.Millisecond, With: true, Fault: "node-kill", Target: "node"},
		{After: 1500 * time.Millisecond, Fault: "clients-cut", Target: "clients→node"},
		{After: 200 * time.Millisecond, With: true, Fault: "node-kill", Target: "node"},
	}
	cuts = []torture.Strike{
		{After: time.Second, Fault: "clients-cut", Target: "clients→node"},
		{After: time.Second, Fault: "clients-cut", Target: "clients→node"},
		{After: time.Second, Fault: "clients-cut", Target: "clients→node"},
	}
	// torn: connections to the database break.
	torn = slices.Repeat([]torture.Strike{
		{After: 300 * time.Millisecond, Fault: "link-cut", Target: "node1→mariadb1", Last: 100 * time.Millisecond},
		{After: 300 * time.Millisecond, Fault: "link-cut", Target: "node2→mariadb1", Last: 100 * time.Millisecond},
	}, 5)
	// halfWay: the way to the database is slow, and cut with transactions on it.
	halfWay = []torture.Strike{
		{Fault: "database-slow", Target: "mariadb1", Last: 5 * time.Second},
		{After: 1500 * time.Millisecond, With: true, Fault: "link-cut", Target: "node1→mariadb1", Last: 200 * time.Millisecond},
	}
	// forgotten: devices come back by the other node while nobody can be told,
	// and then everybody is registered anew.
	forgotten = []torture.Strike{
		{After: time.Second, Fault: "redis-kill", Target: "redis", Last: 4 * time.Second},
		{After: time.Second, Fault: "redis-kill", Target: "redis", Last: 4 * time.Second},
	}
)

// busy has people write a lot to few others, and do nothing else.
func busy(o *torture.Options) { o.Rate, o.Duration = 400, 4*time.Second }

// many has more people, who are less in each other's way: of a busy few only one
// transaction would be under way.
func many(o *torture.Options) { o.People, o.Rate = 30, 300 }

// haunted has apps come back again and again, while an older process of theirs
// is still connected.
func haunted(o *torture.Options) { o.Restless, o.Ghosts = 40, 1 }

func seededBugs() []seeded {
	return []seeded{
		{bug: "ack-before-commit", with: trial{schedule: kills}, finds: []torture.Invariant{torture.I1}},
		{bug: "ack-before-sync", with: trial{environ: []string{slowDisk}, schedule: kills[:1]}, finds: []torture.Invariant{torture.I1}},
		{bug: "visible-not-durable", with: trial{environ: []string{slowDisk}, schedule: comeBack}, finds: []torture.Invariant{torture.I1, torture.I6}},
		{bug: "dedupe-before-lock", with: trial{schedule: cuts}, finds: []torture.Invariant{torture.I1, torture.I8}},
		{bug: "dropped-task", with: trial{change: busy}, finds: []torture.Invariant{torture.I1}},
		{bug: "tasks-out-of-order", with: trial{environ: []string{slowerDisk}, change: busy}, finds: []torture.Invariant{torture.I1}},
		{bug: "retention-without-floor", with: trial{environ: []string{shortInboxes}, change: busy}, finds: []torture.Invariant{torture.I2}},
		{bug: "stale-session", with: trial{change: haunted}, finds: []torture.Invariant{torture.I7}},
		{bug: "seq-outside-tx", fleet: true, with: trial{schedule: torn, change: many}, finds: []torture.Invariant{torture.I2}},
		{bug: "attach-order-ignored", fleet: true, with: trial{schedule: forgotten, change: haunted}, finds: []torture.Invariant{torture.I7}},
	}
}

// seededRuns is how often some seconds of torture are tried at most: nearly
// always once is enough, but most of the bugs are races, and a machine that is
// busy with other tests does not run into each every time.
const seededRuns = 4

// TestSeededBugsAreCaught: the torture finds each bug that a server can be given,
// and says what it breaks. A server without one goes through the same unharmed.
func TestSeededBugsAreCaught(t *testing.T) {
	binary := serverBinary(t, "torture")
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	for _, s := range seededBugs() {
		t.Run(s.bug, func(t *testing.T) {
			t.Parallel()
			w := s.with
			w.environ = append([]string{"HERMOD_TORTURE_BUG=" + s.bug}, w.environ...)
			patience := 5 * time.Second
			if slices.Contains(s.finds, torture.I7) {
				patience = 35 * time.Second // a session too many is one after 30 s
			}
			for run := 1; ; run++ {
				begin := time.Now()
				rep := w.run(t, binary, s.fleet, patience)
				t.Logf("%v, %v, like %v", time.Since(begin).Round(time.Millisecond), rep.Counts, rep.Violations[:min(4, len(rep.Violations))])
				if slices.ContainsFunc(rep.Violations, func(v torture.Violation) bool { return slices.Contains(s.finds, v.Invariant) }) {
					return
				}
				if run == seededRuns {
					var text bytes.Buffer
					_ = rep.WriteSummary(&text)
					t.Fatalf("not caught in %d runs: none of %v is said to be broken\n%s", run, s.finds, &text)
				}
			}
		})
	}
	all := func(o *torture.Options) { haunted(o); o.Ghosts, o.Rate = 0.3, 200 }
	for name, c := range map[string]struct {
		fleet bool
		trial
	}{
		"none, single": {false, trial{[]string{slowDisk, shortInboxes}, slices.Concat(comeBack, cuts), all}},
		"none, fleet":  {true, trial{nil, slices.Concat(torn, halfWay, forgotten[:1]), all}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			begin := time.Now()
			rep := c.run(t, binary, c.fleet, time.Minute)
			if !rep.OK() {
				var text bytes.Buffer
				_ = rep.WriteSummary(&text)
				t.Errorf("found what is not there:\n%s", &text)
			}
			t.Logf("%v, %d acknowledged", time.Since(begin).Round(time.Millisecond), rep.Acked)
		})
	}
}

// run starts a system and tortures it.
func (w trial) run(t *testing.T, binary string, several bool, patience time.Duration) *torture.Report {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	var sys system
	var err error
	if several {
		sys, err = startFleet(ctx, binary, t.TempDir(), func(o *cluster.Options) {
			o.Nodes, o.Shards, o.Databases = 2, 2, 1
			o.Settings = append(o.Settings, w.environ...)
		})
	} else {
		sys, err = startSingle(ctx, binary, t.TempDir(), func(s *single) {
			s.environ, s.slots = append(s.environ, w.environ...), peopled
			// Two shards, so that there are tasks.
			for id := range 2 {
				s.cfg.Storage.Shards = append(s.cfg.Storage.Shards, config.ShardConfig{ID: id + 1, Engine: config.Embedded})
			}
		})
	}
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := sys.Close(); err != nil {
			t.Error(err)
		}
	}()
	o := torture.Options{
		System: sys, Schedule: w.schedule, People: 12, Rate: 150, Restless: -1, Ghosts: -1,
		Calm: time.Second, Duration: 2 * time.Second, Patience: patience,
	}
	if o.Schedule == nil {
		o.Schedule = []torture.Strike{} // none, and none drawn
	}
	if w.change != nil {
		w.change(&o)
	}
	rep, err := torture.Run(ctx, o)
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestNoBugsInServers: a server that was made as servers are knows of no bug, by
// name or otherwise, and does not start if it is asked for one.
func TestNoBugsInServers(t *testing.T) {
	plain, buggy := serverBinary(t, ""), serverBinary(t, "torture")
	for binary, want := range map[string]bool{plain: false, buggy: true} {
		text, err := os.ReadFile(binary)
		if err != nil {
			t.Fatal(err)
		}
		for _, s := range seededBugs() {
			if bytes.Contains(text, []byte(s.bug)) != want {
				t.Errorf("%s knows of %s: %v", binary, s.bug, !want)
			}
		}
	}
	for binary, want := range map[string]string{plain: "names no setting", buggy: "no bug is called"} {
		cmd := exec.Command(binary, "check")
		cmd.Env, cmd.Dir = append(os.Environ(), "HERMOD_TORTURE_BUG=such"), t.TempDir()
		out, err := cmd.CombinedOutput()
		if err == nil || !strings.Contains(string(out), want) {
			t.Errorf("%s, asked for a bug that is none: %v, %s", binary, err, out)
		}
	}
}
