package router

import (
	"context"
	"slices"
	"time"

	"github.com/redis/go-redis/v9"
)

// rejoinBatch is how many entries one pipelined request registers anew. Redis
// does nothing else for well under 2 ms.
const rejoinBatch = 128

func (r *Redis) owe(user int64, slot Slot) { r.owed.attach(userSlot{user, slot}) }

func (r *Redis) oweDetach(ds ...detached) {
	for _, d := range ds {
		if !r.owed.detach(d) {
			r.metrics.dropped.Inc()
		}
	}
}

// keepRegistered pays what is owed until Close: it is woken by losses and by
// each renewal that succeeds while something is owed. Once a round it sweeps,
// and registers everything in case a part of it was lost unnoticed.
func (r *Redis) keepRegistered() {
	round := time.NewTicker(r.opt.Reassert)
	defer round.Stop()
	s := r.newSweeper()
	checked := false
	for {
		select {
		case <-r.ctx.Done():
			return
		case <-round.C:
			s.sweep(r)
			r.owed.setAll()
		case <-r.owed.wake:
		}
		if r.Up() {
			r.pay()
		}
		r.metrics.owed.Set(float64(r.owed.count()))
		if !checked && r.members.known.Load().answered {
			checked = true
			r.check(r.ctx)
		}
	}
}

// pay registers and removes what is owed. What does not succeed stays owed.
func (r *Redis) pay() {
	everything, attaches, detaches := r.owed.take()
	r.payDetaches(detaches)
	if everything {
		if !r.registerEverything() {
			r.owed.setAll()
		}
		return
	}
	routes := make([]Route, 0, len(attaches))
	for _, at := range attaches {
		if e, ok := r.mirror.find(at.user, at.slot); ok {
			routes = append(routes, Route{User: at.user, Slot: at.slot, Entry: e})
		}
	}
	r.registerPaced(routes)
}

// registerEverything registers all of this node's connections, false: it was
// cut off, by Redis or by a further loss.
func (r *Redis) registerEverything() bool {
	losses := r.losses.Load()
	var part []Route
	for nth := range memoryShards {
		part = r.mirror.appendPart(part[:0], nth)
		if !r.registerPaced(part) || r.losses.Load() != losses {
			return false
		}
	}
	return true
}

// registerPaced registers routes at RedisOptions.Rate at most. When Redis goes
// away it gives up, false, and the rest stays owed.
func (r *Redis) registerPaced(routes []Route) bool {
	ok := true
	for len(routes) > 0 {
		n := min(rejoinBatch, len(routes))
		batch := routes[:n]
		routes = routes[n:]
		if ok = ok && r.Up(); !ok {
			r.oweRoutes(batch)
			continue
		}
		ok = r.registerBatch(batch) && r.pace(n)
	}
	return ok
}

func (r *Redis) oweRoutes(routes []Route) {
	for i := range routes {
		r.owe(routes[i].User, routes[i].Slot)
	}
}

// pace waits as long as n entries may take; false: closed.
func (r *Redis) pace(n int) bool {
	select {
	case <-r.ctx.Done():
		return false
	case <-time.After(time.Duration(n) * time.Second / time.Duration(r.opt.Rate)):
		return true
	}
}

// registerBatch registers routes with the numbers that they have; false: some
// could not be and are owed.
func (r *Redis) registerBatch(routes []Route) bool {
	last := r.deadline(r.now())
	cmds := r.pipeline(r.scripts.attach, len(routes), func(i int) (string, []any) {
		rt := &routes[i]
		return r.layout.key(rt.User), r.attachArgs(rt.User, rt.Slot, rt.Entry, 0, "", last)
	})
	ok := true
	for i := range routes {
		rt := &routes[i]
		a, err := r.registered(rt, cmds[i])
		if err != nil {
			ok = false
			r.unknown(rt)
			continue
		}
		r.metrics.anew.Inc()
		r.conclude(rt, a)
	}
	return ok
}

// unknown acts on a registration that may have come to pass or not. If the
// connection went meanwhile, its detach may have been first.
func (r *Redis) unknown(rt *Route) {
	r.owed.doubt(userSlot{rt.User, rt.Slot})
	if r.mirror.renumber(rt.User, rt.Slot, rt.Ref, 0) {
		r.owe(rt.User, rt.Slot)
	} else {
		_ = r.Detach(r.ctx, rt.User, rt.Slot, rt.Ref)
	}
}

// registered reads one answer of registerBatch.
func (r *Redis) registered(rt *Route, cmd *redis.Cmd) (a Attached, err error) {
	reply, err := cmd.Slice()
	if err != nil {
		return a, err
	}
	res, err := parseAttach(reply)
	if err != nil {
		return a, err
	}
	a, stale, unsure := r.outcome(r.ctx, rt.Entry, res)
	if stale || res.status == attachLate {
		return r.register(r.ctx, opRejoin, rt.User, rt.Slot, rt.Entry)
	}
	if unsure {
		r.owed.doubt(userSlot{rt.User, rt.Slot})
	}
	return a, nil
}

// conclude acts on what came of registering a connection anew: nobody waits
// for the answer.
func (r *Redis) conclude(rt *Route, a Attached) {
	if a.Lost {
		_ = r.mirror.Detach(r.ctx, rt.User, rt.Slot, rt.Ref)
		r.tell(rt.User, rt.Slot, rt.Ref, a.NewLogin)
		r.askLosers(rt.User, rt.Slot) // the winner took the slot from us, and knows of nobody before
		return
	}
	r.tell(rt.User, rt.Slot, a.Loser, a.NewLogin)
	r.askLosers(rt.User, rt.Slot)
	if !r.mirror.renumber(rt.User, rt.Slot, rt.Ref, a.AttachNo) {
		// It went while it was being registered, and its detach may have come
		// before that.
		_ = r.Detach(r.ctx, rt.User, rt.Slot, rt.Ref)
	}
}

// payDetaches removes entries of connections that are gone.
func (r *Redis) payDetaches(ds []detached) {
	for len(ds) > 0 {
		n := min(rejoinBatch, len(ds))
		batch := ds[:n]
		ds = ds[n:]
		if !r.Up() {
			r.oweDetach(batch...)
			continue
		}
		cmds := r.pipeline(r.scripts.detach, n, func(i int) (string, []any) {
			return batch[i].key, []any{batch[i].field, batch[i].who}
		})
		for i, d := range batch {
			if cmds[i].Err() != nil {
				r.oweDetach(d)
			}
		}
		r.pace(n)
	}
}

// pipeline runs a script n times in one request. A server that does not know
// the script gets its text.
func (r *Redis) pipeline(s *redis.Script, n int, call func(i int) (key string, args []any)) []*redis.Cmd {
	cmds := make([]*redis.Cmd, n)
	run := func(ctx context.Context, source bool) error {
		pipe := r.opt.Client.Pipeline()
		for i := range cmds {
			key, args := call(i)
			if source {
				cmds[i] = s.Eval(ctx, pipe, []string{key}, args...)
			} else {
				cmds[i] = s.EvalSha(ctx, pipe, []string{key}, args...)
			}
		}
		_, err := pipe.Exec(ctx)
		return err
	}
	_ = r.request(r.ctx, opRejoin, func(ctx context.Context) error {
		err := run(ctx, false)
		if slices.ContainsFunc(cmds, func(c *redis.Cmd) bool { return redis.HasErrorPrefix(c.Err(), "NOSCRIPT") }) {
			err = run(ctx, true)
		}
		return unlessSome(err, cmds)
	})
	return cmds
}
