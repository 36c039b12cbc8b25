package pebble

import (
	"encoding/binary"
	"errors"
	"fmt"
)

// Values begin with a version byte of their own (rowVersion), then fixed fields,
// then uvarints, then at most one run of free bytes to the end or with a length.
// Written by hand: a generic encoder costs more than the rest of a commit.
const rowVersion = 1

// ErrCorrupt: a row cannot be decoded. The error around it names the table and
// the key. Nothing is repaired automatically: restore, or run a scrub.
var ErrCorrupt = errors.New("pebble: corrupt row")

var (
	errShort   = errors.New("cut short")
	errVersion = errors.New("unknown row version")
	errTrail   = errors.New("trailing bytes")
	errRange   = errors.New("value out of range")
	errKey     = errors.New("malformed key")
)

func corrupt(key []byte, cause error) error {
	name := "unknown"
	if len(key) >= prefixLen {
		name = table(key[1]).String()
	}
	return fmt.Errorf("%w: table %s, key %x: %w", ErrCorrupt, name, key, cause)
}

// reader takes a row apart. The first error sticks; later reads return zeros.
type reader struct {
	b   []byte
	err error
}

func newReader(b []byte) reader {
	r := reader{b: b}
	if v := r.byte(); r.err == nil && v != rowVersion {
		r.err = errVersion
	}
	return r
}

func (r *reader) take(n int) []byte {
	if r.err != nil {
		return nil
	}
	if n > len(r.b) {
		r.err = errShort
		return nil
	}
	p := r.b[:n]
	r.b = r.b[n:]
	return p
}

func (r *reader) byte() byte {
	if p := r.take(1); p != nil {
		return p[0]
	}
	return 0
}

// flags reads a byte of which only the bits of mask have a meaning.
func (r *reader) flags(mask byte) byte {
	v := r.byte()
	if v&^mask != 0 && r.err == nil {
		r.err = errRange
	}
	return v
}

func (r *reader) uint64() uint64 {
	if p := r.take(8); p != nil {
		return binary.BigEndian.Uint64(p)
	}
	return 0
}

func (r *reader) uint32() uint32 {
	if p := r.take(4); p != nil {
		return binary.BigEndian.Uint32(p)
	}
	return 0
}

func (r *reader) uvarint() uint64 {
	if r.err != nil {
		return 0
	}
	v, n := binary.Uvarint(r.b)
	if n <= 0 {
		r.err = errShort
		return 0
	}
	r.b = r.b[n:]
	return v
}

func (r *reader) array16() (a [16]byte) {
	copy(a[:], r.take(16))
	return a
}

func (r *reader) array32() (a [32]byte) {
	copy(a[:], r.take(32))
	return a
}

// bytes returns a copy of a run with a length in front; nil if it is empty.
func (r *reader) bytes() []byte {
	n := r.uvarint()
	if r.err == nil && n > uint64(len(r.b)) {
		r.err = errShort
	}
	if r.err != nil || n == 0 {
		return nil
	}
	return append([]byte(nil), r.take(int(n))...)
}

// rest returns what is left, not copied.
func (r *reader) rest() []byte {
	p := r.b
	r.b = nil
	return p
}

// end reports the row's error, naming key.
func (r *reader) end(key []byte) error {
	if r.err == nil && len(r.b) > 0 {
		r.err = errTrail
	}
	if r.err != nil {
		return corrupt(key, r.err)
	}
	return nil
}

func row(dst []byte) []byte { return append(dst[:0], rowVersion) }

func appendUvarint(dst []byte, v uint64) []byte { return binary.AppendUvarint(dst, v) }

func appendBytes(dst, p []byte) []byte {
	return append(binary.AppendUvarint(dst, uint64(len(p))), p...)
}
