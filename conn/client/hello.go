package client

import (
	"crypto/rand"
	"strings"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// protocolVersion is the one this client speaks.
const protocolVersion = 1

// tokenMargin: a token that ends sooner is not worth trying.
const tokenMargin = 10 * time.Second

// hello makes the first frame. Credentials come first, then an access token
// that still holds, then the device secret.
//
// The next secret is in the Store before it can be in the server's: whatever
// answer is lost, and wherever the process ends, the pair {current, next} that
// the Store has will do. It is drawn once and repeated until a Welcome confirms it.
func (c *Client) hello() (*proto.Hello, *Error) {
	c.mu.Lock()
	h := &proto.Hello{
		MinVersion: protocolVersion, MaxVersion: protocolVersion,
		Device: &proto.DeviceInfo{
			Id: c.session.DeviceID, Slot: c.opts.Device.Slot, Platform: c.opts.Device.Platform,
			Model: c.opts.Device.Model, AppVersion: c.opts.Device.AppVersion,
		},
		State:            c.app,
		HeartbeatSeconds: uint32(c.opts.Heartbeat / time.Second),
	}
	s := &c.session
	if s.HasCursor && (c.creds.Name == "" || strings.EqualFold(c.creds.Name, s.Name)) {
		h.Cursor = &proto.Cursor{Epoch: s.Cursor.Epoch, Seq: s.Cursor.Seq}
	}
	switch {
	case c.creds.Register:
		h.Credentials = &proto.Hello_Register{Register: &proto.Register{
			Name: c.creds.Name, Password: c.creds.Password, DisplayName: c.creds.DisplayName}}
	case c.creds.Name != "":
		h.Credentials = &proto.Hello_Login{Login: &proto.PasswordLogin{Name: c.creds.Name, Password: c.creds.Password}}
	case s.UserID > 0 && s.Token != "" && s.TokenExpires.After(c.serverTime().Add(tokenMargin)):
		h.Credentials = &proto.Hello_AccessToken{AccessToken: s.Token}
		c.mu.Unlock()
		return h, nil
	case s.UserID > 0 && len(s.Secret) > 0:
		h.Credentials = &proto.Hello_DeviceSecret{DeviceSecret: &proto.DeviceSecret{UserId: s.UserID, Current: s.Secret}}
	default:
		c.mu.Unlock()
		return nil, localError(ErrNoSession, nil, "log in by password")
	}
	if len(s.NextSecret) != proto.DeviceSecretLen {
		s.NextSecret = make([]byte, proto.DeviceSecretLen)
		rand.Read(s.NextSecret)
		c.dirty = true
	}
	h.NextSecret = s.NextSecret
	dirty := c.dirty
	c.mu.Unlock()
	if dirty {
		if _, err := c.save(); err != nil {
			return nil, asError(err, ErrStore)
		}
	}
	return h, nil
}

// login sends hello and reads its answer. Frames that come before it are none
// of ours; if they were events, the gap will show.
func (l *link) login(hello *proto.Hello) (*proto.Welcome, *Error) {
	l.lastID = 1
	b, err := proto.AppendFrame(nil, &proto.Frame{Id: 1, Body: &proto.Frame_Hello{Hello: hello}})
	if err != nil {
		return nil, localError(ErrInvalidArgument, err, "hello")
	}
	if len(b) > proto.HeaderLen+proto.MaxFrameHello {
		return nil, localError(ErrInvalidArgument, nil, "hello of %d bytes: a name or password is too long", len(b))
	}
	if _, err := l.conn.Write(b); err != nil {
		return nil, asError(err, ErrDisconnected)
	}
	for {
		f, err := l.next()
		if err != nil {
			return nil, err
		}
		switch b := f.GetBody().(type) {
		case *proto.Frame_Welcome:
			if b.Welcome.GetVersion() != protocolVersion || b.Welcome.GetUserId() <= 0 {
				return nil, localError(ErrProtocol, nil, "welcome with version %d and user %d", b.Welcome.GetVersion(), b.Welcome.GetUserId())
			}
			return b.Welcome, nil
		case *proto.Frame_Error:
			return nil, fromWire(b.Error)
		}
	}
}

// refused says what to do after a Hello that was not answered by a Welcome.
func (c *Client) refused(h *proto.Hello, err *Error) verdict {
	_, byToken := h.Credentials.(*proto.Hello_AccessToken)
	_, bySecret := h.Credentials.(*proto.Hello_DeviceSecret)
	switch {
	case byToken && (err.Kind == ErrTokenExpired || err.Kind == ErrUnauthenticated):
		// The token is gone for good; the device secret may still do.
		c.mu.Lock()
		defer c.mu.Unlock()
		c.session.Token, c.session.TokenExpires = "", time.Time{}
		c.dirty = true
		if len(c.session.Secret) == 0 {
			return giveUp
		}
		return retrySame
	case err.Kind == ErrInvalidArgument, err.terminal():
		return giveUp
	case err.Code < 2000: // the connection's trouble, not what the Hello says
		return retry
	case !byToken && !bySecret && err.Kind == ErrTooManyAttempts:
		return giveUp // somebody types passwords and wants to know
	case !err.Retryable:
		return giveUp
	}
	return retry
}

// welcome takes in the answer to h and puts l online.
func (c *Client) welcome(l *link, h *proto.Hello, w *proto.Welcome, sent time.Duration) *Error {
	c.mu.Lock()
	now := c.pool.now()
	c.clock.known = true
	c.clock.server = time.UnixMicro(w.GetServerTimeUs())
	c.clock.at = (sent + now) / 2

	s := &c.session
	if s.UserID != w.GetUserId() {
		s.Cursor, s.HasCursor = Cursor{}, false
		s.Token, s.TokenExpires = "", time.Time{}
		c.dirty = true
	}
	s.UserID, s.Name = w.GetUserId(), w.GetName()
	if h.NextSecret != nil {
		s.Secret, s.NextSecret = h.NextSecret, nil
		c.creds = Credentials{}
		c.dirty = true
	}
	if t := w.GetAccessToken(); t != "" {
		c.setToken(l, t, w.GetAccessTokenExpiresUs())
	} else if s.Token != "" {
		l.refreshAt = c.refreshTime(now)
	}
	c.limits = saneLimits(w.GetLimits())
	dirty := c.dirty
	c.mu.Unlock()
	if dirty {
		if _, err := c.save(); err != nil {
			return asError(err, ErrStore)
		}
	}
	return c.online(l, h.Cursor, w)
}

// setToken keeps an access token, with mu held.
func (c *Client) setToken(l *link, token string, expiresUs int64) {
	c.session.Token, c.session.TokenExpires = token, time.UnixMicro(expiresUs).UTC()
	c.dirty = true
	l.refreshAt = c.refreshTime(c.pool.now())
}

// refreshTime is when to ask for a new token: with a fifth to two fifths of the
// time left.
func (c *Client) refreshTime(now time.Duration) time.Duration {
	left := c.session.TokenExpires.Sub(c.serverTime())
	return now + max(left*3/5+jitter(left/5), time.Second)
}

// saneLimits replaces what a server leaves out or cannot mean.
func saneLimits(l *proto.Limits) *proto.Limits {
	def := func(v, def, lo, hi uint32) uint32 {
		if v == 0 {
			v = def
		}
		return min(max(v, lo), hi)
	}
	return &proto.Limits{
		HeartbeatSeconds: def(l.GetHeartbeatSeconds(), 60, 1, 3600),
		MaxFrameBytes:    def(l.GetMaxFrameBytes(), proto.MaxFrameSession, proto.MaxFrameHello, proto.MaxFramePeer),
		MaxContentBytes:  def(l.GetMaxContentBytes(), 32<<10, 1, proto.MaxFramePeer),
		EventWindow:      def(l.GetEventWindow(), 64, 1, 1<<16),
		MaxInFlight:      def(l.GetMaxInFlight(), 16, 1, 1<<16),
		MaxSyncEvents:    def(l.GetMaxSyncEvents(), 200, 1, 1<<16),
		MaxIds:           def(l.GetMaxIds(), 100, 1, 1<<16),
	}
}
