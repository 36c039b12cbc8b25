package bench

import (
	"context"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func testIdle(f *fakeServer) IdleConfig {
	return IdleConfig{
		Target: Target{Addr: f.addr, PID: os.Getpid()},
		From:   10, To: 40, Ramp: 1000,
		Settle: 300 * time.Millisecond, SettleMax: 10 * time.Second, Hold: 1500 * time.Millisecond,
	}
}

func TestIdle(t *testing.T) {
	f := newFake(t)
	f.beat = 3
	cfg := testIdle(f)
	cfg.Hold, cfg.Warm = 3500*time.Millisecond, true
	rep, err := Idle(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if !rep.OK {
		t.Fatalf("not OK: %v", rep.Problems)
	}
	i := rep.Idle
	if len(i.At) != 2 || i.At[0].Connections != 10 || i.At[1].Connections != 40 {
		t.Fatalf("points: %+v", i.At)
	}
	if logins := f.seen.passwords + f.seen.secrets + f.seen.tokens; !i.Warm || logins < 3*40 {
		t.Errorf("%d logins: to register, to warm up, and to stay are 120", logins)
	}
	for _, p := range i.At {
		if p.RSS == 0 || p.PSS == 0 || p.Anon == 0 {
			t.Errorf("memory: %+v", p)
		}
	}
	grown := (float64(i.At[1].RSS) - float64(i.At[0].RSS)) / 30
	if i.BytesPerConnection != grown {
		t.Errorf("%v B per connection, want %v", i.BytesPerConnection, grown)
	}
	if f.seen.heartbeats < 40 || i.Connections.Heartbeats < 40 || i.Connections.Drops != 0 || i.Connections.Open != 40 {
		t.Errorf("%d heartbeats seen; %+v", f.seen.heartbeats, i.Connections)
	}
	var text strings.Builder
	if err := rep.WriteSummary(&text); err != nil || !strings.Contains(text.String(), "per connection") {
		t.Errorf("summary: %v\n%s", err, text.String())
	}
}

// TestIdleSeesLostConnections: a server that drops people is not fine.
func TestIdleSeesLostConnections(t *testing.T) {
	f := newFake(t)
	cfg := testIdle(f)
	dropped := false
	cfg.Progress = func(p Progress) {
		if p.Phase == "hold" && !dropped {
			dropped = true
			f.mu.Lock()
			f.faults.hello = func() *proto.Fault { return proto.Errorf(proto.ErrorCode_ERROR_CODE_OVERLOADED, "") }
			for c := range f.conns {
				c.c.Close()
				break
			}
			f.mu.Unlock()
		}
	}
	cfg.Hold = 2 * time.Second // so that a progress falls into it
	rep, err := Idle(t.Context(), cfg)
	if err != nil {
		t.Fatal(err)
	}
	if rep.OK || rep.Idle.Connections.Open != 39 {
		t.Fatalf("OK=%v with %d of 40 connections", rep.OK, rep.Idle.Connections.Open)
	}
}

func TestStateLogsInWithoutPasswords(t *testing.T) {
	f := newFake(t)
	dir := filepath.Join(t.TempDir(), "state")
	cfg := UsersConfig{Target: Target{Addr: f.addr}, Users: Users{State: dir, Prefix: "anna"}, Count: 5}
	run := func(what string) (*Report, seen) {
		t.Helper()
		f.mu.Lock()
		f.seen = seen{complaints: f.seen.complaints}
		f.mu.Unlock()
		rep, err := MakeUsers(t.Context(), cfg)
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
		f.mu.Lock()
		defer f.mu.Unlock()
		return rep, f.seen
	}
	if _, s := run("first"); s.passwords != 5 {
		t.Errorf("first run: %+v", s)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) == 0 {
		t.Fatal(entries, err)
	}
	for _, e := range entries {
		if info, err := e.Info(); err != nil || info.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", e.Name(), info.Mode(), err)
		}
	}
	if rep, s := run("second"); s.passwords != 0 || s.tokens != 1 || rep.Users.Registered != 0 {
		t.Errorf("second run: %+v", s)
	}
	f.mu.Lock()
	for _, u := range f.users {
		u.token = "another"
	}
	f.mu.Unlock()
	if _, s := run("token expired"); s.passwords != 0 || s.secrets != 1 {
		t.Errorf("with an expired token: %+v", s)
	}
	f.mu.Lock()
	f.users, f.names = map[int64]*fakeUser{100: {id: 100}}, map[string]*fakeUser{}
	f.mu.Unlock()
	if rep, s := run("wiped"); s.passwords != 5 || len(rep.Notes) == 0 {
		t.Errorf("new data: %+v %v", s, rep.Notes)
	}
	// Another folder knows no password of these users.
	cfg.State = t.TempDir()
	if _, err := MakeUsers(t.Context(), cfg); err == nil || !strings.Contains(err.Error(), "another --users-prefix") {
		t.Errorf("state lost: %v", err)
	}
}

// TestStateSurvivesALostAnswer: the secret that was sent is sent again.
func TestStateSurvivesALostAnswer(t *testing.T) {
	f := newFake(t)
	dir := t.TempDir()
	cfg := UsersConfig{Target: Target{Addr: f.addr}, Users: Users{State: dir, Prefix: "bert"}, Count: 1}
	if _, err := MakeUsers(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	// As a process leaves it that was killed between Hello and Welcome.
	a, err := openAccounts(dir, "bert", "")
	if err != nil {
		t.Fatal(err)
	}
	acc := a.get(0)
	acc.Token, acc.Next = "", randomBytes(proto.DeviceSecretLen)
	if err := a.save(acc); err != nil {
		t.Fatal(err)
	}
	if _, err := openAccounts(dir, "bert", ""); err == nil || !strings.Contains(err.Error(), "another run") {
		t.Errorf("opened twice: %v", err)
	}
	if err := a.close(); err != nil {
		t.Fatal(err)
	}
	f.mu.Lock()
	u := f.users[acc.UserID]
	u.prev, u.cur = u.cur, acc.Next
	f.seen = seen{}
	f.mu.Unlock()
	if _, err := MakeUsers(t.Context(), cfg); err != nil {
		t.Fatal(err)
	}
	if f.seen.secrets != 1 || f.seen.passwords != 0 {
		t.Errorf("%+v", f.seen)
	}
}

func TestStateFileDamage(t *testing.T) {
	cases := map[string]struct {
		text string
		ok   bool
	}{
		"torn last line":   {`{"prefix":"carl","password":"p"}` + "\n" + `{"n":0,"user":5}` + "\n" + `{"n":1,"us`, true},
		"torn in between":  {`{"prefix":"carl","password":"p"}` + "\n" + `{"n":0,"us` + "\n" + `{"n":1,"user":6}` + "\n", false},
		"of other users":   {`{"prefix":"dora","password":"p"}` + "\n", false},
		"something else":   {"hello\n", false},
		"empty":            {"", true},
		"later line wins":  {`{"prefix":"carl","password":"p"}` + "\n" + `{"n":0,"user":4}` + "\n" + `{"n":0,"user":5}` + "\n", true},
		"no users at all ": {`{"prefix":"carl","password":"p"}` + "\n", true},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			if err := os.WriteFile(filepath.Join(dir, "carl.jsonl"), []byte(c.text), 0o600); err != nil {
				t.Fatal(err)
			}
			a, err := openAccounts(dir, "carl", "")
			if (err == nil) != c.ok {
				t.Fatalf("ok %v, got %v", c.ok, err)
			}
			if err != nil {
				return
			}
			if strings.Contains(c.text, `"user":5`) && a.get(0).UserID != 5 {
				t.Errorf("user 0 is %d", a.get(0).UserID)
			}
			if err := a.close(); err != nil {
				t.Fatal(err)
			}
		})
	}
}

func TestDialerChecksItsMeans(t *testing.T) {
	if _, err := newDialer("127.0.0.1:1", nil, 1<<40); err == nil || !strings.Contains(err.Error(), "ulimit -n") {
		t.Errorf("files: %v", err)
	}
	if _, err := newDialer("nowhere", nil, 1); err == nil || !strings.Contains(err.Error(), "host:port") {
		t.Errorf("address: %v", err)
	}
	f := newFake(t)
	d, err := newDialer(f.addr, nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	d.perSource = 2 // as if there were two ports an address
	used := make(map[string]int)
	for n := range 6 {
		c, err := d.dial(context.Background(), n)
		if err != nil {
			t.Fatal(err)
		}
		host, _, _ := strings.Cut(c.LocalAddr().String(), ":")
		used[host]++
		c.Close()
	}
	if len(used) != 3 || used["127.0.0.2"] != 2 {
		t.Errorf("sources: %v", used)
	}
}
