package attack

import (
	"bytes"
	"fmt"
	"net"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermod-im/hermod/proto"
)

// Size: what is too large is refused before it costs anything.

// header is a frame's length.
func header(n int) []byte { return []byte{byte(n >> 24), byte(n >> 16), byte(n >> 8), byte(n)} }

// attackLoginBytes says hello, which takes the server a password hash, and goes
// on talking.
func attackLoginBytes(s *scene) string {
	s.shared()
	w := s.dial()
	_, _ = w.Write(append(s.framed(w.hello(registering(s.name("flood")))), make([]byte, 20<<10)...))
	w.closedFor(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)

	// The same with TLS: a ClientHello of 16 KiB in records of one byte each.
	w = s.dialFrom(s.someone(), s.srv.TLS)
	record := []byte{22, 3, 1, 0, 1}
	var b []byte
	for _, x := range []byte{1, 0, 0x3f, 0xf0} {
		b = append(append(b, record...), x)
	}
	for len(b) < 40<<10 {
		b = append(append(b, record...), 0)
	}
	begun := time.Now()
	_, _ = w.Write(b)
	if !w.shut(2 * time.Second) {
		s.breach("40 KiB of a ClientHello are kept")
	}
	return fmt.Sprintf("20 KiB behind a Hello, 40 KiB of a ClientHello: closed (the latter after %d ms)", time.Since(begun).Milliseconds())
}

func attackFrameCaps(s *scene) string {
	s.shared()
	w := s.dial()
	w.write(header(proto.MaxFrameHello + 1))
	w.closedFor(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	for _, n := range []int{proto.MaxFrameSession + 1, 1 << 31, 1<<32 - 1} {
		w = s.person()
		w.write(header(n))
		w.closedFor(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	}
	return fmt.Sprintf("%d bytes before the login, %d, 2^31 and 2^32-1 after it: closed at the header", proto.MaxFrameHello+1, proto.MaxFrameSession+1)
}

func attackNesting(s *scene) string {
	s.shared()
	bombs := [][]byte{
		bytes.Repeat([]byte{0xc3, 0x3e}, 10_000),                                            // group in group
		append([]byte{0x22, 0xe0, 0xd4, 0x03}, bytes.Repeat([]byte{0x0a, 0x00}, 30_000)...), // 30,000 events
		bytes.Repeat([]byte{0xff}, 60_000),
	}
	for i, payload := range bombs {
		w := s.person()
		w.write(append(header(len(payload)), payload...))
		if got := w.ended(); got != proto.ErrorCode_ERROR_CODE_BAD_FRAME {
			s.breach("bomb %d: closed with %s", i, got.Short())
		}
	}
	return "10,000 groups in each other, 30,000 submessages, 60 KB of noise: BAD_FRAME"
}

func attackIDsPerCall(s *scene) string {
	s.shared()
	w := s.person()
	ids := make([]int64, 201)
	keys := make([][]byte, 201)
	key := w.says(w.dev.user, "note").Conversation
	for i := range ids {
		ids[i], keys[i] = w.dev.user, key
	}
	for what, f := range map[string]*proto.Frame{
		"profiles": {Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: ids}}},
		"marks":    {Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: keys}}},
	} {
		if f := w.ask(f); codeOf(f) != proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT {
			s.breach("201 %s: %s", what, told(f))
		}
	}
	// Pages: who asks for more gets 200, of which there are more.
	const page = 200
	desks := []*wire{w, w.beside(proto.DeviceSlot_DEVICE_SLOT_WEB), w.beside(proto.DeviceSlot_DEVICE_SLOT_DESKTOP)}
	s.all(len(desks), func(i int) {
		for range page/len(desks) + 5 {
			desks[i].says(w.dev.user, "note")
		}
	})
	huge := uint32(1 << 31)
	for what, f := range map[string]*proto.Frame{
		"sync":    {Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: w.dev.cursor, Limit: huge}}},
		"history": {Body: &proto.Frame_GetHistory{GetHistory: &proto.GetHistory{Conversation: key, Limit: huge}}},
		"list":    {Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{Limit: huge}}},
		"blocks":  {Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{Limit: huge}}},
	} {
		f = w.ask(f)
		if n := len(f.GetSyncResponse().GetEvents()) + len(f.GetHistory_().GetEntries()); f.GetError() != nil || n > page {
			s.breach("%s of 2^31: %s, %d in a page", what, told(f), n)
		}
	}
	return fmt.Sprintf("201 ids: INVALID_ARGUMENT; pages of 2^31: at most %d", page)
}

func attackContent(s *scene) string {
	s.shared()
	w := s.person()
	if f := w.ask(custom(w.dev.user, make([]byte, 32<<10))); f.GetSendAck() == nil {
		s.fail("32 KiB: %s", told(f))
	}
	if f := w.ask(custom(w.dev.user, make([]byte, 32<<10+1))); codeOf(f) != proto.ErrorCode_ERROR_CODE_CONTENT_TOO_LARGE {
		s.breach("32 KiB and a byte: %s", told(f))
	}
	return "32 KiB taken, a byte more refused"
}

// sluggard is a client that acknowledges all and reads nothing, so that no
// window protects the server; friends write to it.
type sluggard struct {
	*wire
	friends []*wire
	first   uint64
	sent    int
	rounds  int
}

func (s *scene) sluggard() *sluggard {
	// This side's kernel buffer is not what is measured.
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: s.someone().AsSlice()}, Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10) }); e != nil {
			return e
		}
		return err
	}}
	nc, err := d.DialContext(s.ctx, "tcp", s.srv.Plain)
	s.must(err)
	r := &sluggard{wire: s.wire(nc).in(registering(s.name("sluggard")))}
	_ = nc.SetDeadline(time.Now().Add(3 * time.Minute))
	r.first = r.dev.cursor.GetSeq()
	for range 2 { // together they may write 100 times a second
		r.friends = append(r.friends, s.person())
	}
	return r
}

// receive has each friend send n messages of 32 KiB.
func (r *sluggard) receive(n int) {
	r.s.all(len(r.friends), func(i int) {
		for sent := 0; sent < n; {
			f := custom(r.dev.user, make([]byte, 32<<10))
			f.GetSend().ResumeOrder = true // one after the other: nothing is overtaken
			switch f = r.friends[i].ask(f); {
			case f.GetSendAck() != nil:
				sent++
			case codeOf(f) == proto.ErrorCode_ERROR_CODE_RATE_LIMITED:
				r.s.pause(100 * time.Millisecond)
			default:
				r.s.fail("send: %s", told(f))
			}
		}
	})
	r.sent += n * len(r.friends)
	// It does not know what it was sent: no more than the window, three of these
	// messages, is. Acks for what was not are ignored, so those before are said
	// again, as many as the rate of frames allows.
	r.rounds++
	back := 8
	if r.rounds%16 == 0 {
		back = 64
	}
	var b []byte
	for seq := max(1, r.sent-back); seq <= r.sent; seq++ {
		b = append(b, r.s.framed(ack(r.first+uint64(seq)))...)
	}
	_, _ = r.Write(b) // fails once the server has closed
	r.s.pause(20 * time.Millisecond)
}

// kept is what the server holds back for slow clients, in bytes.
func (r *sluggard) kept() float64 { return r.s.metric("hermod_conn_outbox_bytes") }

func attackOutbox(s *scene) string {
	s.own(Wish{}) // the metric counts all connections
	r := s.sluggard()
	most := 0.0
	for s.metric("hermod_conn_closed_total", "slow_consumer") == 0 {
		if r.sent > 3000 {
			s.breach("%d MiB for a client that reads nothing, and still not closed", r.sent*32>>10)
		}
		r.receive(1)
		if most = max(most, r.kept()); most > 256<<10+proto.MaxFrameSession {
			s.breach("%.0f bytes are kept for one client", most)
		}
	}
	s.eventually(s.patience, "the memory is given back", func() bool { return r.kept() == 0 })
	return fmt.Sprintf("at most %.0f KiB kept, closed with SLOW_CONSUMER", most/1024)
}
