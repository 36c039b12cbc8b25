package proto

import (
	"bytes"
	"math"
	"testing"

	gproto "google.golang.org/protobuf/proto"
)

// What the hand-written appenders make is what the generated code reads, and
// byte for byte what it would have written.
func TestAppendEvents(t *testing.T) {
	seqs := []uint64{0, 1, 127, 128, 1<<14 - 1, 1 << 14, 1 << 35, math.MaxUint64}
	for _, size := range []int{0, 1, 100, 127, 128, 16383, 16384, 30000} {
		event := &Event{Conversation: make([]byte, 16), Rev: 5, ConvSeq: 4, TimeUs: 1_800_000_000_000_000, ActorId: 77,
			Body: &Event_Message{Message: &Message{Content: &Content{Kind: 1, Body: bytes.Repeat([]byte{'x'}, size)}}}}
		shared, err := gproto.Marshal(event)
		if err != nil {
			t.Fatal(err)
		}
		for _, seq := range seqs {
			event.Seq = seq
			batch := &EventBatch{Events: []*Event{event, event}}
			want, err := AppendFrame(nil, &Frame{Body: &Frame_Events{Events: batch}})
			if err != nil {
				t.Fatal(err)
			}
			one := AppendEventSeq(nil, seq, shared)
			if len(one) != EventSize(seq, len(shared)) {
				t.Errorf("EventSize(%d, %d) = %d, appended %d", seq, len(shared), EventSize(seq, len(shared)), len(one))
			}
			body := AppendEventSeq(one, seq, shared)
			got := AppendEventsFrame([]byte("before"), body)
			if !bytes.Equal(got, append([]byte("before"), want...)) {
				t.Errorf("size %d, seq %d: the bytes differ", size, seq)
			}
			if extra := len(got) - len("before") - len(body); extra > EventsOverhead {
				t.Errorf("a body of %d bytes got %d more, over EventsOverhead", len(body), extra)
			}
		}
	}
}
