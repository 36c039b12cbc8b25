package chat

import (
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// The rule that nothing overtakes: after a retryable refusal of a send, later
// sends of that session to the same conversation are refused with BUSY until one
// says resume_order. more.held has these conversations.

// hold is why a conversation waits. What comes from behind the mailbox (plain)
// is in order with the sends that ask. The edge refuses beside it, while sends
// that came earlier are still in the mailbox: there the request ids, which
// rise, tell before from after. Without them a resume that was sent before such a
// refusal would lift its hold, and what was sent in between would overtake.
type hold struct {
	plain       bool
	first, last uint64 // ids that the edge refused; 0: none
}

// maxHeld bounds the conversations that one session may have on hold. Only a
// client that ignores refusals gets there.
const maxHeld = 512

// hold begins a hold; edge is the id that the edge refused, 0 if the refusal
// came from behind. It reports false when there are too many.
func (s *session) hold(conv storage.ConvKey, edge uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return true
	}
	m := s.extra()
	if m.held == nil {
		m.held = make(map[storage.ConvKey]hold)
	}
	h, ok := m.held[conv]
	if !ok && len(m.held) >= maxHeld {
		return false
	}
	if edge == 0 {
		h.plain = true
	} else {
		if h.first == 0 {
			h.first = edge
		}
		h.last = max(h.last, edge)
	}
	m.held[conv] = h
	return true
}

// pass says whether the send `id` to conv may go; resume lifts what came
// before it.
func (s *session) pass(conv storage.ConvKey, id uint64, resume bool) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more == nil {
		return true
	}
	held := s.more.held
	h, ok := held[conv]
	if !ok || !h.plain && id < h.first {
		return true
	}
	if !resume {
		return false
	}
	h.plain = false
	if id < h.last {
		h.first = id + 1
	} else {
		h.first, h.last = 0, 0
	}
	if h != (hold{}) {
		held[conv] = h
		return true
	}
	delete(held, conv)
	if len(held) == 0 {
		s.more.held = nil
		s.tidy()
	}
	return true
}

// holds reports whether the send id to conv must wait. Unlike pass it lifts
// nothing: storage asks it when the send takes its place in line.
func (s *session) holds(conv storage.ConvKey, id uint64) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more == nil {
		return false
	}
	h, ok := s.more.held[conv]
	return ok && (h.plain || id >= h.first)
}

// holdOrClose holds conv, or closes a session that has too many on hold.
func (c *Chat) holdOrClose(s *session, conv storage.ConvKey, edge uint64) {
	if !s.hold(conv, edge) {
		c.closeSession(s, proto.Errorf(proto.ErrorCode_ERROR_CODE_RATE_LIMITED, "sends to too many conversations were refused and not taken up again"))
	}
}
