package attack

import (
	"fmt"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// stolenTablet is somebody whose phone is on the first node and whose tablet,
// in other hands, is on the second.
func (s *scene) stolenTablet(f *Fleet) (phone, tablet *wire) {
	phone = s.member(f, 0)
	tablet = s.at(f, 1)
	tablet.dev.slot = proto.DeviceSlot_DEVICE_SLOT_TABLET
	return phone, tablet.in(loggingIn(phone.name, password))
}

// attackElsewhere revokes what is connected to another node.
func attackElsewhere(s *scene) string {
	f := s.clustered()
	s.stage.links.RLock()
	defer s.stage.links.RUnlock()
	worst := time.Duration(0)
	for what, revoke := range map[string]func(phone, tablet *wire) *proto.Frame{
		"revoked":      func(phone, tablet *wire) *proto.Frame { return phone.ask(revoking(tablet.dev.id)) },
		"new password": func(phone, _ *wire) *proto.Frame { return phone.ask(changePassword(password, password+"!")) },
	} {
		phone, tablet := s.stolenTablet(f)
		begun := time.Now()
		if got := revoke(phone, tablet); got.GetError() != nil {
			s.fail("%s: %s", what, told(got))
		}
		worst = max(worst, s.closedSoon(tablet, begun, revoked))
		for node := range f.Nodes { // what it holds is worth nothing anywhere
			w := s.at(f, node)
			w.dev = tablet.dev
			w.out(what+": its token", byToken(tablet.token), revoked)
			w = s.at(f, node)
			w.dev = tablet.dev
			w.out(what+": its secret", bySecret(tablet.dev.user, tablet.dev.secret, random(32)), unauthenticated, revoked)
		}
		phone.lives(what + ": the phone")
	}
	return fmt.Sprintf("closed on the other node after %d ms; its token refused everywhere", worst.Milliseconds())
}

// attackPartition revokes while the nodes do not hear each other. It takes its
// turn, since nothing else works between nodes then.
func attackPartition(s *scene) string {
	f := s.clustered()
	if f.Cut == nil {
		s.must(fmt.Errorf("%w: the links between nodes cannot be cut", ErrUnable))
	}
	s.stage.links.Lock()
	defer s.stage.links.Unlock()
	phone, tablet := s.stolenTablet(f)
	mend, err := f.Cut(s.ctx)
	s.must(err)
	defer func() { s.must(mend()) }()
	begun := time.Now()
	if got := phone.ask(revoking(tablet.dev.id)); got.GetOk() == nil {
		s.fail("revoking: %s", told(got))
	}
	w := s.at(f, 1) // new connections ask the store, which is not parted
	w.dev = tablet.dev
	w.out("its token, on its node", byToken(tablet.token), revoked)
	tablet.until(s.partitioned)
	tablet.closedFor(revoked)
	return "closed after " + secs(time.Since(begun))
}
