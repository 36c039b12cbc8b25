package bench

import (
	"bytes"
	"crypto/tls"
	"encoding/binary"
	"fmt"
	"net"
	"sync"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

// fakeServer speaks enough of the protocol for the scenarios, and can break
// every promise on demand. Its data outlive kill, as a real one's do.
type fakeServer struct {
	t    *testing.T
	addr string

	mu       sync.Mutex
	ln       net.Listener
	conns    map[*fakeConn]bool
	names    map[string]*fakeUser
	users    map[int64]*fakeUser
	convs    map[string][]*proto.Event
	sends    map[string]*proto.SendAck
	accepted int    // sends, retries included
	beat     uint32 // heartbeat, in seconds
	tls      *tls.Config
	faults   faults
	seen     seen
	done     sync.WaitGroup
}

// faults are what a test makes go wrong; called with the server's mutex held.
type faults struct {
	// store returns what to put into an inbox instead of ev; push is whether
	// to push it.
	store func(u *fakeUser, ev *proto.Event) (evs []*proto.Event, push bool)
	// refuse answers the n-th send (1, 2, …) with an error.
	refuse func(n int) *proto.Fault
	// stall is called before a send is handled.
	stall func(n int)
	// hello refuses logins.
	hello func() *proto.Fault
}

// seen is what clients did.
type seen struct {
	passwords, secrets, tokens, heartbeats, deliveryAcks, resumes int
	complaints                                                    []string
}

type fakeUser struct {
	id        int64
	name, pwd string
	device    []byte
	cur, prev []byte
	token     string
	inbox     []*proto.Event
	conn      *fakeConn
	skipped   uint64 // seqs left out by a fault
}

type fakeConn struct {
	c      net.Conn
	user   *fakeUser
	lastID uint64
	own    map[string]bool // send ids of this connection
	held   map[int64]bool  // conversations that wait for resume_order
}

func newFake(t *testing.T) *fakeServer {
	f := &fakeServer{
		t: t, addr: "127.0.0.1:0", conns: make(map[*fakeConn]bool), names: make(map[string]*fakeUser),
		users: make(map[int64]*fakeUser), beat: 60, convs: make(map[string][]*proto.Event), sends: make(map[string]*proto.SendAck),
	}
	f.listen()
	t.Cleanup(func() {
		f.kill()
		for _, c := range f.seen.complaints {
			t.Errorf("the client broke the protocol: %s", c)
		}
	})
	return f
}

func (f *fakeServer) listen() {
	ln, err := net.Listen("tcp", f.addr)
	if err != nil {
		f.t.Error(err)
		return
	}
	f.mu.Lock()
	f.addr = ln.Addr().String()
	if f.tls != nil {
		ln = tls.NewListener(ln, f.tls)
	}
	f.ln = ln
	f.mu.Unlock()
	f.done.Go(func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			fc := &fakeConn{c: c, own: make(map[string]bool), held: make(map[int64]bool)}
			f.mu.Lock()
			f.conns[fc] = true
			f.mu.Unlock()
			f.done.Go(func() { f.serve(fc) })
		}
	})
}

// kill ends all connections at once; the data stay.
func (f *fakeServer) kill() {
	f.mu.Lock()
	f.ln.Close()
	for c := range f.conns {
		c.c.Close()
	}
	f.mu.Unlock()
	f.done.Wait()
}

func (f *fakeServer) complain(format string, args ...any) {
	f.seen.complaints = append(f.seen.complaints, fmt.Sprintf(format, args...))
}

func (f *fakeServer) serve(c *fakeConn) {
	defer func() {
		c.c.Close()
		f.mu.Lock()
		delete(f.conns, c)
		if c.user != nil && c.user.conn == c {
			c.user.conn = nil
		}
		f.mu.Unlock()
	}()
	var buf []byte
	chunk := make([]byte, 16<<10)
	for {
		n, err := c.c.Read(chunk)
		if err != nil {
			return
		}
		buf = append(buf, chunk[:n]...)
		for {
			payload, n, err := proto.Next(buf, proto.MaxFrameSession)
			if err != nil {
				return
			}
			if n == 0 {
				break
			}
			buf = buf[n:]
			if !f.frame(c, payload) {
				return
			}
		}
	}
}

func (f *fakeServer) frame(c *fakeConn, payload []byte) bool {
	f.mu.Lock()
	defer f.mu.Unlock()
	if proto.IsHeartbeat(payload) {
		f.seen.heartbeats++
		c.write(proto.AppendHeartbeat(nil))
		return true
	}
	var fr proto.Frame
	if err := proto.Decode(payload, &fr); err != nil {
		f.complain("bad frame: %v", err)
		return false
	}
	if id := fr.GetId(); id != 0 {
		if id <= c.lastID {
			f.complain("request id %d after %d", id, c.lastID)
		}
		c.lastID = id
	}
	switch body := fr.GetBody().(type) {
	case *proto.Frame_Hello:
		return f.hello(c, fr.GetId(), body.Hello)
	case *proto.Frame_Send:
		f.send(c, fr.GetId(), body.Send)
	case *proto.Frame_DeliveryAck:
		f.seen.deliveryAcks++
		if seq := body.DeliveryAck.GetSeq(); seq > uint64(len(c.user.inbox))+c.user.skipped {
			f.complain("delivery ack %d beyond the inbox", seq)
		}
	case *proto.Frame_Sync:
		r := &proto.SyncResponse{CaughtUp: true}
		for _, ev := range c.user.inbox {
			if ev.GetSeq() > body.Sync.GetCursor().GetSeq() {
				r.Events = append(r.Events, ev)
			}
		}
		if len(r.Events) > 20 { // pages
			r.Events, r.CaughtUp = r.Events[:20], false
		}
		c.frame(&proto.Frame{Id: fr.GetId(), Body: &proto.Frame_SyncResponse{SyncResponse: r}})
	case *proto.Frame_GetHistory:
		h := &proto.History{}
		for _, ev := range f.convs[string(body.GetHistory.GetConversation())] {
			if ev.GetRev() >= body.GetHistory.GetFromRev() && ev.GetRev() <= body.GetHistory.GetToRev() {
				h.Entries = append(h.Entries, ev)
			}
		}
		c.frame(&proto.Frame{Id: fr.GetId(), Body: &proto.Frame_History_{History_: h}})
	default:
		f.complain("unexpected %T", body)
	}
	return true
}

func (c *fakeConn) write(b []byte) {
	_ = c.c.SetWriteDeadline(time.Now().Add(5 * time.Second)) // fails below
	if _, err := c.c.Write(b); err != nil {
		c.c.Close()
	}
}

func (c *fakeConn) frame(fr *proto.Frame) {
	b, err := proto.AppendFrame(nil, fr)
	if err != nil {
		panic(err)
	}
	c.write(b)
}

func (f *fakeServer) hello(c *fakeConn, id uint64, h *proto.Hello) bool {
	fault := (*proto.Fault)(nil)
	if f.faults.hello != nil {
		fault = f.faults.hello()
	}
	var u *fakeUser
	if fault == nil {
		u, fault = f.authenticate(h)
	}
	if fault != nil {
		c.frame(&proto.Frame{Id: id, Body: &proto.Frame_Error{Error: fault.Wire()}})
		return false
	}
	if u.conn != nil {
		u.conn.c.Close()
	}
	c.user, u.conn = u, c
	head := &proto.Cursor{Epoch: 77, Seq: uint64(len(u.inbox)) + u.skipped}
	w := &proto.Welcome{
		Version: 1, UserId: u.id, Name: u.name, ServerTimeUs: time.Now().Add(time.Hour).UnixMicro(),
		AccessToken: u.token, AccessTokenExpiresUs: time.Now().Add(time.Hour).UnixMicro(), Head: head,
		Limits: &proto.Limits{HeartbeatSeconds: f.beat, EventWindow: 64, MaxInFlight: 16},
	}
	after := head.GetSeq()
	if h.GetCursor() == nil {
		w.Reset_ = &proto.Reset{Reason: proto.ResetReason_RESET_REASON_NO_CURSOR, Resume: head}
	} else {
		after = h.GetCursor().GetSeq()
	}
	c.frame(&proto.Frame{Id: id, Body: &proto.Frame_Welcome{Welcome: w}})
	for _, ev := range u.inbox {
		if ev.GetSeq() > after {
			c.push(ev)
		}
	}
	c.frame(&proto.Frame{Body: &proto.Frame_CaughtUp{CaughtUp: &proto.CaughtUp{Seq: head.GetSeq()}}})
	return true
}

func (f *fakeServer) authenticate(h *proto.Hello) (*fakeUser, *proto.Fault) {
	denied := proto.Errorf(proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, "")
	switch cred := h.GetCredentials().(type) {
	case *proto.Hello_AccessToken:
		f.seen.tokens++
		for _, u := range f.users {
			if u.token == cred.AccessToken {
				return u, nil
			}
		}
		return nil, proto.Errorf(proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED, "")
	case *proto.Hello_DeviceSecret:
		f.seen.secrets++
		u := f.users[cred.DeviceSecret.GetUserId()]
		cur, next := cred.DeviceSecret.GetCurrent(), h.GetNextSecret()
		switch {
		case u == nil:
			return nil, denied
		case bytes.Equal(cur, u.prev) && bytes.Equal(next, u.cur):
		case bytes.Equal(cur, u.cur):
			u.prev, u.cur = u.cur, next
		default:
			return nil, denied
		}
		u.token = fmt.Sprintf("token-%d-%x", u.id, u.cur[:4])
		return u, nil
	case *proto.Hello_Register:
		f.seen.passwords++
		u := f.names[cred.Register.GetName()]
		if u != nil {
			if !bytes.Equal(u.device, h.GetDevice().GetId()) {
				return nil, proto.Errorf(proto.ErrorCode_ERROR_CODE_NAME_TAKEN, "")
			}
			return u, nil
		}
		u = &fakeUser{id: int64(len(f.users)+1) << 40, name: cred.Register.GetName(), pwd: cred.Register.GetPassword(), device: h.GetDevice().GetId(), cur: h.GetNextSecret()}
		u.token = fmt.Sprintf("token-%d-%x", u.id, u.cur[:4])
		f.names[u.name], f.users[u.id] = u, u
		return u, nil
	case *proto.Hello_Login:
		f.seen.passwords++
		u := f.names[cred.Login.GetName()]
		if u == nil || u.pwd != cred.Login.GetPassword() {
			return nil, denied
		}
		u.device, u.cur = h.GetDevice().GetId(), h.GetNextSecret()
		return u, nil
	}
	return nil, denied
}

func (f *fakeServer) send(c *fakeConn, id uint64, r *proto.SendRequest) {
	f.accepted++
	if f.faults.stall != nil {
		f.faults.stall(f.accepted)
	}
	to := r.GetToUserId()
	if r.GetResumeOrder() {
		if !c.held[to] {
			f.complain("resume_order without a refusal")
		}
		f.seen.resumes++
		delete(c.held, to)
	}
	var fault *proto.Fault
	if c.held[to] {
		fault = proto.Errorf(proto.ErrorCode_ERROR_CODE_BUSY, "")
	} else if f.faults.refuse != nil {
		fault = f.faults.refuse(f.accepted)
	}
	if fault != nil {
		if fault.Retryable {
			c.held[to] = true
		}
		c.frame(&proto.Frame{Id: id, Body: &proto.Frame_Error{Error: fault.Wire()}})
		return
	}
	c.own[string(r.GetSendId())] = true
	c.frame(&proto.Frame{Id: id, Body: &proto.Frame_SendAck{SendAck: f.commit(c.user, f.users[to], r)}})
}

// commit stores a message once, delivers it, and returns the ack.
func (f *fakeServer) commit(from, to *fakeUser, r *proto.SendRequest) *proto.SendAck {
	scope := fmt.Sprint(from.id, to.id) + string(r.GetSendId())
	if ack := f.sends[scope]; ack != nil {
		return ack
	}
	conv := binary.BigEndian.AppendUint64(nil, uint64(min(from.id, to.id)))
	conv = binary.BigEndian.AppendUint64(conv, uint64(max(from.id, to.id)))
	place := uint64(len(f.convs[string(conv)]) + 1)
	ack := &proto.SendAck{Conversation: conv, Rev: place, ConvSeq: place, TimeUs: int64(place), Durability: proto.Durability_DURABILITY_DISK}
	f.sends[scope] = ack
	ev := &proto.Event{
		Conversation: conv, Rev: place, ConvSeq: place, TimeUs: int64(place), ActorId: from.id,
		Body: &proto.Event_Message{Message: &proto.Message{SendId: r.GetSendId(), ToUserId: to.id, Content: r.GetContent()}},
	}
	f.convs[string(conv)] = append(f.convs[string(conv)], ev)
	f.deliver(from, ev)
	f.deliver(to, ev)
	return ack
}

func (f *fakeServer) deliver(u *fakeUser, ev *proto.Event) {
	evs, push := []*proto.Event{ev}, true
	if f.faults.store != nil {
		evs, push = f.faults.store(u, ev)
	}
	for _, ev := range evs {
		row := gproto.CloneOf(ev)
		row.Seq = uint64(len(u.inbox)) + u.skipped + 1
		u.inbox = append(u.inbox, row)
		if push && u.conn != nil {
			u.conn.push(row)
		}
	}
}

func (c *fakeConn) push(ev *proto.Event) {
	if m := ev.GetMessage(); m != nil && c.own[string(m.GetSendId())] && ev.GetActorId() == c.user.id {
		ev = gproto.CloneOf(ev)
		ev.GetMessage().Content = nil
	}
	c.frame(&proto.Frame{Body: &proto.Frame_Events{Events: &proto.EventBatch{Events: []*proto.Event{ev}}}})
}
