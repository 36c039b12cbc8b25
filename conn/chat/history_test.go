package chat

import (
	"bytes"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

func (p *peer) list(req *proto.ListConversations) *proto.Conversations {
	p.t.Helper()
	f := p.call(&proto.Frame{Body: &proto.Frame_ListConversations{ListConversations: req}})
	if f.GetConversations() == nil {
		p.t.Fatalf("list was answered with %v", f)
	}
	return f.GetConversations()
}

func (p *peer) history(req *proto.GetHistory) *proto.History {
	p.t.Helper()
	f := p.call(&proto.Frame{Body: &proto.Frame_GetHistory{GetHistory: req}})
	if f.GetHistory_() == nil {
		p.t.Fatalf("history was answered with %v", f)
	}
	return f.GetHistory_()
}

func (p *peer) marks(conv []byte) *proto.Mark {
	p.t.Helper()
	f := p.call(&proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: [][]byte{conv}}}})
	if len(f.GetMarks_().GetMarks()) != 1 {
		p.t.Fatalf("marks were answered with %v", f)
	}
	return f.GetMarks_().Marks[0]
}

func read(conv []byte, seq uint64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_MarkRead{MarkRead: &proto.MarkRead{Conversation: conv, ConvSeq: seq}}}
}

func TestUnreadAndReadMarks(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.register("alice"), r.register("bob")
	var conv []byte
	for i := range 5 {
		conv = a.send(textTo(b.d.user, fmt.Sprint(i))).Conversation
	}
	b.events(5)
	got := b.list(&proto.ListConversations{}).Conversations
	if len(got) != 1 || got[0].Unread != 5 || got[0].PeerId != a.d.user || got[0].HeadConvSeq != 5 || text(got[0].Last) != "4" ||
		got[0].Last.Seq != 0 || !bytes.Equal(got[0].Conversation, conv) {
		t.Fatalf("bob's list is %v", got)
	}
	if own := a.list(&proto.ListConversations{}).Conversations[0]; own.Unread != 0 || own.PeerId != b.d.user {
		t.Errorf("alice's is %v", own)
	}
	b2 := r.login("bob", desktop, nil)
	b2.caughtUp()
	if f := b.call(read(conv, 3)); f.GetOk() == nil {
		t.Fatalf("mark read was answered with %v", f)
	}
	isRead := func(f *proto.Frame) bool {
		for _, ev := range f.GetEvents().GetEvents() {
			if m := ev.GetRead(); m != nil {
				return bytes.Equal(m.Conversation, conv) && m.ConvSeq == 3 && ev.ActorId == b.d.user
			}
		}
		return false
	}
	b2.take("read event", isRead)
	if got := b.list(&proto.ListConversations{}).Conversations[0]; got.Unread != 2 || got.ReadConvSeq != 3 {
		t.Errorf("after reading 3 the list is %v", got)
	}
	b.take("own read event", isRead)
	for _, seq := range []uint64{3, 1, 0} { // never lowered, and no event for it
		b.call(read(conv, seq))
	}
	b.quiet("read event", isRead)
	b.call(read(conv, 1000)) // beyond the head is the head
	if got := b.list(&proto.ListConversations{}).Conversations[0]; got.Unread != 0 || got.ReadConvSeq != 5 {
		t.Errorf("after reading all the list is %v", got)
	}
	if m := b.marks(conv); m.ReadConvSeq != 5 {
		t.Errorf("marks are %v", m)
	}
	if m := a.marks(conv); m.PeerDeliveredConvSeq != 5 {
		t.Errorf("who has read it has it, but alice's marks are %v", m)
	}
	a.send(textTo(b.d.user, "more"))
	b.send(textTo(a.d.user, "an answer reads"))
	if got := b.list(&proto.ListConversations{}).Conversations[0]; got.Unread != 0 {
		t.Errorf("after answering the list is %v", got)
	}
}

func TestDeliveredMarks(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.chat.MarksEvery = 200 * time.Millisecond })
	a, b := r.register("alice"), r.register("bob")
	var conv []byte
	for i := range 3 {
		conv = a.send(textTo(b.d.user, fmt.Sprint(i))).Conversation
	}
	b.ack(b.events(3)[2].Seq)
	hint := a.take("delivered hint", func(f *proto.Frame) bool { return f.GetHint().GetDelivered() != nil }).GetHint().GetDelivered()
	if hint.ConvSeq != 3 || hint.UserId != b.d.user || !bytes.Equal(hint.Conversation, conv) {
		t.Errorf("hint is %v", hint)
	}
	if m := a.marks(conv); m.PeerDeliveredConvSeq != 3 {
		t.Errorf("marks are %v", m)
	}
	if got := a.list(&proto.ListConversations{}).Conversations[0]; got.PeerDeliveredConvSeq != 3 {
		t.Errorf("list is %v", got)
	}
	// Acknowledged just before leaving: written all the same.
	a.send(textTo(b.d.user, "last"))
	last := b.events(1)[0].Seq
	b.ack(last)
	b.quiet("refusal", func(f *proto.Frame) bool { return f.GetError() != nil }) // the ack was served
	b.close()
	eventually(t, "the last mark is written", func() bool { return a.marks(conv).PeerDeliveredConvSeq == 4 })

	// Applied, but the ack was lost: the cursor of the next Hello tells.
	b = b.d.resume(cursor(b, last))
	a.send(textTo(b.d.user, "unacknowledged"))
	seq := b.events(1)[0].Seq
	b.close()
	eventually(t, "bob is gone", func() bool { return len(r.chat.sessionsOf(storage.UserID(b.d.user))) == 0 })
	if m := a.marks(conv); m.PeerDeliveredConvSeq != 4 {
		t.Errorf("marks are %v", m)
	}
	b = b.d.resume(cursor(b, seq))
	eventually(t, "the cursor is taken for an ack", func() bool { return a.marks(conv).PeerDeliveredConvSeq == 5 })
}

func TestHistory(t *testing.T) {
	r := newRig(t, nil)
	a, b, c := r.register("alice"), r.register("bob"), r.register("carol")
	var conv []byte
	for i := range 120 {
		conv = a.send(textTo(b.d.user, fmt.Sprint(i+1))).Conversation
	}
	for _, tt := range []struct {
		name       string
		req        *proto.GetHistory
		first, n   int
		descending bool
		more       bool
	}{
		{"from the start", &proto.GetHistory{}, 1, 50, false, true},
		{"newest first", &proto.GetHistory{NewestFirst: true}, 120, 50, true, true},
		{"a range", &proto.GetHistory{FromRev: 10, ToRev: 20, Limit: 100}, 10, 11, false, false},
		{"a range, backwards", &proto.GetHistory{FromRev: 10, ToRev: 20, Limit: 100, NewestFirst: true}, 20, 11, true, false},
		{"exactly the limit", &proto.GetHistory{FromRev: 10, ToRev: 20, Limit: 11}, 10, 11, false, false},
		{"one below the limit", &proto.GetHistory{FromRev: 10, ToRev: 20, Limit: 10}, 10, 10, false, true},
		{"the end", &proto.GetHistory{FromRev: 100, Limit: 1000}, 100, 21, false, false},
		{"behind the end", &proto.GetHistory{FromRev: 500}, 0, 0, false, false},
	} {
		t.Run(tt.name, func(t *testing.T) {
			tt.req.Conversation = conv
			h := b.history(tt.req)
			if len(h.Entries) != tt.n || h.More != tt.more {
				t.Fatalf("%d entries, more %v", len(h.Entries), h.More)
			}
			for i, ev := range h.Entries {
				want := tt.first + i
				if tt.descending {
					want = tt.first - i
				}
				if int(ev.Rev) != want || text(ev) != fmt.Sprint(want) || ev.Seq != 0 {
					t.Fatalf("entry %d is %v, want rev %d", i, ev, want)
				}
			}
		})
	}
	get := func(req *proto.GetHistory) *proto.Frame {
		return &proto.Frame{Body: &proto.Frame_GetHistory{GetHistory: req}}
	}
	c.refused(get(&proto.GetHistory{Conversation: conv}), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	b.refused(get(&proto.GetHistory{Conversation: conv, FromRev: 5, ToRev: 4}), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	b.refused(get(&proto.GetHistory{Conversation: conv[:4]}), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	none := storage.PairKey(storage.UserID(b.d.user), storage.UserID(c.d.user))
	b.refused(get(&proto.GetHistory{Conversation: none[:]}), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	b.refused(read(none[:], 1), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	c.refused(read(conv, 1), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	c.refused(&proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: [][]byte{conv}}}}, proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	b.refused(&proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: slices.Repeat([][]byte{conv}, 201)}}}, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	b.refused(&proto.Frame{Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{After: []byte("x")}}}, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
}

// Pages of large entries stay under the frame's cap, and paging gets all.
func TestPagesAreBoundedInBytes(t *testing.T) {
	r := newRig(t, nil)
	b := r.register("bob")
	at, conv := b.welcome.Head.Seq, []byte(nil)
	const n = 6
	for i := range n {
		p := r.register(fmt.Sprintf("sender%d", i))
		conv = p.send(textTo(b.d.user, string(bytes.Repeat([]byte("x"), 30_000)))).Conversation
	}
	p := r.login("bob", desktop, cursor(b, at))
	got := p.events(4) // what fits 128 KiB
	p.ack(got[3].Seq)
	if got = append(got, p.events(n-4)...); len(text(got[n-1])) != 30_000 {
		t.Error("large events do not come whole")
	}
	p.ack(got[n-1].Seq)
	p.caughtUp()
	seen := 0
	for after := []byte(nil); ; {
		page := p.list(&proto.ListConversations{After: after})
		seen += len(page.Conversations)
		if after = page.Next; len(after) == 0 {
			break
		}
	}
	if seen != n {
		t.Errorf("%d conversations listed, want %d", seen, n)
	}
	for range 4 {
		req := textTo(0, string(bytes.Repeat([]byte("y"), 30_000)))
		req.Target = &proto.SendRequest_Conversation{Conversation: conv}
		p.send(req)
	}
	seen = 0
	for from := uint64(1); ; {
		h := p.history(&proto.GetHistory{Conversation: conv, FromRev: from})
		seen += len(h.Entries)
		from += uint64(len(h.Entries))
		if !h.More {
			break
		}
	}
	if seen != 5 {
		t.Errorf("%d entries read, want 5", seen)
	}
	messages := 0
	for cur := cursor(b, at); ; {
		f := p.call(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cur}}}).GetSyncResponse()
		for _, ev := range f.Events {
			if ev.GetMessage() != nil {
				messages++
			}
		}
		if cur = f.Next; f.CaughtUp {
			break
		}
	}
	if messages != n+4 {
		t.Errorf("%d messages synced, want %d", messages, n+4)
	}
}
