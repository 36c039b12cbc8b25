package storage

import "sync"

// leaseLoop keeps this node's lease on one shard, and takes over the tasks of
// nodes whose leases have run out (R4). It looks again at every renewal: a
// node that was only stopped may wake, or commit what it had begun, and then
// owns tasks again. That both then deliver does no harm: the target skips
// what it has, and the home believes the owner only.
func (s *Store) leaseLoop(sh *shard) {
	for {
		ctx, cancel := s.timeout()
		dead, err := sh.Lease(ctx, s.opt.Node, s.opt.Incarnation, s.opt.LeaseTTL)
		cancel()
		switch {
		case err != nil && !s.isClosing():
			sh.metrics.lease.Inc()
			s.log.Warn().Err(err).Uint32("shard", uint32(sh.ID())).Msg("renewing the lease")
		case err == nil:
			for _, node := range dead {
				if node != s.opt.Node {
					s.takeOver(sh, node)
				}
			}
		}
		if s.rest(s.opt.LeaseEvery) {
			return
		}
	}
}

// takeOver makes the tasks of a dead node ours, a page at a time.
func (s *Store) takeOver(sh *shard, node NodeID) {
	took := 0
	err := s.scanTasks(sh, node, func(ts []Task) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, t := range ts {
			wg.Add(1)
			s.enqueue(newClaimOp(t.Key, node, func(ok bool, _ error) {
				mu.Lock()
				defer mu.Unlock()
				if ok {
					took++
				}
				wg.Done()
			}))
		}
		wg.Wait()
	})
	sh.metrics.takenOver.Add(float64(took))
	if took > 0 || err != nil {
		s.log.Warn().Err(err).Uint32("shard", uint32(sh.ID())).Uint64("node", uint64(node)).Int("tasks", took).
			Msg("took over the tasks of a dead node")
	}
}
