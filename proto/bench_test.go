package proto

import (
	"testing"
	"time"
)

func sampleSend() *Frame {
	id := NewSendID(time.Unix(1_800_000_000, 0))
	return &Frame{Id: 7, Body: &Frame_Send{Send: &SendRequest{
		Target:  &SendRequest_ToUserId{ToUserId: 175358910490738689},
		SendId:  id[:],
		Content: &Content{Kind: ContentKind_CONTENT_KIND_TEXT, Body: []byte("\x0a\x20It is raining in Lisbon, of all ")},
	}}}
}

func BenchmarkNext(b *testing.B) {
	buf, err := AppendFrame(nil, sampleSend())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if _, n, err := Next(buf, MaxFrameSession); n != len(buf) || err != nil {
			b.Fatal(n, err)
		}
	}
}

func BenchmarkDecodeSend(b *testing.B) {
	buf, err := AppendFrame(nil, sampleSend())
	if err != nil {
		b.Fatal(err)
	}
	var f Frame
	b.ReportAllocs()
	for b.Loop() {
		if err := Decode(buf[HeaderLen:], &f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkCheckShape(b *testing.B) {
	buf, err := AppendFrame(nil, sampleSend())
	if err != nil {
		b.Fatal(err)
	}
	b.ReportAllocs()
	for b.Loop() {
		if err := checkShape(buf[HeaderLen:]); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendAck(b *testing.B) {
	f := &Frame{Id: 7, Body: &Frame_SendAck{SendAck: &SendAck{Conversation: make([]byte, 16), Rev: 12, ConvSeq: 11, TimeUs: 1_800_000_000_000_000, Durability: Durability_DURABILITY_DISK}}}
	buf := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := AppendFrame(buf, f); err != nil {
			b.Fatal(err)
		}
	}
}

func BenchmarkAppendEvent(b *testing.B) {
	event := make([]byte, 120)
	buf := make([]byte, 0, 512)
	body := make([]byte, 0, 256)
	b.ReportAllocs()
	for b.Loop() {
		body = AppendEventSeq(body[:0], 123456, event)
		_ = AppendEventsFrame(buf, body)
	}
}
