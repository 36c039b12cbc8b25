package storage

import (
	"errors"
	"sync"
	"time"
)

// A lane drains the tasks from one shard to another. One lane per pair, so that
// a target that is down holds up nobody else. It has no goroutine of its own:
// whoever raises a task or lands a delivery begins the next ones (pump).
//
// A lane leaves alone what is on the move (R5), and hands tasks on that
// travelled to another shard with their conversations. Entries are delivered
// where the recipient is, whatever the task says.
type lane struct {
	s    *Store
	home *shard

	mu    sync.Mutex
	spans map[TaskKey]*span
	// What is owed and not under way, oldest first: with its entries at hand,
	// to be read at home, and waiting for slots on the move.
	ready, dark, moving []*span
	done                []*span // delivered, the home is not told yet
	flying              int     // deliveries under way
	reading             bool    // readDark runs
	napping             bool    // nothing begins: the target has just failed
	polling             bool    // poll runs
	closed              bool
	pause               time.Duration // the last nap
}

// span is what is known of one task: next … to are owed. Entries up to dark must
// be read at home. Those above are in entries, ascending, except what another
// node has added: that one delivers it, and if it does not, the target says
// what is missing.
type span struct {
	key      TaskKey
	next, to uint64
	dark     uint64
	entries  []Entry
	queued   bool // in ready, dark or moving
	working  bool
	inDone   bool
	since    time.Time // when it last had nothing to deliver
}

const (
	// laneBatch is how many tasks a lane works on at once; the committers
	// make transactions of them.
	laneBatch = 256
	// spanRevs and spanBytes bound what one task delivers in one go.
	spanRevs, spanBytes = 64, 256 << 10
)

// add takes note of a task; pump begins it.
func (l *lane) add(o *owing) {
	l.mu.Lock()
	defer l.mu.Unlock()
	sp := l.spans[o.Key]
	if sp == nil {
		if l.closed || len(l.spans) >= l.s.opt.TaskMemory {
			return // its row stays; taskLoop finds it again
		}
		sp = &span{key: o.Key}
		l.spans[o.Key] = sp
	}
	sp.next, sp.to = max(sp.next, o.NextRev), max(sp.to, o.ToRev)
	l.carry(sp, o.entries)
	if !sp.working && !sp.queued {
		l.schedule(sp)
	}
}

// carry keeps entries at hand, if there is room for them.
func (l *lane) carry(sp *span, es []Entry) {
	if len(es) == 0 {
		return
	}
	size := sizeOf(es)
	if l.s.tasks.carried.Add(size) > carryBytes {
		l.s.tasks.carried.Add(-size)
		l.drop(sp, len(sp.entries))
		sp.dark = max(sp.dark, es[len(es)-1].Rev)
		return
	}
	if len(sp.entries) == 0 {
		sp.entries = es
		return
	}
	sp.entries = append(sp.entries, es...)
}

// drop forgets the first n entries at hand.
func (l *lane) drop(sp *span, n int) {
	gone := sp.entries[:n]
	l.s.tasks.carried.Add(-sizeOf(gone))
	if sp.entries = sp.entries[n:]; len(sp.entries) == 0 {
		sp.entries = nil
	}
	if !sp.working { // else they are being delivered
		clear(gone)
	}
}

func sizeOf(es []Entry) (n int64) {
	for i := range es {
		n += int64(len(es[i].Body) + opOverhead)
	}
	return n
}

// forget ends what is known of a task.
func (l *lane) forget(sp *span) {
	l.drop(sp, len(sp.entries))
	delete(l.spans, sp.key)
}

// schedule queues a span that nobody works on, for whatever comes next.
func (l *lane) schedule(sp *span) {
	n := 0
	for n < len(sp.entries) && sp.entries[n].Rev < sp.next {
		n++
	}
	l.drop(sp, n)
	if sp.next > sp.to {
		l.finish(sp)
		return
	}
	if l.s.bug.waitsForMore(sp.entries) {
		return
	}
	sp.queued = true
	if sp.next <= sp.dark || len(sp.entries) == 0 {
		l.dark = append(l.dark, sp)
	} else {
		l.ready = append(l.ready, sp)
	}
}

func pop(q *[]*span) *span {
	sp := (*q)[0]
	(*q)[0] = nil
	*q = (*q)[1:]
	sp.queued = false
	return sp
}

// pump begins as many deliveries as may be under way.
func (l *lane) pump() {
	l.mu.Lock()
	if l.closed || l.napping || len(l.ready)+len(l.dark) == 0 {
		l.mu.Unlock()
		return
	}
	var room [8]*deliverOp
	ops, m := room[:0], l.s.slots.Load()
	var strays []owing
	for l.flying < laneBatch && len(l.ready) > 0 {
		if sp := pop(&l.ready); l.stays(sp, m, &strays) {
			ops = append(ops, l.begin(sp, sp.run()))
		}
	}
	l.startReading()
	l.mu.Unlock()
	l.hand(strays)
	for _, o := range ops {
		l.s.enqueue(o)
	}
}

// stays reports whether a span can be worked on here and now.
func (l *lane) stays(sp *span, m *slotMap, strays *[]owing) bool {
	k := sp.key.Conv
	switch home := m.owner[k.Slot()]; {
	case m.frozen[k.Slot()], m.frozen[k.Other().Slot()]:
		sp.queued = true
		l.moving = append(l.moving, sp)
		l.startPolling()
		return false
	case home >= 0 && int(home) != l.home.idx:
		l.forget(sp)
		*strays = append(*strays, owing{Task: Task{Key: sp.key, NextRev: sp.next, ToRev: sp.to}})
		return false
	}
	return true
}

// hand gives tasks to the lanes of where their conversations are now.
func (l *lane) hand(strays []owing) {
	m := l.s.slots.Load()
	for i := range strays {
		home := l.s.shards[m.owner[strays[i].Key.Conv.Slot()]]
		l.s.tasks.raise(home, strays[i:i+1])
	}
}

// run returns the entries that one delivery takes: the first ones at hand, as
// far as they follow each other.
func (sp *span) run() []Entry {
	n, size := 0, 0
	for n < len(sp.entries) && n < spanRevs && (n == 0 || size < spanBytes && sp.entries[n].Rev == sp.entries[n-1].Rev+1) {
		size += len(sp.entries[n].Body)
		n++
	}
	return sp.entries[:n:n]
}

// begin makes a delivery, which ends with landed. l.mu is held.
func (l *lane) begin(sp *span, es []Entry) *deliverOp {
	sp.working = true
	l.flying++
	l.s.tasks.flying.Add(1)
	return newDeliverOp(l, sp, es)
}

// landed is the end of a delivery.
func (l *lane) landed(o *deliverOp, err error) {
	l.mu.Lock()
	sp := o.span
	sp.working = false
	l.flying--
	var missing *missingRevs
	switch {
	case err == nil:
		l.pause = 0
		sp.next = max(sp.next, o.end(), o.has+1)
	case errors.As(err, &missing):
		sp.next, sp.dark = missing.from, max(sp.dark, o.entries[0].Rev-1)
	case errors.Is(err, ErrNoUser), errors.Is(err, ErrInvalid), errors.Is(err, ErrCorrupt):
		// Trying at once would not help, and would hold up the others.
		l.s.log.Error().Err(err).Stringer("conversation", sp.key.Conv).Uint64("rev", sp.next).
			Msg("a task cannot be delivered; it stays, and is tried again at the next scan")
		l.forget(sp)
	case !l.s.slots.Load().frozen[sp.key.Conv.Other().Slot()]: // else it waits for that by itself
		l.startNap()
	}
	if l.spans[sp.key] == sp {
		l.schedule(sp)
	}
	l.mu.Unlock()
	l.pump()
	l.s.tasks.flying.Done()
}

// startNap lets the lane rest: its target fails. l.mu is held.
func (l *lane) startNap() {
	if l.napping || l.closed {
		return
	}
	l.home.metrics.taskFails.Inc()
	l.pause = min(max(2*l.pause, l.s.opt.RetryMin), l.s.opt.RetryMax)
	l.napping = true
	l.later(l.pause, func() { l.napping = false })
}

// startPolling looks at what is on the move again in a moment. l.mu is held.
func (l *lane) startPolling() {
	if l.polling || l.closed {
		return
	}
	l.polling = true
	l.s.waiting.Add(1)
	l.s.pokeSlots()
	l.later(min(l.s.opt.RetryMax, slotPollMax), func() {
		l.polling = false
		l.s.waiting.Add(-1)
		for len(l.moving) > 0 {
			l.schedule(pop(&l.moving))
		}
	})
}

// later calls f after about d, with l.mu held, and pumps. l.mu is held.
func (l *lane) later(d time.Duration, f func()) {
	l.s.tasks.flying.Add(1)
	go func() {
		defer l.s.tasks.flying.Done()
		sleep(l.s.closing, jitter(d))
		l.mu.Lock()
		f()
		l.mu.Unlock()
		l.pump()
	}()
}
