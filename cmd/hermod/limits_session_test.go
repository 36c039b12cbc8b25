package main

import (
	"fmt"
	"net"
	"strconv"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
)

func TestLimitIDsPerCall(t *testing.T) {
	t.Parallel()
	n := serve(t)
	w := n.dial().register("collector")
	ids := func(k int) []int64 {
		out := make([]int64, k)
		for i := range out {
			out[i] = w.dev.user + int64(i)
		}
		return out
	}
	profiles := func(k int) *proto.Frame {
		return w.ask(&proto.Frame{Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: ids(k)}}})
	}
	marks := func(k int) *proto.Frame {
		keys := make([][]byte, k)
		for i := range keys {
			keys[i] = conversationOf(w)
		}
		return w.ask(&proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: keys}}})
	}
	if f := profiles(200); len(f.GetProfiles_().GetProfiles()) != 1 {
		t.Errorf("200 ids, one of which exists: %v", f)
	}
	if f := marks(200); f.GetMarks_() == nil {
		t.Errorf("200 conversations: %v", f)
	}
	for what, f := range map[string]*proto.Frame{"ids": profiles(201), "conversations": marks(201)} {
		if codeOf(f) != proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT {
			t.Errorf("201 %s: %v", what, f)
		}
	}
}

// conversationOf is the key of the conversation with one's own devices.
func conversationOf(w *wire) []byte {
	f := w.ask(message(w.dev.user, "note"))
	if f.GetSendAck() == nil {
		w.t.Fatalf("send: %v", f)
	}
	return f.GetSendAck().Conversation
}

func TestLimitContentSize(t *testing.T) {
	t.Parallel()
	n := serve(t)
	w := n.dial().register("novelist")
	content := func(size int) *proto.Content {
		return &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: make([]byte, size)}
	}
	if f := w.ask(messageBytes(w.dev.user, content(32<<10))); f.GetSendAck() == nil {
		t.Errorf("32 KiB: %v", f)
	}
	if f := w.ask(messageBytes(w.dev.user, content(32<<10+1))); codeOf(f) != proto.ErrorCode_ERROR_CODE_CONTENT_TOO_LARGE {
		t.Errorf("a byte more: %v", f)
	}
	if got := n.metric("hermod_chat_sends_total", "CONTENT_TOO_LARGE"); got != 1 {
		t.Errorf("counted %v, want 1", got)
	}
}

// slowReader is a phone that acknowledges all and reads nothing: so no window
// protects the server, only the outbox does.
type slowReader struct {
	*wire
	friend *wire
	sent   int
}

func newSlowReader(t *testing.T, n *node) *slowReader {
	// The kernel's buffers are not what is measured, so this side's is small.
	d := net.Dialer{Control: func(_, _ string, c syscall.RawConn) (err error) {
		if e := c.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_RCVBUF, 8<<10) }); e != nil {
			return e
		}
		return err
	}}
	nc, err := d.Dial("tcp", n.addr)
	if err != nil {
		t.Fatal(err)
	}
	s := &slowReader{wire: newWire(t, nc), friend: n.dial().register("friend")}
	s.register("sluggard")
	return s
}

// receive has the friend send one message of 32 KiB.
func (s *slowReader) receive() {
	s.t.Helper()
	body := fmt.Appendf(make([]byte, 0, 32<<10), "%d ", s.sent+1)
	f := s.friend.ask(messageBytes(s.dev.user, &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: body[:cap(body)]}))
	if f.GetSendAck() == nil {
		s.t.Fatalf("send: %v", f)
	}
	s.sent++
	var b []byte
	for seq := max(s.sent-16, 1); seq <= s.sent; seq++ { // those that were not sent yet are ignored
		b = append(b, framed(s.t, &proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: s.dev.cursor.Seq + uint64(seq)}}})...)
	}
	_, _ = s.Write(b) // fails once the server has closed
}

// drain reads what there still is to the end of the connection, checks that it
// is an unbroken run of events, and moves the device's cursor behind it.
func (s *slowReader) drain() {
	s.t.Helper()
	for {
		f, err := s.next()
		if err != nil {
			return
		}
		for _, e := range f.GetEvents().GetEvents() {
			s.t.Helper()
			if e.Seq != s.dev.cursor.Seq+1 {
				s.t.Fatalf("event %d follows %d", e.Seq, s.dev.cursor.Seq)
			}
			s.dev.cursor.Seq = e.Seq
		}
	}
}

// catchUp reads on a new connection what the old one did not get, and returns
// how much that was.
func (s *slowReader) catchUp(n *node, until uint64) (missed uint64) {
	s.t.Helper()
	missed = until - s.dev.cursor.Seq
	w := n.resume(s.dev)
	for w.dev.cursor.Seq < until {
		for _, e := range w.frame().GetEvents().GetEvents() {
			if e.Seq != w.dev.cursor.Seq+1 {
				s.t.Fatalf("event %d follows %d after the reconnect", e.Seq, w.dev.cursor.Seq)
			}
			w.dev.cursor.Seq = e.Seq
		}
		w.send(&proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: w.dev.cursor.Seq}}})
	}
	s.t.Logf("%d messages of 32 KiB were sent, %d came after the reconnect", s.sent, missed)
	return missed
}

func TestLimitOutboxBytes(t *testing.T) {
	t.Parallel()
	n := serve(t)
	s := newSlowReader(t, n)
	first := s.dev.cursor.Seq
	most := 0.0
	for closed := 0.0; closed == 0; {
		if s.sent > 2000 {
			t.Fatal("64 MB and still not closed")
		}
		for range 8 {
			s.receive()
		}
		_, page := n.get("/metrics")
		closed = metricIn(t, page, "hermod_conn_closed_total", "slow_consumer")
		most = max(most, metricIn(t, page, "hermod_conn_outbox_bytes"))
	}
	if limit := 256<<10 + 64<<10; int(most) > limit {
		t.Errorf("the outbox held up to %.0f bytes", most)
	}
	eventually(t, 5*time.Second, "the outbox is given back", func() bool { return n.metric("hermod_conn_outbox_bytes") == 0 })
	s.drain()
	if s.catchUp(n, first+uint64(s.sent)) == 0 {
		t.Error("nothing was missed, although the outbox was given up")
	}
}

func TestLimitOutboxStall(t *testing.T) {
	t.Parallel()
	n := serve(t, func(cfg *config.Config) { cfg.Limits.OutboxStall = config.Duration(time.Second) })
	s := newSlowReader(t, n)
	first := s.dev.cursor.Seq
	// Until the kernel takes no more, and what waits does not move.
	buffered := func() (sum int) {
		n.edge.Each(func(c *conn.Conn) { sum += c.Buffered() })
		return sum
	}
	stalled := func() bool { return n.metric("hermod_conn_closed_total", "stalled") > 0 }
	for !stalled() {
		if s.sent > 2000 {
			t.Fatal("64 MB and the kernel still takes more")
		}
		s.receive()
		for was, end := buffered(), time.Now().Add(5*time.Second); was > 0 && buffered() == was && time.Now().Before(end) && !stalled(); {
			time.Sleep(10 * time.Millisecond)
		}
	}
	if got := n.metric("hermod_conn_closed_total", "slow_consumer"); got != 0 {
		t.Errorf("%v closed over the cap of the outbox, which was not reached", got)
	}
	s.drain()
	s.catchUp(n, first+uint64(s.sent))
}

func TestLimitFramesPerSecond(t *testing.T) {
	t.Parallel()
	n := serve(t, nobodyExempt, func(cfg *config.Config) { cfg.Limits.MaxInFlight = 2000 })
	w := n.dial().register("hasty")
	burst := func(k int) []byte {
		var fs []*proto.Frame
		for range k {
			w.id++
			fs = append(fs, &proto.Frame{Id: w.id, Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{}}})
		}
		return framed(t, fs...)
	}
	began := time.Now()
	w.write(burst(200))
	ok, limited := 0, 0
	for ok+limited < 200 {
		switch f := w.frame(); {
		case f.GetBlocks() != nil:
			ok++
		case codeOf(f) == proto.ErrorCode_ERROR_CODE_RATE_LIMITED && f.Id != 0 && f.GetError().RetryAfterMs > 0:
			limited++
		case f.GetCaughtUp() == nil:
			t.Fatalf("got %v", f)
		}
	}
	// A second's worth may come at once on top of the rate.
	if most := 100 + int(50*time.Since(began).Seconds()) + 1; ok < 100 || ok > most || limited == 0 {
		t.Errorf("of 200 frames at once %d were served, %d refused", ok, limited)
	}
	if got := n.metric("hermod_conn_refused_total", "RATE_LIMITED"); got != float64(limited) {
		t.Errorf("counted %v, want %d", got, limited)
	}
	eventually(t, 5*time.Second, "the session goes on at its rate", func() bool {
		return w.ask(&proto.Frame{Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{}}}).GetBlocks() != nil
	})
	_, _ = w.Write(burst(3000)) // ten times the rate, and its burst
	w.fault(proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
	n.closedFor("rate_limited", 1)
}

func TestLimitSyncsPerSecond(t *testing.T) {
	t.Parallel()
	n := serve(t, nobodyExempt, func(cfg *config.Config) { cfg.Limits.FramesPerSecond, cfg.Limits.MaxInFlight = 2000, 2000 })
	w := n.dial().register("syncer")
	burst := func(k int) []byte {
		var fs []*proto.Frame
		for range k {
			w.id++
			fs = append(fs, &proto.Frame{Id: w.id, Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: w.dev.cursor}}})
		}
		return framed(t, fs...)
	}
	w.write(burst(30)) // in one second, or two
	ok, limited := 0, 0
	for ok+limited < 30 {
		switch f := w.frame(); {
		case f.GetSyncResponse() != nil:
			ok++
		case codeOf(f) == proto.ErrorCode_ERROR_CODE_RATE_LIMITED && f.Id != 0:
			limited++
		case f.GetCaughtUp() == nil:
			t.Fatalf("got %v", f)
		}
	}
	if ok < 5 || ok > 10 {
		t.Errorf("of 30 syncs at once %d were served", ok)
	}
	if f := w.ask(message(w.dev.user, "other requests go on")); f.GetSendAck() == nil {
		t.Errorf("send: %v", f)
	}
	_, _ = w.Write(burst(150))
	w.fault(proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
	n.closedFor("rate_limited", 1)
}

// Far more sends at once than may be open: what is not taken is told so, and
// however often, the order stays.
func TestLimitInFlightKeepsOrder(t *testing.T) {
	t.Parallel()
	const total = 400
	n := serve(t)
	reader := n.dial().register("listener")
	w := n.dial().register("talker")
	todo := make([]*proto.Frame, total)
	for i := range todo {
		todo[i] = message(reader.dev.user, strconv.Itoa(i))
	}
	busy := 0
	for round := 0; len(todo) > 0; round++ {
		todo[0].GetSend().ResumeOrder = round > 0
		byID := make(map[uint64]*proto.Frame)
		for _, f := range todo {
			w.id++
			f.Id = w.id
			byID[f.Id] = f
		}
		w.send(todo...)
		var refused []*proto.Frame
		for range len(todo) {
			f := w.frame()
			for f.GetSendAck() == nil && f.GetError() == nil {
				f = w.frame()
			}
			switch {
			case codeOf(f) == proto.ErrorCode_ERROR_CODE_BUSY && f.GetError().Retryable:
				refused = append(refused, byID[f.Id])
				busy++
			case f.GetSendAck() == nil:
				t.Fatalf("got %v", f)
			}
			delete(byID, f.Id)
		}
		if len(refused) == len(todo) || len(byID) != 0 {
			t.Fatalf("round %d: %d of %d refused, %d without an answer", round, len(refused), len(todo), len(byID))
		}
		var again []*proto.Frame
		for _, f := range todo {
			for _, r := range refused {
				if f == r {
					f.GetSend().ResumeOrder = false
					again = append(again, f)
				}
			}
		}
		todo = again
	}
	if busy == 0 {
		t.Fatal("nothing was refused: the test shows nothing")
	}
	if got := n.metric("hermod_conn_refused_total", "BUSY"); got == 0 {
		t.Error("the edge counted no refusal")
	}
	next := 0
	for next < total {
		for _, e := range reader.frame().GetEvents().GetEvents() {
			if m := e.GetMessage(); m != nil {
				if text := textOf(m.Content); text != strconv.Itoa(next) {
					t.Fatalf("message %d is %q", next, text)
				}
				next++
			}
			reader.send(&proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: e.Seq}}})
		}
	}
	t.Logf("%d messages, %d answers of BUSY", total, busy)
}

// Who goes on sending whatever it is told is closed.
func TestLimitInFlightIgnoredCloses(t *testing.T) {
	t.Parallel()
	n := serve(t)
	w := n.dial().register("bully")
	var batch []*proto.Frame
	for range 1000 {
		batch = append(batch, message(w.dev.user, "x"))
	}
	stopped := make(chan struct{})
	go func() {
		defer close(stopped)
		for id := w.id + 1; ; {
			var b []byte
			for _, f := range batch {
				f.Id = id
				id++
				b, _ = proto.AppendFrame(b, f)
			}
			if _, err := w.Write(b); err != nil {
				return
			}
		}
	}()
	w.fault(proto.ErrorCode_ERROR_CODE_BUSY)
	<-stopped
	n.closedFor("busy", 1)
}
