package slots

import (
	"bytes"
	"context"
	"errors"
	"strings"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/mysql"
)

// leased is a shard with nodes that work on it.
type leased struct {
	storage.Shard
	nodes map[storage.NodeID]time.Duration
	err   error
}

func (l *leased) Status(context.Context) (st mysql.Status, err error) {
	for n, left := range l.nodes {
		st.Leases = append(st.Leases, mysql.Lease{Node: n, Left: left})
	}
	return st, l.err
}

// Slots do not go where a node that runs cannot follow them.
func TestMoveToAShardThatANodeLacks(t *testing.T) {
	type leases = map[storage.NodeID]time.Duration
	for name, tt := range map[string]struct {
		source, target leases
		err            error
		want           string // part of the error; empty: it moves
	}{
		"no node":          {},
		"all know it":      {source: leases{1: 9 * time.Second, 2: 8 * time.Second}, target: leases{1: time.Second, 2: time.Second}},
		"one lacks it":     {source: leases{1: 9 * time.Second, 2: 8 * time.Second}, target: leases{1: time.Second}, want: "node 2 works on shard 1, and not on shard 2"},
		"one has ended":    {source: leases{1: 9 * time.Second, 2: -time.Hour}, target: leases{1: time.Second}},
		"it ended there":   {source: leases{1: 9 * time.Second}, target: leases{1: -time.Second}, want: "wait 9s"},
		"only the target":  {target: leases{3: time.Second}},
		"nobody can tell":  {err: errors.New("access denied"), want: "access denied"},
		"an earlier lease": {source: leases{1: 0}},
	} {
		t.Run(name, func(t *testing.T) {
			shards := two(t)
			shards[0] = &leased{shards[0], tt.source, tt.err}
			shards[1] = &leased{shards[1], tt.target, nil}
			var out bytes.Buffer
			err := Move(t.Context(), shards, Job{Slots: "7", To: 2}, zerolog.Nop(), &out)
			moved := strings.Contains(out.String(), "slot 7: shard 1 → 2")
			if moved != (tt.want == "") || (err == nil) != moved || err != nil && !strings.Contains(err.Error(), tt.want) {
				t.Errorf("%v, and said %q", err, out.String())
			}
			// Back to where everybody is it may always go.
			if err := Move(t.Context(), shards, Job{Slots: "7", To: 1}, zerolog.Nop(), &out); tt.target == nil && tt.err == nil && err != nil {
				t.Errorf("back: %v", err)
			}
		})
	}
}
