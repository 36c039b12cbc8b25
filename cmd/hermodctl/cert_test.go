package main

import (
	"bytes"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestCertDev(t *testing.T) {
	c := CertDev{Dir: filepath.Join(t.TempDir(), "tls"), Hosts: []string{"localhost", "127.0.0.1"}, Life: time.Hour}
	var out bytes.Buffer
	if err := c.Run(&out); err != nil {
		t.Fatal(err)
	}
	key := filepath.Join(c.Dir, "key.pem")
	pair, err := tls.LoadX509KeyPair(filepath.Join(c.Dir, "cert.pem"), key)
	if err != nil {
		t.Fatal(err)
	}
	for _, host := range c.Hosts {
		if err := pair.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("key file: %v %v", st.Mode(), err)
	}
	if !strings.Contains(out.String(), "HERMOD_LISTEN_TLS") || !strings.Contains(out.String(), "sha256/") {
		t.Errorf("does not say how to use it:\n%s", out.String())
	}
	before, _ := os.ReadFile(key)
	if err := c.Run(&out); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a second run answered %v", err)
	}
	c.Force = true
	if err := c.Run(&out); err != nil {
		t.Error(err)
	}
	if after, _ := os.ReadFile(key); bytes.Equal(before, after) {
		t.Error("--force kept the old key")
	}
}
