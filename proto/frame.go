package proto

import (
	"encoding/binary"
	"errors"
	"fmt"

	gproto "google.golang.org/protobuf/proto"
)

// The largest payloads, in bytes, by phase. They hold for each direction of a
// connection, except that a server may answer a Hello with MaxFrameSession.
const (
	// MaxFrameHello: from a client that has not been welcomed yet.
	MaxFrameHello = 4 << 10
	// MaxFrameSession: between a client and a server.
	MaxFrameSession = 64 << 10
	// MaxFramePeer: between two nodes.
	MaxFramePeer = 1 << 20
)

// HeaderLen is the size of the length in front of every payload.
const HeaderLen = 4

// maxNesting is how deep messages may nest. Today's deepest is 5.
const maxNesting = 16

// FrameError says that the bytes on a connection cannot be read as frames; the
// connection must be closed, since nothing behind them can be trusted.
type FrameError struct {
	// Code is FRAME_TOO_LARGE or BAD_FRAME.
	Code ErrorCode
	// Size is what the header announced and Max what was allowed; both 0 for
	// BAD_FRAME.
	Size, Max int
	// Cause is why a payload did not decode; nil for FRAME_TOO_LARGE.
	Cause error
}

func (e *FrameError) Error() string {
	if e.Code == ErrorCode_ERROR_CODE_FRAME_TOO_LARGE {
		return fmt.Sprintf("proto: frame of %d bytes, at most %d are allowed", e.Size, e.Max)
	}
	return fmt.Sprintf("proto: bad frame: %v", e.Cause)
}

func (e *FrameError) Unwrap() error { return e.Cause }

// Next finds the first whole frame in buf. It returns the payload, a part of
// buf, and the number of bytes that the frame takes with its header; n is 0
// (and payload nil) if more bytes are needed. A heartbeat is an empty payload
// with n == HeaderLen. A payload over max is a *FrameError as soon as its header is
// in buf. Next does not allocate unless it fails.
func Next(buf []byte, max int) (payload []byte, n int, err error) {
	if len(buf) < HeaderLen {
		return nil, 0, nil
	}
	size := binary.BigEndian.Uint32(buf)
	if uint64(size) > uint64(max) {
		return nil, 0, &FrameError{Code: ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, Size: int(size), Max: max}
	}
	n = HeaderLen + int(size)
	if len(buf) < n {
		return nil, 0, nil
	}
	return buf[HeaderLen:n:n], n, nil
}

// IsHeartbeat reports whether the payload of a whole frame is a heartbeat.
func IsHeartbeat(payload []byte) bool { return len(payload) == 0 }

// AppendHeartbeat appends a heartbeat, framed.
func AppendHeartbeat(dst []byte) []byte { return append(dst, 0, 0, 0, 0) }

var errNoBody = errors.New("proto: frame without a body")

// AppendFrame appends f, framed, to dst. It fails, with dst unchanged, for a
// frame without a body (nobody could read it), for text that is not UTF-8, and
// over MaxFramePeer. The caller answers for the smaller caps.
func AppendFrame(dst []byte, f *Frame) ([]byte, error) {
	if f.GetBody() == nil {
		return dst, errNoBody
	}
	start := len(dst)
	out, err := gproto.MarshalOptions{}.MarshalAppend(append(dst, 0, 0, 0, 0), f)
	if err != nil {
		return dst, fmt.Errorf("proto: encode: %w", err)
	}
	size := len(out) - start - HeaderLen
	if size > MaxFramePeer {
		return dst, &FrameError{Code: ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, Size: size, Max: MaxFramePeer}
	}
	binary.BigEndian.PutUint32(out[start:], uint32(size))
	return out, nil
}

// Decode reads a payload into f, whose former contents are dropped. f does not
// keep payload. Fields that this version does not know are skipped and not
// kept; if the body itself is unknown, f.Body is nil: answer UNKNOWN_REQUEST
// (or ignore it, where the id is 0). A payload that is no Frame is a
// *FrameError with BAD_FRAME; f is then empty. So is one with a group, with
// text that is not UTF-8, or with more submessages than MaxMessages allows:
// that is found before anything is allocated for it.
func Decode(payload []byte, f *Frame) error {
	err := checkShape(payload)
	if err == nil {
		opts := gproto.UnmarshalOptions{DiscardUnknown: true, RecursionLimit: maxNesting}
		err = opts.Unmarshal(payload, f)
	}
	if err != nil {
		f.Reset()
		return &FrameError{Code: ErrorCode_ERROR_CODE_BAD_FRAME, Cause: err}
	}
	return nil
}
