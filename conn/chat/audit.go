package chat

import (
	"context"
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
// finished, and an older login is gone. It goes in batches, spread over the
// interval, so that a million sessions are a trickle of reads.
func (c *Chat) audit() {
	defer c.work.Done()
	a := auditor{c: c, next: time.Now().Add(c.opt.AuditEvery / 2)}
	for c.sleep(a.pause(time.Now())) {
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

// auditor walks the session table shard by shard.
type auditor struct {
	c        *Chat
	shard    int
	users    []storage.UserID // of the batch
	rest     []storage.UserID // of the shard, not looked at yet
	sessions []*session
	suspects []suspect // due ascending
	next     time.Time // of the next batch
}

// suspect is a session that was behind storage. Its pushes may be on their way:
// they are lost only if it still is, and has not moved, when it is due.
type suspect struct {
	s          *session
	sent, head uint64
	due        time.Time
}

// suspectGrace is how long a push may take from the commit to the session.
const suspectGrace = time.Second

// pause is the time until something is due.
func (a *auditor) pause(now time.Time) time.Duration {
	until := a.next
	if len(a.suspects) > 0 && a.suspects[0].due.Before(until) {
		until = a.suspects[0].due
	}
	return max(until.Sub(now), 0)
}

// step repairs the suspects that are due, and looks at the next batch when its
// time has come. Batches are so far apart that one round takes AuditEvery.
func (a *auditor) step(now time.Time) {
	a.repair(now)
	if now.Before(a.next) {
		return
	}
	every := a.c.opt.AuditEvery
	batches := a.c.table.count.Load()/auditBatch + 1
	if a.next = a.next.Add(every / time.Duration(batches)); a.next.Before(now) {
		a.next = now // slower than planned: no burst to make up for it
	}
	a.fill()
	if len(a.users) == 0 {
		return
	}
	ctx, cancel := context.WithTimeout(a.c.ctx, auditTimeout)
	defer cancel()
	heads, err := a.c.store.Heads(ctx, a.users)
	if err != nil {
		a.c.metrics.auditFailures.Inc()
		a.c.log.Warn().Err(err).Int("users", len(a.users)).Msg("audit could not read all heads; it comes round again")
	} // those that were read are good
	due := time.Now().Add(min(suspectGrace, every/2))
	for i := range heads {
		a.check(ctx, &heads[i], due)
	}
	a.c.metrics.audited.Add(float64(len(heads)))
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

// check compares one user's sessions with the head.
func (a *auditor) check(ctx context.Context, head *storage.UserHead, due time.Time) {
	if !head.Found {
		return
	}
	a.sessions = a.c.table.find(head.User, a.sessions[:0])
	for _, s := range a.sessions {
		if fault := a.c.checkLogin(ctx, s, head); fault != nil {
			a.c.metrics.auditCloses.Inc()
			a.c.closeSession(s, fault)
			continue
		}
		s.mu.Lock()
		if !s.closed && !s.flow.reading && head.Seq > s.flow.sent {
			a.suspects = append(a.suspects, suspect{s, s.flow.sent, head.Seq, due})
		}
		s.mu.Unlock()
	}
	clear(a.sessions)
}

// checkLogin says why a session has to end, nil if it has not.
func (c *Chat) checkLogin(ctx context.Context, s *session, head *storage.UserHead) *proto.Fault {
	if int(s.id.slot) < len(head.SlotEpochs) && head.SlotEpochs[s.id.slot] > s.id.loginEpoch {
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
		c.log.Warn().Err(err).Int64("user", int64(s.id.user)).Msg("audit could not read devices; it comes round again")
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
func (a *auditor) repair(now time.Time) {
	n := 0
	for ; n < len(a.suspects) && !a.suspects[n].due.After(now); n++ {
		x := &a.suspects[n]
		x.s.mu.Lock()
		if f := &x.s.flow; !x.s.closed && !f.reading && f.sent == x.sent && f.sent < x.head {
			f.known = max(f.known, x.head)
			if f.wants(a.c.limits.Load()) {
				a.c.metrics.repairs.Inc()
				a.c.startPump(x.s)
			}
		}
		x.s.mu.Unlock()
	}
	rest := copy(a.suspects, a.suspects[n:])
	clear(a.suspects[rest:])
	a.suspects = a.suspects[:rest]
}
