package peer

import (
	"encoding/binary"
	"io"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

// reader cuts a stream into frames. What next returned is overwritten by fill.
type reader struct {
	from io.Reader
	max  int
	buf  []byte
	r, w int
}

const readBuffer = 64 << 10

func newReader(from io.Reader) *reader {
	return &reader{from: from, max: proto.MaxFrameHello, buf: make([]byte, readBuffer)}
}

// next returns the next frame if the whole is there: ok, and an empty payload
// for a heartbeat. A frame over max is an error as soon as its header is there.
func (rd *reader) next() (payload []byte, ok bool, err error) {
	payload, n, err := proto.Next(rd.buf[rd.r:rd.w], rd.max)
	rd.r += n
	return payload, n > 0, err
}

// fill reads what there is, after next has said that it needs more. The buffer
// grows to the size of a frame, and next has seen that this is allowed.
func (rd *reader) fill() error {
	pending := rd.buf[rd.r:rd.w]
	need := proto.HeaderLen
	if len(pending) >= proto.HeaderLen {
		need += int(binary.BigEndian.Uint32(pending))
	}
	if need > len(rd.buf) {
		rd.buf = make([]byte, need)
	}
	rd.r, rd.w = 0, copy(rd.buf, pending)
	n, err := rd.from.Read(rd.buf[rd.w:])
	rd.w += n
	if n > 0 {
		return nil
	}
	return err
}

// first reads the first frame of a direction, with the generated code: it is
// small, and comes once.
func (rd *reader) first() (*proto.PeerFrame, error) {
	for {
		payload, ok, err := rd.next()
		if err != nil {
			return nil, err
		}
		if !ok {
			if err := rd.fill(); err != nil {
				return nil, err
			}
			continue
		}
		f := new(proto.PeerFrame)
		opts := gproto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: 4}
		if err := opts.Unmarshal(payload, f); err != nil {
			return nil, errBadFrame
		}
		rd.max = proto.MaxFramePeer
		return f, nil
	}
}

// appendFirst appends the first frame of a direction.
func appendFirst(dst []byte, f *proto.PeerFrame) ([]byte, error) {
	start := len(dst)
	dst, err := gproto.MarshalOptions{}.MarshalAppend(append(dst, 0, 0, 0, 0), f)
	if err != nil {
		return nil, err
	}
	binary.BigEndian.PutUint32(dst[start:], uint32(len(dst)-start-proto.HeaderLen))
	return dst, nil
}
