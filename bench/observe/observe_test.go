package observe

import (
	"net/http"
	"net/http/httptest"
	"os"
	"strings"
	"testing"
)

const page = `# HELP hermod_conn_closed_total why
hermod_conn_closed_total{reason="kicked"} 2
hermod_conn_closed_total{reason="tls"} 3
hermod_conn_closed_totals 100
hermod_conn_open 7
`

func TestSum(t *testing.T) {
	p, err := Parse(strings.NewReader(page))
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name  string
		label []string
		want  float64
		found bool
	}{
		{"hermod_conn_closed_total", nil, 5, true},
		{"hermod_conn_closed_total", []string{"tls"}, 3, true},
		{"hermod_conn_closed_total", []string{"nobody"}, 0, true},
		{"hermod_conn_open", nil, 7, true},
		{"hermod_conn", nil, 0, false},
	} {
		if got, found := p.Sum(c.name, c.label...); got != c.want || found != c.found {
			t.Errorf("%s %v: %v, %v", c.name, c.label, got, found)
		}
	}
	if _, err := Parse(strings.NewReader("hermod_conn_open many\n")); err == nil {
		t.Error("a sample that is no number was taken")
	}
}

func FuzzParse(f *testing.F) {
	f.Add(page)
	f.Fuzz(func(t *testing.T, text string) {
		p, err := Parse(strings.NewReader(text))
		if err != nil {
			return
		}
		for series := range p {
			if _, found := p.Sum(series); !found {
				t.Errorf("%q is there and is not found", series)
			}
		}
	})
}

func TestGet(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/metrics" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte(page))
	}))
	defer srv.Close()
	if p, err := Get(t.Context(), srv.URL); err != nil || p["hermod_conn_open"] != 7 {
		t.Errorf("%v, %v", p, err)
	}
	if _, err := Get(t.Context(), srv.URL+"/elsewhere"); err == nil {
		t.Error("a page that is not there was read")
	}
}

func TestResident(t *testing.T) {
	if rss, err := Resident(os.Getpid()); err != nil || rss < 1<<20 {
		t.Errorf("%d bytes, %v", rss, err)
	}
	if _, err := Resident(1 << 30); err == nil {
		t.Error("a process that is not there has memory")
	}
	if _, err := ReadKB("/proc/self/status", "VmRSS:", "VmNonsense:"); err == nil {
		t.Error("a line that is not there was read")
	}
}
