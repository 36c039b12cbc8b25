package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
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
	later  int // what waits for slots on the move
	closed bool
	idle   sync.WaitGroup

	visits atomic.Int32 // readers of other shards that wait for this one
}

// reading is what waits for a reader.
type reading struct {
	fn   func(context.Context)
	slot Slot
	came time.Time
}

func newReaders(s *Store, sh *shard) *readers { return &readers{s: s, sh: sh} }

// Go runs fn soon, on one of the few goroutines that the shard of slot has for
// reading; fn gets a context that ends ReadTimeout after the call of Go.
// ErrBusy: too many are waiting, or for too long. ErrUnavailable: the shard
// answers nobody.
func (s *Store) Go(slot Slot, fn func(ctx context.Context)) error {
	sh, m, err := s.shardOf(slot)
	if err != nil {
		return err
	}
	if m.frozen[slot%Slots] {
		return s.goLater(sh.readers, slot, fn)
	}
	if err := sh.breakers.reads.refused(); err != nil {
		sh.metrics.unavailable.Inc()
		return err
	}
	return sh.readers.put(slot, fn)
}

// goLater is Go for a slot that is on the move. What waits for one takes no
// place among the readers, where it would keep others waiting.
func (s *Store) goLater(r *readers, slot Slot, fn func(context.Context)) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	switch {
	case r.closed:
		return ErrClosed
	case r.later >= s.opt.ReaderQueue:
		r.sh.metrics.readsBusy.Inc()
		return ErrBusy
	}
	r.later++
	r.idle.Add(1)
	go func() {
		defer r.idle.Done()
		err := s.await(s.ctx, slot)
		r.mu.Lock()
		r.later--
		r.mu.Unlock()
		if err == nil {
			err = s.Go(slot, fn)
		}
		if err != nil { // fn was promised to run
			ctx, cancel := context.WithDeadline(s.ctx, time.Now())
			defer cancel()
			fn(ctx)
		}
	}()
	return nil
}

func (r *readers) put(slot Slot, fn func(context.Context)) error {
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
		go r.run(reading{fn, slot, now})
	case len(r.queue) < r.s.opt.ReaderQueue && (len(r.queue) == 0 || now.Sub(r.queue[0].came) <= r.s.opt.QueueWait):
		r.queue = append(r.queue, reading{fn, slot, now})
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
		next.fn(context.WithValue(ctx, placeKey{}, &place{r: r, slot: next.slot}))
		cancel()
		r.mu.Lock()
		next = reading{}
		if r.busy <= r.s.opt.Readers { // more may have come back
			next = r.take()
		}
		if next.fn == nil {
			r.busy--
		}
		r.mu.Unlock()
	}
}

// take returns what has waited longest, if anything has. r.mu is held.
func (r *readers) take() (next reading) {
	if len(r.queue) > 0 {
		next = r.queue[0]
		r.queue[0] = reading{}
		r.queue = r.queue[1:]
	}
	return next
}

// A place is what a reader has among the few of its shard. It is given back
// while the reader waits for something else, another shard first of all: or
// else a shard that hangs would fill the places of the others, with syncs whose
// bodies it has and lists that name its users.
type place struct {
	r    *readers
	slot Slot // what it was taken for
	away int  // under r.mu
}

type placeKey struct{}

// Leave gives back the place of the reader that runs with ctx until the
// returned function is called: for whoever has to wait for something that is
// not the shard. With any other ctx it does nothing.
func Leave(ctx context.Context) (back func()) {
	p, _ := ctx.Value(placeKey{}).(*place)
	p.leave()
	return p.back
}

func (p *place) leave() {
	if p == nil {
		return
	}
	r := p.r
	r.mu.Lock()
	defer r.mu.Unlock()
	if p.away++; p.away > 1 {
		return
	}
	if next := r.take(); next.fn != nil {
		r.idle.Add(1)
		go r.run(next)
		return
	}
	r.busy--
}

func (p *place) back() {
	if p == nil {
		return
	}
	p.r.mu.Lock()
	defer p.r.mu.Unlock()
	if p.away--; p.away == 0 {
		p.r.busy++
	}
}

// strayed reports whether the read that runs with ctx is about a slot that has
// moved to another shard since it got its place.
func (s *Store) strayed(ctx context.Context, slot Slot) bool {
	p, _ := ctx.Value(placeKey{}).(*place)
	if p == nil || p.slot != slot {
		return false
	}
	m := s.slots.Load()
	return int(m.owner[slot%Slots]) != p.r.sh.idx
}

// follow is View by one of the readers of the shard that slot is on now: a slot
// may bring more reads with it than there may be visits.
func (s *Store) follow(ctx context.Context, slot Slot, fn func(Snap) error) error {
	defer Leave(ctx)()
	done := make(chan error, 1)
	if err := s.Go(slot, func(ctx context.Context) { done <- s.View(ctx, slot, fn) }); err != nil {
		return err
	}
	return <-done
}

// maxVisits is how many readers of other shards may wait for one that has so
// many of its own. Together they are fewer than an engine's connections, or
// commits would wait behind them.
func maxVisits(readers int) int { return max(1, readers*3/4) }

// A visit is the time in which a reader of another shard waits for this one.
type visit struct {
	sh *shard
	p  *place // nil: no reader, or one of this shard
}

// visit is called before waiting for the shard. A reader of another shard gives
// up its place there until end, and finds only so many others here.
func (sh *shard) visit(ctx context.Context) (visit, error) {
	p, _ := ctx.Value(placeKey{}).(*place)
	if p == nil || p.r.sh == sh {
		return visit{}, nil
	}
	if int(sh.readers.visits.Add(1)) > maxVisits(p.r.s.opt.Readers) {
		sh.readers.visits.Add(-1)
		sh.metrics.readsBusy.Inc()
		return visit{}, ErrBusy
	}
	p.leave()
	return visit{sh, p}, nil
}

func (v visit) end() {
	if v.p != nil {
		v.sh.readers.visits.Add(-1)
		v.p.back()
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
	v, err := sh.visit(ctx)
	if err != nil {
		return err
	}
	defer v.end()
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
		err = call.err
	case <-ctx.Done():
		err = ctx.Err()
	}
	if errors.Is(err, context.DeadlineExceeded) {
		err = fmt.Errorf("%w: barrier: %w", ErrUnavailable, err)
	}
	return err
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
