//go:build !torture

package main

import (
	"context"
	"sync"
	"time"
)

// clocks are the node's and, as it sees them, the shards'.
type clocks struct {
	now, shard func() time.Time
	// skew is added to what databases tell; nil: nothing.
	skew func() time.Duration
}

// startClocks: they are right. A server made with the build tag torture has
// clocks that can be set wrong while it runs.
func startClocks(context.Context, *sync.WaitGroup) clocks {
	return clocks{now: time.Now, shard: time.Now}
}
