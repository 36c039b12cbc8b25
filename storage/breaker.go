package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// A breaker keeps calls away from a part of a shard (its reads, its barrier,
// its commits) that has done nothing but fail for BreakAfter: they are refused
// at once, with a hint when to come again, instead of each waiting for its own
// time-out and holding a place meanwhile. While it is open one call per pause
// is let through; the first that is answered closes it.
//
// The parts are apart because they fail apart: a database that became
// read-only answers reads, a disk that does not sync answers snapshots. One
// breaker for all was closed by the one and opened by the other in turn.
//
// It never counts failures. What matters is for how long nobody was answered:
// ten calls that time out together are one outage, and a call that fails while
// others succeed is its own trouble.
type breaker struct {
	opt   breakerOptions
	oks   atomic.Uint64 // calls that were answered
	until atomic.Int64  // when the next call may pass, in unix ns; 0: closed

	mu sync.Mutex
	// since is when the first of the calls began that have failed without one
	// answered in between, zero if there are none; seen is oks at that time.
	since time.Time
	seen  uint64
	pause time.Duration
	cause error
}

// breakerOptions are the same for the breakers of a shard, but for part.
type breakerOptions struct {
	shard    ShardID
	part     string // in logs and metrics
	after    time.Duration
	long     time.Duration // a time-out after less says nothing
	min, max time.Duration // of the pause
	now      func() time.Time
	log      zerolog.Logger
}

// breakMin and breakMax bound the pause between two calls that find out whether
// a part is back.
const (
	breakMin = 500 * time.Millisecond
	breakMax = 5 * time.Second
)

// breakers are those of a shard.
type breakers struct{ reads, barrier, commits breaker }

func newBreakers(s *Store, id ShardID) *breakers {
	o := breakerOptions{
		shard: id, after: s.opt.BreakAfter, long: min(s.opt.BreakAfter, s.opt.ReadTimeout/2),
		min: min(breakMin, s.opt.BreakAfter), max: max(breakMax, s.opt.BreakAfter), now: s.opt.Now, log: s.log,
	}
	part := func(name string) breaker {
		o := o
		o.part = name
		return breaker{opt: o}
	}
	return &breakers{reads: part("reads"), barrier: part("barrier"), commits: part("commits")}
}

func (b *breakers) all() []*breaker { return []*breaker{&b.reads, &b.barrier, &b.commits} }

// attempt is a call on its way.
type attempt struct {
	began time.Time
	oks   uint64
}

// unavailable is an ErrUnavailable that knows when to come again. What caused
// it is text only: else errors.Is would find the engine's ErrBusy in it, which
// means something else to callers.
type unavailable struct {
	text  string
	after time.Duration
}

func (e *unavailable) Error() string        { return e.text }
func (e *unavailable) Is(target error) bool { return target == ErrUnavailable }

// RetryAfter says how long after err the call is worth repeating, 0 where
// nothing is known.
func RetryAfter(err error) time.Duration {
	var u *unavailable
	if errors.As(err, &u) {
		return u.after
	}
	return 0
}

// gauge is open as a metric.
func (b *breaker) gauge() float64 {
	if b.open() {
		return 1
	}
	return 0
}

// admit gives leave to call the shard, or answers ErrUnavailable. Where the
// breaker is open the one that gets leave finds out for all.
func (b *breaker) admit() error {
	if b.until.Load() == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opt.now()
	switch until := b.until.Load(); {
	case until == 0:
		return nil
	case now.UnixNano() < until:
		return b.refusal(now)
	}
	b.pause = min(2*b.pause, b.opt.max)
	b.until.Store(now.Add(b.pause).UnixNano())
	return nil
}

// refused is what admit would say, for those who only want to know.
func (b *breaker) refused() error {
	if b.until.Load() == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if now := b.opt.now(); now.UnixNano() < b.until.Load() {
		return b.refusal(now)
	}
	return nil
}

// given is the error that the breaker is open with, nil if it is closed.
func (b *breaker) given() error {
	if b.until.Load() == 0 {
		return nil
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.Load() == 0 {
		return nil
	}
	return b.refusal(b.opt.now())
}

func (b *breaker) open() bool { return b.until.Load() != 0 }

// refusal is the answer while the breaker is open. b.mu is held.
func (b *breaker) refusal(now time.Time) error {
	return &unavailable{
		text: fmt.Sprintf("%v: shard %d has answered no %s for %v: %v", ErrUnavailable, b.opt.shard, b.opt.part,
			now.Sub(b.since).Round(time.Millisecond), b.cause),
		// Whoever comes the moment that one is let through is refused again.
		after: max(time.Duration(b.until.Load()-now.UnixNano()), b.opt.min/2),
	}
}

// begin notes the start of a call; its outcome is given to end.
func (b *breaker) begin() attempt { return attempt{began: b.opt.now(), oks: b.oks.Load()} }

func (b *breaker) end(a attempt, err error) {
	switch {
	case errors.Is(err, ErrClosed), errors.Is(err, context.Canceled):
		// The caller's own end says nothing.
	case errors.Is(err, context.DeadlineExceeded):
		// Nor does a caller that was in a hurry.
		if now := b.opt.now(); now.Sub(a.began) >= b.opt.long {
			b.failed(a, err, now)
		}
	case errors.Is(err, ErrBusy), errors.Is(err, ErrUnknown), errors.Is(err, ErrUnavailable):
		b.failed(a, err, b.opt.now())
	default:
		b.answered() // a refusal is an answer
	}
}

func (b *breaker) answered() {
	b.oks.Add(1)
	if !b.open() {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.until.Swap(0) != 0 {
		b.opt.log.Info().Uint32("shard", uint32(b.opt.shard)).Str("part", b.opt.part).
			Dur("outage", b.opt.now().Sub(b.since)).Msg("the shard answers again")
	}
	b.since, b.cause = time.Time{}, nil
}

func (b *breaker) failed(a attempt, err error, now time.Time) {
	b.mu.Lock()
	defer b.mu.Unlock()
	switch oks := b.oks.Load(); {
	case oks != a.oks:
		return // others were answered meanwhile
	case b.since.IsZero() || b.seen != oks:
		b.since, b.seen = a.began, oks
	case a.began.Before(b.since):
		b.since = a.began
	}
	b.cause = err
	if !b.open() && now.Sub(b.since) >= b.opt.after {
		b.trip(now)
	}
}

// stuck opens the breaker for calls that have not come back for d, and returns
// what is refused with.
func (b *breaker) stuck(d time.Duration) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	now := b.opt.now()
	if !b.open() {
		b.since, b.seen = now.Add(-d), b.oks.Load()
		b.cause = fmt.Errorf("calls have not come back for %v", d)
		b.trip(now)
	}
	return b.refusal(now)
}

// trip opens the breaker. b.mu is held.
func (b *breaker) trip(now time.Time) {
	b.pause = b.opt.min
	b.until.Store(now.Add(b.pause).UnixNano())
	b.opt.log.Warn().Err(b.cause).Uint32("shard", uint32(b.opt.shard)).Str("part", b.opt.part).
		Dur("outage", now.Sub(b.since)).Msg("the shard does not answer; calls are refused until it does")
}
