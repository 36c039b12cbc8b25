package storage

import (
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"github.com/rs/zerolog"
)

// Options says what a Store is made of. Zero values mean the defaults named
// on the fields; Shards and Node are required.
type Options struct {
	// Shards are all shards of the installation. Store closes none of them.
	Shards []Shard
	// Node is this node's name for good; Incarnation rises at every start.
	Node        NodeID
	Incarnation uint64
	// ClaimSlots lets Open divide the slots of an empty set of shards evenly
	// among them. Of several nodes that start at once any may do it: all
	// divide alike. Without it Open refuses shards that own nothing.
	ClaimSlots bool

	// Deliver gets what became durable, for recipients on every shard: one
	// user's deliveries in seq order, though some may be missing (push may be
	// lost, sync never). It is called from the engine's completion path, so it
	// must not block. The slice is the Store's again when it returns; bodies
	// are never changed and may be kept.
	Deliver func([]Delivery)

	// CommittersPerShard is how many batches of one shard may be planned at
	// once. 0: what the engine asks for (see CommitterHint), else 2.
	CommittersPerShard int
	// MaxBatch is the most operations in a transaction; default 128. More
	// only adds latency.
	MaxBatch int
	// MaxFlying is how many batches of a committer may be on their way to the
	// disk while the next is planned; default 2. More makes small batches.
	MaxFlying int
	// Queue and QueueBytes bound what waits for one committer; beyond it
	// calls answer ErrBusy. Defaults 8,192 and 16 MiB.
	Queue, QueueBytes int
	// CommitTimeout is how long a commit is tried again before its
	// operations, and what queued behind them, answer ErrUnavailable;
	// default 10 s.
	CommitTimeout time.Duration

	// Readers is how many Go functions run at once per shard, ReaderQueue how
	// many more may wait, ReadTimeout how long each may take. Defaults 16,
	// 1,024, 5 s.
	Readers, ReaderQueue int
	ReadTimeout          time.Duration

	// BreakAfter is for how long a shard may answer nothing (reads, barriers
	// and commits each on their own) before its calls are refused at once, with
	// ErrUnavailable, until it answers again; default 2 s. StallTimeout is when
	// a commit that has not come back at all counts as that; default 5 s.
	BreakAfter, StallTimeout time.Duration
	// QueueWait is how long what waits for a committer or a reader may have
	// waited before more is refused with ErrBusy; default 3 s. A shard that is
	// slow would otherwise answer everybody, and everybody too late.
	QueueWait time.Duration

	// RetainAge and RetainEvents bound an inbox, whichever comes first (R6);
	// defaults 30 days and 10,000. The conversation log stays.
	RetainAge    time.Duration
	RetainEvents int
	// SweepPause is the pause between two pages (of SweepUsers users) of the
	// background sweep, SweepEvery the pause between two rounds. Defaults 1 s,
	// 200, 1 h.
	SweepPause, SweepEvery time.Duration
	SweepUsers             int

	// BlockStale is how old knowledge about a user on another shard may be
	// when a send is queued (R3); default 5 s.
	BlockStale time.Duration
	// LeaseTTL and LeaseEvery: when others may take this node's tasks over,
	// and how often that is put off. Defaults 10 s and 3 s.
	LeaseTTL, LeaseEvery time.Duration
	// TaskLinger is for how long a task may have been done before its row is
	// deleted, many at once; default 500 ms.
	TaskLinger time.Duration
	// TaskRescan is how often the node reads its own tasks again, in case one
	// was forgotten; default 30 s. TaskMemory is how many it keeps in mind per
	// pair of shards; default 65,536.
	TaskRescan time.Duration
	TaskMemory int
	// RetryMin and RetryMax bound the pause before something is tried again;
	// defaults 20 ms and 2 s.
	RetryMin, RetryMax time.Duration
	// InlineBody is the size up to which an inbox row carries the body of an
	// entry whose log is on another shard; default 1,024. Larger ones are
	// fetched from there when they are read.
	InlineBody int

	// Now is the node's clock, for caches and ids made here; default
	// time.Now. Everything that is stored goes by the shards' clocks.
	Now func() time.Time
	Log zerolog.Logger
	// Metrics may be nil: nothing is exported then.
	Metrics prometheus.Registerer
}

// CommitterHint is what a Shard may implement to say how many committers suit
// it: one, where all commits go through one mutex anyway.
type CommitterHint interface{ Committers() int }

// withDefaults returns o with defaults for what is zero.
func (o Options) withDefaults() Options {
	num := func(p *int, v int) {
		if *p == 0 {
			*p = v
		}
	}
	dur := func(p *time.Duration, v time.Duration) {
		if *p == 0 {
			*p = v
		}
	}
	num(&o.MaxBatch, 128)
	num(&o.MaxFlying, 2)
	num(&o.Queue, 8192)
	num(&o.QueueBytes, 16<<20)
	dur(&o.CommitTimeout, 10*time.Second)
	num(&o.Readers, 16)
	num(&o.ReaderQueue, 1024)
	dur(&o.ReadTimeout, 5*time.Second)
	dur(&o.BreakAfter, 2*time.Second)
	dur(&o.StallTimeout, 5*time.Second)
	dur(&o.QueueWait, 3*time.Second)
	dur(&o.RetainAge, 30*24*time.Hour)
	num(&o.RetainEvents, 10000)
	dur(&o.SweepPause, time.Second)
	dur(&o.SweepEvery, time.Hour)
	num(&o.SweepUsers, 200)
	dur(&o.BlockStale, 5*time.Second)
	dur(&o.LeaseTTL, 10*time.Second)
	dur(&o.LeaseEvery, 3*time.Second)
	dur(&o.TaskLinger, 500*time.Millisecond)
	dur(&o.TaskRescan, 30*time.Second)
	num(&o.TaskMemory, 65536)
	dur(&o.RetryMin, 20*time.Millisecond)
	dur(&o.RetryMax, 2*time.Second)
	num(&o.InlineBody, 1024)
	if o.Deliver == nil {
		o.Deliver = func([]Delivery) {}
	}
	if o.Now == nil {
		o.Now = time.Now
	}
	return o
}

// Validate says what is wrong with o, defaults applied.
func (o Options) Validate() error {
	o = o.withDefaults()
	if len(o.Shards) == 0 {
		return fmt.Errorf("%w: Shards is empty: give at least one", ErrInvalid)
	}
	seen := map[ShardID]bool{}
	for _, sh := range o.Shards {
		if sh == nil {
			return fmt.Errorf("%w: a shard is nil", ErrInvalid)
		}
		if seen[sh.ID()] {
			return fmt.Errorf("%w: two shards are called %d: give each its own id", ErrInvalid, sh.ID())
		}
		seen[sh.ID()] = true
	}
	if o.Node == 0 {
		return fmt.Errorf("%w: Node is 0: give the node its id", ErrInvalid)
	}
	for _, n := range []struct {
		name string
		v    int64
	}{
		{"CommittersPerShard", int64(o.CommittersPerShard) + 1}, {"MaxBatch", int64(o.MaxBatch)},
		{"MaxFlying", int64(o.MaxFlying)}, {"Queue", int64(o.Queue)}, {"QueueBytes", int64(o.QueueBytes)},
		{"CommitTimeout", int64(o.CommitTimeout)}, {"Readers", int64(o.Readers)}, {"ReaderQueue", int64(o.ReaderQueue)},
		{"ReadTimeout", int64(o.ReadTimeout)}, {"BreakAfter", int64(o.BreakAfter)}, {"StallTimeout", int64(o.StallTimeout)},
		{"QueueWait", int64(o.QueueWait)}, {"RetainAge", int64(o.RetainAge)}, {"RetainEvents", int64(o.RetainEvents)},
		{"SweepPause", int64(o.SweepPause)}, {"SweepEvery", int64(o.SweepEvery)}, {"SweepUsers", int64(o.SweepUsers)},
		{"BlockStale", int64(o.BlockStale)}, {"LeaseTTL", int64(o.LeaseTTL)}, {"LeaseEvery", int64(o.LeaseEvery)},
		{"TaskLinger", int64(o.TaskLinger)}, {"TaskRescan", int64(o.TaskRescan)}, {"TaskMemory", int64(o.TaskMemory)}, {"RetryMin", int64(o.RetryMin)},
		{"RetryMax", int64(o.RetryMax)}, {"InlineBody", int64(o.InlineBody)},
	} {
		if n.v <= 0 {
			return fmt.Errorf("%w: %s must be above 0 (leave it 0 for the default)", ErrInvalid, n.name)
		}
	}
	if o.LeaseEvery*2 > o.LeaseTTL {
		return fmt.Errorf("%w: LeaseEvery (%v) must be at most half of LeaseTTL (%v), so that one late renewal costs nothing",
			ErrInvalid, o.LeaseEvery, o.LeaseTTL)
	}
	if o.RetryMin > o.RetryMax {
		return fmt.Errorf("%w: RetryMin (%v) is above RetryMax (%v)", ErrInvalid, o.RetryMin, o.RetryMax)
	}
	return nil
}
