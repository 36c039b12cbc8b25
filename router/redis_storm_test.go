package router

import (
	"context"
	"fmt"
	"math/rand/v2"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench/local"
)

// sessions is what a node's conn/chat would be: it has connections until they
// are kicked or leave.
type sessions struct {
	*node
	all map[uint64]*sessions // by node

	mu   sync.Mutex
	live map[uint64]userSlot // by connection
}

// kick ends the connection wherever it is. Kicks may be lost in life, and then
// the audit ends the session; here they are not, so that only the directory
// can be at fault.
func (s *sessions) kick(user int64, slot Slot, loser Ref, _ bool) {
	if loser.Conn == 0 {
		s.all[loser.Node].Again(user, slot)
		return
	}
	s.all[loser.Node].leave(loser.Conn)
}

func (s *sessions) leave(conn uint64) {
	s.mu.Lock()
	at, ok := s.live[conn]
	delete(s.live, conn)
	s.mu.Unlock()
	if ok {
		s.detach(at.user, at.slot, conn)
	}
}

func (s *sessions) login(at userSlot, conn, epoch uint64) {
	s.mu.Lock()
	s.live[conn] = at
	s.mu.Unlock()
	if a := s.attach(at.user, at.slot, conn, epoch); a.Loser != (Ref{}) {
		s.kick(at.user, at.slot, a.Loser, a.NewLogin)
	}
	s.mu.Lock()
	_, ok := s.live[conn]
	s.mu.Unlock()
	if !ok { // kicked while it attached, as conn/chat would find out
		s.detach(at.user, at.slot, conn)
	}
}

// at returns who is live, by slot.
func (s *sessions) at(into map[userSlot][]Ref) {
	s.mu.Lock()
	defer s.mu.Unlock()
	for conn, at := range s.live {
		into[at] = append(into[at], s.ref(conn))
	}
}

// TestStormLeavesOneSessionPerSlot (I7): while devices log in and out on three
// nodes, Redis is flushed, frozen, killed, and loses leases and buckets. When
// that is over, every slot has at most one session, and the directory knows it.
func TestStormLeavesOneSessionPerSlot(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	f.storm(6*time.Second, f.harm, func(o *RedisOptions) { o.Reassert = 500 * time.Millisecond })
}

// The same where answers are lost, and nothing else: the losers that they named
// are found out before the next round, which does not come.
func TestStormOfLostAnswers(t *testing.T) {
	f := newFleet(t, local.RedisOptions{})
	var all []*deaf
	f.storm(3*time.Second, func(ctx context.Context, _ layout) {
		for ; ctx.Err() == nil; time.Sleep(2 * time.Millisecond) {
			all[rand.IntN(len(all))].left.Store(1)
		}
	}, func(o *RedisOptions) {
		d := new(deaf)
		all = append(all, d)
		o.Client.AddHook(d)
	})
}

// storm is the load of both, with what harms Redis meanwhile.
func (f *fleet) storm(length time.Duration, harm func(context.Context, layout), change func(*RedisOptions)) {
	t := f.t
	t.Helper()
	ctx, calm := context.WithTimeout(context.Background(), length)
	defer calm()
	nodes := map[uint64]*sessions{}
	for id := uint64(1); id <= 3; id++ {
		n := f.start(id, 1, impatient(f), change)
		s := &sessions{node: n, all: nodes, live: map[uint64]userSlot{}}
		nodes[id] = s
		n.OnLoser(s.kick)
	}
	var work sync.WaitGroup
	for id, s := range nodes {
		for range 4 {
			work.Go(func() {
				for conn := rand.Uint64() >> 1; ctx.Err() == nil; conn++ {
					at := userSlot{1 + rand.Int64N(60), Slot(1 + rand.IntN(2))}
					s.login(at, conn, 1+rand.Uint64N(2))
					if rand.IntN(3) == 0 {
						nodes[id].leave(conn)
					}
					time.Sleep(time.Millisecond) // a load, not a flood
				}
			})
		}
	}
	harm(ctx, nodes[1].layout)
	work.Wait()
	for _, s := range nodes {
		eventually(t, s.Up, func() any { return s.log })
	}
	var live map[userSlot][]Ref
	var wrong string
	eventually(t, func() bool {
		live = map[userSlot][]Ref{}
		for _, s := range nodes {
			s.at(live)
		}
		for user := int64(1); user <= 60; user++ {
			found := map[Slot]Ref{}
			for _, r := range nodes[1].routes(user) {
				found[r.Slot] = r.Ref
			}
			for slot := Slot(1); slot <= 2; slot++ {
				is := live[userSlot{user, slot}]
				ref, ok := found[slot]
				if len(is) > 1 || ok != (len(is) == 1) || ok && ref != is[0] {
					wrong = fmt.Sprintf("user %d slot %d: live %v, found %v", user, slot, is, ref)
					return false
				}
			}
		}
		return true
	}, func() any { return wrong })
	if len(live) < 10 {
		t.Errorf("only %d slots are live: the storm was none", len(live))
	}
}

// harm does to Redis what can happen to one, until ctx ends.
func (f *fleet) harm(ctx context.Context, l layout) {
	pause := func(d time.Duration) {
		select {
		case <-ctx.Done():
		case <-time.After(d):
		}
	}
	for ctx.Err() == nil {
		switch rand.IntN(5) {
		case 0:
			f.do("FLUSHALL")
		case 1:
			f.do("HDEL", l.nodes, 1+rand.IntN(3))
		case 2:
			for user := int64(1); user <= 20; user++ {
				f.do("DEL", l.key(user))
			}
		case 3:
			must(f.t, f.server.Pause())
			pause(700 * time.Millisecond)
			must(f.t, f.server.Continue())
		case 4:
			f.server.Kill()
			pause(200 * time.Millisecond)
			must(f.t, f.server.Start(context.Background()))
		}
		pause(300 * time.Millisecond)
	}
}
