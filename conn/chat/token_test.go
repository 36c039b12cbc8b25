package chat

import (
	"crypto/ed25519"
	"crypto/rand"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"strings"
	"testing"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

func newTestTokens(t testing.TB, clock *fakeClock) *tokens {
	t.Helper()
	tk, err := newTokens(Tokens{Dir: t.TempDir()}.withDefaults(), clock.Now)
	if err != nil {
		t.Fatal(err)
	}
	return tk
}

func someAccess() access {
	return access{
		user: storage.UserIDIn(77, 123456), device: [16]byte{1, 2, 3, 15: 9}, slot: 1,
		loginEpoch: 1<<63 + 1, tokenGen: 7, // above what a float64 holds
	}
}

func (t *tokens) mustIssue(tb testing.TB, a access) string {
	tb.Helper()
	s, _, err := t.issue(a)
	if err != nil {
		tb.Fatal(err)
	}
	return s
}

func TestTokenRoundTrip(t *testing.T) {
	clock := newFakeClock()
	tk := newTestTokens(t, clock)
	want := someAccess()
	s, expires, err := tk.issue(want)
	if err != nil {
		t.Fatal(err)
	}
	if d := expires.Sub(clock.Now()); d != 30*time.Minute {
		t.Errorf("expires in %v", d)
	}
	if len(s) > maxToken/2 {
		t.Errorf("token has %d bytes", len(s))
	}
	got, err := tk.verify(s)
	if err != nil {
		t.Fatal(err)
	}
	want.issued, want.expires = got.issued, expires
	if !got.expires.Equal(expires) || !got.issued.Equal(clock.Now()) {
		t.Errorf("times %v … %v", got.issued, got.expires)
	}
	got.expires = expires
	if got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestTokenTimes(t *testing.T) {
	for _, tt := range []struct {
		after time.Duration
		code  proto.ErrorCode
		fresh bool
	}{
		{-4 * time.Second, 0, true}, // another node's clock is behind
		{-6 * time.Second, proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, false},
		{0, 0, true},
		{15*time.Minute - time.Second, 0, true},
		{15 * time.Minute, 0, false}, // half of its life: a new one is due
		{30*time.Minute + 4*time.Second, 0, false},
		{30*time.Minute + 6*time.Second, proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED, false},
		{24 * time.Hour, proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED, false},
	} {
		clock := newFakeClock()
		tk := newTestTokens(t, clock)
		s := tk.mustIssue(t, someAccess())
		clock.Add(tt.after)
		a, err := tk.verify(s)
		if proto.CodeOf(err) != tt.code {
			t.Errorf("after %v: %v, want %v", tt.after, err, tt.code)
		}
		if err == nil && tk.fresh(a) != tt.fresh {
			t.Errorf("after %v: fresh %v, want %v", tt.after, !tt.fresh, tt.fresh)
		}
	}
}

// forge signs header and claims with key, or not at all.
func forge(t *testing.T, method jwt.SigningMethod, header map[string]any, claims jwt.Claims, key any) string {
	t.Helper()
	token := jwt.NewWithClaims(method, claims)
	for k, v := range header {
		if token.Header[k] = v; v == nil {
			delete(token.Header, k)
		}
	}
	s, err := token.SignedString(key)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestForgedTokens(t *testing.T) {
	clock := newFakeClock()
	tk := newTestTokens(t, clock)
	key := tk.ring.keys()[0]
	good := tk.mustIssue(t, someAccess())
	parts := strings.Split(good, ".")
	claims := func(change func(c *tokenClaims)) tokenClaims {
		var c tokenClaims
		if _, _, err := jwt.NewParser().ParseUnverified(good, &c); err != nil {
			t.Fatal(err)
		}
		if change != nil {
			change(&c)
		}
		return c
	}
	same := claims(nil)
	der, err := x509.MarshalPKIXPublicKey(key.public())
	if err != nil {
		t.Fatal(err)
	}
	public := pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: der})
	_, stranger, err := ed25519.GenerateKey(rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	kid := map[string]any{"kid": key.id}
	signed := func(c jwt.Claims) string { return forge(t, jwt.SigningMethodEdDSA, kid, c, key.private) }
	other := claims(func(c *tokenClaims) { c.Subject = "1" })
	otherJSON, err := json.Marshal(other)
	if err != nil {
		t.Fatal(err)
	}
	none := base64.RawURLEncoding.EncodeToString([]byte(`{"alg":"none","typ":"JWT","kid":"`+key.id+`"}`)) + "." + parts[1] + "."

	for what, s := range map[string]string{
		"empty":                       "",
		"no dots":                     "hello",
		"alg none":                    none,
		"alg none, with signature":    none + parts[2],
		"alg None":                    forge(t, jwt.SigningMethodNone, kid, same, jwt.UnsafeAllowNoneSignatureType),
		"HS256 with the public key":   forge(t, jwt.SigningMethodHS256, kid, same, []byte(key.public())),
		"HS256 with the public PEM":   forge(t, jwt.SigningMethodHS256, kid, same, public),
		"another's key, our kid":      forge(t, jwt.SigningMethodEdDSA, kid, same, stranger),
		"no kid":                      forge(t, jwt.SigningMethodEdDSA, map[string]any{"kid": nil}, same, key.private),
		"kid is a number":             forge(t, jwt.SigningMethodEdDSA, map[string]any{"kid": 1}, same, key.private),
		"another user's claims":       parts[0] + "." + base64.RawURLEncoding.EncodeToString(otherJSON) + "." + parts[2],
		"no signature":                parts[0] + "." + parts[1] + ".",
		"a byte more":                 good + "A",
		"whitespace":                  good + "\n",
		"too long":                    good + strings.Repeat("A", maxToken),
		"other issuer":                signed(claims(func(c *tokenClaims) { c.Issuer = "someone" })),
		"no issuer":                   signed(claims(func(c *tokenClaims) { c.Issuer = "" })),
		"other issuer and expired":    signed(claims(func(c *tokenClaims) { c.Issuer = "x"; c.ExpiresAt = jwt.NewNumericDate(time.Unix(1, 0)) })),
		"no end":                      signed(claims(func(c *tokenClaims) { c.ExpiresAt = nil })),
		"no beginning":                signed(claims(func(c *tokenClaims) { c.IssuedAt = nil })),
		"from the future":             signed(claims(func(c *tokenClaims) { c.IssuedAt = jwt.NewNumericDate(clock.Now().Add(time.Hour)) })),
		"no user":                     signed(claims(func(c *tokenClaims) { c.Subject = "" })),
		"user 0":                      signed(claims(func(c *tokenClaims) { c.Subject = "0" })),
		"negative user":               signed(claims(func(c *tokenClaims) { c.Subject = "-5" })),
		"user with a plus":            signed(claims(func(c *tokenClaims) { c.Subject = "+5" })),
		"user past int64":             signed(claims(func(c *tokenClaims) { c.Subject = "9223372036854775808" })),
		"short device":                signed(claims(func(c *tokenClaims) { c.Device = "AAAA" })),
		"slot 0":                      signed(claims(func(c *tokenClaims) { c.Slot = 0 })),
		"slot 7":                      signed(claims(func(c *tokenClaims) { c.Slot = 7 })),
		"claims of another type":      signed(jwt.MapClaims{"iss": tokenIssuer, "sub": 5, "exp": clock.Now().Add(time.Hour).Unix()}),
		"negative epoch":              signed(jwt.MapClaims{"iss": tokenIssuer, "sub": "5", "lep": -1, "exp": clock.Now().Add(time.Hour).Unix()}),
		"upper case alg in the claim": forge(t, jwt.SigningMethodEdDSA, map[string]any{"kid": key.id, "alg": "eddsa"}, same, key.private),
	} {
		if a, err := tk.verify(s); proto.CodeOf(err) != proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED {
			t.Errorf("%s: %+v, %v; want UNAUTHENTICATED", what, a, err)
		}
	}
	for what, s := range map[string]string{
		"expired":     signed(claims(func(c *tokenClaims) { c.ExpiresAt = jwt.NewNumericDate(clock.Now().Add(-time.Minute)) })),
		"unknown kid": forge(t, jwt.SigningMethodEdDSA, map[string]any{"kid": "0011223344556677"}, same, stranger),
	} {
		if a, err := tk.verify(s); proto.CodeOf(err) != proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED {
			t.Errorf("%s: %+v, %v; want TOKEN_EXPIRED", what, a, err)
		}
	}
	if _, err := tk.verify(signed(same)); err != nil {
		t.Errorf("the test's own way of signing does not work: %v", err)
	}
}

func TestTokenErrorsKeepTheTokenSecret(t *testing.T) {
	tk := newTestTokens(t, newFakeClock())
	s := tk.mustIssue(t, someAccess())
	_, err := tk.verify(s[:len(s)-4])
	if err == nil || strings.Contains(err.Error(), s[:40]) || strings.Contains(proto.AsFault(err).Wire().Message, "signature") {
		t.Errorf("%v", err)
	}
}

// FuzzToken: nothing but what was signed is believed.
func FuzzToken(f *testing.F) {
	clock := newFakeClock()
	tk := newTestTokens(f, clock)
	want := someAccess()
	good := tk.mustIssue(f, want)
	f.Add(good)
	f.Add(good[:len(good)-1])
	f.Add("eyJhbGciOiJub25lIn0.e30.")
	f.Fuzz(func(t *testing.T, s string) {
		got, err := tk.verify(s)
		if err != nil {
			if c := proto.CodeOf(err); c != proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED && c != proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED {
				t.Fatalf("%v", err)
			}
			return
		}
		if s != good || got.user != want.user {
			t.Fatalf("%q is believed to be %+v", s, got)
		}
	})
}

func BenchmarkTokenIssue(b *testing.B) {
	tk := newTestTokens(b, newFakeClock())
	for b.Loop() {
		tk.mustIssue(b, someAccess())
	}
}

func BenchmarkTokenVerify(b *testing.B) {
	tk := newTestTokens(b, newFakeClock())
	s := tk.mustIssue(b, someAccess())
	for b.Loop() {
		if _, err := tk.verify(s); err != nil {
			b.Fatal(err)
		}
	}
}
