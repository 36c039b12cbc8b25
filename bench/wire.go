package bench

import (
	"encoding/binary"
	"errors"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hermod-im/hermod/proto"
)

// The three frames that come once a message are written and read by hand: the
// generated code allocates a dozen objects for them, and the tool shares its
// processors with the server that it measures. A fuzzer holds both to the same
// results.

// Field numbers of frame.proto and chat.proto.
const (
	fieldFrameID     = 1
	fieldSend        = 2
	fieldSendAck     = 3
	fieldEvents      = 4
	fieldDeliveryAck = 5
)

// appendSend appends a framed SendRequest to dst, which must hold nothing that
// is still needed behind its length.
func appendSend(dst []byte, id uint64, to int64, sendID [16]byte, resumeOrder bool, body []byte) []byte {
	content := 2 + 1 + protowire.SizeBytes(len(body))
	size := 1 + protowire.SizeVarint(uint64(to)) + 1 + protowire.SizeBytes(16) + 1 + protowire.SizeBytes(content)
	if resumeOrder {
		size += 2
	}
	frame := 1 + protowire.SizeVarint(id) + 1 + protowire.SizeBytes(size)
	dst = binary.BigEndian.AppendUint32(dst, uint32(frame))
	dst = protowire.AppendVarint(append(dst, fieldFrameID<<3), id)
	dst = protowire.AppendVarint(append(dst, fieldSend<<3|2), uint64(size))
	dst = protowire.AppendVarint(append(dst, 1<<3), uint64(to))
	dst = append(append(dst, 3<<3|2, 16), sendID[:]...)
	dst = protowire.AppendVarint(append(dst, 4<<3|2), uint64(content))
	dst = append(dst, 1<<3, byte(proto.ContentKind_CONTENT_KIND_CUSTOM))
	dst = protowire.AppendBytes(append(dst, 2<<3|2), body)
	if resumeOrder {
		dst = append(dst, 5<<3, 1)
	}
	return dst
}

// appendDeliveryAck appends a framed DeliveryAck.
func appendDeliveryAck(dst []byte, seq uint64) []byte {
	n := 1 + protowire.SizeVarint(seq)
	dst = binary.BigEndian.AppendUint32(dst, uint32(2+n))
	dst = append(dst, fieldDeliveryAck<<3|2, byte(n))
	return protowire.AppendVarint(append(dst, 1<<3), seq)
}

// frameView is a payload split into its id and its body, not yet decoded.
type frameView struct {
	id    uint64
	field protowire.Number
	body  []byte
}

var errWire = errors.New("bench: the server sent bytes that are no frame")

// viewFrame splits a payload. The last body field counts, as in protobuf.
func viewFrame(payload []byte) (v frameView, err error) {
	err = eachField(payload, func(num protowire.Number, val uint64, b []byte) {
		switch {
		case num == fieldFrameID && b == nil:
			v.id = val
		case b != nil:
			v.field, v.body = num, b
		}
	})
	return v, err
}

// ackView is a SendAck. conv is a part of the read buffer.
type ackView struct {
	conv         []byte
	rev, convSeq uint64
	durability   proto.Durability
}

func viewAck(body []byte) (a ackView, err error) {
	err = eachField(body, func(num protowire.Number, val uint64, b []byte) {
		switch num {
		case 1:
			a.conv = b
		case 2:
			a.rev = val
		case 3:
			a.convSeq = val
		case 5:
			a.durability = proto.Durability(val)
		}
	})
	return a, err
}

// eventView is an Event as far as the tool looks at it. Slices are parts of
// the read buffer.
type eventView struct {
	conv                []byte
	seq, rev, convSeq   uint64
	actor               int64
	message, hasContent bool
	sendID, content     []byte
}

func viewEvent(body []byte) (e eventView, err error) {
	var message []byte
	err = eachField(body, func(num protowire.Number, val uint64, b []byte) {
		switch num {
		case 1:
			e.seq = val
		case 2:
			e.conv = b
		case 3:
			e.rev = val
		case 4:
			e.convSeq = val
		case 6:
			e.actor = int64(val)
		case 8:
			message, e.message = b, true
		}
	})
	if err != nil || !e.message {
		return e, err
	}
	var content []byte
	err = eachField(message, func(num protowire.Number, _ uint64, b []byte) {
		switch num {
		case 1:
			e.sendID = b
		case 2:
			content, e.hasContent = b, true
		}
	})
	if err != nil || !e.hasContent {
		return e, err
	}
	err = eachField(content, func(num protowire.Number, _ uint64, b []byte) {
		if num == 2 {
			e.content = b
		}
	})
	return e, err
}

// viewOf is the eventView of a decoded Event.
func viewOf(ev *proto.Event) eventView {
	e := eventView{
		conv: ev.GetConversation(), seq: ev.GetSeq(), rev: ev.GetRev(),
		convSeq: ev.GetConvSeq(), actor: ev.GetActorId(),
	}
	if m := ev.GetMessage(); m != nil {
		e.message, e.sendID = true, m.GetSendId()
		if c := m.GetContent(); c != nil {
			e.hasContent, e.content = true, c.GetBody()
		}
	}
	return e
}

// eachField calls fn for every field of a message: with b nil for numbers, and
// b not nil for bytes.
func eachField(msg []byte, fn func(num protowire.Number, val uint64, b []byte)) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return errWire
		}
		msg = msg[n:]
		switch typ {
		case protowire.VarintType:
			v, n := protowire.ConsumeVarint(msg)
			if n < 0 {
				return errWire
			}
			fn(num, v, nil)
			msg = msg[n:]
		case protowire.BytesType:
			b, n := protowire.ConsumeBytes(msg)
			if n < 0 {
				return errWire
			}
			if b == nil {
				b = []byte{}
			}
			fn(num, 0, b)
			msg = msg[n:]
		default:
			n := protowire.ConsumeFieldValue(num, typ, msg)
			if n < 0 {
				return errWire
			}
			msg = msg[n:]
		}
	}
	return nil
}
