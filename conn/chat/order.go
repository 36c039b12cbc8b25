package chat

import (
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// orders is the rule that nothing overtakes: after a retryable refusal of a
// send, later sends of that session to the same conversation are refused with
// BUSY until one says resume_order. session.mu guards it.
type orders struct {
	// held maps a conversation to the request id that the edge refused, or 0
	// if the refusal came from behind the mailbox.
	held map[storage.ConvKey]uint64
}

// maxHeld bounds the conversations that one session may have on hold. Only a
// client that ignores refusals gets there.
const maxHeld = 512

// hold begins a hold. edge is the id of a frame that the edge refused: frames
// that arrived before it may still be in the mailbox. It reports false when
// there are too many.
func (s *session) hold(conv storage.ConvKey, edge uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orders == nil {
		s.orders = &orders{held: make(map[storage.ConvKey]uint64)}
	}
	if _, ok := s.orders.held[conv]; !ok && len(s.orders.held) >= maxHeld {
		return false
	}
	s.orders.held[conv] = max(edge, s.orders.held[conv])
	return true
}

// pass says whether the send `id` to conv may go; resume lifts a hold.
//
// A resume that was sent before the edge refused something must not lift that
// refusal's hold, or what was sent in between would overtake. The edge refuses
// out of order, so the request ids have to tell: clients count them up. (One
// that does not pays a second round trip at worst.)
func (s *session) pass(conv storage.ConvKey, id uint64, resume bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.orders == nil {
		return true
	}
	edge, held := s.orders.held[conv]
	switch {
	case !held:
		return true
	case !resume:
		return false
	case id < edge:
		s.orders.held[conv] = 0
		return false
	}
	delete(s.orders.held, conv)
	if len(s.orders.held) == 0 {
		s.orders = nil
	}
	return true
}

// holdOrClose holds conv, or closes a session that has too many on hold.
func (c *Chat) holdOrClose(s *session, conv storage.ConvKey, edge uint64) {
	if !s.hold(conv, edge) {
		c.closeSession(s, proto.Errorf(proto.ErrorCode_ERROR_CODE_RATE_LIMITED, "sends to too many conversations were refused and not taken up again"))
	}
}
