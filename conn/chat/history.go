package chat

import (
	"context"
	"errors"
	"math"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

const (
	maxConversations = 100
	defConversations = 50
	maxHistory       = 200
	defHistory       = 50
	// conversationBytes is more than a Conversation weighs without its entry.
	conversationBytes = 128
)

// listConversations answers a page of the user's conversations, each with its
// newest entry and unread count.
func (c *Chat) listConversations(s *session, f *proto.Frame) (park bool) {
	req := f.GetListConversations()
	var after *storage.ConvKey
	if len(req.After) > 0 {
		if len(req.After) != len(storage.ConvKey{}) {
			s.conn.Fail(f.Id, invalid("after must be the next of the page before"))
			return false
		}
		after = (*storage.ConvKey)(req.After)
	}
	limit := clampLimit(req.Limit, maxConversations, defConversations)
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		page, err := c.conversationPage(ctx, s.id.user, after, limit)
		if err != nil {
			return nil, err
		}
		return &proto.Frame{Body: &proto.Frame_Conversations{Conversations: page}}, nil
	})
}

func (c *Chat) conversationPage(ctx context.Context, user storage.UserID, after *storage.ConvKey, limit int) (*proto.Conversations, error) {
	convs, err := c.store.Conversations(ctx, user, after, limit)
	if err != nil {
		return nil, err
	}
	// What other shards add is worth less than the list: it may take half of the
	// time there is.
	extra, cancel := halfOf(ctx)
	defer cancel()
	delivered := c.peerDelivered(extra, user, convs)
	page := &proto.Conversations{}
	more, size := len(convs) == limit, 0
	for i := range convs {
		uc := &convs[i]
		if uc.Key.Conv.IsSelf() && uc.Head == 0 {
			page.Next = uc.Key.Conv[:] // the own log, which nobody has written to
			continue
		}
		last, err := c.lastEntry(ctx, extra, uc)
		if err != nil {
			return nil, err
		}
		if size += len(last.GetMessage().GetContent().GetBody()) + eventOverhead + conversationBytes; size > pageBytes && len(page.Conversations) > 0 {
			more = true
			break
		}
		page.Conversations = append(page.Conversations, &proto.Conversation{
			Conversation: uc.Key.Conv[:], PeerId: int64(uc.Key.Conv.Peer(user)),
			HeadRev: uc.HeadRev, HeadConvSeq: uc.Head, ReadConvSeq: uc.Read, Unread: uc.Unread(),
			PeerDeliveredConvSeq: delivered[uc.Key.Conv], Last: last,
		})
		page.Next = uc.Key.Conv[:]
	}
	if !more {
		page.Next = nil
	}
	return page, nil
}

// halfOf returns a context with half of the time that ctx has.
func halfOf(ctx context.Context) (context.Context, context.CancelFunc) {
	end, ok := ctx.Deadline()
	if !ok {
		return context.WithCancel(ctx)
	}
	return context.WithTimeout(ctx, time.Until(end)/2)
}

// lastEntry is the newest entry that the user may see. Where another shard has
// it, extra counts; and if that does not answer, the list is still worth having:
// the entry then has no body.
func (c *Chat) lastEntry(ctx, extra context.Context, uc *storage.UserConv) (*proto.Event, error) {
	home, _ := c.store.ShardOf(uc.Key.User.Slot())
	owner, _ := c.store.ShardOf(uc.Key.Conv.Slot())
	if owner != home {
		ctx = extra
	}
	entries, err := c.store.History(ctx, uc.Key.Conv, uc.HeadRev, uc.HeadRev, 1, pageBytes, true)
	if owner != home && (errors.Is(err, storage.ErrUnavailable) || errors.Is(err, storage.ErrBusy)) {
		return &proto.Event{Conversation: uc.Key.Conv[:], Rev: uc.HeadRev, ConvSeq: uc.Head, TimeUs: uc.HeadTime}, nil
	}
	if err != nil || len(entries) == 0 || !visible(uc, &entries[0]) {
		return nil, err
	}
	return eventOf(&entries[0], 0)
}

// visible reports whether an entry lies in what the user was there for and has
// not cleared.
func visible(uc *storage.UserConv, e *storage.Entry) bool {
	return e.ConvSeq >= uc.Joined && (e.ConvSeq > uc.Cleared || uc.Cleared == 0)
}

// peerDelivered looks up how far the other sides' devices are. Where their shard
// does not answer, the mark is 0, which is true as well: marks only rise.
func (c *Chat) peerDelivered(ctx context.Context, user storage.UserID, convs []storage.UserConv) map[storage.ConvKey]uint64 {
	keys := make([]storage.UserConvKey, 0, len(convs))
	for i := range convs {
		if conv := convs[i].Key.Conv; !conv.IsSelf() {
			keys = append(keys, storage.UserConvKey{User: conv.Peer(user), Conv: conv})
		}
	}
	theirs, err := c.store.UserConvs(ctx, keys)
	if err != nil {
		c.often.Warn().Err(err).Msg("conversations listed without all delivered marks")
	}
	delivered := make(map[storage.ConvKey]uint64, len(theirs))
	for i := range theirs {
		delivered[theirs[i].Key.Conv] = theirs[i].Delivered
	}
	return delivered
}

// getHistory answers a range of a conversation's log.
func (c *Chat) getHistory(s *session, f *proto.Frame) (park bool) {
	req := f.GetGetHistory()
	conv, fault := s.conversation(req.Conversation)
	if fault != nil {
		s.conn.Fail(f.Id, fault)
		return false
	}
	from, to := max(req.FromRev, 1), req.ToRev
	if to == 0 {
		to = math.MaxInt64
	}
	if from > to {
		s.conn.Fail(f.Id, invalid("from_rev %d is above to_rev %d", from, to))
		return false
	}
	limit := clampLimit(req.Limit, maxHistory, defHistory)
	return c.read(s, f.Id, conv.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		h, err := c.history(ctx, storage.UserConvKey{User: s.id.user, Conv: conv}, from, to, limit, req.NewestFirst)
		if err != nil {
			return nil, err
		}
		return &proto.Frame{Body: &proto.Frame_History_{History_: h}}, nil
	})
}

// history reads one entry more than asked for, to know whether there are more.
func (c *Chat) history(ctx context.Context, key storage.UserConvKey, from, to uint64, limit int, desc bool) (*proto.History, error) {
	own, err := c.store.UserConvs(ctx, []storage.UserConvKey{key})
	if err != nil {
		return nil, err
	}
	if !own[0].Found {
		return nil, proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_FOUND, "no such conversation")
	}
	entries, err := c.store.History(ctx, key.Conv, from, to, limit+1, pageBytes, desc)
	if err != nil {
		return nil, err
	}
	h, size := &proto.History{}, 0
	for i := range entries {
		e := &entries[i]
		if !visible(&own[0], e) {
			if desc {
				return h, nil // nothing further back is visible either
			}
			continue
		}
		if size += len(e.Body) + eventOverhead; len(h.Entries) == limit || size > pageBytes && len(h.Entries) > 0 {
			h.More = true
			return h, nil
		}
		ev, err := eventOf(e, 0)
		if err != nil {
			return nil, err
		}
		h.Entries = append(h.Entries, ev)
	}
	h.More = cutShort(entries, from, to, limit, desc, own[0].HeadRev)
	return h, nil
}

// cutShort reports whether the storage stopped before the end of the range, for
// the weight of the bodies. Revs have no gaps.
func cutShort(entries []storage.Entry, from, to uint64, limit int, desc bool, head uint64) bool {
	if len(entries) == 0 || len(entries) > limit {
		return false
	}
	last := entries[len(entries)-1].Rev
	if desc {
		return last > from
	}
	return last < min(to, head)
}

// getMarks answers read and delivered marks of some conversations.
func (c *Chat) getMarks(s *session, f *proto.Frame) (park bool) {
	ids := f.GetGetMarks().Conversations
	if most := c.limits.Load().MaxIDs; len(ids) > most {
		s.conn.Fail(f.Id, invalid("%d conversations, at most %d are allowed", len(ids), most))
		return false
	}
	keys := make([]storage.UserConvKey, 0, 2*len(ids))
	for _, id := range ids {
		conv, fault := s.conversation(id)
		if fault != nil {
			s.conn.Fail(f.Id, fault)
			return false
		}
		keys = append(keys, storage.UserConvKey{User: s.id.user, Conv: conv},
			storage.UserConvKey{User: conv.Peer(s.id.user), Conv: conv})
	}
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		rows, err := c.store.UserConvs(ctx, keys)
		if err != nil {
			return nil, err // half of the marks would look like no marks
		}
		return &proto.Frame{Body: &proto.Frame_Marks_{Marks_: marksFrom(rows, s.id.user)}}, nil
	})
}

// marksFrom joins both sides' rows, whatever their order.
func marksFrom(rows []storage.UserConv, user storage.UserID) *proto.Marks {
	marks, at := &proto.Marks{}, make(map[storage.ConvKey]*proto.Mark)
	for i := range rows {
		uc := &rows[i]
		if uc.Key.User == user && uc.Found && at[uc.Key.Conv] == nil {
			m := &proto.Mark{Conversation: uc.Key.Conv[:], ReadConvSeq: uc.Read}
			at[uc.Key.Conv] = m
			marks.Marks = append(marks.Marks, m)
		}
	}
	for i := range rows {
		uc := &rows[i]
		if m := at[uc.Key.Conv]; m != nil && uc.Key.User != user {
			m.PeerDeliveredConvSeq = uc.Delivered
		}
	}
	return marks
}

// markRead raises the own read mark and tells the own devices, in one
// transaction. A mark beyond the newest message means the newest.
func (c *Chat) markRead(s *session, f *proto.Frame) (park bool) {
	req := f.GetMarkRead()
	conv, fault := s.conversation(req.Conversation)
	if fault != nil {
		s.conn.Fail(f.Id, fault)
		return false
	}
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		if err := c.raiseRead(ctx, s, conv, req.ConvSeq); err != nil {
			return nil, err
		}
		return okFrame(), nil
	})
}

func (c *Chat) raiseRead(ctx context.Context, s *session, conv storage.ConvKey, seq uint64) error {
	key := storage.UserConvKey{User: s.id.user, Conv: conv}
	own := storage.SelfKey(s.id.user)
	reads := storage.Reads{UserConvs: []storage.UserConvKey{key}, Convs: []storage.ConvKey{own}}
	return c.store.Update(ctx, reads, func(tx *storage.Tx) error {
		uc := tx.UserConv(key)
		if !uc.Found {
			return proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_FOUND, "no such conversation")
		}
		read := min(seq, uc.Head)
		if read <= uc.Read {
			return nil
		}
		uc.Read = read
		uc.Delivered = max(uc.Delivered, read) // who has read it has it
		tx.PutUserConv(uc)
		body, err := entryBody(&proto.ReadMark{Conversation: conv[:], ConvSeq: read})
		if err != nil {
			return err
		}
		_, err = tx.Append(storage.Append{
			Conv: own, Sender: s.id.user, Kind: kindRead, Body: body, Origin: s.conn.ID(),
		})
		return err
	})
}
