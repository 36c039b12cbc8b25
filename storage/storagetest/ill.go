package storagetest

import (
	"context"
	"fmt"
	"sync"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// An Ill is a shard in front of another one that can be down, hang or be slow,
// as a database behind a network can.
type Ill struct {
	storage.Shard

	mu    sync.Mutex
	down  error
	hang  chan struct{} // closed when the shard is well again; nil: does not hang
	slow  time.Duration
	calls int
}

// NewIll returns sh, well so far.
func NewIll(sh storage.Shard) *Ill { return &Ill{Shard: sh} }

// Down makes every call fail at once with err.
func (i *Ill) Down(err error) { i.set(err, nil, 0) }

// Hang makes calls wait until their context ends or the shard is well.
func (i *Ill) Hang() { i.set(nil, make(chan struct{}), 0) }

// Slow makes every call take d longer.
func (i *Ill) Slow(d time.Duration) { i.set(nil, nil, d) }

// Well ends all troubles.
func (i *Ill) Well() { i.set(nil, nil, 0) }

// Calls is how many calls have come to the shard, whatever became of them.
func (i *Ill) Calls() int {
	i.mu.Lock()
	defer i.mu.Unlock()
	return i.calls
}

func (i *Ill) set(down error, hang chan struct{}, slow time.Duration) {
	i.mu.Lock()
	defer i.mu.Unlock()
	if i.hang != nil {
		close(i.hang)
	}
	i.down, i.hang, i.slow = down, hang, slow
}

// suffer is what happens to a call before it reaches the shard.
func (i *Ill) suffer(ctx context.Context) error {
	i.mu.Lock()
	i.calls++
	down, hang, slow := i.down, i.hang, i.slow
	i.mu.Unlock()
	switch {
	case down != nil:
		return down
	case hang != nil:
		select {
		case <-hang:
		case <-ctx.Done():
			return ctx.Err()
		}
	case slow > 0:
		select {
		case <-time.After(slow):
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// Commit implements storage.Shard. A commit that is given up has an unknown
// outcome, as with a database that does not answer any more.
func (i *Ill) Commit(ctx context.Context, l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error)) error {
	if err := i.suffer(ctx); err != nil {
		if ctx.Err() != nil {
			err = fmt.Errorf("%w: %w", storage.ErrUnknown, err)
		}
		return err
	}
	return i.Shard.Commit(ctx, l, plan, done)
}

// View implements storage.Shard.
func (i *Ill) View(ctx context.Context, slots []storage.SlotRef, read func(storage.Snap) error) error {
	if err := i.suffer(ctx); err != nil {
		return err
	}
	return i.Shard.View(ctx, slots, read)
}

// Barrier implements storage.Shard.
func (i *Ill) Barrier(ctx context.Context) error {
	if err := i.suffer(ctx); err != nil {
		return err
	}
	return i.Shard.Barrier(ctx)
}

// Tasks implements storage.Shard.
func (i *Ill) Tasks(ctx context.Context, owner storage.NodeID, after *storage.TaskKey, limit int) ([]storage.Task, error) {
	if err := i.suffer(ctx); err != nil {
		return nil, err
	}
	return i.Shard.Tasks(ctx, owner, after, limit)
}

// Lease implements storage.Shard.
func (i *Ill) Lease(ctx context.Context, node storage.NodeID, incarnation uint64, ttl time.Duration) ([]storage.NodeID, error) {
	if err := i.suffer(ctx); err != nil {
		return nil, err
	}
	return i.Shard.Lease(ctx, node, incarnation, ttl)
}
