package chat

import (
	"strings"
	"testing"

	"github.com/hermod-im/hermod/proto"
)

func (p *peer) profiles(f *proto.Frame) []*proto.Profile {
	p.t.Helper()
	got := p.call(f)
	if got.GetProfiles_() == nil {
		p.t.Fatalf("answered with %v", got)
	}
	return got.GetProfiles_().Profiles
}

func lookup(name string) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_LookupUser{LookupUser: &proto.LookupUser{Name: name}}}
}

func profilesOf(ids ...int64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: ids}}}
}

func update(display, avatar string) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_UpdateProfile{UpdateProfile: &proto.UpdateProfile{DisplayName: display, AvatarUrl: avatar}}}
}

func TestProfiles(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.app("alice", phone), r.app("bob", phone)
	pa := a.in(a.registers())
	h := b.registers()
	h.GetRegister().DisplayName = "Bob 🎸"
	pb := b.in(h)
	b2 := r.app("bob", desktop)
	p2 := b2.in(b2.logsIn())
	p2.caughtUp()

	got := pa.profiles(lookup("BOB"))
	if len(got) != 1 || got[0].UserId != b.user || got[0].Name != "bob" || got[0].DisplayName != "Bob 🎸" {
		t.Errorf("lookup: %v", got)
	}
	for _, name := range []string{"carol", "", "a b", strings.Repeat("x", 500)} {
		pa.refused(lookup(name), codeNotFound)
	}
	if got = pa.profiles(update("", "")); got[0].DisplayName != "alice" {
		t.Errorf("without a display name: %v", got)
	}
	got = pb.profiles(update("Robert", "https://example.org/b.png"))
	if len(got) != 1 || got[0].DisplayName != "Robert" || got[0].AvatarUrl != "https://example.org/b.png" || got[0].UserId != b.user {
		t.Errorf("update: %v", got)
	}
	ev := p2.events(1)[0]
	for ev.GetProfile() == nil {
		ev = p2.events(1)[0]
	}
	if ev.GetProfile().DisplayName != "Robert" || ev.GetProfile().UserId != b.user || ev.GetProfile().Name != "bob" {
		t.Errorf("the other device is told %v", ev)
	}
	head := p2.call(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cursor(p2, ev.Seq)}}})
	pb.profiles(update("Robert", "https://example.org/b.png")) // nothing new
	again := p2.call(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cursor(p2, ev.Seq)}}})
	if len(head.GetSyncResponse().GetEvents()) != len(again.GetSyncResponse().GetEvents()) {
		t.Errorf("an update that changes nothing makes an event: %v", again)
	}
	got = pa.profiles(profilesOf(b.user, 1, -5, 0, a.user, b.user))
	if len(got) != 2 || got[0].UserId != b.user || got[0].DisplayName != "Robert" || got[1].UserId != a.user {
		t.Errorf("profiles: %v", got)
	}
	pa.refused(profilesOf(make([]int64, 201)...), codeInvalid)
	if got = pa.profiles(profilesOf(make([]int64, 200)...)); len(got) != 0 {
		t.Errorf("profiles of nobody: %v", got)
	}
}

func TestProfileRules(t *testing.T) {
	for _, tt := range []struct {
		display, avatar string
		ok              bool
	}{
		{"", "", true},
		{strings.Repeat("😀", 64), "", true},
		{strings.Repeat("a", 65), "", false},
		{strings.Repeat("a", 5000), "", false},
		{"two words", "http://example.org", true},
		{"   ", "", false},
		{"a\nb", "", false},
		{"a\u202eb", "", false},
		{"a\u2028b", "", false},
		{"a\x00b", "", false},
		{"a", "https://example.org/" + strings.Repeat("x", 492), true},
		{"a", "https://example.org/" + strings.Repeat("x", 493), false},
		{"a", "ftp://example.org/x", false},
		{"a", "javascript:alert(1)", false},
		{"a", "data:image/png;base64,AAAA", false},
		{"a", "https://", false},
		{"a", "/relative.png", false},
		{"a", "https://user:pass@example.org/", false},
		{"a", "https://example.org/\n", false},
	} {
		err := checkDisplayName(tt.display)
		if err == nil {
			err = checkAvatarURL(tt.avatar)
		}
		if (err == nil) != tt.ok || err != nil && proto.CodeOf(err) != codeInvalid {
			t.Errorf("%q, %q: %v, want ok %v", tt.display, tt.avatar, err, tt.ok)
		}
	}
}
