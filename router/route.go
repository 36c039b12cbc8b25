package router

import "context"

// item is what waits for a look-up: a delivery, or a hint.
type item struct {
	user  int64
	seq   uint64
	event []byte
	hint  bool
}

// maxLookup is the most users of one look-up.
const maxLookup = 512

// finder is what looking up and sorting by node needs; kept, so that a batch
// costs no allocation.
type finder struct {
	items  []item // of a caller that has none of its own
	users  []int64
	nth    map[int64]int32 // user → index in users and spans
	routes []Route
	spans  []span // each user's part of routes
	groups []group
	byRun  map[Run]int32 // run → index in groups
}

type span struct{ from, to int32 }

// group is what goes to one run of a node.
type group struct {
	to    Run
	batch []Forwarded
}

func newFinder() *finder {
	return &finder{nth: make(map[int64]int32), byRun: make(map[Run]int32)}
}

// reset empties items without keeping events alive.
func (f *finder) reset(items []item) []item {
	clear(items)
	return items[:0]
}

// route looks the users of items up and hands what is for other nodes to the
// peers, each user's in order.
func (r *Router) route(ctx context.Context, f *finder, items []item) {
	for len(items) > 0 {
		n := f.collect(items)
		if r.lookup(ctx, f, items[:n]) {
			r.forward(f, items[:n])
		}
		items = items[n:]
	}
}

// collect gathers the users of as many items as one look-up takes.
func (f *finder) collect(items []item) int {
	f.users = f.users[:0]
	clear(f.nth)
	for i := range items {
		if _, ok := f.nth[items[i].user]; ok {
			continue
		}
		if len(f.users) == maxLookup {
			return i
		}
		f.nth[items[i].user] = int32(len(f.users))
		f.users = append(f.users, items[i].user)
	}
	return len(items)
}

// lookup fills routes and spans.
func (r *Router) lookup(ctx context.Context, f *finder, items []item) bool {
	if r.remote {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, r.opt.LookupTimeout)
		defer cancel()
	}
	var err error
	f.routes, err = r.opt.Directory.Lookup(ctx, f.users, f.routes[:0])
	if err != nil {
		r.metrics.drop(dropLookup, len(items))
		r.often.Warn().Err(err).Int("users", len(f.users)).Msg("directory look-up failed; pushes to other nodes dropped, sessions there will read storage")
		return false
	}
	f.spans = f.spans[:0]
	at := int32(0)
	for _, user := range f.users {
		from := at
		for int(at) < len(f.routes) && f.routes[at].User == user {
			at++
		}
		f.spans = append(f.spans, span{from, at})
	}
	return true
}

// forward sorts items by node. A user who is on a node twice gets an item there
// once.
func (r *Router) forward(f *finder, items []item) {
	offline, forwarded := 0, 0
	for i := range items {
		it := &items[i]
		s := f.spans[f.nth[it.user]]
		routes := f.routes[s.from:s.to]
		if len(routes) == 0 && !it.hint {
			offline++
		}
		for k := range routes {
			run := routes[k].Run()
			if run.Node == r.opt.Node || seenBefore(routes[:k], run) {
				continue
			}
			g := f.group(run)
			g.batch = append(g.batch, Forwarded{User: it.user, Seq: it.seq, Event: it.event, Hint: it.hint, Routes: routes})
			forwarded++
		}
	}
	r.metrics.offline.Add(float64(offline))
	r.metrics.forwarded.Add(float64(forwarded))
	peers := *r.peers.Load()
	for i := range f.groups {
		g := &f.groups[i]
		peers.Forward(g.to, g.batch)
		clear(g.batch)
		g.batch = g.batch[:0]
	}
	f.groups = f.groups[:0]
	clear(f.byRun)
}

func seenBefore(routes []Route, run Run) bool {
	for i := range routes {
		if routes[i].Run() == run {
			return true
		}
	}
	return false
}

// group returns the group of a run, made if there is none. Its batch keeps the
// memory of the one that stood there before.
func (f *finder) group(run Run) *group {
	if i, ok := f.byRun[run]; ok {
		return &f.groups[i]
	}
	i := len(f.groups)
	f.byRun[run] = int32(i)
	if i < cap(f.groups) {
		f.groups = f.groups[:i+1]
	} else {
		f.groups = append(f.groups, group{})
	}
	f.groups[i].to = run
	return &f.groups[i]
}
