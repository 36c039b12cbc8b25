//go:build torture

package main

import (
	"context"
	"os"
	"strings"
	"sync"
	"sync/atomic"
	"time"
	"unsafe"
)

// clocks are the node's and, as it sees them, the shards'.
type clocks struct {
	now, shard func() time.Time
	skew       func() time.Duration
}

// startClocks follows the files that HERMOD_TORTURE_CLOCK (this node's clock)
// and HERMOD_TORTURE_SHARD_CLOCK (that of all shards: an embedded one's, or what
// databases tell) name. Each says how wrong the clock is, as «-1m30s»; where no
// file is, it is right.
func startClocks(ctx context.Context, work *sync.WaitGroup) clocks {
	node, shard := new(atomic.Int64), new(atomic.Int64)
	for env, wrong := range map[string]*atomic.Int64{"HERMOD_TORTURE_CLOCK": node, "HERMOD_TORTURE_SHARD_CLOCK": shard} {
		if file := os.Getenv(env); file != "" {
			wrong.Store(int64(readStep(file)))
			work.Go(func() { follow(ctx, file, wrong) })
		}
	}
	return clocks{
		now:   func() time.Time { return stepped(time.Now(), time.Duration(node.Load())) },
		shard: func() time.Time { return stepped(time.Now(), time.Duration(shard.Load())) },
		skew:  func() time.Duration { return time.Duration(shard.Load()) },
	}
}

func follow(ctx context.Context, file string, wrong *atomic.Int64) {
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
			wrong.Store(int64(readStep(file)))
		}
	}
}

func readStep(file string) time.Duration {
	text, err := os.ReadFile(file)
	if err != nil {
		return 0
	}
	d, err := time.ParseDuration(strings.TrimSpace(string(text)))
	if err != nil {
		panic(file + ": " + err.Error())
	}
	return d
}

// stepped is what time.Now would have returned if the clock had been set by so
// many whole seconds: another time of day, and no change of the monotonic
// reading, by which times are compared and subtracted. Time.Add changes both,
// which no step of a real clock does; there is no other way than to know how a
// Time is made: bits 30 to 62 of its first word are the seconds.
func stepped(t time.Time, by time.Duration) time.Time {
	const nanosecondBits = 30
	*(*uint64)(unsafe.Pointer(&t)) += uint64(by/time.Second) << nanosecondBits
	return t
}
