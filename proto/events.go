package proto

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"
)

// Field numbers and tags that AppendEventSeq and AppendEventsFrame write by
// hand; a test compares both with what the generated code writes.
const (
	tagBatchEvents = 1<<3 | byte(protowire.BytesType)  // EventBatch.events
	tagEventSeq    = 1<<3 | byte(protowire.VarintType) // Event.seq
	tagFrameEvents = 4<<3 | byte(protowire.BytesType)  // Frame.events
)

// AppendEventSeq appends to dst one element of EventBatch.events: the Event
// whose encoding without seq is event, with that seq put in front. Protobuf
// messages concatenate, so an event is encoded once for all its recipients.
// Elements one after the other are the body for AppendEventsFrame.
func AppendEventSeq(dst []byte, seq uint64, event []byte) []byte {
	size := len(event)
	if seq > 0 {
		size += 1 + protowire.SizeVarint(seq)
	}
	dst = append(dst, tagBatchEvents)
	dst = protowire.AppendVarint(dst, uint64(size))
	if seq > 0 {
		dst = append(dst, tagEventSeq)
		dst = protowire.AppendVarint(dst, seq)
	}
	return append(dst, event...)
}

// EventSize is the number of bytes that AppendEventSeq appends for an event of
// eventLen bytes.
func EventSize(seq uint64, eventLen int) int {
	size := eventLen
	if seq > 0 {
		size += 1 + protowire.SizeVarint(seq)
	}
	return 1 + protowire.SizeVarint(uint64(size)) + size
}

// AppendEventsFrame appends to dst the framed Frame{events} whose EventBatch
// is encoded in body. The caller keeps body under the cap: a frame has
// EventsOverhead bytes more, at most.
func AppendEventsFrame(dst, body []byte) []byte {
	size := 1 + protowire.SizeVarint(uint64(len(body))) + len(body)
	dst = binary.BigEndian.AppendUint32(dst, uint32(size))
	dst = append(dst, tagFrameEvents)
	dst = protowire.AppendVarint(dst, uint64(len(body)))
	return append(dst, body...)
}

// EventsOverhead is the most that AppendEventsFrame adds to a body of up to
// MaxFramePeer bytes, header included.
const EventsOverhead = HeaderLen + 1 + 3
