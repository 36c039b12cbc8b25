package attack

import (
	"crypto/ed25519"
	"crypto/hmac"
	"crypto/rand"
	"crypto/sha256"
	"crypto/x509"
	"encoding/base64"
	"encoding/json"
	"encoding/pem"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// object is a JSON object of a token.
type object map[string]any

// token is an access token taken apart.
type token struct {
	raw                  []string // the three parts as they came
	header, claims       object
	key                  ed25519.PrivateKey // the server's own
	strangers            ed25519.PrivateKey
	publicPEM, publicDER []byte
}

// takeApart reads a token, and the key that signed it, which nobody but the
// server has: with it the scripts sign what the server would never say.
func (s *scene) takeApart(text string) *token {
	t := &token{raw: strings.Split(text, ".")}
	if len(t.raw) != 3 {
		s.fail("the server's token has %d parts", len(t.raw))
	}
	for i, to := range []*object{&t.header, &t.claims} {
		b, err := base64.RawURLEncoding.DecodeString(t.raw[i])
		s.must(err)
		d := json.NewDecoder(strings.NewReader(string(b)))
		d.UseNumber()
		s.must(d.Decode(to))
	}
	paths, err := filepath.Glob(filepath.Join(s.srv.Keys, "token-*.pem"))
	s.must(err)
	if len(paths) == 0 {
		s.must(fmt.Errorf("%w: the server's signing keys", ErrUnable))
	}
	slices.Sort(paths)
	b, err := os.ReadFile(paths[len(paths)-1])
	s.must(err)
	block, _ := pem.Decode(b)
	if block == nil {
		s.fail("%s holds no key", paths[len(paths)-1])
	}
	parsed, err := x509.ParsePKCS8PrivateKey(block.Bytes)
	s.must(err)
	t.key = parsed.(ed25519.PrivateKey)
	_, t.strangers, err = ed25519.GenerateKey(rand.Reader)
	s.must(err)
	t.publicDER, err = x509.MarshalPKIXPublicKey(t.key.Public())
	s.must(err)
	t.publicPEM = pem.EncodeToMemory(&pem.Block{Type: "PUBLIC KEY", Bytes: t.publicDER})
	return t
}

// with is o with other values; nil takes a key away.
func (o object) with(change object) object {
	out := maps.Clone(o)
	for k, v := range change {
		if out[k] = v; v == nil {
			delete(out, k)
		}
	}
	return out
}

func part(o object) string {
	b, _ := json.Marshal(o) // of strings, numbers and bools: cannot fail
	return base64.RawURLEncoding.EncodeToString(b)
}

func eddsa(key ed25519.PrivateKey) func(string) []byte {
	return func(text string) []byte { return ed25519.Sign(key, []byte(text)) }
}

func hmacked(key []byte) func(string) []byte {
	return func(text string) []byte {
		m := hmac.New(sha256.New, key)
		m.Write([]byte(text))
		return m.Sum(nil)
	}
}

func unsigned(string) []byte { return nil }

// put makes a token.
func put(header, claims object, sign func(string) []byte) string {
	text := part(header) + "." + part(claims)
	return text + "." + base64.RawURLEncoding.EncodeToString(sign(text))
}

// attackForged tries every way in which a token verifier has been fooled that
// we know of. The victim's own device shows the token, so that nothing but the
// token is wrong.
func attackForged(s *scene) string {
	s.shared()
	victim := s.person()
	t := s.takeApart(victim.token)
	public := []byte(t.key.Public().(ed25519.PublicKey))
	ours, theirs := eddsa(t.key), eddsa(t.strangers)
	none := func(alg string) string { return put(t.header.with(object{"alg": alg}), t.claims, unsigned) }
	hs256 := t.header.with(object{"alg": "HS256"})
	jwk := object{"kty": "OKP", "crv": "Ed25519", "x": base64.RawURLEncoding.EncodeToString(t.strangers.Public().(ed25519.PublicKey))}
	forged := map[string]string{
		"alg none":                            none("none"),
		"alg None":                            none("None"),
		"alg nOnE, signature kept":            none("nOnE") + t.raw[2],
		"no alg":                              put(t.header.with(object{"alg": nil}), t.claims, ours),
		"alg lower case":                      put(t.header.with(object{"alg": "eddsa"}), t.claims, ours),
		"HS256 keyed with the public key":     put(hs256, t.claims, hmacked(public)),
		"HS256 keyed with its PEM":            put(hs256, t.claims, hmacked(t.publicPEM)),
		"HS256 keyed with its DER":            put(hs256, t.claims, hmacked(t.publicDER)),
		"HS256 keyed with nothing":            put(hs256, t.claims, hmacked(nil)),
		"another key under our kid":           put(t.header, t.claims, theirs),
		"another key, brought along as jwk":   put(t.header.with(object{"jwk": jwk}), t.claims, theirs),
		"another key, to be fetched (jku)":    put(t.header.with(object{"jku": "http://127.0.0.1:1/keys"}), t.claims, theirs),
		"no kid":                              put(t.header.with(object{"kid": nil}), t.claims, ours),
		"a kid that is a number":              put(t.header.with(object{"kid": 1}), t.claims, ours),
		"an unknown kid":                      put(t.header.with(object{"kid": "0000000000000000"}), t.claims, theirs),
		"a kid that is a path":                put(t.header.with(object{"kid": "../../../../dev/null"}), t.claims, hmacked(nil)),
		"a kid that is SQL":                   put(t.header.with(object{"kid": "' OR 1=1 --"}), t.claims, theirs),
		"other claims, signature kept":        t.raw[0] + "." + part(t.claims.with(object{"sub": "1"})) + "." + t.raw[2],
		"a later end, signature kept":         t.raw[0] + "." + part(t.claims.with(object{"exp": time.Now().Unix() + 1e6})) + "." + t.raw[2],
		"no signature":                        t.raw[0] + "." + t.raw[1] + ".",
		"half a signature":                    t.raw[0] + "." + t.raw[1] + "." + t.raw[2][:40],
		"two parts":                           t.raw[0] + "." + t.raw[1],
		"four parts":                          victim.token + "." + t.raw[2],
		"a byte more":                         victim.token + "A",
		"a line break in it":                  t.raw[0] + "\n." + t.raw[1] + "." + t.raw[2],
		"no token":                            "x",
		"three kilobytes":                     victim.token + strings.Repeat("A", 3000),
		"JSON instead of base64":              `{"alg":"none"}.{"sub":"1"}.`,
		"expired, with the true key":          put(t.header, t.claims.with(object{"iat": time.Now().Unix() - 7200, "exp": time.Now().Unix() - 3600}), ours),
		"no end, with the true key":           put(t.header, t.claims.with(object{"exp": nil}), ours),
		"an end that is text, true key":       put(t.header, t.claims.with(object{"exp": "never"}), ours),
		"of tomorrow, with the true key":      put(t.header, t.claims.with(object{"iat": time.Now().Unix() + 86400, "exp": time.Now().Unix() + 90000}), ours),
		"another issuer, with the true key":   put(t.header, t.claims.with(object{"iss": "somebody"}), ours),
		"another device, with the true key":   put(t.header, t.claims.with(object{"dev": base64.RawURLEncoding.EncodeToString(random(16))}), ours),
		"another user, with the true key":     put(t.header, t.claims.with(object{"sub": "1"}), ours),
		"an earlier login, with the true key": put(t.header, t.claims.with(object{"lep": 0}), ours),
		"a later login, with the true key":    put(t.header, t.claims.with(object{"lep": 1 << 40}), ours),
		"another slot, with the true key":     put(t.header, t.claims.with(object{"slt": 4}), ours),
		"a negative login, with the true key": put(t.header, t.claims.with(object{"lep": -1}), ours),
		"crit of an extension nobody has":     put(t.header.with(object{"alg": "none", "crit": []string{"x"}, "x": true}), t.claims, unsigned),
	}
	for what, text := range forged {
		f := victim.again().enter(byToken(text))
		switch codeOf(f) {
		case proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED, proto.ErrorCode_ERROR_CODE_REVOKED,
			proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT:
		case proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, proto.ErrorCode_ERROR_CODE_BAD_FRAME:
		default:
			s.breach("%s: %s", what, told(f))
		}
	}
	victim.lives("the victim's session") // a Welcome to a forger would have ended it
	victim.again().in(byToken(victim.token)).lives("the true token")
	return fmt.Sprintf("%d forgeries refused; the true one works", len(forged))
}
