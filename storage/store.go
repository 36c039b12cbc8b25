package storage

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/rs/zerolog"
)

// A Store is all shards of an installation, seen from one node. See the
// package comment for what it promises. All methods may be called from any
// goroutine.
type Store struct {
	opt    Options
	log    zerolog.Logger
	bug    bug      // none, but in a server for the torture
	shards []*shard // by id

	// slots is replaced under slotMu; changed is closed when that happens. route
	// says at which shard's committers a slot's operations queue: see adopt.go.
	slots   atomic.Pointer[slotMap]
	slotMu  sync.Mutex
	changed chan struct{}
	route   [Slots]atomic.Int32
	handMu  sync.Mutex // held by the committer that adopts a map
	// waiting is how much waits for slots on the move; poke wakes slotLoop.
	waiting atomic.Int64
	poke    chan struct{} // of capacity 1

	nameKey []byte
	far     farUsers
	tasks   tasks

	// closing ends what runs by itself; ctx, later, what hangs.
	closing chan struct{}
	ctx     context.Context
	cancel  context.CancelFunc
	loops   sync.WaitGroup
	once    sync.Once
}

// shard is a Shard and what the Store runs for it.
type shard struct {
	Shard
	idx        int
	inline     int // InlineBody of the engine
	committers []*committer
	readers    *readers
	barrier    barrier
	breakers   *breakers
	metrics    *shardMetrics

	// claims are the slot rows as last read, guarded by Store.slotMu; claimMu
	// is held while they are read.
	claims  []SlotRow
	claimMu sync.Mutex
}

// Open reads the slot map and the name key, takes up the tasks that this node
// left, and starts the committers. Slots are claimed only if Options says so.
// The shards stay the caller's to close, after Close.
func Open(ctx context.Context, opt Options) (*Store, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	s := &Store{opt: opt.withDefaults(), log: opt.Log, bug: openBug(), closing: make(chan struct{}), changed: make(chan struct{}), poke: make(chan struct{}, 1)}
	s.ctx, s.cancel = context.WithCancel(context.Background())
	if err := s.open(ctx); err != nil {
		s.Close()
		return nil, err
	}
	return s, nil
}

func (s *Store) open(ctx context.Context) error {
	for _, sh := range s.opt.Shards {
		s.shards = append(s.shards, &shard{Shard: sh, inline: sh.InlineBody()})
	}
	slices.SortFunc(s.shards, func(a, b *shard) int { return int(int64(a.ID()) - int64(b.ID())) })
	s.tasks.init(s)
	s.far.init(s)
	for i, sh := range s.shards {
		sh.idx = i
		sh.readers, sh.breakers = newReaders(s, sh), newBreakers(s, sh.ID())
		var err error
		if sh.metrics, err = newMetrics(s.opt.Metrics, sh, s); err != nil {
			return err
		}
	}
	if s.opt.ClaimSlots {
		if err := s.claimSlots(ctx); err != nil {
			return err
		}
	}
	if err := s.loadSlots(ctx); err != nil {
		return err
	}
	if err := s.checkSlots(); err != nil {
		return err
	}
	if err := s.openNameKey(ctx); err != nil {
		return err
	}
	if err := s.takeLeases(ctx); err != nil {
		return err
	}
	for slot, owner := range s.slots.Load().owner {
		s.route[slot].Store(int32(owner))
	}
	for _, sh := range s.shards {
		s.startCommitters(sh)
	}
	s.startLoops()
	return nil
}

// startLoops starts what runs by itself.
func (s *Store) startLoops() {
	s.loops.Add(1)
	go s.slotLoop()
	for _, sh := range s.shards {
		for _, loop := range []func(*shard){s.leaseLoop, s.taskLoop, s.tellLoop, s.sweepLoop, s.watchLoop} {
			s.loops.Add(1)
			go func() {
				defer s.loops.Done()
				loop(sh)
			}()
		}
	}
}

func (s *Store) startCommitters(sh *shard) {
	k := s.opt.CommittersPerShard
	if k == 0 {
		k = 2
		if h, ok := sh.Shard.(CommitterHint); ok {
			k = max(1, h.Committers())
		}
	}
	for range k {
		sh.committers = append(sh.committers, newCommitter(s, sh))
	}
	for _, c := range sh.committers {
		go c.run()
	}
}

// committerOf returns the committer of a slot: always the same one as long as
// the slot stays, so a conversation is first in, first out.
func (sh *shard) committerOf(slot Slot) *committer {
	return sh.committers[uint32(slot)*2654435761>>16%uint32(len(sh.committers))]
}

// enqueue hands o to its committer; where that refuses, o is answered.
func (s *Store) enqueue(o op) {
	if err := s.put(o); err != nil {
		o.answer(err)
	}
}

// put hands o to its committer, or says why not; o then is still the caller's.
func (s *Store) put(o op) error {
	slot := o.head().slot % Slots
	for {
		at := s.route[slot].Load()
		if at < 0 {
			return fmt.Errorf("%w: slot %d has no owner", ErrUnavailable, slot)
		}
		if err := s.shards[at].committerOf(slot).put(o); err != errRerouted {
			return err
		}
	}
}

// Close answers what is queued, stops everything, and waits for it. A shard
// that hangs is given CommitTimeout. Tasks that are left are taken up at the
// next Open, or by another node.
func (s *Store) Close() error {
	s.once.Do(func() {
		s.tasks.close() // before closing: tellLoop waits then for what is under way
		close(s.closing)
		defer time.AfterFunc(s.opt.CommitTimeout, s.cancel).Stop()
		s.loops.Wait() // they still need committers and readers
		for _, sh := range s.shards {
			if sh.readers != nil {
				sh.readers.close()
			}
		}
		for _, sh := range s.shards {
			for _, c := range sh.committers {
				c.close()
			}
		}
		for _, sh := range s.shards {
			for _, c := range sh.committers {
				<-c.stopped
			}
		}
		s.cancel()
		for _, sh := range s.shards {
			sh.barrier.close()
			sh.metrics.unregister()
		}
	})
	return nil
}

func (s *Store) isClosing() bool {
	select {
	case <-s.closing:
		return true
	default:
		return false
	}
}

// timeout returns a context for something that runs by itself.
func (s *Store) timeout() (context.Context, context.CancelFunc) {
	return context.WithTimeout(s.ctx, s.opt.ReadTimeout)
}
