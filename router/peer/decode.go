package peer

import (
	"errors"
	"fmt"
	"math"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hermod-im/hermod/router"
)

// inbox collects what frames bring, in order, for one call of the Receiver. Its
// bytes are those of the frames.
type inbox struct {
	router.Arrived
	kicks []kick
	gone  []router.Place

	elements int // of the frame
}

// maxElements is how many recipients, places, hints and kicks a frame may hold.
// Two bytes make one, so the length alone bounds nothing.
const maxElements = 16384

func (in *inbox) reset() {
	// The bytes are a buffer that lives anyway: nothing to clear.
	in.Deliveries, in.Hints, in.Places = in.Deliveries[:0], in.Hints[:0], in.Places[:0]
	in.kicks, in.gone = in.kicks[:0], in.gone[:0]
}

// count takes one more element.
func (in *inbox) count() error {
	if in.elements++; in.elements > maxElements {
		return errTooMany
	}
	return nil
}

var (
	errBadFrame = errors.New("peer: a frame is no protobuf message, or one with groups")
	errTooMany  = fmt.Errorf("peer: a frame holds more than %d things", maxElements)
)

// decode reads the payload of a frame. Unknown fields are passed over; so are
// hello and refusal, which are read where they are expected. It allocates only
// where in grows. After an error nothing of the frame is in it.
func (in *inbox) decode(payload []byte) error {
	before := *in
	in.elements = 0
	err := in.fields(payload)
	if err != nil {
		*in = before
	}
	return err
}

func (in *inbox) fields(payload []byte) error {
	return eachField(payload, func(num protowire.Number, typ protowire.Type, _ uint64, b []byte) error {
		if typ != protowire.BytesType {
			return nil
		}
		if err := in.count(); err != nil {
			return err
		}
		var err error
		switch num {
		case framePush:
			err = in.push(b)
		case frameHint:
			err = in.hint(b)
		case frameKick:
			err = in.kick(b)
		case frameNotHere:
			var at router.Place
			at, err = readPlace(b)
			in.gone = append(in.gone, at)
		}
		return err
	})
}

// push reads an event and its recipients. The order of fields is free, so what
// all share is filled in at the end.
func (in *inbox) push(b []byte) error {
	var event []byte
	from := len(in.Deliveries)
	err := eachField(b, func(num protowire.Number, typ protowire.Type, _ uint64, b []byte) error {
		switch {
		case num == pushEvent && typ == protowire.BytesType:
			event = b
		case num == pushTo && typ == protowire.BytesType:
			if err := in.count(); err != nil {
				return err
			}
			return in.recipient(b)
		}
		return nil
	})
	for i := from; i < len(in.Deliveries); i++ {
		in.Deliveries[i].Event = event
	}
	return err
}

func (in *inbox) recipient(b []byte) error {
	var d router.Delivery
	from := len(in.Places)
	err := eachField(b, func(num protowire.Number, typ protowire.Type, v uint64, b []byte) error {
		switch {
		case num == recipientUser && typ == protowire.Fixed64Type:
			d.User = int64(v)
		case num == recipientSeq && typ == protowire.VarintType:
			d.Seq = v
		case num == recipientAt && typ == protowire.BytesType:
			if err := in.count(); err != nil {
				return err
			}
			at, err := readPlace(b)
			in.Places = append(in.Places, at)
			return err
		}
		return nil
	})
	for i := from; i < len(in.Places); i++ {
		in.Places[i].User = d.User
	}
	in.Deliveries = append(in.Deliveries, d)
	return err
}

func (in *inbox) hint(b []byte) error {
	var h router.Hint
	err := eachField(b, func(num protowire.Number, typ protowire.Type, v uint64, b []byte) error {
		switch {
		case num == hintUser && typ == protowire.Fixed64Type:
			h.User = int64(v)
		case num == hintFrame && typ == protowire.BytesType:
			h.Frame = b
		}
		return nil
	})
	in.Hints = append(in.Hints, h)
	return err
}

func (in *inbox) kick(b []byte) error {
	// The first fields of a kick are those of a place.
	at, err := readPlace(b)
	if err != nil {
		return err
	}
	k := kick{at: at}
	err = eachField(b, func(num protowire.Number, typ protowire.Type, v uint64, _ []byte) error {
		if num == kickNewLogin && typ == protowire.VarintType {
			k.newLogin = protowire.DecodeBool(v)
		}
		return nil
	})
	in.kicks = append(in.kicks, k)
	return err
}

func readPlace(b []byte) (at router.Place, err error) {
	err = eachField(b, func(num protowire.Number, typ protowire.Type, v uint64, _ []byte) error {
		switch {
		case num == placeUser && typ == protowire.Fixed64Type:
			at.User = int64(v)
		case num == placeSlot && typ == protowire.VarintType:
			at.Slot = router.Slot(min(uint32(v), math.MaxUint8))
		case num == placeConn && typ == protowire.Fixed64Type:
			at.Conn = v
		}
		return nil
	})
	return at, err
}

// eachField calls f for the fields of a message: v is the value of a number, b
// of bytes. Groups are refused, as everywhere in Hermod.
func eachField(msg []byte, f func(num protowire.Number, typ protowire.Type, v uint64, b []byte) error) error {
	for len(msg) > 0 {
		num, typ, n := protowire.ConsumeTag(msg)
		if n < 0 {
			return errBadFrame
		}
		msg = msg[n:]
		var v uint64
		var b []byte
		switch typ {
		case protowire.VarintType:
			v, n = protowire.ConsumeVarint(msg)
		case protowire.Fixed64Type:
			v, n = protowire.ConsumeFixed64(msg)
		case protowire.BytesType:
			b, n = protowire.ConsumeBytes(msg)
		case protowire.Fixed32Type:
			_, n = protowire.ConsumeFixed32(msg)
		default:
			return errBadFrame
		}
		if n < 0 {
			return errBadFrame
		}
		if err := f(num, typ, v, b); err != nil {
			return err
		}
		msg = msg[n:]
	}
	return nil
}
