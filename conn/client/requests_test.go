package client

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// answer plays the server for one request.
func (p *peer) answer(t *testing.T, body func(f *proto.Frame) *proto.Frame) {
	t.Helper()
	f := p.next()
	out := body(f)
	if out == nil {
		t.Errorf("got a %T", f.GetBody())
		return
	}
	out.Id = f.GetId()
	p.send(out)
}

func ok() *proto.Frame { return &proto.Frame{Body: &proto.Frame_Ok{Ok: &proto.Ok{}}} }

func profiles(ids ...int64) *proto.Frame {
	b := &proto.Profiles{}
	for _, id := range ids {
		b.Profiles = append(b.Profiles, &proto.Profile{UserId: id})
	}
	return &proto.Frame{Body: &proto.Frame_Profiles_{Profiles_: b}}
}

func TestRequests(t *testing.T) {
	_, c, p := online(t, nil)
	ctx := ctxFor(t)
	conv := []byte("0123456789abcdef")
	for _, tc := range []struct {
		name    string
		do      func() error
		answers []func(f *proto.Frame) *proto.Frame
	}{
		{"RefreshToken", func() error { return c.RefreshToken(ctx) }, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			return when(f.GetRefreshToken() != nil, &proto.Frame{Body: &proto.Frame_AccessToken{AccessToken: &proto.AccessToken{Token: "new", ExpiresUs: time.Now().Add(time.Hour).UnixMicro()}}})
		}}},
		{"ListDevices", func() error {
			d, err := c.ListDevices(ctx)
			return check(err, len(d) == 2)
		}, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			return when(f.GetListDevices() != nil, &proto.Frame{Body: &proto.Frame_Devices{Devices: &proto.Devices{Devices: []*proto.Device{{}, {}}}}})
		}}},
		{"RevokeDevice", func() error { return c.RevokeDevice(ctx, conv) }, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			return when(string(f.GetRevokeDevice().GetDeviceId()) == string(conv), ok())
		}}},
		{"ChangePassword", func() error { return c.ChangePassword(ctx, "old", "new") }, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			b := f.GetChangePassword()
			return when(b.GetOldPassword() == "old" && b.GetNewPassword() == "new", &proto.Frame{Body: &proto.Frame_AccessToken{AccessToken: &proto.AccessToken{Token: "newer", ExpiresUs: time.Now().Add(time.Hour).UnixMicro()}}})
		}}},
		{"LookupUser", func() error {
			u, err := c.LookupUser(ctx, "bob")
			return check(err, u.GetUserId() == 5)
		}, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame { return when(f.GetLookupUser().GetName() == "bob", profiles(5)) }}},
		{"Profiles, in two answers", func() error {
			all, err := c.Profiles(ctx, 1, 2, 3)
			return check(err, len(all) == 2 && all[0].GetUserId() == 2 && all[1].GetUserId() == 3)
		}, []func(f *proto.Frame) *proto.Frame{
			func(f *proto.Frame) *proto.Frame {
				full := profiles(2)
				full.GetProfiles_().More = true
				return when(len(f.GetGetProfiles().GetUserIds()) == 3, full)
			},
			func(f *proto.Frame) *proto.Frame {
				ids := f.GetGetProfiles().GetUserIds()
				return when(len(ids) == 1 && ids[0] == 3, profiles(3))
			},
		}},
		{"Profiles, in two requests", func() error {
			all, err := c.Profiles(ctx, 1, 2, 3, 4)
			return check(err, len(all) == 3 && all[2].GetUserId() == 4)
		}, []func(f *proto.Frame) *proto.Frame{
			func(f *proto.Frame) *proto.Frame {
				return when(len(f.GetGetProfiles().GetUserIds()) == 3, profiles(1, 3))
			},
			func(f *proto.Frame) *proto.Frame { return when(f.GetGetProfiles().GetUserIds()[0] == 4, profiles(4)) },
		}},
		{"UpdateProfile", func() error {
			u, err := c.UpdateProfile(ctx, "Ann", "https://a/b")
			return check(err, u.GetUserId() == testUser)
		}, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			return when(f.GetUpdateProfile().GetDisplayName() == "Ann" && f.GetUpdateProfile().GetAvatarUrl() != "", profiles(testUser))
		}}},
		{"Block", func() error { return c.Block(ctx, 5) }, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame { return when(f.GetBlockUser().GetUserId() == 5, ok()) }}},
		{"Unblock", func() error { return c.Unblock(ctx, 5) }, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame { return when(f.GetUnblockUser().GetUserId() == 5, ok()) }}},
		{"Blocks, in two pages", func() error {
			ids, err := c.Blocks(ctx)
			return check(err, len(ids) == 3)
		}, []func(f *proto.Frame) *proto.Frame{
			func(f *proto.Frame) *proto.Frame {
				return when(f.GetListBlocks() != nil, &proto.Frame{Body: &proto.Frame_Blocks{Blocks: &proto.Blocks{UserIds: []int64{1, 2}, Next: 2}}})
			},
			func(f *proto.Frame) *proto.Frame {
				return when(f.GetListBlocks().GetAfter() == 2, &proto.Frame{Body: &proto.Frame_Blocks{Blocks: &proto.Blocks{UserIds: []int64{3}}}})
			},
		}},
		{"Sync", func() error {
			r, err := c.Sync(ctx, Cursor{epoch, 7}, 10)
			return check(err, r.GetCaughtUp())
		}, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			return when(f.GetSync().GetCursor().GetSeq() == 7 && f.GetSync().GetLimit() == 10, syncResponse(0, events(8, 9), 9, true))
		}}},
		{"AllConversations", func() error {
			all, err := c.AllConversations(ctx)
			return check(err, len(all) == 2)
		}, []func(f *proto.Frame) *proto.Frame{
			func(f *proto.Frame) *proto.Frame {
				return when(f.GetListConversations() != nil, &proto.Frame{Body: &proto.Frame_Conversations{Conversations: &proto.Conversations{Conversations: []*proto.Conversation{{}}, Next: conv}}})
			},
			func(f *proto.Frame) *proto.Frame {
				return when(string(f.GetListConversations().GetAfter()) == string(conv), &proto.Frame{Body: &proto.Frame_Conversations{Conversations: &proto.Conversations{Conversations: []*proto.Conversation{{}}}}})
			},
		}},
		{"History", func() error {
			h, err := c.History(ctx, conv, Range{From: 2, To: 9, Limit: 3, NewestFirst: true})
			return check(err, h.GetMore() && len(h.GetEntries()) == 1)
		}, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			b := f.GetGetHistory()
			return when(b.GetFromRev() == 2 && b.GetToRev() == 9 && b.GetLimit() == 3 && b.GetNewestFirst(),
				&proto.Frame{Body: &proto.Frame_History_{History_: &proto.History{Entries: []*proto.Event{{}}, More: true}}})
		}}},
		{"Marks", func() error {
			m, err := c.Marks(ctx, conv)
			return check(err, len(m) == 1)
		}, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			return when(len(f.GetGetMarks().GetConversations()) == 1, &proto.Frame{Body: &proto.Frame_Marks_{Marks_: &proto.Marks{Marks: []*proto.Mark{{}}}}})
		}}},
		{"MarkRead", func() error { return c.MarkRead(ctx, conv, 4) }, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame { return when(f.GetMarkRead().GetConvSeq() == 4, ok()) }}},
		{"SetState", func() error { return c.SetState(ctx, false) }, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame {
			return when(f.GetSetState().GetState() == proto.AppState_APP_STATE_BACKGROUND, ok())
		}}},
		{"a retryable error is retried", func() error { return c.Block(ctx, 5) }, []func(f *proto.Frame) *proto.Frame{
			func(f *proto.Frame) *proto.Frame {
				return wireError(0, fault(proto.ErrorCode_ERROR_CODE_UNAVAILABLE).WithRetry(time.Millisecond))
			},
			func(f *proto.Frame) *proto.Frame { return when(f.GetBlockUser() != nil, ok()) },
		}},
		{"another one is not", func() error {
			_, err := c.LookupUser(ctx, "nobody")
			return check(nil, errors.Is(err, ErrNotFound))
		}, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame { return wireError(0, fault(proto.ErrorCode_ERROR_CODE_NOT_FOUND)) }}},
		{"a wrong answer is an error", func() error {
			_, err := c.ListDevices(ctx)
			return check(nil, errors.Is(err, ErrProtocol))
		}, []func(f *proto.Frame) *proto.Frame{func(f *proto.Frame) *proto.Frame { return ok() }}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			result := make(chan error, 1)
			go func() { result <- tc.do() }()
			for _, answer := range tc.answers {
				p.answer(t, answer)
			}
			if err := <-result; err != nil {
				t.Fatal(err)
			}
		})
	}
	if token, _ := c.AccessToken(); token != "newer" {
		t.Fatal(token)
	}
}

func when(ok bool, f *proto.Frame) *proto.Frame {
	if !ok {
		return nil
	}
	return f
}

func check(err error, ok bool) error {
	if err == nil && !ok {
		err = errors.New("not what the server said")
	}
	return err
}

// A request whose answer is lost is repeated on the next connection; one that
// must not be carried out twice is not.
func TestRequestsAcrossConnections(t *testing.T) {
	srv, c, p := online(t, nil)
	result := make(chan error, 1)
	go func() { result <- c.Block(context.Background(), 5) }()
	p.next()
	p.close()
	p, _ = srv.login()
	p.answer(t, func(f *proto.Frame) *proto.Frame { return when(f.GetBlockUser() != nil, ok()) })
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	go func() { result <- c.ChangePassword(context.Background(), "a", "b") }()
	p.next()
	p.close()
	wantKind(t, <-result, ErrDisconnected)
}

func TestRequestsWaitUntilOnlineAndTimeOut(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials, o.RequestTimeout = resumed(0), Credentials{}, 50*time.Millisecond
	c := start(t, o)
	_, err := c.ListDevices(context.Background())
	wantKind(t, err, ErrCanceled)
	if err := c.SetState(ctxFor(t), false); err != nil { // holds for the Hello to come
		t.Fatal(err)
	}
	p := srv.accept()
	p.hello()
	p.close()
	p, h := srv.login()
	if h.GetState() != proto.AppState_APP_STATE_BACKGROUND {
		t.Fatal(h.GetState())
	}
	// What was given up is not sent any more.
	go c.Block(ctxFor(t), 5)
	if f := p.next(); f.GetBlockUser() == nil {
		t.Fatalf("got a %T", f.GetBody())
	}
}

// INTERNAL is tried five times, like a message; other trouble until time is up.
func TestRequestsGiveUpAfterFiveInternal(t *testing.T) {
	_, c, p := online(t, nil)
	result := make(chan error, 1)
	go func() { result <- c.Block(context.Background(), 5) }()
	codes := []proto.ErrorCode{proto.ErrorCode_ERROR_CODE_BUSY}
	for range maxInternal {
		codes = append(codes, proto.ErrorCode_ERROR_CODE_INTERNAL)
	}
	for _, code := range codes {
		f := p.next()
		p.send(wireError(f.GetId(), fault(code)))
	}
	wantKind(t, <-result, ErrInternal)
}

func TestLogout(t *testing.T) {
	store := resumed(3)
	_, c, p := online(t, func(o *Options) { o.Store = store }, withToken("t", time.Hour))
	result := make(chan error, 1)
	go func() { result <- c.Logout(context.Background()) }()
	p.answer(t, func(f *proto.Frame) *proto.Frame { return when(f.GetLogout() != nil, ok()) })
	if err := <-result; err != nil {
		t.Fatal(err)
	}
	<-c.Done()
	wantKind(t, c.Err(), ErrLoggedOut)
	if s, _ := store.Load(); s.LoggedIn() || s.HasCursor || len(s.DeviceID) != 16 {
		t.Fatalf("stored %+v", s)
	}
}
