package main

import (
	"bytes"
	"context"
	"slices"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/bench/fault"
	"github.com/hermod-im/hermod/bench/torture"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
)

// TestTortureRareFaults strikes with what takes a server made for it, root, or a
// second version: clocks that step, disks that are full, and a node that is
// downgraded and upgraded again (to the same version, for want of an earlier one).
func TestTortureRareFaults(t *testing.T) {
	plain, stepping := serverBinary(t, ""), serverBinary(t, "torture")
	before := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, before) })
	after := func(what, target string, last time.Duration) torture.Strike {
		return torture.Strike{After: time.Second, Fault: what, Target: target, Last: last}
	}
	for name, c := range map[string]struct {
		start    func(ctx context.Context, dir string) (system, error)
		schedule []torture.Strike
	}{
		"cluster": {func(ctx context.Context, dir string) (system, error) {
			return startFleet(ctx, stepping, dir, func(o *cluster.Options) {
				o.Nodes, o.Shards, o.Databases = 2, 2, 1
				o.Clocks, o.SmallDisk, o.Previous = true, 512<<20, stepping
			})
		}, []torture.Strike{
			after("clock-ahead", "node1", 3*time.Second), after("clock-behind", "node2", 3*time.Second),
			after("shard-clock-ahead", "shards", 3*time.Second), after("shard-clock-behind", "shards", 3*time.Second),
			after("node-previous", "node1", 4*time.Second), after("database-full", "mariadb1", 4*time.Second),
		}},
		"single": {func(ctx context.Context, dir string) (system, error) {
			return startSingle(ctx, plain, dir, func(s *single) {
				if fault.Mountable() == nil {
					s.kind = smallDisk
				}
			})
		}, []torture.Strike{after("disk-full", "node", 3*time.Second), after("disk-full", "node", 3*time.Second)}},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
			defer cancel()
			sys, err := c.start(ctx, t.TempDir())
			if err != nil {
				t.Fatal(err)
			}
			defer func() {
				if err := sys.Close(); err != nil {
					t.Error(err)
				}
			}()
			for _, f := range sys.Faults() {
				if f.Unable == nil || f.Unable() == nil {
					continue
				}
				c.schedule = slices.DeleteFunc(c.schedule, func(s torture.Strike) bool {
					if s.Fault == f.Name {
						t.Logf("NOT RUN: %s: %v", f.Name, f.Unable())
					}
					return s.Fault == f.Name
				})
			}
			rep, err := torture.Run(ctx, torture.Options{
				System: sys, Schedule: c.schedule, People: 20, Rate: 100, Calm: 2 * time.Second, Duration: time.Second,
			})
			if err != nil {
				t.Fatal(err)
			}
			var text bytes.Buffer
			_ = rep.WriteSummary(&text)
			if !rep.OK() || len(rep.Strikes) != len(c.schedule) || rep.Acked < 300 {
				t.Errorf("%s", &text)
			}
			t.Logf("%s", &text)
		})
	}
}
