package bench

import (
	"bytes"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

func TestAppendSendIsWhatTheGeneratedCodeReads(t *testing.T) {
	for _, size := range []int{minContentSize, 100, 127, 128, 300, maxContentSize} {
		for _, resume := range []bool{false, true} {
			body := appendContent(nil, stamp{Counter: 5}, size)
			id := sendID(time.Now(), 9, 5)
			framed := appendSend(nil, 1<<21, 1<<62+5, id, resume, body)
			payload, n, err := proto.Next(framed, proto.MaxFrameSession)
			if err != nil || n != len(framed) {
				t.Fatalf("size %d: n %d of %d, %v", size, n, len(framed), err)
			}
			var f proto.Frame
			if err := proto.Decode(payload, &f); err != nil {
				t.Fatal(err)
			}
			want := &proto.Frame{Id: 1 << 21, Body: &proto.Frame_Send{Send: &proto.SendRequest{
				Target: &proto.SendRequest_ToUserId{ToUserId: 1<<62 + 5}, SendId: id[:], ResumeOrder: resume,
				Content: &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: body},
			}}}
			if !gproto.Equal(&f, want) {
				t.Fatalf("size %d: got %v", size, &f)
			}
		}
	}
}

func TestAppendDeliveryAck(t *testing.T) {
	for _, seq := range []uint64{1, 127, 128, 1 << 40, 1<<64 - 1} {
		payload, n, err := proto.Next(appendDeliveryAck(nil, seq), proto.MaxFrameSession)
		if err != nil || n == 0 {
			t.Fatal(n, err)
		}
		var f proto.Frame
		if err := proto.Decode(payload, &f); err != nil || f.GetId() != 0 || f.GetDeliveryAck().GetSeq() != seq {
			t.Fatalf("seq %d: %v %v", seq, &f, err)
		}
	}
}

func sampleFrames() []*proto.Frame {
	message := &proto.Event{
		Seq: 7, Conversation: bytes.Repeat([]byte{3}, 16), Rev: 300, ConvSeq: 299, TimeUs: 1_800_000_000_000_000, ActorId: 1 << 60,
		Body: &proto.Event_Message{Message: &proto.Message{
			SendId: bytes.Repeat([]byte{1}, 16), ToUserId: 5,
			Content: &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: []byte("hello")},
		}},
	}
	own := gproto.CloneOf(message)
	own.GetMessage().Content = nil
	return []*proto.Frame{
		{Id: 9, Body: &proto.Frame_SendAck{SendAck: &proto.SendAck{
			Conversation: message.Conversation, Rev: 4, ConvSeq: 3, TimeUs: 99, Durability: proto.Durability_DURABILITY_DISK,
		}}},
		{Body: &proto.Frame_Events{Events: &proto.EventBatch{Events: []*proto.Event{message, own, {
			Seq: 8, ActorId: 3, Body: &proto.Event_Security{Security: &proto.SecurityNotice{Kind: proto.SecurityKind_SECURITY_KIND_NEW_DEVICE}},
		}}}}},
		{Id: 3, Body: &proto.Frame_Error{Error: &proto.Error{Code: proto.ErrorCode_ERROR_CODE_BUSY, Retryable: true}}},
		{Body: &proto.Frame_CaughtUp{CaughtUp: &proto.CaughtUp{Seq: 8}}},
	}
}

// FuzzViews holds the hand-written reading to that of the generated code, for
// what the generated code accepts; on the rest it must only not crash.
func FuzzViews(f *testing.F) {
	for _, fr := range sampleFrames() {
		framed, err := proto.AppendFrame(nil, fr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(framed[proto.HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, payload []byte) {
		v, err := viewFrame(payload)
		var want proto.Frame
		// A canonical encoding: protobuf merges repeated submessages, which no
		// server sends and the views do not imitate.
		if proto.Decode(payload, &want) != nil {
			return
		}
		if again, mErr := (gproto.MarshalOptions{Deterministic: true}).Marshal(&want); mErr != nil || !bytes.Equal(again, payload) {
			return
		}
		if err != nil {
			t.Fatalf("valid frame refused: %v", &want)
		}
		if v.id != want.GetId() {
			t.Fatalf("id %d, want %d", v.id, want.GetId())
		}
		if a := want.GetSendAck(); a != nil {
			got, err := viewAck(v.body)
			if err != nil || v.field != fieldSendAck || got.rev != a.GetRev() || got.convSeq != a.GetConvSeq() || got.durability != a.GetDurability() || !bytes.Equal(got.conv, a.GetConversation()) {
				t.Fatalf("got %+v %v, want %v", got, err, a)
			}
		}
		if b := want.GetEvents(); b != nil {
			compareEvents(t, v, b.GetEvents())
		}
	})
}

func compareEvents(t *testing.T, v frameView, want []*proto.Event) {
	rec := &recordingSink{}
	s := &session{sink: rec}
	if err := s.events(0, v.body); err != nil {
		t.Fatalf("valid events refused: %v", err)
	}
	if len(rec.events) != len(want) {
		t.Fatalf("%d events, want %d", len(rec.events), len(want))
	}
	for i, ev := range want {
		a, b := rec.events[i], viewOf(ev)
		if a.seq != b.seq || a.rev != b.rev || a.convSeq != b.convSeq || a.actor != b.actor || a.message != b.message || a.hasContent != b.hasContent ||
			!bytes.Equal(a.conv, b.conv) || !bytes.Equal(a.sendID, b.sendID) || !bytes.Equal(a.content, b.content) {
			t.Fatalf("event %d: got %+v, want %+v", i, a, b)
		}
	}
}

// recordingSink keeps events.
type recordingSink struct {
	idleUser
	events []eventView
}

func (r *recordingSink) event(_ time.Duration, e eventView) bool {
	r.events = append(r.events, e)
	return true
}

func TestHotPathAllocations(t *testing.T) {
	frames := sampleFrames()
	events, err := proto.AppendFrame(nil, frames[1])
	if err != nil {
		t.Fatal(err)
	}
	ack, err := proto.AppendFrame(nil, frames[0])
	if err != nil {
		t.Fatal(err)
	}
	s := &session{sink: new(idleUser)}
	if n := testing.AllocsPerRun(100, func() {
		for _, framed := range [][]byte{events, ack} {
			if err := s.frame(0, framed[proto.HeaderLen:]); err != nil {
				t.Fatal(err)
			}
		}
	}); n != 0 {
		t.Errorf("reading events and an ack: %v allocations", n)
	}
	out, body := make([]byte, 0, 4096), make([]byte, 0, 4096)
	if n := testing.AllocsPerRun(100, func() {
		body = appendContent(body[:0], stamp{Counter: 3}, 128)
		out = appendSend(out[:0], 5, 6, sendID(time.Time{}, 1, 3), false, body)
		out = appendDeliveryAck(out, 9)
	}); n != 0 {
		t.Errorf("writing a send: %v allocations", n)
	}
}
