package client

import (
	"bytes"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func TestSendIDsRise(t *testing.T) {
	var m idMaker
	now := time.Now()
	var last SendID
	seen := map[SendID]bool{}
	for i := range 100_000 {
		switch { // the clock stands, runs, and jumps back
		case i%5000 == 0:
			now = now.Add(-time.Hour)
		case i%7 == 0:
			now = now.Add(time.Millisecond)
		}
		id := m.next(now)
		made, ok := proto.SendIDTime(id)
		if !ok || bytes.Compare(id[:], last[:]) <= 0 || seen[id] {
			t.Fatalf("%d: %v after %v", i, id, last)
		}
		if i < 5000 && made.Sub(now).Abs() > time.Minute {
			t.Fatalf("made at %v, now is %v", made, now)
		}
		seen[id], last = true, id
	}
}

func TestSendIDText(t *testing.T) {
	var m idMaker
	id := m.next(time.Now())
	back, err := ParseSendID(id.String())
	if err != nil || back != id {
		t.Fatal(back, err)
	}
	for _, bad := range []string{"", id.String()[1:], "zz" + id.String()[2:], "00000000-0000-4000-8000-000000000000"} {
		if _, err := ParseSendID(bad); err == nil {
			t.Errorf("%q was accepted", bad)
		}
	}
}
