package router

import (
	"context"
	"math/rand/v2"
	"time"

	"github.com/redis/go-redis/v9"
)

// sweepParts is in how many rounds one node looks at all buckets.
const sweepParts = 16

// sweeper removes entries of runs that ended long ago. Without it a user who
// was connected to a node that was killed, and who never came back, would stay
// in Redis for good.
//
// Only what has been dead for three rounds is removed. Removing at first sight
// failed: a node that had been frozen wakes up and registers its entries anew,
// unchanged, while others still have it on their list of the dead.
type sweeper struct {
	next int // bucket
	// dead has the runs that entries were found of, and since when.
	dead map[tag]time.Time
}

func (r *Redis) newSweeper() *sweeper {
	return &sweeper{next: rand.IntN(r.opt.Buckets), dead: make(map[tag]time.Time)}
}

// sweep looks at the next part of the buckets, and stops early when something
// is owed, which matters more, or when Redis goes away.
func (s *sweeper) sweep(r *Redis) {
	left := max(1, r.opt.Buckets/sweepParts)
	for left > 0 && r.Up() && r.owed.count() == 0 {
		n := min(left, rejoinBatch)
		left -= n
		gone := s.look(r, n)
		r.metrics.swept.Add(float64(len(gone)))
		r.payDetaches(gone)
		if !r.pace(n) {
			return
		}
	}
}

// look reads n buckets and returns the entries to remove. Who is alive is asked
// right before.
func (s *sweeper) look(r *Redis, n int) (gone []detached) {
	r.renew()
	keys := make([]string, n)
	cmds := make([]*redis.MapStringStringCmd, n)
	for i := range keys {
		keys[i] = r.layout.bucket(uint64(s.next))
		s.next = (s.next + 1) % r.opt.Buckets
	}
	_ = r.request(r.ctx, opSweep, func(ctx context.Context) error {
		pipe := r.opt.Client.Pipeline()
		for i, key := range keys {
			cmds[i] = pipe.HGetAll(ctx, key)
		}
		_, err := pipe.Exec(ctx)
		return unlessSome(err, cmds)
	})
	for i, cmd := range cmds {
		for field, text := range cmd.Val() {
			if v, ok := parseValue(text); ok && s.isLongDead(r, v.tag) {
				gone = append(gone, detached{keys[i], field, text[orderBytes:]})
			}
		}
	}
	return gone
}

// isLongDead takes down since when a run is dead, and forgets it when it is
// not. Before Redis has said who is alive nobody is.
func (s *sweeper) isLongDead(r *Redis, t tag) bool {
	known := r.members.known.Load()
	if _, live := known.byTag[t]; live || !known.answered {
		delete(s.dead, t)
		return false
	}
	since, found := s.dead[t]
	if !found {
		s.dead[t] = r.opt.Now()
	}
	return found && r.opt.Now().Sub(since) >= 3*r.opt.Reassert
}
