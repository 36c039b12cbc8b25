package fault

import (
	"context"
	"time"
)

// Heal undoes what a Strike did, and returns when the part is back as far as
// its owner can tell: a process that was killed answers again. It is called
// once, also when the torture is given up; ctx bounds the wait.
type Heal = func(ctx context.Context) error

// Fault is something that goes wrong with a system, and can be undone.
type Fault struct {
	// Name is stable and used on the command line: "node-kill", "redis-flush".
	Name string
	// About says in half a sentence what happens, for reports.
	About string
	// Targets are what it may hit, by name; a schedule picks one. Never empty
	// unless Unable says why.
	Targets []string
	// Least and Most say how long it lasts before it is healed. Both are 0 for
	// what is over when Strike returns, like a flush.
	Least, Most time.Duration
	// Alone: nothing else may be broken meanwhile, since two of these at once
	// leave nobody to serve, or spoil what the other is to show.
	Alone bool
	// Unable says why this cannot be done here («needs root», «no binary of an
	// earlier version was given»); nil, or an answer of nil: it can. A fault that
	// cannot counts as not run.
	Unable func() error
	// Strike makes it happen to a target, and returns when it has. The Heal is
	// never nil if err is nil. After an error nothing is left broken. ctx bounds
	// the strike only. Strikes on different targets may run at the same time, on
	// the same one not before it was healed.
	Strike func(ctx context.Context, target string) (Heal, error)
}
