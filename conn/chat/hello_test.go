package chat

import (
	"strings"
	"testing"

	"github.com/hermod-im/hermod/proto"
)

func TestHelloIsChecked(t *testing.T) {
	r := newRig(t, nil)
	device := func(change func(d *proto.DeviceInfo)) func(h *proto.Hello) {
		return func(h *proto.Hello) {
			h.Device = &proto.DeviceInfo{Id: random(16), Slot: phone}
			change(h.Device)
		}
	}
	secret := func(user int64, current []byte) *proto.Hello_DeviceSecret {
		return &proto.Hello_DeviceSecret{DeviceSecret: &proto.DeviceSecret{UserId: user, Current: current}}
	}
	for _, tt := range []struct {
		what   string
		change func(h *proto.Hello)
		code   proto.ErrorCode
	}{
		{"versions", func(h *proto.Hello) { h.MinVersion, h.MaxVersion = 2, 1 }, codeInvalid},
		{"too new", func(h *proto.Hello) { h.MinVersion, h.MaxVersion = 2, 3 }, proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION},
		{"a wider range", func(h *proto.Hello) { h.MinVersion, h.MaxVersion = 1, 9 }, codeUnauth},
		{"device id", device(func(d *proto.DeviceInfo) { d.Id = random(15) }), codeInvalid},
		{"long device id", device(func(d *proto.DeviceInfo) { d.Id = random(17) }), codeInvalid},
		{"zero device id", device(func(d *proto.DeviceInfo) { d.Id = make([]byte, 16) }), codeInvalid},
		{"no slot", device(func(d *proto.DeviceInfo) { d.Slot = 0 }), codeInvalid},
		{"slot 7", device(func(d *proto.DeviceInfo) { d.Slot = 7 }), codeInvalid},
		{"slot below 0", device(func(d *proto.DeviceInfo) { d.Slot = -1 }), codeInvalid},
		{"slot 257", device(func(d *proto.DeviceInfo) { d.Slot = 257 }), codeInvalid},
		{"platform", device(func(d *proto.DeviceInfo) { d.Platform = strings.Repeat("x", 65) }), codeInvalid},
		{"model", device(func(d *proto.DeviceInfo) { d.Model = "a\x1b[31m" }), codeInvalid},
		{"app version", device(func(d *proto.DeviceInfo) { d.AppVersion = "1\u202e0" }), codeInvalid},
		{"no credentials", func(h *proto.Hello) { h.Credentials = nil }, codeInvalid},
		{"no next_secret", func(h *proto.Hello) { h.NextSecret = nil }, codeInvalid},
		{"short next_secret", func(h *proto.Hello) { h.NextSecret = random(31) }, codeInvalid},
		{"zero next_secret", func(h *proto.Hello) { h.NextSecret = make([]byte, 32) }, codeInvalid},
		{"next_secret with a token", func(h *proto.Hello) { h.Credentials = &proto.Hello_AccessToken{AccessToken: "x"} }, codeInvalid},
		{"no token", func(h *proto.Hello) { h.NextSecret = nil; h.Credentials = &proto.Hello_AccessToken{} }, codeUnauth},
		{"no current", func(h *proto.Hello) { h.Credentials = secret(1, nil) }, codeInvalid},
		{"empty secret", func(h *proto.Hello) { h.Credentials = &proto.Hello_DeviceSecret{} }, codeInvalid},
		{"current is next", func(h *proto.Hello) { h.Credentials = secret(1, h.NextSecret) }, codeInvalid},
		{"long password", func(h *proto.Hello) { h.GetLogin().Password = strings.Repeat("x", 257) }, codeInvalid},
		{"impossible name", func(h *proto.Hello) { h.GetLogin().Name = "a b" }, codeUnauth},
		{"empty login", func(h *proto.Hello) { h.Credentials = &proto.Hello_Login{} }, codeUnauth},
		{"empty register", func(h *proto.Hello) { h.Credentials = &proto.Hello_Register{} }, proto.ErrorCode_ERROR_CODE_NAME_INVALID},
	} {
		t.Run(tt.what, func(t *testing.T) {
			a := r.app("nobody", phone)
			a.t = t
			a.password = "not that one"
			h := a.logsIn()
			h.MinVersion, h.MaxVersion = 1, 1
			tt.change(h)
			if e := a.out(h, tt.code); e.Message == "" {
				t.Error("no message")
			}
		})
	}
}

func TestHelloWithoutID(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	h := a.registers()
	h.MinVersion, h.MaxVersion = 1, 1
	h.Device = &proto.DeviceInfo{Id: a.id, Slot: phone}
	p := a.dial()
	p.write(&proto.Frame{Body: &proto.Frame_Hello{Hello: h}})
	if code := p.closed(); code != codeInvalid {
		t.Errorf("closed with %v", code)
	}
}

// FuzzHello: no Hello passes the checks with a field out of its bounds.
func FuzzHello(f *testing.F) {
	for _, h := range []*proto.Hello{
		{MinVersion: 1, MaxVersion: 1, Device: &proto.DeviceInfo{Id: random(16), Slot: 1}, Credentials: &proto.Hello_AccessToken{AccessToken: "x"}},
		{MinVersion: 1, MaxVersion: 1, NextSecret: random(32), Device: &proto.DeviceInfo{Id: random(16), Slot: 1}, Credentials: &proto.Hello_Login{}},
	} {
		b, err := proto.AppendFrame(nil, &proto.Frame{Id: 1, Body: &proto.Frame_Hello{Hello: h}})
		if err != nil {
			f.Fatal(err)
		}
		f.Add(b[proto.HeaderLen:])
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		var frame proto.Frame
		if proto.Decode(b, &frame) != nil {
			return
		}
		a := &arrival{frame: &frame}
		h := frame.GetHello()
		if err := a.read(h); err != nil {
			if proto.CodeOf(err) == proto.ErrorCode_ERROR_CODE_INTERNAL {
				t.Fatal(err)
			}
			return
		}
		_, byToken := h.Credentials.(*proto.Hello_AccessToken)
		if frame.Id == 0 || !validSlot(a.slot) || a.device == [16]byte{} || byToken != (a.next == [32]byte{}) || len(a.infoBytes) > 4*maxInfoBytes {
			t.Fatalf("%v passed", h)
		}
	})
}
