package main

import (
	"bytes"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench"
)

func TestCommandLine(t *testing.T) {
	state := t.TempDir()
	notPEM := filepath.Join(state, "ca.pem")
	if err := os.WriteFile(notPEM, []byte("no certificate"), 0o600); err != nil {
		t.Fatal(err)
	}
	// Nobody listens on port 1.
	nobody := []string{"--server", "127.0.0.1:1", "--state", state}
	cases := []struct {
		args []string
		code int
		want string
	}{
		{[]string{"--help"}, 0, "pairs"},
		{[]string{"pairs", "--help"}, 0, "flat out"},
		{[]string{"--version"}, 0, version},
		{[]string{}, 2, "hermod-bench --help"},
		{[]string{"pairs", "--no-such-flag"}, 2, "unknown flag"},
		{append([]string{"pairs"}, nobody...), 1, "no connection to 127.0.0.1:1"},
		{append([]string{"idle", "--from", "1", "--to", "2"}, nobody...), 1, "no connection to"},
		{append([]string{"users", "--count", "1"}, nobody...), 1, "no connection to"},
		{append([]string{"idle", "--from", "5", "--to", "2"}, nobody...), 1, "rising"},
		{append([]string{"idle", "--to", "900000"}, nobody...), 1, "ulimit -n"},
		{append([]string{"pairs", "--size", "3"}, nobody...), 1, "40 to 32768 bytes"},
		{append([]string{"pairs", "--insecure"}, nobody...), 1, "--tls"},
		{append([]string{"pairs", "--ca", notPEM}, nobody...), 1, "no PEM certificate"},
	}
	for _, c := range cases {
		t.Run(strings.Join(c.args, " "), func(t *testing.T) {
			var out, err bytes.Buffer
			if code := run(c.args, &out, &err); code != c.code {
				t.Errorf("code %d, want %d\n%s%s", code, c.code, out.String(), err.String())
			}
			if both := out.String() + err.String(); !strings.Contains(both, c.want) {
				t.Errorf("want %q in\n%s", c.want, both)
			}
		})
	}
}

// TestAdminIsNotGuessed: the server's figures must be those of that server.
func TestAdminIsNotGuessed(t *testing.T) {
	for _, c := range []struct{ server, admin, want string }{
		{"127.0.0.1:5100", "", "http://127.0.0.1:5180"},
		{"127.0.0.1:5101", "", "http://127.0.0.1:5180"},
		{"127.0.0.1:5900", "", ""},
		{"chat.example.org:5101", "", ""},
		{"chat.example.org:5101", "http://10.0.0.1:5180", "http://10.0.0.1:5180"},
	} {
		f := serverFlags{Server: c.server, Admin: c.admin}
		if got := f.admin(); got != c.want {
			t.Errorf("%+v: %q", c, got)
		}
	}
}

func TestProgressOffATerminal(t *testing.T) {
	var out, err bytes.Buffer
	ui := newConsole(&out, &err)
	for range 5 {
		ui.progress(bench.Progress{Phase: "measure", Elapsed: time.Second, Acked: 5, Rate: 500})
	}
	ui.progress(bench.Progress{Phase: "drain"})
	ui.endProgress()
	if n := strings.Count(err.String(), "\n"); n != 2 {
		t.Errorf("%d lines for two phases within ten seconds:\n%s", n, err.String())
	}
	if strings.ContainsAny(err.String(), "\r\x1b") {
		t.Errorf("terminal codes without a terminal: %q", err.String())
	}
}

func TestProgressOnATerminal(t *testing.T) {
	var out, err bytes.Buffer
	ui := newConsole(&out, &err)
	ui.terminal, ui.width = true, 20
	for range 3 {
		ui.progress(bench.Progress{Phase: "measure", Acked: 123456789, Rate: 20000})
	}
	ui.endProgress()
	if strings.Contains(err.String(), "\n") {
		t.Errorf("the line moved: %q", err.String())
	}
	for line := range strings.SplitSeq(err.String(), "\r\x1b[K") {
		if len([]rune(line)) >= 20 {
			t.Errorf("longer than the terminal: %q", line)
		}
	}
}

func TestFinish(t *testing.T) {
	var out, err bytes.Buffer
	ui := newConsole(&out, &err)
	file := filepath.Join(t.TempDir(), "r.json")
	if e := finish(ui, &bench.Report{Scenario: "users", OK: true}, true, file); e != nil {
		t.Fatal(e)
	}
	text, e := os.ReadFile(file)
	if e != nil || !bytes.Contains(text, []byte(`"ok": true`)) {
		t.Errorf("%v\n%s", e, text)
	}
	if e := finish(ui, &bench.Report{Scenario: "users"}, false, ""); e != errFailed {
		t.Errorf("a failed report ends with %v", e)
	}
}
