package proto

import (
	"bytes"
	"errors"
	"testing"

	gproto "google.golang.org/protobuf/proto"
)

// seeds gives every vector, good and bad, to add.
func seeds(f *testing.F, add func(framed []byte)) {
	for _, v := range load[frameVector](f, "frames.json") {
		add(unhex(f, v.Hex))
	}
	for _, v := range load[lenientVector](f, "lenient.json") {
		add(unhex(f, v.Hex))
	}
	for _, v := range load[badVector](f, "bad.json") {
		add(unhex(f, v.Hex))
	}
}

// The same bytes in any chunks give the same frames and the same end; nothing
// over the cap comes out, and no byte beyond what arrived is looked at.
func FuzzNext(f *testing.F) {
	all, _ := stream(f)
	f.Add(all, []byte{1, 2, 3}, uint16(0xffff))
	f.Add(all, []byte{250}, uint16(40))
	seeds(f, func(framed []byte) { f.Add(framed, []byte{3}, uint16(4096)) })
	f.Fuzz(func(t *testing.T, data, cuts []byte, max uint16) {
		rest, want, wantErr := drain(t, data, int(max), nil)
		total := 0
		for _, payload := range want {
			total += HeaderLen + len(payload)
		}
		if total+len(rest) != len(data) {
			t.Fatalf("%d of %d bytes are accounted for", total+len(rest), len(data))
		}

		var pending []byte
		var got [][]byte
		var err error
		for i, left := 0, data; len(left) > 0 && err == nil; i++ {
			k := 1
			if len(cuts) > 0 {
				k += int(cuts[i%len(cuts)])
			}
			k = min(k, len(left))
			// A slice of its own size: reading past what arrived would panic.
			pending = bytes.Clone(append(pending, left[:k]...))
			pending = pending[:len(pending):len(pending)]
			left = left[k:]
			pending, got, err = drain(t, pending, int(max), got)
		}
		if (err == nil) != (wantErr == nil) || CodeOf(err) != CodeOf(wantErr) {
			t.Fatalf("in chunks: %v, at once: %v", err, wantErr)
		}
		if len(got) != len(want) || (err == nil && !bytes.Equal(pending, rest)) {
			t.Fatalf("in chunks: %d frames, at once: %d", len(got), len(want))
		}
		for i := range want {
			if !bytes.Equal(got[i], want[i]) {
				t.Fatalf("frame %d differs", i)
			}
		}
	})
}

// No payload makes Decode panic, and what it accepts survives a round trip.
func FuzzDecode(f *testing.F) {
	seeds(f, func(framed []byte) {
		if len(framed) >= HeaderLen {
			f.Add(framed[HeaderLen:])
		}
	})
	f.Fuzz(func(t *testing.T, payload []byte) {
		var first, second Frame
		if err := Decode(payload, &first); err != nil {
			var bad *FrameError
			if !errors.As(err, &bad) || bad.Code != ErrorCode_ERROR_CODE_BAD_FRAME {
				t.Fatalf("not a BAD_FRAME: %v", err)
			}
			return
		}
		framed, err := AppendFrame(nil, &first)
		if err != nil {
			var large *FrameError
			if first.Body == nil || errors.As(err, &large) {
				return
			}
			t.Fatalf("decoded, and does not encode: %v", err)
		}
		again, n, err := Next(framed, MaxFramePeer)
		if err != nil || n != len(framed) {
			t.Fatalf("Next: n %d, %v", n, err)
		}
		if err := Decode(again, &second); err != nil {
			// Merging may have left fewer bytes for the same messages.
			if errors.Is(err, errTooMany) {
				return
			}
			t.Fatalf("encoded, and does not decode: %v", err)
		}
		if !gproto.Equal(&first, &second) {
			t.Fatalf("decoded %v, then %v", &first, &second)
		}
	})
}
