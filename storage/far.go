package storage

import (
	"context"
	"fmt"
	"slices"
	"sync"
	"sync/atomic"
	"time"
)

// verdict is what is known of a conversation's side on another shard.
type verdict struct{ known, missing, blocked bool }

// farUsers remembers, for BlockStale, whether users on other shards exist and
// block somebody here (R3). A send whose answer is not known waits for a read
// of that shard; later sends to the same user by the same one wait behind it,
// so that their order stays.
type farUsers struct {
	s  *Store
	mu sync.Mutex
	// Two generations: what was not made in the last two periods is gone.
	cur, old map[BlockKey]*farUser
	turned   time.Time
	// reads is how many are being read. It is changed under mu.
	reads atomic.Int32
}

type farUser struct {
	v       verdict
	since   time.Time // begin of the read
	reading bool
	waiting []*appendOp
}

// maxWaiting bounds the sends that wait for one answer.
const maxWaiting = 1024

func (f *farUsers) init(s *Store) {
	f.s, f.cur, f.turned = s, map[BlockKey]*farUser{}, s.opt.Now()
}

// admit queues o with what is known of user, perhaps later. Whatever reaches a
// queue from here does so under f.mu, in order: see adopt.
func (f *farUsers) admit(o *appendOp, user UserID) {
	k := BlockKey{User: user, Peer: o.a.Conv.Peer(user)}
	now := f.s.opt.Now()
	f.mu.Lock()
	u := f.get(k, now)
	switch {
	case overtakes(o):
		f.mu.Unlock()
		o.answer(errOvertakes)
		return
	case u.reading && len(u.waiting) >= maxWaiting:
		f.mu.Unlock()
		o.answer(ErrBusy)
		return
	case u.reading:
		u.waiting = append(u.waiting, o)
		f.mu.Unlock()
		return
	case u.v.known && now.Sub(u.since) < f.s.opt.BlockStale:
		o.far = u.v
		err := f.s.put(o)
		f.mu.Unlock()
		if err != nil {
			o.answer(err)
		}
		return
	}
	u.waiting = append(u.waiting, o)
	start := f.begin(k, u, now)
	f.mu.Unlock()
	start()
}

// behind lets an append whose recipient is no longer far wait for those that
// came before it and wait for an answer. It reports whether there are any.
func (f *farUsers) behind(o *appendOp) bool {
	if f.reads.Load() == 0 {
		return false
	}
	other := o.a.Conv.Other()
	k := BlockKey{User: other, Peer: o.a.Conv.Peer(other)}
	f.mu.Lock()
	defer f.mu.Unlock()
	u := f.cur[k]
	if u == nil {
		u = f.old[k]
	}
	if u == nil || !u.reading {
		return false // the committer looks whether o overtakes
	}
	u.waiting = append(u.waiting, o)
	return true
}

// begin marks u as being read; the caller runs the read without f.mu, which it
// holds.
func (f *farUsers) begin(k BlockKey, u *farUser, now time.Time) (start func()) {
	u.reading, u.since = true, now
	f.reads.Add(1)
	return func() {
		if err := f.s.Go(k.User.Slot(), func(ctx context.Context) { f.read(ctx, k, u) }); err != nil {
			f.resolve(u, verdict{}, err)
		}
	}
}

// ask takes appends back whose recipients were on their own shard when they
// were queued, and are not any more. They are older than what waits here. f.mu
// is held; the caller runs what it gets without it.
func (f *farUsers) ask(ops []op) (starts []func()) {
	now := f.s.opt.Now()
	first := map[*farUser]int{} // how many of ops went to the front
	for _, o := range ops {
		o := o.(*appendOp)
		other := o.a.Conv.Other()
		k := BlockKey{User: other, Peer: o.a.Conv.Peer(other)}
		u := f.get(k, now)
		u.waiting = slices.Insert(u.waiting, first[u], o)
		first[u]++
		if !u.reading {
			starts = append(starts, f.begin(k, u, now))
		}
	}
	return starts
}

// get returns the entry of k, turning the generations. f.mu is held.
func (f *farUsers) get(k BlockKey, now time.Time) *farUser {
	if now.Sub(f.turned) > f.s.opt.BlockStale {
		next := map[BlockKey]*farUser{}
		for k, u := range f.old {
			if u.reading {
				next[k] = u // somebody waits for it: later sends must wait there too
			}
		}
		f.old, f.cur, f.turned = f.cur, next, now
	}
	u := f.cur[k]
	if u == nil {
		if u = f.old[k]; u == nil {
			u = new(farUser)
		}
		f.cur[k] = u
	}
	return u
}

func (f *farUsers) read(ctx context.Context, k BlockKey, u *farUser) {
	v := verdict{known: true}
	err := f.s.View(ctx, k.User.Slot(), func(sn Snap) error {
		h, err := sn.User(k.User)
		if err != nil {
			return err
		}
		b, err := sn.Block(k)
		v.missing, v.blocked = !h.Found, b.Found
		return err
	})
	if err != nil {
		v, err = verdict{}, fmt.Errorf("%w: looking at user %d: %w", ErrUnavailable, k.User, err)
	}
	f.resolve(u, v, err)
}

// resolve lets all who wait go on, in order; those who come meanwhile too. If
// one finds no room in the queue, those behind it are refused as well: room
// that comes now would let them overtake.
func (f *farUsers) resolve(u *farUser, v verdict, err error) {
	for {
		f.mu.Lock()
		waiting := u.waiting
		u.waiting = nil
		if len(waiting) == 0 {
			u.reading, u.v = false, v
			f.reads.Add(-1)
			f.mu.Unlock()
			return
		}
		var late []*appendOp
		for err == nil && len(waiting) > 0 {
			waiting[0].far = v
			switch err = f.s.put(waiting[0]); err {
			case errOvertakes:
				late, err = append(late, waiting[0]), nil // its session's trouble, nobody else's
				fallthrough
			case nil:
				waiting = waiting[1:]
			}
		}
		f.mu.Unlock()
		for _, o := range late {
			o.answer(errOvertakes)
		}
		for _, o := range waiting {
			o.answer(err)
		}
	}
}
