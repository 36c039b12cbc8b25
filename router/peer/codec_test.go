package peer

import (
	"bytes"
	"encoding/hex"
	"encoding/json"
	"errors"
	"os"
	"testing"

	"google.golang.org/protobuf/encoding/protojson"
	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
)

type vector struct {
	Name, Why, Hex string
	JSON           json.RawMessage
}

func vectors(t testing.TB) (out []vector) {
	t.Helper()
	raw, err := os.ReadFile("../../proto/testdata/peer.json")
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(raw, &out); err != nil {
		t.Fatal(err)
	}
	return out
}

func unhex(t testing.TB, s string) []byte {
	t.Helper()
	b, err := hex.DecodeString(s)
	if err != nil {
		t.Fatal(err)
	}
	return b
}

// The golden vectors, through the code that is written by hand: it reads what
// the generated code reads, and writes the same bytes.
func TestVectors(t *testing.T) {
	hot := 0
	for _, v := range vectors(t) {
		t.Run(v.Name, func(t *testing.T) {
			var want proto.PeerFrame
			if err := protojson.Unmarshal(v.JSON, &want); err != nil {
				t.Fatal(err)
			}
			framed := unhex(t, v.Hex)
			var in inbox
			if err := in.decode(framed[proto.HeaderLen:]); err != nil {
				t.Fatal(err)
			}
			hello, refusal := want.Hello, want.Refusal
			want.Hello, want.Refusal = nil, nil
			if got := in.message(); !gproto.Equal(got, &want) {
				t.Errorf("decoded:\n got %v\nwant %v", got, &want)
			}
			if hello != nil {
				f, err := newReader(bytes.NewReader(framed)).first()
				if err != nil || !gproto.Equal(f.Hello, hello) || !gproto.Equal(f.Refusal, refusal) {
					t.Errorf("hello read as %v, %v", f, err)
				}
				got, err := appendFirst(nil, f)
				if err != nil || !bytes.Equal(got, framed) {
					t.Errorf("hello written as %x (%v), want %x", got, err, framed)
				}
				return
			}
			if v.Why != "" {
				return
			}
			hot++
			if got := encodeMessage(&want); !bytes.Equal(got, framed) {
				t.Errorf("encoded:\n got %x\nwant %x", got, framed)
			}
		})
	}
	if hot < 6 {
		t.Errorf("only %d vectors went through the encoder", hot)
	}
}

// message is what in holds, as the generated code has it. Recipients of one
// event, which are next to each other, share a push.
func (in *inbox) message() *proto.PeerFrame {
	out := new(proto.PeerFrame)
	places := in.Places
	for i, d := range in.Deliveries {
		if i == 0 || !sameBytes(d.Event, in.Deliveries[i-1].Event) {
			out.Push = append(out.Push, &proto.PeerPush{Event: d.Event})
		}
		to := &proto.PeerRecipient{User: d.User, Seq: d.Seq}
		for len(places) > 0 && places[0].User == d.User && (i+1 == len(in.Deliveries) || in.Deliveries[i+1].User != d.User || len(to.At) == 0) {
			to.At = append(to.At, &proto.PeerPlace{Slot: uint32(places[0].Slot), Conn: places[0].Conn})
			places = places[1:]
		}
		p := out.Push[len(out.Push)-1]
		p.To = append(p.To, to)
	}
	for _, h := range in.Hints {
		out.Hint = append(out.Hint, &proto.PeerHint{User: h.User, Frame: h.Frame})
	}
	for _, k := range in.kicks {
		out.Kick = append(out.Kick, &proto.PeerKick{User: k.at.User, Slot: uint32(k.at.Slot), Conn: k.at.Conn, NewLogin: k.newLogin})
	}
	for _, g := range in.gone {
		out.NotHere = append(out.NotHere, &proto.PeerPlace{User: g.User, Slot: uint32(g.Slot), Conn: g.Conn})
	}
	return out
}

// encodeMessage writes m by hand, in one frame.
func encodeMessage(m *proto.PeerFrame) []byte {
	to := router.Run{Node: 2, Incarnation: 3}
	f := newFrames()
	for _, p := range m.Push {
		var batch []router.Forwarded
		for _, r := range p.To {
			d := router.Forwarded{User: r.User, Seq: r.Seq, Event: p.Event}
			for _, at := range r.At {
				ref := router.Ref{Node: to.Node, Incarnation: to.Incarnation, Conn: at.Conn}
				elsewhere := router.Ref{Node: 9, Incarnation: 1, Conn: at.Conn}
				d.Routes = append(d.Routes,
					router.Route{User: r.User, Slot: 4, Entry: router.Entry{Ref: elsewhere}},
					router.Route{User: r.User, Slot: router.Slot(at.Slot), Entry: router.Entry{Ref: ref}})
			}
			batch = append(batch, d)
		}
		f.forward(to, batch, 1<<20, true)
	}
	for _, h := range m.Hint {
		f.forward(to, []router.Forwarded{{User: h.User, Event: h.Frame, Hint: true}}, 1<<20, true)
	}
	for _, k := range m.Kick {
		f.kick(kick{router.Place{User: k.User, Slot: router.Slot(k.Slot), Conn: k.Conn}, k.NewLogin})
	}
	var gone []router.Place
	for _, g := range m.NotHere {
		gone = append(gone, router.Place{User: g.User, Slot: router.Slot(g.Slot), Conn: g.Conn})
	}
	f.notHere(gone)
	return f.take(nil)
}

func TestFramesAreCut(t *testing.T) {
	to := router.Run{Node: 2, Incarnation: 1}
	event := make([]byte, 32<<10)
	var batch []router.Forwarded
	for i := range 20000 {
		if i%5000 == 0 {
			event = bytes.Clone(event)
		}
		batch = append(batch, router.Forwarded{User: int64(i + 1), Seq: uint64(i), Event: event})
	}
	f := newFrames()
	if lost := f.forward(to, batch, 64<<20, true); lost != (losses{}) || f.items != len(batch) {
		t.Fatalf("lost %+v, %d items", lost, f.items)
	}
	rd := newReader(bytes.NewReader(f.take(nil)))
	rd.max = proto.MaxFramePeer
	var in inbox
	next, n := int64(1), 0
	for {
		payload, ok, err := rd.next()
		if err != nil {
			t.Fatal(err)
		}
		if !ok {
			if rd.fill() != nil {
				break
			}
			continue
		}
		if n++; len(payload) > frameTarget+elementMax {
			t.Errorf("a frame of %d bytes", len(payload))
		}
		if err := in.decode(payload); err != nil {
			t.Fatal(err)
		}
		for _, d := range in.Deliveries {
			if d.User != next || len(d.Event) != len(event) {
				t.Fatalf("user %d with %d bytes, want user %d", d.User, len(d.Event), next)
			}
			next++
		}
		in.reset()
	}
	if next != 20001 || n < 5 {
		t.Fatalf("%d deliveries in %d frames", next-1, n)
	}

	huge := []router.Forwarded{{User: 1, Event: make([]byte, proto.MaxFramePeer)}, {User: 2, Event: []byte("x")}}
	if lost := f.forward(to, huge, 8<<20, true); lost != (losses{large: 1}) || f.items != 1 {
		t.Errorf("an event over the cap: lost %+v, %d items", lost, f.items)
	}
}

func TestQueueIsBounded(t *testing.T) {
	to := router.Run{Node: 2, Incarnation: 1}
	f := newFrames()
	const limit = 10 << 10
	lost := 0
	for i := range 1000 {
		lost += f.forward(to, []router.Forwarded{{User: int64(i + 1), Seq: 1, Event: make([]byte, 100)}}, limit, true).full
		if len(f.buf) > limit {
			t.Fatalf("%d bytes wait, at most %d may", len(f.buf), limit)
		}
	}
	if lost == 0 || f.items+lost != 1000 || len(f.buf) < limit-200 {
		t.Errorf("%d lost, %d kept in %d bytes", lost, f.items, len(f.buf))
	}
	if lost := f.forward(to, []router.Forwarded{{User: 1, Hint: true}}, 1<<20, false); lost != (losses{down: 1}) {
		t.Errorf("a hint while the link is down: %+v", lost)
	}
}

func TestBadFrames(t *testing.T) {
	place := []byte{0x1a, 0}
	for name, x := range map[string]struct {
		payload []byte
		want    error
	}{
		"cut in a tag":           {[]byte{0x8a}, errBadFrame},
		"cut in an element":      {[]byte{0x0a, 5, 1}, errBadFrame},
		"group":                  {[]byte{0x0b, 0x0c}, errBadFrame},
		"group in a push":        {[]byte{0x0a, 2, 0x2b, 0x2c}, errBadFrame},
		"cut in a recipient":     {[]byte{0x0a, 4, 0x12, 2, 0x09, 1}, errBadFrame},
		"cut in a place":         {[]byte{0x0a, 6, 0x12, 4, 0x1a, 2, 0x19, 1}, errBadFrame},
		"cut in a hint":          {[]byte{0x12, 1, 0x0a}, errBadFrame},
		"cut in a kick":          {[]byte{0x1a, 1, 0x0a}, errBadFrame},
		"cut in a NotHere":       {[]byte{0x22, 1, 0x0a}, errBadFrame},
		"too many pushes":        {bytes.Repeat([]byte{0x0a, 0}, maxElements+1), errTooMany},
		"too many unknown":       {bytes.Repeat([]byte{0x7a, 0}, maxElements+1), errTooMany},
		"too many recipients":    {wrap(0x0a, bytes.Repeat([]byte{0x12, 0}, maxElements)), errTooMany},
		"too many places":        {wrap(0x0a, wrap(0x12, bytes.Repeat(place, maxElements))), errTooMany},
		"as many as are allowed": {wrap(0x0a, wrap(0x12, bytes.Repeat(place, maxElements-2))), nil},
	} {
		in := inbox{gone: []router.Place{{User: 1}}}
		if err := in.decode(x.payload); !errors.Is(err, x.want) {
			t.Errorf("%s: %v, want %v", name, err, x.want)
		}
		if x.want != nil && (len(in.Deliveries)+len(in.Hints)+len(in.Places)+len(in.kicks) > 0 || len(in.gone) != 1) {
			t.Errorf("%s: something of a bad frame is left: %+v", name, in)
		}
	}
}

func wrap(tag byte, body []byte) []byte {
	out := []byte{tag, byte(len(body)) | 0x80, byte(len(body)>>7) | 0x80, byte(len(body) >> 14)}
	return append(out, body...)
}

// endless is a header that announces size bytes, then bytes without end. It
// counts what is asked of it.
type endless struct {
	header []byte
	asked  int
}

func (e *endless) Read(b []byte) (int, error) {
	n := copy(b, e.header)
	e.header = e.header[n:]
	if n == 0 {
		e.asked += len(b)
		return len(b), nil
	}
	return n, nil
}

func TestOversizedFramesAreRefusedOnTheHeader(t *testing.T) {
	for _, x := range []struct {
		phase string
		max   int
		head  []byte
	}{
		{"before the hello", proto.MaxFrameHello, []byte{0, 0, 0x10, 1}},
		{"after the hello", proto.MaxFramePeer, []byte{0, 0x10, 0, 1}},
		{"the longest", proto.MaxFramePeer, []byte{0xff, 0xff, 0xff, 0xff}},
	} {
		e := &endless{header: x.head}
		rd := newReader(e)
		rd.max = x.max
		size := cap(rd.buf)
		_, ok, err := rd.next()
		if ok || err != nil {
			t.Fatalf("%s: %v before there is a header", x.phase, err)
		}
		if err := rd.fill(); err != nil {
			t.Fatal(err)
		}
		_, _, err = rd.next()
		var large *proto.FrameError
		if !errors.As(err, &large) || large.Max != x.max {
			t.Errorf("%s: %v", x.phase, err)
		}
		if e.asked > 0 || cap(rd.buf) != size {
			t.Errorf("%s: %d bytes read and a buffer of %d for it", x.phase, e.asked, cap(rd.buf))
		}
	}
	// The largest that is allowed goes through.
	rd := newReader(&endless{header: []byte{0, 0x10, 0, 0}})
	rd.max = proto.MaxFramePeer
	for {
		payload, ok, err := rd.next()
		if err != nil {
			t.Fatal(err)
		}
		if ok {
			if len(payload) != proto.MaxFramePeer {
				t.Errorf("%d bytes", len(payload))
			}
			return
		}
		if err := rd.fill(); err != nil {
			t.Fatal(err)
		}
	}
}
