package chat

import (
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func TestResumeByToken(t *testing.T) {
	clock := new(fakeClock)
	r := newRig(t, atTime(clock))
	a := r.app("alice", phone)
	a.in(a.registers())
	if w := a.in(a.showsToken()).welcome; w.AccessToken != "" || w.UserId != a.user || w.Name != "alice" {
		t.Errorf("a fresh token: %v", w)
	}
	clock.Add(16 * time.Minute)
	old := a.token
	if w := a.in(a.showsToken()).welcome; w.AccessToken == "" || w.AccessToken == old || w.AccessTokenExpiresUs <= clock.Now().UnixMicro() {
		t.Errorf("a token past half of its life: %v", w)
	}
	clock.Add(15 * time.Minute)
	a.in(a.showsToken())
	stale := a.showsToken()
	stale.GetCredentials().(*proto.Hello_AccessToken).AccessToken = old
	a.out(stale, codeExpired)
	clock.Add(time.Hour)
	a.out(a.showsToken(), codeExpired)
	if w := a.in(a.showsSecret()).welcome; w.AccessToken == "" {
		t.Errorf("no token after a secret: %v", w)
	}
	a.in(a.showsToken())
}

func TestTokenIsOneDevices(t *testing.T) {
	r := newRig(t, nil)
	a, b := r.app("alice", phone), r.app("bob", phone)
	a.in(a.registers())
	b.in(b.registers())
	thief := *a
	thief.id = random(16)
	thief.out(thief.showsToken(), codeUnauth)
	moved := *a
	moved.slot = desktop
	moved.out(moved.showsToken(), codeInvalid)
	moved.out(moved.showsSecret(), codeInvalid)
	forged := *a
	forged.token = a.token[:strings.LastIndexByte(a.token, '.')] + b.token[strings.LastIndexByte(b.token, '.'):]
	forged.out(forged.showsToken(), codeUnauth)
}

func TestKeysRotate(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	a.in(a.registers())
	if err := r.chat.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	a.in(a.showsToken())
	if err := r.chat.RotateKeys(); err != nil {
		t.Fatal(err)
	}
	if err := r.chat.ReloadKeys(); err != nil {
		t.Fatal(err)
	}
	a.out(a.showsToken(), codeExpired)
	a.in(a.showsSecret())
	a.in(a.showsToken())
}

// TestLostAnswersOnTheWire walks the rule of the device secret through the
// real server: what TestEveryInterleavingOfLostAnswers proves of the rule.
func TestLostAnswersOnTheWire(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	a.in(a.registers())
	for range 3 {
		lost := a.showsSecret()
		for range 3 {
			if _, f := a.hello(lost); f.GetWelcome() == nil { // the answer is thrown away
				t.Fatalf("%v", f)
			}
		}
		a.in(a.showsSecret()) // the same pair: next still waits
	}
	// A client that lost only the answer may also go on with next alone.
	_, _ = a.hello(a.showsSecret())
	a.secret, a.next = a.next, nil
	a.in(a.showsSecret())
}

func TestReusedSecretRevokes(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	a.in(a.registers())
	other := r.app("alice", desktop)
	po := other.in(other.logsIn())
	po.caughtUp()

	thief := *a // a copy of the installation
	live := a.in(a.showsSecret())
	thief.out(thief.showsSecret(), codeRevoked)
	if code := live.closed(); code != codeRevoked {
		t.Errorf("the live session of the device was closed with %v", code)
	}
	ev := po.events(1)[0]
	for ev.GetSecurity().GetKind() != proto.SecurityKind_SECURITY_KIND_SECRET_REUSED {
		ev = po.events(1)[0]
	}
	if n := ev.GetSecurity(); string(n.Device.Id) != string(a.id) {
		t.Errorf("the other device is told %v", n)
	}
	a.out(a.showsToken(), codeRevoked)
	a.out(a.showsSecret(), codeUnauth)
	other.out(other.showsToken(), codeExpired) // all tokens are of an old generation
	other.in(other.showsSecret())              // its secret helps
	a.next = nil
	a.in(a.logsIn())
}

// TestSecretTellsNothing: unknown users and devices look like a wrong secret.
func TestSecretTellsNothing(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	a.in(a.registers())
	wrong, unknownDevice, unknownUser, noUser, minus := *a, *a, *a, *a, *a
	wrong.secret = random(32)
	unknownDevice.id = random(16)
	unknownUser.user ^= 1
	noUser.user = 0
	minus.user = -a.user
	var first *proto.Error
	for what, x := range map[string]*app{"wrong": &wrong, "device": &unknownDevice, "user": &unknownUser, "user 0": &noUser, "below 0": &minus} {
		e := x.out(x.showsSecret(), codeUnauth)
		if first == nil {
			first = e
		}
		if e.Message != first.Message {
			t.Errorf("%s: %v, another: %v", what, e, first)
		}
	}
	a.in(a.showsSecret()) // nothing of that has hurt the device
}

// TestNewerLoginWins: the older device of a slot is kicked, and stays out by
// whatever it has kept, until a person logs in again.
func TestNewerLoginWins(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	pa := a.in(a.registers())
	b := r.app("alice", phone)
	pb := b.in(b.logsIn())
	if code := pa.closed(); code != codeKicked {
		t.Errorf("the older device was closed with %v", code)
	}
	for range 2 { // no ping-pong
		a.out(a.showsToken(), codeKicked)
		a.out(a.showsSecret(), codeKicked)
	}
	pb.quiet("end", func(f *proto.Frame) bool { return f.GetError() != nil })
	a.next = nil
	a.in(a.logsIn())
	if code := pb.closed(); code != codeKicked {
		t.Errorf("after a login by password the other was closed with %v", code)
	}
	b.out(b.showsToken(), codeKicked)
	c := r.app("alice", desktop) // another slot disturbs nobody
	c.in(c.logsIn())
	a.in(a.showsToken())
}

func TestSameDeviceReplacesItself(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	first := a.in(a.registers())
	a.in(a.showsToken())
	if code := first.closed(); code != proto.ErrorCode_ERROR_CODE_REPLACED {
		t.Errorf("closed with %v", code)
	}
}

func TestRefreshToken(t *testing.T) {
	clock := new(fakeClock)
	r := newRig(t, atTime(clock))
	a := r.app("alice", phone)
	p := a.in(a.registers())
	clock.Add(45 * time.Minute) // the session outlives its token
	a.out(a.showsToken(), codeExpired)
	got := p.call(&proto.Frame{Body: &proto.Frame_RefreshToken{RefreshToken: &proto.RefreshToken{}}}).GetAccessToken()
	if got.GetToken() == "" || got.ExpiresUs != clock.Now().Truncate(time.Second).Add(30*time.Minute).UnixMicro() {
		t.Fatalf("refreshed %v", got)
	}
	a.token = got.Token
	a.in(a.showsToken())
}

func TestSecretsAreNotLogged(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	a.in(a.registers())
	thief := *a
	a.in(a.showsSecret())
	thief.out(thief.showsSecret(), codeRevoked)
	a.out(a.showsToken(), codeRevoked)
	log := r.log.String()
	for what, secret := range map[string]string{"password": password, "token": a.token, "secret": string(a.secret), "next": string(thief.next)} {
		if strings.Contains(log, secret) {
			t.Errorf("the %s is in the log", what)
		}
	}
	if !slices.ContainsFunc(strings.Split(log, "\n"), func(l string) bool { return strings.Contains(l, "used-up device secret") }) {
		t.Error("the log does not tell the operator of the reuse")
	}
}
