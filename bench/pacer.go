package bench

import (
	"context"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

const (
	// shortestNap keeps a high rate from becoming one wake-up per message.
	shortestNap = 200 * time.Microsecond
	longestNap  = 50 * time.Millisecond
)

// pace offers messages on schedule: message k is due at k/rate, whatever
// became of the ones before. The writers take turns.
//
// It sleeps in the kernel on a thread of its own: the runtime's timers are
// rounded up to a millisecond when nothing else runs, and that would be most
// of the latency that it is here to measure.
func (p *pairsRun) pace(ctx context.Context) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	gap := float64(time.Second) / p.cfg.Rate
	lags := make([]time.Duration, 0, 256)
	for k := uint64(0); ; k++ {
		due := p.sendFrom + time.Duration(float64(k)*gap)
		if due >= p.to {
			break
		}
		if wait := due - p.since(); wait > 0 {
			p.lag.add(lags...)
			lags = lags[:0]
			if !nap(ctx, wait, p.since) {
				return
			}
		}
		p.writers[k%uint64(len(p.writers))].offer(due)
		if due >= p.from {
			lags = append(lags, p.since()-due)
		}
	}
	p.lag.add(lags...)
}

// nap sleeps for d, or until ctx ends; false then.
func nap(ctx context.Context, d time.Duration, since func() time.Duration) bool {
	until := since() + d
	for left := d; left > 0; left = until - since() {
		if ctx.Err() != nil {
			return false
		}
		ts := unix.NsecToTimespec(int64(min(max(left, shortestNap), longestNap)))
		// EINTR is what the loop is for.
		_ = unix.Nanosleep(&ts, nil)
	}
	return true
}
