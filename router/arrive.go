package router

import "context"

// Receive implements Receiver. It knows neither directory nor peers: what was
// forwarded once is never forwarded again, so two nodes with different ideas of
// where a user is cannot send an event back and forth.
func (r *Router) Receive(a *Arrived, gone []Place) []Place {
	p := r.local.Load()
	if p == nil {
		return gone
	}
	local := *p
	r.metrics.received.Add(float64(len(a.Deliveries)))
	if len(a.Deliveries) > 0 {
		r.metrics.deliveries.Add(float64(local.Push(a.Deliveries)))
	}
	if len(a.Hints) > 0 {
		local.Hint(a.Hints)
	}
	for _, at := range a.Places {
		if !local.Has(at.User, at.Conn) {
			gone = append(gone, at)
		}
	}
	return gone
}

// ReceiveKick implements Receiver.
func (r *Router) ReceiveKick(at Place, newLogin bool) bool {
	if at.Conn == 0 { // whichever it is: see Rejoiner
		if d, ok := r.opt.Directory.(Rejoiner); ok {
			d.Again(at.User, at.Slot)
		}
		return true
	}
	p := r.local.Load()
	if p == nil || !(*p).Has(at.User, at.Conn) {
		return false
	}
	(*p).Kick(at.User, at.Slot, at.Conn, newLogin)
	return true
}

// maxStale bounds the entries that wait for their removal. What does not fit
// misleads once more, and comes back.
const maxStale = 1024

type staleRoute struct {
	Place
	run Run
}

// NotHere implements Receiver. The directory's entries are wrong: a node went
// on without it when their connections closed. They are removed, unless they
// are others by now.
func (r *Router) NotHere(from Run, gone []Place) {
	for _, at := range gone {
		select {
		case r.stale <- staleRoute{at, from}:
		default:
			r.metrics.drop(dropStale, 1)
		}
	}
}

// forget removes stale entries, one at a time: they are rare.
func (r *Router) forget() {
	for {
		select {
		case <-r.ctx.Done():
			return
		case s := <-r.stale:
			r.detachStale(s)
		}
	}
}

func (r *Router) detachStale(s staleRoute) {
	ctx, cancel := context.WithTimeout(r.ctx, r.opt.LookupTimeout)
	defer cancel()
	ref := Ref{Node: s.run.Node, Incarnation: s.run.Incarnation, Conn: s.Conn}
	if err := r.opt.Directory.Detach(ctx, s.User, s.Slot, ref); err != nil {
		r.metrics.drop(dropStale, 1)
		return
	}
	r.metrics.forgotten.Inc()
}
