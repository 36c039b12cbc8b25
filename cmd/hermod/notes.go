package main

import (
	"context"
	"encoding/json"
	"errors"
	"strconv"
	"time"

	"github.com/redis/go-redis/v9"
)

const (
	// noteEvery is how often a node says in Redis how it is, noteLife how long
	// that is believed.
	noteEvery = 3 * time.Second
	noteLife  = 10 * time.Second
)

// notes is what nodes write into Redis about themselves, for operators to read.
// Nothing rests on them but the refusal of a node that runs twice.
type notes struct {
	client redis.UniversalClient
	prefix string
}

func (n notes) key(node uint64) string { return n.prefix + strconv.FormatUint(node, 10) }

// write says how a node is.
func (n notes) write(ctx context.Context, st nodeStatus) error {
	b, err := json.Marshal(st)
	if err != nil {
		return err
	}
	return n.client.Set(ctx, n.key(st.Node), b, noteLife).Err()
}

// read returns what a node says, nil if it says nothing.
func (n notes) read(ctx context.Context, node uint64) (*nodeStatus, error) {
	b, err := n.client.Get(ctx, n.key(node)).Bytes()
	if errors.Is(err, redis.Nil) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	st := new(nodeStatus)
	if err := json.Unmarshal(b, st); err != nil || st.Node != node {
		return nil, nil // another version's
	}
	return st, nil
}

// remove is for a node that goes in order.
func (n notes) remove(ctx context.Context, node uint64) error {
	return n.client.Del(ctx, n.key(node)).Err()
}

// keepNote writes this node's note until ctx ends, and takes it back then. That
// Redis is down others say.
func (s *Server) keepNote(ctx context.Context) {
	tick := time.NewTicker(noteEvery)
	defer tick.Stop()
	for {
		c, cancel := context.WithTimeout(ctx, noteEvery)
		_ = s.fleet.notes.write(c, s.self())
		cancel()
		select {
		case <-tick.C:
		case <-ctx.Done():
			c, cancel := context.WithTimeout(context.Background(), time.Second)
			_ = s.fleet.notes.remove(c, s.data.node.ID)
			cancel()
			return
		}
	}
}
