package chat

import (
	"errors"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

const (
	codeInvalid   = proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT
	codeUnauth    = proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED
	codeExpired   = proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED
	codeRevoked   = proto.ErrorCode_ERROR_CODE_REVOKED
	codeKicked    = proto.ErrorCode_ERROR_CODE_KICKED
	codeTaken     = proto.ErrorCode_ERROR_CODE_NAME_TAKEN
	codeTooMany   = proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS
	codeOverload  = proto.ErrorCode_ERROR_CODE_OVERLOADED
	codeRate      = proto.ErrorCode_ERROR_CODE_RATE_LIMITED
	codeNotFound  = proto.ErrorCode_ERROR_CODE_NOT_FOUND
	codeForbidden = proto.ErrorCode_ERROR_CODE_NOT_ALLOWED
	codeWeak      = proto.ErrorCode_ERROR_CODE_PASSWORD_WEAK

	newDevice = proto.SecurityKind_SECURITY_KIND_NEW_DEVICE
)

// atTime gives a rig's chat a clock.
func atTime(clock *fakeClock) func(*rigOptions) {
	clock.now = time.Now()
	return func(o *rigOptions) { o.chat.Now = clock.Now }
}

func TestRegister(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("Ａlice", phone)
	p := a.in(a.registers())
	w := p.welcome
	if w.Name != "alice" || w.AccessToken == "" || w.Head.Seq != 1 || w.Head.Epoch == 0 {
		t.Errorf("welcome %v", w)
	}
	if slot := storage.UserID(w.UserId).Slot(); slot != r.store.NameSlot("alice") {
		t.Errorf("user %d is in slot %d, its name decides for %d", w.UserId, slot, r.store.NameSlot("alice"))
	}
	if got := p.notices(); !slices.Equal(got, []proto.SecurityKind{newDevice}) {
		t.Errorf("notices %v", got)
	}
	b := r.app("ALICE", phone)
	b.out(b.registers(), codeTaken)
	b = r.app("alice bob", phone)
	b.out(b.registers(), proto.ErrorCode_ERROR_CODE_NAME_INVALID)
	b = r.app("bob", phone)
	b.password = "12345678"
	b.out(b.registers(), codeWeak)
	h := b.registers()
	b.password, h.GetRegister().Password = password, password
	h.GetRegister().DisplayName = strings.Repeat("b", 65)
	b.out(h, codeInvalid)
}

func TestRegisterAgainAfterLostAnswer(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	first := a.registers()
	a.in(first)
	user := a.user
	p := a.in(first)
	if a.user != user {
		t.Errorf("the retry made another user")
	}
	if got := p.notices(); len(got) != 1 {
		t.Errorf("the retry is a new device: %v", got)
	}
	a.password = "another good one"
	wrong := a.registers()
	wrong.NextSecret = first.NextSecret
	a.out(wrong, codeTaken)
	a.password, a.next = password, nil
	a.out(a.registers(), codeTaken) // another secret: not a retry
	thief := r.app("alice", phone)
	thief.next = first.NextSecret
	thief.out(thief.registers(), codeTaken) // another device: not a retry
}

func TestRegisterRaces(t *testing.T) {
	r := newRig(t, nil)
	const n = 8
	race := func(apps []*app) (users []int64) {
		var wg sync.WaitGroup
		var mu sync.Mutex
		for _, a := range apps {
			h := a.registers()
			wg.Go(func() {
				_, f := a.hello(h)
				mu.Lock()
				defer mu.Unlock()
				switch code := f.GetError().GetCode(); {
				case f.GetWelcome() != nil:
					users = append(users, f.GetWelcome().UserId)
				case code != codeTaken && code != proto.ErrorCode_ERROR_CODE_REPLACED:
					t.Errorf("answered with %v", f)
				}
			})
		}
		wg.Wait()
		return users
	}
	strangers := make([]*app, n)
	for i := range strangers {
		strangers[i] = r.app("alice", phone)
	}
	if users := race(strangers); len(users) != 1 {
		t.Errorf("%d of %d got the name", len(users), n)
	}
	one := r.app("bob", phone)
	one.newNext()
	retries := make([]*app, n)
	for i := range retries {
		retries[i] = new(app)
		*retries[i] = *one
	}
	users := race(retries)
	if len(users) == 0 || len(slices.Compact(slices.Sorted(slices.Values(users)))) != 1 {
		t.Errorf("retries of one registration got %v", users)
	}
}

func TestUserIDIsDrawnAgain(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	a.in(a.registers())
	reg := &registration{passwordCheck: passwordCheck{name: "bob"}, auth: []byte("x")}
	_, err := r.chat.createUser(t.Context(), signIn{key: storage.DeviceKey{User: storage.UserID(a.user)}, slot: 1, max: 5}, reg)
	if !errors.Is(err, errUserTaken) {
		t.Errorf("an id in use was given again: %v", err)
	}
	b := r.app("bob", phone)
	b.in(b.registers()) // nothing of the attempt is left
}

func TestLogin(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	pa := a.in(a.registers())
	b := r.app("ALICE", desktop)
	first := b.logsIn()
	pb := b.in(first)
	if b.user != a.user || pb.welcome.AccessToken == "" {
		t.Errorf("welcome %v", pb.welcome)
	}
	ev := pa.events(1)[0]
	for ev.GetSecurity().GetDevice().GetSlot() != desktop {
		ev = pa.events(1)[0]
	}
	if n := ev.GetSecurity(); n.Kind != newDevice || string(n.Device.Id) != string(b.id) || n.Device.Model != "ALICE" {
		t.Errorf("the other device is told %v", ev)
	}
	pb = b.in(first) // the answer was lost
	if got := pb.notices(); len(got) != 2 {
		t.Errorf("notices after a retry: %v", got)
	}
	pb = b.in(b.logsIn()) // a person logs in again
	if got := pb.notices(); len(got) != 2 {
		t.Errorf("notices after a second login: %v", got)
	}
	b.in(b.showsSecret())
	late := b.logsIn()
	late.NextSecret = first.NextSecret
	b.in(late) // long forgotten: a login like any other
}

// TestWrongPasswordTellsNothing: a name that nobody has and a wrong password
// get the same words after the same work.
func TestWrongPasswordTellsNothing(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	a.in(a.registers())
	runs := func(f func()) uint64 {
		before := r.chat.auth.hasher.runs.Load()
		f()
		return r.chat.auth.hasher.runs.Load() - before
	}
	var wrong, unknown *proto.Error
	bad, nobody := r.app("alice", phone), r.app("nobody", phone)
	bad.password = "not that one"
	nWrong := runs(func() { wrong = bad.out(bad.logsIn(), codeUnauth) })
	nUnknown := runs(func() { unknown = nobody.out(nobody.logsIn(), codeUnauth) })
	nRight := runs(func() { a.in(a.logsIn()) })
	if nWrong != 1 || nUnknown != 1 || nRight != 1 {
		t.Errorf("argon2 runs: wrong password %d, unknown name %d, right %d; want 1 each", nWrong, nUnknown, nRight)
	}
	if wrong.Message != unknown.Message || wrong.Retryable != unknown.Retryable {
		t.Errorf("%v and %v differ", wrong, unknown)
	}
	if strings.Contains(r.log.String(), bad.password) || strings.Contains(r.log.String(), password) {
		t.Error("a password is in the log")
	}
}

func TestWrongPasswordsBackOff(t *testing.T) {
	clock := new(fakeClock)
	r := newRig(t, atTime(clock))
	a := r.app("alice", phone)
	a.in(a.registers())
	for _, name := range []string{"alice", "nobody"} { // both alike
		bad := r.app(name, phone)
		bad.password = "not that one"
		for range freeGuesses {
			bad.out(bad.logsIn(), codeUnauth)
		}
		e := bad.out(bad.logsIn(), codeTooMany)
		if !e.Retryable || e.RetryAfterMs == 0 || e.RetryAfterMs > 1000 {
			t.Errorf("%s: %v", name, e)
		}
	}
	before := r.chat.auth.hasher.runs.Load()
	a.out(a.logsIn(), codeTooMany) // right, but too early
	if r.chat.auth.hasher.runs.Load() != before {
		t.Error("a refused guess costs a hash")
	}
	elsewhere := r.app("alice", desktop)
	elsewhere.from = "127.0.0.2"
	elsewhere.in(elsewhere.logsIn()) // the owner, from another address
	a.in(a.showsToken())             // and whoever needs no password
	clock.Add(time.Second)
	a.in(a.logsIn())
	bad := r.app("alice", phone)
	bad.password = "not that one"
	bad.out(bad.logsIn(), codeUnauth) // the right one has set the count back
}

func TestOverloadedLogin(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.chat.Argon2 = Argon2{MemoryKiB: 8, Passes: 1, Workers: 1, Queue: 1} })
	a := r.app("alice", phone)
	a.in(a.registers())
	gate, busy := make(chan struct{}), make(chan struct{})
	for _, job := range []func(){func() { close(busy); <-gate }, func() {}} {
		if err := r.chat.auth.hasher.submit(job); err != nil {
			t.Fatal(err)
		}
		if busy != nil {
			<-busy
			busy = nil
		}
	}
	for range freeGuesses + 2 { // not counted as guesses
		if e := a.out(a.logsIn(), codeOverload); !e.Retryable || e.RetryAfterMs == 0 {
			t.Fatalf("%v", e)
		}
	}
	a.in(a.showsToken()) // needs no hash
	close(gate)
	eventually(t, "the queue is empty", func() bool { return len(r.chat.auth.hasher.queue) == 0 })
	a.in(a.logsIn())
}

func TestRegisterRateLimit(t *testing.T) {
	clock := new(fakeClock)
	r := newRig(t, func(o *rigOptions) {
		atTime(clock)(o)
		o.chat.Limits.RegistersPerMinute = 2
		o.conn.Exempt = nobody()
	})
	register := func(names ...string) {
		t.Helper()
		for _, name := range names {
			a := r.app(name, phone)
			a.in(a.registers())
		}
	}
	register("user1", "user2")
	refused := r.app("user3", phone)
	refused.out(refused.registers(), codeRate)
	// The limit is one of those that change at run time.
	if err := r.chat.SetLimits(Limits{RegistersPerMinute: 5}); err != nil {
		t.Fatal(err)
	}
	clock.Add(time.Minute)
	register("user1b", "user2b", "user3b", "user4b", "user5b")
	a := r.app("user6", phone)
	if e := a.out(a.registers(), codeRate); !e.Retryable || e.RetryAfterMs == 0 || e.RetryAfterMs > 12_000 {
		t.Errorf("%v", e)
	}
	a.from = "127.0.0.2"
	a.in(a.registers())
	b := r.app("user7", phone)
	clock.Add(12 * time.Second)
	b.in(b.registers())
}

func TestExemptSkipsRegisterRateOnly(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.chat.Limits.RegistersPerMinute = 1 })
	for _, name := range []string{"user1", "user2", "user3"} {
		a := r.app(name, phone)
		a.in(a.registers())
	}
	bad := r.app("user1", phone)
	bad.password = "not that one"
	for range freeGuesses {
		bad.out(bad.logsIn(), codeUnauth)
	}
	bad.out(bad.logsIn(), codeTooMany)
}

func TestDeviceLimit(t *testing.T) {
	r := newRig(t, func(o *rigOptions) { o.chat.Accounts.Devices = 3 })
	a := r.app("alice", phone)
	p := a.in(a.registers())
	var last *app
	for _, slot := range []proto.DeviceSlot{desktop, 2} {
		last = r.app("alice", slot)
		last.in(last.logsIn())
	}
	more := r.app("alice", 4)
	if e := more.out(more.logsIn(), codeForbidden); !strings.Contains(e.Message, "revoke") {
		t.Errorf("%v does not say what to do", e)
	}
	last.next = nil
	last.in(last.logsIn()) // known devices may always
	p.ok(&proto.Frame{Body: &proto.Frame_RevokeDevice{RevokeDevice: &proto.RevokeDevice{DeviceId: last.id}}})
	more.next = nil
	more.in(more.logsIn())
}

func TestHashIsRenewedAtLogin(t *testing.T) {
	r := newRig(t, nil)
	a := r.app("alice", phone)
	a.in(a.registers())
	user := storage.UserID(a.user)
	old, err := newTestHasher(t, cheapArgon2()).newHash(password) // as if costs were lower then
	if err != nil {
		t.Fatal(err)
	}
	err = r.store.Update(t.Context(), ownRows(user), func(tx *storage.Tx) error {
		acc := tx.Account(user)
		acc.Auth = old
		tx.PutAccount(acc)
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	a.in(a.logsIn())
	acc, err := r.chat.account(t.Context(), user)
	if err != nil || string(acc.Auth) == string(old) || !strings.Contains(string(acc.Auth), "m=8,t=1") {
		t.Errorf("stored %s, was %s (%v)", acc.Auth, old, err)
	}
	a.in(a.logsIn())
}
