package chat

import (
	"context"
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

const (
	// typingEvery: within it a repeated «typing» to the same person says
	// nothing new (it is shown for 6 s), and to another it is too fast to be
	// typed.
	typingEvery  = 3 * time.Second
	typingSwitch = 250 * time.Millisecond
	// blockFresh is how old knowledge about a block may be.
	blockFresh = 5 * time.Second
	blockCount = 8192
)

// typed is the last typing signal that a session has passed on.
type typed struct {
	conv storage.ConvKey
	at   time.Time
	on   bool
}

// typing passes a signal on, now or never. There is no answer.
func (c *Chat) typing(s *session, f *proto.Frame) (park bool) {
	req := f.GetTyping()
	conv, fault := s.target(req)
	if fault != nil || conv.IsSelf() || !s.mayType(conv, req.On, c.now()) {
		c.metrics.hints["collapsed"].Inc()
		return false
	}
	peer := conv.Peer(s.id.user)
	if c.shed(shedTyping, s.id.user, peer) {
		c.metrics.hints["shed"].Inc()
		return false
	}
	if blocked, known := c.blocks.look(s.id.user, peer, c.now()); known {
		if !blocked {
			c.hintTyping(c.ctx, conv, s.id.user, req.On)
		}
		return false
	}
	err := c.store.Go(peer.Slot(), func(ctx context.Context) {
		if blocked, err := c.blocks.read(ctx, s.id.user, peer); err != nil || blocked {
			return
		}
		// What holds now: another signal may have overtaken this one here.
		if on, ok := s.types(conv); ok {
			c.hintTyping(ctx, conv, s.id.user, on)
		}
	})
	if err != nil {
		c.metrics.hints["shed"].Inc()
	}
	return false
}

// mayType collapses what says nothing new.
func (s *session) mayType(conv storage.ConvKey, on bool, now time.Time) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return false
	}
	last := &s.rates().typed
	since := now.Sub(last.at)
	switch {
	case last.conv != conv && since < typingSwitch,
		last.conv == conv && last.on == on && (!on || since < typingEvery),
		last.conv == conv && last.on != on && on && since < typingSwitch:
		return false
	}
	*last = typed{conv: conv, at: now, on: on}
	return true
}

// types is the last signal passed on, if it was for conv.
func (s *session) types(conv storage.ConvKey) (on, ok bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.more == nil || s.more.busy == nil || s.more.busy.typed.conv != conv {
		return false, false
	}
	return s.more.busy.typed.on, true
}

func (c *Chat) hintTyping(ctx context.Context, conv storage.ConvKey, user storage.UserID, on bool) {
	frame, err := proto.AppendFrame(nil, &proto.Frame{Body: &proto.Frame_Hint{Hint: &proto.Hint{
		Body: &proto.Hint_Typing{Typing: &proto.TypingHint{Conversation: conv[:], UserId: int64(user), On: on}},
	}}})
	if err != nil {
		c.log.Error().Err(err).Msg("a typing hint cannot be encoded")
		return
	}
	c.router.Hint(ctx, []router.Hint{{User: int64(conv.Peer(user)), Frame: frame}})
}

// Hint shows hints to the foreground sessions of this node (router.Local).
func (c *Chat) Hint(hs []router.Hint) {
	for i := range hs {
		for _, s := range c.sessionsOf(storage.UserID(hs[i].User)) {
			if s.takesHints() {
				_ = s.conn.SendBytes(hs[i].Frame)
				c.metrics.hints["sent"].Inc()
			}
		}
	}
}

// takesHints reports whether the app is in front, and the Welcome out: nothing
// may come before it.
func (s *session) takesHints() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.foreground && s.welcomed && !s.closed
}

// setState notes whether the app is in front.
func (c *Chat) setState(s *session, f *proto.Frame) (park bool) {
	s.mu.Lock()
	s.foreground = f.GetSetState().State == proto.AppState_APP_STATE_FOREGROUND
	s.mu.Unlock()
	_ = s.conn.Reply(f.Id, okFrame())
	return false
}

// blockCache knows for a few seconds whether either of two users blocks the
// other. Only signals ask it; messages are checked where they are committed.
type blockCache struct {
	c  *Chat
	mu sync.Mutex
	m  map[storage.ConvKey]blockSeen
}

type blockSeen struct {
	at      time.Time
	blocked bool
}

func newBlockCache(c *Chat) *blockCache {
	return &blockCache{c: c, m: make(map[storage.ConvKey]blockSeen)}
}

func (b *blockCache) look(a, z storage.UserID, now time.Time) (blocked, known bool) {
	b.mu.Lock()
	defer b.mu.Unlock()
	seen, ok := b.m[storage.PairKey(a, z)]
	return seen.blocked, ok && now.Sub(seen.at) < blockFresh
}

// read asks both users' shards.
func (b *blockCache) read(ctx context.Context, a, z storage.UserID) (blocked bool, err error) {
	for _, key := range []storage.BlockKey{{User: a, Peer: z}, {User: z, Peer: a}} {
		err := b.c.store.View(ctx, key.User.Slot(), func(snap storage.Snap) error {
			block, err := snap.Block(key)
			blocked = blocked || block.Found
			return err
		})
		if err != nil {
			return false, err
		}
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if len(b.m) >= blockCount {
		clear(b.m) // five seconds of knowledge: not worth more than this
	}
	b.m[storage.PairKey(a, z)] = blockSeen{at: b.c.now(), blocked: blocked}
	return blocked, nil
}
