package main

import (
	"context"
	"runtime/debug"
	"runtime/metrics"
	"time"
)

// The runtime keeps the pages that a burst of logins or messages has used: up
// to the size of the live heap again, for the next burst. A node whose clients
// mostly sit idle would show that burst in its memory for hours. So, whenever
// it is calm, the pages go back to the system.
const (
	// memoryEvery is how often the janitor looks.
	memoryEvery = 15 * time.Second
	// calmBytes is the allocation rate, per second, below which it is calm.
	calmBytes = 4 << 20
	// idleBytes is what must be unused to be worth a collection.
	idleBytes = 2 << 20
)

// memorySample is what the janitor decides on.
type memorySample struct {
	at        time.Time
	allocated uint64 // bytes ever allocated
	live      uint64 // bytes in objects, dead ones not yet swept included
	unused    uint64 // bytes of whole pages in no object, not returned
}

func readMemory(now time.Time) memorySample {
	s := []metrics.Sample{
		{Name: "/gc/heap/allocs:bytes"},
		{Name: "/memory/classes/heap/objects:bytes"},
		{Name: "/memory/classes/heap/free:bytes"},
	}
	metrics.Read(s)
	return memorySample{
		at:        now,
		allocated: s[0].Value.Uint64(),
		live:      s[1].Value.Uint64(),
		unused:    s[2].Value.Uint64(),
	}
}

// worthReturning decides between two samples. marked is the live heap after
// the last release; what grew since then may be garbage as well. Gaps between
// the objects of a page do not count: no collection closes them, and counted
// they made it collect at every look.
func worthReturning(was, is memorySample, marked uint64) bool {
	seconds := is.at.Sub(was.at).Seconds()
	if seconds <= 0 || float64(is.allocated-was.allocated)/seconds > calmBytes {
		return false
	}
	spare := is.unused
	if is.live > marked {
		spare += is.live - marked
	}
	return spare > max(idleBytes, is.live/32)
}

// keepMemorySmall returns unused pages whenever it is calm, until ctx ends.
func keepMemorySmall(ctx context.Context, now func() time.Time) {
	tick := time.NewTicker(memoryEvery)
	defer tick.Stop()
	was, marked := readMemory(now()), uint64(0)
	for {
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
		is := readMemory(now())
		if worthReturning(was, is, marked) {
			debug.FreeOSMemory()
			is = readMemory(now())
			marked = is.live
		}
		was = is
	}
}
