package storage

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"time"
)

// View runs fn on one snapshot of the rows of slot, and returns when what fn
// read is durable (R1): answer nobody before. fn may run again. While the slot
// is on the move, View waits, for CommitTimeout at most.
func (s *Store) View(ctx context.Context, slot Slot, fn func(Snap) error) error {
	for {
		if s.strayed(ctx, slot) {
			return s.follow(ctx, slot, fn)
		}
		err := s.view(ctx, []Slot{slot}, fn)
		if !errors.Is(err, errMoving) {
			return err
		}
		if err := s.await(ctx, slot); err != nil {
			return err
		}
	}
}

// errMoving is view's answer where a slot is on the move, or where the slots
// are no longer on one shard: the map has been read again.
var errMoving = errors.New("storage: slots are moving")

// view is View of several slots, which must be on one shard. It does not wait
// for any of them: errMoving.
func (s *Store) view(ctx context.Context, slots []Slot, fn func(Snap) error) error {
	for try := 0; ; try++ {
		if s.ctx.Err() != nil {
			return ErrClosed
		}
		sh, m, err := s.shardOf(slots[0])
		if err != nil {
			return err
		}
		g := guarded{s: s, shard: sh, slots: make([]SlotRef, 0, len(slots))}
		for _, slot := range slots {
			if int(m.owner[slot]) != sh.idx || m.frozen[slot] {
				return errMoving
			}
			g.slots = append(g.slots, m.ref(slot))
		}
		err = sh.view(ctx, &g, fn)
		if errors.Is(err, ErrSlotMoved) && try < 3 {
			if err = s.learn(ctx, sh, m); err == nil {
				if s.slots.Load() != m {
					return errMoving
				}
				continue
			}
		}
		if errors.Is(err, context.DeadlineExceeded) || errors.Is(err, ErrSlotMoved) {
			err = fmt.Errorf("%w: %w", ErrUnavailable, err)
		}
		if !g.young || s.bug.trustsYoung() {
			return err
		}
		// An error of fn is an answer too.
		if berr := sh.barrier.wait(ctx, s, sh); berr != nil {
			return berr
		}
		return err
	}
}

// view is a View of the shard, for ReadTimeout at most, unless that answers
// nobody.
func (sh *shard) view(ctx context.Context, g *guarded, fn func(Snap) error) error {
	switch err := ctx.Err(); {
	case errors.Is(err, context.DeadlineExceeded): // not the shard's fault
		return fmt.Errorf("%w: the time for it was over before it began", ErrBusy)
	case err != nil:
		return err
	}
	if err := sh.breakers.reads.admit(); err != nil {
		sh.metrics.unavailable.Inc()
		return err
	}
	v, err := sh.visit(ctx)
	if err != nil {
		return err
	}
	defer v.end()
	if end, ok := ctx.Deadline(); !ok || time.Until(end) > g.s.opt.ReadTimeout {
		var cancel context.CancelFunc
		ctx, cancel = context.WithTimeout(ctx, g.s.opt.ReadTimeout)
		defer cancel()
	}
	a := sh.breakers.reads.begin()
	err = sh.View(ctx, g.slots, func(sn Snap) error {
		g.Snap, g.young = sn, false
		return fn(g)
	})
	sh.breakers.reads.end(a, err)
	if errors.Is(err, ErrBusy) || errors.Is(err, context.DeadlineExceeded) {
		// Whoever was let through to find out is told what all others are.
		if given := sh.breakers.reads.given(); given != nil {
			return given
		}
	}
	return err
}

// Page is a part of a user's inbox.
type Page struct {
	// Rows follow `after` without a gap, bodies filled.
	Rows []InboxRow
	// Head is the user's head at the same moment. If after < Head.Floor some
	// rows are gone: the reader must rebuild from the conversation logs. If
	// after > Head.Seq it knows an inbox that this is not.
	Head UserHead
}

// More reports whether rows follow this page.
func (p *Page) More(after uint64) bool {
	if n := len(p.Rows); n > 0 {
		after = p.Rows[n-1].Seq
	}
	return after < p.Head.Seq && after >= p.Head.Floor
}

// syncChunk is how many rows are filled with bodies at a time, so that a page
// of pointers cannot be much larger than asked for.
const syncChunk = 32

// Sync reads the inbox of user after a seq: up to limit rows, and no more once
// there are maxBytes of bodies (0: no such bound). Head.Found is false for a
// user that does not exist. Bodies that are kept on other shards are fetched
// from there; if one of those is down, the page ends before the first of them,
// and only if that is the first row is it an error.
func (s *Store) Sync(ctx context.Context, user UserID, after uint64, limit, maxBytes int) (Page, error) {
	var p Page
	err := s.View(ctx, user.Slot(), func(sn Snap) (err error) {
		// Head and rows are of one snapshot: a floor raised since then deletes
		// only what this snapshot still has (R6).
		p = Page{}
		if p.Head, err = sn.User(user); err != nil || after < p.Head.Floor || after >= p.Head.Seq || limit <= 0 {
			return err
		}
		p.Rows, err = sn.Inbox(user, after, limit)
		return err
	})
	if err != nil {
		return Page{}, err
	}
	for i := range p.Rows {
		if p.Rows[i].Seq != after+1+uint64(i) {
			return Page{}, fmt.Errorf("%w: inbox of %d has seq %d where %d is due", ErrCorrupt, user, p.Rows[i].Seq, after+1+uint64(i))
		}
	}
	for from, size := 0, 0; from < len(p.Rows); from += syncChunk {
		chunk := p.Rows[from:min(from+syncChunk, len(p.Rows))]
		filled, err := s.fill(ctx, chunk)
		if err != nil && from+filled == 0 {
			return Page{}, err
		}
		for i := range chunk[:filled] {
			if size += len(chunk[i].Entry.Body); maxBytes > 0 && size > maxBytes && from+i > 0 {
				p.Rows = p.Rows[:from+i]
				return p, nil
			}
		}
		if filled < len(chunk) {
			p.Rows = p.Rows[:from+filled]
		}
	}
	return p, nil
}

// fill fetches the bodies that rows only point to, and returns how many rows
// from the start are complete. What a row points to is older than the row,
// hence durable.
func (s *Store) fill(ctx context.Context, rows []InboxRow) (int, error) {
	var missing []int
	for i := range rows {
		if !rows[i].Inline {
			missing = append(missing, i)
		}
	}
	filled, failed := len(rows), error(nil)
	s.spread(ctx, true, missing, func(i int) Slot { return rows[i].Entry.Conv.Slot() },
		func(sn Snap, at []int) error { return fillFrom(sn, rows, at) },
		func(at []int, err error) {
			if at[0] < filled {
				filled, failed = at[0], err
			}
		})
	return filled, failed
}

// fillFrom fetches the bodies of rows at the given positions.
func fillFrom(sn Snap, rows []InboxRow, at []int) error {
	// Consecutive rows are mostly consecutive entries of few talks.
	for n := 0; n < len(at); {
		first := &rows[at[n]].Entry
		run := 1
		for n+run < len(at) && rows[at[n+run]].Entry.Conv == first.Conv && rows[at[n+run]].Entry.Rev == first.Rev+uint64(run) {
			run++
		}
		es, err := sn.Entries(first.Conv, first.Rev, first.Rev+uint64(run)-1, run, 1<<30, false)
		if err != nil {
			return err
		}
		if len(es) != run {
			return fmt.Errorf("%w: the log of %v lacks entries %d to %d", ErrCorrupt, first.Conv, first.Rev, first.Rev+uint64(run)-1)
		}
		for i := range es {
			rows[at[n+i]].Entry.Body = es[i].Body
		}
		n += run
	}
	return nil
}

// History reads a conversation's log: up to limit entries with from ≤ rev ≤ to
// (0: to the end), ascending or descending, ending early once there are
// maxBytes of bodies (0: no such bound). Whether the reader may see them is
// the caller's to check.
func (s *Store) History(ctx context.Context, conv ConvKey, from, to uint64, limit, maxBytes int, desc bool) (es []Entry, err error) {
	if to == 0 {
		to = 1<<63 - 1
	}
	if maxBytes <= 0 {
		maxBytes = 1 << 30
	}
	if limit <= 0 || from > to {
		return nil, nil
	}
	err = s.View(ctx, conv.Slot(), func(sn Snap) (err error) {
		es, err = sn.Entries(conv, from, to, limit, maxBytes, desc)
		return err
	})
	return es, err
}

// Conversations pages through a user's conversations, by key, after `after`
// (nil: from the start).
func (s *Store) Conversations(ctx context.Context, user UserID, after *ConvKey, limit int) (cs []UserConv, err error) {
	err = s.View(ctx, user.Slot(), func(sn Snap) (err error) {
		cs, err = sn.UserConvs(user, after, limit)
		return err
	})
	return cs, err
}

// Heads returns the heads of users on any shards, position by position; Found
// is false for those that do not exist or could not be read, and then err says
// why: the others are good all the same.
func (s *Store) Heads(ctx context.Context, users []UserID) ([]UserHead, error) {
	heads := make([]UserHead, len(users))
	err := gather(ctx, s, users, heads, func(u UserID) Slot { return u.Slot() }, Snap.UserHeads)
	for i := range heads {
		heads[i].User = users[i]
	}
	return heads, err
}

// UserConvs is Heads for users' views of conversations.
func (s *Store) UserConvs(ctx context.Context, keys []UserConvKey) ([]UserConv, error) {
	rows := make([]UserConv, len(keys))
	err := gather(ctx, s, keys, rows, func(k UserConvKey) Slot { return k.User.Slot() }, Snap.UserConvRows)
	for i := range rows {
		rows[i].Key = keys[i]
	}
	return rows, err
}

// gather reads the rows of keys, with one view per shard, all shards at once.
func gather[K, R any](ctx context.Context, s *Store, keys []K, rows []R, slotOf func(K) Slot, read func(Snap, []K) ([]R, error)) (failed error) {
	at := make([]int, len(keys))
	for i := range at {
		at[i] = i
	}
	s.spread(ctx, true, at, func(i int) Slot { return slotOf(keys[i]) }, func(sn Snap, at []int) error {
		some := make([]K, len(at))
		for n, i := range at {
			some[n] = keys[i]
		}
		got, err := read(sn, some)
		for n := range got {
			rows[at[n]] = got[n]
		}
		return err
	}, func(_ []int, err error) { failed = errors.Join(failed, err) })
	return failed
}

// spread runs read for the positions in at, those on one shard together in one
// view, all shards at once; failed is told which of them could not be read and
// why, by one goroutine at a time. Those whose slots are on the move wait, by
// themselves, or fail if wait is false. read may run again.
func (s *Store) spread(ctx context.Context, wait bool, at []int, slotOf func(int) Slot, read func(Snap, []int) error, failed func([]int, error)) {
	var mu sync.Mutex
	fail := func(at []int, err error) {
		mu.Lock()
		defer mu.Unlock()
		failed(at, err)
	}
	var one func(p *readPart)
	all := func(at []int) {
		parts := s.divide(at, slotOf)
		if len(parts) == 1 {
			one(parts[0])
			return
		}
		var wg sync.WaitGroup
		for _, p := range parts {
			wg.Go(func() { one(p) })
		}
		wg.Wait()
	}
	one = func(p *readPart) {
		err := errMoving
		switch {
		case !p.moving:
			err = s.view(ctx, p.slots, func(sn Snap) error { return read(sn, p.at) })
		case wait:
			err = s.await(ctx, p.slots...)
		}
		switch {
		case err == nil && p.moving, !p.moving && errors.Is(err, errMoving):
			all(p.at) // the map is another one now
		case err != nil:
			fail(p.at, err)
		}
	}
	all(at)
}

// readPart is what spread reads of one shard, or what waits.
type readPart struct {
	moving bool
	slots  []Slot
	at     []int
}

// divide groups positions by shard, and those whose slots are on the move.
func (s *Store) divide(at []int, slotOf func(int) Slot) (parts []*readPart) {
	m := s.slots.Load()
	const moving = -2
	byOwner := map[int16]*readPart{}
	var seen [Slots / 64]uint64
	for _, i := range at {
		slot := slotOf(i) % Slots
		owner := m.owner[slot]
		if m.frozen[slot] {
			owner = moving
		}
		p := byOwner[owner]
		if p == nil {
			p = &readPart{moving: owner == moving}
			byOwner[owner] = p
			parts = append(parts, p)
		}
		if bit := uint64(1) << (slot % 64); seen[slot/64]&bit == 0 {
			seen[slot/64] |= bit
			p.slots = append(p.slots, slot)
		}
		p.at = append(p.at, i)
	}
	return parts
}
