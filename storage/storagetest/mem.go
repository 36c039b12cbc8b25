package storagetest

import (
	"bytes"
	"cmp"
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"sync"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// A Mem is a shard in memory that fails on command: commits take effect at
// once but become durable later, or never, as on a real disk. It keeps to the
// contract of storage.Shard as strictly as it can: what is applied and not
// durable is visible, and done runs on a goroutine of its own, in order.
type Mem struct {
	id  storage.ShardID
	opt MemOptions

	mu      sync.Mutex
	landed  *sync.Cond // some commit became durable, or will not
	state   *memState
	shared  bool              // a snapshot has it: the next commit makes another one
	log     []func(*memState) // every applied commit; durable of them are
	durable int
	flying  []memFlight
	held    bool
	down    error
	closed  bool
	fault   func(n int, w *storage.Writes) Fault
	commits int
	views   int
	reading int // open views
	max     int // the most in flight
	idle    chan struct{}
}

// MemOptions configure a Mem; the zero value is instant and roomy.
type MemOptions struct {
	// Inline is the shard's InlineBody.
	Inline int
	// Delay is how long a commit takes to become durable.
	Delay time.Duration
	// Now is the shard's clock; nil: time.Now.
	Now func() time.Time
}

// Fault is what happens to a commit.
type Fault struct {
	// Err is the outcome. With ErrUnknown, Applied says what really happened.
	Err     error
	Applied bool
	// Early: Commit itself returns Err, and done is not called.
	Early bool
}

type memFlight struct {
	n    int // log length that this commit vouches for
	done func(error)
	due  time.Time
}

// NewMem returns an empty shard.
func NewMem(id storage.ShardID, opt MemOptions) *Mem {
	if opt.Now == nil {
		opt.Now = time.Now
	}
	m := &Mem{id: id, opt: opt, state: newMemState(), idle: make(chan struct{})}
	m.landed = sync.NewCond(&m.mu)
	go m.run()
	return m
}

// run makes commits durable, in order.
func (m *Mem) run() {
	defer close(m.idle)
	m.mu.Lock()
	defer m.mu.Unlock()
	for {
		for len(m.flying) == 0 || m.held {
			if m.closed && len(m.flying) == 0 {
				return
			}
			m.landed.Wait()
		}
		f := m.flying[0]
		if wait := time.Until(f.due); wait > 0 {
			m.mu.Unlock()
			time.Sleep(wait)
			m.mu.Lock()
			continue
		}
		m.flying = m.flying[1:]
		m.durable = max(m.durable, f.n)
		m.mu.Unlock()
		f.done(nil)
		m.mu.Lock()
		m.landed.Broadcast()
	}
}

// Hold keeps commits from becoming durable until the returned function runs.
func (m *Mem) Hold() (release func()) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.held = true
	return func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.held = false
		m.landed.Broadcast()
	}
}

// SetFault sets what decides about each commit, by number and writes; nil: none
// fails. It is called under the shard's lock and must be quick.
func (m *Mem) SetFault(f func(n int, w *storage.Writes) Fault) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.fault = f
}

// SetDown makes every call answer err; nil: the shard is back.
func (m *Mem) SetDown(err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.down = err
}

// Commits is how many commits have run, MaxFlying the most that were applied
// and not yet durable at one time, Views how many snapshots were read.
func (m *Mem) Commits() int   { m.mu.Lock(); defer m.mu.Unlock(); return m.commits }
func (m *Mem) MaxFlying() int { m.mu.Lock(); defer m.mu.Unlock(); return m.max }
func (m *Mem) Views() int     { m.mu.Lock(); defer m.mu.Unlock(); return m.views }

// Crash ends this shard as a power cut would: nothing more is answered, what
// was not durable is gone. It returns the shard as it is found afterwards.
func (m *Mem) Crash() *Mem {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.closed, m.held, m.down = true, false, storage.ErrClosed
	for _, f := range m.flying {
		go f.done(fmt.Errorf("%w: power cut", storage.ErrUnknown))
	}
	m.flying = nil
	m.landed.Broadcast()
	next := NewMem(m.id, m.opt)
	for _, apply := range m.log[:m.durable] {
		apply(next.state)
	}
	next.log, next.durable = slices.Clone(m.log[:m.durable]), m.durable
	maps.Copy(next.state.leases, m.state.leases)
	return next
}

// ID is the shard's name.
func (m *Mem) ID() storage.ShardID { return m.id }

// InlineBody is MemOptions.Inline.
func (m *Mem) InlineBody() int { return m.opt.Inline }

func (m *Mem) now() int64 { return m.opt.Now().UnixMicro() }

// Commit implements storage.Shard.
func (m *Mem) Commit(ctx context.Context, l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error), done func(error)) error {
	m.mu.Lock()
	if err := m.usable(ctx); err != nil {
		m.mu.Unlock()
		return err
	}
	if err := m.state.checkSlots(l.Slots); err != nil {
		m.mu.Unlock()
		return err
	}
	w, err := plan(m.state.lock(l, m.now()))
	if err != nil {
		m.mu.Unlock()
		return err
	}
	if w == nil {
		w = &storage.Writes{}
	}
	if err := m.state.refuse(w); err != nil {
		m.mu.Unlock()
		return err
	}
	m.commits++
	var f Fault
	if m.fault != nil {
		f = m.fault(m.commits, w)
	}
	if f.Err == nil || f.Applied {
		c := clone(w)
		m.apply(func(s *memState) { s.apply(c) })
	}
	if f.Err == nil {
		m.fly(done)
		m.mu.Unlock()
		return nil
	}
	m.mu.Unlock()
	if f.Early {
		return f.Err
	}
	// As a database does: known before the next transaction begins.
	done(f.Err)
	return nil
}

// apply makes a commit visible. m.mu is held.
func (m *Mem) apply(change func(*memState)) {
	if m.shared { // some snapshot is of it
		m.state, m.shared = m.state.copy(), false
	}
	change(m.state)
	m.log = append(m.log, change)
}

// fly calls done when everything so far is durable. m.mu is held.
func (m *Mem) fly(done func(error)) {
	m.flying = append(m.flying, memFlight{n: len(m.log), done: done, due: time.Now().Add(m.opt.Delay)})
	m.max = max(m.max, len(m.flying))
	m.landed.Broadcast()
}

// Purge implements storage.Shard, in one transaction.
func (m *Mem) Purge(ctx context.Context, slot storage.Slot) error {
	m.mu.Lock()
	if err := m.usable(ctx); err != nil {
		m.mu.Unlock()
		return err
	}
	if r := m.state.slots[slot]; r.State != storage.SlotAbsent {
		m.mu.Unlock()
		return fmt.Errorf("%w: slot %d is in state %d here, not absent", storage.ErrInvalid, slot, r.State)
	}
	m.apply(func(s *memState) { s.purge(slot) })
	done := make(chan error, 1)
	m.fly(func(err error) { done <- err })
	m.mu.Unlock()
	return <-done
}

func (m *Mem) usable(ctx context.Context) error {
	switch {
	case m.closed:
		return storage.ErrClosed
	case m.down != nil:
		return m.down
	}
	return ctx.Err()
}

// View implements storage.Shard.
func (m *Mem) View(ctx context.Context, slots []storage.SlotRef, read func(storage.Snap) error) error {
	m.mu.Lock()
	if err := m.usable(ctx); err != nil {
		m.mu.Unlock()
		return err
	}
	if err := m.state.checkSlots(slots); err != nil {
		m.mu.Unlock()
		return err
	}
	m.views++
	m.reading++
	m.shared = true
	s := &memSnap{memState: m.state, now: m.now(), slots: slots}
	m.mu.Unlock()
	defer func() {
		m.mu.Lock()
		defer m.mu.Unlock()
		m.reading--
		m.landed.Broadcast()
	}()
	return read(s)
}

// Barrier implements storage.Shard.
func (m *Mem) Barrier(ctx context.Context) error {
	stop := context.AfterFunc(ctx, m.landed.Broadcast)
	defer stop()
	m.mu.Lock()
	defer m.mu.Unlock()
	for n := len(m.log); m.durable < n; m.landed.Wait() {
		if err := m.usable(ctx); err != nil {
			return err
		}
	}
	return m.usable(ctx)
}

// Tasks implements storage.Shard.
func (m *Mem) Tasks(ctx context.Context, owner storage.NodeID, after *storage.TaskKey, limit int) ([]storage.Task, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	var ts []storage.Task
	for _, t := range m.state.tasks {
		if t.Owner == owner && (after == nil || compareTasks(t.Key, *after) > 0) {
			ts = append(ts, t)
		}
	}
	slices.SortFunc(ts, func(a, b storage.Task) int { return compareTasks(a.Key, b.Key) })
	return ts[:min(len(ts), limit)], nil
}

func compareTasks(a, b storage.TaskKey) int {
	return cmp.Or(bytes.Compare(a.Conv[:], b.Conv[:]), cmp.Compare(a.Target, b.Target))
}

// Lease implements storage.Shard.
func (m *Mem) Lease(ctx context.Context, node storage.NodeID, _ uint64, ttl time.Duration) (dead []storage.NodeID, err error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if err := m.usable(ctx); err != nil {
		return nil, err
	}
	now := m.now()
	m.state.leases[node] = now + ttl.Microseconds()
	owners := map[storage.NodeID]bool{}
	for _, t := range m.state.tasks {
		owners[t.Owner] = true
	}
	for n, until := range m.state.leases {
		if until <= now && n != node && owners[n] {
			dead = append(dead, n)
		}
	}
	slices.Sort(dead)
	return dead, nil
}

// Close implements storage.Shard.
func (m *Mem) Close() error {
	m.mu.Lock()
	m.closed, m.held = true, false
	m.landed.Broadcast()
	for m.reading > 0 {
		m.landed.Wait()
	}
	m.mu.Unlock()
	<-m.idle
	return nil
}

var errTwice = errors.New("storagetest: a row that is insert only exists")
