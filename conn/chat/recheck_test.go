package chat

import (
	"testing"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// A notice is told from every other event, and from half of one.
func TestIsNotice(t *testing.T) {
	self := storage.SelfKey(7)
	for _, kind := range []uint16{kindMessage, kindRead, kindBlock, kindSecurity, kindProfile, 99} {
		body, err := entryBody(&proto.SecurityNotice{Kind: proto.SecurityKind_SECURITY_KIND_DEVICE_REVOKED})
		if err != nil {
			t.Fatal(err)
		}
		if kind == kindMessage {
			body = appendContent(nil, 1, []byte{eventSecurity<<3 | 2, 0}) // looks like one inside
		}
		event := appendEvent(nil, &storage.Entry{Conv: self, Rev: 3, ConvSeq: 2, Time: 5, Sender: 7, Kind: kind, Body: body}, false)
		if got := isNotice(event); got != (kind == kindSecurity) {
			t.Errorf("kind %d: %v", kind, got)
		}
		for n := range event {
			_ = isNotice(event[:n])
		}
		if n := testing.AllocsPerRun(10, func() { isNotice(event) }); n != 0 {
			t.Errorf("%v allocations", n)
		}
	}
	if isNotice(nil) || isNotice([]byte{0xff}) {
		t.Error("nothing is a notice")
	}
}
