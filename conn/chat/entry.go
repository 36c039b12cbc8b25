package chat

import (
	"fmt"

	"google.golang.org/protobuf/encoding/protowire"
	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

// The kinds of entries. They are stored: never renumber. An entry's Body is the
// serialized protobuf message named here, so that the wire's Event is made by
// putting a tag and a length in front of it; nothing is parsed on the way.
const (
	kindMessage  uint16 = 1 // proto.Content
	kindRead     uint16 = 2 // proto.ReadMark
	kindBlock    uint16 = 3 // proto.BlockMark
	kindSecurity uint16 = 4 // proto.SecurityNotice
	kindProfile  uint16 = 5 // proto.Profile
)

// Fields of Event, Message and Content that are written by hand here. A test
// compares with the generated code.
const (
	eventConversation = 2
	eventRev          = 3
	eventConvSeq      = 4
	eventTime         = 5
	eventActor        = 6
	eventMessage      = 8
	messageSendID     = 1
	messageContent    = 2
	messageToUser     = 3
	contentKind       = 1
	contentBody       = 2
)

// eventField is the field of Event.body that a kind's Body goes into; 0 for a
// kind of a later version, whose body is left out.
func eventField(kind uint16) protowire.Number {
	switch kind {
	case kindMessage:
		return eventMessage
	case kindRead:
		return 9
	case kindBlock:
		return 10
	case kindSecurity:
		return eventSecurity
	case kindProfile:
		return 12
	}
	return 0
}

// entryBody serializes the body of an entry that is no message.
func entryBody(m gproto.Message) ([]byte, error) {
	b, err := gproto.MarshalOptions{Deterministic: true}.Marshal(m)
	if err != nil {
		return nil, fmt.Errorf("chat: entry body: %w", err)
	}
	return b, nil
}

// contentBody serializes a Content. Equal contents give equal bytes, which is
// what CONFLICT is decided by.
func appendContent(dst []byte, kind int32, body []byte) []byte {
	dst = protowire.AppendTag(dst, contentKind, protowire.VarintType)
	dst = protowire.AppendVarint(dst, uint64(kind))
	dst = protowire.AppendTag(dst, contentBody, protowire.BytesType)
	return protowire.AppendBytes(dst, body)
}

func contentSize(kind int32, body []byte) int {
	return 1 + protowire.SizeVarint(uint64(kind)) + 1 + protowire.SizeBytes(len(body))
}

// appendEvent appends the Event of e without its seq. bare leaves a message's
// content out: for the connection that sent it.
func appendEvent(dst []byte, e *storage.Entry, bare bool) []byte {
	dst = protowire.AppendTag(dst, eventConversation, protowire.BytesType)
	dst = protowire.AppendBytes(dst, e.Conv[:])
	dst = appendUint(dst, eventRev, e.Rev)
	dst = appendUint(dst, eventConvSeq, e.ConvSeq)
	dst = appendUint(dst, eventTime, uint64(e.Time))
	dst = appendUint(dst, eventActor, uint64(e.Sender))
	field := eventField(e.Kind)
	switch {
	case field == 0:
		return dst
	case e.Kind != kindMessage:
		dst = protowire.AppendTag(dst, field, protowire.BytesType)
		return protowire.AppendBytes(dst, e.Body)
	}
	to := uint64(e.Conv.Peer(e.Sender))
	size := 1 + protowire.SizeVarint(to)
	withID := e.SendID != [16]byte{}
	if withID {
		size += 1 + 1 + len(e.SendID)
	}
	if !bare {
		size += 1 + protowire.SizeBytes(len(e.Body))
	}
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(size))
	if withID {
		dst = protowire.AppendTag(dst, messageSendID, protowire.BytesType)
		dst = protowire.AppendBytes(dst, e.SendID[:])
	}
	if !bare {
		dst = protowire.AppendTag(dst, messageContent, protowire.BytesType)
		dst = protowire.AppendBytes(dst, e.Body)
	}
	return appendUint(dst, messageToUser, to)
}

func appendUint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	dst = protowire.AppendTag(dst, field, protowire.VarintType)
	return protowire.AppendVarint(dst, v)
}

// eventOverhead is more than appendEvent adds to a body.
const eventOverhead = 112

// eventOf is the Event of e as a message, for answers.
func eventOf(e *storage.Entry, seq uint64) (*proto.Event, error) {
	ev := new(proto.Event)
	if err := gproto.Unmarshal(appendEvent(make([]byte, 0, len(e.Body)+eventOverhead), e, false), ev); err != nil {
		return nil, fmt.Errorf("chat: entry %v/%d cannot be read: %w", e.Conv, e.Rev, err)
	}
	ev.Seq = seq
	return ev, nil
}

// markOf is what the acknowledgement of an entry by user means.
func markOf(e *storage.Entry, user storage.UserID) mark {
	if e.Kind != kindMessage || e.Sender == user {
		return mark{}
	}
	return mark{e.Conv, e.ConvSeq}
}

// markIn is markOf for an event that is encoded already. What it cannot read
// means no mark.
func markIn(event []byte, user storage.UserID) (m mark) {
	message := false
	for len(event) > 0 {
		num, typ, n := protowire.ConsumeTag(event)
		if n < 0 {
			return mark{}
		}
		event = event[n:]
		switch {
		case num == eventConversation && typ == protowire.BytesType:
			var b []byte
			if b, n = protowire.ConsumeBytes(event); n >= 0 && len(b) == len(m.conv) {
				copy(m.conv[:], b)
			}
		case num == eventConvSeq && typ == protowire.VarintType:
			m.convSeq, n = protowire.ConsumeVarint(event)
		case num == eventActor && typ == protowire.VarintType:
			var actor uint64
			if actor, n = protowire.ConsumeVarint(event); storage.UserID(actor) == user {
				return mark{}
			}
		default:
			message = message || num == eventMessage
			n = protowire.ConsumeFieldValue(num, typ, event)
		}
		if n < 0 {
			return mark{}
		}
		event = event[n:]
	}
	if !message || m.conv == (storage.ConvKey{}) {
		return mark{}
	}
	return m
}

// AppendDeliveries turns what storage delivers into what the router carries.
// The deliveries of one entry, which are next to each other, share their bytes,
// and a batch costs one allocation.
func AppendDeliveries(dst []router.Delivery, ds []storage.Delivery) []router.Delivery {
	size := 0
	for i := range ds {
		if !sameEntry(ds, i) {
			size += len(ds[i].Entry.Body) + 2*eventOverhead
		}
	}
	slab := make([]byte, 0, size)
	var event, bare []byte
	for i := range ds {
		d := &ds[i]
		if !sameEntry(ds, i) {
			slab, event = carve(slab, &d.Entry, false)
			bare = nil
			if d.Origin != 0 && d.Entry.Kind == kindMessage {
				slab, bare = carve(slab, &d.Entry, true)
			}
		}
		dst = append(dst, router.Delivery{
			User: int64(d.User), Seq: d.Seq, Origin: d.Origin, Event: event, OriginEvent: bare,
		})
	}
	return dst
}

func carve(slab []byte, e *storage.Entry, bare bool) (rest, event []byte) {
	start := len(slab)
	slab = appendEvent(slab, e, bare)
	return slab, slab[start:len(slab):len(slab)]
}

func sameEntry(ds []storage.Delivery, i int) bool {
	return i > 0 && ds[i].Entry.Rev == ds[i-1].Entry.Rev && ds[i].Origin == ds[i-1].Origin && ds[i].Entry.Conv == ds[i-1].Entry.Conv
}
