package chat

import (
	"slices"
	"testing"

	"github.com/hermod-im/hermod/proto"
)

func (p *peer) devices() []*proto.Device {
	p.t.Helper()
	f := p.call(&proto.Frame{Body: &proto.Frame_ListDevices{ListDevices: &proto.ListDevices{}}})
	if f.GetDevices() == nil {
		p.t.Fatalf("answered with %v", f)
	}
	return f.GetDevices().Devices
}

func revoke(id []byte) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_RevokeDevice{RevokeDevice: &proto.RevokeDevice{DeviceId: id}}}
}

func TestListDevices(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.app("alice", phone), r.app("alice", desktop)
	pa := a.in(a.registers())
	pb := b.in(b.logsIn())
	list := pa.devices()
	if len(list) != 2 {
		t.Fatalf("devices %v", list)
	}
	for i, x := range []*app{a, b} {
		d := list[i]
		if string(d.Info.Id) != string(x.id) || d.Info.Slot != x.slot || d.Info.Platform != "test" || d.Current != (i == 0) ||
			!d.Online || d.CreatedUs == 0 || d.LastSeenUs < d.CreatedUs {
			t.Errorf("device %d is %v", i, d)
		}
	}
	pb.close()
	eventually(t, "the other device is offline", func() bool { return !pa.devices()[1].Online })
	other := r.app("bob", phone)
	if list := other.in(other.registers()).devices(); len(list) != 1 {
		t.Errorf("bob sees %v", list)
	}
}

func TestLogout(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.app("alice", phone), r.app("alice", desktop)
	pa := a.in(a.registers())
	pb := b.in(b.logsIn())
	pa.ok(&proto.Frame{Body: &proto.Frame_Logout{Logout: &proto.Logout{}}})
	eventually(t, "the connection ends", func() bool {
		select {
		case f, ok := <-pa.frames:
			if ok && f.GetError() != nil {
				t.Fatalf("logout was followed by %v", f)
			}
			return !ok
		default:
			return false
		}
	})
	a.out(a.showsToken(), codeRevoked)
	a.out(a.showsSecret(), codeUnauth)
	if list := pb.devices(); len(list) != 1 {
		t.Errorf("devices after the logout: %v", list)
	}
	b.out(b.showsToken(), codeExpired)
	b.in(b.showsSecret())
}

func TestRevokeDevice(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.app("alice", phone), r.app("alice", desktop)
	pa := a.in(a.registers())
	pb := b.in(b.logsIn())
	stranger := r.app("bob", phone)
	ps := stranger.in(stranger.registers())

	ps.refused(revoke(b.id), codeNotFound) // only one's own
	pa.refused(revoke(a.id), codeInvalid)
	pa.refused(revoke([]byte("short")), codeInvalid)
	pa.refused(revoke(random(16)), codeNotFound)
	pa.ok(revoke(b.id))
	if code := pb.closed(); code != codeRevoked {
		t.Errorf("the revoked device was closed with %v", code)
	}
	b.out(b.showsToken(), codeRevoked)
	b.out(b.showsSecret(), codeUnauth)
	if got := pa.notices(); !slices.Contains(got, proto.SecurityKind_SECURITY_KIND_DEVICE_REVOKED) {
		t.Errorf("notices %v", got)
	}
	a.out(a.showsToken(), codeExpired) // the generation has risen
	f := pa.call(&proto.Frame{Body: &proto.Frame_RefreshToken{RefreshToken: &proto.RefreshToken{}}})
	if f.GetAccessToken() == nil {
		t.Fatalf("refresh was answered with %v", f)
	}
	a.token = f.GetAccessToken().Token
	a.in(a.showsToken())
}

func changePassword(old, next string) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_ChangePassword{ChangePassword: &proto.ChangePassword{OldPassword: old, NewPassword: next}}}
}

func TestChangePassword(t *testing.T) {
	const changed = "staple battery horse"
	r := newRig(t, nil)
	a, b := r.app("alice", phone), r.app("alice", desktop)
	pa := a.in(a.registers())
	pb := b.in(b.logsIn())

	pa.refused(changePassword("not that one", changed), codeUnauth) // and stays connected
	pa.refused(changePassword(password, "12345678"), codeWeak)
	pa.refused(changePassword(password, "alicealice"), codeWeak)
	pb.quiet("end", func(f *proto.Frame) bool { return f.GetError() != nil })

	f := pa.call(changePassword(password, changed))
	if f.GetAccessToken().GetToken() == "" {
		t.Fatalf("answered with %v", f)
	}
	if code := pb.closed(); code != codeRevoked {
		t.Errorf("the other device was closed with %v", code)
	}
	if got := pa.notices(); !slices.Contains(got, proto.SecurityKind_SECURITY_KIND_PASSWORD_CHANGED) {
		t.Errorf("notices %v", got)
	}
	if list := pa.devices(); len(list) != 1 {
		t.Errorf("devices %v", list)
	}
	a.out(a.showsToken(), codeExpired) // the token of before
	a.token = f.GetAccessToken().Token
	a.in(a.showsToken())
	a.in(a.showsSecret())
	b.out(b.showsSecret(), codeUnauth)
	b.next = nil
	b.out(b.logsIn(), codeUnauth)
	b.password = changed
	b.in(b.logsIn())
}

func TestChangePasswordGuessesCount(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	p := a.in(a.registers())
	for range freeGuesses {
		p.refused(changePassword("not that one", "staple battery horse"), codeUnauth)
	}
	if e := p.refused(changePassword("not that one", "staple battery horse"), codeTooMany); e.RetryAfterMs == 0 {
		t.Errorf("%v", e)
	}
	a.out(a.logsIn(), codeTooMany) // one count for both ways
}
