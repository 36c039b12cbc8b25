package storage

import "fmt"

// startReading lets the lane read entries at home, unless it does already. With
// many to be read it waits until a good part of them can be read together.
// l.mu is held.
func (l *lane) startReading() {
	if l.reading || l.closed || l.darkRoom() == 0 {
		return
	}
	l.reading = true
	l.s.tasks.flying.Add(1)
	go func() {
		defer l.s.tasks.flying.Done()
		for l.readDark() {
		}
	}()
}

// darkRoom is how many spans are to be read now. l.mu is held.
func (l *lane) darkRoom() int {
	n := min(len(l.dark), laneBatch-l.flying)
	if n < min(len(l.dark), laneBatch/2) {
		return 0
	}
	return n
}

// readDark reads what is not at hand, many tasks in one view, and delivers it.
// It reports whether there may be more.
func (l *lane) readDark() bool {
	ops, strays, ok := l.takeDark()
	l.hand(strays)
	if len(ops) == 0 {
		return ok
	}
	l.home.metrics.taskReads.Add(float64(len(ops)))
	errs := l.read(ops)
	for i, o := range ops {
		if errs[i] != nil {
			l.landed(o, errs[i])
			continue
		}
		o.size += int(sizeOf(o.entries))
		l.s.enqueue(o)
	}
	return true
}

// takeDark begins the deliveries that readDark reads for.
func (l *lane) takeDark() (ops []*deliverOp, strays []owing, ok bool) {
	l.mu.Lock()
	defer l.mu.Unlock()
	m, n := l.s.slots.Load(), l.darkRoom()
	if l.reading = n > 0 && !l.closed && !l.napping; !l.reading {
		return nil, nil, false
	}
	for ; n > 0; n-- {
		if sp := pop(&l.dark); l.stays(sp, m, &strays) {
			ops = append(ops, l.begin(sp, nil))
		}
	}
	return ops, strays, true
}

// read fetches what is to be delivered, up to the first entry at hand. It is
// durable: whoever adds a task has seen its commit done.
func (l *lane) read(ops []*deliverOp) []error {
	ctx, cancel := l.s.timeout()
	defer cancel()
	at, errs := make([]int, len(ops)), make([]error, len(ops))
	for i := range at {
		at[i] = i
	}
	l.s.spread(ctx, false, at, func(i int) Slot { return ops[i].span.key.Conv.Slot() }, func(sn Snap, at []int) (err error) {
		for _, i := range at {
			o := ops[i]
			if o.entries, err = sn.Entries(o.span.key.Conv, o.from, min(o.to, o.from+spanRevs-1), spanRevs, spanBytes, false); err != nil {
				return err
			}
		}
		return nil
	}, func(at []int, err error) {
		for _, i := range at {
			errs[i] = err
		}
	})
	for i, o := range ops {
		if errs[i] == nil && (len(o.entries) == 0 || o.entries[0].Rev != o.from) {
			errs[i] = fmt.Errorf("%w: the log of %v lacks entry %d, which is to be delivered", ErrCorrupt, o.span.key.Conv, o.from)
		}
	}
	return errs
}
