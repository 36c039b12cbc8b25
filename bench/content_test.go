package bench

import (
	"bytes"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func TestContentRoundTrip(t *testing.T) {
	for _, size := range []int{minContentSize, 41, 47, 48, 128, 1000, maxContentSize} {
		want := stamp{Run: 0xfeedfacecafebeef, Pair: 77, From: 1, Counter: 1<<40 - 1, Intended: 123456789}
		body := appendContent([]byte("before"), want, size)[6:]
		if len(body) != size {
			t.Fatalf("size %d: got %d bytes", size, len(body))
		}
		got, ok := readContent(body)
		if !ok || got != want {
			t.Fatalf("size %d: got %+v %v", size, got, ok)
		}
	}
}

func TestContentDamageIsSeen(t *testing.T) {
	body := appendContent(nil, stamp{Run: 1, Counter: 2}, 64)
	for i := range body {
		bad := bytes.Clone(body)
		bad[i] ^= 0x10
		if _, ok := readContent(bad); ok {
			t.Fatalf("byte %d changed, not noticed", i)
		}
	}
	for n := range body {
		if _, ok := readContent(body[:n]); ok {
			t.Fatalf("cut to %d bytes, not noticed", n)
		}
	}
}

func TestSendIDNamesItsMessage(t *testing.T) {
	made := time.UnixMilli(1_800_000_000_123)
	const run, other = 0x0123456789abcdef, 0x1123456789abcdef ^ 1<<20
	seen := make(map[[16]byte]bool)
	for _, counter := range []uint64{1, 2, 1000, 1<<sendIDCounterBits - 1} {
		id := sendID(made, run, counter)
		if at, ok := proto.SendIDTime(id); !ok || !at.Equal(made) {
			t.Fatalf("counter %d: not a UUIDv7 of that time: %x", counter, id)
		}
		if got, ok := sendIDCounter(id[:], run); !ok || got != counter {
			t.Fatalf("counter %d: read back %d %v", counter, got, ok)
		}
		if _, ok := sendIDCounter(id[:], other); ok {
			t.Fatal("taken for another run's")
		}
		if seen[id] {
			t.Fatal("twice the same id")
		}
		seen[id] = true
	}
	if _, ok := sendIDCounter([]byte("short"), run); ok {
		t.Fatal("took five bytes for an id")
	}
}

func FuzzReadContent(f *testing.F) {
	f.Add(appendContent(nil, stamp{Run: 1, Counter: 2}, 64))
	f.Add([]byte{})
	f.Fuzz(func(t *testing.T, body []byte) {
		s, ok := readContent(body)
		if !ok {
			return
		}
		// What reads as ours is ours, up to the filler: the header comes out again.
		if again := appendContent(nil, s, len(body)); !bytes.Equal(again[:17], body[:17]) || !bytes.Equal(again[20:contentHeader], body[20:contentHeader]) {
			t.Fatalf("%+v does not write the header it was read from", s)
		}
	})
}
