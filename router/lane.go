package router

import "sync"

// laneCount is how many look-ups are under way at once. A user is always in the
// same lane, so each user's events stay in order.
const laneCount = 4

// itemBytes is what an item costs beside its event.
const itemBytes = 48

// lane is a bounded queue and the one goroutine that drains it. It exists where
// a look-up takes a round trip: deliveries come from where commits complete,
// and nothing may wait there. Whatever came while one look-up was under way
// shares the next.
type lane struct {
	wake                chan struct{}
	maxEvents, maxBytes int

	mu    sync.Mutex
	items []item
	// held and bytes count what is being looked up too.
	held, bytes int
}

func newLane(opt *Options) *lane {
	return &lane{
		wake:      make(chan struct{}, 1),
		maxEvents: max(1, opt.QueueEvents/laneCount),
		maxBytes:  opt.QueueBytes / laneCount,
	}
}

// laneOf spreads users; the directory's own spreading must not correlate.
func laneOf(user int64) int {
	return int(uint64(user) * 0xd6e8feb86659fd93 >> 32 % laneCount)
}

// put takes an item, or reports that there is no room. Hints give way first.
// l.mu is held.
func (l *lane) put(it item) bool {
	part, size := 1, itemBytes+len(it.event)
	if it.hint {
		part = 2
	}
	if (l.held+1)*part > l.maxEvents || (l.bytes+size)*part > l.maxBytes {
		return false
	}
	l.held, l.bytes = l.held+1, l.bytes+size
	l.items = append(l.items, it)
	return true
}

// take swaps what waits for an empty slice.
func (l *lane) take(empty []item) []item {
	l.mu.Lock()
	defer l.mu.Unlock()
	items := l.items
	l.items = empty
	return items
}

// done gives the room of items back.
func (l *lane) done(items []item) {
	bytes := 0
	for i := range items {
		bytes += itemBytes + len(items[i].event)
	}
	l.mu.Lock()
	l.held, l.bytes = l.held-len(items), l.bytes-bytes
	l.mu.Unlock()
}

// spread puts n items, made by at, into their lanes. Each lane is locked once.
func (r *Router) spread(n int, at func(i int) item) (dropped int) {
	for nth, l := range r.lanes {
		locked := false
		for i := range n {
			it := at(i)
			if laneOf(it.user) != nth {
				continue
			}
			if !locked {
				l.mu.Lock()
				locked = true
			}
			if !l.put(it) {
				dropped++
			}
		}
		if locked {
			l.mu.Unlock()
			select {
			case l.wake <- struct{}{}:
			default:
			}
		}
	}
	return dropped
}

func (r *Router) enqueueDeliveries(ds []Delivery) {
	dropped := r.spread(len(ds), func(i int) item { return item{user: ds[i].User, seq: ds[i].Seq, event: ds[i].Event} })
	r.metrics.drop(dropQueue, dropped)
}

func (r *Router) enqueueHints(hs []Hint) {
	dropped := r.spread(len(hs), func(i int) item { return item{user: hs[i].User, event: hs[i].Frame, hint: true} })
	r.metrics.drop(dropHint, dropped)
}

// runLane looks up and forwards what comes into l.
func (r *Router) runLane(l *lane) {
	f := newFinder()
	var spare []item
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-l.wake:
		}
		for r.ctx.Err() == nil {
			items := l.take(spare)
			if len(items) == 0 {
				spare = items
				break
			}
			r.route(r.ctx, f, items)
			l.done(items)
			spare = f.reset(items)
		}
	}
}
