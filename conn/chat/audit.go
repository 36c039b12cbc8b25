package chat

import (
	"context"
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

const (
	auditBatch = 500
	// auditTimeout bounds the reads of one batch.
	auditTimeout = 10 * time.Second
)

// audit compares every connected user with storage once per AuditEvery: the
// promise that a lost push is repaired within a minute, a revocation is
// finished wherever it was made, and an older login is gone. It goes in
// batches, spread over the interval, so that a million sessions are a trickle
// of reads. It needs neither the directory nor the other nodes.
//
// Each storage shard has a lane of its own, so that one that hangs, or is slow,
// delays the audit of nobody but its own users. (At first a batch was read in
// one go, from all shards: it took as long as the slowest.)
func (c *Chat) audit() {
	defer c.work.Done()
	a := auditor{c: c, next: time.Now().Add(c.opt.AuditEvery / 2), lanes: make(map[storage.ShardID]*auditLane)}
	for c.sleep(time.Until(a.next)) {
		a.step(time.Now())
	}
}

// sleep reports false when the Chat closes meanwhile.
func (c *Chat) sleep(d time.Duration) bool {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
		return true
	case <-c.ctx.Done():
		return false
	}
}

// auditor walks the session table shard by shard, and gives each user to the
// lane of the storage shard that it lives on.
type auditor struct {
	c     *Chat
	shard int
	users []storage.UserID // of the batch
	rest  []storage.UserID // of the shard, not looked at yet
	next  time.Time        // of the next batch
	lanes map[storage.ShardID]*auditLane
}

// step looks at the next batch. Batches are so far apart that one round takes
// AuditEvery.
func (a *auditor) step(now time.Time) {
	batches := a.c.table.count.Load()/auditBatch + 1
	if a.next = a.next.Add(a.c.opt.AuditEvery / time.Duration(batches)); a.next.Before(now) {
		a.next = now // slower than planned: no burst to make up for it
	}
	a.fill()
	parts := make(map[storage.ShardID][]storage.UserID)
	for _, u := range a.users {
		if id, err := a.c.store.ShardOf(u.Slot()); err == nil {
			parts[id] = append(parts[id], u)
		}
	}
	for id, users := range parts {
		l := a.lanes[id]
		if l == nil {
			l = &auditLane{c: a.c, wake: make(chan struct{}, 1)}
			a.lanes[id] = l
			a.c.work.Go(l.run)
		}
		l.add(users)
	}
}

// fill collects the next batch, at most one round of the table.
func (a *auditor) fill() {
	a.users = a.users[:0]
	for range tableShards {
		n := min(auditBatch-len(a.users), len(a.rest))
		a.users, a.rest = append(a.users, a.rest[:n]...), a.rest[n:]
		if len(a.users) == auditBatch {
			return
		}
		a.rest = a.c.table.users(a.shard, a.rest[:0])
		a.shard = (a.shard + 1) % tableShards
	}
	// Once round and not full: what the last shard gave is the rest of it.
	n := min(auditBatch-len(a.users), len(a.rest))
	a.users, a.rest = append(a.users, a.rest[:n]...), a.rest[n:]
}

// auditLane audits the users of one storage shard. Its goroutine lives as long
// as the Chat.
type auditLane struct {
	c    *Chat
	wake chan struct{} // of capacity 1

	mu    sync.Mutex
	users []storage.UserID

	// only the lane's goroutine
	sessions []*session
	suspects []suspect // due ascending
}

// auditAhead bounds the users that wait for a lane. What does not fit comes
// round again: a shard that slow has more urgent things to do.
const auditAhead = 16 * auditBatch

// suspect is a session that was behind storage. Its pushes may be on their way:
// they are lost only if it still is, and has not moved, when it is due.
type suspect struct {
	s          *session
	sent, head uint64
	due        time.Time
}

// suspectGrace is how long a push may take from the commit to the session.
const suspectGrace = time.Second

func (l *auditLane) add(users []storage.UserID) {
	l.mu.Lock()
	n := min(len(users), auditAhead-len(l.users))
	l.users = append(l.users, users[:n]...)
	l.mu.Unlock()
	l.c.metrics.auditSkips.Add(float64(len(users) - n))
	select {
	case l.wake <- struct{}{}:
	default:
	}
}

// take returns the next users to look at, those that have waited longest.
func (l *auditLane) take() (users []storage.UserID) {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := min(len(l.users), auditBatch)
	users, l.users = l.users[:n:n], l.users[n:]
	return users
}

func (l *auditLane) run() {
	timer := time.NewTimer(time.Hour)
	defer timer.Stop()
	for l.c.ctx.Err() == nil {
		l.repair(time.Now())
		if users := l.take(); len(users) > 0 {
			l.look(users)
			continue
		}
		pause := time.Hour
		if len(l.suspects) > 0 {
			pause = max(time.Until(l.suspects[0].due), 0)
		}
		timer.Reset(pause)
		select {
		case <-timer.C:
		case <-l.wake:
		case <-l.c.ctx.Done():
		}
	}
}

// look compares a batch of users with their heads.
func (l *auditLane) look(users []storage.UserID) {
	ctx, cancel := context.WithTimeout(l.c.ctx, auditTimeout)
	defer cancel()
	heads, err := l.c.store.Heads(ctx, users)
	if err != nil {
		l.c.metrics.auditFailures.Inc()
		l.c.often.Warn().Err(err).Int("users", len(users)).Msg("audit could not read all heads; it comes round again")
	} // those that were read are good
	due := time.Now().Add(min(suspectGrace, l.c.opt.AuditEvery/2))
	found := 0
	for i := range heads {
		if heads[i].Found {
			found++
			l.check(ctx, &heads[i], due)
		}
	}
	l.c.metrics.audited.Add(float64(found))
}

// check compares one user's sessions with the head.
func (l *auditLane) check(ctx context.Context, head *storage.UserHead, due time.Time) {
	l.sessions = l.c.table.find(head.User, l.sessions[:0])
	for _, s := range l.sessions {
		if fault := l.c.checkLogin(ctx, s, head); fault != nil {
			l.c.metrics.auditCloses.Inc()
			l.c.closeSession(s, fault)
			continue
		}
		s.mu.Lock()
		if !s.closed && !s.flow.reading && head.Seq > s.flow.sent {
			l.suspects = append(l.suspects, suspect{s, s.flow.sent, head.Seq, due})
		}
		s.mu.Unlock()
	}
	clear(l.sessions)
}

// checkLogin says why a session has to end, nil if it has not.
func (c *Chat) checkLogin(ctx context.Context, s *session, head *storage.UserHead) *proto.Fault {
	if int(s.slot) < len(head.SlotEpochs) && head.SlotEpochs[s.slot] > s.id.loginEpoch && !c.bug.keepsSession() {
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_KICKED, "")
	}
	if head.TokenGen <= s.tokenGen() {
		return nil
	}
	var devices []storage.Device
	err := c.store.View(ctx, s.id.user.Slot(), func(snap storage.Snap) (err error) {
		devices, err = snap.Devices(s.id.user)
		return err
	})
	if err != nil {
		c.often.Warn().Err(err).Int64("user", int64(s.id.user)).Msg("audit could not read devices; it comes round again")
		return nil
	}
	if dev := deviceOf(devices, s.id.device); dev == nil || dev.LoginEpoch > s.id.loginEpoch {
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_REVOKED, "")
	}
	s.setTokenGen(head.TokenGen)
	return nil
}

// repair reads what did not come by push. A session whose window is full is
// left alone: its next ack does it.
func (l *auditLane) repair(now time.Time) {
	n := 0
	for ; n < len(l.suspects) && !l.suspects[n].due.After(now); n++ {
		x := &l.suspects[n]
		x.s.mu.Lock()
		if f := &x.s.flow; !x.s.closed && !f.reading && f.sent == x.sent && f.sent < x.head {
			f.known = max(f.known, x.head)
			if f.wants(l.c.limits.Load()) {
				l.c.metrics.repairs.Inc()
				l.c.startPump(x.s)
			}
		}
		x.s.mu.Unlock()
	}
	rest := copy(l.suspects, l.suspects[n:])
	clear(l.suspects[rest:])
	l.suspects = l.suspects[:rest]
}
