package storage

import (
	"context"
	"sync"
)

// readers is the bulkhead of a shard: while it hangs, so do at most so many
// goroutines, and at most so many calls wait; others find theirs unharmed.
type readers struct {
	s  *Store
	sh *shard

	mu     sync.Mutex
	queue  []func(context.Context)
	busy   int // goroutines
	closed bool
	idle   sync.WaitGroup
}

func newReaders(s *Store, sh *shard) *readers { return &readers{s: s, sh: sh} }

// Go runs fn soon, on one of the few goroutines that the shard of slot has for
// reading; fn gets a context that ends after ReadTimeout. ErrBusy: too many
// are waiting.
func (s *Store) Go(slot Slot, fn func(ctx context.Context)) error {
	sh, _, err := s.shardOf(slot)
	if err != nil {
		return err
	}
	return sh.readers.put(fn)
}

func (r *readers) put(fn func(context.Context)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.busy < r.s.opt.Readers:
		// Goroutines come and go with the load: an idle shard keeps none.
		r.busy++
		r.idle.Add(1)
		go r.run(fn)
	case len(r.queue) < r.s.opt.ReaderQueue:
		r.queue = append(r.queue, fn)
	default:
		r.sh.metrics.readsBusy.Inc()
		return ErrBusy
	}
	return nil
}

func (r *readers) run(fn func(context.Context)) {
	defer r.idle.Done()
	for fn != nil {
		ctx, cancel := context.WithTimeout(r.s.ctx, r.s.opt.ReadTimeout)
		fn(ctx)
		cancel()
		r.mu.Lock()
		fn = nil
		if len(r.queue) > 0 {
			fn = r.queue[0]
			r.queue[0] = nil
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
		call.err = sh.Barrier(ctx)
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
