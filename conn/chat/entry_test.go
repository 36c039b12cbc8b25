package chat

import (
	"bytes"
	"testing"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

// The hand-written encoding says the same as the generated code.
func TestAppendEvent(t *testing.T) {
	alice, bob := storage.UserIDIn(1, 11), storage.UserIDIn(4000, 12)
	conv, self := storage.PairKey(alice, bob), storage.SelfKey(alice)
	id := [16]byte{1, 2, 3}
	body := func(m gproto.Message) []byte {
		b, err := entryBody(m)
		if err != nil {
			t.Fatal(err)
		}
		return b
	}
	content := &proto.Content{Kind: 300, Body: bytes.Repeat([]byte("x"), 300)}
	read := &proto.ReadMark{Conversation: conv[:], ConvSeq: 9}
	block := &proto.BlockMark{UserId: int64(bob), Blocked: true}
	security := &proto.SecurityNotice{Kind: proto.SecurityKind_SECURITY_KIND_NEW_DEVICE, Device: &proto.DeviceInfo{Model: "m"}}
	profile := &proto.Profile{UserId: int64(alice), DisplayName: "A"}
	entry := func(k storage.ConvKey, kind uint16, body []byte) *storage.Entry {
		return &storage.Entry{Conv: k, Rev: 5, ConvSeq: 4, Time: 1 << 50, Sender: alice, Kind: kind, Body: body}
	}
	event := func(k storage.ConvKey) *proto.Event {
		return &proto.Event{Seq: 77, Conversation: k[:], Rev: 5, ConvSeq: 4, TimeUs: 1 << 50, ActorId: int64(alice)}
	}
	message := entry(conv, kindMessage, appendContent(nil, int32(content.Kind), content.Body))
	message.SendID = id
	for _, tt := range []struct {
		name string
		e    *storage.Entry
		bare bool
		set  func(*proto.Event)
	}{
		{"message", message, false, func(ev *proto.Event) {
			ev.Body = &proto.Event_Message{Message: &proto.Message{SendId: id[:], Content: content, ToUserId: int64(bob)}}
		}},
		{"message for its sender", message, true, func(ev *proto.Event) {
			ev.Body = &proto.Event_Message{Message: &proto.Message{SendId: id[:], ToUserId: int64(bob)}}
		}},
		{"read", entry(self, kindRead, body(read)), false, func(ev *proto.Event) { ev.Body = &proto.Event_Read{Read: read} }},
		{"block", entry(self, kindBlock, body(block)), false, func(ev *proto.Event) { ev.Body = &proto.Event_Block{Block: block} }},
		{"security", entry(self, kindSecurity, body(security)), true, func(ev *proto.Event) { ev.Body = &proto.Event_Security{Security: security} }},
		{"profile", entry(self, kindProfile, body(profile)), false, func(ev *proto.Event) { ev.Body = &proto.Event_Profile{Profile: profile} }},
		{"a later version's", entry(self, 99, []byte("?")), false, func(*proto.Event) {}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			want := event(tt.e.Conv)
			tt.set(want)
			raw := appendEvent(nil, tt.e, tt.bare)
			got := new(proto.EventBatch)
			if err := gproto.Unmarshal(proto.AppendEventSeq(nil, 77, raw), got); err != nil {
				t.Fatal(err)
			}
			if len(got.Events) != 1 || !gproto.Equal(got.Events[0], want) {
				t.Errorf("got %v\nwant %v", got.Events, want)
			}
			if grown := len(raw) - len(tt.e.Body); grown > eventOverhead {
				t.Errorf("%d bytes of overhead, eventOverhead is %d", grown, eventOverhead)
			}
			if !tt.bare {
				if ev, err := eventOf(tt.e, 77); err != nil || !gproto.Equal(ev, want) {
					t.Errorf("eventOf: %v, %v", ev, err)
				}
			}
			for _, user := range []storage.UserID{alice, bob} {
				if got, want := markIn(raw, user), markOf(tt.e, user); got != want {
					t.Errorf("mark for %d is %v in the event, %v in the entry", user, got, want)
				}
			}
		})
	}
	if m := markOf(message, bob); m != (mark{conv, 4}) {
		t.Errorf("the recipient's mark is %v", m)
	}
}

func TestContentMatchesGenerated(t *testing.T) {
	for _, c := range []*proto.Content{{Kind: 1, Body: []byte("x")}, {Kind: 1 << 30, Body: make([]byte, 200)}, {Kind: 5}} {
		b := appendContent(nil, int32(c.Kind), c.Body)
		got := new(proto.Content)
		if err := gproto.Unmarshal(b, got); err != nil || !gproto.Equal(got, c) {
			t.Errorf("%v came back as %v, %v", c, got, err)
		}
		if n := contentSize(int32(c.Kind), c.Body); n != len(b) {
			t.Errorf("contentSize is %d, it has %d bytes", n, len(b))
		}
	}
}

func TestDeliveriesOfAnEntryShareBytes(t *testing.T) {
	alice, bob := storage.UserIDIn(1, 11), storage.UserIDIn(4000, 12)
	e := storage.Entry{Conv: storage.PairKey(alice, bob), Rev: 1, ConvSeq: 1, Sender: alice, Kind: kindMessage, Body: appendContent(nil, 1, []byte("hi"))}
	next := e
	next.Rev, next.Body = 2, appendContent(nil, 1, []byte("ho"))
	ds := AppendDeliveries(nil, []storage.Delivery{
		{User: alice, Seq: 3, Entry: e, Origin: 9}, {User: bob, Seq: 8, Entry: e, Origin: 9}, {User: bob, Seq: 9, Entry: next},
	})
	if len(ds) != 3 || &ds[0].Event[0] != &ds[1].Event[0] {
		t.Error("two deliveries of one entry do not share its bytes")
	}
	for i, want := range [][]byte{appendEvent(nil, &e, false), appendEvent(nil, &e, false), appendEvent(nil, &next, false)} {
		if !bytes.Equal(ds[i].Event, want) {
			t.Errorf("delivery %d has event %x, want %x", i, ds[i].Event, want)
		}
	}
	if !bytes.Equal(ds[0].OriginEvent, appendEvent(nil, &e, true)) || ds[2].OriginEvent != nil {
		t.Error("the origin's event is wrong")
	}
	if ds[0].User != int64(alice) || ds[0].Seq != 3 || ds[0].Origin != 9 || ds[1].User != int64(bob) {
		t.Errorf("deliveries are %v", ds)
	}
	var _ []router.Delivery = ds
}

func FuzzMarkIn(f *testing.F) {
	alice, bob := storage.UserIDIn(1, 11), storage.UserIDIn(4000, 12)
	e := storage.Entry{Conv: storage.PairKey(alice, bob), Rev: 1, ConvSeq: 1, Sender: alice, Kind: kindMessage, Body: appendContent(nil, 1, []byte("hi"))}
	f.Add(appendEvent(nil, &e, false))
	f.Add(appendEvent(nil, &e, true))
	f.Add([]byte{0x12, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		m := markIn(b, bob)
		ev := new(proto.Event)
		if gproto.Unmarshal(b, ev) != nil {
			return
		}
		if m.convSeq != 0 && (m.convSeq != ev.ConvSeq || string(m.conv[:]) != string(ev.Conversation) && len(ev.Conversation) == 16) {
			t.Errorf("mark %v of event %v", m, ev)
		}
	})
}
