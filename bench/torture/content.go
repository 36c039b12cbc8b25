package torture

import (
	"encoding/binary"
	"hash/crc32"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

// A body says which message it is of, and whether it is whole:
//
//	magic 4 | run 8 | number 4 | from 8 | to 8 | filling | CRC-32C of all before 4
//
// Numbers are big-endian; from and to are user ids.
const (
	bodyMagic = 0x48544f52 // "HTOR"
	bodyLen   = 36
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// stamp is what a body says.
type stamp struct {
	run      uint64
	number   uint32
	from, to int64
}

// content makes a body of size bytes.
func (s stamp) content(size int) *proto.Content {
	b := make([]byte, 0, max(size, bodyLen))
	b = binary.BigEndian.AppendUint32(b, bodyMagic)
	b = binary.BigEndian.AppendUint64(b, s.run)
	b = binary.BigEndian.AppendUint32(b, s.number)
	b = binary.BigEndian.AppendUint64(b, uint64(s.from))
	b = binary.BigEndian.AppendUint64(b, uint64(s.to))
	for i := len(b); i < size-4; i++ {
		b = append(b, byte(s.number)+byte(i))
	}
	b = binary.BigEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
	return &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: b}
}

// readStamp reads a content; ok is false if it is none of ours, or damaged.
func readStamp(c *proto.Content) (s stamp, ok bool) {
	b := c.GetBody()
	if c.GetKind() != proto.ContentKind_CONTENT_KIND_CUSTOM || len(b) < bodyLen || binary.BigEndian.Uint32(b) != bodyMagic {
		return s, false
	}
	end := len(b) - 4
	if crc32.Checksum(b[:end], castagnoli) != binary.BigEndian.Uint32(b[end:]) {
		return s, false
	}
	return stamp{
		run: binary.BigEndian.Uint64(b[4:]), number: binary.BigEndian.Uint32(b[12:]),
		from: int64(binary.BigEndian.Uint64(b[16:])), to: int64(binary.BigEndian.Uint64(b[24:])),
	}, true
}

// readStored is readStamp for a body as stores have it: a serialized Content.
func readStored(body []byte) (stamp, bool) {
	var c proto.Content
	if gproto.Unmarshal(body, &c) != nil {
		return stamp{}, false
	}
	return readStamp(&c)
}
