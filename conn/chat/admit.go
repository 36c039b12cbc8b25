package chat

import (
	"context"
	"strconv"
	"sync/atomic"
	"time"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// admitTimeout bounds what a Hello does after it is known who it is.
const admitTimeout = 5 * time.Second

// admit makes a session of a connection whose Hello f was found good, and
// answers it. Any goroutine that may wait; ctx is that of its reader, if it is
// one, and may have ended.
//
// The order is what makes events complete: attach first, then read the head.
// What is committed in between arrives as a push and finds the session, which
// holds it back until the Welcome is out.
func (c *Chat) admit(ctx context.Context, cn *conn.Conn, f *proto.Frame, id identity) {
	hello := f.GetHello()
	s := &session{conn: cn, id: member{
		user: id.user, device: id.device, loginEpoch: id.loginEpoch, tokenGen: id.tokenGen,
	}, slot: id.slot, foreground: hello.State == proto.AppState_APP_STATE_FOREGROUND}
	s.flow.reading = true
	gone := hasLeft(cn)
	cn.SetData(s)
	if gone || s.isClosed() {
		return // attached, it would replace the connection that its client has now
	}
	c.table.add(s)

	ctx, cancel := context.WithTimeout(context.WithoutCancel(ctx), admitTimeout)
	defer cancel()
	defer context.AfterFunc(c.ctx, cancel)()
	if fault := c.attach(ctx, s); fault != nil {
		c.turnAway(s, f.Id, fault)
		return
	}
	head, acked, fault := c.readHead(ctx, s)
	if fault != nil {
		c.turnAway(s, f.Id, fault)
		return
	}
	wish := time.Duration(hello.HeartbeatSeconds) * time.Second
	if wish == 0 {
		wish = c.opt.Heartbeat
	}
	w := c.welcome(s, &id, head, cn.Accept(wish))
	from, reset := cursorOf(hello.Cursor, head)
	w.Reset_ = reset
	if cn.Reply(f.Id, &proto.Frame{Body: &proto.Frame_Welcome{Welcome: w}}) != nil {
		c.drop(s) // closed meanwhile, and Closed may have come before SetData
		return
	}
	c.begin(s, from, head.Seq, acked)
	cn.Resume()
	if reset == nil && from > acked {
		c.catchUpMarks(ctx, s, max(acked, head.Floor), from)
	}
}

// begin lets events out: the missed ones from storage, or none.
func (c *Chat) begin(s *session, from, head, stored uint64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.welcomed = true
	s.flow.sent, s.flow.acked, s.unstored = from, from, from > stored
	s.flow.known = max(s.flow.known, head)
	if s.flow.known > from {
		c.startPump(s)
		return
	}
	s.flow.reading = false
	c.tellCaughtUp(s)
}

// readHead reads the end of the inbox and checks the login once more, in one
// snapshot: a revocation between the authentication and the attach would
// otherwise have found no session to close.
func (c *Chat) readHead(ctx context.Context, s *session) (head storage.UserHead, acked uint64, fault *proto.Fault) {
	var devices []storage.Device
	err := c.store.View(ctx, s.id.user.Slot(), func(snap storage.Snap) (err error) {
		if head, err = snap.User(s.id.user); err != nil {
			return err
		}
		devices, err = snap.Devices(s.id.user)
		return err
	})
	if err != nil {
		return head, 0, faultOf(err)
	}
	dev := deviceOf(devices, s.id.device)
	switch {
	case dev == nil || !head.Found || dev.LoginEpoch > s.id.loginEpoch:
		return head, 0, proto.Errorf(proto.ErrorCode_ERROR_CODE_REVOKED, "")
	case int(s.slot) < len(head.SlotEpochs) && head.SlotEpochs[s.slot] > s.id.loginEpoch:
		return head, 0, proto.Errorf(proto.ErrorCode_ERROR_CODE_KICKED, "")
	}
	s.setTokenGen(head.TokenGen)
	return head, dev.AckedSeq, nil
}

func deviceOf(devices []storage.Device, id [16]byte) *storage.Device {
	for i := range devices {
		if devices[i].Key.ID == id {
			return &devices[i]
		}
	}
	return nil
}

// cursorOf says where to go on, and why not at cur.
func cursorOf(cur *proto.Cursor, head storage.UserHead) (from uint64, reset *proto.Reset) {
	var why proto.ResetReason
	switch {
	case cur == nil:
		why = proto.ResetReason_RESET_REASON_NO_CURSOR
	case cur.Epoch != head.InboxEpoch || cur.Seq > head.Seq:
		why = proto.ResetReason_RESET_REASON_RESTORED
	case cur.Seq < head.Floor:
		why = proto.ResetReason_RESET_REASON_RETENTION
	default:
		return cur.Seq, nil
	}
	return head.Seq, &proto.Reset{Reason: why, Resume: cursorAt(head, head.Seq)}
}

func cursorAt(head storage.UserHead, seq uint64) *proto.Cursor {
	return &proto.Cursor{Epoch: head.InboxEpoch, Seq: seq}
}

func (c *Chat) welcome(s *session, id *identity, head storage.UserHead, heartbeat time.Duration) *proto.Welcome {
	lim := c.limits.Load()
	w := &proto.Welcome{
		Version: 1, UserId: int64(id.user), Name: id.name, ServerTimeUs: c.now().UnixMicro(),
		Head: cursorAt(head, head.Seq), Connection: strconv.FormatUint(s.conn.ID(), 36),
		Limits: &proto.Limits{
			HeartbeatSeconds: uint32(heartbeat / time.Second), MaxFrameBytes: proto.MaxFrameSession,
			MaxContentBytes: uint32(lim.MaxContent), EventWindow: uint32(lim.WindowEvents),
			MaxInFlight: uint32(lim.MaxInFlight), MaxSyncEvents: maxSyncEvents, MaxIds: uint32(lim.MaxIDs),
		},
	}
	if id.tokenFresh {
		w.AccessToken, w.AccessTokenExpiresUs = id.token, id.tokenExpires.UnixMicro()
	}
	return w
}

// turnAway refuses a Hello after the session was made.
func (c *Chat) turnAway(s *session, id uint64, fault *proto.Fault) {
	c.logFault(s, fault)
	s.conn.Fail(id, fault)
	s.conn.Close(reasonOf(fault), nil)
	c.drop(s)
}

// Kick ends a session whose slot is another's (router.Local).
func (c *Chat) Kick(user int64, slot uint8, connID uint64, newLogin bool) {
	code := proto.ErrorCode_ERROR_CODE_REPLACED
	if newLogin {
		code = proto.ErrorCode_ERROR_CODE_KICKED
	}
	for _, s := range c.sessionsOf(storage.UserID(user)) {
		if s.slot == slot && s.conn.ID() == connID && !c.bug.keepsSession() {
			c.closeSession(s, proto.Errorf(code, ""))
		}
	}
}

// Has reports whether a connection has a session of the user (router.Local).
func (c *Chat) Has(user int64, connID uint64) bool {
	return c.table.has(storage.UserID(user), connID)
}

// greeting stands for a connection until it has a session: a login may take
// longer than its client waits.
type greeting struct{ gone atomic.Bool }

// hasLeft reports whether the client of a connection without a session has gone.
func hasLeft(cn *conn.Conn) bool {
	g, ok := cn.Data().(*greeting)
	return ok && g.gone.Load()
}

// Closed ends the session of a connection that is gone (conn.Handler).
func (c *Chat) Closed(cn *conn.Conn, _ conn.Reason) {
	switch d := cn.Data().(type) {
	case *greeting:
		d.gone.Store(true)
	case *session:
		c.drop(d)
	}
}

// drop forgets a session. Closed may run beside admit, before the session is in
// the table or the directory: admit then drops it again, and what it has put
// there meanwhile goes.
func (c *Chat) drop(s *session) {
	s.release(c)
	c.table.remove(s)
	c.leaving.add(s)
}

// release gives back what a session holds, once.
func (s *session) release(c *Chat) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return
	}
	s.closed = true
	if s.pend != nil {
		c.buffers.put(s.pend)
		s.pend = nil
	}
	if s.flow.win != nil {
		c.windows.put(s.flow.win)
		s.flow.win = nil
	}
	if s.more != nil {
		s.more.held, s.more.busy = nil, nil
		s.tidy()
	}
	if s.isDirty() || s.unstored {
		c.marks.add(s)
	}
}
