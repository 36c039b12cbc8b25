package proto

import (
	"errors"
	"fmt"
	"sync"

	"google.golang.org/protobuf/encoding/protowire"
	"google.golang.org/protobuf/reflect/protoreflect"
)

// Decoding turns two bytes of an empty submessage into some 150 bytes of heap,
// so 64 KiB of them would cost 5 MB. checkShape walks a payload before it is
// decoded, without allocating, and refuses one that holds more messages than
// its length can excuse. It also refuses groups, the one construct that nests
// in fields we do not know; no message of ours has ever had one. (A recursion
// limit alone does not see those: the runtime skips unknown groups with a
// limit of its own, 10,000 deep.)

// MaxMessages is how many submessages, and strings or bytes in lists, one frame
// may hold: this many, and no more than 64 plus one for every 8 bytes.
const MaxMessages = 2048

const (
	messagesFree    = 64
	bytesPerMessage = 8
)

var (
	errGroup     = errors.New("groups are not used")
	errTooDeep   = fmt.Errorf("nested deeper than %d", maxNesting)
	errTooMany   = errors.New("too many submessages for its length")
	errMalformed = errors.New("malformed protobuf")
)

// shape is what checkShape knows of a message type: by field number, whether
// the field costs, and what is inside.
type shape struct {
	fields []fieldShape
}

type fieldShape struct {
	costs bool
	sub   *shape // nil for what is no message
}

// frameShape is computed from the descriptors once, on first use, and then
// only read.
var frameShape = sync.OnceValue(func() *shape {
	known := map[protoreflect.FullName]*shape{}
	return shapeOf((*Frame)(nil).ProtoReflect().Descriptor(), known)
})

func shapeOf(md protoreflect.MessageDescriptor, known map[protoreflect.FullName]*shape) *shape {
	if s, ok := known[md.FullName()]; ok {
		return s
	}
	s := &shape{}
	known[md.FullName()] = s
	for i := range md.Fields().Len() {
		fd := md.Fields().Get(i)
		var f fieldShape
		switch fd.Kind() {
		case protoreflect.MessageKind:
			f = fieldShape{costs: true, sub: shapeOf(fd.Message(), known)}
		case protoreflect.BytesKind, protoreflect.StringKind:
			f.costs = fd.IsList()
		}
		for len(s.fields) <= int(fd.Number()) {
			s.fields = append(s.fields, fieldShape{})
		}
		s.fields[fd.Number()] = f
	}
	return s
}

func checkShape(payload []byte) error {
	left := min(MaxMessages, messagesFree+len(payload)/bytesPerMessage)
	return frameShape().check(payload, maxNesting, &left)
}

func (s *shape) check(b []byte, depth int, left *int) error {
	if depth == 0 {
		return errTooDeep
	}
	for len(b) > 0 {
		num, typ, n := protowire.ConsumeTag(b)
		if n < 0 {
			return errMalformed
		}
		b = b[n:]
		switch typ {
		case protowire.StartGroupType, protowire.EndGroupType:
			return errGroup
		case protowire.BytesType:
			v, n := protowire.ConsumeBytes(b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
			if int(num) >= len(s.fields) {
				continue
			}
			f := &s.fields[num]
			if !f.costs {
				continue
			}
			if *left--; *left < 0 {
				return errTooMany
			}
			if f.sub != nil {
				if err := f.sub.check(v, depth-1, left); err != nil {
					return err
				}
			}
		default:
			n := protowire.ConsumeFieldValue(num, typ, b)
			if n < 0 {
				return errMalformed
			}
			b = b[n:]
		}
	}
	return nil
}
