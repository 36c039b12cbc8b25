package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func TestEventsOnceAndInOrder(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	store := resumed(0)
	o.Store, o.Credentials = store, Credentials{}
	c := start(t, o)
	p, _ := srv.login()
	p.send(events(1, 3), events(2, 4), events(4, 4), events(5, 5), caughtUp(5))
	a.applied(t, 5)
	p.waitAck(5)
	if s, _ := store.Load(); s.Cursor != (Cursor{epoch, 5}) {
		t.Fatalf("acked before it was stored: %+v", s.Cursor)
	}
	eventually(t, "caught up", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.caught == 1 })
	p.close()

	p, h := srv.login()
	if h.GetCursor().GetSeq() != 5 {
		t.Fatalf("cursor %v", h.GetCursor())
	}
	p.send(events(4, 7)) // more than was asked for
	a.applied(t, 7)
	if c.Cursor() != (Cursor{epoch, 7}) {
		t.Fatal(c.Cursor())
	}
}

// What was received and not applied when the connection broke comes again, and
// is applied once.
func TestEventsAcrossConnections(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	note, release := o.OnEvents, make(chan bool)
	o.OnEvents = func(c *Client, evs []*proto.Event) { <-release; note(c, evs) }
	c := start(t, o)
	p, _ := srv.login()
	p.send(events(1, 2))
	p.send(events(3, 4))
	eventually(t, "received", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return c.inbox.received.Seq == 4 })
	p.close()
	p, h := srv.login()
	if h.GetCursor().GetSeq() != 0 {
		t.Fatal("the cursor is ahead of the application")
	}
	p.send(events(1, 6))
	close(release)
	a.applied(t, 6)
	p.waitAck(6)
}

func TestAckAfterAQuarterOfTheWindowOrBytes(t *testing.T) {
	for _, big := range []bool{false, true} {
		srv, a := newServer(t), &app{}
		o := a.options(srv.addr())
		o.Store, o.Credentials, o.AckDelay = resumed(0), Credentials{}, time.Hour
		start(t, o)
		p, _ := srv.login()
		if big {
			ev := events(1, 1)
			ev.GetEvents().Events[0].GetMessage().Content.Body = make([]byte, ackBytes)
			p.send(ev)
			p.waitAck(1)
			continue
		}
		p.send(events(1, 15))
		a.applied(t, 15)
		p.send(events(16, 16))
		p.waitAck(16)
	}
}

func wantSync(t *testing.T, p *peer, after uint64) uint64 {
	t.Helper()
	f := p.next()
	if s := f.GetSync(); s == nil || s.GetCursor().GetSeq() != after || s.GetCursor().GetEpoch() != epoch {
		t.Fatalf("got %v, want a sync after %d", f, after)
	}
	return f.GetId()
}

func syncResponse(id uint64, evs *proto.Frame, next uint64, caughtUp bool) *proto.Frame {
	return &proto.Frame{Id: id, Body: &proto.Frame_SyncResponse{SyncResponse: &proto.SyncResponse{
		Events: evs.GetEvents().GetEvents(), Next: &proto.Cursor{Epoch: epoch, Seq: next}, CaughtUp: caughtUp}}}
}

func TestGapIsSynced(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	start(t, o)
	p, _ := srv.login()
	p.send(events(1, 2), events(5, 6)) // 3 and 4 are missing
	id := wantSync(t, p, 2)
	p.send(events(7, 7), caughtUp(9))
	p.send(syncResponse(id, events(3, 3), 3, false))
	id = wantSync(t, p, 3)
	p.send(wireError(id, fault(proto.ErrorCode_ERROR_CODE_RATE_LIMITED).WithRetry(20*time.Millisecond)))
	id = wantSync(t, p, 3)
	p.send(syncResponse(id, events(4, 5), 5, true)) // and 6, 7 it has
	// 8 and 9 are promised by CaughtUp, and never come.
	id = wantSync(t, p, 7)
	a.mu.Lock()
	if a.caught != 0 {
		t.Fatal("caught up before it was")
	}
	a.mu.Unlock()
	p.send(syncResponse(id, events(8, 9), 9, true))
	a.applied(t, 9)
	eventually(t, "caught up", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return a.caught == 1 })
	p.send(events(10, 10))
	a.applied(t, 10)
}

func TestGapThatStaysEndsTheConnection(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	start(t, o)
	p, _ := srv.login()
	p.send(events(1, 1), caughtUp(3))
	for range maxVain + 1 {
		p.send(syncResponse(wantSync(t, p, 1), nil, 1, true))
	}
	p.gone()
	p, h := srv.login()
	if h.GetCursor().GetSeq() != 1 {
		t.Fatal(h.GetCursor())
	}
	p.send(events(2, 3))
	a.applied(t, 3)
}

func TestGapAfterTheHeldOnes(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	start(t, o)
	p, _ := srv.login()
	p.send(events(3, 3), events(6, 6))
	id := wantSync(t, p, 0)
	p.send(syncResponse(id, events(1, 2), 2, true))
	id = wantSync(t, p, 3)
	p.send(syncResponse(id, events(4, 5), 5, true))
	a.applied(t, 6)
}

func TestSyncFindsAReset(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	start(t, o)
	p, _ := srv.login()
	p.send(events(5, 5))
	f := p.next()
	p.send(&proto.Frame{Id: f.GetId(), Body: &proto.Frame_SyncResponse{SyncResponse: &proto.SyncResponse{
		Reset_: &proto.Reset{Reason: proto.ResetReason_RESET_REASON_RETENTION, Resume: &proto.Cursor{Epoch: epoch, Seq: 100}}}}})
	p.send(events(101, 102))
	a.applied(t, 2)
	if len(a.resets) != 1 || a.seqs[0] != 101 {
		t.Fatal(a.resets, a.seqs)
	}
}

// The rebuild may ask the server, may fail, and may lose its connection: the
// cursor moves when it has succeeded, and events wait until then.
func TestReset(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	store := resumed(7)
	o.Store, o.Credentials = store, Credentials{}
	attempts := make(chan error, 1)
	cause := errors.New("local disk full")
	o.OnReset = func(ctx context.Context, c *Client, r *proto.Reset) error {
		a.note(func() { a.resets = append(a.resets, r) })
		if _, err := c.Conversations(ctx, nil, 0); err != nil {
			return err
		}
		return <-attempts
	}
	start(t, o)
	reset := func(w *proto.Welcome) {
		w.Reset_ = &proto.Reset{Reason: proto.ResetReason_RESET_REASON_RESTORED, Resume: &proto.Cursor{Epoch: 10, Seq: 3}}
	}
	conversations := func(p *peer) {
		f := p.next()
		if f.GetListConversations() == nil {
			t.Fatalf("got %v", f)
		}
		p.send(&proto.Frame{Id: f.GetId(), Body: &proto.Frame_Conversations{Conversations: &proto.Conversations{}}})
	}
	p, _ := srv.login(reset)
	p.send(events(4, 5))
	conversations(p)
	attempts <- cause
	p.gone()

	p, h := srv.login(reset)
	if h.GetCursor().GetSeq() != 7 || h.GetCursor().GetEpoch() != epoch {
		t.Fatalf("the cursor moved before the rebuild: %v", h.GetCursor())
	}
	p.next()
	p.close() // in the middle of it

	p, h = srv.login(reset)
	if h.GetCursor().GetSeq() != 7 {
		t.Fatalf("the cursor moved before the rebuild: %v", h.GetCursor())
	}
	p.send(events(4, 5), caughtUp(5))
	conversations(p)
	a.mu.Lock()
	if len(a.seqs) != 0 || a.caught != 0 {
		t.Fatal("events before the rebuild")
	}
	a.mu.Unlock()
	attempts <- nil
	a.applied(t, 2)
	p.waitAck(5)
	if s, _ := store.Load(); s.Cursor != (Cursor{10, 5}) {
		t.Fatal(s.Cursor)
	}
	p.close()
	if _, h = srv.login(); h.GetCursor().GetEpoch() != 10 || h.GetCursor().GetSeq() != 5 {
		t.Fatal(h.GetCursor())
	}
}

func TestAckWaitsForTheStore(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	store := &failing{fail: make(chan error, 10)}
	store.s = resumed(0).s
	o.Store, o.Credentials = store, Credentials{}
	start(t, o)
	p, _ := srv.login(withToken("t", time.Hour))
	eventually(t, "the token stored", func() bool { s, _ := store.Load(); return s.Token == "t" })
	store.fail <- errors.New("disk full")
	p.send(events(1, 1))
	p.gone()
	if p.acked != 0 {
		t.Fatal("acknowledged what is not stored")
	}
	_, h := srv.login()
	// Applied it is, and will not be again.
	if h.GetCursor().GetSeq() != 1 {
		t.Fatal(h.GetCursor())
	}
	a.applied(t, 1)
}

func TestServerOverTheWindowIsLeft(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	release := make(chan bool)
	defer close(release)
	o.OnEvents = func(*Client, []*proto.Event) { <-release }
	o.BackoffBase, o.BackoffMax = time.Minute, time.Minute
	c := start(t, o)
	p, _ := srv.login()
	for seq := uint64(1); seq < 600; seq += 50 {
		p.send(events(seq, seq+49))
	}
	p.gone()
	eventually(t, "the reason", func() bool { return errors.Is(c.State().Err, ErrProtocol) })
}

func TestOwnMessagesComeWithTheirContent(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	c := start(t, o)
	p, _ := srv.login()
	acked := make(chan Ack, 1)
	if err := c.SendAsync(SendID{}, User(friend), Text("mine"), func(a Ack, err error) { acked <- a }); err != nil {
		t.Fatal(err)
	}
	f := p.next()
	own := message(1)
	own.ActorId = testUser
	own.GetMessage().SendId, own.GetMessage().Content = f.GetSend().GetSendId(), nil
	p.send(&proto.Frame{Body: &proto.Frame_Events{Events: &proto.EventBatch{Events: []*proto.Event{own}}}}, ack(f.GetId(), 1))
	a.applied(t, 1)
	if text, ok := TextOf(a.events[0].GetMessage().GetContent()); !ok || text != "mine" {
		t.Fatalf("content %v", a.events[0])
	}
	if id := (<-acked).SendID; string(id[:]) != string(f.GetSend().GetSendId()) {
		t.Fatal("the ack has another id")
	}
}

func TestCallbacksMayWaitForTheServer(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	got := make(chan error, 1)
	o.OnEvents = func(c *Client, evs []*proto.Event) {
		_, err := c.Send(context.Background(), User(evs[0].GetActorId()), Text("echo"))
		got <- err
	}
	start(t, o)
	p, _ := srv.login()
	p.send(events(1, 1))
	f := p.next()
	p.send(ack(f.GetId(), 2))
	if err := <-got; err != nil {
		t.Fatal(err)
	}
}

func TestHints(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	c := start(t, o)
	p, _ := srv.login()
	p.send(&proto.Frame{Body: &proto.Frame_Hint{Hint: &proto.Hint{Body: &proto.Hint_Typing{Typing: &proto.TypingHint{UserId: friend, On: true}}}}})
	eventually(t, "hint", func() bool { a.mu.Lock(); defer a.mu.Unlock(); return len(a.hints) == 1 })
	c.Typing(User(friend), true)
	if f := p.next(); f.GetId() != 0 || f.GetTyping().GetToUserId() != friend || !f.GetTyping().GetOn() {
		t.Fatal(f)
	}
	c.Typing(Conversation([]byte("0123456789abcdef")), false)
	if f := p.next(); string(f.GetTyping().GetConversation()) != "0123456789abcdef" || f.GetTyping().GetOn() {
		t.Fatal(f)
	}
}
