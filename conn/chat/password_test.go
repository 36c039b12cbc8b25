package chat

import (
	"bytes"
	"errors"
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/proto"
)

// cheapArgon2 makes a hash take well under a millisecond.
func cheapArgon2() Argon2 {
	return Argon2{MemoryKiB: 16, Passes: 1, Lanes: 1, Workers: 2, Queue: 64}
}

func newTestHasher(t *testing.T, opt Argon2) *hasher {
	t.Helper()
	h, err := newHasher(opt, zerolog.Nop())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(h.close)
	return h
}

func TestNewPasswordRules(t *testing.T) {
	for _, tt := range []struct {
		what, password string
		weak           bool
	}{
		{"plain words", "correct horse battery", false},
		{"eight", "xk29vmq7", false},
		{"256 bytes", strings.Repeat("xk29", 64), false},
		{"257 bytes", strings.Repeat("xk29", 64) + "x", true},
		{"seven", "xk29vmq", true},
		{"eight with accents", "pêché-mü", false},
		{"seven, decomposed", "pe\u0302che\u0301-u", true},
		{"empty", "", true},
		{"not UTF-8", "xk29vmq7\xff", true},
		{"common", "password", true},
		{"common, other case", "PassWord1", true},
		{"common at the end of the list", "naruto123", true},
		{"part of a common one", "assword1", false},
		{"digits up", "1234567890", true},
		{"digits down", "9876543210", true},
		{"digits around", "7890123456", true},
		{"letters up", "abcdefgh", true},
		{"repeat", "zzzzzzzzzz", true},
		{"the name", "AliceSmith", true},
		{"the name twice", "alicesmithalicesmith", true},
		{"spaces", "        ", true},
		{"Chinese", "我的密码很长真的", false},
	} {
		err := checkNewPassword(tt.password, "alicesmith")
		if weak := err != nil; weak != tt.weak {
			t.Errorf("%s: %v, want weak %v", tt.what, err, tt.weak)
		}
		if err != nil && proto.CodeOf(err) != proto.ErrorCode_ERROR_CODE_PASSWORD_WEAK {
			t.Errorf("%s: %v, want PASSWORD_WEAK", tt.what, err)
		}
	}
}

func TestCommonPasswordsAreUsable(t *testing.T) {
	lines := strings.Split(strings.TrimSpace(commonPasswords), "\n")
	if len(lines) < 200 {
		t.Fatalf("%d common passwords", len(lines))
	}
	seen := map[string]bool{}
	for _, p := range lines {
		if seen[p] {
			t.Errorf("%q is there twice", p)
		}
		seen[p] = true
		if p != strings.ToLower(p) {
			t.Errorf("%q is not folded and can never match", p)
		}
		if utf8.RuneCountInString(p) < minPassword || checkNewPassword(p, "nobody") == nil {
			t.Errorf("%q is too short to be here, or not refused", p)
		}
	}
}

func TestHashAndVerify(t *testing.T) {
	h := newTestHasher(t, cheapArgon2())
	stored, err := h.newHash("crème brûlée")
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasPrefix(stored, []byte("$argon2id$v=19$m=16,t=1,p=1$")) {
		t.Fatalf("stored %s", stored)
	}
	other, err := h.newHash("crème brûlée")
	if err != nil || bytes.Equal(other, stored) {
		t.Fatalf("the salt is not random: %s %v", other, err)
	}
	for _, tt := range []struct {
		stored   []byte
		password string
		ok       bool
	}{
		{stored, "crème brûlée", true},
		{stored, "cre\u0300me bru\u0302le\u0301e", true}, // another keyboard
		{stored, "creme brulee", false},
		{stored, "", false},
		{nil, "crème brûlée", false},
	} {
		before := h.runs.Load()
		ok, renew, err := h.verify(tt.stored, tt.password)
		if ok != tt.ok || renew != nil || err != nil {
			t.Errorf("verify(%q) = %v, %s, %v; want %v", tt.password, ok, renew, err, tt.ok)
		}
		if n := h.runs.Load() - before; n != 1 {
			t.Errorf("verify(%q), stored %v: %d argon2 runs, want 1 whatever the outcome", tt.password, tt.stored != nil, n)
		}
	}
}

func TestHashIsRenewedWhenCostsChange(t *testing.T) {
	old := newTestHasher(t, cheapArgon2())
	stored, err := old.newHash("xk29vmq7")
	if err != nil {
		t.Fatal(err)
	}
	dearer := cheapArgon2()
	dearer.Passes = 2
	h := newTestHasher(t, dearer)
	ok, renew, err := h.verify(stored, "xk29vmq7")
	if !ok || err != nil || !bytes.Contains(renew, []byte("t=2")) {
		t.Fatalf("verify = %v, %s, %v; want a hash with t=2", ok, renew, err)
	}
	if ok, again, err := h.verify(renew, "xk29vmq7"); !ok || again != nil || err != nil {
		t.Fatalf("the renewed hash: %v, %s, %v", ok, again, err)
	}
	if ok, renew, err := h.verify(stored, "wrong one"); ok || renew != nil || err != nil {
		t.Fatalf("a wrong password renews: %v, %s, %v", ok, renew, err)
	}
}

func TestDamagedHash(t *testing.T) {
	const good = "$argon2id$v=19$m=16,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"
	if _, err := parsePHC([]byte(good)); err != nil {
		t.Fatal(err)
	}
	for what, s := range map[string]string{
		"empty":        "",
		"argon2i":      strings.Replace(good, "argon2id", "argon2i", 1),
		"version":      strings.Replace(good, "v=19", "v=16", 1),
		"all memory":   strings.Replace(good, "m=16", "m=4294967295", 1),
		"no passes":    strings.Replace(good, "t=1", "t=0", 1),
		"many passes":  strings.Replace(good, "t=1", "t=4000000000", 1),
		"no lanes":     strings.Replace(good, "p=1", "p=0", 1),
		"short salt":   strings.Replace(good, "$AAAAAAAAAAAAAAAAAAAAAA$", "$AA$", 1),
		"not base64":   strings.Replace(good, "$AAAAAAAAAAAAAAAAAAAAAA$", "$!!!!!!!!!!!!!!!!!!!!!!$", 1),
		"short hash":   good[:len(good)-30],
		"a part more":  good + "$",
		"leading text": "x" + good,
	} {
		if _, err := parsePHC([]byte(s)); !errors.Is(err, errPHC) {
			t.Errorf("%s: %v", what, err)
		}
	}
}

func FuzzPHC(f *testing.F) {
	f.Add([]byte("$argon2id$v=19$m=16,t=1,p=1$AAAAAAAAAAAAAAAAAAAAAA$AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"))
	f.Fuzz(func(t *testing.T, b []byte) {
		p, err := parsePHC(b)
		if err != nil {
			return
		}
		if p.memory > maxArgon2KiB || p.passes == 0 || p.passes > maxArgon2Passes || p.lanes == 0 {
			t.Fatalf("%q: costs %+v", b, p)
		}
		again, err := parsePHC(p.append(nil))
		if err != nil || !bytes.Equal(again.hash, p.hash) || !bytes.Equal(again.salt, p.salt) || again.memory != p.memory {
			t.Fatalf("%q does not survive: %v", b, err)
		}
	})
}

// BenchmarkPasswordCheck is one check at the default costs.
func BenchmarkPasswordCheck(b *testing.B) {
	h, err := newHasher(Argon2{}.withDefaults(), zerolog.Nop())
	if err != nil {
		b.Fatal(err)
	}
	defer h.close()
	stored, err := h.newHash("correct horse battery")
	if err != nil {
		b.Fatal(err)
	}
	for b.Loop() {
		if ok, _, err := h.verify(stored, "correct horse battery"); !ok || err != nil {
			b.Fatal(ok, err)
		}
	}
}
