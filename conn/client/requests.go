package client

import (
	"context"
	"slices"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// call is a request that is no message, until it is answered. done is called
// once, without mu held.
type call struct {
	frame *proto.Frame
	done  func(*proto.Frame, error)
}

// Do sends f as a request, once, and returns the answer, which is never an
// Error: that becomes the returned error. It waits until the client is online.
// It is the way to requests that have no method here; f.Id is overwritten.
// Sends belong to Send.
func (c *Client) Do(ctx context.Context, f *proto.Frame) (*proto.Frame, error) {
	type result struct {
		f   *proto.Frame
		err error
	}
	ch := make(chan result, 1)
	k := &call{frame: f, done: func(f *proto.Frame, err error) { ch <- result{f, err} }}
	c.mu.Lock()
	if c.ended != nil {
		c.mu.Unlock()
		return nil, localError(ErrClosed, c.ended, "")
	}
	c.calls = append(c.calls, k)
	c.pump(c.link)
	c.mu.Unlock()
	select {
	case r := <-ch:
		return r.f, r.err
	case <-ctx.Done():
		c.forget(k)
		return nil, localError(ErrCanceled, ctx.Err(), "no answer yet")
	}
}

// forget takes back a call that was not sent yet.
func (c *Client) forget(k *call) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i, other := range c.calls {
		if other == k {
			c.calls = append(c.calls[:i:i], c.calls[i+1:]...)
			return
		}
	}
}

func (c *Client) sendCall(l *link, k *call, now time.Duration) {
	l.lastID++
	k.frame.Id = l.lastID
	if err := c.write(l, k.frame); err != nil {
		e := asError(err, ErrFrameTooLarge)
		e.Retryable = false
		c.wg.Add(1)
		go func() { defer c.wg.Done(); k.done(nil, e) }()
		return
	}
	c.track(l, pending{call: k}, now)
}

func (c *Client) onAnswer(l *link, f *proto.Frame) {
	c.mu.Lock()
	p := c.answered(l, f.GetId())
	c.pump(l)
	c.mu.Unlock()
	if p.call != nil {
		p.call.done(&proto.Frame{Id: f.GetId(), Body: f.GetBody()}, nil)
	}
}

// request is Do for requests that may be carried out twice: it repeats them
// while the error is retryable and time is left.
func (c *Client) request(ctx context.Context, f *proto.Frame) (*proto.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	for n, internal := 0, 0; ; n++ {
		answer, err := c.Do(ctx, &proto.Frame{Body: f.GetBody()})
		if err == nil {
			return answer, nil
		}
		e := asError(err, ErrDisconnected)
		if e.Kind == ErrInternal {
			internal++
		}
		if !e.Retryable || e.Kind == ErrCanceled || internal >= maxInternal {
			return nil, e
		}
		bound := min(maxBusyDelay, busyDelay<<min(n, 10))
		wait := e.RetryAfter + bound/2 + jitter(bound/2)
		if deadline, ok := ctx.Deadline(); ok && time.Until(deadline) < wait {
			return nil, e
		}
		t := time.NewTimer(wait)
		select {
		case <-t.C:
		case <-ctx.Done():
		case <-c.done:
		}
		t.Stop()
	}
}

// once is Do with the default timeout, for requests that must not be repeated.
func (c *Client) once(ctx context.Context, f *proto.Frame) (*proto.Frame, error) {
	ctx, cancel := context.WithTimeout(ctx, c.opts.RequestTimeout)
	defer cancel()
	return c.Do(ctx, f)
}

// as picks the expected answer.
func as[B any](f *proto.Frame, err error) (B, error) {
	var none B
	if err != nil {
		return none, err
	}
	b, ok := any(f.GetBody()).(B)
	if !ok {
		return none, localError(ErrProtocol, nil, "the answer is a %T", f.GetBody())
	}
	return b, nil
}

func (c *Client) ok(ctx context.Context, f *proto.Frame) error {
	_, err := as[*proto.Frame_Ok](c.request(ctx, f))
	return err
}

// RefreshToken gets a new access token. The client does so by itself before the
// present one ends.
func (c *Client) RefreshToken(ctx context.Context) error {
	b, err := as[*proto.Frame_AccessToken](c.request(ctx, &proto.Frame{Body: &proto.Frame_RefreshToken{RefreshToken: &proto.RefreshToken{}}}))
	if err != nil {
		return err
	}
	c.newToken(b.AccessToken)
	return nil
}

// refresh is RefreshToken on time, with mu held.
func (c *Client) refresh(l *link, now time.Duration) {
	l.refreshAt = now + time.Minute // unless the answer says otherwise
	c.calls = append(c.calls, &call{
		frame: &proto.Frame{Body: &proto.Frame_RefreshToken{RefreshToken: &proto.RefreshToken{}}},
		done: func(f *proto.Frame, err error) {
			if t := f.GetAccessToken(); err == nil && t != nil {
				c.newToken(t)
			}
		},
	})
}

func (c *Client) newToken(t *proto.AccessToken) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.link; l != nil && t.GetToken() != "" {
		c.setToken(l, t.GetToken(), t.GetExpiresUs())
		c.wake(l.refreshAt)
		c.kick(l) // which stores it
	}
}

// Logout forgets this device, on the server and in the Store, and ends the
// client (ErrLoggedOut).
func (c *Client) Logout(ctx context.Context) error {
	_, err := as[*proto.Frame_Ok](c.once(ctx, &proto.Frame{Body: &proto.Frame_Logout{Logout: &proto.Logout{}}}))
	if err != nil {
		return err
	}
	c.finish(localError(ErrLoggedOut, nil, ""))
	_, err = c.save()
	return err
}

// ListDevices returns the own account's devices.
func (c *Client) ListDevices(ctx context.Context) ([]*proto.Device, error) {
	b, err := as[*proto.Frame_Devices](c.request(ctx, &proto.Frame{Body: &proto.Frame_ListDevices{ListDevices: &proto.ListDevices{}}}))
	if err != nil {
		return nil, err
	}
	return b.Devices.GetDevices(), nil
}

// RevokeDevice ends another device's login.
func (c *Client) RevokeDevice(ctx context.Context, deviceID []byte) error {
	return c.ok(ctx, &proto.Frame{Body: &proto.Frame_RevokeDevice{RevokeDevice: &proto.RevokeDevice{DeviceId: deviceID}}})
}

// ChangePassword also logs every other device out. After ErrDisconnected or
// ErrCanceled, only a login shows which password holds.
func (c *Client) ChangePassword(ctx context.Context, old, new string) error {
	b, err := as[*proto.Frame_AccessToken](c.once(ctx, &proto.Frame{Body: &proto.Frame_ChangePassword{
		ChangePassword: &proto.ChangePassword{OldPassword: old, NewPassword: new}}}))
	if err != nil {
		return err
	}
	c.newToken(b.AccessToken)
	return nil
}

func (c *Client) profiles(ctx context.Context, f *proto.Frame) (*proto.Profiles, error) {
	b, err := as[*proto.Frame_Profiles_](c.request(ctx, f))
	if err != nil {
		return nil, err
	}
	return b.Profiles_, nil
}

// profile is profiles where there can be one only.
func (c *Client) profile(ctx context.Context, f *proto.Frame) (*proto.Profile, error) {
	ps, err := c.profiles(ctx, f)
	if err != nil {
		return nil, err
	}
	if len(ps.GetProfiles()) != 1 {
		return nil, localError(ErrProtocol, nil, "%d profiles, one was asked for", len(ps.GetProfiles()))
	}
	return ps.Profiles[0], nil
}

// LookupUser finds an account by its exact name; ErrNotFound if there is none.
func (c *Client) LookupUser(ctx context.Context, name string) (*proto.Profile, error) {
	return c.profile(ctx, &proto.Frame{Body: &proto.Frame_LookupUser{LookupUser: &proto.LookupUser{Name: name}}})
}

// Profiles returns those of the ids (any number) that exist, in their order.
func (c *Client) Profiles(ctx context.Context, ids ...int64) ([]*proto.Profile, error) {
	var all []*proto.Profile
	err := c.chunks(ctx, len(ids), func(from, to int) error {
		for rest := ids[from:to]; len(rest) > 0; {
			ps, err := c.profiles(ctx, &proto.Frame{Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: rest}}})
			if err != nil {
				return err
			}
			page := ps.GetProfiles()
			all = append(all, page...)
			if !ps.GetMore() {
				return nil
			}
			last := -1
			if len(page) > 0 {
				last = slices.Index(rest, page[len(page)-1].GetUserId())
			}
			if last < 0 {
				return localError(ErrProtocol, nil, "more profiles behind none of the ids asked for")
			}
			rest = rest[last+1:]
		}
		return nil
	})
	return all, err
}

// chunks cuts n ids into requests of at most Limits.max_ids.
func (c *Client) chunks(ctx context.Context, n int, do func(from, to int) error) error {
	if n == 0 {
		return nil
	}
	if c.Limits() == nil {
		if err := c.WaitOnline(ctx); err != nil {
			return err
		}
	}
	size := int(c.Limits().GetMaxIds())
	for from := 0; from < n; from += size {
		if err := do(from, min(from+size, n)); err != nil {
			return err
		}
	}
	return nil
}

// UpdateProfile replaces both fields of the own profile.
func (c *Client) UpdateProfile(ctx context.Context, displayName, avatarURL string) (*proto.Profile, error) {
	return c.profile(ctx, &proto.Frame{Body: &proto.Frame_UpdateProfile{
		UpdateProfile: &proto.UpdateProfile{DisplayName: displayName, AvatarUrl: avatarURL}}})
}

// Block stops messages and hints from a user.
func (c *Client) Block(ctx context.Context, userID int64) error {
	return c.ok(ctx, &proto.Frame{Body: &proto.Frame_BlockUser{BlockUser: &proto.BlockUser{UserId: userID}}})
}

// Unblock takes a block back.
func (c *Client) Unblock(ctx context.Context, userID int64) error {
	return c.ok(ctx, &proto.Frame{Body: &proto.Frame_UnblockUser{UnblockUser: &proto.UnblockUser{UserId: userID}}})
}

// Blocks returns all users that are blocked.
func (c *Client) Blocks(ctx context.Context) ([]int64, error) {
	var all []int64
	for after := int64(0); ; {
		b, err := as[*proto.Frame_Blocks](c.request(ctx, &proto.Frame{Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{After: after}}}))
		if err != nil {
			return nil, err
		}
		all = append(all, b.Blocks.GetUserIds()...)
		next := b.Blocks.GetNext()
		if next == 0 {
			return all, nil
		}
		if next <= after {
			return nil, localError(ErrProtocol, nil, "blocks go round in circles")
		}
		after = next
	}
}

// Sync reads the inbox after a cursor, for tools: the client itself fetches
// what OnEvents needs. limit 0 leaves it to the server.
func (c *Client) Sync(ctx context.Context, after Cursor, limit int) (*proto.SyncResponse, error) {
	b, err := as[*proto.Frame_SyncResponse](c.request(ctx, &proto.Frame{Body: &proto.Frame_Sync{
		Sync: &proto.SyncRequest{Cursor: &proto.Cursor{Epoch: after.Epoch, Seq: after.Seq}, Limit: uint32(limit)}}}))
	if err != nil {
		return nil, err
	}
	return b.SyncResponse, nil
}

// Conversations reads one page of the own conversations: after is the Next of
// the page before, nil to start; an empty Next: that was the last. limit 0
// leaves it to the server.
func (c *Client) Conversations(ctx context.Context, after []byte, limit int) (*proto.Conversations, error) {
	b, err := as[*proto.Frame_Conversations](c.request(ctx, &proto.Frame{Body: &proto.Frame_ListConversations{
		ListConversations: &proto.ListConversations{After: after, Limit: uint32(limit)}}}))
	if err != nil {
		return nil, err
	}
	return b.Conversations, nil
}

// AllConversations reads all pages.
func (c *Client) AllConversations(ctx context.Context) ([]*proto.Conversation, error) {
	var all []*proto.Conversation
	for after := []byte(nil); ; {
		page, err := c.Conversations(ctx, after, 0)
		if err != nil {
			return nil, err
		}
		all = append(all, page.GetConversations()...)
		if len(page.GetNext()) == 0 {
			return all, nil
		}
		if string(page.GetNext()) == string(after) {
			return nil, localError(ErrProtocol, nil, "conversations go round in circles")
		}
		after = page.GetNext()
	}
}

// Range says which entries of a conversation to read, by rev.
type Range struct {
	// From and To are included; To 0: the newest.
	From, To uint64
	// Limit 0 leaves it to the server.
	Limit int
	// NewestFirst starts at To and goes back.
	NewestFirst bool
}

// History reads entries of a conversation. More in the answer: the range holds
// entries beyond the last one returned.
func (c *Client) History(ctx context.Context, conversation []byte, r Range) (*proto.History, error) {
	b, err := as[*proto.Frame_History_](c.request(ctx, &proto.Frame{Body: &proto.Frame_GetHistory{GetHistory: &proto.GetHistory{
		Conversation: conversation, FromRev: r.From, ToRev: r.To, Limit: uint32(r.Limit), NewestFirst: r.NewestFirst}}}))
	if err != nil {
		return nil, err
	}
	return b.History_, nil
}

// Marks returns read and delivered marks of conversations (any number).
func (c *Client) Marks(ctx context.Context, conversations ...[]byte) ([]*proto.Mark, error) {
	var all []*proto.Mark
	err := c.chunks(ctx, len(conversations), func(from, to int) error {
		b, err := as[*proto.Frame_Marks_](c.request(ctx, &proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: conversations[from:to]}}}))
		if err == nil {
			all = append(all, b.Marks_.GetMarks()...)
		}
		return err
	})
	return all, err
}

// MarkRead raises the own read mark; it never goes down.
func (c *Client) MarkRead(ctx context.Context, conversation []byte, convSeq uint64) error {
	return c.ok(ctx, &proto.Frame{Body: &proto.Frame_MarkRead{MarkRead: &proto.MarkRead{Conversation: conversation, ConvSeq: convSeq}}})
}

// Typing tells the other side that a person types; repeat it every few seconds
// while true. Offline it does nothing.
func (c *Client) Typing(to Target, on bool) {
	t := &proto.Typing{On: on}
	if to.conv != "" {
		t.Target = &proto.Typing_Conversation{Conversation: []byte(to.conv)}
	} else {
		t.Target = &proto.Typing_ToUserId{ToUserId: to.user}
	}
	c.mu.Lock()
	defer c.mu.Unlock()
	if l := c.link; l != nil && l.why == nil && !l.leaving {
		c.notify(l, &proto.Frame{Body: &proto.Frame_Typing{Typing: t}})
	}
}

// SetState tells whether the app is in front. It holds for later connections
// too; without one it returns at once.
func (c *Client) SetState(ctx context.Context, foreground bool) error {
	c.mu.Lock()
	c.app = proto.AppState_APP_STATE_BACKGROUND
	if foreground {
		c.app = proto.AppState_APP_STATE_FOREGROUND
	}
	state, online := c.app, c.link != nil
	c.mu.Unlock()
	if !online {
		return nil
	}
	return c.ok(ctx, &proto.Frame{Body: &proto.Frame_SetState{SetState: &proto.SetState{State: state}}})
}
