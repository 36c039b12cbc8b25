package storage

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/rs/zerolog"
)

// A Mover moves slots from one shard to another, of whatever engines, while
// Stores run on them (R5). A slot is frozen while its rows are copied: only
// what needs that slot waits, everywhere else goes on.
//
// All that a move has done is in the slot rows, so that a Mover which died is
// followed by another, with the same call:
//
//	source     target     what was done
//	Owned e    -          nothing
//	Frozen e+1 -          nobody but movers uses the rows any more
//	Frozen e+1 Frozen e+2 rows are being copied, counted and compared
//	Frozen e+1 Owned e+3  moved: Stores find the higher epoch
//	Absent e+3 Owned e+3  the source purges its rows
//	Absent 0   Owned e+3  done
//
// Neither engine purges rows of a slot that it owns or holds frozen, so a Mover
// that slept cannot delete what another one has copied. Everything that changes
// a slot row is a transaction that checks a lock row (Meta), on each shard.
//
// A Mover that fails before the target owns the slot gives it back to the
// source. One that is killed cannot: the slot stays frozen until Move is called
// again, to wherever, the source included.
type Mover struct {
	opt    MoverOptions
	lock   moveLock
	taken  time.Time // when the locks were last taken, or renewed
	pace   pace
	shards []Shard
	key    bool // the shards' name keys have been compared
}

// MoverOptions say what a Mover moves between.
type MoverOptions struct {
	// Shards are all shards of the installation, open, and the caller's to
	// close. All must answer: any may have claims on a slot.
	Shards []Shard
	// Who is told to a second Mover that finds the first at work.
	Who string
	// PageRows is about how many rows are copied at once, at most; default 500.
	// They are fewer while that takes long: see pace.
	PageRows int
	// InlineBody is the size up to which bodies move with an inbox row whose
	// conversation does not move; default 1,024. See Options.InlineBody.
	InlineBody int
	// LockTTL is how long after its last sign of life a Mover is taken for
	// dead; default 30 s.
	LockTTL time.Duration
	// Patience is how long something is tried again that a shard refuses for
	// the moment; default 20 s. While a slot is frozen its users wait as long.
	Patience time.Duration
	// Step, if not nil, is told what is about to be done.
	Step func(slot Slot, step string)
	Log  zerolog.Logger
}

// Moved is the outcome of one move.
type Moved struct {
	Slot     Slot
	From, To ShardID
	// Already: the slot was there; what an earlier move had left was deleted.
	Already bool
	// Frozen is how long nobody could use the slot, as far as this Mover knows.
	Frozen time.Duration
	// Rows are the counts and checksums of what was copied.
	Rows SlotSum
}

// ErrMoving: another Mover is at work on these shards.
var ErrMoving = errors.New("storage: another move is under way")

// NewMover checks o. Close the Mover when done: others then need not wait.
func NewMover(o MoverOptions) (*Mover, error) {
	if len(o.Shards) < 2 {
		return nil, fmt.Errorf("%w: moving slots takes two shards, there are %d", ErrInvalid, len(o.Shards))
	}
	for p, v := range map[*int]int{&o.PageRows: 500, &o.InlineBody: 1024} {
		if *p == 0 {
			*p = v
		}
	}
	for p, v := range map[*time.Duration]time.Duration{&o.LockTTL: 30 * time.Second, &o.Patience: 20 * time.Second} {
		if *p == 0 {
			*p = v
		}
	}
	if o.PageRows < 0 || o.InlineBody < 0 || o.LockTTL < 0 || o.Patience < 0 {
		return nil, fmt.Errorf("%w: MoverOptions has a number below 0", ErrInvalid)
	}
	if o.Step == nil {
		o.Step = func(Slot, string) {}
	}
	m := &Mover{opt: o, lock: newMoveLock(o.Who, o.LockTTL), pace: newPace(o.PageRows), shards: slices.Clone(o.Shards)}
	slices.SortFunc(m.shards, func(a, b Shard) int { return int(int64(a.ID()) - int64(b.ID())) })
	return m, nil
}

// Close lets the next Mover begin at once.
func (m *Mover) Close() error {
	ctx, cancel := context.WithTimeout(context.Background(), m.opt.Patience)
	defer cancel()
	return m.lock.release(ctx)
}

// Move brings a slot to shard `to`, or finishes what an earlier Mover began.
// Where the slot is frozen and `to` is its source, the move is called off. An
// error says what is to be done; calling Move again is always safe.
func (m *Mover) Move(ctx context.Context, slot Slot, to ShardID) (Moved, error) {
	res := Moved{Slot: slot, To: to}
	at := slices.IndexFunc(m.shards, func(sh Shard) bool { return sh.ID() == to })
	if at < 0 || slot >= Slots {
		return res, fmt.Errorf("%w: no shard %d or no slot %d", ErrInvalid, to, slot)
	}
	if err := m.begin(ctx); err != nil {
		return res, err
	}
	v := &move{m: m, slot: slot, dst: m.shards[at]}
	if err := v.look(ctx); err != nil {
		return res, err
	}
	res.From = v.src.ID()
	if err := v.clean(ctx); err != nil {
		return res, err
	}
	if v.src == v.dst {
		res.Already = !v.frozen
		return res, v.giveBack(ctx)
	}
	began := time.Now()
	owned, err := v.carry(ctx)
	res.Frozen, res.Rows = time.Since(began), v.sum
	if err == nil {
		return res, v.leave(ctx)
	}
	if owned {
		return res, fmt.Errorf("moving slot %d from shard %d to %d: it is not known whether shard %d has it now; until this is called again its users wait: %w", slot, res.From, to, to, err)
	}
	err = fmt.Errorf("moving slot %d from shard %d to %d: %w", slot, res.From, to, err)
	// The users wait: give it back, also where the caller has had enough.
	back, cancel := context.WithTimeout(context.WithoutCancel(ctx), m.opt.Patience)
	defer cancel()
	if berr := v.giveBack(back); berr != nil {
		return res, fmt.Errorf("%w; giving it back failed too, so its users wait until this is called again: %w", err, berr)
	}
	if perr := v.purge(back, v.dst); perr != nil {
		m.opt.Log.Warn().Err(perr).Msg("deleting what was copied; the next move of the slot does it")
	}
	return res, err
}

// begin takes the locks and compares the name keys, once.
func (m *Mover) begin(ctx context.Context) error {
	if err := m.eachLock(ctx, m.lock.take); err != nil {
		return err
	}
	if m.key {
		return nil
	}
	s := &Store{log: m.opt.Log}
	for _, sh := range m.shards {
		s.shards = append(s.shards, &shard{Shard: sh})
	}
	err := s.openNameKey(ctx)
	m.key = err == nil
	return err
}

// stay renews the locks in the course of a long copy: only what writes does so
// by itself, and only where it writes.
func (m *Mover) stay(ctx context.Context) error {
	if time.Since(m.taken) < max(m.opt.LockTTL/3, 10*time.Millisecond) {
		return nil
	}
	return m.eachLock(ctx, func(ctx context.Context, sh Shard) error { return m.lock.commit(ctx, sh, &Writes{}) })
}

func (m *Mover) eachLock(ctx context.Context, do func(context.Context, Shard) error) error {
	m.taken = time.Now()
	for _, sh := range m.shards {
		if err := m.try(ctx, func() error { return do(ctx, sh) }); err != nil {
			return fmt.Errorf("shard %d: %w", sh.ID(), err)
		}
	}
	return nil
}

// try repeats what a shard refuses for the moment.
func (m *Mover) try(ctx context.Context, f func() error) error {
	pause := 10 * time.Millisecond
	for until := time.Now().Add(m.opt.Patience); ; pause = min(2*pause, time.Second) {
		err := f()
		again := errors.Is(err, ErrBusy) || errors.Is(err, ErrUnavailable) || errors.Is(err, ErrUnknown)
		if !again || ctx.Err() != nil || time.Now().After(until) {
			return err
		}
		sleep(ctx.Done(), jitter(pause))
	}
}

// setSlot writes a shard's row of a slot. It may be repeated. An error that is
// ErrUnknown, among others, says that the row may have been written.
func (m *Mover) setSlot(ctx context.Context, sh Shard, r SlotRow) error {
	var unknown error
	err := m.try(ctx, func() error {
		err := m.lock.commit(ctx, sh, &Writes{Slots: []SlotRow{r}})
		if errors.Is(err, ErrUnknown) {
			unknown = err
		}
		return err
	})
	switch {
	case err == nil:
		return nil
	case unknown != nil && !errors.Is(err, ErrUnknown):
		err = fmt.Errorf("%w, after %w", err, unknown)
	}
	return fmt.Errorf("shard %d: writing the row of slot %d: %w", sh.ID(), r.Slot, err)
}

// move is one slot on its way.
type move struct {
	m        *Mover
	slot     Slot
	src, dst Shard
	rows     []SlotRow // by position in Mover.shards; Epoch 0 and SlotAbsent where there is none
	frozen   bool      // at the source
	top      uint64    // the highest epoch of all rows
	sum      SlotSum
}

// look finds the source: the owner, or who held the slot when it was frozen.
func (v *move) look(ctx context.Context) error {
	v.rows, v.src, v.top = make([]SlotRow, len(v.m.shards)), nil, 0
	var best SlotRow
	for i, sh := range v.m.shards {
		var rows []SlotRow
		if err := v.m.try(ctx, func() (err error) { rows, err = readSlots(ctx, sh); return err }); err != nil {
			return fmt.Errorf("shard %d: reading its slots: %w", sh.ID(), err)
		}
		v.rows[i].Slot = v.slot
		if at := slices.IndexFunc(rows, func(r SlotRow) bool { return r.Slot == v.slot }); at >= 0 {
			v.rows[i] = rows[at]
		}
		r := v.rows[i]
		v.top = max(v.top, r.Epoch)
		// Of two frozen ones the lower is the source; a slot that is owned
		// has a higher epoch than what earlier moves have left frozen.
		source := r.State == SlotFrozen && best.State == SlotFrozen && r.Epoch < best.Epoch
		if r.State != SlotAbsent && (v.src == nil || source || r.Epoch > best.Epoch && (r.State == SlotOwned || best.State == SlotOwned)) {
			v.src, best = sh, r
		}
	}
	if v.src == nil {
		return fmt.Errorf("%w: no shard owns slot %d: is one missing from the configuration?", ErrInvalid, v.slot)
	}
	v.frozen = best.State == SlotFrozen
	return nil
}

func (v *move) next() uint64 {
	v.top++
	return v.top
}

// clean deletes what earlier moves have left anywhere but at the source.
func (v *move) clean(ctx context.Context) error {
	for i, sh := range v.m.shards {
		if r := v.rows[i]; sh == v.src || r.State == SlotAbsent && r.Epoch == 0 {
			continue
		}
		if err := v.purge(ctx, sh); err != nil {
			return err
		}
	}
	return nil
}

// purge leaves nothing of the slot on a shard that does not have it.
func (v *move) purge(ctx context.Context, sh Shard) error {
	v.m.opt.Step(v.slot, fmt.Sprintf("purge at shard %d", sh.ID()))
	if err := v.m.setSlot(ctx, sh, SlotRow{Slot: v.slot, State: SlotAbsent, Epoch: v.top}); err != nil {
		return err
	}
	if err := v.m.try(ctx, func() error { return sh.Purge(ctx, v.slot) }); err != nil {
		return fmt.Errorf("shard %d: deleting its rows of slot %d: %w", sh.ID(), v.slot, err)
	}
	return v.m.setSlot(ctx, sh, SlotRow{Slot: v.slot, State: SlotAbsent})
}

// giveBack makes a frozen slot the source's again.
func (v *move) giveBack(ctx context.Context) error {
	if !v.frozen {
		return nil
	}
	v.m.opt.Step(v.slot, fmt.Sprintf("give back to shard %d", v.src.ID()))
	return v.m.setSlot(ctx, v.src, SlotRow{Slot: v.slot, State: SlotOwned, Epoch: v.next()})
}

// carry freezes the slot, copies it, and makes it the target's. On an error it
// reports whether the target may own it all the same.
func (v *move) carry(ctx context.Context) (owned bool, err error) {
	m := v.m
	if !v.frozen {
		m.opt.Step(v.slot, fmt.Sprintf("freeze at shard %d", v.src.ID()))
		v.frozen = true // perhaps, should it fail
		if err := m.setSlot(ctx, v.src, SlotRow{Slot: v.slot, State: SlotFrozen, Epoch: v.next()}); err != nil {
			return false, err
		}
	}
	// What the last transactions wrote must not be lost at the source once it
	// is all there is of it.
	if err := m.try(ctx, func() error { return v.src.Barrier(ctx) }); err != nil {
		return false, err
	}
	for tries := 1; ; tries++ {
		err := v.copyOnce(ctx)
		if err == nil {
			break
		}
		// Inserted rows cannot be inserted again: a page that may have been
		// written is written once more with all the others.
		if !errors.Is(err, ErrUnknown) || tries == 5 || ctx.Err() != nil {
			return false, err
		}
		if err := v.purge(ctx, v.dst); err != nil {
			return false, err
		}
	}
	if err := m.try(ctx, func() error { return v.dst.Barrier(ctx) }); err != nil {
		return false, err
	}
	m.opt.Step(v.slot, fmt.Sprintf("own at shard %d", v.dst.ID()))
	own := SlotRow{Slot: v.slot, State: SlotOwned, Epoch: v.next()}
	if err := m.setSlot(ctx, v.dst, own); err != nil {
		// A lock that was lost after an attempt of which nothing is known does
		// not make that attempt undone.
		return errors.Is(err, ErrUnknown) || !errors.Is(err, errLockLost), err
	}
	return false, nil
}

// leave empties the source.
func (v *move) leave(ctx context.Context) error {
	if err := v.purge(ctx, v.src); err != nil {
		return fmt.Errorf("slot %d is on shard %d now; what is left of it on shard %d must be deleted by calling this again: %w",
			v.slot, v.dst.ID(), v.src.ID(), err)
	}
	return nil
}
