package chat

import (
	"encoding/base64"
	"errors"
	"strconv"
	"strings"
	"time"

	"github.com/golang-jwt/jwt/v5"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

const (
	tokenIssuer = "hermod"
	maxToken    = 1 << 10 // bytes; ours have about 350
)

// access is what an access token says. It is a claim about the past: whether
// it still holds is decided by the user's head and device (standing.access).
type access struct {
	user                 storage.UserID
	device               [16]byte
	slot                 uint8
	loginEpoch, tokenGen uint64
	issued, expires      time.Time
}

// tokenClaims is the token's JSON. Numbers that may pass 2^53 are Go's own
// business: clients do not parse tokens.
type tokenClaims struct {
	jwt.RegisteredClaims
	Device     string `json:"dev"`
	Slot       uint8  `json:"slt"`
	LoginEpoch uint64 `json:"lep"`
	TokenGen   uint64 `json:"gen"`
}

// tokens signs and checks access tokens.
type tokens struct {
	opt    Tokens
	ring   *keyring
	now    func() time.Time
	parser *jwt.Parser
}

func newTokens(opt Tokens, now func() time.Time) (*tokens, error) {
	ring, err := openKeyring(opt.Dir, now())
	if err != nil {
		return nil, err
	}
	return &tokens{opt: opt, ring: ring, now: now, parser: jwt.NewParser(
		// The one algorithm. What the token's own header asks for is not
		// asked: "none", and HMAC keyed with our public key, end here.
		jwt.WithValidMethods([]string{jwt.SigningMethodEdDSA.Alg()}),
		jwt.WithStrictDecoding(),
		jwt.WithIssuer(tokenIssuer),
		jwt.WithExpirationRequired(),
		jwt.WithIssuedAt(),
		jwt.WithLeeway(opt.Leeway),
		jwt.WithTimeFunc(now),
	)}, nil
}

// issue signs a token for a, from now on; it returns when it ends.
func (t *tokens) issue(a access) (string, time.Time, error) {
	issued := t.now().Truncate(time.Second) // NumericDate has seconds
	expires := issued.Add(t.opt.Life)
	key := t.ring.keys()[0]
	token := jwt.NewWithClaims(jwt.SigningMethodEdDSA, tokenClaims{
		RegisteredClaims: jwt.RegisteredClaims{
			Issuer:    tokenIssuer,
			Subject:   strconv.FormatInt(int64(a.user), 10),
			IssuedAt:  jwt.NewNumericDate(issued),
			ExpiresAt: jwt.NewNumericDate(expires),
		},
		Device:     base64.RawURLEncoding.EncodeToString(a.device[:]),
		Slot:       a.slot,
		LoginEpoch: a.loginEpoch,
		TokenGen:   a.tokenGen,
	})
	token.Header["kid"] = key.id
	s, err := token.SignedString(key.private)
	return s, expires, err
}

// errRetiredKey: a key id we do not have. Most likely two rotations passed, or
// the other nodes are ahead of us.
var errRetiredKey = errors.New("chat: token is signed by a key that is not live")

// verify reads a token that one of the live keys has signed and whose time has
// not run out. Faults: TOKEN_EXPIRED, also for a key that has been retired,
// since the device secret is what helps in both cases; else UNAUTHENTICATED.
func (t *tokens) verify(s string) (access, error) {
	refuse := func(code proto.ErrorCode, why error) (access, error) {
		return access{}, proto.Errorf(code, "").WithCause(why)
	}
	// The decoder skips line breaks; a token has one spelling only.
	if len(s) > maxToken || strings.ContainsAny(s, "\r\n") {
		return refuse(proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, errors.New("chat: token is too long or broken into lines"))
	}
	var c tokenClaims
	_, err := t.parser.ParseWithClaims(s, &c, t.keyOf)
	switch {
	case err == nil:
	case errors.Is(err, errRetiredKey):
		return refuse(proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED, err)
	case errors.Is(err, jwt.ErrTokenExpired) && !errors.Is(err, jwt.ErrTokenInvalidIssuer):
		return refuse(proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED, err)
	default:
		return refuse(proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, err)
	}
	a, err := c.access()
	if err != nil {
		return refuse(proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, err)
	}
	return a, nil
}

func (t *tokens) keyOf(token *jwt.Token) (any, error) {
	id, ok := token.Header["kid"].(string)
	if !ok {
		return nil, errors.New("chat: token has no key id")
	}
	key, ok := t.ring.keys().find(id)
	if !ok {
		return nil, errRetiredKey
	}
	return key.public(), nil
}

var errClaims = errors.New("chat: token with claims that are not ours")

func (c *tokenClaims) access() (access, error) {
	user, err := strconv.ParseInt(c.Subject, 10, 64)
	if err != nil || !storage.UserID(user).Valid() || strconv.FormatInt(user, 10) != c.Subject {
		return access{}, errClaims
	}
	device, err := base64.RawURLEncoding.Strict().DecodeString(c.Device)
	if err != nil || len(device) != 16 || !validSlot(c.Slot) || c.IssuedAt == nil {
		return access{}, errClaims
	}
	return access{
		user: storage.UserID(user), device: [16]byte(device), slot: c.Slot,
		loginEpoch: c.LoginEpoch, tokenGen: c.TokenGen,
		issued: c.IssuedAt.Time, expires: c.ExpiresAt.Time,
	}, nil
}

// fresh reports whether more than half of the token's life is left.
func (t *tokens) fresh(a access) bool {
	return a.expires.Sub(t.now()) > t.opt.Life/2
}
