package cluster

import (
	"context"
	"crypto/tls"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/router/peer"
)

func TestCertificates(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "pki")
	node := CertOptions{Dir: dir, Name: "node1", Node: 42, Life: 48 * time.Hour, Hosts: []string{"10.0.0.1", "node1.example"}}
	if _, err := MakeCert(node); err == nil || !strings.Contains(err.Error(), "hermodctl cluster ca") {
		t.Errorf("a certificate without a CA: %v", err)
	}
	ca, err := MakeCA(CertOptions{Dir: dir, Life: 24 * time.Hour})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := MakeCA(CertOptions{Dir: dir, Life: time.Hour}); err == nil || !strings.Contains(err.Error(), "--force") {
		t.Errorf("a CA is replaced: %v", err)
	}
	pair, err := MakeCert(node)
	if err != nil {
		t.Fatal(err)
	}
	if pair.NotAfter.After(ca.NotAfter) {
		t.Errorf("valid until %v, its CA until %v", pair.NotAfter, ca.NotAfter)
	}
	for _, key := range []string{ca.Key, pair.Key} {
		if st, err := os.Stat(key); err != nil || st.Mode().Perm() != 0o600 {
			t.Errorf("%s: %v %v", key, st.Mode(), err)
		}
	}
	// What other nodes hold against it.
	id, err := peer.LoadIdentity(ca.Cert, pair.Cert, pair.Key)
	if err != nil {
		t.Fatal(err)
	}
	if err := id.Check(42, time.Now()); err != nil {
		t.Error(err)
	}
	if err := id.Check(43, time.Now()); err == nil {
		t.Error("it is another node's, too")
	}
	for _, host := range node.Hosts {
		if err := id.Certificate.Leaf.VerifyHostname(host); err != nil {
			t.Error(err)
		}
	}
	// A server's is no node's.
	servers, err := MakeCert(CertOptions{Dir: dir, Name: "servers", Life: time.Hour, Hosts: []string{"localhost"}})
	if err != nil {
		t.Fatal(err)
	}
	if id, err := peer.LoadIdentity(ca.Cert, servers.Cert, servers.Key); err != nil || id.Check(42, time.Now()) == nil {
		t.Errorf("a server's certificate passes for a node's (%v)", err)
	}
	for _, name := range []string{"", "ca", "../node", "."} {
		if _, err := MakeCert(CertOptions{Dir: dir, Name: name, Life: time.Hour}); err == nil {
			t.Errorf("named %q", name)
		}
	}
}

func TestNodeNumber(t *testing.T) {
	dir := t.TempDir()
	if _, err := MakeCA(CertOptions{Dir: dir, Life: time.Hour}); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(dir, "node1.pem")
	first, err := NodeNumber(path)
	second, err2 := NodeNumber(path)
	if err != nil || err2 != nil || first == 0 || first == second {
		t.Errorf("new numbers %d (%v), %d (%v)", first, err, second, err2)
	}
	if _, err := MakeCert(CertOptions{Dir: dir, Name: "node1", Node: first, Life: time.Hour}); err != nil {
		t.Fatal(err)
	}
	if again, err := NodeNumber(path); err != nil || again != first {
		t.Errorf("the next certificate is for %d (%v), the first was for %d", again, err, first)
	}
	for name, text := range map[string]string{"no PEM": "x", "no certificate": "-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n"} {
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if n, err := NodeNumber(path); err == nil {
			t.Errorf("%s: node %d", name, n)
		}
	}
}

func TestSelfSigned(t *testing.T) {
	dir := t.TempDir()
	pair, err := MakeSelfSigned(CertOptions{Dir: dir, Life: time.Hour, Hosts: []string{"127.0.0.1"}})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := tls.LoadX509KeyPair(pair.Cert, pair.Key); err != nil || pair.Pin == "" {
		t.Errorf("%+v: %v", pair, err)
	}
}

func TestOptions(t *testing.T) {
	for name, o := range map[string]Options{"no binary": {}, "too many": {Binary: "x", Nodes: 65}, "negative": {Binary: "x", Shards: -1}} {
		o.Init = func(context.Context, string) error { return nil }
		if c, err := Start(t.Context(), o); err == nil {
			_ = c.Close()
			t.Errorf("%s: started", name)
		}
	}
}
