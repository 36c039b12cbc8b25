package router

import (
	"context"
	"sync/atomic"
)

// breakAfter is how many failures in a row open the breaker.
const breakAfter = 3

// breaker is open while Redis does not answer: then nobody waits for it. The
// lease's keeper goes on asking, and one success closes it; ordinary requests
// are never the ones to try.
type breaker struct {
	failures atomic.Int32
}

func (b *breaker) isOpen() bool { return b.failures.Load() >= breakAfter }

// result takes the outcome of a request. A caller who went away says nothing
// about Redis: caller is its context, not the one with the time-out. changed:
// this outcome opened or closed the breaker.
func (b *breaker) result(caller context.Context, err error) (changed bool) {
	switch {
	case err == nil:
		return b.failures.Swap(0) >= breakAfter
	case caller.Err() != nil:
		return false
	}
	return b.failures.Add(1) == breakAfter
}
