package main

import (
	"fmt"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Access tokens, Who may be live, Devices and passwords, App state.

func deviceCases() []specCase {
	return []specCase{
		{"Access tokens", "which answer comes first", specTokenOrder},
		{"Access tokens", "RefreshToken", func(s *spec) {
			p := s.person()
			f := p.ask(&proto.Frame{Body: &proto.Frame_RefreshToken{RefreshToken: &proto.RefreshToken{}}})
			t := f.GetAccessToken()
			if t.GetToken() == "" || time.UnixMicro(t.ExpiresUs).Before(time.Now().Add(14*time.Minute)) {
				s.Fatalf("refreshed: %v", f)
			}
			s.in(s.as(p), p.name, byToken(t.Token))
		}},
		{"Access tokens", "all of a user end with any of its devices", func(s *spec) {
			for what, end := range map[string]func(a, b *phone){
				"revoked":    func(a, b *phone) { s.does("revoke", a, revoke(b.dev.id)) },
				"logged out": func(_, b *phone) { s.does("log out", b, logout()) },
				"password":   func(a, _ *phone) { a.ask(changePassword(password, password+"!")) },
			} {
				a := s.person()
				b := s.second(a, proto.DeviceSlot_DEVICE_SLOT_WEB)
				end(a, b)
				s.turnedAway(what+": the token of the device that stays", s.as(a), byToken(a.token), proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED)
				s.in(s.as(a), a.name, bySecret(a.dev.user, a.dev.secret, random(32)))
				s.turnedAway(what+": the token of the one that is gone", s.as(b), byToken(b.token), proto.ErrorCode_ERROR_CODE_REVOKED)
				s.turnedAway(what+": its secret", s.as(b), bySecret(b.dev.user, b.dev.secret, random(32)), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
			}
		}},
		{"Who may be live", "a newer login kicks, and no ping-pong", func(s *spec) {
			a := s.person()
			b := s.second(a, proto.DeviceSlot_DEVICE_SLOT_PHONE)
			a.fault(proto.ErrorCode_ERROR_CODE_KICKED)
			for range 2 {
				s.turnedAway("its token", s.as(a), byToken(a.token), proto.ErrorCode_ERROR_CODE_KICKED)
				s.turnedAway("its secret", s.as(a), bySecret(a.dev.user, a.dev.secret, random(32)), proto.ErrorCode_ERROR_CODE_KICKED)
			}
			s.quiet(b.wire, func(f *proto.Frame) bool { return f.GetError() == nil })
			w := s.as(a)
			w.dev.secret = random(32)
			s.in(w, a.name, loggingIn(a.name, password))
			b.fault(proto.ErrorCode_ERROR_CODE_KICKED)
		}},
		{"Who may be live", "other slots live beside", func(s *spec) {
			a := s.person()
			for slot := proto.DeviceSlot_DEVICE_SLOT_TABLET; slot <= proto.DeviceSlot_DEVICE_SLOT_OTHER; slot++ {
				s.second(a, slot)
			}
			s.does("the first is still in", a, setState(proto.AppState_APP_STATE_BACKGROUND))
		}},
		{"Who may be live", "the newest connection of a device", func(s *spec) {
			a := s.person()
			b := s.in(s.as(a), a.name, byToken(a.token))
			a.fault(proto.ErrorCode_ERROR_CODE_REPLACED)
			s.in(s.as(a), a.name, byToken(a.token))
			b.fault(proto.ErrorCode_ERROR_CODE_REPLACED)
		}},
		{"Devices and passwords", "ListDevices and RevokeDevice", specDevices},
		{"Devices and passwords", "ChangePassword", specPassword},
		{"Devices and passwords", "Logout", func(s *spec) {
			a := s.person()
			a.id++
			f := logout()
			f.Id = a.id
			a.send(f)
			if got := a.answer(f.Id); got.GetOk() == nil {
				s.Errorf("logout: %v", got)
			}
			a.ended()
		}},
		{"App state", "hints to the foreground, events to both", func(s *spec) {
			a, b := s.person(), s.person()
			front := func(on bool) bool { // whether a typing signal comes
				state := proto.AppState_APP_STATE_BACKGROUND
				if on {
					state = proto.AppState_APP_STATE_FOREGROUND
				}
				s.does("set state", b, setState(state))
				time.Sleep(300 * time.Millisecond) // a change of mind sooner than this collapses
				a.send(typing(b.dev.user, true), typing(b.dev.user, false))
				came := false
				s.quiet(b.wire, func(f *proto.Frame) bool {
					came = came || f.GetHint().GetTyping().GetUserId() == a.dev.user
					return true
				})
				return came
			}
			if !front(true) || front(false) {
				s.Error("hints do not go to the foreground alone")
			}
			s.does("unspecified", b, setState(proto.AppState_APP_STATE_UNSPECIFIED))
			if f := a.ask(message(b.dev.user, "hello")); f.GetSendAck() == nil {
				s.Fatalf("send: %v", f)
			}
			if e := s.event(b); textOf(e.GetMessage().GetContent()) != "hello" {
				s.Errorf("in the background: %v", e)
			}
		}},
	}
}

func specTokenOrder(s *spec) {
	a := s.person()
	w := s.as(a)
	w.dev.id = random(16)
	s.turnedAway("another device's", w, byToken(a.token), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	w = s.as(a)
	w.dev.slot = proto.DeviceSlot_DEVICE_SLOT_WEB
	s.turnedAway("another slot", w, byToken(a.token), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	s.turnedAway("cut short", s.as(a), byToken(a.token[:len(a.token)-4]), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	w = s.as(a)
	w.dev.slot = proto.DeviceSlot_DEVICE_SLOT_WEB
	s.turnedAway("another slot with the secret", w, bySecret(a.dev.user, a.dev.secret, random(32)), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)

	// A later login of the same device: its secret knows more than the token.
	w = s.as(a)
	w.dev.secret = random(32)
	later := s.in(w, a.name, loggingIn(a.name, password))
	s.turnedAway("of an earlier login", s.as(a), byToken(a.token), proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED)

	// Kicked, and all tokens over: KICKED is what counts. Revoked as well: that.
	b := s.second(a, proto.DeviceSlot_DEVICE_SLOT_PHONE)
	c := s.second(a, proto.DeviceSlot_DEVICE_SLOT_WEB)
	s.does("revoke", b, revoke(c.dev.id))
	s.turnedAway("kicked, tokens over", s.as(later), byToken(later.token), proto.ErrorCode_ERROR_CODE_KICKED)
	s.does("revoke", b, revoke(later.dev.id))
	s.turnedAway("kicked and revoked", s.as(later), byToken(later.token), proto.ErrorCode_ERROR_CODE_REVOKED)
}

func specDevices(s *spec) {
	a := s.person()
	b := s.second(a, proto.DeviceSlot_DEVICE_SLOT_TABLET)
	if e := s.event(a); e.GetSecurity().GetKind() != proto.SecurityKind_SECURITY_KIND_NEW_DEVICE {
		s.Errorf("a second device: %v", e)
	}
	list := a.ask(&proto.Frame{Body: &proto.Frame_ListDevices{ListDevices: &proto.ListDevices{}}}).GetDevices().GetDevices()
	if len(list) != 2 || !list[0].Current || list[1].Current || !list[0].Online || !list[1].Online || list[1].Info.Platform != "test" {
		s.Errorf("devices %v", list)
	}
	s.asks("revoke the own device", a, revoke(a.dev.id), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	s.asks("revoke half an id", a, revoke(b.dev.id[:8]), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	s.asks("revoke nobody's", a, revoke(random(16)), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	s.does("revoke", a, revoke(b.dev.id))
	b.fault(proto.ErrorCode_ERROR_CODE_REVOKED)
	s.asks("revoke again", a, revoke(b.dev.id), proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	if list = a.ask(&proto.Frame{Body: &proto.Frame_ListDevices{ListDevices: &proto.ListDevices{}}}).GetDevices().GetDevices(); len(list) != 1 {
		s.Errorf("devices after the revocation %v", list)
	}
}

func specPassword(s *spec) {
	a := s.person()
	b := s.second(a, proto.DeviceSlot_DEVICE_SLOT_TABLET)
	s.asks("a wrong old one", a, changePassword("wrong horse battery", password+"!"), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	s.asks("a weak new one", a, changePassword(password, "short"), proto.ErrorCode_ERROR_CODE_PASSWORD_WEAK)
	f := a.ask(changePassword(password, password+"!")) // the connection has stayed
	if f.GetAccessToken().GetToken() == "" {
		s.Fatalf("change: %v", f)
	}
	b.fault(proto.ErrorCode_ERROR_CODE_REVOKED)
	s.turnedAway("the old password", s.dial(), loggingIn(a.name, password), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	s.in(s.dial(), a.name, loggingIn(a.name, password+"!"))
	a.fault(proto.ErrorCode_ERROR_CODE_KICKED) // by the login just now
	a = s.person()
	kept := a.ask(changePassword(password, password+"?")).GetAccessToken().GetToken()
	s.turnedAway("the token of before", s.as(a), byToken(a.token), proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED)
	a = s.in(s.as(a), a.name, byToken(kept))
	for i := range 6 {
		want := proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED
		if i == 5 {
			want = proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS
		}
		s.asks(fmt.Sprintf("guess %d", i+1), a, changePassword("wrong horse battery", password), want)
	}
}

func revoke(id []byte) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_RevokeDevice{RevokeDevice: &proto.RevokeDevice{DeviceId: id}}}
}

func logout() *proto.Frame { return &proto.Frame{Body: &proto.Frame_Logout{Logout: &proto.Logout{}}} }

func changePassword(old, new string) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_ChangePassword{ChangePassword: &proto.ChangePassword{OldPassword: old, NewPassword: new}}}
}

func setState(state proto.AppState) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_SetState{SetState: &proto.SetState{State: state}}}
}

func typing(to int64, on bool) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_Typing{Typing: &proto.Typing{Target: &proto.Typing_ToUserId{ToUserId: to}, On: on}}}
}
