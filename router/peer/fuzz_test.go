package peer

import (
	"bytes"
	"errors"
	"testing"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
)

// FuzzInbound gives bytes to the accepting end, in pieces: nothing panics, the
// pieces do not matter, and what is read by hand is what the generated code
// reads.
func FuzzInbound(f *testing.F) {
	var all []byte
	for _, v := range vectors(f) {
		b := unhex(f, v.Hex)
		f.Add(b, byte(7))
		all = append(append(all, b...), 0, 0, 0, 0)
	}
	f.Add(all, byte(1))
	f.Add([]byte{0, 0x10, 0, 1}, byte(3))
	f.Fuzz(func(t *testing.T, stream []byte, step byte) {
		whole, beats, err := collectAll(stream, len(stream)+1)
		parts, beats2, err2 := collectAll(stream, int(step)+1)
		if beats != beats2 || (err == nil) != (err2 == nil) || !gproto.Equal(whole.message(), parts.message()) {
			t.Fatalf("at once: %d beats, %v; in pieces: %d beats, %v", beats, err, beats2, err2)
		}
		differential(t, stream)
		rd := newReader(bytes.NewReader(stream))
		if f, err := rd.first(); err == nil {
			opt := Options{Node: 1, speaks: versions{1, 1}}
			if h, refused := opt.greeted(f.Hello, 5); refused == nil && (h.run.Node != 5 || h.version != 1) {
				t.Fatalf("greeted as %+v", h)
			}
		}
	})
}

// collectAll reads a stream as a connection does, step bytes at a time.
func collectAll(stream []byte, step int) (all inbox, beats int, err error) {
	rd := newReader(&pieces{stream, step})
	rd.max = proto.MaxFramePeer
	for err == nil {
		if rd.fill() != nil {
			return all, beats, nil
		}
		var in inbox
		var n int
		n, err = in.collect(rd)
		beats += n
		for _, d := range in.Deliveries {
			d.Event = bytes.Clone(d.Event)
			all.Deliveries = append(all.Deliveries, d)
		}
		for _, h := range in.Hints {
			all.Hints = append(all.Hints, router.Hint{User: h.User, Frame: bytes.Clone(h.Frame)})
		}
		all.Places = append(all.Places, in.Places...)
		all.kicks = append(all.kicks, in.kicks...)
		all.gone = append(all.gone, in.gone...)
	}
	return all, beats, err
}

type pieces struct {
	rest []byte
	step int
}

func (p *pieces) Read(b []byte) (int, error) {
	if len(p.rest) == 0 {
		return 0, errors.New("end")
	}
	n := copy(b, p.rest[:min(p.step, len(p.rest))])
	p.rest = p.rest[n:]
	return n, nil
}

// differential compares with the generated code, field by field.
func differential(t *testing.T, stream []byte) {
	payload, n, err := proto.Next(stream, proto.MaxFramePeer)
	if err != nil || n == 0 {
		return
	}
	var in inbox
	var want proto.PeerFrame
	if in.decode(payload) != nil || gproto.Unmarshal(payload, &want) != nil {
		// Groups, and text in a refusal that is not UTF-8, are told apart.
		return
	}
	at, place := 0, 0
	for _, p := range want.Push {
		for _, to := range p.To {
			d := in.Deliveries[at]
			at++
			if d.User != to.User || d.Seq != to.Seq || !bytes.Equal(d.Event, p.Event) {
				t.Fatalf("delivery %+v, want %v of %v", d, to, p)
			}
			for _, w := range to.At {
				if g := in.Places[place]; g.User != to.User || g.Conn != w.Conn || w.Slot < 255 && uint32(g.Slot) != w.Slot {
					t.Fatalf("place %+v, want %v", g, w)
				}
				place++
			}
		}
	}
	if at != len(in.Deliveries) || place != len(in.Places) || len(in.Hints) != len(want.Hint) || len(in.kicks) != len(want.Kick) || len(in.gone) != len(want.NotHere) {
		t.Fatalf("by hand %+v, generated %v", in, &want)
	}
	for i, h := range want.Hint {
		if g := in.Hints[i]; g.User != h.User || !bytes.Equal(g.Frame, h.Frame) {
			t.Fatalf("hint %+v, want %v", g, h)
		}
	}
	for i, k := range want.Kick {
		if g := in.kicks[i]; g.at.User != k.User || g.at.Conn != k.Conn || g.newLogin != k.NewLogin || k.Slot < 255 && uint32(g.at.Slot) != k.Slot {
			t.Fatalf("kick %+v, want %v", g, k)
		}
	}
	for i, w := range want.NotHere {
		if g := in.gone[i]; g.User != w.User || g.Conn != w.Conn || w.Slot < 255 && uint32(g.Slot) != w.Slot {
			t.Fatalf("not here %+v, want %v", g, w)
		}
	}
}
