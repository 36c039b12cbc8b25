package peer

import (
	"encoding/binary"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
)

// What travels once a delivery is written and read by hand: the generated code
// would allocate a message for each. Tests compare both. These are the numbers
// of peer.proto.
const (
	framePush, frameHint, frameKick, frameNotHere = 1, 2, 3, 4

	pushEvent, pushTo                          = 1, 2
	recipientUser, recipientSeq, recipientAt   = 1, 2, 3
	placeUser, placeSlot, placeConn            = 1, 2, 3
	hintUser, hintFrame                        = 1, 2
	kickUser, kickSlot, kickConn, kickNewLogin = 1, 2, 3, 4
)

// frameTarget is when a new frame is begun: what receives it has to wait for
// the whole, and nothing is gained beyond.
const frameTarget = 64 << 10

// frames is an output of whole frames. The last one grows while it waits: all
// that repeats does so at the top of the message, so that only the length in
// front changes.
type frames struct {
	buf []byte
	// open is where the header of the growing frame is; below 0: nowhere.
	open int
	// items is how many events and hints are in buf.
	items int
}

func newFrames() frames { return frames{open: -1} }

// losses is what was not taken, by reason.
type losses struct {
	full, large, down int
}

// begin writes the tag and length of an element of body bytes, which the caller
// appends, into the growing frame or a new one.
func (f *frames) begin(field protowire.Number, body int) {
	size := 1 + protowire.SizeBytes(body)
	if f.open < 0 || len(f.buf)-f.open-proto.HeaderLen+size > frameTarget {
		f.open = len(f.buf)
		f.buf = append(f.buf, 0, 0, 0, 0)
	}
	binary.BigEndian.PutUint32(f.buf[f.open:], uint32(len(f.buf)-f.open-proto.HeaderLen+size))
	f.buf = protowire.AppendTag(f.buf, field, protowire.BytesType)
	f.buf = protowire.AppendVarint(f.buf, uint64(body))
}

// elementMax is more than begin adds to an element.
const elementMax = proto.HeaderLen + 1 + 5

// heartbeat appends one; the frame before it is closed.
func (f *frames) heartbeat() {
	f.buf = proto.AppendHeartbeat(f.buf)
	f.open = -1
}

// maxSpare is the largest buffer that is kept for the next time.
const maxSpare = 1 << 20

// take hands what is there over, and goes on in spare.
func (f *frames) take(spare []byte) []byte {
	out := f.buf
	if cap(spare) > maxSpare {
		spare = nil
	}
	f.buf, f.open, f.items = spare[:0], -1, 0
	return out
}

// forward appends a batch that goes to a run. Neighbours with one event share
// it. What would make the output longer than limit, or does not fit into a frame
// at all, is left out; so are hints, unless they can go at once.
func (f *frames) forward(to router.Run, batch []router.Forwarded, limit int, up bool) (lost losses) {
	for len(batch) > 0 {
		first := &batch[0]
		n, body := 1, 0
		if first.Hint {
			body = sizeFixed(uint64(first.User)) + sizeBytes(len(first.Event))
		} else {
			n, body = sameEvent(to, batch)
		}
		switch {
		case first.Hint && !up:
			lost.down++
		case body+elementMax > proto.MaxFramePeer:
			lost.large += n
		case len(f.buf)+body+elementMax > limit:
			lost.full += n
		case first.Hint:
			f.hint(first, body)
		default:
			f.push(to, batch[:n], body)
		}
		batch = batch[n:]
	}
	return lost
}

// sameEvent returns how many of a batch go into one PeerPush, and its size.
func sameEvent(to router.Run, batch []router.Forwarded) (n, size int) {
	size = sizeBytes(len(batch[0].Event))
	for i := range batch {
		if i > 0 && (batch[i].Hint || !sameBytes(batch[i].Event, batch[0].Event)) {
			break
		}
		more := 1 + protowire.SizeBytes(recipientSize(to, &batch[i]))
		if i > 0 && size+more > frameTarget {
			break
		}
		n, size = n+1, size+more
	}
	return n, size
}

// sameBytes reports whether a and b are the same memory.
func sameBytes(a, b []byte) bool {
	return len(a) == len(b) && (len(a) == 0 || &a[0] == &b[0])
}

func (f *frames) push(to router.Run, batch []router.Forwarded, body int) {
	f.begin(framePush, body)
	f.items += len(batch)
	f.buf = appendBytes(f.buf, pushEvent, batch[0].Event)
	for i := range batch {
		d := &batch[i]
		f.buf = protowire.AppendTag(f.buf, pushTo, protowire.BytesType)
		f.buf = protowire.AppendVarint(f.buf, uint64(recipientSize(to, d)))
		f.buf = appendFixed(f.buf, recipientUser, uint64(d.User))
		f.buf = appendVarint(f.buf, recipientSeq, d.Seq)
		for k := range d.Routes {
			if r := &d.Routes[k]; r.Run() == to {
				f.buf = appendPlace(f.buf, recipientAt, router.Place{Slot: r.Slot, Conn: r.Conn})
			}
		}
	}
}

func recipientSize(to router.Run, d *router.Forwarded) int {
	size := sizeFixed(uint64(d.User)) + sizeVarint(d.Seq)
	for k := range d.Routes {
		if r := &d.Routes[k]; r.Run() == to {
			size += 1 + protowire.SizeBytes(placeSize(router.Place{Slot: r.Slot, Conn: r.Conn}))
		}
	}
	return size
}

func (f *frames) hint(h *router.Forwarded, body int) {
	f.begin(frameHint, body)
	f.buf = appendFixed(f.buf, hintUser, uint64(h.User))
	f.buf = appendBytes(f.buf, hintFrame, h.Event)
	f.items++
}

// kick is a connection that has to go, told until it is known to have arrived.
type kick struct {
	at       router.Place
	newLogin bool
}

func (f *frames) kick(k kick) {
	newLogin := protowire.EncodeBool(k.newLogin)
	f.begin(frameKick, placeSize(k.at)+sizeVarint(newLogin))
	f.buf = appendFixed(f.buf, kickUser, uint64(k.at.User))
	f.buf = appendVarint(f.buf, kickSlot, uint64(k.at.Slot))
	f.buf = appendFixed(f.buf, kickConn, k.at.Conn)
	f.buf = appendVarint(f.buf, kickNewLogin, newLogin)
}

func (f *frames) notHere(gone []router.Place) {
	for _, at := range gone {
		f.begin(frameNotHere, placeSize(at))
		f.buf = appendPlaceBody(f.buf, at)
	}
}

func placeSize(at router.Place) int {
	return sizeFixed(uint64(at.User)) + sizeVarint(uint64(at.Slot)) + sizeFixed(at.Conn)
}

func appendPlace(dst []byte, field protowire.Number, at router.Place) []byte {
	dst = protowire.AppendTag(dst, field, protowire.BytesType)
	dst = protowire.AppendVarint(dst, uint64(placeSize(at)))
	return appendPlaceBody(dst, at)
}

func appendPlaceBody(dst []byte, at router.Place) []byte {
	dst = appendFixed(dst, placeUser, uint64(at.User))
	dst = appendVarint(dst, placeSlot, uint64(at.Slot))
	return appendFixed(dst, placeConn, at.Conn)
}

// Like all of proto3, fields that are zero are not written. Tags take a byte.

func sizeFixed(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + 8
}

func appendFixed(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendFixed64(protowire.AppendTag(dst, field, protowire.Fixed64Type), v)
}

func sizeVarint(v uint64) int {
	if v == 0 {
		return 0
	}
	return 1 + protowire.SizeVarint(v)
}

func appendVarint(dst []byte, field protowire.Number, v uint64) []byte {
	if v == 0 {
		return dst
	}
	return protowire.AppendVarint(protowire.AppendTag(dst, field, protowire.VarintType), v)
}

func sizeBytes(n int) int {
	if n == 0 {
		return 0
	}
	return 1 + protowire.SizeBytes(n)
}

func appendBytes(dst []byte, field protowire.Number, b []byte) []byte {
	if len(b) == 0 {
		return dst
	}
	return protowire.AppendBytes(protowire.AppendTag(dst, field, protowire.BytesType), b)
}
