package chat

import (
	"time"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// send starts one message. It never waits: the answer is given where the
// commit completes (sending.complete).
func (c *Chat) send(s *session, f *proto.Frame) (park bool) {
	req := f.GetSend()
	start := c.now()
	conv, fault := s.target(req)
	if fault == nil {
		fault = c.checkSend(req)
	}
	if fault == nil && !s.pass(conv, f.Id, req.ResumeOrder) {
		fault = proto.Errorf(proto.ErrorCode_ERROR_CODE_BUSY, "an earlier send to this conversation was refused: resend in order, the first one with resume_order")
	}
	if fault != nil {
		c.metrics.ack(fault.Code)
		s.conn.Fail(f.Id, fault)
		return false
	}
	c.append(s, f.Id, conv, req, start)
	return false
}

// append hands a send that may go to storage.
func (c *Chat) append(s *session, id uint64, conv storage.ConvKey, req *proto.SendRequest, start time.Time) {
	p := c.sends.Get().(*sending)
	p.s, p.id, p.conv, p.start = s, id, conv, start
	content := req.Content
	body := make([]byte, 0, contentSize(int32(content.Kind), content.Body))
	a := storage.Append{
		Conv: conv, Sender: s.id.user, Kind: kindMessage, Counts: true, SendID: [16]byte(req.SendId),
		Body: appendContent(body, int32(content.Kind), content.Body), Origin: s.conn.ID(), Still: p.still,
	}
	if peer := conv.Peer(s.id.user); peer != s.id.user {
		a.UnlessBlocked = storage.BlockKey{User: peer, Peer: s.id.user}
	}
	c.store.Append(a, p.done)
}

// checkSend looks at what does not depend on the target. A request without an
// id could never be acknowledged, so it is not started.
func (c *Chat) checkSend(req *proto.SendRequest) *proto.Fault {
	content := req.GetContent()
	switch {
	case len(req.SendId) != 16:
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_ID_INVALID, "send_id has %d bytes, must have 16", len(req.SendId))
	case content.GetKind() <= 0:
		return invalid("content.kind must be above 0")
	case len(content.Body) > c.limits.Load().MaxContent:
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_CONTENT_TOO_LARGE, "content.body has %d bytes, at most %d are allowed",
			len(content.Body), c.limits.Load().MaxContent)
	}
	return nil
}

// targeted is what names its conversation by user or key.
type targeted interface {
	GetToUserId() int64
	GetConversation() []byte
}

// target finds the conversation that a request is about: one the session's
// user is part of, never another.
func (s *session) target(req targeted) (storage.ConvKey, *proto.Fault) {
	if key := req.GetConversation(); key != nil {
		return s.conversation(key)
	}
	to := storage.UserID(req.GetToUserId())
	switch {
	case !to.Valid():
		return storage.ConvKey{}, invalid("target: to_user_id must be above 0, or conversation be set")
	case to == s.id.user:
		return storage.SelfKey(to), nil
	}
	return storage.PairKey(s.id.user, to), nil
}

// conversation checks a key that came from the client.
func (s *session) conversation(key []byte) (storage.ConvKey, *proto.Fault) {
	if len(key) != len(storage.ConvKey{}) {
		return storage.ConvKey{}, invalid("conversation has %d bytes, must have 16", len(key))
	}
	conv := storage.ConvKey(key)
	switch {
	case !conv.IsPair() && !conv.IsSelf():
		return conv, proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_FOUND, "no such conversation")
	case !conv.Has(s.id.user):
		return conv, proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED, "not your conversation")
	}
	return conv, nil
}

// sending is a message on its way to the disk. It is pooled, with its answer and
// its callback, so that a send allocates nothing but what is stored.
type sending struct {
	c     *Chat
	s     *session
	id    uint64
	conv  storage.ConvKey
	start time.Time
	done  func(storage.Appended, error)
	still func() bool

	frame proto.Frame
	body  proto.Frame_SendAck
	ack   proto.SendAck
}

func newSending(c *Chat) *sending {
	p := &sending{c: c}
	p.done, p.still = p.complete, p.inOrder
	p.body.SendAck = &p.ack
	p.frame.Body = &p.body
	p.ack.Durability = c.opt.Durability
	return p
}

// inOrder: an earlier send may be refused after this one has passed, and before
// it is in line behind it. Alone in line it would overtake.
func (p *sending) inOrder() bool { return !p.s.holds(p.conv, p.id) }

// complete runs on the engine's completion path: quick, no locks that anybody
// holds across I/O.
func (p *sending) complete(a storage.Appended, err error) {
	c, s := p.c, p.s
	if err != nil {
		c.refused(s, p.id, p.conv, faultOf(err))
	} else {
		p.ack.Conversation = append(p.ack.Conversation[:0], p.conv[:]...)
		p.ack.Rev, p.ack.ConvSeq, p.ack.TimeUs = a.Rev, a.ConvSeq, a.Time
		_ = s.conn.Reply(p.id, &p.frame)
		c.metrics.acked(a.Duplicate, c.now().Sub(p.start))
	}
	p.s = nil
	c.sends.Put(p)
}

// refused answers a send that storage did not take.
func (c *Chat) refused(s *session, id uint64, conv storage.ConvKey, fault *proto.Fault) {
	if fault.Retryable {
		c.holdOrClose(s, conv, 0)
	}
	c.metrics.ack(fault.Code)
	c.logFault(s, fault)
	s.conn.Fail(id, fault)
}

// Refuse answers a frame that the edge does not queue (conn.Handler). It runs
// beside Serve, on the loop.
func (c *Chat) Refuse(cn *conn.Conn, f *proto.Frame, code proto.ErrorCode) {
	s, _ := cn.Data().(*session)
	if ack := f.GetDeliveryAck(); ack != nil && f.Id == 0 {
		// Taken all the same: it costs nothing, its order does not matter, and
		// without it the window of a busy client would stay shut.
		if s != nil {
			c.acknowledge(s, ack.Seq)
		}
		return
	}
	if req := f.GetSend(); req != nil && s != nil {
		if conv, fault := s.target(req); fault == nil {
			c.holdOrClose(s, conv, f.Id)
		}
		c.metrics.ack(code)
	}
	if f.Id != 0 {
		cn.Fail(f.Id, proto.Errorf(code, ""))
	}
}
