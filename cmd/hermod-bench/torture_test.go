package main

import (
	"bytes"
	"encoding/json"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/bench/torture"
)

// tortured runs the command and returns what it reports.
func tortured(t *testing.T, args ...string) (rep torture.Report) {
	t.Helper()
	defer goleak.VerifyNone(t, goleak.IgnoreCurrent())
	file, evidence := filepath.Join(t.TempDir(), "report.json"), t.TempDir()
	args = append([]string{"torture", "--binary", serverBinary(t, ""), "--no-times", "--json", file, "--evidence", evidence}, args...)
	var stdout, stderr bytes.Buffer
	code := run(args, &stdout, &stderr)
	t.Logf("%s%s", stderr.String(), stdout.String())
	if code != 0 {
		pages, _ := filepath.Glob(filepath.Join(evidence, "*", "summary.txt"))
		for _, page := range pages {
			text, _ := os.ReadFile(page)
			t.Logf("%s", text)
		}
		t.Fatalf("hermod-bench %s ends with %d", strings.Join(args, " "), code)
	}
	text, err := os.ReadFile(file)
	if err == nil {
		err = json.Unmarshal(text, &rep)
	}
	if err != nil {
		t.Fatal(err)
	}
	return rep
}

// TestTorture is a short torture of each kind of system: nothing may be lost,
// doubled, out of order, or in the wrong hands. How long recovery takes is not
// judged here, on a machine that does other things as well.
func TestTorture(t *testing.T) {
	for name, c := range map[string]struct {
		args   []string
		least  int // acknowledged messages
		faults int
	}{
		"single":  {[]string{"--single", "--people", "30", "--rate", "300", "--duration", "20s", "--faults", "2"}, 1500, 2},
		"cluster": {[]string{"--people", "40", "--rate", "120", "--duration", "70s", "--faults", "8"}, 2000, 8},
	} {
		t.Run(name, func(t *testing.T) {
			begin := time.Now()
			rep := tortured(t, c.args...)
			if rep.Acked < c.least || len(rep.Strikes) != c.faults || rep.Applied < 2*rep.Acked {
				t.Errorf("%d messages, %d strikes, %d events applied: that was no torture", rep.Acked, len(rep.Strikes), rep.Applied)
			}
			t.Logf("%v in all", time.Since(begin).Round(time.Second))
		})
	}
}

// TestTortureRefuses: what cannot be done is said, before anything is started.
func TestTortureRefuses(t *testing.T) {
	for want, args := range map[string][]string{
		"make build":         {"--binary", "/no/such/server"},
		"no fault \"node-\"": {"--binary", serverBinary(t, ""), "--single", "--faults-only", "node-"},
		"is not empty":       {"--binary", serverBinary(t, ""), "--single", "--dir", filepath.Dir(serverBinary(t, ""))},
		"at most 64":         {"--binary", serverBinary(t, ""), "--single", "--in-flight", "65"},
	} {
		var stdout, stderr bytes.Buffer
		if code := run(append([]string{"torture"}, args...), &stdout, &stderr); code != 1 || !strings.Contains(stderr.String(), want) {
			t.Errorf("%v: %d, %s", args, code, stderr.String())
		}
	}
}
