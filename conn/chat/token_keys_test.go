package chat

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

func keyFiles(t *testing.T, dir string) []string {
	t.Helper()
	names, err := (&keyring{dir: dir}).names()
	if err != nil {
		t.Fatal(err)
	}
	return names
}

func TestFirstStartMakesAKey(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "data", "keys")
	clock := newFakeClock()
	tk, err := newTokens(Tokens{Dir: dir}.withDefaults(), clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	names := keyFiles(t, dir)
	if len(names) != 1 {
		t.Fatalf("files %v", names)
	}
	for path, want := range map[string]os.FileMode{dir: 0o700, filepath.Join(dir, names[0]): 0o600} {
		st, err := os.Stat(path)
		if err != nil || st.Mode().Perm() != want {
			t.Errorf("%s: mode %04o, want %04o (%v)", path, st.Mode().Perm(), want, err)
		}
	}
	s := tk.mustIssue(t, someAccess())
	again, err := newTokens(Tokens{Dir: dir}.withDefaults(), clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := again.verify(s); err != nil || len(keyFiles(t, dir)) != 1 {
		t.Errorf("after a restart: %v, files %v", err, keyFiles(t, dir))
	}
}

func TestTwoKeysLive(t *testing.T) {
	clock := newFakeClock()
	tk := newTestTokens(t, clock)
	verdict := func(s string) proto.ErrorCode {
		_, err := tk.verify(s)
		return proto.CodeOf(err)
	}
	first := tk.mustIssue(t, someAccess())
	for range 3 { // also with a clock that stands or goes back
		clock.Add(-time.Hour)
		if err := tk.ring.rotate(clock.Now()); err != nil {
			t.Fatal(err)
		}
		clock.Add(time.Hour)
		second := tk.mustIssue(t, someAccess())
		if a, b := verdict(first), verdict(second); a != 0 || b != 0 {
			t.Fatalf("after one rotation: %v, %v; want both good", a, b)
		}
		if err := tk.ring.rotate(clock.Now()); err != nil {
			t.Fatal(err)
		}
		if a, b := verdict(first), verdict(second); a != proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED || b != 0 {
			t.Fatalf("after two rotations: %v, %v; want TOKEN_EXPIRED and good", a, b)
		}
		if n := len(keyFiles(t, tk.opt.Dir)); n != 2 {
			t.Fatalf("%d key files, want 2", n)
		}
		first = tk.mustIssue(t, someAccess())
	}
}

func TestReload(t *testing.T) {
	clock := newFakeClock()
	dir := t.TempDir()
	a, err := newTokens(Tokens{Dir: dir}.withDefaults(), clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	b, err := newTokens(Tokens{Dir: dir}.withDefaults(), clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	if err := a.ring.rotate(clock.Now().Add(time.Second)); err != nil {
		t.Fatal(err)
	}
	s := a.mustIssue(t, someAccess())
	if _, err := b.verify(s); proto.CodeOf(err) != proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED {
		t.Fatalf("a node that has not reloaded: %v", err)
	}
	if err := b.ring.reload(); err != nil {
		t.Fatal(err)
	}
	if _, err := b.verify(s); err != nil {
		t.Fatal(err)
	}
}

func ecKeyPEM(t *testing.T) []byte {
	t.Helper()
	k, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	der, err := x509.MarshalPKCS8PrivateKey(k)
	if err != nil {
		t.Fatal(err)
	}
	return pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: der})
}

func TestBadKeysAreRefusedAndOldOnesStay(t *testing.T) {
	newest := "token-29990101T000000.000000Z.pem"
	for what, tt := range map[string]struct {
		content []byte
		mode    os.FileMode
		says    string
	}{
		"group can read":  {nil, 0o640, "chmod 600"},
		"world can read":  {nil, 0o604, "chmod 600"},
		"empty":           {[]byte{}, 0o600, "PEM"},
		"no PEM":          {[]byte("hello"), 0o600, "PEM"},
		"not Ed25519":     {ecKeyPEM(t), 0o600, "Ed25519"},
		"certificate":     {pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: []byte{1}}), 0o600, "PEM"},
		"damaged":         {pem.EncodeToMemory(&pem.Block{Type: keyBlock, Bytes: []byte{1}}), 0o600, newest},
		"something large": {make([]byte, 1<<20), 0o600, "no key"},
	} {
		clock := newFakeClock()
		tk := newTestTokens(t, clock)
		s := tk.mustIssue(t, someAccess())
		dir := tk.opt.Dir
		content := tt.content
		if content == nil {
			var err error
			if content, err = os.ReadFile(filepath.Join(dir, keyFiles(t, dir)[0])); err != nil {
				t.Fatal(err)
			}
		}
		path := filepath.Join(dir, newest)
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := os.Chmod(path, tt.mode); err != nil {
			t.Fatal(err)
		}
		if err := tk.ring.reload(); err == nil || !strings.Contains(err.Error(), tt.says) {
			t.Errorf("%s: reload says %v, want %q", what, err, tt.says)
		}
		if _, err := tk.verify(s); err != nil {
			t.Errorf("%s: the old key is gone after a failed reload: %v", what, err)
		}
		if _, err := newTokens(tk.opt, clock.Now); err == nil {
			t.Errorf("%s: a start with it works", what)
		}
	}
}

func TestOtherFilesInTheKeyFolder(t *testing.T) {
	clock := newFakeClock()
	tk := newTestTokens(t, clock)
	for _, name := range []string{"tls.pem", ".token-1.pem", "token-1.pem.bak"} {
		if err := os.WriteFile(filepath.Join(tk.opt.Dir, name), []byte("x"), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	if err := tk.ring.reload(); err != nil {
		t.Error(err)
	}
	for _, name := range keyFiles(t, tk.opt.Dir) {
		if err := os.Remove(filepath.Join(tk.opt.Dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if err := tk.ring.reload(); err == nil {
		t.Error("an empty folder is accepted while running")
	}
}
