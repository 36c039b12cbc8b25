package attack

import (
	"bytes"
	"crypto/tls"
	"fmt"
	"net"
	"sync"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

const (
	unauthenticated = proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED
	tokenExpired    = proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED
	revoked         = proto.ErrorCode_ERROR_CODE_REVOKED
	replaced        = proto.ErrorCode_ERROR_CODE_REPLACED
	invalid         = proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT
)

// attackStolenToken has a token that its thief reads in a log or a backup, then
// one from a device that was copied as a whole.
func attackStolenToken(s *scene) string {
	s.shared()
	owner := s.person()
	owner.thief().out("a token without its device", byToken(owner.token), unauthenticated)
	w := owner.again()
	w.dev.slot = proto.DeviceSlot_DEVICE_SLOT_WEB
	w.out("a token for another slot", byToken(owner.token), invalid)

	// Everything is stolen. The owner notices: the two cannot be live at once.
	thief := owner.again().in(byToken(owner.token))
	owner.closedFor(replaced)
	// The owner takes the account back with the password: from now on nothing
	// of what was stolen works.
	desk := owner.thief()
	desk.dev.slot = proto.DeviceSlot_DEVICE_SLOT_DESKTOP
	desk.in(loggingIn(owner.name, password))
	begun := time.Now()
	if f := desk.ask(changePassword(password, password+"!")); f.GetAccessToken() == nil {
		s.fail("changing the password: %s", told(f))
	}
	took := s.closedSoon(thief, begun, revoked)
	owner.again().out("the stolen token", byToken(owner.token), revoked, tokenExpired)
	owner.again().out("the stolen secret", bySecret(owner.dev.user, owner.dev.secret, random(32)), unauthenticated, revoked)
	owner.thief().out("the old password", loggingIn(owner.name, password), unauthenticated)
	return fmt.Sprintf("worthless without its device; with it, the thief was out %d ms after the password was changed", took.Milliseconds())
}

// closedSoon wants the session to end as soon as was promised.
func (s *scene) closedSoon(w *wire, since time.Time, code proto.ErrorCode) time.Duration {
	w.until(time.Until(since.Add(s.revoked)))
	w.closedFor(code)
	return time.Since(since)
}

func changePassword(old, new string) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_ChangePassword{ChangePassword: &proto.ChangePassword{OldPassword: old, NewPassword: new}}}
}

func revoking(id []byte) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_RevokeDevice{RevokeDevice: &proto.RevokeDevice{DeviceId: id}}}
}

// attackRevoked goes on with a device that was revoked, and with one that has
// logged out.
func attackRevoked(s *scene) string {
	s.shared()
	owner := s.person()
	lost := owner.beside(proto.DeviceSlot_DEVICE_SLOT_TABLET)
	begun := time.Now()
	if f := owner.ask(revoking(lost.dev.id)); f.GetOk() == nil {
		s.fail("revoking: %s", told(f))
	}
	took := s.closedSoon(lost, begun, revoked)
	lost.again().out("its token", byToken(lost.token), revoked)
	lost.again().out("its secret", bySecret(lost.dev.user, lost.dev.secret, random(32)), unauthenticated)
	owner.lives("the device that revoked it")

	gone := owner.beside(proto.DeviceSlot_DEVICE_SLOT_WEB)
	if f := gone.ask(&proto.Frame{Body: &proto.Frame_Logout{Logout: &proto.Logout{}}}); f.GetOk() == nil {
		s.fail("logout: %s", told(f))
	}
	gone.again().out("a token after logout", byToken(gone.token), revoked)
	gone.again().out("a secret after logout", bySecret(gone.dev.user, gone.dev.secret, random(32)), unauthenticated)
	return fmt.Sprintf("its session ended after %d ms; token and secret refused", took.Milliseconds())
}

// attackReusedSecret copies a device secret. Whoever of the two comes second is
// found out, and the device is revoked for both.
func attackReusedSecret(s *scene) string {
	s.shared()
	for _, thiefFirst := range []bool{true, false} {
		owner := s.person()
		watcher := owner.beside(proto.DeviceSlot_DEVICE_SLOT_DESKTOP)
		stolen := owner.dev.secret
		first := owner.again()
		first.dev.secret = random(32)
		first.in(bySecret(owner.dev.user, stolen, first.dev.secret))
		second := owner.again()
		second.out(fmt.Sprintf("the copied secret (thief first: %v)", thiefFirst), bySecret(owner.dev.user, stolen, random(32)), revoked)
		s.closedSoon(first, time.Now(), revoked)
		first.again().out("the one who rotated it", bySecret(owner.dev.user, first.dev.secret, random(32)), unauthenticated, revoked)
		watcher.until(s.patience)
		for told := false; !told; {
			f, err := watcher.next()
			if err != nil {
				s.breach("the owner's other device is not told: %v", err)
			}
			for _, e := range f.GetEvents().GetEvents() {
				told = told || e.GetSecurity().GetKind() == proto.SecurityKind_SECURITY_KIND_SECRET_REUSED
			}
		}
	}
	return "the second use revokes the device, and the others are told"
}

// attackReplay repeats what it has recorded: a Hello that was good once, a
// message many times at once, and the bytes of a whole TLS connection.
func attackReplay(s *scene) string {
	s.shared()
	owner := s.person()
	old, next := owner.dev.secret, random(32)
	recorded := bySecret(owner.dev.user, old, next)
	owner.again().in(recorded)
	// The owner goes on: what was recorded is from before.
	last := random(32)
	owner.again().in(bySecret(owner.dev.user, next, last))
	owner.again().out("a recorded Hello", recorded, unauthenticated, revoked)

	ben, ann := s.person(), s.person()
	f := message(ben.dev.user, "once")
	acks := make([]*proto.SendAck, 40)
	devices := []*wire{ann, ann.beside(proto.DeviceSlot_DEVICE_SLOT_WEB), ann.beside(proto.DeviceSlot_DEVICE_SLOT_DESKTOP), ann.beside(proto.DeviceSlot_DEVICE_SLOT_BOT)}
	s.all(len(devices), func(i int) {
		for n := range len(acks) / len(devices) {
			acks[n*len(devices)+i] = devices[i].ask(gproto.Clone(f).(*proto.Frame)).GetSendAck()
		}
	})
	for i, a := range acks {
		if !gproto.Equal(a, acks[0]) || a == nil {
			s.breach("replay %d was answered %v, the first %v", i, a, acks[0])
		}
	}
	count := 0
	for _, f := range ben.quiet(time.Second) {
		count += len(f.GetEvents().GetEvents())
	}
	if count != 1 {
		s.breach("one message, sent 40 times, arrived %d times", count)
	}
	s.replayTLS()
	return "a recorded Hello is refused; one message sent 40 times arrived once; recorded TLS is noise"
}

// recorder keeps what is written.
type recorder struct {
	net.Conn
	mu    sync.Mutex
	bytes bytes.Buffer
}

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	r.bytes.Write(b)
	r.mu.Unlock()
	return r.Conn.Write(b)
}

// replayTLS records a connection in which a message is sent, and plays it back.
func (s *scene) replayTLS() {
	ben := s.person()
	w := s.dialFrom(s.someone(), s.srv.TLS)
	rec := &recorder{Conn: w.Conn}
	w.Conn = rec
	s.must(w.secure(nil))
	w.in(registering(s.name("taped")))
	w.says(ben.dev.user, "taped")
	before := ben.quiet(300 * time.Millisecond)
	again := s.dialFrom(s.someone(), s.srv.TLS)
	_, _ = again.Write(rec.bytes.Bytes())
	if !again.shut(s.patience) {
		s.breach("a recorded TLS connection is taken")
	}
	if more := ben.quiet(300 * time.Millisecond); len(before) == 0 || len(more) != 0 {
		s.breach("a recorded TLS connection delivers: %v", more)
	}
}

// attackDowngrade wants less than TLS 1.3 with hermod/1.
func attackDowngrade(s *scene) string {
	s.shared()
	for what, change := range map[string]func(*tls.Config){
		"TLS 1.2":          func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS12, tls.VersionTLS12 },
		"TLS 1.0":          func(c *tls.Config) { c.MinVersion, c.MaxVersion = tls.VersionTLS10, tls.VersionTLS10 },
		"no ALPN":          func(c *tls.Config) { c.NextProtos = nil },
		"another protocol": func(c *tls.Config) { c.NextProtos = []string{"h2", "http/1.1"} },
	} {
		if err := s.dialFrom(s.someone(), s.srv.TLS).secure(change); err == nil {
			s.breach("%s: accepted", what)
		}
	}
	w := s.dialFrom(s.someone(), s.srv.TLS)
	_, _ = w.Write(s.framed(w.hello(registering(s.name("naked")))))
	if !w.shut(s.patience) {
		s.breach("a Hello in plaintext on the TLS port is not refused")
	}
	good := s.dialFrom(s.someone(), s.srv.TLS)
	if err := good.secure(nil); err != nil {
		s.fail("TLS 1.3: %v", err)
	}
	good.in(registering(s.name("secure")))
	return "TLS 1.2 and below, other protocols and plaintext refused"
}
