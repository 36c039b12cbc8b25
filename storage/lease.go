package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
)

// takeLeases takes this node's lease on every shard, before it can owe anything
// there. A node that died before its first lease has none that could run out:
// if it never came back, nobody would deliver what it owes.
func (s *Store) takeLeases(ctx context.Context) error {
	errs := make(chan error, len(s.shards))
	for _, sh := range s.shards {
		go func() {
			_, err := sh.Lease(ctx, s.opt.Node, s.opt.Incarnation, s.opt.LeaseTTL)
			if err != nil {
				err = fmt.Errorf("storage: shard %d: taking the lease: %w", sh.ID(), err)
			}
			errs <- err
		}()
	}
	var failed error
	for range s.shards {
		failed = errors.Join(failed, <-errs)
	}
	return failed
}

// leaseLoop keeps this node's lease on one shard, and takes over the tasks of
// nodes whose leases have run out (R4). It looks again at every renewal: a
// node that was only stopped may wake, or commit what it had begun, and then
// owns tasks again. That both then deliver does no harm: the target skips
// what it has, and the home believes the owner only.
//
// A takeover may be long, and runs beside: if the renewals waited for it, its
// node would be taken for dead with all that it has just taken over.
func (s *Store) leaseLoop(sh *shard) {
	idle := make(chan struct{}, 1)
	idle <- struct{}{}
	for {
		ctx, cancel := s.timeout()
		dead, err := sh.Lease(ctx, s.opt.Node, s.opt.Incarnation, s.opt.LeaseTTL)
		cancel()
		if err != nil && !s.isClosing() {
			sh.metrics.lease.Inc()
			s.log.Warn().Err(err).Uint32("shard", uint32(sh.ID())).Msg("renewing the lease")
		}
		if err == nil && len(dead) > 0 {
			select {
			case <-idle:
				s.loops.Go(func() {
					s.takeOverAll(sh, dead)
					idle <- struct{}{}
				})
			default: // at work
			}
		}
		if s.rest(s.opt.LeaseEvery) {
			return
		}
	}
}

func (s *Store) takeOverAll(sh *shard, dead []NodeID) {
	for _, node := range dead {
		if node != s.opt.Node {
			s.takeOver(sh, node)
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
