package main

import (
	"bytes"
	"crypto/tls"
	"net"
	"time"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/proto"
)

// Transport, Framing, Heartbeats, Phases and limits.

func wireCases() []specCase {
	return []specCase{
		{"Transport", "TLS 1.3 and ALPN hermod/1, or no handshake", specHandshake},
		{"Framing", "cut anywhere", func(s *spec) {
			w := s.dial()
			f := w.hello(registering(s.fresh()))
			for _, b := range framed(s.T, f) {
				w.write([]byte{b})
			}
			if got := w.answer(f.Id); got.GetWelcome() == nil {
				s.Errorf("hello byte by byte: %v", got)
			}
		}},
		{"Framing", "a length over the cap is refused on the header", func(s *spec) {
			w := s.dial()
			w.write(header(4<<10 + 1))
			w.fault(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
			p := s.person()
			p.write(header(64<<10 + 1))
			p.fault(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
		}},
		{"Framing", "what does not parse closes", specBadFrames},
		{"Framing", "submessages up to 64 and one for every 8 bytes, 2048 at most", func(s *spec) {
			marks := func(n int) *proto.Frame {
				m := &proto.GetMarks{}
				for range n {
					m.Conversations = append(m.Conversations, make([]byte, 16))
				}
				return &proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: m}}
			}
			p := s.person()
			s.asks("2,047 and the request", p, marks(2047), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
			p.id++
			f := marks(2048)
			f.Id = p.id
			p.send(f)
			p.fault(proto.ErrorCode_ERROR_CODE_BAD_FRAME)
		}},
		{"Heartbeats", "the wish is brought into 10 s to 10 min, 4 min without one", func(s *spec) {
			for wish, want := range map[uint32]uint32{0: 240, 1: 10, 10: 10, 33: 33, 600: 600, 601: 600, 1<<32 - 1: 600} {
				name := s.fresh()
				p := s.in(s.dial(), name, func(h *proto.Hello) {
					registering(name)(h)
					h.HeartbeatSeconds = wish
				})
				if got := p.welcome.Limits.HeartbeatSeconds; got != want {
					s.Errorf("asked for %d s: %d, want %d", wish, got, want)
				}
			}
		}},
		{"Heartbeats", "each is answered by one, none comes by itself", func(s *spec) {
			p := s.person()
			beats := 0
			count := func(f *proto.Frame) bool {
				if f == nil {
					beats++
				}
				return f == nil || f.GetCaughtUp() != nil
			}
			s.quiet(p.wire, count)
			p.write(make([]byte, 3*4))
			s.quiet(p.wire, count)
			if beats != 3 {
				s.Errorf("3 heartbeats were answered by %d", beats)
			}
		}},
		{"Heartbeats", "none before the Welcome", func(s *spec) {
			w := s.dial()
			w.write(make([]byte, 4))
			w.fault(proto.ErrorCode_ERROR_CODE_HELLO_EXPECTED)
		}},
		{"Heartbeats", "one and a half intervals of silence", func(s *spec) {
			name := s.fresh()
			p := s.in(s.dial(), name, func(h *proto.Hello) {
				registering(name)(h)
				h.HeartbeatSeconds = 10
			})
			began := time.Now()
			p.fault(proto.ErrorCode_ERROR_CODE_TIMEOUT)
			if took := time.Since(began); took < 14*time.Second {
				s.Errorf("closed after %v, want 15 s", took)
			}
		}},
		{"Phases and limits", "the first frame is Hello, and only the first", specHelloOnce},
		{"Phases and limits", "4 KiB for the Hello, 64 KiB after", func(s *spec) {
			w := s.dial()
			w.write(padded(s.T, w.hello(registering(s.fresh())), 4<<10))
			if f := w.answer(w.id); f.GetWelcome() == nil || f.GetWelcome().Limits.MaxFrameBytes != 64<<10 {
				s.Fatalf("a Hello of 4 KiB: %v", f)
			}
			w.write(padded(s.T, &proto.Frame{Id: 2, Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{}}}, 64<<10))
			if f := w.answer(2); f.GetBlocks() == nil {
				s.Errorf("a request of 64 KiB: %v", f)
			}
		}},
		{"Phases and limits", "requests behind the Hello are answered behind the Welcome", func(s *spec) {
			w := s.dial()
			b := framed(s.T, w.hello(registering(s.fresh())))
			for id := uint64(2); id < 6; id++ {
				b = append(b, framed(s.T, &proto.Frame{Id: id, Body: &proto.Frame_RefreshToken{RefreshToken: &proto.RefreshToken{}}})...)
			}
			w.write(append(b, 0, 0, 0, 0))
			if f := w.frame(); f.GetWelcome() == nil {
				s.Fatalf("the first frame is %v", f)
			}
			answers, beats := map[uint64]bool{}, 0
			for len(answers) < 4 || beats < 1 {
				switch f := w.frame(); {
				case f == nil:
					beats++
				case f.GetAccessToken() != nil:
					answers[f.Id] = true
				case f.GetCaughtUp() == nil:
					s.Fatalf("got %v", f)
				}
			}
		}},
		{"Phases and limits", "200 ids", func(s *spec) {
			p := s.person()
			if p.welcome.Limits.MaxIds != 200 {
				s.Errorf("limits %v", p.welcome.Limits)
			}
			f := &proto.Frame{Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: make([]int64, 201)}}}
			s.asks("201 ids", p, f, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
		}},
		{"Phases and limits", "50 frames a second, bursts of 100", func(s *spec) {
			n := serve(s.T, nobodyExempt, func(cfg *config.Config) { cfg.Limits.MaxInFlight = 1000 })
			p := s.personOn(n)
			var fs []*proto.Frame
			for range 300 {
				p.id++
				fs = append(fs, &proto.Frame{Id: p.id, Body: &proto.Frame_SetState{SetState: &proto.SetState{}}})
			}
			// A heartbeat over the rate is not answered.
			p.write(append(framed(s.T, fs...), make([]byte, 400)...))
			ok, limited, beats := 0, 0, 0
			for ok+limited < len(fs) {
				switch f := p.frame(); {
				case f == nil:
					beats++
				case f.GetOk() != nil:
					ok++
				case f.GetError() != nil:
					s.wants("over the rate", f, proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
					limited++
				}
			}
			if ok < 90 || limited < 100 || beats > 90 {
				s.Errorf("of 300 frames %d were served and %d refused; of 100 heartbeats %d were answered", ok, limited, beats)
			}
		}},
	}
}

func specHandshake(s *spec) {
	dir := s.TempDir()
	cert := writeCert(s.T, dir)
	n := serve(s.T, withTLS(dir))
	try := func(change func(*tls.Config)) (*tls.Conn, error) {
		cfg := trusting(cert)
		cfg.NextProtos = []string{"hermod/1"}
		change(cfg)
		return tls.DialWithDialer(&net.Dialer{Timeout: 10 * time.Second}, "tcp", n.addr, cfg)
	}
	for what, change := range map[string]func(*tls.Config){
		"TLS 1.2":    func(c *tls.Config) { c.MaxVersion = tls.VersionTLS12 },
		"no ALPN":    func(c *tls.Config) { c.NextProtos = nil },
		"other ALPN": func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} },
	} {
		if c, err := try(change); err == nil {
			_ = c.Close()
			s.Errorf("%s: the handshake went through", what)
		}
	}
	c, err := try(func(c *tls.Config) { c.NextProtos = []string{"h2", "hermod/1"} })
	if err != nil {
		s.Fatal(err)
	}
	if cs := c.ConnectionState(); cs.Version != tls.VersionTLS13 || cs.NegotiatedProtocol != "hermod/1" {
		s.Errorf("version %x, protocol %q", cs.Version, cs.NegotiatedProtocol)
	}
	s.in(newWire(s.T, c), "tls", registering(s.fresh()))
}

func specBadFrames(s *spec) {
	lookup := func(name []byte) []byte {
		body := protowire.AppendBytes(protowire.AppendTag(nil, 1, protowire.BytesType), name)
		b := protowire.AppendVarint(protowire.AppendTag(nil, 1, protowire.VarintType), 1)
		return protowire.AppendBytes(protowire.AppendTag(b, 32, protowire.BytesType), body)
	}
	for what, payload := range map[string][]byte{
		"no protobuf":                           bytes.Repeat([]byte{0xff}, 20),
		"text that is not UTF-8":                lookup([]byte("caf\xe9")),
		"a group in a field nobody knows":       {0x08, 0x01, 0xc3, 0x3e, 0xc4, 0x3e},
		"101 submessages, 200 bytes excuse 89":  protowire.AppendBytes([]byte{0x22}, bytes.Repeat([]byte{0x0a, 0x00}, 100)),
		"a field that promises more than it is": {0x08, 0x01, 0x12, 0x05, 0x00},
	} {
		p := s.person()
		p.write(append(header(len(payload)), payload...))
		p.fault(proto.ErrorCode_ERROR_CODE_BAD_FRAME)
		if s.Failed() {
			s.Fatalf("%s", what)
		}
	}
	p := s.person()
	few := protowire.AppendBytes([]byte{0x08, 0x63, 0x22}, bytes.Repeat([]byte{0x0a, 0x00}, 60))
	p.write(append(header(len(few)), few...))
	s.wants("61 submessages", p.answer(0x63), proto.ErrorCode_ERROR_CODE_UNKNOWN_REQUEST)
}

func specHelloOnce(s *spec) {
	w := s.dial()
	f := message(1, "too early")
	f.Id = 1
	w.send(f)
	w.fault(proto.ErrorCode_ERROR_CODE_HELLO_EXPECTED)

	p := s.person()
	p.send(p.hello(byToken(p.token)))
	p.fault(proto.ErrorCode_ERROR_CODE_HELLO_REPEATED)

	// Two at once: the second is read after the Welcome.
	w = s.dial()
	first := w.hello(registering(s.fresh()))
	w.send(first, w.hello(byToken("x")))
	if f := w.frame(); f.GetWelcome() == nil || f.Id != first.Id {
		s.Errorf("the first of two: %v", f)
	}
	w.fault(proto.ErrorCode_ERROR_CODE_HELLO_REPEATED)
}
