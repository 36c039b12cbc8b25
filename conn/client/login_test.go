package client

import (
	"bytes"
	"context"
	"errors"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func TestLoginThenTokenThenSecret(t *testing.T) {
	srv, a := newServer(t), &app{}
	store := &MemoryStore{}
	o := a.options(srv.addr())
	o.Store = store
	c := start(t, o)

	p, h := srv.login(withToken("t1", time.Hour))
	if h.GetLogin().GetName() != "ann" || h.GetLogin().GetPassword() != "secret word" || len(h.GetNextSecret()) != 32 || len(h.GetDevice().GetId()) != 16 {
		t.Fatalf("hello %v", h)
	}
	if err := c.WaitOnline(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	if s, _ := store.Load(); !bytes.Equal(s.Secret, h.GetNextSecret()) || s.NextSecret != nil || s.UserID != testUser || s.Token != "t1" {
		t.Fatalf("stored %+v", s)
	}
	if c.UserID() != testUser || c.Name() != "ann" {
		t.Fatal(c.UserID(), c.Name())
	}
	first := h
	p.close()

	p, h = srv.login() // no new token: the one used is good
	if h.GetAccessToken() != "t1" || h.GetNextSecret() != nil || !bytes.Equal(h.GetDevice().GetId(), first.GetDevice().GetId()) {
		t.Fatalf("hello %v", h)
	}
	p.close()

	// The token is refused: the secret follows at once, on a fresh connection.
	p = srv.accept()
	id, h := p.hello()
	if h.GetAccessToken() != "t1" {
		t.Fatalf("hello %v", h)
	}
	p.send(wireError(id, fault(proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED)))
	p, h = srv.login()
	if h.GetDeviceSecret().GetUserId() != testUser || !bytes.Equal(h.GetDeviceSecret().GetCurrent(), first.GetNextSecret()) ||
		len(h.GetNextSecret()) != 32 || bytes.Equal(h.GetNextSecret(), first.GetNextSecret()) {
		t.Fatalf("hello %v", h)
	}
	p.close()
}

func TestTokenOfAnotherKeyFallsBackToTheSecret(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Credentials = Credentials{}
	store := resumed(5)
	store.s.Token, store.s.TokenExpires = "old", time.Now().Add(time.Hour)
	o.Store = store
	c := start(t, o)
	p := srv.accept()
	id, h := p.hello()
	if h.GetAccessToken() != "old" || h.GetCursor().GetSeq() != 5 || h.GetCursor().GetEpoch() != epoch {
		t.Fatalf("hello %v", h)
	}
	p.send(wireError(id, fault(proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)))
	if _, h = srv.login(); h.GetDeviceSecret() == nil {
		t.Fatalf("hello %v", h)
	}
	if err := c.WaitOnline(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
}

// rotating is the server's side of a device secret, as the specification has it.
type rotating struct {
	cur, prev []byte
	revoked   bool
}

func (r *rotating) rotate(h *proto.Hello) bool {
	current, next := h.GetDeviceSecret().GetCurrent(), h.GetNextSecret()
	switch {
	case r.revoked:
		return false
	case h.GetLogin() != nil, h.GetRegister() != nil:
		r.cur = next
	case bytes.Equal(current, r.cur):
		if !bytes.Equal(next, r.cur) {
			r.prev, r.cur = r.cur, next
		}
	case bytes.Equal(current, r.prev):
		r.revoked = !bytes.Equal(next, r.cur)
		return !r.revoked
	default:
		return false
	}
	return true
}

// The answer is lost, or even the Hello, at each step; and at each step the
// process may end, so that a new one goes on from what was stored.
func TestLostAnswers(t *testing.T) {
	for _, creds := range []Credentials{
		{Name: "ann", Password: "secret word"},
		{Name: "ann", Password: "secret word", Register: true, DisplayName: "Ann"},
		{},
	} {
		for _, restart := range []bool{false, true} {
			if restart && creds.Register {
				continue // the same as login
			}
			srv := newServer(t)
			account := &rotating{cur: secretOf('a')}
			store := &MemoryStore{}
			if creds.Name == "" {
				store = resumed(0)
			}
			o := (&app{}).options(srv.addr())
			o.Credentials, o.Store = creds, store
			c := start(t, o)
			// With a restart the client goes first: it would connect again, and
			// that connection would be taken for the new client's.
			again := func(p *peer) {
				if restart {
					c.Close()
				}
				p.close()
				if restart {
					if s, _ := store.Load(); s.LoggedIn() {
						o.Credentials = Credentials{}
					}
					c = start(t, o)
				}
			}
			// The connection breaks before the Hello, before the server has it,
			// and after the server has carried it out.
			again(srv.accept())
			p := srv.accept()
			_, h := p.hello()
			sent := h.GetNextSecret()
			if s, _ := store.Load(); !bytes.Equal(s.NextSecret, sent) {
				t.Fatal("a secret was sent before it was stored")
			}
			again(p)
			for range 3 {
				p = srv.accept()
				if _, h = p.hello(); !account.rotate(h) || !bytes.Equal(h.GetNextSecret(), sent) {
					t.Fatalf("%+v restart %v: refused %v", creds, restart, h)
				}
				again(p)
			}
			for range 2 { // and now with answers
				p = srv.accept()
				id, h := p.hello()
				if !account.rotate(h) {
					t.Fatalf("%+v restart %v: refused %v", creds, restart, h)
				}
				p.send(welcome(id))
				if err := c.WaitOnline(ctxFor(t)); err != nil {
					t.Fatal(err)
				}
				if s, _ := store.Load(); !bytes.Equal(s.Secret, account.cur) || s.NextSecret != nil {
					t.Fatalf("%+v restart %v: stored %+v", creds, restart, s)
				}
				again(p)
			}
			c.Close()
			srv.ln.Close()
		}
	}
}

// failing is a Store that can be told to fail.
type failing struct {
	MemoryStore
	fail chan error
}

func (f *failing) Save(s Session) error {
	select {
	case err := <-f.fail:
		return err
	default:
		return f.MemoryStore.Save(s)
	}
}

func TestNoSecretIsSentThatIsNotStored(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	store := &failing{fail: make(chan error, 10)}
	cause := errors.New("disk full")
	store.fail <- cause
	o.Store, o.BackoffBase, o.BackoffMax = store, time.Minute, time.Minute
	c := start(t, o)
	eventually(t, "waiting", func() bool { return c.State().Phase == Waiting })
	if err := c.State().Err; !errors.Is(err, ErrStore) || !errors.Is(err, cause) {
		t.Fatal(err)
	}
	srv.nobody(20 * time.Millisecond)
	c.Reconnect()
	srv.login()
	if err := c.WaitOnline(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
}

func TestHelloErrors(t *testing.T) {
	for _, tc := range []struct {
		code   proto.ErrorCode
		creds  Credentials
		closed bool
	}{
		{proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, Credentials{Name: "ann"}, true},
		{proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, Credentials{}, true},
		{proto.ErrorCode_ERROR_CODE_REVOKED, Credentials{}, true},
		{proto.ErrorCode_ERROR_CODE_KICKED, Credentials{}, true},
		{proto.ErrorCode_ERROR_CODE_REPLACED, Credentials{}, true},
		{proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION, Credentials{}, true},
		{proto.ErrorCode_ERROR_CODE_NAME_TAKEN, Credentials{Name: "ann", Register: true}, true},
		{proto.ErrorCode_ERROR_CODE_NAME_INVALID, Credentials{Name: "ann", Register: true}, true},
		{proto.ErrorCode_ERROR_CODE_PASSWORD_WEAK, Credentials{Name: "ann", Register: true}, true},
		{proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT, Credentials{}, true},
		{proto.ErrorCode_ERROR_CODE_NOT_ALLOWED, Credentials{Name: "ann"}, true},
		{proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS, Credentials{Name: "ann"}, true},
		{proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS, Credentials{}, false},
		{proto.ErrorCode_ERROR_CODE_OVERLOADED, Credentials{Name: "ann"}, false},
		{proto.ErrorCode_ERROR_CODE_DRAINING, Credentials{}, false},
		{proto.ErrorCode_ERROR_CODE_UNAVAILABLE, Credentials{}, false},
		{proto.ErrorCode_ERROR_CODE_INTERNAL, Credentials{}, false},
		{proto.ErrorCode_ERROR_CODE_TIMEOUT, Credentials{}, false},
		{proto.ErrorCode_ERROR_CODE_BAD_FRAME, Credentials{}, false},
	} {
		t.Run(tc.code.Short()+" "+tc.creds.Name, func(t *testing.T) {
			srv, a := newServer(t), &app{}
			o := a.options(srv.addr())
			o.Credentials, o.Store = tc.creds, resumed(0)
			o.BackoffBase, o.BackoffMax = time.Minute, time.Minute
			c := start(t, o)
			p := srv.accept()
			id, _ := p.hello()
			p.send(wireError(id, fault(tc.code)))
			p.gone()
			if !tc.closed {
				eventually(t, "waiting", func() bool { return c.State().Phase == Waiting })
				wantKind(t, c.State().Err, Kind(tc.code))
				return
			}
			<-c.Done()
			wantKind(t, c.Err(), Kind(tc.code))
		})
	}
}

func TestRevokedForgetsSecretAndToken(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	store := resumed(5)
	o.Credentials, o.Store = Credentials{}, store
	c := start(t, o)
	p, _ := srv.login(withToken("t", time.Hour))
	p.send(wireError(0, fault(proto.ErrorCode_ERROR_CODE_REVOKED)))
	<-c.Done()
	wantKind(t, c.Err(), ErrRevoked)
	c.Close()
	if s, _ := store.Load(); s.LoggedIn() || s.Secret != nil || s.Token != "" || len(s.DeviceID) != 16 || s.Cursor.Seq != 5 {
		t.Fatalf("stored %+v", s)
	}
	_, err := Dial(ctxFor(t), o)
	wantKind(t, err, ErrNoSession)
}

func TestDialReportsTheCause(t *testing.T) {
	srv, a := newServer(t), &app{}
	srv.ln.Close()
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	defer cancel()
	_, err := Dial(ctx, a.options(srv.addr()))
	wantKind(t, err, ErrDisconnected)
}

func TestLongHelloIsRefusedHere(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Credentials.Password = string(make([]byte, 5000))
	_, err := Dial(ctxFor(t), o)
	wantKind(t, err, ErrInvalidArgument)
}

func TestLoginAsSomebodyElseStartsAnew(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	store := resumed(5)
	o.Store, o.Credentials = store, Credentials{Name: "bob", Password: "x"}
	start(t, o)
	p, h := srv.login(func(w *proto.Welcome) { w.UserId, w.Name = 43, "bob" })
	if h.GetCursor() != nil {
		t.Fatal("another user's cursor was sent")
	}
	p.send(events(1, 1))
	a.applied(t, 1)
	p.waitAck(1)
	if s, _ := store.Load(); s.UserID != 43 || s.Cursor.Seq != 1 {
		t.Fatalf("stored %+v", s)
	}
}

func TestTokenIsRefreshed(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	store := resumed(0)
	o.Credentials, o.Store = Credentials{}, store
	start(t, o)
	p, _ := srv.login(withToken("t1", 1500*time.Millisecond))
	f := p.next()
	if f.GetRefreshToken() == nil {
		t.Fatalf("got %v", f)
	}
	p.send(&proto.Frame{Id: f.GetId(), Body: &proto.Frame_AccessToken{AccessToken: &proto.AccessToken{
		Token: "t2", ExpiresUs: time.Now().Add(time.Hour).UnixMicro()}}})
	eventually(t, "the new token stored", func() bool { s, _ := store.Load(); return s.Token == "t2" })
}
