package conn

// wheelSlots × the tick is how far ahead a connection can be put; a later
// deadline is looked at again when its slot comes, which costs one visit per
// revolution.
const wheelSlots = 1024

// wheel is a loop's hashed timing wheel. Its lists run through the
// connections themselves. Every open connection is in it, always: it is the
// loop's list of connections as well.
//
// Deadlines that move away (each frame moves the idle deadline) do not touch
// the wheel: the visit finds out. Only a nearer deadline moves the entry.
type wheel struct {
	slots [wheelSlots]*Conn
	at    int   // slot that was visited last
	tick  int64 // milliseconds per slot
	now   int64 // milliseconds that at stands for
}

// arm puts c where it is visited in `in` milliseconds or, if that is too far
// ahead, earlier. A connection that is already visited earlier stays.
func (w *wheel) arm(c *Conn, in int) {
	ahead := min(max((int64(in)+w.tick-1)/w.tick+1, 1), wheelSlots-1)
	if c.slot >= 0 {
		if (int64(c.slot)-int64(w.at)+wheelSlots)%wheelSlots <= ahead {
			return
		}
		w.remove(c)
	}
	c.slot = int16((int64(w.at) + ahead) % wheelSlots)
	head := w.slots[c.slot]
	c.next, c.prev = head, nil
	if head != nil {
		head.prev = c
	}
	w.slots[c.slot] = c
}

// remove takes c out; it need not be in.
func (w *wheel) remove(c *Conn) {
	if c.slot < 0 {
		return
	}
	if c.prev != nil {
		c.prev.next = c.next
	} else {
		w.slots[c.slot] = c.next
	}
	if c.next != nil {
		c.next.prev = c.prev
	}
	c.next, c.prev, c.slot = nil, nil, -1
}

// advance visits everything that is due at now (milliseconds). visit arms the
// connection again or lets it go.
func (w *wheel) advance(now int64, visit func(*Conn)) {
	steps := (now - w.now) / w.tick
	if steps <= 0 {
		return
	}
	w.now += steps * w.tick
	for range min(steps, wheelSlots) {
		w.at = (w.at + 1) % wheelSlots
		for c := w.slots[w.at]; c != nil; c = w.slots[w.at] {
			w.remove(c)
			visit(c)
		}
	}
}

// each calls f for every connection; f must not change the wheel.
func (w *wheel) each(f func(*Conn)) {
	for _, c := range w.slots {
		for ; c != nil; c = c.next {
			f(c)
		}
	}
}
