package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
)

// health is what /readyz answers: whether the node takes clients, and what of
// it does not work.
type health struct {
	err  error // why it takes none
	ills []string
}

// String is "ok", or what is wrong, a line each.
func (h health) String() string {
	switch {
	case h.err != nil:
		return h.err.Error()
	case len(h.ills) > 0:
		return "ok, but\n" + strings.Join(h.ills, "\n")
	}
	return "ok"
}

// ready asks every part. A node whose shards are down in part stays ready:
// every other node misses the same ones, and with all nodes out of the load
// balancer nobody could reach the shards that work.
func (s *Server) ready(ctx context.Context) health {
	if s.draining.Load() {
		return health{err: errors.New("draining")}
	}
	ills := make([]string, len(s.shards))
	var wg sync.WaitGroup
	for i, sh := range s.shards {
		wg.Go(func() {
			if err := sh.Barrier(ctx); err != nil {
				ills[i] = fmt.Sprintf("shard %d does not answer: %v", sh.ID(), err)
			}
		})
	}
	wg.Wait()
	var h health
	for _, ill := range ills {
		if ill != "" {
			h.ills = append(h.ills, ill)
		}
	}
	if len(h.ills) == len(s.shards) {
		h.err = errors.New(strings.Join(h.ills, "\n"))
	}
	if s.fleet != nil && !s.fleet.directory.Up() {
		h.ills = append(h.ills, "Redis does not answer: messages to users on other nodes are late")
	}
	return h
}
