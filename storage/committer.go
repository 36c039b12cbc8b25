package storage

import (
	"context"
	"errors"
	"slices"
	"sync"
	"time"
)

// An op is one caller's part of a batch.
type op interface {
	head() *opHead
	// lock names every row that plan reads. Positions are the op's to keep.
	lock(*work)
	// plan reads and changes the working set. It is pure, and may run again.
	plan(*work)
	// stand says what becomes of the op at shard idx with map m; needs whether
	// it touches a slot there.
	stand(m *slotMap, idx int) standing
	needs(Slot) bool
	// nearBy, if not 0, numbers the map that the op was admitted by.
	nearBy() uint64
	// answer is called once: with nil when the batch, and thereby everything
	// that plan read, is durable; else with why it is not. The op is gone then.
	answer(error)
}

// opHead is what a committer knows of every op.
type opHead struct {
	slot   Slot
	size   int
	queued time.Time
	came   time.Time // queued for the first time
	// patient ops are parked while a slot that they need is frozen.
	patient bool
	// again: an earlier attempt may have been committed.
	again bool
}

func (h *opHead) head() *opHead { return h }

func (h *opHead) nearBy() uint64 { return 0 }

// opOverhead is what an op counts for in QueueBytes beside its body.
const opOverhead = 256

// A batch is a set of ops in one transaction.
type batch struct {
	n   uint64 // counts the committer's batches
	ops []op
	// what becomes of it once durable; made anew by each run of the plan
	deliveries []Delivery
	raised     []owing

	began   time.Time
	attempt attempt
	err     error
	// landed, if not nil, gets the outcome instead of the committer.
	landed chan error
	done   func(error)
}

// A committer turns a queue of ops into transactions of one shard. It takes
// whatever queued while its last commit ran: no timer, so a lone op waits for
// nothing, and batches grow by themselves under load. Commit returns before
// the batch is durable where the engine can pipeline; MaxFlying batches may be
// on their way, then the queue collects.
//
// Order: one goroutine commits, and a conversation always goes to the same
// committer. When a batch fails, nothing new is begun until those behind it
// have landed; then the failed ones are tried again, in order (see settle).
// Had they been put back into the queue instead, later sends of the same
// conversation could overtake.
type committer struct {
	s  *Store
	sh *shard
	m  *shardMetrics

	mu     sync.Mutex
	queue  []op
	bytes  int
	flying int
	failed []*batch // by n
	free   []*batch
	// refusing answers new ops while shed ones are being told, by so many.
	refusing error
	telling  int
	closed   bool

	// ctx is that of the commits at the engine, which are so many; progress
	// changes with the first of them and whenever one comes back. See watch.
	ctx      context.Context
	cancel   context.CancelFunc
	out      int
	progress uint64

	// slots is the map that this committer goes by, parked what waits for slots
	// that are frozen in it, oldest first. barred tells new ops that would
	// follow parked ones which are being refused. See adopt.go.
	slots       *slotMap
	parked      []op
	parkedBytes int
	barred      func(op) bool
	review      bool // something queued cannot be taken with this map

	wake    chan struct{} // of capacity 1
	stopped chan struct{}

	// only the committer's goroutine
	n uint64
	// pause is the last one after slots that moved nowhere, at movedAt.
	pause   time.Duration
	movedAt time.Time
	cur     *batch
	// behind is what comes after the part of a bisected batch that is being
	// settled.
	behind []op
	// cursed are conversations of which an op has just been refused for good: see
	// bisect. While barred may be looked at, it is changed under mu only.
	cursed []ConvKey
	w      work
	plan   func(*Locked) (*Writes, error)

	// only watch
	seen  uint64
	still int // ticks without progress
}

func newCommitter(s *Store, sh *shard) *committer {
	c := &committer{s: s, sh: sh, m: sh.metrics, wake: make(chan struct{}, 1), stopped: make(chan struct{})}
	c.ctx, c.cancel = context.WithCancel(s.ctx)
	c.w.s, c.w.shard, c.slots = s, sh, s.slots.Load()
	c.plan = c.runPlan
	return c
}

// put queues an op, or says why not; the caller then still owns it.
func (c *committer) put(o op) error {
	if err := c.sh.breakers.commits.admit(); err != nil {
		c.m.unavailable.Inc()
		return err
	}
	h := o.head()
	if h.queued = c.s.opt.Now(); h.came.IsZero() {
		h.came = h.queued
	}
	near := o.nearBy()
	c.mu.Lock()
	switch {
	case int(c.s.route[h.slot%Slots].Load()) != c.sh.idx:
		c.mu.Unlock()
		return errRerouted
	case near != 0 && near < c.slots.n:
		c.mu.Unlock()
		return errOldMap
	case c.closed:
		c.mu.Unlock()
		return ErrClosed
	case c.refusing != nil && (isSend(o) || !errors.Is(c.refusing, ErrFull)):
		defer c.mu.Unlock()
		return c.refusing
	case overtakes(o):
		c.mu.Unlock()
		return errOvertakes
	case c.barred != nil && c.barred(o), c.crowded(o):
		c.mu.Unlock()
		return ErrBusy
	case len(c.queue) >= c.s.opt.Queue || c.bytes+h.size > c.s.opt.QueueBytes && c.bytes > 0,
		len(c.queue) > 0 && h.queued.Sub(c.queue[0].head().queued) > c.s.opt.QueueWait:
		c.mu.Unlock()
		return ErrBusy
	}
	c.queue = append(c.queue, o)
	c.bytes += h.size
	first := len(c.queue) == 1
	c.mu.Unlock()
	if first {
		c.signal()
	}
	return nil
}

// errRerouted: the slot's operations queue at another committer now. errOldMap:
// the op was admitted by a map that this committer no longer goes by.
var (
	errRerouted = errors.New("storage: rerouted")
	errOldMap   = errors.New("storage: admitted by an old slot map")
)

func (c *committer) signal() {
	select {
	case c.wake <- struct{}{}:
	default:
	}
}

// run is the committer's goroutine. It ends when closed, with nothing left.
func (c *committer) run() {
	defer close(c.stopped)
	defer func() { c.cancel() }() // watch replaces it
	for {
		b, ok := c.next()
		switch {
		case !ok:
			return
		case b.err != nil:
			c.settle(b)
			c.lift()
		default:
			c.launch(b)
		}
	}
}

// next waits for something to do: a failed batch, once all others have
// landed; else a new batch.
func (c *committer) next() (*batch, bool) {
	for {
		c.mu.Lock()
		switch {
		case len(c.failed) > 0:
			if c.flying == 0 {
				b := c.failed[0]
				c.failed = slices.Delete(c.failed, 0, 1)
				c.mu.Unlock()
				return b, true
			}
		case c.review || c.stale():
			if c.flying == 0 {
				c.mu.Unlock()
				c.adopt()
				continue
			}
		case c.anyLate():
			c.mu.Unlock()
			c.expire()
			continue
		case len(c.queue) > 0 && c.flying < c.s.opt.MaxFlying:
			b := c.take()
			c.mu.Unlock()
			if b == nil {
				continue
			}
			return b, true
		case c.closed && len(c.queue)+len(c.parked) == 0 && c.flying == 0:
			c.mu.Unlock()
			return nil, false
		}
		c.mu.Unlock()
		<-c.wake
	}
}

// take makes a batch of the oldest ops that can go on, nil if there are none.
// c.mu is held.
func (c *committer) take() *batch {
	b, n := c.newBatch(), 0
	for ; n < len(c.queue) && len(b.ops) < c.s.opt.MaxBatch; n++ {
		o := c.queue[n]
		st := o.stand(c.slots, c.sh.idx)
		wait := st == standWait && o.head().patient
		if st != standHere && !wait || o.nearBy() > c.slots.n {
			c.review = true
			break
		}
		c.bytes -= o.head().size
		if wait {
			c.park(o)
		} else {
			b.ops = append(b.ops, o)
		}
	}
	rest := copy(c.queue, c.queue[n:])
	clear(c.queue[rest:])
	c.queue = c.queue[:rest]
	if len(b.ops) == 0 {
		c.recycle(b)
		return nil
	}
	return b
}

// newBatch returns an empty batch. c.mu is held.
func (c *committer) newBatch() *batch {
	c.n++
	var b *batch
	if n := len(c.free); n > 0 {
		b, c.free = c.free[n-1], c.free[:n-1]
	} else {
		b = new(batch)
		b.done = func(err error) { c.land(b, err) }
	}
	b.n = c.n
	return b
}

// recycle keeps b's slices for another batch. c.mu is held.
func (c *committer) recycle(b *batch) {
	clear(b.ops)
	clear(b.deliveries)
	clear(b.raised)
	b.ops, b.deliveries, b.raised = b.ops[:0], b.deliveries[:0], b.raised[:0]
	b.err, b.landed = nil, nil
	if len(c.free) <= c.s.opt.MaxFlying {
		c.free = append(c.free, b)
	}
}

// launch begins a batch, and returns when the next may be planned.
func (c *committer) launch(b *batch) {
	c.mu.Lock()
	c.flying++
	c.mu.Unlock()
	if err := c.commit(b); err != nil {
		c.land(b, err)
	}
}

// commit names the rows of b and hands it to the engine.
func (c *committer) commit(b *batch) error {
	b.began = time.Now()
	c.cur = b
	c.w.reset(b, c.slots)
	for _, o := range b.ops {
		o.lock(&c.w)
	}
	c.m.batch.Observe(float64(len(b.ops)))
	b.attempt = c.sh.breakers.commits.begin()
	c.s.bug.lookEarly(c)
	err := c.sh.Commit(c.sent(), c.w.merged(), c.plan, b.done)
	c.cur = nil
	return err
}

// runPlan is the plan of the current batch.
func (c *committer) runPlan(l *Locked) (*Writes, error) {
	c.w.batch = c.cur
	c.w.load(l)
	for _, o := range c.cur.ops {
		o.plan(&c.w)
	}
	c.s.bug.planned(c.cur)
	return c.w.writes(), nil
}

// land is the end of a flight: on the engine's completion goroutine, or where
// Commit failed at once.
func (c *committer) land(b *batch, err error) {
	c.back(b, err)
	if err == nil {
		c.m.commit.Observe(time.Since(b.began).Seconds())
		c.complete(b)
	}
	if b.landed != nil {
		b.landed <- err
		return
	}
	c.mu.Lock()
	c.flying--
	if b.err = err; err != nil {
		at, _ := slices.BinarySearchFunc(c.failed, b.n, func(f *batch, n uint64) int { return int(int64(f.n - n)) })
		c.failed = slices.Insert(c.failed, at, b)
	} else {
		c.recycle(b)
	}
	c.mu.Unlock()
	c.signal()
}

// complete answers everybody in a durable batch, then delivers.
func (c *committer) complete(b *batch) {
	for _, o := range b.ops {
		o.answer(nil)
	}
	if len(b.deliveries) > 0 {
		c.s.opt.Deliver(b.deliveries)
	}
	if len(b.raised) > 0 {
		c.s.tasks.raise(c.sh, b.raised)
	}
}

func (c *committer) load() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	if len(c.queue) == 0 {
		return 0
	}
	opt := &c.s.opt
	return max(float64(len(c.queue))/float64(opt.Queue), float64(c.bytes)/float64(opt.QueueBytes),
		share(opt.Now().Sub(c.queue[0].head().queued), opt.QueueWait))
}

func (c *committer) depth() float64 {
	c.mu.Lock()
	defer c.mu.Unlock()
	return float64(len(c.queue) + len(c.parked))
}

// close refuses new ops; run ends when the queue is done.
func (c *committer) close() {
	c.mu.Lock()
	c.closed = true
	c.mu.Unlock()
	c.signal()
}
