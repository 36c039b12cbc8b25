package main

import (
	"bytes"
	"crypto/tls"
	"errors"
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/rs/zerolog"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/proto"
)

// Not parallel: it counts what the process has open.
func TestLifeStartAndCloseLeaveNothing(t *testing.T) {
	files := func() int {
		entries, err := os.ReadDir("/proc/self/fd")
		if err != nil {
			t.Fatal(err)
		}
		return len(entries)
	}
	once := func(cfg config.Config) {
		s, err := Start(cfg, zerolog.Nop())
		if err != nil {
			t.Fatal(err)
		}
		n := &node{Server: s, t: t, addr: s.Addrs()[0].String(), log: new(logBuffer)}
		w := n.dial()
		w.register("guest")
		n.stop()
		_ = w.Close()
	}
	once(testConfig(t)) // what the process itself opens once: epoll, entropy, gnet's pool
	goroutines, before := goleak.IgnoreCurrent(), files()
	for range 5 {
		once(testConfig(t))
	}
	goleak.VerifyNone(t, goroutines)
	if after := files(); after > before {
		t.Errorf("%d files open, %d before five lives", after, before)
	}
}

func TestLifeSecondServer(t *testing.T) {
	t.Parallel()
	n := serve(t)
	samePort := testConfig(t)
	samePort.Listen.Plain = n.addr
	sameAdmin := testConfig(t)
	sameAdmin.Admin.Listen = n.admin.addr().String()
	for _, c := range []struct {
		name  string
		cfg   config.Config
		words []string
	}{
		{"same port", samePort, []string{n.addr, "in use"}},
		{"same admin port", sameAdmin, []string{"admin.listen", "in use"}},
	} {
		t.Run(c.name, func(t *testing.T) {
			s, err := Start(c.cfg, zerolog.Nop())
			if err == nil {
				_ = s.Close()
				t.Fatal("started")
			}
			wantError(t, err, c.words...)
		})
	}
	t.Run("same data folder", func(t *testing.T) {
		bin, err := serverBinary()
		if err != nil {
			t.Fatal(err)
		}
		cmd := exec.Command(bin)
		cmd.Dir = t.TempDir()
		cmd.Env = append(os.Environ(), "HERMOD_DATA_DIR="+n.cfg.Data.Dir, "HERMOD_LISTEN_PLAIN=127.0.0.1:0",
			"HERMOD_ADMIN_LISTEN=127.0.0.1:0", "HERMOD_STORAGE_FREE_RESERVE_MIB=64")
		out, err := cmd.CombinedOutput() // it ends by itself
		wantError(t, errors.New(string(out)), n.cfg.Data.Dir, "another hermod runs on this data")
		if cmd.ProcessState.ExitCode() != 1 {
			t.Errorf("ended with %v", err)
		}
	})
	n.dial().register("undisturbed")
	// What failed has given everything back.
	samePort.Listen.Plain = "127.0.0.1:0"
	serveConfig(t, samePort).dial().register("elsewhere")
}

func TestLifeAdmin(t *testing.T) {
	t.Parallel()
	n := serve(t)
	for path, want := range map[string]string{
		"/livez": "ok\n", "/readyz": "ok\n", "/metrics": "hermod_conn_open ", "/debug/pprof/": "goroutine",
		"/debug/pprof/goroutine?debug=1": "goroutine profile:", "/debug/pprof/cmdline": "hermod",
	} {
		if status, body := n.get(path); status != http.StatusOK || !strings.Contains(body, want) {
			t.Errorf("%s: %d, %.80q without %q", path, status, body, want)
		}
	}
	for _, name := range []string{"hermod_storage_", "hermod_router_", "hermod_chat_", "go_goroutines", "process_open_fds"} {
		if _, page := n.get("/metrics"); !strings.Contains(page, "\n"+name) {
			t.Errorf("/metrics has nothing of %s", name)
		}
	}
	base := "http://" + n.admin.addr().String()
	for _, host := range []string{"evil.example", "evil.example:5180", "10.0.0.1", "localhost.evil.example"} {
		if status, _ := getPage(t, base+"/metrics", host); status != http.StatusForbidden {
			t.Errorf("asked as %s: %d", host, status)
		}
	}
	if status, _ := getPage(t, base+"/livez", "localhost:1"); status != http.StatusOK {
		t.Errorf("asked as localhost: %d", status)
	}

	// A node that drains is alive and not ready.
	w := n.dial().register("last")
	done := make(chan error, 1)
	go func() { done <- n.Shutdown(nil) }()
	eventually(t, 5*time.Second, "not ready", func() bool {
		status, body := n.get("/readyz")
		return status == http.StatusServiceUnavailable && strings.Contains(body, "draining")
	})
	if status, _ := n.get("/livez"); status != http.StatusOK {
		t.Errorf("/livez while draining: %d", status)
	}
	_ = w.Close()
	if err := <-done; err != nil {
		t.Errorf("Shutdown: %v", err)
	}
}

func TestLifeWithoutAdmin(t *testing.T) {
	t.Parallel()
	n := serve(t, func(cfg *config.Config) { cfg.Admin.Listen = "" })
	n.dial().register("unwatched")
	if !strings.Contains(n.log.String(), "no health checks") {
		t.Error("nothing said")
	}
}

// What SIGTERM does: everybody is told, moves on, finds the next server, and
// has lost nothing.
func TestLifeDrain(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "HERMOD_DRAIN_WINDOW=1s", "HERMOD_DRAIN_TIMEOUT=20s")
	p.start()
	ann, ben := join(t, p.addr, "ann"), join(t, p.addr, "ben")
	w, err := dialWire(t, p.addr, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	w.register("wire")
	stop, flooded := make(chan struct{}), make(chan struct{})
	var acked map[int]uint64
	var sent int
	go func() {
		acked, sent = ann.flood(t, ben.c.UserID(), 16, stop)
		close(flooded)
	}()
	eventually(t, 20*time.Second, "messages flow", func() bool { return len(ben.received()) > 50 })

	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	for {
		f := w.frame()
		if g := f.GetGoAway(); g != nil {
			if g.Reason != proto.GoAwayReason_GO_AWAY_REASON_DRAINING || g.WindowMs != 1000 {
				t.Errorf("got %v", g)
			}
			break
		}
	}
	_ = w.Close()
	if code := p.wait(15 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
	p.start()
	before := len(ben.received())
	eventually(t, 20*time.Second, "messages flow again", func() bool { return len(ben.received()) > before+50 })
	close(stop)
	<-flooded
	if len(acked) != sent {
		t.Errorf("%d sent, %d acknowledged", sent, len(acked))
	}
	eventually(t, 20*time.Second, "all is there", func() bool { return len(ben.received()) >= sent })
	checkOrder(t, "ben", ben.received(), sent)
	// A client tells of its state in its own time.
	eventually(t, 20*time.Second, "both logged in again", func() bool { return ann.welcomes() >= 2 && ben.welcomes() >= 2 })
}

// Somebody who does not go holds the server up until the timeout, or until a
// second signal.
func TestLifeSecondSignalDoesNotWait(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "HERMOD_DRAIN_TIMEOUT=10m", "HERMOD_DRAIN_WINDOW=1s")
	p.start()
	w, err := dialWire(t, p.addr, "127.0.0.1")
	if err != nil {
		t.Fatal(err)
	}
	w.register("stayer")
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	for w.frame().GetGoAway() == nil {
	}
	_ = p.cmd.Process.Signal(syscall.SIGINT)
	w.fault(proto.ErrorCode_ERROR_CODE_DRAINING)
	if code := p.wait(15 * time.Second); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestLifeReload(t *testing.T) {
	t.Parallel()
	dir := t.TempDir()
	writeCert(t, dir)
	p := newProcess(t, "HERMOD_LISTEN_TLS=127.0.0.1:0",
		"HERMOD_TLS_CERT="+filepath.Join(dir, "cert.pem"), "HERMOD_TLS_KEY="+filepath.Join(dir, "key.pem"),
		"HERMOD_DRAIN_WINDOW=0s", "HERMOD_DRAIN_TIMEOUT=1s")
	file := filepath.Join(p.dir, "hermod.toml")
	p.start()
	reloads := 0
	reload := func(config, want string) {
		t.Helper()
		writeFile(t, file, config)
		before := strings.Count(p.log.String(), want)
		_ = p.cmd.Process.Signal(syscall.SIGHUP)
		eventually(t, 10*time.Second, "the log says "+want, func() bool { return strings.Count(p.log.String(), want) > before })
		reloads++
	}
	dial := func() *wire {
		w, err := dialWire(t, p.addr, "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	serial := func() string {
		c, err := tls.Dial("tcp", p.tls, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"hermod/1"}})
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = c.Close() }()
		return c.ConnectionState().PeerCertificates[0].SerialNumber.String()
	}
	inside := dial().register("inside")
	old := serial()
	next := writeCert(t, dir).SerialNumber.String()
	const limited = "[limits]\nmax_conns = 1\n[log]\nlevel = \"debug\"\n"
	reload(limited, "reloaded certificates, keys and limits")
	// From here on: the limit (one is inside) …
	eventually(t, 5*time.Second, "the limit holds", func() bool { return dial().closedSoon() })
	if f := inside.ask(message(inside.dev.user, "still here")); f.GetSendAck() == nil {
		t.Errorf("a session across a reload: %v", f)
	}
	// … stays when the next configuration is broken, in form or in content.
	reload("[limits]\nmax_cons = 100\n", `unknown key \"limits.max_cons\"`)
	reload("[limits]\nmax_conns = -1\n", "the new configuration has errors; everything stays as it was")
	if !dial().closedSoon() {
		t.Error("a broken configuration changed the limit")
	}
	reload(strings.Replace(limited, "1", "100", 1), "reloaded certificates, keys and limits")
	if got := serial(); got == old || got != next {
		t.Errorf("certificate %s, want %s (before: %s)", got, next, old)
	}
	// … and the log level.
	dial().write(header(1 << 30))
	eventually(t, 5*time.Second, "debug lines", func() bool { return strings.Contains(p.log.String(), `"closing a connection"`) })
	reload("[log]\nlevel = \"warn\"\n", `"reloaded certificates`)
	lines := strings.Count(p.log.String(), `"closing a connection"`)
	w := dial()
	w.write(header(1 << 30))
	w.fault(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	if got := strings.Count(p.log.String(), `"closing a connection"`); got != lines {
		t.Error("debug lines at level warn")
	}
	_ = inside.Close()
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d after %d reloads", code, reloads)
	}
}

func TestLifeCheckCommand(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "hermod.toml")
	check := func(config string) (string, error) {
		t.Helper()
		writeFile(t, path, config)
		var out bytes.Buffer
		err := (&checkCmd{}).Run(&cli{Config: path}, &out)
		return out.String(), err
	}
	data := fmt.Sprintf("[data]\ndir = %q\n", filepath.Join(dir, "data"))

	out, err := check(data)
	if err != nil || !strings.Contains(out, "hermod would start") {
		t.Errorf("a good configuration: %v\n%s", err, out)
	}
	out, err = check(data + "[listen]\nplain = \":5100\"\ntls = \":5101\"\n[admin]\nlisten = \"0.0.0.0:80\"\n[limits]\nlogin = \"1h\"\n")
	wantError(t, err, "would not start")
	for _, want := range []string{
		"error    listen.plain: :5100 is not loopback. Use listen.tls",
		"error    tls: listen.tls needs tls.cert and tls.key",
		"error    admin.listen: 0.0.0.0:80 is not loopback",
		"error    limits.login: is 1h0m0s; from 1s to 10m",
		"(default '10s')",
	} {
		if !strings.Contains(out, want) {
			t.Errorf("no %q in\n%s", want, out)
		}
	}
	_, err = check("[limits]\nmax_cons = 5\n")
	wantError(t, err, path, "line 2", `unknown key "limits.max_cons"`)
	if _, err := os.Stat(filepath.Join(dir, "data")); !os.IsNotExist(err) {
		t.Errorf("check has made the data folder (%v)", err)
	}
}
