package router

import "sync"

// maxOwed bounds what is remembered one by one. More attaches than that are
// owed as "everything".
const maxOwed = 1 << 16

// owed is what Redis has not heard of yet: it did not answer, or it forgot.
type owed struct {
	// wake has room for one, so that nobody who writes it waits.
	wake chan struct{}

	mu         sync.Mutex
	everything bool
	// attached names slots; the mirror knows what is there.
	attached map[userSlot]struct{}
	detached map[detached]struct{}
	// doubtful are slots that somebody may have lost whom Redis named, or would
	// have named, in an answer that never came.
	doubtful map[userSlot]struct{}
}

// detached is an entry to remove: where it is, and whose it has to be.
type detached struct{ key, field, who string }

func (o *owed) init() {
	o.wake = make(chan struct{}, 1)
	o.attached, o.detached, o.doubtful = map[userSlot]struct{}{}, map[detached]struct{}{}, map[userSlot]struct{}{}
}

// all makes everything owed, and gets it going.
func (o *owed) all() {
	o.setAll()
	o.poke()
}

// setAll is all for later: the next renewal gets it going.
func (o *owed) setAll() {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.everything = true
	clear(o.attached)
}

func (o *owed) attach(at userSlot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	switch {
	case o.everything:
	case len(o.attached) >= maxOwed:
		o.everything = true
		clear(o.attached)
	default:
		o.attached[at] = struct{}{}
	}
}

// detach reports false if there is no room.
func (o *owed) detach(d detached) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.detached) >= maxOwed {
		return false
	}
	o.detached[d] = struct{}{}
	return true
}

// doubt remembers a slot until somebody asks settled. Beyond maxOwed the loser
// finds out by its own next round.
func (o *owed) doubt(at userSlot) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if len(o.doubtful) < maxOwed {
		o.doubtful[at] = struct{}{}
	}
}

// settled ends a doubt, and reports whether there was one.
func (o *owed) settled(at userSlot) bool {
	o.mu.Lock()
	defer o.mu.Unlock()
	_, was := o.doubtful[at]
	delete(o.doubtful, at)
	return was
}

// poke gets going what is owed, if anything is.
func (o *owed) poke() {
	if o.count() == 0 {
		return
	}
	select {
	case o.wake <- struct{}{}:
	default:
	}
}

// count counts everything as one.
func (o *owed) count() int {
	o.mu.Lock()
	defer o.mu.Unlock()
	n := len(o.attached) + len(o.detached)
	if o.everything {
		n++
	}
	return n
}

// take returns what is owed and owes it no longer. What is owed while the
// caller pays is owed anew.
func (o *owed) take() (everything bool, as []userSlot, ds []detached) {
	o.mu.Lock()
	defer o.mu.Unlock()
	everything, o.everything = o.everything, false
	for at := range o.attached {
		as = append(as, at)
	}
	for d := range o.detached {
		ds = append(ds, d)
	}
	clear(o.attached)
	clear(o.detached)
	return everything, as, ds
}
