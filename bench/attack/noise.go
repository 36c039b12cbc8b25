package attack

import (
	"bytes"
	"fmt"
	"math/rand/v2"
	"time"

	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/hermod-im/hermod/proto"
)

// attackNoise sends frames of every kind with bytes changed, before the login
// and after it. The bytes are the same in every run.
func attackNoise(s *scene) string {
	s.own(Wish{Settings: []string{"HERMOD_LIMITS_FRAMES_PER_SECOND=100000"}})
	const people, conns, each = 8, 40, 15
	s.all(people, func(i int) {
		rng := rand.New(rand.NewPCG(4, uint64(i)))
		seeds := s.samples(rng)
		var who *wire
		for range conns {
			w := s.dial()
			if i%2 == 0 {
				// A frame may have logged the last one out, or worse.
				if who != nil {
					w.dev = who.dev
				}
				if who == nil || w.enter(byToken(who.token)).GetWelcome() == nil {
					w = s.person()
				} else {
					w.token = who.token
				}
				who = w
			}
			var b []byte
			for range each {
				b = append(b, mangle(rng, seeds[rng.IntN(len(seeds))])...)
			}
			_, _ = w.Write(b)
			_ = w.shut(20 * time.Millisecond)
			_ = w.Close()
		}
	})
	s.person().lives("after the noise")
	for _, name := range []string{"hermod_conn_panics_total", "hermod_chat_panics_total"} {
		if n := s.metric(name); n > 0 {
			s.breach("%s is %v", name, n)
		}
	}
	return fmt.Sprintf("%d changed frames of all %d kinds on %d connections, no panic", people*conns*each, bodies().Len(), people*conns)
}

// mangle changes a payload in up to three places and frames it.
func mangle(rng *rand.Rand, payload []byte) []byte {
	b := bytes.Clone(payload)
	for range rng.IntN(4) {
		at := rng.IntN(len(b))
		switch rng.IntN(4) {
		case 0:
			b[at] ^= 1 << rng.IntN(8)
		case 1:
			b[at] = byte(rng.Uint32())
		case 2:
			b = append(b[:at:at], append([]byte{byte(rng.Uint32())}, b[at:]...)...)
		case 3:
			b = append(b, b[at:]...)
		}
	}
	return append(header(len(b)), b...)
}

// bodies are the kinds of frames.
func bodies() protoreflect.FieldDescriptors {
	return new(proto.Frame).ProtoReflect().Descriptor().Oneofs().ByName("body").Fields()
}

// samples makes a payload of every kind, with something in every field.
func (s *scene) samples(rng *rand.Rand) (out [][]byte) {
	for i := range bodies().Len() {
		f := &proto.Frame{Id: uint64(1 + rng.IntN(100))}
		m := f.ProtoReflect()
		fd := bodies().Get(i)
		fill(rng, m.Mutable(fd).Message())
		out = append(out, s.framed(f)[proto.HeaderLen:])
	}
	return out
}

// fill puts something into every field of m.
func fill(rng *rand.Rand, m protoreflect.Message) {
	fields := m.Descriptor().Fields()
	for i := range fields.Len() {
		fd := fields.Get(i)
		switch {
		case fd.IsList():
			l := m.Mutable(fd).List()
			if fd.Message() != nil {
				fill(rng, l.AppendMutable().Message())
			} else {
				l.Append(value(rng, fd))
			}
		case fd.Message() != nil:
			fill(rng, m.Mutable(fd).Message())
		default:
			m.Set(fd, value(rng, fd))
		}
	}
}

func value(rng *rand.Rand, fd protoreflect.FieldDescriptor) protoreflect.Value {
	n := rng.Uint64() >> rng.IntN(64)
	switch fd.Kind() {
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(n&1 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(n % 8))
	case protoreflect.StringKind:
		return protoreflect.ValueOfString("name" + fmt.Sprint(n%1000))
	case protoreflect.BytesKind:
		b := make([]byte, 16)
		for i := range b {
			b[i] = byte(rng.Uint32())
		}
		return protoreflect.ValueOfBytes(b)
	case protoreflect.DoubleKind:
		return protoreflect.ValueOfFloat64(float64(n))
	case protoreflect.Uint32Kind, protoreflect.Fixed32Kind:
		return protoreflect.ValueOfUint32(uint32(n))
	case protoreflect.Uint64Kind, protoreflect.Fixed64Kind:
		return protoreflect.ValueOfUint64(n)
	}
	return protoreflect.ValueOfInt64(int64(n))
}
