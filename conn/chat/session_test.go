package chat

import (
	"context"
	"errors"
	"testing"
	"time"
	"unsafe"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// An idle session is small: it holds no buffer, no map, no window.
func TestIdleSessionIsSmall(t *testing.T) {
	if size := unsafe.Sizeof(session{}); size > 128 {
		t.Errorf("a session has %d bytes", size)
	}
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	a.send(textTo(b.d.user, "x"))
	b.ack(b.events(1)[0].Seq)
	s := r.chat.sessionsOf(storage.UserID(b.d.user))[0]
	eventually(t, "everything is given back", func() bool {
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.flow.win == nil && s.pend == nil && s.more == nil
	})
}

func TestTable(t *testing.T) {
	tb := newTable()
	u := storage.UserIDIn(1, 1)
	var ss []*session
	for range 3 {
		s := &session{id: member{user: u}}
		ss = append(ss, s)
		tb.add(s)
	}
	for i, k := range []int{1, 2, 0} { // the middle, the head, the last one
		if !tb.remove(ss[k]) || tb.remove(ss[k]) {
			t.Fatal("remove does not report what it did")
		}
		if left := tb.find(u, nil); len(left) != 2-i {
			t.Errorf("%d sessions are left after %d removals", len(left), i+1)
		}
	}
	if tb.count.Load() != 0 || len(tb.users(int(userHash(u)>>56), nil)) != 0 {
		t.Error("the table is not empty")
	}
}

// A shard that grows loses nobody, and names users with several sessions once.
func TestTableGrows(t *testing.T) {
	tb := newTable()
	const users, each = 20 * tableShards, 3
	seen := make(map[storage.UserID]int)
	for n := range users * each {
		u := storage.UserIDIn(storage.Slot(n%users%4096), uint64(n%users)+1)
		seen[u]++
		tb.add(&session{id: member{user: u}})
	}
	for i := range tb.shards {
		if sh := &tb.shards[i]; sh.count > len(sh.buckets) {
			t.Fatalf("%d sessions in %d buckets", sh.count, len(sh.buckets))
		}
		for _, u := range tb.users(i, nil) {
			if len(tb.find(u, nil)) != seen[u] {
				t.Fatalf("%d sessions of %d are found, %d were added", len(tb.find(u, nil)), u, seen[u])
			}
			delete(seen, u)
		}
	}
	if len(seen) != 0 {
		t.Errorf("%d users are not named", len(seen))
	}
}

func TestNewerConnectionReplaces(t *testing.T) {
	r := newRig(t, nil)
	first := r.register("alice")
	second := first.d.resume(first.welcome.Head)
	second.caughtUp()
	if code := first.closed(); code != proto.ErrorCode_ERROR_CODE_REPLACED {
		t.Errorf("the older connection was closed with %v", code)
	}
	second.send(textTo(second.d.user, "still here"))
	second.events(1)
}

func TestNewerLoginKicksAndStays(t *testing.T) {
	r := newRig(t, nil)
	old := r.register("alice")
	newer := r.login("alice", phone, nil)
	newer.caughtUp()
	if code := old.closed(); code != proto.ErrorCode_ERROR_CODE_KICKED {
		t.Errorf("the older login was closed with %v", code)
	}
	// It comes back by itself, as a client must not: no ping-pong.
	again := old.d.open(&proto.Hello{Credentials: &proto.Hello_AccessToken{AccessToken: old.d.token}})
	code := again.next("refusal").GetError().GetCode()
	if code != proto.ErrorCode_ERROR_CODE_KICKED && code != proto.ErrorCode_ERROR_CODE_REVOKED {
		t.Errorf("the older login was answered with %v", code)
	}
	newer.send(textTo(newer.d.user, "still here"))
	// Another slot is no rival.
	r.login("alice", desktop, nil).caughtUp()
	newer.send(textTo(newer.d.user, "still here"))
}

// forget changes a user's rows behind the sessions' back, as another node would.
func (r *rig) forget(user int64, fn func(tx *storage.Tx, head storage.UserHead)) {
	r.t.Helper()
	u := storage.UserID(user)
	err := r.store.Update(r.t.Context(), storage.Reads{Users: []storage.UserID{u}, DevicesOf: []storage.UserID{u}}, func(tx *storage.Tx) error {
		fn(tx, tx.User(u))
		return nil
	})
	if err != nil {
		r.t.Fatal(err)
	}
}

func TestAuditFinishesRevocations(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.chat.AuditEvery = 20 * time.Millisecond })
	a := r.register("alice")
	tablet := r.login("alice", proto.DeviceSlot_DEVICE_SLOT_TABLET, nil)
	tablet.caughtUp()
	r.forget(a.d.user, func(tx *storage.Tx, head storage.UserHead) {
		tx.DelDevice(storage.DeviceKey{User: head.User, ID: [16]byte(tablet.d.id)})
		head.TokenGen++
		tx.PutUser(head)
	})
	if code := tablet.closed(); code != proto.ErrorCode_ERROR_CODE_REVOKED {
		t.Errorf("the revoked device was closed with %v", code)
	}
	s := r.chat.sessionsOf(storage.UserID(a.d.user))[0]
	eventually(t, "the other device is checked and stays", func() bool { return s.tokenGen() >= 1 })
	a.send(textTo(a.d.user, "still here"))

	r.forget(a.d.user, func(tx *storage.Tx, head storage.UserHead) {
		head.LoginEpoch++
		head.SlotEpochs[phone] = head.LoginEpoch
		tx.PutUser(head)
	})
	if code := a.closed(); code != proto.ErrorCode_ERROR_CODE_KICKED {
		t.Errorf("the older login was closed with %v", code)
	}
}

func TestAuditWalksEverybody(t *testing.T) {
	c := &Chat{table: newTable()}
	want := map[storage.UserID]bool{}
	for i := range 1800 {
		u := storage.UserIDIn(storage.Slot(i*37), uint64(i)*0x9e3779b97f4a7c15|1)
		want[u] = true
		c.table.add(&session{id: member{user: u}})
	}
	a := auditor{c: c}
	seen := map[storage.UserID]bool{}
	for range 1800/auditBatch + 1 {
		a.fill()
		if len(a.users) > auditBatch {
			t.Fatalf("a batch of %d", len(a.users))
		}
		for _, u := range a.users {
			seen[u] = true
		}
	}
	for u := range want {
		if !seen[u] {
			t.Fatalf("user %d was left out (%d of %d seen)", u, len(seen), len(want))
		}
	}
}

func TestTypingReachesTheForegroundOnly(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	typing := func(to int64, on bool) *proto.Frame {
		return &proto.Frame{Body: &proto.Frame_Typing{Typing: &proto.Typing{Target: &proto.Typing_ToUserId{ToUserId: to}, On: on}}}
	}
	isTyping := func(f *proto.Frame) bool { return f.GetHint().GetTyping() != nil }
	a.write(typing(b.d.user, true))
	hint := b.take("typing", isTyping).GetHint().GetTyping()
	if !hint.On || hint.UserId != a.d.user {
		t.Errorf("hint is %v", hint)
	}
	a.write(typing(b.d.user, true), typing(b.d.user, true)) // says nothing new
	a.write(typing(b.d.user, false))
	if hint := b.take("typing", isTyping).GetHint().GetTyping(); hint.On {
		t.Error("a repeated signal was not collapsed")
	}

	state := func(s proto.AppState) {
		if f := b.call(&proto.Frame{Body: &proto.Frame_SetState{SetState: &proto.SetState{State: s}}}); f.GetOk() == nil {
			t.Fatalf("set state was answered with %v", f)
		}
	}
	sent := func() float64 { return counterOf(t, r.chat.metrics.hints["sent"]) }
	state(proto.AppState_APP_STATE_BACKGROUND)
	before := sent()
	eventually(t, "typing again is not too fast", func() bool {
		a.write(typing(b.d.user, true))
		s := r.chat.sessionsOf(storage.UserID(a.d.user))[0]
		s.mu.Lock()
		defer s.mu.Unlock()
		return s.more.busy.typed.on
	})
	a.send(textTo(b.d.user, "x")) // behind the signal on the same connection
	b.events(1)
	b.quiet("typing in the background", isTyping)
	if sent() != before {
		t.Error("a backgrounded device got a hint")
	}
}

func TestTypingStopsAtABlock(t *testing.T) {
	for _, blocker := range []string{"recipient", "sender"} {
		t.Run(blocker, func(t *testing.T) {
			r := newRig(t, nil)
			a, b := r.register("alice"), r.register("bob")
			who, whom := b, a
			if blocker == "sender" {
				who, whom = a, b
			}
			who.call(&proto.Frame{Body: &proto.Frame_BlockUser{BlockUser: &proto.BlockUser{UserId: whom.d.user}}})
			a.write(&proto.Frame{Body: &proto.Frame_Typing{Typing: &proto.Typing{Target: &proto.Typing_ToUserId{ToUserId: b.d.user}, On: true}}})
			eventually(t, "the block is looked up", func() bool {
				blocked, known := r.chat.blocks.look(storage.UserID(a.d.user), storage.UserID(b.d.user), time.Now())
				return blocked && known
			})
			b.quiet("typing", func(f *proto.Frame) bool { return f.GetHint() != nil })
		})
	}
}

func TestSyncRate(t *testing.T) {
	r := newRig(t, func(o *rigOptions) {
		o.conn.Exempt = nobody()
		o.conn.FrameRate, o.conn.FrameBurst = 10000, 10000
		clock := time.Now() // stands still
		o.chat.Now = func() time.Time { return clock }
	})
	a := r.register("alice")
	frame := func() *proto.Frame {
		return &proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: a.welcome.Head}}}
	}
	for i := range 5 {
		if f := a.call(frame()); !f.GetSyncResponse().GetCaughtUp() {
			t.Fatalf("sync %d was answered with %v", i, f)
		}
	}
	for range 45 {
		if e := a.refused(frame(), proto.ErrorCode_ERROR_CODE_RATE_LIMITED); !e.Retryable || e.RetryAfterMs == 0 {
			t.Fatalf("refusal is %v", e)
		}
	}
	f := frame()
	f.Id = 1000
	a.write(f)
	if code := a.closed(); code != proto.ErrorCode_ERROR_CODE_RATE_LIMITED {
		t.Errorf("closed with %v", code)
	}
}

func TestExemptSkipsTheSyncRate(t *testing.T) {
	r := newRig(t, nil)
	a := r.register("alice")
	for range 60 {
		if f := a.call(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: a.welcome.Head}}}); f.GetSyncResponse() == nil {
			t.Fatalf("answered with %v", f)
		}
	}
}

// A panic in a request costs its own session, and nobody else's.
func TestPanicClosesOneSession(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	s := r.chat.sessionsOf(storage.UserID(a.d.user))[0]
	r.chat.read(s, 99, s.id.user.Slot(), func(context.Context) (*proto.Frame, error) { panic("boom") })
	if code := a.closed(); code != proto.ErrorCode_ERROR_CODE_INTERNAL {
		t.Errorf("closed with %v", code)
	}
	b.send(textTo(b.d.user, "still here"))
}

func TestFaultOf(t *testing.T) {
	for err, want := range map[error]proto.ErrorCode{
		storage.ErrBlocked: proto.ErrorCode_ERROR_CODE_NOT_ALLOWED, storage.ErrNoUser: proto.ErrorCode_ERROR_CODE_NOT_FOUND,
		storage.ErrConflict: proto.ErrorCode_ERROR_CODE_CONFLICT, storage.ErrIDExpired: proto.ErrorCode_ERROR_CODE_ID_EXPIRED,
		storage.ErrIDInvalid: proto.ErrorCode_ERROR_CODE_ID_INVALID, storage.ErrBusy: proto.ErrorCode_ERROR_CODE_OVERLOADED,
		storage.ErrFull: proto.ErrorCode_ERROR_CODE_OVERLOADED, storage.ErrUnavailable: proto.ErrorCode_ERROR_CODE_UNAVAILABLE,
		storage.ErrUnknown: proto.ErrorCode_ERROR_CODE_UNAVAILABLE, storage.ErrClosed: proto.ErrorCode_ERROR_CODE_UNAVAILABLE,
		context.DeadlineExceeded: proto.ErrorCode_ERROR_CODE_UNAVAILABLE, errors.New("?"): proto.ErrorCode_ERROR_CODE_INTERNAL,
	} {
		f := faultOf(errors.Join(errors.New("while testing"), err))
		if f.Code != want || f.Cause == nil {
			t.Errorf("%v is %v", err, f)
		}
		retry := want == proto.ErrorCode_ERROR_CODE_OVERLOADED || want >= proto.ErrorCode_ERROR_CODE_INTERNAL
		if f.Retryable != retry || want == proto.ErrorCode_ERROR_CODE_OVERLOADED && f.RetryAfter == 0 {
			t.Errorf("%v: retryable %v after %v", err, f.Retryable, f.RetryAfter)
		}
	}
}
