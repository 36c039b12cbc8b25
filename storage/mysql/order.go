package mysql

import "sync"

// order calls dones in the order in which their transactions got their locks.
// Of two that share rows the second locks after the first has committed, but
// its own commit may well return first: the rows of a commit are visible before
// its caller is told. Only those that share rows need the order; telling which
// do costs more than it saves with a few transactions at a time.
//
// Nobody waits here: who is not at the head leaves the call to who is.
type order struct {
	mu      sync.Mutex
	next    uint64
	head    uint64
	calls   map[uint64]func() // of tickets that have ended
	running bool
}

// enter is called with all locks held.
func (o *order) enter() uint64 {
	o.mu.Lock()
	defer o.mu.Unlock()
	o.next++
	return o.next - 1
}

// leave ends a ticket. call, which may be nil, runs when all earlier tickets
// have ended; perhaps on the goroutine of another one.
func (o *order) leave(ticket uint64, call func()) {
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.calls == nil {
		o.calls = make(map[uint64]func())
	}
	o.calls[ticket] = call
	if o.running {
		return
	}
	o.running = true
	for {
		call, ok := o.calls[o.head]
		if !ok {
			break
		}
		delete(o.calls, o.head)
		o.head++
		if call != nil {
			o.mu.Unlock()
			call()
			o.mu.Lock()
		}
	}
	o.running = false
}
