package chat

import (
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// A session is ended by what happens on another node, within a round of the
// audit, without any word between the two: storage is all they share.
func TestAuditEndsSessionsOfOtherNodes(t *testing.T) {
	f := newFleet(t, 2, 2, func(o *rigOptions) { o.chat.AuditEvery = 100 * time.Millisecond })
	f.endsSessions(t)
}

// Where pushes get from node to node nobody waits for the audit: what was taken
// from a thief is taken at once.
func TestPushesEndSessionsOfOtherNodes(t *testing.T) {
	f := newFleet(t, 2, 2, func(o *rigOptions) { o.chat.AuditEvery = time.Hour })
	forward := func(d storage.Delivery) (lost bool) {
		f.nodes[1].chat.Push(AppendDeliveries(nil, []storage.Delivery{d}))
		return false
	}
	f.nodes[0].lose.Store(&forward)
	f.endsSessions(t)
}

// endsSessions ends sessions of one node by what is done on the other.
func (f *fleet) endsSessions(t *testing.T) {
	here, there := f.nodes[0], f.nodes[1]
	people := f.apps(0, 0, 4)
	for i, tt := range []struct {
		name string
		do   func(a *app, p *peer, other *app)
		want proto.ErrorCode
	}{
		{"device revoked", func(_ *app, p *peer, other *app) { p.ok(revoke(other.id)) }, proto.ErrorCode_ERROR_CODE_REVOKED},
		{"password changed", func(a *app, p *peer, _ *app) {
			if f := p.call(changePassword(password, "staple battery horse")); f.GetAccessToken() == nil {
				t.Errorf("answered with %v", f)
			}
		}, proto.ErrorCode_ERROR_CODE_REVOKED},
		{"secret used twice", func(_ *app, _ *peer, other *app) {
			thief := other.at(here)
			thief.in(thief.showsSecret())
			again := *other
			again.r, again.next = here, random(32)
			again.out(again.showsSecret(), proto.ErrorCode_ERROR_CODE_REVOKED)
		}, proto.ErrorCode_ERROR_CODE_REVOKED},
		{"newer login", func(a *app, _ *peer, _ *app) {
			newer := a.beside(here, desktop)
			newer.in(newer.logsIn())
		}, proto.ErrorCode_ERROR_CODE_KICKED},
	} {
		t.Run(tt.name, func(t *testing.T) {
			a := people[i]
			p := a.in(a.registers())
			other := a.beside(there, desktop)
			victim := other.in(other.logsIn())
			bystander := a.beside(there, proto.DeviceSlot_DEVICE_SLOT_TABLET)
			stays := tt.want == proto.ErrorCode_ERROR_CODE_KICKED || tt.name == "device revoked"
			var by *peer
			if stays {
				by = bystander.in(bystander.logsIn())
			}
			tt.do(a, p, other)
			if code := victim.closed(); code != tt.want {
				t.Errorf("closed with %v", code)
			}
			if stays {
				by.quiet("the end of a bystander", func(f *proto.Frame) bool { return f.Id == 0 && f.GetError() != nil })
			}
		})
	}
}

// The audit of the users of one shard does not wait for another shard.
func TestAuditBesideAnIllShard(t *testing.T) {
	for name, trouble := range troubles {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 2, 3, func(o *rigOptions) {
				impatient(o)
				o.store.ReadTimeout = 5 * time.Second // longer than many rounds
				o.chat.AuditEvery = 100 * time.Millisecond
			})
			here, there := f.nodes[0], f.nodes[1]
			ill := f.apps(0, 1, 2)
			illPhone := ill[0].in(ill[0].registers())
			illDesktop := ill[0].beside(there, desktop)
			illVictim := illDesktop.in(illDesktop.logsIn())
			trouble(f.shards[1])
			for _, shard := range []int{0, 2} {
				for _, a := range f.apps(0, shard, 3) {
					p := a.in(a.registers())
					other := a.beside(there, desktop)
					victim := other.in(other.logsIn())
					p.ok(revoke(other.id))
					if code := victim.closed(); code != proto.ErrorCode_ERROR_CODE_REVOKED {
						t.Errorf("closed with %v", code)
					}
				}
			}
			f.shards[1].Well()
			eventually(t, "the shard is back", func() bool { return illPhone.call(revoke(illDesktop.id)).GetOk() != nil })
			if code := illVictim.closed(); code != proto.ErrorCode_ERROR_CODE_REVOKED {
				t.Errorf("the ill shard's user was closed with %v", code)
			}
			_ = here
		})
	}
}

var troubles = map[string]func(*storagetest.Ill){
	"down":  func(i *storagetest.Ill) { i.Down(fmt.Errorf("connection refused: %w", storage.ErrBusy)) },
	"hangs": func(i *storagetest.Ill) { i.Hang() },
	"slow":  func(i *storagetest.Ill) { i.Slow(50 * time.Millisecond) },
}

// talker is somebody with a connection.
type talker struct {
	*app
	*peer
}

// talkers registers people, app in front.
func (f *fleet) talkers(as ...*app) (ts []talker) {
	for _, a := range as {
		h := a.registers()
		h.State = proto.AppState_APP_STATE_FOREGROUND
		ts = append(ts, talker{a, a.in(h)})
	}
	return ts
}

// gets waits for a message.
func (p *peer) gets(want string) (ev *proto.Event) {
	p.t.Helper()
	p.take(want, func(f *proto.Frame) bool {
		i := slices.IndexFunc(f.GetEvents().GetEvents(), func(ev *proto.Event) bool { return text(ev) == want })
		if i >= 0 {
			ev = f.GetEvents().Events[i]
		}
		return i >= 0
	})
	return ev
}

// everyRequest lets a and b, who live on shards that are well, do everything,
// and fails if anything of it does. n counts up, so that names differ.
func (f *fleet) everyRequest(t *testing.T, a, b talker, n int) {
	t.Helper()
	const rounds = 20
	for i := range rounds {
		want := fmt.Sprintf("%d-%d", n, i)
		ack := a.send(textTo(b.user, want))
		b.ack(b.gets(want).Seq)
		hint := a.take("delivered", func(f *proto.Frame) bool { return f.GetHint().GetDelivered() != nil }).GetHint().GetDelivered()
		if hint.ConvSeq != ack.ConvSeq {
			t.Errorf("delivered up to %d of %d", hint.ConvSeq, ack.ConvSeq)
		}
		b.ok(read(ack.Conversation, ack.ConvSeq))
		if m := a.marks(ack.Conversation); m.PeerDeliveredConvSeq != ack.ConvSeq {
			t.Errorf("marks %v after %d", m, ack.ConvSeq)
		}
		if h := b.history(&proto.GetHistory{Conversation: ack.Conversation, NewestFirst: true, Limit: 1}); text(h.Entries[0]) != want {
			t.Errorf("history ends with %v", h)
		}
	}
	sync := a.call(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cursor(a.peer, a.welcome.Head.Seq)}}})
	if sync.GetSyncResponse() == nil {
		t.Errorf("sync was answered with %v", sync)
	}
	if l := a.list(&proto.ListConversations{}); len(l.Conversations) == 0 {
		t.Error("no conversations")
	}
	if p := a.profiles(profilesOf(a.user, b.user)); len(p) != 2 {
		t.Errorf("profiles %v", p)
	}
	a.profiles(lookup(b.name))
	a.profiles(update(fmt.Sprint("name ", n), ""))
	a.ok(block(b.user))
	a.ok(unblock(b.user))
	a.devices()
	for i, slot := range []proto.DeviceSlot{desktop, proto.DeviceSlot_DEVICE_SLOT_TABLET} {
		x := a.beside(a.app.r, slot)
		x.in(x.logsIn())
		x.in(x.showsToken())
		p := x.in(x.showsSecret())
		if i == 0 {
			p.ok(&proto.Frame{Body: &proto.Frame_Logout{Logout: &proto.Logout{}}})
		} else {
			a.ok(revoke(x.id))
		}
	}
	for i := 0; ; i++ { // somebody new, on a's shard
		name := fmt.Sprintf("new-%d-%d", n, i)
		if n := len(f.shards); shardOf(a.app.r.store.NameSlot(name), n) == shardOf(storage.UserID(a.user).Slot(), n) {
			x := a.app.r.app(name, phone)
			x.in(x.registers())
			break
		}
	}
}

// A shard that is down, hangs or is slow: everybody who does not need it goes
// on as if nothing was, and who does gets a clear answer that says when to try
// again, not a time-out. When it is back, all goes on.
func TestIllShardHurtsItsOwnOnly(t *testing.T) {
	for name, trouble := range troubles {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, 1, 3, func(o *rigOptions) {
				impatient(o)
				o.store.Readers = 4
				o.chat.AuditEvery = 50 * time.Millisecond
				o.chat.MarksEvery = time.Millisecond
			})
			ill, ill2 := f.talker(1), f.talker(1)
			well, well2, mixed := f.talker(0), f.talker(2), f.talker(0)
			// One list has the ill in it.
			conv := mixed.send(textTo(ill.user, "before")).Conversation
			mixed.events(1) // where the log is with the ill, its own row comes by a task
			trouble(f.shards[1])
			f.askedInVain(t, ill, ill2.user, name)
			f.everyRequest(t, well, well2, 1)
			f.everyRequest(t, well2, well, 2)
			if l := mixed.list(&proto.ListConversations{}); len(l.Conversations) != 1 || string(l.Conversations[0].Conversation) != string(conv) {
				t.Errorf("the list with the ill in it is %v", l)
			}
			f.askedInVain(t, ill, ill2.user, name)
			f.everyRequest(t, well, well2, 3)

			f.shards[1].Well()
			back := textTo(ill2.user, "back")
			back.ResumeOrder = true
			eventually(t, "the shard is back", func() bool { return ill.call(sendFrame(back)).GetSendAck() != nil })
			eventually(t, "its reads are back", func() bool {
				return ill2.call(&proto.Frame{Body: &proto.Frame_ListDevices{ListDevices: &proto.ListDevices{}}}).GetDevices() != nil
			})
			ill2.gets("back")
		})
	}
}

// talker registers the next person of a shard on the first node.
func (f *fleet) talker(shard int) talker {
	r := f.nodes[0]
	as := f.apps(0, shard, 1+int(r.chat.table.count.Load()))
	return f.talkers(as[len(as)-1])[0]
}

// askedInVain asks for everything that needs the ill shard. Slow answers are
// answers; everything else is an error that says when to try again.
func (f *fleet) askedInVain(t *testing.T, ill talker, peer int64, trouble string) {
	t.Helper()
	check := func(what string, got *proto.Frame) {
		t.Helper()
		e := got.GetError()
		switch {
		case e == nil && trouble == "slow":
		case e == nil:
			t.Errorf("%s was answered with %v", what, got)
		case e.Code != proto.ErrorCode_ERROR_CODE_UNAVAILABLE && e.Code != proto.ErrorCode_ERROR_CODE_OVERLOADED,
			!e.Retryable || e.RetryAfterMs == 0:
			t.Errorf("%s was refused with %v", what, e)
		}
	}
	times := 5
	if trouble == "slow" {
		times = 1
	}
	for range times {
		req := textTo(peer, "in vain")
		req.ResumeOrder = true
		for what, frame := range map[string]*proto.Frame{
			"send":    sendFrame(req),
			"sync":    {Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cursor(ill.peer, 0)}}},
			"list":    {Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{}}},
			"lookup":  lookup(ill.name),
			"profile": update("x", ""),
			"block":   block(peer),
			"devices": {Body: &proto.Frame_ListDevices{ListDevices: &proto.ListDevices{}}},
			"refresh": {Body: &proto.Frame_RefreshToken{RefreshToken: &proto.RefreshToken{}}},
		} {
			check(what, ill.call(frame))
		}
	}
	if trouble == "slow" {
		return
	}
	for what, h := range map[string]*proto.Hello{"token": ill.showsToken(), "secret": ill.showsSecret(), "password": ill.logsIn()} {
		p, frame := ill.app.hello(h)
		check(what, frame)
		p.close()
	}
	ill.app.next = nil
}
