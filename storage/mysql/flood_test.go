package mysql

import (
	"context"
	"testing"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	dto "github.com/prometheus/client_model/go"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// flood is for how long two nodes append to the same users.
const flood = 20 * time.Second

// deadlockShare is what part of the transactions may be deadlocks, each of which
// costs one more run. All lock in one order (R2), so only what is locked beside
// the rows that are named is left for them: gaps, and keys that are not there.
const deadlockShare = 0.01

// TestTwoNodesFlatOut: two nodes, each with connections of its own, append to
// the same users on two shards. Nothing is out of order, doubled or missing,
// and they get into each other's way rarely.
func TestTwoNodesFlatOut(t *testing.T) {
	var shards []*Shard
	messages := storagetest.RunFlood(t, len(dbs), flood, func(t testing.TB, id storage.ShardID) storagetest.ShardEnv {
		opt := Options{ID: id, DSN: database(t, int(id)-1)}
		return storagetest.ShardEnv{Open: func(t testing.TB) storage.Shard {
			s, err := Open(context.Background(), opt)
			if err != nil {
				t.Fatal(err)
			}
			shards = append(shards, s)
			return s
		}}
	})
	var commits, deadlocks, duplicates float64
	for _, s := range shards {
		commits += float64(measured(t, s.metrics.commits).GetHistogram().GetSampleCount())
		deadlocks += measured(t, s.metrics.again.WithLabelValues("deadlock")).GetCounter().GetValue()
		duplicates += measured(t, s.metrics.again.WithLabelValues("duplicate")).GetCounter().GetValue()
	}
	t.Logf("%d messages, %.0f/s, in %.0f transactions; %.0f deadlocks, %.0f duplicate keys",
		messages, float64(messages)/flood.Seconds(), commits, deadlocks, duplicates)
	if messages < 2000 || len(shards) != 2*len(dbs) {
		t.Errorf("only %d messages by %d shards' hands", messages, len(shards))
	}
	if deadlocks > deadlockShare*commits {
		t.Errorf("%.0f of %.0f transactions were deadlocks", deadlocks, commits)
	}
}

func measured(t *testing.T, m prometheus.Metric) *dto.Metric {
	t.Helper()
	var out dto.Metric
	if err := m.Write(&out); err != nil {
		t.Fatal(err)
	}
	return &out
}
