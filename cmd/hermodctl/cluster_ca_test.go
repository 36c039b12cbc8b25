package main

import (
	"bytes"
	"net/http"
	"net/http/httptest"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/cluster"
	"github.com/hermod-im/hermod/cmd/internal/config"
)

func TestClusterCAAndCert(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "cluster")
	var out bytes.Buffer
	if err := (&ClusterCert{Name: "node1", Dir: dir, Life: time.Hour}).Run(&out); err == nil || !strings.Contains(err.Error(), "cluster ca") {
		t.Errorf("a certificate before the CA: %v", err)
	}
	if err := (&ClusterCA{Dir: dir, Life: 24 * time.Hour}).Run(&out); err != nil {
		t.Fatal(err)
	}
	numbers := make(map[string]uint64)
	for _, name := range []string{"node1", "node2", "node1"} { // the last one renews
		if err := (&ClusterCert{Name: name, Dir: dir, Life: time.Hour}).Run(&out); err != nil {
			t.Fatal(err)
		}
		cc := config.ClusterConfig{CA: filepath.Join(dir, cluster.CACert), Cert: filepath.Join(dir, name+".pem"), Key: filepath.Join(dir, name+"-key.pem")}
		_, n, err := cc.Identity()
		if err != nil {
			t.Fatal(err)
		}
		if was := numbers[name]; was != 0 && was != n {
			t.Errorf("%s was node %d and is %d", name, was, n)
		}
		numbers[name] = n
	}
	if numbers["node1"] == numbers["node2"] {
		t.Error("two nodes with one number")
	}
	if err := (&ClusterCert{Name: "node3", Dir: dir, Node: 3, Life: time.Hour}).Run(&out); err != nil || !strings.Contains(out.String(), "for node 3,") {
		t.Errorf("a given number (%v):\n%s", err, out.String())
	}
}

func TestClusterStatusAsksTheNode(t *testing.T) {
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path != "/cluster" {
			http.NotFound(w, r)
			return
		}
		_, _ = w.Write([]byte("format " + r.URL.Query().Get("format")))
	}))
	defer srv.Close()
	for _, c := range []struct {
		status ClusterStatus
		want   string
	}{{ClusterStatus{}, "format "}, {ClusterStatus{JSON: true}, "format json"}} {
		c.status.Admin = srv.Listener.Addr().String()
		var out bytes.Buffer
		if err := c.status.Run(&out); err != nil || out.String() != c.want {
			t.Errorf("printed %q (%v), want %q", out.String(), err, c.want)
		}
	}
	srv.Close()
	gone := ClusterStatus{Admin: srv.Listener.Addr().String()}
	if err := gone.Run(new(bytes.Buffer)); err == nil || !strings.Contains(err.Error(), "is it running?") {
		t.Errorf("nobody there: %v", err)
	}
}
