package chat

import (
	"fmt"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

func cursor(p *peer, seq uint64) *proto.Cursor {
	return &proto.Cursor{Epoch: p.welcome.Head.Epoch, Seq: seq}
}

func text(ev *proto.Event) string { return string(ev.GetMessage().GetContent().GetBody()) }

func TestMessageGoesFromOneToTheOther(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	seqA, seqB := a.welcome.Head.Seq, b.welcome.Head.Seq

	req := textTo(b.d.user, "hello")
	ack := a.send(req)
	if ack.Durability != proto.Durability_DURABILITY_DISK || ack.ConvSeq != 1 || ack.Rev != 1 || ack.TimeUs == 0 {
		t.Errorf("ack is %v", ack)
	}
	got := b.events(1)[0]
	if got.Seq != seqB+1 || text(got) != "hello" || got.ActorId != a.d.user || got.Rev != ack.Rev ||
		got.ConvSeq != ack.ConvSeq || got.TimeUs != ack.TimeUs || string(got.Conversation) != string(ack.Conversation) ||
		got.GetMessage().ToUserId != b.d.user || got.GetMessage().Content.Kind != proto.ContentKind_CONTENT_KIND_TEXT {
		t.Errorf("recipient got %v", got)
	}
	own := a.events(1)[0]
	if own.Seq != seqA+1 || own.GetMessage().Content != nil || string(own.GetMessage().SendId) != string(req.SendId) || own.Rev != ack.Rev {
		t.Errorf("sender's connection got %v, want its send id and no content", own)
	}
	// The answer goes by conversation key.
	back := textTo(0, "hello yourself")
	back.Target = &proto.SendRequest_Conversation{Conversation: got.Conversation}
	if ack := b.send(back); ack.ConvSeq != 2 {
		t.Errorf("answer has conv_seq %d", ack.ConvSeq)
	}
	if ev := a.events(1)[0]; text(ev) != "hello yourself" {
		t.Errorf("sender got %v", ev)
	}
}

func TestOtherDevicesGetOwnMessagesWhole(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	a2 := r.login("alice", desktop, nil)
	if a2.welcome.Reset_.GetReason() != proto.ResetReason_RESET_REASON_NO_CURSOR {
		t.Errorf("welcome without a cursor has reset %v", a2.welcome.Reset_)
	}
	a2.caughtUp()
	req := textTo(b.d.user, "from the phone")
	a.send(req)
	for ev := a2.events(1)[0]; text(ev) != "from the phone"; ev = a2.events(1)[0] {
		if ev.GetMessage() != nil {
			t.Fatalf("second device got %v", ev)
		}
	}
	// One's own devices are a conversation too.
	a.send(textTo(a.d.user, "note"))
	if ev := a2.events(1)[0]; text(ev) != "note" || ev.GetMessage().ToUserId != a.d.user {
		t.Errorf("second device got %v", ev)
	}
}

func TestRetryAndConflict(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	req := textTo(b.d.user, "once")
	first := a.send(req)
	if again := a.send(req); !gproto.Equal(first, again) {
		t.Errorf("retry was answered with %v, first with %v", again, first)
	}
	other := gproto.Clone(req).(*proto.SendRequest)
	other.Content.Body = []byte("other")
	a.refused(sendFrame(other), proto.ErrorCode_ERROR_CODE_CONFLICT)
	kind := gproto.Clone(req).(*proto.SendRequest)
	kind.Content.Kind = proto.ContentKind_CONTENT_KIND_CUSTOM
	a.refused(sendFrame(kind), proto.ErrorCode_ERROR_CODE_CONFLICT)
	// None of these was a retryable refusal: nothing is on hold.
	a.send(textTo(b.d.user, "twice"))
	if evs := b.events(2); text(evs[0]) != "once" || text(evs[1]) != "twice" {
		t.Errorf("recipient got %v", evs)
	}
}

func TestSendIsChecked(t *testing.T) {
	r := newRig(t, nil)
	a, b, c := r.register("alice"), r.register("bob"), r.register("carol")
	change := func(fn func(*proto.SendRequest)) *proto.Frame {
		req := textTo(b.d.user, "x")
		fn(req)
		return sendFrame(req)
	}
	to := func(key []byte) func(*proto.SendRequest) {
		return func(q *proto.SendRequest) { q.Target = &proto.SendRequest_Conversation{Conversation: key} }
	}
	foreign := storage.PairKey(storage.UserID(b.d.user), storage.UserID(c.d.user))
	old := proto.NewSendID(time.Now().Add(-30 * 24 * time.Hour))
	ahead := proto.NewSendID(time.Now().Add(time.Hour))
	for _, tt := range []struct {
		name string
		f    *proto.Frame
		want proto.ErrorCode
	}{
		{"no target", change(func(q *proto.SendRequest) { q.Target = nil }), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"negative user", change(func(q *proto.SendRequest) { q.Target = &proto.SendRequest_ToUserId{ToUserId: -4} }), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"short key", change(to([]byte("abc"))), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"malformed key", change(to(make([]byte, 16))), proto.ErrorCode_ERROR_CODE_NOT_FOUND},
		{"somebody else's conversation", change(to(foreign[:])), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED},
		{"unknown user", change(func(q *proto.SendRequest) { q.Target = &proto.SendRequest_ToUserId{ToUserId: b.d.user ^ 1} }), proto.ErrorCode_ERROR_CODE_NOT_FOUND},
		{"no send id", change(func(q *proto.SendRequest) { q.SendId = nil }), proto.ErrorCode_ERROR_CODE_ID_INVALID},
		{"random send id", change(func(q *proto.SendRequest) { q.SendId = make([]byte, 16); q.SendId[6] = 0x40 }), proto.ErrorCode_ERROR_CODE_ID_INVALID},
		{"old send id", change(func(q *proto.SendRequest) { q.SendId = old[:] }), proto.ErrorCode_ERROR_CODE_ID_EXPIRED},
		{"send id from ahead", change(func(q *proto.SendRequest) { q.SendId = ahead[:] }), proto.ErrorCode_ERROR_CODE_ID_INVALID},
		{"no content", change(func(q *proto.SendRequest) { q.Content = nil }), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"no kind", change(func(q *proto.SendRequest) { q.Content.Kind = 0 }), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"too large", change(func(q *proto.SendRequest) { q.Content.Body = make([]byte, maxContent+1) }), proto.ErrorCode_ERROR_CODE_CONTENT_TOO_LARGE},
	} {
		t.Run(tt.name, func(t *testing.T) { a.refused(tt.f, tt.want) })
	}
	largest := textTo(b.d.user, "")
	largest.Content.Body = make([]byte, maxContent)
	largest.Content.Kind = 77 // unknown kinds pass
	a.send(largest)
	if ev := b.events(1)[0]; len(text(ev)) != maxContent || ev.GetMessage().Content.Kind != 77 {
		t.Errorf("recipient got %d bytes of kind %v", len(text(ev)), ev.GetMessage().Content.Kind)
	}
}

func TestBlockedSenderIsNotAllowed(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	b.call(&proto.Frame{Body: &proto.Frame_BlockUser{BlockUser: &proto.BlockUser{UserId: a.d.user}}})
	a.refused(sendFrame(textTo(b.d.user, "psst")), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	if f := b.call(sendFrame(textTo(a.d.user, "but I may"))); f.GetSendAck() == nil {
		t.Errorf("the blocker's own message was answered with %v", f)
	}
}

func TestOfflineThenResume(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	at := b.welcome.Head.Seq
	a.send(textTo(b.d.user, "1"))
	b.events(1)
	b.ack(at + 1)
	b.close()
	eventually(t, "bob is gone", func() bool { return len(r.chat.sessionsOf(storage.UserID(b.d.user))) == 0 })
	const n = 450 // more than two pages
	for i := range n {
		a.send(textTo(b.d.user, fmt.Sprint(i)))
	}
	b = b.d.resume(cursor(b, at+1))
	if b.welcome.Reset_ != nil || b.welcome.Head.Seq != at+1+n {
		t.Errorf("welcome has head %v, reset %v", b.welcome.Head, b.welcome.Reset_)
	}
	for i, ev := range b.events(n) {
		if text(ev) != fmt.Sprint(i) || ev.Seq != at+2+uint64(i) {
			t.Fatalf("event %d is %v", i, ev)
		}
	}
	if got := b.caughtUp(); got != at+1+n {
		t.Errorf("caught up at %d, want %d", got, at+1+n)
	}
	a.send(textTo(b.d.user, "live"))
	if ev := b.events(1)[0]; text(ev) != "live" {
		t.Errorf("after catching up bob got %v", ev)
	}
	b.quiet("second caught-up", func(f *proto.Frame) bool { return f.GetCaughtUp() != nil })
}

func TestResetPaths(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.store.RetainEvents = 10 })
	a, b := r.register("alice"), r.register("bob")
	at := b.welcome.Head.Seq
	for i := range 200 {
		a.send(textTo(b.d.user, fmt.Sprint(i)))
	}
	head := at + 200
	for _, tt := range []struct {
		name string
		cur  *proto.Cursor
		want proto.ResetReason
	}{
		{"no cursor", nil, proto.ResetReason_RESET_REASON_NO_CURSOR},
		{"other epoch", &proto.Cursor{Epoch: b.welcome.Head.Epoch + 1, Seq: head}, proto.ResetReason_RESET_REASON_RESTORED},
		{"ahead of the head", cursor(b, head+1), proto.ResetReason_RESET_REASON_RESTORED},
		{"below the floor", cursor(b, at), proto.ResetReason_RESET_REASON_RETENTION},
		{"good", cursor(b, head-1), 0},
	} {
		t.Run(tt.name, func(t *testing.T) {
			p := b.d.resume(tt.cur)
			if tt.want == 0 {
				if p.welcome.Reset_ != nil || p.events(1)[0].Seq != head {
					t.Errorf("reset is %v", p.welcome.Reset_)
				}
			} else if rs := p.welcome.Reset_; rs.GetReason() != tt.want || rs.Resume.Seq != head || rs.Resume.Epoch != b.welcome.Head.Epoch {
				t.Errorf("reset is %v, want %v at %d", rs, tt.want, head)
			}
			if got := p.caughtUp(); got != head {
				t.Errorf("caught up at %d, want %d", got, head)
			}
			f := p.call(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: tt.cur}}}).GetSyncResponse()
			if f.GetReset_().GetReason() != tt.want || !f.CaughtUp || f.Next.Seq != head {
				t.Errorf("sync answered %v", f)
			}
			p.close()
		})
	}
}
