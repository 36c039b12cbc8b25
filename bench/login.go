package bench

import (
	"context"
	"errors"
	"fmt"
	"net"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// helloID is the request id of Hello; those behind it count on from here.
const helloID = 1

// loginTimeout bounds one connection attempt, the password hash of a busy
// server included.
const loginTimeout = 30 * time.Second

// proof is a way to say who is there.
type proof uint8

const (
	byToken proof = iota
	bySecret
	byRegistering
	byPassword
)

// link is a connection that has been welcomed.
type link struct {
	conn    net.Conn
	welcome *proto.Welcome
	// rest is what came behind the Welcome.
	rest []byte
	// offset is server time minus local time.
	offset time.Duration
}

// loginHow is what a Hello says beyond the credentials.
type loginHow struct {
	cursor    *proto.Cursor
	heartbeat time.Duration
	now       func() time.Time
}

// login opens a connection for acc, with the cheapest proof that works: access
// token, device secret, registering, password. It updates and saves acc.
func (a *accounts) login(ctx context.Context, dial func(context.Context, int) (net.Conn, error), acc *account, how loginHow) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, loginTimeout)
	defer cancel()
	p := a.firstProof(acc, how.now())
	for {
		conn, err := dial(ctx, acc.N)
		if err != nil {
			return nil, err
		}
		l, err := a.hello(ctx, conn, acc, p, how)
		if err == nil {
			return l, nil
		}
		conn.Close()
		next, ok := nextProof(p, acc, err)
		if !ok {
			return nil, a.explain(p, acc, err)
		}
		p = next
	}
}

func (a *accounts) firstProof(acc *account, now time.Time) proof {
	switch {
	case acc.Token != "" && acc.Expires > now.Add(30*time.Second).UnixMicro():
		return byToken
	case acc.UserID != 0 && acc.Secret != nil:
		return bySecret
	}
	return byRegistering
}

// nextProof says what to try after a refusal. Registering comes before the
// password: a server that knows neither token nor secret has most likely lost
// its data on purpose.
func nextProof(p proof, acc *account, err error) (proof, bool) {
	var fault *proto.Fault
	if !errors.As(err, &fault) {
		return 0, false
	}
	switch code := fault.Code; {
	case p == byToken && (code == proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED || code == proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED || code == proto.ErrorCode_ERROR_CODE_REVOKED):
		if acc.UserID != 0 && acc.Secret != nil {
			return bySecret, true
		}
		return byRegistering, true
	case p == bySecret && (code == proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED || code == proto.ErrorCode_ERROR_CODE_REVOKED || code == proto.ErrorCode_ERROR_CODE_NOT_FOUND):
		return byRegistering, true
	case p == byRegistering && code == proto.ErrorCode_ERROR_CODE_NAME_TAKEN:
		return byPassword, true
	}
	return 0, false
}

func (a *accounts) explain(p proof, acc *account, err error) error {
	var fault *proto.Fault
	if p == byPassword && errors.As(err, &fault) && fault.Code == proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED {
		return fmt.Errorf("bench: user %s exists with another password; it was made from another state folder: give that --state, or another --users-prefix: %w", a.name(acc.N), err)
	}
	return err
}

// hello sends the first frame and waits for its answer.
func (a *accounts) hello(ctx context.Context, conn net.Conn, acc *account, p proof, how loginHow) (*link, error) {
	if d, ok := ctx.Deadline(); ok {
		_ = conn.SetDeadline(d) // a connection that is gone fails below
	}
	stop := context.AfterFunc(ctx, func() { conn.Close() })
	defer stop()

	h, err := a.helloFrame(acc, p, how)
	if err != nil {
		return nil, err
	}
	out, err := proto.AppendFrame(nil, &proto.Frame{Id: helloID, Body: &proto.Frame_Hello{Hello: h}})
	if err != nil {
		return nil, err
	}
	began := how.now()
	if _, err := conn.Write(out); err != nil {
		return nil, err
	}
	w, rest, err := readWelcome(conn)
	if err != nil {
		return nil, err
	}
	acc.UserID = w.GetUserId()
	if p != byToken {
		acc.Secret, acc.Next = h.GetNextSecret(), nil
	}
	if w.GetAccessToken() != "" {
		acc.Token, acc.Expires = w.GetAccessToken(), w.GetAccessTokenExpiresUs()
	}
	if err := a.save(acc); err != nil {
		return nil, err
	}
	if !stop() {
		return nil, ctx.Err()
	}
	return &link{conn: conn, welcome: w, rest: rest, offset: time.UnixMicro(w.GetServerTimeUs()).Sub(began)}, conn.SetDeadline(time.Time{})
}

func (a *accounts) helloFrame(acc *account, p proof, how loginHow) (*proto.Hello, error) {
	h := &proto.Hello{
		MinVersion: 1, MaxVersion: 1,
		Device: &proto.DeviceInfo{
			Id: acc.Device, Slot: proto.DeviceSlot_DEVICE_SLOT_PHONE,
			Platform: "bench", Model: "hermod-bench",
		},
		Cursor:           how.cursor,
		State:            proto.AppState_APP_STATE_FOREGROUND,
		HeartbeatSeconds: uint32(how.heartbeat / time.Second),
	}
	if p == byToken {
		h.Credentials = &proto.Hello_AccessToken{AccessToken: acc.Token}
		return h, nil
	}
	// One that was sent once may be known to the server: send it again rather
	// than a third one.
	if acc.Next == nil {
		acc.Next = randomBytes(proto.DeviceSecretLen)
		if err := a.save(acc); err != nil {
			return nil, err
		}
	}
	h.NextSecret = acc.Next
	name := a.name(acc.N)
	switch p {
	case bySecret:
		h.Credentials = &proto.Hello_DeviceSecret{DeviceSecret: &proto.DeviceSecret{UserId: acc.UserID, Current: acc.Secret}}
	case byRegistering:
		h.Credentials = &proto.Hello_Register{Register: &proto.Register{Name: name, Password: a.password}}
	case byPassword:
		h.Credentials = &proto.Hello_Login{Login: &proto.PasswordLogin{Name: name, Password: a.password}}
	}
	return h, nil
}

// readWelcome reads up to the answer to Hello.
func readWelcome(conn net.Conn) (w *proto.Welcome, rest []byte, err error) {
	buf := make([]byte, 0, 1024)
	for {
		payload, n, err := proto.Next(buf, proto.MaxFrameSession)
		if err != nil {
			return nil, nil, err
		}
		if n == 0 {
			if len(buf) == cap(buf) {
				buf = append(buf, make([]byte, len(buf))...)[:len(buf)]
			}
			m, err := conn.Read(buf[len(buf):cap(buf)])
			buf = buf[:len(buf)+m]
			if m == 0 && err != nil {
				return nil, nil, err
			}
			continue
		}
		buf = buf[n:]
		if proto.IsHeartbeat(payload) {
			continue
		}
		var f proto.Frame
		if err := proto.Decode(payload, &f); err != nil {
			return nil, nil, err
		}
		switch body := f.GetBody().(type) {
		case *proto.Frame_Welcome:
			return body.Welcome, buf, nil
		case *proto.Frame_Error:
			return nil, nil, proto.FromWire(body.Error)
		}
	}
}
