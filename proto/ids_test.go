package proto

import (
	"testing"
	"time"

	"github.com/google/uuid"
)

func TestSendID(t *testing.T) {
	seen := map[[16]byte]bool{}
	for _, ms := range []int64{0, 1, 1_800_000_000_123, 1<<48 - 1} {
		want := time.UnixMilli(ms)
		for range 100 {
			id := NewSendID(want.Add(999 * time.Microsecond))
			if seen[id] {
				t.Fatal("the same id twice")
			}
			seen[id] = true
			// Read by somebody else's code.
			if u := uuid.UUID(id); u.Version() != 7 || u.Variant() != uuid.RFC4122 {
				t.Fatalf("%v is no UUIDv7", u)
			}
			if got, ok := SendIDTime(id); !ok || !got.Equal(want) {
				t.Fatalf("made at %v, ok %v, want %v", got, ok, want)
			}
		}
	}
	theirs, err := uuid.NewV7()
	if err != nil {
		t.Fatal(err)
	}
	if made, ok := SendIDTime(theirs); !ok || time.Since(made).Abs() > time.Minute {
		t.Errorf("%v: made at %v, ok %v", theirs, made, ok)
	}
	for _, id := range [][16]byte{{}, uuid.New(), uuid.Max} {
		if made, ok := SendIDTime(id); ok {
			t.Errorf("%v passes for a UUIDv7 of %v", uuid.UUID(id), made)
		}
	}
}

func TestDeviceSlotValid(t *testing.T) {
	for n := range DeviceSlot_name {
		if got := DeviceSlot(n).Valid(); got != (n != 0) {
			t.Errorf("%v: valid %v", DeviceSlot(n), got)
		}
	}
	for _, n := range []DeviceSlot{-1, 7, 100} {
		if n.Valid() {
			t.Errorf("%d is valid", n)
		}
	}
}
