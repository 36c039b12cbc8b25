package pebble

import (
	"context"
	"errors"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"

	"github.com/hermod-im/hermod/storage"
)

// Tasks implements storage.Shard. What it returns is durable: another shard may
// be written to because of it (R1).
func (s *Shard) Tasks(ctx context.Context, owner storage.NodeID, after *storage.TaskKey, limit int) (tasks []storage.Task, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.gate.exit()
	v, err := s.snapshot(nil)
	if err != nil {
		return nil, err
	}
	tasks, err = v.tasksOf(owner, after, limit)
	if err = errors.Join(err, v.close()); err != nil {
		return nil, err
	}
	return tasks, s.barrier(ctx)
}

func (v *snap) tasksOf(owner storage.NodeID, after *storage.TaskKey, limit int) ([]storage.Task, error) {
	low := appendUint64(start(nil, tableOwners), uint64(owner))
	upp := upperBound(nil, low)
	if after != nil {
		low = append(ownerKey(low, owner, *after), 0)
	}
	keys, err := collect(&v.src, low, upp, limit, func(key, _ []byte) (storage.TaskKey, error) {
		_, k, err := decodeOwner(key)
		return k, err
	})
	if err != nil {
		return nil, err
	}
	return each(keys, v.src.task)
}

// Lease implements storage.Shard, on Options.Now. Leases are kept for ever: one
// small row for each node there ever was, and nothing is lost when a node sleeps
// for a month. The renewal is durable when Lease returns.
func (s *Shard) Lease(ctx context.Context, node storage.NodeID, incarnation uint64, ttl time.Duration) (dead []storage.NodeID, err error) {
	if err := s.enter(ctx); err != nil {
		return nil, err
	}
	defer s.gate.exit()
	now := s.now()
	if err := s.renew(ctx, node, lease{Incarnation: incarnation, Until: now + ttl.Microseconds()}); err != nil {
		return nil, err
	}
	v, err := s.snapshot(nil)
	if err != nil {
		return nil, err
	}
	dead, err = v.dead(now, node)
	return dead, errors.Join(err, v.close())
}

func (s *Shard) renew(ctx context.Context, node storage.NodeID, l lease) error {
	return s.commitBatch(ctx, func() (*crdb.Batch, *storage.Writes, error) {
		batch := s.db.NewBatch()
		err := batch.Set(leaseKey(nil, node), appendLease(nil, l), nil)
		return batch, &storage.Writes{}, err
	})
}

// commitBatch is a transaction of the shard's own, and returns when it is
// durable. It needs no room on the disk that the reserve does not have.
func (s *Shard) commitBatch(ctx context.Context, prepare func() (*crdb.Batch, *storage.Writes, error)) error {
	if err := s.pipe.acquire(ctx); err != nil {
		return err
	}
	done := make(chan error, 1)
	if err := s.transact(func(err error) { done <- err }, prepare); err != nil {
		s.pipe.release()
		return err
	}
	return <-done
}

// dead returns the other nodes with a lease that ran out and a task.
func (v *snap) dead(now int64, self storage.NodeID) (dead []storage.NodeID, err error) {
	type held struct {
		node  storage.NodeID
		until int64
	}
	low := start(nil, tableLeases)
	leases, err := collect(&v.src, low, upperBound(nil, low), 1<<20, func(key, val []byte) (held, error) {
		n, l, err := decodeLease(key, val)
		return held{n, l.Until}, err
	})
	if err != nil {
		return nil, err
	}
	for _, l := range leases {
		if l.node == self || l.until > now {
			continue
		}
		tasks, err := v.tasksOf(l.node, nil, 1)
		if err != nil {
			return nil, err
		}
		if len(tasks) > 0 {
			dead = append(dead, l.node)
		}
	}
	return dead, nil
}
