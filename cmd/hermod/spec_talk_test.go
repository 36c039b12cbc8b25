package main

import (
	"bytes"
	"fmt"
	"slices"
	"strings"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

// Requests, Sending, Content, Typing, Profiles, Blocking.

func talkCases() []specCase {
	return []specCase{
		{"Requests", "a request needs an id", func(s *spec) {
			for _, f := range []*proto.Frame{message(1, "x"), setState(1), {Body: &proto.Frame_Ok{Ok: &proto.Ok{}}}} {
				p := s.person()
				p.send(f)
				p.fault(proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
			}
			s.node.closedFor("protocol", 3)
		}},
		{"Requests", "a notice has none, and nonsense in it is ignored", func(s *spec) {
			p := s.person()
			s.asks("typing", p, typing(1, true), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
			s.asks("delivery ack", p, ack(1), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
			p.send(ack(1<<40), typing(-5, true), &proto.Frame{Body: &proto.Frame_Typing{Typing: &proto.Typing{}}})
			s.quiet(p.wire, func(f *proto.Frame) bool { return f.GetCaughtUp() != nil })
			s.does("the session lives", p, setState(1))
		}},
		{"Requests", "bodies that the server does not know", func(s *spec) {
			p := s.person()
			unknown := []byte{0xc2, 0x3e, 0x01, 0x00} // field 1000
			p.write(append(header(4), unknown...))
			s.quiet(p.wire, func(f *proto.Frame) bool { return f.GetCaughtUp() != nil })
			p.write(append(header(6), append([]byte{0x08, 0x07}, unknown...)...))
			s.wants("with an id", p.answer(7), proto.ErrorCode_ERROR_CODE_UNKNOWN_REQUEST)
			p.id = 7
			for _, f := range []*proto.Frame{
				{Body: &proto.Frame_Welcome{Welcome: &proto.Welcome{}}},
				{Body: &proto.Frame_SendAck{SendAck: &proto.SendAck{}}},
				{Body: &proto.Frame_Events{Events: &proto.EventBatch{}}},
				{Body: &proto.Frame_Hint{Hint: &proto.Hint{}}},
				{Body: &proto.Frame_GoAway{GoAway: &proto.GoAway{}}},
				{Body: &proto.Frame_Error{Error: &proto.Error{}}},
				{Body: &proto.Frame_Ok{Ok: &proto.Ok{}}},
			} {
				s.asks(fmt.Sprintf("%T", f.Body), p, f, proto.ErrorCode_ERROR_CODE_UNKNOWN_REQUEST)
			}
		}},
		{"Sending", "SendAck, and the same for a retry", specSendAck},
		{"Sending", "what fails for good", specSendErrors},
		{"Sending", "a refused send is not overtaken", specResumeOrder},
		{"Sending", "512 conversations on hold", func(s *spec) {
			p := s.personOn(serve(s.T, nobodyExempt))
			var fs []*proto.Frame
			for i := range 760 { // the first 100 are within the rate, and to nobody
				p.id++
				f := message(1<<60+int64(i), "x")
				f.Id = p.id
				fs = append(fs, f)
			}
			p.send(fs...)
			p.fault(proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
		}},
		{"Content", "kept and passed on byte for byte", func(s *spec) {
			a, b := s.person(), s.person()
			for _, c := range []*proto.Content{
				{Kind: proto.ContentKind_CONTENT_KIND_ENCRYPTED, Body: random(1000)},
				{Kind: 4711, Body: []byte("of a later version")},
				{Kind: proto.ContentKind_CONTENT_KIND_TEXT, Body: []byte{0xff, 0xff}}, // no TextContent
				{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM},
				{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: random(32 << 10)},
			} {
				if f := a.ask(messageBytes(b.dev.user, c)); f.GetSendAck() == nil {
					s.Fatalf("kind %d: %v", c.Kind, f)
				}
				if got := s.event(b).GetMessage().GetContent(); got.GetKind() != c.Kind || !bytes.Equal(got.GetBody(), c.Body) {
					s.Errorf("kind %d arrived as %v", c.Kind, got.GetKind())
				}
			}
		}},
		{"Typing", "a hint to the other side", func(s *spec) {
			a, b := s.person(), s.person()
			a.send(typing(b.dev.user, true), typing(b.dev.user, true), typing(b.dev.user, false))
			var got []bool
			s.quiet(b.wire, func(f *proto.Frame) bool {
				if h := f.GetHint().GetTyping(); h != nil && h.UserId == a.dev.user && len(h.Conversation) == 16 {
					got = append(got, h.On)
				}
				return f.GetHint() != nil || f.GetCaughtUp() != nil
			})
			if n := len(got); n == 0 || n > 2 || got[n-1] {
				s.Errorf("hints %v: the last word is that nobody types", got)
			}
		}},
		{"Profiles", "look up, read, replace", specProfiles},
		{"Profiles", "more than fit into one answer", specManyProfiles},
		{"Blocking", "messages and hints stop, one way", specBlocking},
		{"Blocking", "ListBlocks by pages", func(s *spec) {
			a := s.person()
			var all, got []int64
			for range 5 {
				b := s.person().dev.user
				all = append(all, b)
				s.does("block", a, blocking(b))
			}
			slices.Sort(all)
			for after, pages := int64(0), 0; pages == 0 || after != 0; pages++ {
				page := a.ask(&proto.Frame{Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{After: after, Limit: 2}}}).GetBlocks()
				got, after = append(got, page.GetUserIds()...), page.GetNext()
			}
			if !slices.Equal(got, all) {
				s.Errorf("blocks %v, want %v", got, all)
			}
		}},
	}
}

func ack(seq uint64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: seq}}}
}

func blocking(user int64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_BlockUser{BlockUser: &proto.BlockUser{UserId: user}}}
}

func unblocking(user int64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_UnblockUser{UnblockUser: &proto.UnblockUser{UserId: user}}}
}

// again is the same send, as a frame of its own.
func again(f *proto.Frame) *proto.Frame { return gproto.Clone(f).(*proto.Frame) }

func specSendAck(s *spec) {
	a, b := s.person(), s.person()
	f := message(b.dev.user, "once")
	first := a.ask(again(f)).GetSendAck()
	if first == nil || first.Rev != 1 || first.ConvSeq != 1 || len(first.Conversation) != 16 || first.Durability != proto.Durability_DURABILITY_DISK {
		s.Fatalf("ack %v", first)
	}
	w := s.in(s.as(a), a.name, byToken(a.token)) // on another connection, by key
	f.GetSend().Target = &proto.SendRequest_Conversation{Conversation: first.Conversation}
	if got := w.ask(again(f)).GetSendAck(); got.String() != first.String() {
		s.Errorf("the retry got %v, the first %v", got, first)
	}
	if next := w.ask(message(b.dev.user, "twice")).GetSendAck(); next.GetConvSeq() != 2 {
		s.Errorf("the next message: %v", next)
	}
	f.GetSend().Content.Body = append(f.GetSend().Content.Body, 0)
	s.asks("other content", w, again(f), proto.ErrorCode_ERROR_CODE_CONFLICT)
	// The scope of an id is the sender and the conversation.
	f.GetSend().Target = &proto.SendRequest_ToUserId{ToUserId: a.dev.user}
	if got := w.ask(again(f)).GetSendAck(); got.GetConvSeq() != 1 {
		s.Errorf("the same id elsewhere: %v", got)
	}
	f.GetSend().Target = &proto.SendRequest_ToUserId{ToUserId: a.dev.user}
	if got := b.ask(again(f)).GetSendAck(); got.GetConvSeq() != 3 {
		s.Errorf("the same id from the other side: %v", got)
	}
}

func specSendErrors(s *spec) {
	a, b, eve := s.person(), s.person(), s.person()
	day := 24 * time.Hour
	send := func(change func(*proto.SendRequest)) *proto.Frame {
		f := message(b.dev.user, "x")
		change(f.GetSend())
		return f
	}
	key := a.ask(message(b.dev.user, "x")).GetSendAck().GetConversation()
	conv := func(k []byte) func(*proto.SendRequest) {
		return func(r *proto.SendRequest) { r.Target = &proto.SendRequest_Conversation{Conversation: k} }
	}
	for _, c := range []struct {
		what   string
		change func(*proto.SendRequest)
		code   proto.ErrorCode
	}{
		{"no target", func(r *proto.SendRequest) { r.Target = nil }, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"a negative user", func(r *proto.SendRequest) { r.Target = &proto.SendRequest_ToUserId{ToUserId: -1} }, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"nobody", func(r *proto.SendRequest) { r.Target = &proto.SendRequest_ToUserId{ToUserId: 1 << 60} }, proto.ErrorCode_ERROR_CODE_NOT_FOUND},
		{"half a key", conv(key[:8]), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"a key nobody gave", conv(bytes.Repeat([]byte{0xff}, 16)), proto.ErrorCode_ERROR_CODE_NOT_FOUND},
		{"no content", func(r *proto.SendRequest) { r.Content = nil }, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"content of no kind", func(r *proto.SendRequest) { r.Content.Kind = 0 }, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT},
		{"a byte too much", func(r *proto.SendRequest) { r.Content.Body = random(32<<10 + 1) }, proto.ErrorCode_ERROR_CODE_CONTENT_TOO_LARGE},
		{"no id", func(r *proto.SendRequest) { r.SendId = nil }, proto.ErrorCode_ERROR_CODE_ID_INVALID},
		{"an id of 15 bytes", func(r *proto.SendRequest) { r.SendId = r.SendId[:15] }, proto.ErrorCode_ERROR_CODE_ID_INVALID},
		{"a UUIDv4", func(r *proto.SendRequest) { r.SendId[6] = 0x4f }, proto.ErrorCode_ERROR_CODE_ID_INVALID},
		{"another variant", func(r *proto.SendRequest) { r.SendId[8] = 0xff }, proto.ErrorCode_ERROR_CODE_ID_INVALID},
		{"11 minutes ahead", func(r *proto.SendRequest) { r.SendId = newSendID(time.Now().Add(11 * time.Minute)) }, proto.ErrorCode_ERROR_CODE_ID_INVALID},
		{"30 days old", func(r *proto.SendRequest) { r.SendId = newSendID(time.Now().Add(-30 * day)) }, proto.ErrorCode_ERROR_CODE_ID_EXPIRED},
	} {
		s.asks(c.what, a, send(c.change), c.code)
	}
	s.asks("somebody else's", eve, send(conv(key)), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	for what, at := range map[string]time.Duration{"28 days old": -28 * day, "9 minutes ahead": 9 * time.Minute} {
		if f := a.ask(send(func(r *proto.SendRequest) { r.SendId = newSendID(time.Now().Add(at)) })); f.GetSendAck() == nil {
			s.Errorf("%s: %v", what, f)
		}
	}
}

// A send over the rate is refused; what follows it to that conversation is
// refused too, until it comes again with resume_order.
func specResumeOrder(s *spec) {
	n := serve(s.T, nobodyExempt)
	b := s.in(s.dialTo(n), "ben", registering("ben"))
	c := s.in(s.dialTo(n), "cem", registering("cem"))
	a := s.in(s.dialTo(n), "ann", registering("ann"))
	for range 3 { // until the rate is used up
		var fs []*proto.Frame
		for range 60 {
			fs = append(fs, ack(0))
		}
		a.send(fs...)
	}
	first, second := message(b.dev.user, "first"), message(b.dev.user, "second")
	s.asks("over the rate", a, again(first), proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
	time.Sleep(time.Second) // retry_after
	s.asks("one that would overtake", a, again(second), proto.ErrorCode_ERROR_CODE_BUSY)
	if f := a.ask(message(c.dev.user, "elsewhere")); f.GetSendAck() == nil {
		s.Errorf("another conversation: %v", f)
	}
	second.GetSend().Content.Kind = 0
	s.asks("what is wrong for good", a, again(second), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	second.GetSend().Content.Kind = proto.ContentKind_CONTENT_KIND_TEXT
	first.GetSend().ResumeOrder = true
	for i, f := range []*proto.Frame{first, second} {
		if got := a.ask(again(f)).GetSendAck(); got.GetConvSeq() != uint64(i+1) {
			s.Errorf("sent again: %v, want conv_seq %d", got, i+1)
		}
	}
}

func specProfiles(s *spec) {
	a, b := s.person(), s.person()
	lookup := func(name string) *proto.Frame {
		return a.ask(&proto.Frame{Body: &proto.Frame_LookupUser{LookupUser: &proto.LookupUser{Name: name}}})
	}
	if ps := lookup(strings.ToUpper(b.name)).GetProfiles_().GetProfiles(); len(ps) != 1 || ps[0].UserId != b.dev.user || ps[0].DisplayName != b.name {
		s.Errorf("look up: %v", ps)
	}
	s.wants("nobody", lookup("nobody."+b.name), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	s.wants("no name at all", lookup("?"), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	ids := []int64{b.dev.user, 1 << 60, -1, a.dev.user, b.dev.user}
	ps := a.ask(&proto.Frame{Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: ids}}}).GetProfiles_().GetProfiles()
	if len(ps) != 2 || ps[0].UserId != b.dev.user || ps[1].UserId != a.dev.user {
		s.Errorf("profiles of %v: %v", ids, ps)
	}
	update := func(name, url string) *proto.Frame {
		return &proto.Frame{Body: &proto.Frame_UpdateProfile{UpdateProfile: &proto.UpdateProfile{DisplayName: name, AvatarUrl: url}}}
	}
	for what, f := range map[string]*proto.Frame{
		"a name of 65":         update(strings.Repeat("x", 65), ""),
		"a name of two lines":  update("x\ny", ""),
		"an address of 513":    update("", "https://a/"+strings.Repeat("x", 503)),
		"an address of a file": update("", "file:///etc/passwd"),
		"one with a password":  update("", "https://me:secret@example.com/"),
	} {
		s.asks(what, a, f, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	}
	if got := a.ask(update("Ann", "https://example.com/a")).GetProfiles_().GetProfiles(); len(got) != 1 || got[0].DisplayName != "Ann" {
		s.Errorf("update: %v", got)
	}
	if e := s.event(a); e.GetProfile().GetAvatarUrl() != "https://example.com/a" {
		s.Errorf("the event of it: %v", e)
	}
	if got := a.ask(update("", "")).GetProfiles_().GetProfiles(); len(got) != 1 || got[0].DisplayName != a.name {
		s.Errorf("an empty display name: %v", got)
	}
}

// As many profiles as may be asked for, all as large as may be.
func specManyProfiles(s *spec) {
	a := s.person()
	var ids, got []int64
	for range 100 {
		p := s.person()
		p.ask(&proto.Frame{Body: &proto.Frame_UpdateProfile{UpdateProfile: &proto.UpdateProfile{
			DisplayName: strings.Repeat("😀", 64), AvatarUrl: "https://a/" + strings.Repeat("x", 502)}}})
		_ = p.Close()
		ids = append(ids, p.dev.user)
	}
	for rest := ids; len(rest) > 0; {
		page := a.ask(&proto.Frame{Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: rest}}}).GetProfiles_()
		if len(page.GetProfiles()) == 0 || page.More != (len(page.Profiles) < len(rest)) {
			s.Fatalf("%d profiles of %d, more %v", len(page.GetProfiles()), len(rest), page.GetMore())
		}
		for _, p := range page.Profiles {
			got = append(got, p.UserId)
		}
		rest = rest[len(page.Profiles):]
	}
	if !slices.Equal(got, ids) {
		s.Errorf("%d profiles of %d, or not in the order asked for", len(got), len(ids))
	}
}

func specBlocking(s *spec) {
	a, b := s.person(), s.person()
	s.asks("oneself", b, blocking(b.dev.user), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	s.asks("nobody", b, blocking(1<<60), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	s.asks("no user", b, blocking(0), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	s.does("block", b, blocking(a.dev.user))
	if e := s.event(b); !e.GetBlock().GetBlocked() || e.GetBlock().GetUserId() != a.dev.user {
		s.Errorf("the event of it: %v", e)
	}
	s.does("block again", b, blocking(a.dev.user))
	s.asks("from the blocked one", a, message(b.dev.user, "x"), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	a.send(typing(b.dev.user, true))
	s.quiet(b.wire, func(f *proto.Frame) bool { return f.GetHint() == nil && f.GetEvents() == nil })
	if f := b.ask(message(a.dev.user, "x")); f.GetSendAck() == nil {
		s.Errorf("to the blocked one: %v", f)
	}
	s.does("unblock", b, unblocking(a.dev.user))
	s.does("unblock again", b, unblocking(a.dev.user))
	s.does("unblock nobody", b, unblocking(1<<60))
	if f := a.ask(message(b.dev.user, "x")); f.GetSendAck() == nil {
		s.Errorf("after it: %v", f)
	}
}
