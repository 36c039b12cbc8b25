package proto

import (
	"bytes"
	"encoding/binary"
	"errors"
	"strings"
	"testing"

	gproto "google.golang.org/protobuf/proto"
)

// stream is every vector behind the other, with heartbeats in between, and the
// payloads that must come out.
func stream(t testing.TB) (buf []byte, payloads [][]byte) {
	t.Helper()
	for _, v := range load[frameVector](t, "frames.json") {
		framed := unhex(t, v.Hex)
		buf = append(AppendHeartbeat(buf), framed...)
		payloads = append(payloads, nil, framed[HeaderLen:])
	}
	return buf, payloads
}

// drain calls Next on what has arrived until it wants more, as a reader does.
func drain(t testing.TB, buf []byte, max int, got [][]byte) (rest []byte, _ [][]byte, err error) {
	t.Helper()
	for {
		payload, n, err := Next(buf, max)
		if err != nil || n == 0 {
			if payload != nil || n != 0 {
				t.Fatalf("payload %d bytes, n %d with %v", len(payload), n, err)
			}
			return buf, got, err
		}
		if n != HeaderLen+len(payload) || len(payload) > max || cap(payload) != len(payload) {
			t.Fatalf("n %d, payload %d of cap %d, max %d", n, len(payload), cap(payload), max)
		}
		got = append(got, append([]byte(nil), payload...))
		buf = buf[n:]
	}
}

func TestNextOverEverySplit(t *testing.T) {
	all, want := stream(t)
	for _, chunk := range []int{1, 2, 3, 4, 5, 7, 64, 1000, len(all)} {
		var pending []byte
		var got [][]byte
		for rest := all; len(rest) > 0; {
			k := min(chunk, len(rest))
			pending = append(pending, rest[:k]...)
			rest = rest[k:]
			var err error
			if pending, got, err = drain(t, pending, MaxFrameSession, got); err != nil {
				t.Fatal(err)
			}
		}
		if len(pending) != 0 || len(got) != len(want) {
			t.Fatalf("chunks of %d: %d frames and %d bytes left, want %d frames", chunk, len(got), len(pending), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("chunks of %d: frame %d differs", chunk, i)
			}
		}
	}
}

func TestNextCaps(t *testing.T) {
	for _, max := range []int{MaxFrameHello, MaxFrameSession, MaxFramePeer} {
		whole := binary.BigEndian.AppendUint32(nil, uint32(max))
		whole = append(whole, make([]byte, max)...)
		if payload, n, err := Next(whole, max); err != nil || n != len(whole) || len(payload) != max {
			t.Errorf("exactly %d: n %d, %v", max, n, err)
		}
		_, _, err := Next(binary.BigEndian.AppendUint32(nil, uint32(max+1)), max)
		var large *FrameError
		if !errors.As(err, &large) || large.Size != max+1 || large.Max != max {
			t.Errorf("one over %d: %v", max, err)
		}
	}
}

func TestNextDoesNotAllocate(t *testing.T) {
	all, want := stream(t)
	allocs := testing.AllocsPerRun(100, func() {
		frames := 0
		for buf := all; len(buf) > 0; frames++ {
			_, n, err := Next(buf, MaxFrameSession)
			if err != nil || n == 0 {
				t.Fatal(n, err)
			}
			buf = buf[n:]
		}
		if frames != len(want) {
			t.Fatal(frames)
		}
	})
	if allocs != 0 {
		t.Errorf("%v allocations", allocs)
	}
}

func TestEncodingDoesNotAllocate(t *testing.T) {
	f := sampleSend()
	event := encodeVector(t, f)
	buf, body := make([]byte, 0, 1024), make([]byte, 0, 1024)
	for name, fn := range map[string]func(){
		"AppendFrame":       func() { _, _ = AppendFrame(buf, f) },
		"AppendHeartbeat":   func() { _ = AppendHeartbeat(buf) },
		"AppendEventSeq":    func() { _ = AppendEventSeq(body, 1<<40, event) },
		"AppendEventsFrame": func() { _ = AppendEventsFrame(buf, event) },
		"checkShape":        func() { _ = checkShape(event[HeaderLen:]) },
	} {
		if n := testing.AllocsPerRun(100, fn); n != 0 {
			t.Errorf("%s: %v allocations", name, n)
		}
	}
}

func TestAppendFrame(t *testing.T) {
	before := []byte("before")
	out, err := AppendFrame(before, &Frame{Id: 1, Body: &Frame_Ok{Ok: &Ok{}}})
	if err != nil || string(out) != "before\x00\x00\x00\x04\x08\x01\x52\x00" {
		t.Errorf("%q, %v", out, err)
	}
	for name, f := range map[string]*Frame{
		"nil":       nil,
		"no body":   {Id: 9},
		"not UTF-8": {Id: 9, Body: &Frame_LookupUser{LookupUser: &LookupUser{Name: "\xff"}}},
		"too large": {Id: 9, Body: &Frame_Error{Error: &Error{Message: strings.Repeat("x", MaxFramePeer)}}},
	} {
		if out, err := AppendFrame(before, f); err == nil || string(out) != "before" {
			t.Errorf("%s: %d bytes, %v; want an error and dst as it was", name, len(out), err)
		}
	}
}

// A decoded frame is the reader's: its buffer may be used again.
func TestDecodeKeepsNothingOfThePayload(t *testing.T) {
	want := sampleSend()
	payload := encodeVector(t, want)[HeaderLen:]
	got := Frame{Id: 5, Body: &Frame_Welcome{Welcome: &Welcome{UserId: 3}}}
	if err := Decode(payload, &got); err != nil {
		t.Fatal(err)
	}
	clear(payload)
	if !gproto.Equal(&got, want) {
		t.Errorf("got %v", &got)
	}
}

// What a frame may cost in memory is bounded before it is decoded.
func TestTooManyMessagesCostNothing(t *testing.T) {
	var body []byte
	for len(body) < MaxFrameSession-16 {
		body = AppendEventSeq(body, 0, nil)
	}
	payload := AppendEventsFrame(nil, body)[HeaderLen:]
	var f Frame
	err := Decode(payload, &f)
	if !errors.Is(err, errTooMany) || CodeOf(err) != ErrorCode_ERROR_CODE_BAD_FRAME {
		t.Fatalf("%d empty events: %v", len(body)/2, err)
	}
	if n := testing.AllocsPerRun(20, func() { _ = Decode(payload, &f) }); n > 2 {
		t.Errorf("%v allocations to refuse it", n)
	}
	// As many as any answer of ours has: 200 conversations with their last message.
	full := &Conversations{}
	for range 200 {
		full.Conversations = append(full.Conversations, &Conversation{
			Conversation: make([]byte, 16), PeerId: 1 << 60,
			Last: &Event{Conversation: make([]byte, 16), Body: &Event_Message{Message: &Message{SendId: make([]byte, 16), Content: &Content{}}}},
		})
	}
	framed := encodeVector(t, &Frame{Id: 1, Body: &Frame_Conversations{Conversations: full}})
	if err := Decode(framed[HeaderLen:], &f); err != nil {
		t.Errorf("a full page: %v", err)
	}
}
