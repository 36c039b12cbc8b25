package pebble

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"time"

	crdb "github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
)

// slowDisk is how long an operation may take before the log speaks of it.
const slowDisk = 5 * time.Second

// Shard is the embedded engine, a storage.Shard. See the package's doc.
type Shard struct {
	opts   Options
	db     *crdb.DB
	fs     vfs.FS
	log    zerolog.Logger
	events *listener
	watch  io.Closer // of fs; nil where the caller gave the file system
	gate   gate

	// mu is held by the write transaction that reads and plans, applyMu by the
	// one that is being applied. Order: mu, applyMu, slotMu.
	mu      sync.Mutex
	applyMu sync.Mutex
	write   func(*crdb.Batch, *crdb.WriteOptions) error // db.ApplyNoSyncWait

	// Guarded by mu: the encoder, and the dedupe rows of the last transaction,
	// which may not be applied yet.
	enc       encoder
	unapplied map[storage.SendKey]struct{}

	// The caches hold the newest rows, put there under mu just before they are
	// applied. They lock themselves.
	users     *cache[storage.UserID, storage.UserHead]
	convs     *cache[storage.ConvKey, storage.ConvHead]
	userConvs *cache[storage.UserConvKey, storage.UserConv]

	// slots changes under mu and slotMu both. Views hold slotMu while they take
	// their snapshot, so that none is of another moment than its check of slots.
	// slotWrites counts the transactions that changed some.
	slotMu     sync.RWMutex
	slots      [storage.Slots]storage.SlotRow
	slotWrites atomic.Uint64

	// Commits are numbered from 1. begun ≥ applied ≥ synced: started applying,
	// applied (all up to it can be seen), synced (all up to it are durable).
	begun, applied, synced atomic.Uint64

	pipe    pipeline
	full    atomic.Bool
	failed  atomic.Pointer[error]
	metrics *metrics
	stop    chan struct{}
	stopped sync.WaitGroup

	closing  sync.Once
	closeErr error
}

var _ storage.Shard = (*Shard)(nil)

// Open opens the shard in opts.Dir, or makes it. What the log holds of the last
// run is on the disk for good before Open returns. A folder that another process
// runs on, that belongs to another shard, or that a newer version wrote, is
// refused with an error that says so.
func Open(opts Options) (*Shard, error) {
	if err := opts.Validate(); err != nil {
		return nil, err
	}
	opts = opts.withDefaults()
	log := opts.Log.With().Uint32("shard", uint32(opts.ID)).Logger()
	events := &listener{log: log, fatal: opts.Fatal}
	var watch io.Closer
	if opts.FS == nil {
		// As Pebble would do itself, but it leaves the watching goroutine behind
		// when it cannot open.
		opts.FS, watch = vfs.WithDiskHealthChecks(vfs.Default, slowDisk, nil, events.diskSlow)
	}
	flaw := openBug() // none, but in a server for the torture
	opts.FS = markerFS{flaw.disk(opts.FS)}
	db, err := crdb.Open(opts.Dir, opts.engine(events))
	if err != nil {
		if watch != nil {
			_ = watch.Close()
		}
		return nil, openError(opts.Dir, err)
	}
	s := &Shard{
		opts: opts, db: db, fs: opts.FS, log: log, events: events, watch: watch,
		users:     newCache[storage.UserID, storage.UserHead](opts.HeadCacheBytes * 3 / 8),
		convs:     newCache[storage.ConvKey, storage.ConvHead](opts.HeadCacheBytes / 4),
		userConvs: newCache[storage.UserConvKey, storage.UserConv](opts.HeadCacheBytes * 3 / 8),
		write:     flaw.writer(db),
		unapplied: make(map[storage.SendKey]struct{}),
		stop:      make(chan struct{}),
	}
	if err := s.start(); err != nil {
		return nil, errors.Join(err, s.closeFiles())
	}
	return s, nil
}

// closeFiles ends Pebble, and then the watch on its disk.
func (s *Shard) closeFiles() error {
	err := s.db.Close()
	if s.watch != nil {
		err = errors.Join(err, s.watch.Close())
	}
	return err
}

func (s *Shard) start() error {
	if err := s.claim(); err != nil {
		return err
	}
	if err := s.loadSlots(); err != nil {
		return err
	}
	m, err := newMetrics(s)
	if err != nil {
		return err
	}
	s.metrics = m
	s.pipe.init(s)
	s.checkDisk()
	s.stopped.Add(2)
	go func() { defer s.stopped.Done(); s.pipe.run() }()
	go func() { defer s.stopped.Done(); s.watchDisk() }()
	return nil
}

func openError(dir string, err error) error {
	if errors.Is(err, syscall.EAGAIN) || strings.Contains(err.Error(), "lock held by current process") {
		return fmt.Errorf("pebble: another hermod runs on this data (%s); stop it, or give this one a folder of its own: %w", dir, err)
	}
	return fmt.Errorf("pebble: open %s: %w", dir, err)
}

// claim makes sure that the folder is this shard's.
func (s *Shard) claim() error {
	key := start(nil, tableShard)
	src := source{r: s.db}
	id, ok, err := find(&src, key, decodeShard)
	if err != nil {
		return fmt.Errorf("pebble: %s: cannot read whose data this is (a newer hermod's?): %w", s.opts.Dir, err)
	}
	if !ok {
		return s.db.Set(key, appendShard(nil, s.opts.ID), crdb.Sync)
	}
	if id != s.opts.ID {
		return fmt.Errorf("pebble: %s holds shard %d, not %d: the wrong folder or the wrong id is configured", s.opts.Dir, id, s.opts.ID)
	}
	return nil
}

func (s *Shard) loadSlots() error {
	for i := range s.slots {
		s.slots[i].Slot = storage.Slot(i)
	}
	src := source{r: s.db}
	low := start(nil, tableSlots)
	err := src.scan(low, upperBound(nil, low), false, func(key, val []byte) (bool, error) {
		r, err := decodeSlot(key, val)
		if err == nil {
			s.slots[r.Slot] = r
		}
		return true, err
	})
	return errors.Join(err, src.close())
}

// checkSlots needs mu or slotMu.
func (s *Shard) checkSlots(refs []storage.SlotRef) error {
	for _, r := range refs {
		if r.Slot >= storage.Slots {
			return fmt.Errorf("pebble: no slot %d: %w", r.Slot, storage.ErrSlotMoved)
		}
		if have := &s.slots[r.Slot]; have.State != storage.SlotOwned || have.Epoch != r.Epoch {
			return fmt.Errorf("pebble: slot %d is in state %d at epoch %d, asked for epoch %d: %w", r.Slot, have.State, have.Epoch, r.Epoch, storage.ErrSlotMoved)
		}
	}
	return nil
}

// ID is the shard's name.
func (s *Shard) ID() storage.ShardID { return s.opts.ID }

// InlineBody is 0: a body is read from the log's own shard, mostly this one, for
// less than writing it twice costs. Rows that carry a body all the same keep it.
func (s *Shard) InlineBody() int { return 0 }

func (s *Shard) now() int64 { return s.opts.Now().UnixMicro() }

// enter begins a use of the shard, exit ends it.
func (s *Shard) enter(ctx context.Context) error {
	if !s.gate.enter() {
		return storage.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		s.gate.exit()
		return fmt.Errorf("%w: %w", storage.ErrBusy, err)
	}
	return nil
}

// broken notes that it is not known any more what the disk holds, and reports
// whether that is news. Then Fatal has to be called, once those who wait know.
func (s *Shard) broken(err error) bool { return s.failed.CompareAndSwap(nil, &err) }

// Close refuses new calls, waits for the open ones and for the done of every
// transaction, then closes the files. Later calls wait for the first.
func (s *Shard) Close() error {
	s.closing.Do(func() {
		<-s.gate.close()
		s.pipe.close()
		close(s.stop)
		s.stopped.Wait()
		s.metrics.close()
		s.closeErr = s.closeFiles()
	})
	return s.closeErr
}

// gate counts the calls inside, until it is closed and the last one has left.
type gate struct {
	mu     sync.Mutex
	inside int
	closed bool
	empty  chan struct{}
}

func (g *gate) enter() bool {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.closed {
		return false
	}
	g.inside++
	return true
}

func (g *gate) exit() {
	g.mu.Lock()
	defer g.mu.Unlock()
	if g.inside--; g.inside == 0 && g.closed {
		close(g.empty)
	}
}

func (g *gate) close() <-chan struct{} {
	g.mu.Lock()
	defer g.mu.Unlock()
	g.closed, g.empty = true, make(chan struct{})
	if g.inside == 0 {
		close(g.empty)
	}
	return g.empty
}

// watchDisk refuses writes while the disk's reserve is touched.
func (s *Shard) watchDisk() {
	t := time.NewTicker(s.opts.DiskCheckEvery)
	defer t.Stop()
	for {
		select {
		case <-s.stop:
			return
		case <-t.C:
			s.checkDisk()
		}
	}
}

// checkDisk opens again only at an eighth above the reserve, so that it does
// not flap.
func (s *Shard) checkDisk() {
	reserve := s.opts.FreeReserveBytes
	if reserve < 0 {
		return
	}
	u, err := s.fs.GetDiskUsage(s.opts.Dir)
	if err != nil {
		return // a file system that cannot tell (in memory): never full
	}
	free := int64(min(u.AvailBytes, 1<<62))
	switch was := s.full.Load(); {
	case !was && free < reserve:
		s.full.Store(true)
		s.log.Error().Int64("free_bytes", free).Int64("reserve_bytes", reserve).Msg("disk reserve reached: writes are refused until there is space")
	case was && free >= reserve+reserve/8:
		s.full.Store(false)
		s.log.Warn().Int64("free_bytes", free).Msg("disk has space again: writes go on")
	}
}
