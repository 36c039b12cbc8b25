package main

import (
	"bytes"
	"fmt"
	"slices"
	"strconv"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/proto"
)

// Events, Sync, Reset and rebuild, Ordering, Conversations and history, Read
// marks and unread, Delivered marks.

func stateCases() []specCase {
	return []specCase{
		{"Events", "in order, each once, behind the cursor, and CaughtUp once", specEvents},
		{"Events", "the own message without its content, on the connection that sent it", func(s *spec) {
			a := s.person()
			b := s.second(a, proto.DeviceSlot_DEVICE_SLOT_TABLET)
			s.event(a) // of the new device
			peer := s.person()
			f := message(peer.dev.user, "mine")
			a.id++
			f.Id = a.id
			a.send(f)
			own, other := s.event(a), s.event(b)
			if m := own.GetMessage(); m == nil || m.Content != nil || !bytes.Equal(m.SendId, f.GetSend().SendId) {
				s.Errorf("on the connection that sent it: %v", own)
			}
			if m := other.GetMessage(); textOf(m.GetContent()) != "mine" || m.ToUserId != peer.dev.user || other.ActorId != a.dev.user {
				s.Errorf("on another device: %v", other)
			}
		}},
		{"Events", "without acks the server stops at the window", specWindow},
		{"Sync", "pages, next and caught_up", specSync},
		{"Reset and rebuild", "when a cursor cannot be continued", specReset},
		{"Reset and rebuild", "after retention", func(s *spec) {
			n := serve(s.T, func(cfg *config.Config) { cfg.Storage.RetainEvents = 100 })
			a := s.personOn(n)
			old := &proto.Cursor{Epoch: a.welcome.Head.Epoch}
			for i := range 250 {
				a.ask(message(a.dev.user, strconv.Itoa(i)))
			}
			var reset *proto.Reset
			eventually(s.T, 10*time.Second, "the events behind the cursor are gone", func() bool {
				r := a.ask(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: old}}}).GetSyncResponse()
				reset = r.GetReset_()
				return reset != nil
			})
			if reset.Reason != proto.ResetReason_RESET_REASON_RETENTION {
				s.Errorf("reset %v", reset)
			}
			w := s.dialTo(n)
			w.dev = a.dev
			w.dev.cursor = old
			p := s.in(w, a.name, byToken(a.token))
			if r := p.welcome.Reset_; r.GetReason() != proto.ResetReason_RESET_REASON_RETENTION || r.Resume.GetSeq() != p.welcome.Head.Seq {
				s.Errorf("welcome %v", p.welcome)
			}
		}},
		{"Ordering", "conv_seq counts messages, rev entries, the same for all", specOrdering},
		{"Conversations and history", "ListConversations by pages", specConversations},
		{"Conversations and history", "GetHistory by range", specHistory},
		{"Read marks and unread", "raised, never lowered, told to the own devices", specRead},
		{"Delivered marks", "a hint, and by GetMarks", specDelivered},
	}
}

// told sends n numbered messages and returns the conversation.
func (s *spec) told(a, b *phone, n int) (conv []byte) {
	s.Helper()
	for i := range n {
		f := a.ask(message(b.dev.user, strconv.Itoa(i)))
		if f.GetSendAck() == nil {
			s.Fatalf("message %d: %v", i, f)
		}
		conv = f.GetSendAck().Conversation
	}
	return conv
}

func specEvents(s *spec) {
	a, b := s.person(), s.person()
	cursor := b.welcome.Head.Seq
	_ = b.Close()
	s.told(a, b, 30)
	for _, from := range []uint64{cursor, cursor + 7, cursor + 30} {
		w := s.as(b)
		w.dev.cursor = &proto.Cursor{Epoch: b.welcome.Head.Epoch, Seq: from}
		p := s.in(w, b.name, byToken(b.token))
		if p.welcome.Head.Seq != cursor+30 || p.welcome.Reset_ != nil {
			s.Errorf("from %d: welcome %v", from, p.welcome)
		}
		caughtUp := 0
		see := func(f *proto.Frame) bool {
			for _, e := range f.GetEvents().GetEvents() {
				if e.Seq != from+1 || f.Id != 0 || caughtUp > 0 && from < cursor+30 {
					s.Errorf("event %d after %d, caught up %d times", e.Seq, from, caughtUp)
				}
				from = e.Seq
			}
			if c := f.GetCaughtUp(); c != nil {
				caughtUp++
				if c.Seq != from {
					s.Errorf("caught up at %d, the events end at %d", c.Seq, from)
				}
			}
			return true
		}
		for caughtUp == 0 {
			see(p.frame())
		}
		s.quiet(p.wire, see)
		if caughtUp != 1 || from != cursor+30 {
			s.Errorf("caught up %d times, at event %d", caughtUp, from)
		}
	}
}

func specWindow(s *spec) {
	n := serve(s.T, func(cfg *config.Config) { cfg.Limits.EventWindow = 16 })
	a, b := s.personOn(n), s.personOn(n)
	if b.welcome.Limits.EventWindow != 16 {
		s.Errorf("limits %v", b.welcome.Limits)
	}
	first, got := b.welcome.Head.Seq+1, uint64(0)
	see := func(f *proto.Frame) bool {
		for _, e := range f.GetEvents().GetEvents() {
			if e.Seq != first+got {
				s.Errorf("event %d, want %d", e.Seq, first+got)
			}
			got++
		}
		return true
	}
	s.told(a, b, 40)
	for _, step := range []struct{ acked, want uint64 }{{0, 16}, {7, 16}, {8, 24}, {24, 40}} {
		if step.acked > 0 {
			b.send(ack(first + step.acked - 1))
		}
		for got < step.want {
			see(b.frame())
		}
		s.quiet(b.wire, see)
		if got != step.want {
			s.Errorf("%d acknowledged: %d events came, want %d", step.acked, got, step.want)
		}
	}
}

func specSync(s *spec) {
	a, b := s.person(), s.person()
	s.told(a, b, 25)
	var seqs []uint64
	cur := b.welcome.Head
	for {
		r := b.ask(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cur, Limit: 10}}}).GetSyncResponse()
		if r == nil || r.Reset_ != nil || len(r.Events) > 10 {
			s.Fatalf("page %v", r)
		}
		for _, e := range r.Events {
			seqs = append(seqs, e.Seq)
		}
		cur = r.Next
		if r.CaughtUp {
			break
		}
	}
	for i, seq := range seqs {
		if want := b.welcome.Head.Seq + 1 + uint64(i); seq != want {
			s.Errorf("event %d, want %d", seq, want)
		}
	}
	if len(seqs) != 25 || cur.Seq != b.welcome.Head.Seq+25 {
		s.Errorf("%d events, next %v", len(seqs), cur)
	}
}

func specReset(s *spec) {
	a := s.person()
	head := a.welcome.Head
	for what, c := range map[string]struct {
		cur *proto.Cursor
		why proto.ResetReason
	}{
		"no cursor":     {nil, proto.ResetReason_RESET_REASON_NO_CURSOR},
		"another epoch": {&proto.Cursor{Epoch: head.Epoch + 1, Seq: head.Seq}, proto.ResetReason_RESET_REASON_RESTORED},
		"ahead":         {&proto.Cursor{Epoch: head.Epoch, Seq: head.Seq + 1}, proto.ResetReason_RESET_REASON_RESTORED},
		"at the end":    {head, 0},
		"at the start":  {&proto.Cursor{Epoch: head.Epoch}, 0},
	} {
		r := a.ask(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: c.cur}}}).GetSyncResponse()
		if r.GetReset_().GetReason() != c.why || r.GetNext().GetSeq() != head.Seq || !r.CaughtUp {
			s.Errorf("sync, %s: %v", what, r)
		}
		if c.why != 0 && (len(r.Events) > 0 || r.Reset_.Resume.String() != r.Next.String()) {
			s.Errorf("sync, %s: %v", what, r)
		}
		w := s.as(a)
		w.dev.cursor = c.cur
		p := s.in(w, a.name, byToken(a.token))
		if reset := p.welcome.Reset_; reset.GetReason() != c.why || c.why != 0 && reset.Resume.String() != head.String() {
			s.Errorf("hello, %s: %v", what, p.welcome)
		}
		a = &phone{wire: p.wire, name: a.name, token: a.token, welcome: a.welcome}
	}
	// After a reset events go on behind resume.
	w := s.as(a)
	w.dev.cursor = nil
	p := s.in(w, a.name, byToken(a.token))
	if c := p.frame().GetCaughtUp(); c.GetSeq() != head.Seq {
		s.Errorf("caught up %v, resume %v", c, head)
	}
	p.id++
	f := message(a.dev.user, "live")
	f.Id = p.id
	p.send(f)
	if e := s.event(p); e.Seq != head.Seq+1 {
		s.Errorf("the first event after the reset: %v", e)
	}
}

func specOrdering(s *spec) {
	a, b := s.person(), s.person()
	note := func(p *phone, text string) *proto.SendAck { return p.ask(message(a.dev.user, text)).GetSendAck() }
	first := note(a, "a note to myself")
	mark := &proto.Frame{Body: &proto.Frame_MarkRead{MarkRead: &proto.MarkRead{Conversation: first.Conversation, ConvSeq: 1}}}
	s.does("an entry that is no message", a, mark)
	s.does("and one more", a, blocking(b.dev.user))
	second := note(a, "another")
	if second.ConvSeq != first.ConvSeq+1 || second.Rev != first.Rev+3 || second.TimeUs <= first.TimeUs {
		s.Errorf("acks %v and %v", first, second)
	}
	h := history(a, &proto.GetHistory{Conversation: first.Conversation, FromRev: first.Rev})
	var got []string
	for _, e := range h.GetEntries() {
		got = append(got, fmt.Sprintf("%d/%d", e.Rev-first.Rev, e.ConvSeq))
	}
	if want := []string{"0/1", "1/1", "2/1", "3/2"}; !slices.Equal(got, want) {
		s.Errorf("entries by rev and conv_seq: %v, want %v", got, want)
	}
}

func history(p *phone, r *proto.GetHistory) *proto.History {
	return p.ask(&proto.Frame{Body: &proto.Frame_GetHistory{GetHistory: r}}).GetHistory_()
}

func specConversations(s *spec) {
	a := s.person()
	list := func(after []byte, limit uint32) *proto.Conversations {
		return a.ask(&proto.Frame{Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{After: after, Limit: limit}}}).GetConversations()
	}
	if got := list(nil, 0); len(got.GetConversations()) != 0 || len(got.Next) != 0 {
		s.Errorf("before the first message: %v", got)
	}
	peers := map[int64]bool{a.dev.user: true}
	s.told(a, a, 1)
	for range 6 {
		b := s.person()
		s.told(b, a, 2)
		peers[b.dev.user] = true
	}
	var keys [][]byte
	for after, pages := []byte(nil), 0; pages == 0 || len(after) > 0; pages++ {
		page := list(after, 3)
		for _, c := range page.GetConversations() {
			keys = append(keys, c.Conversation)
			unread := uint64(2)
			if c.PeerId == a.dev.user {
				unread = 0
			}
			if !peers[c.PeerId] || c.Unread != unread || c.Last.GetSeq() != 0 || c.Last.GetRev() != c.HeadRev || c.Last.GetConvSeq() != c.HeadConvSeq {
				s.Errorf("conversation %v", c)
			}
			delete(peers, c.PeerId)
		}
		after = page.GetNext()
		if len(page.GetConversations()) > 3 || pages > 9 {
			s.Fatalf("page %d: %v", pages, page)
		}
	}
	if len(peers) != 0 || !slices.IsSortedFunc(keys, bytes.Compare) {
		s.Errorf("%d conversations are missing, or not in key order", len(peers))
	}
	f := &proto.Frame{Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{After: []byte("x")}}}
	s.asks("after that is no next", a, f, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
}

func specHistory(s *spec) {
	a, b, eve := s.person(), s.person(), s.person()
	conv := s.told(a, b, 60)
	for _, c := range []struct {
		r           *proto.GetHistory
		first, last uint64 // 0: none
		more        bool
	}{
		{&proto.GetHistory{}, 1, 50, true},
		{&proto.GetHistory{FromRev: 51}, 51, 60, false},
		{&proto.GetHistory{FromRev: 10, ToRev: 12}, 10, 12, false},
		{&proto.GetHistory{FromRev: 10, ToRev: 12, Limit: 2}, 10, 11, true},
		{&proto.GetHistory{NewestFirst: true, Limit: 5}, 60, 56, true},
		{&proto.GetHistory{NewestFirst: true, FromRev: 56, ToRev: 60}, 60, 56, false},
		{&proto.GetHistory{Limit: 1000}, 1, 60, false},
		{&proto.GetHistory{FromRev: 61}, 0, 0, false},
	} {
		c.r.Conversation = conv
		h := history(b, c.r)
		n := len(h.GetEntries())
		if h == nil || h.More != c.more || (n == 0) != (c.first == 0) || n > 0 && (h.Entries[0].Rev != c.first || h.Entries[n-1].Rev != c.last || h.Entries[0].Seq != 0) {
			s.Errorf("%v: %d entries, more %v", c.r, n, h.GetMore())
		}
	}
	ask := func(what string, p *phone, r *proto.GetHistory, code proto.ErrorCode) {
		s.Helper()
		s.asks(what, p, &proto.Frame{Body: &proto.Frame_GetHistory{GetHistory: r}}, code)
	}
	ask("from above to", b, &proto.GetHistory{Conversation: conv, FromRev: 5, ToRev: 4}, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	ask("half a key", b, &proto.GetHistory{Conversation: conv[:8]}, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	ask("somebody else's", eve, &proto.GetHistory{Conversation: conv}, proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	ask("no conversation", b, &proto.GetHistory{Conversation: make([]byte, 16)}, proto.ErrorCode_ERROR_CODE_NOT_FOUND)
}

func markRead(conv []byte, seq uint64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_MarkRead{MarkRead: &proto.MarkRead{Conversation: conv, ConvSeq: seq}}}
}

func marks(p *phone, convs ...[]byte) []*proto.Mark {
	return p.ask(&proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: convs}}}).GetMarks_().GetMarks()
}

func specRead(s *spec) {
	a, b := s.person(), s.person()
	conv := s.told(a, b, 5)
	for range 5 {
		s.event(b)
	}
	b2 := s.second(b, proto.DeviceSlot_DEVICE_SLOT_WEB)
	s.event(b) // of the new device
	for _, step := range []struct{ mark, read uint64 }{{3, 3}, {2, 3}, {3, 3}, {99, 5}} {
		before := marks(b, conv)[0].ReadConvSeq
		s.does("mark read", b, markRead(conv, step.mark))
		if m := marks(b, conv); len(m) != 1 || m[0].ReadConvSeq != step.read {
			s.Errorf("after %d the mark is %v, want %d", step.mark, m, step.read)
		}
		if before == step.read {
			continue // and no event
		}
		e := s.event(b2)
		if r := e.GetRead(); !bytes.Equal(r.GetConversation(), conv) || r.ConvSeq != step.read || bytes.Equal(e.Conversation, conv) {
			s.Errorf("told to the other device: %v", e)
		}
	}
	list := b.ask(&proto.Frame{Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{}}}).GetConversations().GetConversations()
	if len(list) != 1 || list[0].Unread != 0 || list[0].ReadConvSeq != 5 {
		s.Errorf("conversations %v", list)
	}
	eve := s.person()
	s.asks("somebody else's", eve, markRead(conv, 1), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	s.asks("none", eve, markRead(make([]byte, 16), 1), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	// The key of two who have not talked yet.
	if got := marks(eve, pairKey(eve.dev.user, a.dev.user)); len(got) != 0 {
		s.Errorf("marks where there is no part: %v", got)
	}
	s.asks("no part yet", eve, markRead(pairKey(eve.dev.user, a.dev.user), 1), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
}

func specDelivered(s *spec) {
	a, b := s.person(), s.person()
	conv := s.told(a, b, 3)
	for range 3 {
		s.event(b)
	}
	for {
		h := a.frame().GetHint().GetDelivered()
		if h == nil {
			continue
		}
		if !bytes.Equal(h.Conversation, conv) || h.UserId != b.dev.user || h.ConvSeq > 3 {
			s.Errorf("hint %v", h)
		}
		break
	}
	eventually(s.T, 10*time.Second, "all three are delivered", func() bool {
		return marks(a, conv)[0].PeerDeliveredConvSeq == 3
	})
	list := a.ask(&proto.Frame{Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{}}}).GetConversations().GetConversations()
	if len(list) != 1 || list[0].PeerDeliveredConvSeq != 3 {
		s.Errorf("conversations %v", list)
	}
}
