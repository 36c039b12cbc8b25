package slots

import (
	"context"
	"fmt"
	"time"

	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/mysql"
)

// leaser is a shard that tells which nodes work on it: one on a database.
type leaser interface {
	Status(context.Context) (mysql.Status, error)
}

// known makes sure that every node that runs works on shard to. One whose
// configuration lacks the shard would take its slots for being on the move for
// ever, and let their users wait in vain.
func known(ctx context.Context, shards []storage.Shard, to storage.ShardID) error {
	there := map[storage.NodeID]bool{}
	elsewhere := map[storage.NodeID]storage.ShardID{}
	left := map[storage.NodeID]time.Duration{}
	for _, sh := range shards {
		l, ok := sh.(leaser)
		if !ok {
			if sh.ID() == to {
				return nil // embedded: in the one process that there is
			}
			continue
		}
		st, err := l.Status(ctx)
		if err != nil {
			return fmt.Errorf("shard %d: reading its leases: %w", sh.ID(), err)
		}
		for _, lease := range st.Leases {
			switch {
			case lease.Left <= 0:
			case sh.ID() == to:
				there[lease.Node] = true
			default:
				elsewhere[lease.Node], left[lease.Node] = sh.ID(), max(left[lease.Node], lease.Left)
			}
		}
	}
	for node, at := range elsewhere {
		if !there[node] {
			return fmt.Errorf("node %d works on shard %d, and not on shard %d: add that to its configuration and start it again before slots go there; "+
				"it could not serve their users. If that node has just ended for good, wait %v", node, at, to, left[node].Round(time.Second))
		}
	}
	return nil
}
