package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// The promises, each in small, through the reference client. What a thousand
// messages in flight add is in TestKillNineLosesNothing.

// A message for somebody who is away is there after the power cut, and the
// same send again gets the first answer.
func TestPromiseAcksSurviveRestart(t *testing.T) {
	t.Parallel()
	const total = 30
	p := newProcess(t)
	p.start()
	var store client.MemoryStore
	ben := join(t, p.addr, "ben", func(o *client.Options) { o.Store = &store })
	ann := join(t, p.addr, "ann")
	ann.say(t, ben.c.UserID(), "0")
	eventually(t, 10*time.Second, "the first message", func() bool { return len(ben.received()) == 1 })
	_ = ben.c.Close()

	ctx, cancel := testContext()
	defer cancel()
	ids := make([]client.SendID, total)
	acks := make([]client.Ack, total)
	for i := 1; i < total; i++ {
		var err error
		if ids[i], err = ann.c.NewSendID(); err != nil {
			t.Fatal(err)
		}
		if acks[i], err = ann.c.SendWithID(ctx, ids[i], client.User(ben.c.UserID()), textContent(strconv.Itoa(i))); err != nil {
			t.Fatal(err)
		}
		if acks[i].ConvSeq != uint64(i+1) {
			t.Errorf("message %d is number %d of its conversation", i, acks[i].ConvSeq)
		}
	}
	p.kill()
	p.start()
	for _, i := range []int{1, total / 2, total - 1} {
		again, err := ann.c.SendWithID(ctx, ids[i], client.User(ben.c.UserID()), textContent(strconv.Itoa(i)))
		if err != nil || again.ConvSeq != acks[i].ConvSeq || again.Rev != acks[i].Rev || !again.Time.Equal(acks[i].Time) {
			t.Errorf("message %d again: %+v (%v), first %+v", i, again, err, acks[i])
		}
		if _, err := ann.c.SendWithID(ctx, ids[i], client.User(ben.c.UserID()), textContent("other")); !errors.Is(err, client.ErrConflict) {
			t.Errorf("other content under the id of message %d: %v", i, err)
		}
	}
	back := join(t, p.addr, "", resuming(&store))
	eventually(t, 10*time.Second, "what was missed", func() bool { return len(back.received()) >= total-1 })
	// Nothing twice, nothing of the retries: the next one comes right behind.
	ann.say(t, back.c.UserID(), "last")
	eventually(t, 10*time.Second, "the last message", func() bool { return slices.Contains(back.received(), "last") })
	for i, text := range back.received() {
		if want := strconv.Itoa(i + 1); text != want && i != total-1 {
			t.Errorf("place %d: %q, want %q", i, text, want)
		}
	}
	if got := len(back.received()); got != total {
		t.Errorf("%d messages after the restart, want %d", got, total)
	}
}

func TestPromiseAllDevicesGetEverything(t *testing.T) {
	t.Parallel()
	n := serve(t)
	phone := join(t, n.addr, "ann")
	desk := join(t, n.addr, "ann", withPassword(proto.DeviceSlot_DEVICE_SLOT_DESKTOP))
	ben := join(t, n.addr, "ben")
	ben.say(t, phone.c.UserID(), "to both")
	phone.say(t, ben.c.UserID(), "from the phone")
	desk.say(t, ben.c.UserID(), "from the desk")
	for name, p := range map[string]*person{"phone": phone, "desk": desk, "ben": ben} {
		eventually(t, 10*time.Second, name+" has all three", func() bool {
			p.mu.Lock()
			defer p.mu.Unlock()
			return slices.Equal(p.seqs, []uint64{1, 2, 3})
		})
	}
	if got := ben.received(); !slices.Equal(got, []string{"from the phone", "from the desk"}) {
		t.Errorf("ben got %q", got)
	}
	for name, p := range map[string]*person{"phone": phone, "desk": desk} {
		if got := p.received(); !slices.Equal(got, []string{"to both"}) {
			t.Errorf("%s got %q", name, got)
		}
		loggedInOnce(t, name, p)
	}
	// Nobody else hears a word (a promise one can only sample).
	if eve := join(t, n.addr, "eve"); len(eve.received()) != 0 {
		t.Errorf("eve got %q", eve.received())
	}
}

// The newer login has the slot for good: the older device ends, stays out even
// when its app starts again, and does not push the newer one out.
func TestPromiseNewerLoginKicksWithoutPingPong(t *testing.T) {
	t.Parallel()
	n := serve(t)
	var store client.MemoryStore
	old := join(t, n.addr, "ann", func(o *client.Options) { o.Store = &store })
	next := join(t, n.addr, "ann", withPassword(proto.DeviceSlot_DEVICE_SLOT_PHONE))
	ended(t, "the old phone", old.c, client.ErrKicked)
	for range 3 {
		if _, err := tryJoin(t, n.addr, "", 5*time.Second, resuming(&store)); !errors.Is(err, client.ErrKicked) {
			t.Errorf("the old phone comes back: %v", err)
		}
	}
	next.say(t, next.c.UserID(), "undisturbed")
	loggedInOnce(t, "the new phone", next)
	n.closedFor("kicked", 1)
	// By password it is a new login, and the newer one again.
	third := join(t, n.addr, "ann", withPassword(proto.DeviceSlot_DEVICE_SLOT_PHONE), func(o *client.Options) { o.Store = &store })
	ended(t, "the new phone", next.c, client.ErrKicked)
	third.say(t, third.c.UserID(), "back by password")
}

// ended waits until a client has given up for good, for a reason.
func ended(t *testing.T, who string, c *client.Client, why error) {
	t.Helper()
	select {
	case <-c.Done():
		if !errors.Is(c.Err(), why) {
			t.Errorf("%s ended with %v, want %v", who, c.Err(), why)
		}
	case <-time.After(15 * time.Second):
		t.Fatalf("%s goes on", who)
	}
}

func TestPromiseRevokedDevicesAreOut(t *testing.T) {
	t.Parallel()
	n := serve(t)
	var store client.MemoryStore
	desk := join(t, n.addr, "ann")
	lost := join(t, n.addr, "ann", withPassword(proto.DeviceSlot_DEVICE_SLOT_TABLET), func(o *client.Options) { o.Store = &store })
	kept, err := store.Load()
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := testContext()
	defer cancel()
	if devices, err := desk.c.ListDevices(ctx); err != nil || len(devices) != 2 || !devices[1].Online {
		t.Fatalf("devices %v (%v)", devices, err)
	}
	if err := desk.c.RevokeDevice(ctx, lost.c.DeviceID()); err != nil {
		t.Fatal(err)
	}
	ended(t, "the lost tablet", lost.c, client.ErrRevoked)
	// Neither its token nor its secret is worth anything.
	if err := store.Save(kept); err != nil {
		t.Fatal(err)
	}
	asTablet := func(o *client.Options) { o.Device.Slot = proto.DeviceSlot_DEVICE_SLOT_TABLET }
	if _, err := tryJoin(t, n.addr, "", 5*time.Second, resuming(&store), asTablet); !errors.Is(err, client.ErrRevoked) {
		t.Errorf("the lost tablet comes back: %v", err)
	}
	if devices, err := desk.c.ListDevices(ctx); err != nil || len(devices) != 1 {
		t.Errorf("devices %v (%v)", devices, err)
	}
	desk.say(t, desk.c.UserID(), "still in")

	// A new password throws everybody else out.
	var again client.MemoryStore
	tablet := join(t, n.addr, "ann", withPassword(proto.DeviceSlot_DEVICE_SLOT_TABLET), func(o *client.Options) { o.Store = &again })
	if err := desk.c.ChangePassword(ctx, password, "incorrect horse battery"); err != nil {
		t.Fatal(err)
	}
	ended(t, "the tablet with the old password", tablet.c, client.ErrRevoked)
	if _, err := tryJoin(t, n.addr, "ann", 5*time.Second, withPassword(proto.DeviceSlot_DEVICE_SLOT_TABLET)); !errors.Is(err, client.ErrUnauthenticated) {
		t.Errorf("the old password: %v", err)
	}
	desk.say(t, desk.c.UserID(), "still in")
}

// rebuilder is an app's local store: a RESET has it read everything anew.
type rebuilder struct {
	mu      sync.Mutex
	resets  []proto.ResetReason
	history []string
}

func (r *rebuilder) rebuild(ctx context.Context, c *client.Client, reset *proto.Reset) error {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.resets, r.history = append(r.resets, reset.Reason), nil
	convs, err := c.AllConversations(ctx)
	if err != nil {
		return err
	}
	for _, conv := range convs {
		for from := uint64(1); ; {
			h, err := c.History(ctx, conv.Conversation, client.Range{From: from})
			if err != nil {
				return err
			}
			for _, e := range h.Entries {
				if m := e.GetMessage(); m != nil {
					r.history = append(r.history, textOf(m.Content))
				}
				from = e.Rev + 1
			}
			if !h.More {
				break
			}
		}
	}
	return nil
}

// Who was away longer than the inbox is kept loses nothing: RESET, rebuild,
// and on with live events.
func TestPromiseResetAfterRetention(t *testing.T) {
	t.Parallel()
	const total = 350
	n := serve(t, func(cfg *config.Config) { cfg.Storage.RetainEvents = 100 })
	var store client.MemoryStore
	var app rebuilder
	withApp := func(o *client.Options) { o.Store, o.OnReset = &store, app.rebuild }
	ben := join(t, n.addr, "ben", withApp)
	eventually(t, 10*time.Second, "the first rebuild", func() bool {
		s, _ := store.Load()
		return s.HasCursor
	})
	_ = ben.c.Close()
	ann := join(t, n.addr, "ann")
	var acks sync.WaitGroup
	for i := range total {
		id, err := ann.c.NewSendID()
		if err != nil {
			t.Fatal(err)
		}
		acks.Add(1)
		err = ann.c.SendAsync(id, client.User(ben.c.UserID()), textContent(strconv.Itoa(i)), func(_ client.Ack, err error) {
			if err != nil {
				t.Errorf("message %d: %v", i, err)
			}
			acks.Done()
		})
		if err != nil {
			t.Fatal(err)
		}
	}
	acks.Wait()
	back := join(t, n.addr, "", resuming(&store), withApp)
	ann.say(t, back.c.UserID(), "live")
	eventually(t, 20*time.Second, "the live message", func() bool { return slices.Contains(back.received(), "live") })
	app.mu.Lock()
	defer app.mu.Unlock()
	if want := []proto.ResetReason{proto.ResetReason_RESET_REASON_NO_CURSOR, proto.ResetReason_RESET_REASON_RETENTION}; !slices.Equal(app.resets, want) {
		t.Errorf("resets %v, want %v", app.resets, want)
	}
	// The message sent while rebuilding may be in both: by history, and by event.
	got := app.history
	if len(got) == total+1 && got[total] == "live" {
		got = got[:total]
	}
	checkOrder(t, "the rebuilt history", got, total)
	if got := back.received(); !slices.Equal(got, []string{"live"}) {
		t.Errorf("events after the rebuild: %q", got)
	}
}

func TestPromiseBlock(t *testing.T) {
	t.Parallel()
	n := serve(t)
	ann, ben := join(t, n.addr, "ann"), join(t, n.addr, "ben")
	ann.say(t, ben.c.UserID(), "before")
	ctx, cancel := testContext()
	defer cancel()
	if err := ben.c.Block(ctx, ann.c.UserID()); err != nil {
		t.Fatal(err)
	}
	for i := range 3 {
		if _, err := ann.c.Send(ctx, client.User(ben.c.UserID()), textContent(fmt.Sprint(i))); !errors.Is(err, client.ErrNotAllowed) {
			t.Errorf("to one who has blocked: %v", err)
		}
	}
	if blocks, err := ben.c.Blocks(ctx); err != nil || !slices.Equal(blocks, []int64{ann.c.UserID()}) {
		t.Errorf("blocks %v (%v)", blocks, err)
	}
	if err := ben.c.Unblock(ctx, ann.c.UserID()); err != nil {
		t.Fatal(err)
	}
	ann.say(t, ben.c.UserID(), "after")
	eventually(t, 10*time.Second, "the message after", func() bool { return len(ben.received()) >= 2 })
	if got := ben.received(); !slices.Equal(got, []string{"before", "after"}) {
		t.Errorf("ben got %q", got)
	}
}

// Who a message is from, and whose conversation it is, comes from the session:
// a stranger who knows a key can neither write nor read.
func TestPromiseNobodyElsesConversation(t *testing.T) {
	t.Parallel()
	n := serve(t)
	ann, ben := join(t, n.addr, "ann"), join(t, n.addr, "ben")
	key := ann.say(t, ben.c.UserID(), "between us").Conversation
	eve := n.dial().register("eve")
	send := message(1, "from eve")
	send.GetSend().Target = &proto.SendRequest_Conversation{Conversation: key}
	for what, f := range map[string]*proto.Frame{
		"send":      send,
		"history":   {Body: &proto.Frame_GetHistory{GetHistory: &proto.GetHistory{Conversation: key}}},
		"marks":     {Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: [][]byte{key}}}},
		"mark read": {Body: &proto.Frame_MarkRead{MarkRead: &proto.MarkRead{Conversation: key, ConvSeq: 1}}},
	} {
		answer := eve.ask(f)
		switch codeOf(answer) {
		case proto.ErrorCode_ERROR_CODE_NOT_ALLOWED, proto.ErrorCode_ERROR_CODE_NOT_FOUND:
		default:
			if len(answer.GetMarks_().GetMarks()) != 0 || answer.GetMarks_() == nil {
				t.Errorf("%s of somebody else's conversation: %v", what, answer)
			}
		}
	}
	ben.say(t, ann.c.UserID(), "still between us")
	eventually(t, 10*time.Second, "the answer", func() bool { return len(ann.received()) == 1 })
	if got := ben.received(); !slices.Equal(got, []string{"between us"}) {
		t.Errorf("ben got %q", got)
	}
}
