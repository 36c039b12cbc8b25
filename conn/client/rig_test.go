package client

import (
	"context"
	"errors"
	"net"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/proto"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

const (
	patience = time.Minute
	testUser = int64(42)
	friend   = int64(77)
	epoch    = uint64(9)
)

// server is a scripted server: the test accepts each connection and plays the
// other side, frame by frame.
type server struct {
	t  *testing.T
	ln net.Listener
}

func newServer(t *testing.T) *server {
	t.Helper()
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	return &server{t, ln}
}

func (s *server) addr() string { return s.ln.Addr().String() }

// peer is the server's end of one connection.
type peer struct {
	t     *testing.T
	conn  net.Conn
	buf   []byte
	acked uint64 // highest DeliveryAck
	beats int    // heartbeats read
}

func (s *server) accept() *peer {
	s.t.Helper()
	s.ln.(*net.TCPListener).SetDeadline(time.Now().Add(patience))
	conn, err := s.ln.Accept()
	if err != nil {
		s.t.Fatal("no connection: ", err)
	}
	s.t.Cleanup(func() { conn.Close() })
	return &peer{t: s.t, conn: conn}
}

// nobody fails if a connection comes within d.
func (s *server) nobody(d time.Duration) {
	s.t.Helper()
	s.ln.(*net.TCPListener).SetDeadline(time.Now().Add(d))
	if conn, err := s.ln.Accept(); err == nil {
		conn.Close()
		s.t.Fatal("the client connected again")
	}
}

// read returns the next frame, nil for a heartbeat.
func (p *peer) read() (*proto.Frame, error) {
	p.conn.SetReadDeadline(time.Now().Add(patience))
	for {
		payload, n, err := proto.Next(p.buf, proto.MaxFrameSession)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			p.buf = p.buf[n:]
			if proto.IsHeartbeat(payload) {
				p.beats++
				return nil, nil
			}
			f := new(proto.Frame)
			return f, proto.Decode(payload, f)
		}
		b := make([]byte, 4096)
		n, err = p.conn.Read(b)
		if err != nil {
			return nil, err
		}
		p.buf = append(p.buf, b[:n]...)
	}
}

// next returns the next frame that is neither heartbeat nor DeliveryAck.
func (p *peer) next() *proto.Frame {
	p.t.Helper()
	for {
		f, err := p.read()
		if err != nil {
			p.t.Fatal("no frame: ", err)
		}
		if a := f.GetDeliveryAck(); a != nil {
			p.acked = max(p.acked, a.GetSeq())
		} else if f != nil {
			return f
		}
	}
}

func (p *peer) waitAck(seq uint64) {
	p.t.Helper()
	for p.acked < seq {
		f, err := p.read()
		if err != nil {
			p.t.Fatalf("no delivery ack for %d (have %d): %v", seq, p.acked, err)
		}
		if a := f.GetDeliveryAck(); a != nil {
			p.acked = max(p.acked, a.GetSeq())
		}
	}
}

// gone waits until the client has closed the connection.
func (p *peer) gone() {
	p.t.Helper()
	for {
		_, err := p.read()
		var timeout net.Error
		switch {
		case errors.As(err, &timeout) && timeout.Timeout():
			p.t.Fatal("the client keeps the connection")
		case err != nil:
			return
		}
	}
}

func (p *peer) send(frames ...*proto.Frame) {
	p.t.Helper()
	var b []byte
	for _, f := range frames {
		var err error
		if b, err = proto.AppendFrame(b, f); err != nil {
			p.t.Fatal(err)
		}
	}
	p.conn.SetWriteDeadline(time.Now().Add(patience))
	if _, err := p.conn.Write(b); err != nil {
		p.t.Fatal(err)
	}
}

func (p *peer) close() { p.conn.Close() }

func (p *peer) hello() (id uint64, h *proto.Hello) {
	p.t.Helper()
	f := p.next()
	if f.GetHello() == nil {
		p.t.Fatalf("the first frame is a %T", f.GetBody())
	}
	return f.GetId(), f.GetHello()
}

func welcome(id uint64, change ...func(*proto.Welcome)) *proto.Frame {
	w := &proto.Welcome{
		Version: 1, UserId: testUser, Name: "ann", ServerTimeUs: time.Now().UnixMicro(),
		Limits: &proto.Limits{HeartbeatSeconds: 60, MaxFrameBytes: 64 << 10, MaxContentBytes: 32 << 10,
			EventWindow: 64, MaxInFlight: 16, MaxSyncEvents: 200, MaxIds: 3},
		Head: &proto.Cursor{Epoch: epoch},
	}
	for _, f := range change {
		f(w)
	}
	return &proto.Frame{Id: id, Body: &proto.Frame_Welcome{Welcome: w}}
}

// login plays Hello and Welcome. A Hello without a cursor gets a Reset to 0.
func (s *server) login(change ...func(*proto.Welcome)) (*peer, *proto.Hello) {
	s.t.Helper()
	p := s.accept()
	id, h := p.hello()
	p.send(welcome(id, append([]func(*proto.Welcome){func(w *proto.Welcome) {
		if h.GetCursor() == nil {
			w.Reset_ = &proto.Reset{Reason: proto.ResetReason_RESET_REASON_NO_CURSOR, Resume: &proto.Cursor{Epoch: epoch}}
		}
	}}, change...)...))
	return p, h
}

func withToken(token string, life time.Duration) func(*proto.Welcome) {
	return func(w *proto.Welcome) {
		w.AccessToken, w.AccessTokenExpiresUs = token, time.Now().Add(life).UnixMicro()
	}
}

func wireError(id uint64, f *proto.Fault) *proto.Frame {
	return &proto.Frame{Id: id, Body: &proto.Frame_Error{Error: f.Wire()}}
}

func fault(code proto.ErrorCode) *proto.Fault { return proto.Errorf(code, "") }

func events(from, to uint64) *proto.Frame {
	b := &proto.EventBatch{}
	for seq := from; seq <= to; seq++ {
		b.Events = append(b.Events, message(seq))
	}
	return &proto.Frame{Body: &proto.Frame_Events{Events: b}}
}

func message(seq uint64) *proto.Event {
	return &proto.Event{Seq: seq, Rev: seq, ConvSeq: seq, ActorId: friend,
		Body: &proto.Event_Message{Message: &proto.Message{Content: Text("hi"), ToUserId: testUser}}}
}

func caughtUp(seq uint64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_CaughtUp{CaughtUp: &proto.CaughtUp{Seq: seq}}}
}

func ack(id, rev uint64) *proto.Frame {
	return &proto.Frame{Id: id, Body: &proto.Frame_SendAck{SendAck: &proto.SendAck{
		Conversation: make([]byte, 16), Rev: rev, ConvSeq: rev, Durability: proto.Durability_DURABILITY_DISK}}}
}

// app is the application: it records what the client tells it.
type app struct {
	mu     sync.Mutex
	seqs   []uint64
	events []*proto.Event
	states []State
	resets []*proto.Reset
	hints  []*proto.Hint
	caught int
}

func (a *app) note(f func()) {
	a.mu.Lock()
	defer a.mu.Unlock()
	f()
}

// options are quick ones; Dial or New with them records into a.
func (a *app) options(addrs ...string) Options {
	return Options{
		Endpoints:   addrs,
		Credentials: Credentials{Name: "ann", Password: "secret word"},
		BackoffBase: time.Millisecond, BackoffMax: 5 * time.Millisecond,
		AckDelay: 10 * time.Millisecond,
		OnEvents: func(_ *Client, evs []*proto.Event) {
			a.note(func() {
				for _, ev := range evs {
					a.seqs, a.events = append(a.seqs, ev.GetSeq()), append(a.events, ev)
				}
			})
		},
		OnState: func(_ *Client, s State) { a.note(func() { a.states = append(a.states, s) }) },
		OnHint:  func(_ *Client, h *proto.Hint) { a.note(func() { a.hints = append(a.hints, h) }) },
		OnReset: func(_ context.Context, _ *Client, r *proto.Reset) error {
			a.note(func() { a.resets = append(a.resets, r) })
			return nil
		},
		OnCaughtUp: func(*Client) { a.note(func() { a.caught++ }) },
	}
}

// start makes a client that is closed with the test.
func start(t *testing.T, o Options) *Client {
	t.Helper()
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

// resumed is a Store of a device that has logged in.
func resumed(cursor uint64) *MemoryStore {
	return &MemoryStore{s: Session{
		DeviceID: make([]byte, 16), UserID: testUser, Name: "ann", Secret: secretOf('a'),
		Cursor: Cursor{Epoch: epoch, Seq: cursor}, HasCursor: true,
	}}
}

func secretOf(b byte) []byte {
	s := make([]byte, 32)
	for i := range s {
		s[i] = b
	}
	return s
}

// eventually waits until ok.
func eventually(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(patience); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("never: ", what)
		}
	}
}

func (a *app) applied(t *testing.T, n int) {
	t.Helper()
	eventually(t, "events applied", func() bool {
		a.mu.Lock()
		defer a.mu.Unlock()
		return len(a.seqs) >= n
	})
	a.mu.Lock()
	defer a.mu.Unlock()
	for i, seq := range a.seqs {
		if seq != a.seqs[0]+uint64(i) {
			t.Fatalf("applied %v", a.seqs)
		}
	}
	if len(a.seqs) != n {
		t.Fatalf("applied %d events, want %d", len(a.seqs), n)
	}
}

func ctxFor(t *testing.T) context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	t.Cleanup(cancel)
	return ctx
}

func wantKind(t *testing.T, err error, k Kind) {
	t.Helper()
	if !errors.Is(err, k) {
		t.Fatalf("got error «%v», want %v", err, k)
	}
}
