package main

import (
	"bytes"
	"slices"
	"strings"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Hello and Welcome, Device secrets.

func helloCases() []specCase {
	return []specCase{
		{"Hello and Welcome", "what its fields may hold", specHelloFields},
		{"Hello and Welcome", "a Hello without an id", func(s *spec) {
			w := s.dial()
			f := w.hello(registering(s.fresh()))
			f.Id = 0
			w.send(f)
			w.fault(proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
		}},
		{"Hello and Welcome", "what a Welcome carries", specWelcome},
		{"Hello and Welcome", "names without case, as the server stores them", func(s *spec) {
			name := s.fresh()
			p := s.in(s.dial(), name, registering("Ｐ"+strings.ToUpper(name[1:]))) // a full-width P
			if p.welcome.Name != name {
				s.Errorf("name %q, want %q", p.welcome.Name, name)
			}
			s.turnedAway("the same in capitals", s.dial(), registering(strings.ToUpper(name)), proto.ErrorCode_ERROR_CODE_NAME_TAKEN)
			s.in(s.dial(), name, loggingIn(strings.ToUpper(name), password))
		}},
		{"Hello and Welcome", "a lost answer to register", func(s *spec) {
			p := s.person()
			again := s.in(s.as(p), p.name, registering(p.name))
			if again.dev.user != p.dev.user {
				s.Error("the repeated Hello made another account")
			}
			p.fault(proto.ErrorCode_ERROR_CODE_REPLACED)
			other := s.as(p)
			other.dev.secret = random(32)
			s.turnedAway("another next_secret", other, registering(p.name), proto.ErrorCode_ERROR_CODE_NAME_TAKEN)
			s.turnedAway("another device", s.dial(), registering(p.name), proto.ErrorCode_ERROR_CODE_NAME_TAKEN)
			s.turnedAway("another password", s.as(p), func(h *proto.Hello) {
				h.Credentials = &proto.Hello_Register{Register: &proto.Register{Name: p.name, Password: password + "!"}}
			}, proto.ErrorCode_ERROR_CODE_NAME_TAKEN)
		}},
		{"Hello and Welcome", "a lost answer to login is no newer login", func(s *spec) {
			a := s.person()
			b := s.second(a, proto.DeviceSlot_DEVICE_SLOT_PHONE)
			a.fault(proto.ErrorCode_ERROR_CODE_KICKED)
			c := s.second(a, proto.DeviceSlot_DEVICE_SLOT_PHONE)
			b.fault(proto.ErrorCode_ERROR_CODE_KICKED)
			s.turnedAway("the Hello of before, again", s.as(b), loggingIn(a.name, password), proto.ErrorCode_ERROR_CODE_KICKED)
			s.in(s.as(c), a.name, loggingIn(a.name, password))
			c.fault(proto.ErrorCode_ERROR_CODE_REPLACED)
		}},
		{"Hello and Welcome", "a next_secret of an earlier login", func(s *spec) {
			a := s.person()
			next := random(32)
			s.in(s.as(a), a.name, bySecret(a.dev.user, a.dev.secret, next))
			s.turnedAway("its first secret as next", s.as(a), loggingIn(a.name, password), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
		}},
		{"Hello and Welcome", "50 devices", func(s *spec) {
			a := s.person()
			for range 49 {
				s.second(a, proto.DeviceSlot_DEVICE_SLOT_BOT)
			}
			w := s.dial()
			w.dev.slot = proto.DeviceSlot_DEVICE_SLOT_BOT
			s.turnedAway("the 51st", w, loggingIn(a.name, password), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
			s.in(s.as(a), a.name, loggingIn(a.name, password)) // one of the 50
		}},
		{"Hello and Welcome", "wrong passwords", func(s *spec) {
			a := s.person()
			for range 5 {
				s.turnedAway("a wrong password", s.dial(), loggingIn(a.name, "wrong horse battery"), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
			}
			s.turnedAway("the sixth, though right", s.dial(), loggingIn(a.name, password), proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS)
			s.turnedAway("nobody's name", s.dial(), loggingIn("nobody."+a.name, password), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
			s.turnedAway("no name at all", s.dial(), loggingIn("?", password), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
		}},
		{"Device secrets", "what the server does with current and next", specSecrets},
	}
}

func specHelloFields(s *spec) {
	invalid := proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT
	name := s.fresh()
	for _, c := range []struct {
		what   string
		change func(*proto.Hello)
		code   proto.ErrorCode
	}{
		{"versions 2 to 3", func(h *proto.Hello) { h.MinVersion, h.MaxVersion = 2, 3 }, proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION},
		{"no version", func(h *proto.Hello) { h.MinVersion, h.MaxVersion = 0, 0 }, proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION},
		{"versions 2 to 1", func(h *proto.Hello) { h.MinVersion = 2 }, invalid},
		{"no device", func(h *proto.Hello) { h.Device = nil }, invalid},
		{"a device id of 15 bytes", func(h *proto.Hello) { h.Device.Id = random(15) }, invalid},
		{"a device id of zeros", func(h *proto.Hello) { h.Device.Id = make([]byte, 16) }, invalid},
		{"no slot", func(h *proto.Hello) { h.Device.Slot = 0 }, invalid},
		{"an unknown slot", func(h *proto.Hello) { h.Device.Slot = 7 }, invalid},
		{"a text of 65 bytes", func(h *proto.Hello) { h.Device.Model = strings.Repeat("x", 65) }, invalid},
		{"a line break", func(h *proto.Hello) { h.Device.AppVersion = "1\n2" }, invalid},
		{"no credentials", func(h *proto.Hello) { h.Credentials = nil }, invalid},
		{"no next_secret", func(h *proto.Hello) { h.NextSecret = nil }, invalid},
		{"a next_secret of 31 bytes", func(h *proto.Hello) { h.NextSecret = random(31) }, invalid},
		{"a next_secret of zeros", func(h *proto.Hello) { h.NextSecret = make([]byte, 32) }, invalid},
		{"a token and a next_secret", func(h *proto.Hello) { h.Credentials = &proto.Hello_AccessToken{AccessToken: "x"} }, invalid},
		{"a token that is none", byToken("x"), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED},
		{"a current secret of 31 bytes", bySecret(1, random(31), random(32)), invalid},
		{"current and next the same", bySecret(1, bytes.Repeat([]byte{7}, 32), bytes.Repeat([]byte{7}, 32)), invalid},
		{"a secret of nobody", bySecret(1<<60, random(32), random(32)), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED},
		{"a name of 2 letters", registering("ab"), proto.ErrorCode_ERROR_CODE_NAME_INVALID},
		{"a name of 33", registering(strings.Repeat("a", 33)), proto.ErrorCode_ERROR_CODE_NAME_INVALID},
		{"a name with a space", registering("a b c"), proto.ErrorCode_ERROR_CODE_NAME_INVALID},
		{"a name that begins with a dot", registering(".abc"), proto.ErrorCode_ERROR_CODE_NAME_INVALID},
		{"7 characters of password", password7, proto.ErrorCode_ERROR_CODE_PASSWORD_WEAK},
		{"a display name of 65", func(h *proto.Hello) { h.GetRegister().DisplayName = strings.Repeat("x", 65) }, invalid},
	} {
		s.turnedAway(c.what, s.dial(), func(h *proto.Hello) {
			registering(name)(h)
			c.change(h)
		}, c.code)
	}
	// What may be new, or large, and is no error.
	s.in(s.dial(), name, func(h *proto.Hello) {
		registering(name)(h)
		h.MinVersion, h.MaxVersion = 0, 9
		h.Features = []proto.Feature{77}
		h.State = 9
		h.Device.Platform = strings.Repeat("x", 64)
	})
}

func password7(h *proto.Hello) { h.GetRegister().Password = "pas5w0r" }

func specWelcome(s *spec) {
	before := time.Now().UnixMicro()
	p := s.person()
	w, after := p.welcome, time.Now().UnixMicro()
	if w.Version != 1 || len(w.Features) > 0 || w.UserId <= 0 || w.Name != p.name || w.Connection == "" {
		s.Errorf("welcome %v", w)
	}
	if w.ServerTimeUs < before || w.ServerTimeUs > after {
		s.Errorf("server time %d, want %d to %d", w.ServerTimeUs, before, after)
	}
	if life := w.AccessTokenExpiresUs - w.ServerTimeUs; w.AccessToken == "" || life < 15*60e6 || life > 60*60e6 {
		s.Errorf("a token of %d characters for %d µs", len(w.AccessToken), life)
	}
	want := &proto.Limits{HeartbeatSeconds: 240, MaxFrameBytes: 64 << 10, MaxContentBytes: 32 << 10, EventWindow: 1024, MaxInFlight: 64, MaxSyncEvents: 200, MaxIds: 200}
	if w.Limits.String() != want.String() {
		s.Errorf("limits %v, want %v", w.Limits, want)
	}
	if r := w.Reset_; r.GetReason() != proto.ResetReason_RESET_REASON_NO_CURSOR || r.Resume.String() != w.Head.String() {
		s.Errorf("a device without a cursor: reset %v, head %v", r, w.Head)
	}
	// With half of its life to go a token is kept.
	again := s.in(s.as(p), p.name, byToken(p.token))
	if again.token != "" || again.welcome.Reset_ != nil {
		s.Errorf("welcome to a fresh token and a cursor: %v", again.welcome)
	}
	if again.welcome.Connection == w.Connection {
		s.Error("two connections of one name")
	}
}

func specSecrets(s *spec) {
	a := s.person()
	watch := s.second(a, proto.DeviceSlot_DEVICE_SLOT_DESKTOP)
	user, s0, s1, s2 := a.dev.user, a.dev.secret, random(32), random(32)
	step := func(what string, current, next []byte, code proto.ErrorCode) {
		s.Helper()
		if code != 0 {
			s.turnedAway(what, s.as(a), bySecret(user, current, next), code)
			return
		}
		s.in(s.as(a), a.name, bySecret(user, current, next))
	}
	step("a guess", random(32), s1, proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	step("current and a new one", s0, s1, 0)
	step("the same pair: its answer was lost", s0, s1, 0)
	step("next confirmed though the Welcome was lost", s1, s2, 0)
	step("the same as next", s2, s2, proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	step("two back", s0, random(32), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	step("the one before with another next", s1, random(32), proto.ErrorCode_ERROR_CODE_REVOKED)
	step("then even the current one is none", s2, random(32), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	var kinds []proto.SecurityKind
	for !slices.Contains(kinds, proto.SecurityKind_SECURITY_KIND_SECRET_REUSED) {
		kinds = append(kinds, s.event(watch).GetSecurity().GetKind())
	}
	// Another user's secret on this device, and this one's on another.
	b := s.person()
	s.turnedAway("for another user", s.as(b), bySecret(watch.dev.user, b.dev.secret, random(32)), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	s.turnedAway("from another device", s.dial(), bySecret(b.dev.user, b.dev.secret, random(32)), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
}
