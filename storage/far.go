package storage

import (
	"context"
	"fmt"
	"sync"
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

// admit queues o with what is known of user, perhaps later.
func (f *farUsers) admit(o *appendOp, user UserID) {
	k := BlockKey{User: user, Peer: o.a.Conv.Peer(user)}
	now := f.s.opt.Now()
	f.mu.Lock()
	u := f.get(k, now)
	switch {
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
		f.mu.Unlock()
		f.s.enqueue(o)
		return
	}
	u.reading, u.since = true, now
	u.waiting = append(u.waiting, o)
	f.mu.Unlock()
	if err := f.s.Go(user.Slot(), func(ctx context.Context) { f.read(ctx, k, u) }); err != nil {
		f.resolve(u, verdict{}, err)
	}
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
			f.mu.Unlock()
			return
		}
		f.mu.Unlock()
		for _, o := range waiting {
			o.far = v
			if err == nil {
				err = f.s.put(o)
				if err == nil {
					continue
				}
			}
			o.answer(err)
		}
	}
}
