package chat

import (
	"context"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// floodFactor: so many times a rate, and the session is closed.
const floodFactor = 10

// sync answers a client that reads the inbox by itself: after a Reset, or when
// it lost what it was sent.
func (c *Chat) sync(s *session, f *proto.Frame) (park bool) {
	if fault := c.syncRate(s); fault != nil {
		s.conn.Fail(f.Id, fault)
		return false
	}
	req := f.GetSync()
	limit := clampLimit(req.Limit, maxSyncEvents, maxSyncEvents)
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		resp, err := c.syncPage(ctx, s.id.user, req.Cursor, limit)
		if err != nil {
			return nil, err
		}
		return &proto.Frame{Body: &proto.Frame_SyncResponse{SyncResponse: resp}}, nil
	})
}

func (c *Chat) syncPage(ctx context.Context, user storage.UserID, cur *proto.Cursor, limit int) (*proto.SyncResponse, error) {
	page, err := c.store.Sync(ctx, user, cur.GetSeq(), limit, pageBytes)
	if err != nil {
		return nil, err
	}
	// The floor is of the same snapshot as the rows, so it is checked after
	// reading: rows that retention took are never skipped silently (R6).
	from, reset := cursorOf(cur, page.Head)
	if reset != nil {
		return &proto.SyncResponse{Reset_: reset, Next: cursorAt(page.Head, from), CaughtUp: true}, nil
	}
	resp := &proto.SyncResponse{}
	size := 0
	for i := range page.Rows {
		row := &page.Rows[i]
		if size += len(row.Entry.Body) + eventOverhead; size > pageBytes && i > 0 {
			break
		}
		ev, err := eventOf(&row.Entry, row.Seq)
		if err != nil {
			return nil, err
		}
		resp.Events = append(resp.Events, ev)
		from = row.Seq
	}
	resp.Next, resp.CaughtUp = cursorAt(page.Head, from), from >= page.Head.Seq
	return resp, nil
}

// syncRate counts a second's SyncRequests of a session.
func (c *Chat) syncRate(s *session) *proto.Fault {
	if s.conn.Exempt() {
		return nil
	}
	now, rate := c.now(), c.limits.Load().SyncsPerSecond
	s.mu.Lock()
	b := s.rates()
	if sec := now.Unix(); b.syncSecond != sec {
		b.syncSecond, b.syncs = sec, 0
	}
	b.syncs++
	n := b.syncs
	s.mu.Unlock()
	if n <= rate {
		return nil
	}
	fault := proto.Errorf(proto.ErrorCode_ERROR_CODE_RATE_LIMITED, "at most %d sync requests a second", rate).WithRetry(time.Second)
	if n > floodFactor*rate {
		c.closeSession(s, fault)
	}
	return fault
}

// clampLimit brings a client's limit into 1 … most; 0 means the default.
func clampLimit(limit uint32, most, def int) int {
	if limit == 0 {
		return def
	}
	return int(min(limit, uint32(most)))
}
