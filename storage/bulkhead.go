package storage

import (
	"context"
	"sync"
	"time"
)

// readers is the bulkhead of a shard: while it hangs, so do at most so many
// goroutines, and at most so many calls wait; others find theirs unharmed.
type readers struct {
	s  *Store
	sh *shard

	mu     sync.Mutex
	queue  []reading
	busy   int // goroutines
	closed bool
	idle   sync.WaitGroup
}

// reading is what waits for a reader.
type reading struct {
	fn   func(context.Context)
	came time.Time
}

func newReaders(s *Store, sh *shard) *readers { return &readers{s: s, sh: sh} }

// Go runs fn soon, on one of the few goroutines that the shard of slot has for
// reading; fn gets a context that ends ReadTimeout after the call of Go.
// ErrBusy: too many are waiting, or for too long. ErrUnavailable: the shard
// answers nobody.
func (s *Store) Go(slot Slot, fn func(ctx context.Context)) error {
	sh, _, err := s.shardOf(slot)
	if err != nil {
		return err
	}
	if err := sh.breakers.reads.refused(); err != nil {
		sh.metrics.unavailable.Inc()
		return err
	}
	return sh.readers.put(fn)
}

func (r *readers) put(fn func(context.Context)) error {
	now := time.Now()
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.busy < r.s.opt.Readers:
		// Goroutines come and go with the load: an idle shard keeps none.
		r.busy++
		r.idle.Add(1)
		go r.run(reading{fn, now})
	case len(r.queue) < r.s.opt.ReaderQueue && (len(r.queue) == 0 || now.Sub(r.queue[0].came) <= r.s.opt.QueueWait):
		r.queue = append(r.queue, reading{fn, now})
	default:
		r.sh.metrics.readsBusy.Inc()
		return ErrBusy
	}
	return nil
}

func (r *readers) run(next reading) {
	defer r.idle.Done()
	for next.fn != nil {
		ctx, cancel := context.WithDeadline(r.s.ctx, next.came.Add(r.s.opt.ReadTimeout))
		next.fn(ctx)
		cancel()
		r.mu.Lock()
		next = reading{}
		if len(r.queue) > 0 {
			next = r.queue[0]
			r.queue[0] = reading{}
			r.queue = r.queue[1:]
		} else {
			r.busy--
		}
		r.mu.Unlock()
	}
}

// close runs what is queued and refuses more.
func (r *readers) close() {
	r.mu.Lock()
	r.closed = true
	r.mu.Unlock()
	r.idle.Wait()
}

// Load says how loaded the shard of slot is: 0 is idle, from 1 on calls are
// refused. It is the fullest of its queues, by room or by waiting time: for
// whoever has something that may be left out before others suffer.
func (s *Store) Load(slot Slot) float64 {
	sh, _, err := s.shardOf(slot)
	if err != nil || sh.breakers.reads.open() || sh.breakers.commits.open() {
		return 1
	}
	load := sh.readers.load()
	for _, c := range sh.committers {
		load = max(load, c.load())
	}
	return load
}

// ShardOf returns the shard that slot lives on, as far as this node knows: for
// whoever must keep what waits for one shard from what waits for another.
func (s *Store) ShardOf(slot Slot) (ShardID, error) {
	sh, _, err := s.shardOf(slot)
	if err != nil {
		return 0, err
	}
	return sh.ID(), nil
}

func (r *readers) load() float64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.queue) == 0 {
		return 0
	}
	return max(float64(len(r.queue))/float64(r.s.opt.ReaderQueue), share(time.Since(r.queue[0].came), r.s.opt.QueueWait))
}

func share(d, of time.Duration) float64 { return max(0, float64(d)/float64(of)) }

// barrier coalesces the barriers of a shard: whoever comes while one runs
// shares the next.
type barrier struct {
	mu     sync.Mutex
	next   *barrierCall
	busy   bool
	closed bool
	idle   sync.WaitGroup
}

type barrierCall struct {
	done chan struct{}
	err  error
}

// wait returns when everything that was visible at the call is durable (R1).
func (b *barrier) wait(ctx context.Context, s *Store, sh *shard) error {
	if err := sh.breakers.barrier.admit(); err != nil {
		sh.metrics.unavailable.Inc()
		return err
	}
	b.mu.Lock()
	if b.closed {
		b.mu.Unlock()
		return ErrClosed
	}
	call := b.next
	if call == nil {
		call = &barrierCall{done: make(chan struct{})}
		b.next = call
	}
	if !b.busy {
		b.busy = true
		b.idle.Add(1)
		go b.run(s, sh)
	}
	b.mu.Unlock()
	select {
	case <-call.done:
		return call.err
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (b *barrier) run(s *Store, sh *shard) {
	defer b.idle.Done()
	for {
		b.mu.Lock()
		call := b.next
		b.next = nil
		if b.busy = call != nil; !b.busy {
			b.mu.Unlock()
			return
		}
		b.mu.Unlock()
		ctx, cancel := context.WithTimeout(s.ctx, s.opt.ReadTimeout)
		a := sh.breakers.barrier.begin()
		call.err = sh.Barrier(ctx)
		sh.breakers.barrier.end(a, call.err)
		cancel()
		close(call.done)
	}
}

func (b *barrier) close() {
	b.mu.Lock()
	b.closed = true
	b.mu.Unlock()
	b.idle.Wait()
}
