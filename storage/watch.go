package storage

import "context"

// sent notes that a batch goes to the engine.
func (c *committer) sent() context.Context {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.out++; c.out == 1 {
		c.progress++
	}
	return c.ctx
}

// back notes that a batch came back from the engine.
func (c *committer) back(b *batch, err error) {
	c.mu.Lock()
	c.out--
	c.progress++
	c.mu.Unlock()
	c.sh.breakers.commits.end(b.attempt, err)
}

// watchTicks is in how many looks a commit must be seen without progress. It
// is not a matter of time alone: a process that was stopped for a minute has
// shards that are well.
const watchTicks = 4

// watchLoop looks after the commits of a shard that do not come back.
func (s *Store) watchLoop(sh *shard) {
	for {
		sleep(s.closing, s.opt.StallTimeout/watchTicks)
		if s.isClosing() {
			return
		}
		for _, c := range sh.committers {
			c.watch()
		}
	}
}

// watch ends what has been at the engine for StallTimeout: the engine is asked
// to give up, and what queued behind is refused. What is at the engine stays
// there until that comes back, since it may yet be committed; then settle
// refuses it, too.
func (c *committer) watch() {
	c.mu.Lock()
	if c.out == 0 || c.progress != c.seen {
		c.seen, c.still = c.progress, 0
		c.mu.Unlock()
		return
	}
	if c.still++; c.still < watchTicks {
		c.mu.Unlock()
		return
	}
	c.still = 0
	c.cancel()
	c.ctx, c.cancel = context.WithCancel(c.s.ctx)
	c.refuse(c.emptyQueue(), c.sh.breakers.commits.stuck(c.s.opt.StallTimeout))
}
