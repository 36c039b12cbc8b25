package bench

import (
	"context"
	"fmt"
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench/observe"
)

func TestProbeByPid(t *testing.T) {
	p := newProbe(os.Getpid(), "http://ignored.invalid")
	before, err := p.read(t.Context(), true)
	if err != nil {
		t.Fatal(err)
	}
	if before.RSS < 1<<20 || before.PSS == 0 || before.Anon == 0 || before.started == "" {
		t.Fatalf("%+v", before)
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		for range 1_000_000 {
			_ = time.Now()
		}
		after, err := p.read(t.Context(), false)
		if err != nil {
			t.Fatal(err)
		}
		if after.CPU > before.CPU && after.started == before.started {
			return
		}
		if time.Now().After(deadline) {
			t.Fatal("no CPU time was counted")
		}
	}
}

func TestProbeOfNobody(t *testing.T) {
	if newProbe(0, "") != nil {
		t.Error("a probe of nothing")
	}
	if _, err := readProc(t.TempDir(), false); err == nil {
		t.Error("no error for a process that is gone")
	}
}

func TestReadProcWithAnOddName(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		if err := os.WriteFile(dir+"/"+name, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	write("stat", "7 (a) b) (c) S 1 7 7 0 -1 0 0 0 0 0 250 50 0 0 20 0 9 0 12345 0 100 0\n")
	u, err := readProc(dir, false)
	if err != nil {
		t.Fatal(err)
	}
	if u.CPU != 3*time.Second || u.started != "12345" || u.RSS != 100*uint64(os.Getpagesize()) {
		t.Errorf("%+v", u)
	}
	write("status", "Name:\tx\nVmRSS:\t  2048 kB\n")
	write("smaps_rollup", "Rss: 2048 kB\nPss:  1024 kB\nAnonymous:   512 kB\n")
	if u, err = readProc(dir, true); err != nil || u.RSS != 2<<20 || u.PSS != 1<<20 || u.Anon != 512<<10 {
		t.Errorf("%+v %v", u, err)
	}
}

func TestProbeByAdmin(t *testing.T) {
	page := "# HELP x\nprocess_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 5.24288e+07\nprocess_start_time_seconds 1.7e+09\nother 1\n"
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		fmt.Fprint(w, page)
	}))
	defer srv.Close()
	p := newProbe(0, srv.URL+"/")
	u, err := p.read(context.Background(), true)
	if err != nil || u.RSS != 50<<20 || u.CPU != 12500*time.Millisecond || u.started == "" {
		t.Errorf("%+v %v", u, err)
	}
	page = "nothing 1\n"
	if _, err := p.read(context.Background(), false); err == nil || !strings.Contains(err.Error(), "--pid") {
		t.Errorf("no process metrics: %v", err)
	}
}

func FuzzParseMetrics(f *testing.F) {
	f.Add("process_cpu_seconds_total 12.5\nprocess_resident_memory_bytes 5e7\nprocess_start_time_seconds 1\n")
	f.Fuzz(func(t *testing.T, page string) {
		p, err := observe.Parse(strings.NewReader(page))
		if err != nil {
			return
		}
		if u, err := usageOn(p); err == nil && u.started == "" {
			t.Fatal("took a page without a process for one")
		}
	})
}
