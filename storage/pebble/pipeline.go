package pebble

import (
	"context"
	"fmt"
	"sync"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// pipeline is what follows the mutexes: one goroutine waits for each transaction's
// sync, in commit order, and calls its done. Meanwhile later transactions run;
// Pebble syncs for all that are waiting at once.
//
// A goroutine for each transaction would be simpler, but would call done in
// whatever order they wake up.
type pipeline struct {
	s *Shard
	// tokens bounds the transactions in flight; queue has room for all of them,
	// so that push never waits for a done.
	tokens chan struct{}
	queue  chan pending

	mu      sync.Mutex
	waiters []waiter // barriers
}

// pending is a transaction that is applied (or has nothing to apply), in commit order.
type pending struct {
	batch *crdb.Batch // nil: nothing of its own to sync
	n     uint64      // everything up to this commit number precedes it
	done  func(error)
	began time.Time
	// outside: it never held a token, and nobody waits for it.
	outside bool
}

type waiter struct {
	target uint64
	ready  chan error // buffered
}

func (p *pipeline) init(s *Shard) {
	p.s = s
	p.tokens = make(chan struct{}, s.opts.MaxInFlight)
	p.queue = make(chan pending, s.opts.MaxInFlight)
}

func (p *pipeline) acquire(ctx context.Context) error {
	select {
	case p.tokens <- struct{}{}:
		return nil
	default:
	}
	select {
	case p.tokens <- struct{}{}:
		return nil
	case <-ctx.Done():
		return fmt.Errorf("pebble: %d transactions in flight: %w: %w", cap(p.tokens), storage.ErrBusy, ctx.Err())
	}
}

func (p *pipeline) release() { <-p.tokens }

// push is called under Shard.applyMu: that makes the queue's order the commit order.
func (p *pipeline) push(t pending) { p.queue <- t }

// close lets run end after what is queued.
func (p *pipeline) close() { close(p.queue) }

func (p *pipeline) run() {
	for t := range p.queue {
		err := p.sync(t)
		// Before wake: a barrier that asks after it finds out by itself.
		fatal := err != nil && p.s.broken(err)
		p.wake(err)
		if t.done != nil {
			t.done(err)
		}
		if !t.outside {
			p.release()
		}
		if fatal {
			p.s.opts.Fatal(err)
		}
	}
}

// sync waits until everything up to t is durable. After a failure nothing is
// vouched for any more, even if the disk seems to work again.
func (p *pipeline) sync(t pending) error {
	if t.batch != nil {
		err := t.batch.SyncWait()
		if err != nil {
			return fmt.Errorf("pebble: sync the log: %w: %w", storage.ErrUnknown, err)
		}
		p.s.metrics.committed(t.batch, time.Since(t.began))
		if err := t.batch.Close(); err != nil {
			p.s.log.Error().Err(err).Msg("cannot release a batch")
		}
	}
	if f := p.s.failed.Load(); f != nil {
		return fmt.Errorf("%w: %w", storage.ErrUnknown, *f)
	}
	p.s.synced.Store(t.n)
	return nil
}

// wake answers the barriers that are reached, or all of them with err.
func (p *pipeline) wake(err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	synced := p.s.synced.Load()
	kept := p.waiters[:0]
	for _, w := range p.waiters {
		if err == nil && w.target > synced {
			kept = append(kept, w)
			continue
		}
		w.ready <- err
	}
	clear(p.waiters[len(kept):])
	p.waiters = kept
}

// Barrier implements storage.Shard. It costs two loads when nothing is pending.
func (s *Shard) Barrier(ctx context.Context) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.gate.exit()
	return s.barrier(ctx)
}

func (s *Shard) barrier(ctx context.Context) error {
	// begun, not applied: a commit can be seen just before applied tells.
	target := s.begun.Load()
	if s.synced.Load() >= target {
		return nil
	}
	w := waiter{target: target, ready: make(chan error, 1)}
	p := &s.pipe
	p.mu.Lock()
	if s.synced.Load() >= target {
		p.mu.Unlock()
		return nil
	}
	if err := s.failure(); err != nil {
		p.mu.Unlock()
		return err
	}
	p.waiters = append(p.waiters, w)
	p.mu.Unlock()
	select {
	case err := <-w.ready:
		return err
	case <-ctx.Done():
		return fmt.Errorf("%w: %w", storage.ErrBusy, ctx.Err()) // run drops w in time
	}
}
