package chat

import (
	"crypto/rand"
	"crypto/subtle"
	"encoding/base64"
	"errors"
	"fmt"
	"strings"
	"unicode/utf8"

	"golang.org/x/crypto/argon2"
	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/hermod-im/hermod/proto"
)

const (
	minPassword      = 8   // characters
	maxPasswordBytes = 256 // UTF-8

	maxArgon2KiB    = 1 << 20
	maxArgon2Passes = 64

	saltLen = 16
	hashLen = 32
)

// spellPassword makes one spelling of what different keyboards type for the
// same password: composed and decomposed accents are one.
func spellPassword(p string) string { return norm.NFC.String(p) }

// checkNewPassword applies the rules for a password that somebody chooses:
// length, and not one of those that are tried first. No rule asks for digits
// or signs: they make people write "Password1!". The error is PASSWORD_WEAK.
func checkNewPassword(password, name string) error {
	weak := func(format string, args ...any) error {
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_PASSWORD_WEAK, format, args...)
	}
	if len(password) > maxPasswordBytes {
		return weak("the password has more than %d bytes", maxPasswordBytes)
	}
	if !utf8.ValidString(password) {
		return weak("the password is not UTF-8")
	}
	folded := cases.Fold().String(spellPassword(password))
	switch {
	case utf8.RuneCountInString(spellPassword(password)) < minPassword:
		return weak("the password has less than %d characters", minPassword)
	case folded == name || folded == name+name:
		return weak("the password is the account name")
	case isRun(folded):
		return weak("the password is a simple row of characters")
	case strings.Contains(commonPasswords, "\n"+folded+"\n"):
		return weak("the password is one of the most common ones")
	}
	return nil
}

// isRun finds repeats ("aaaaaaaa") and rows ("12345678", "hgfedcba", with the
// keyboard's "…890" as well).
func isRun(s string) bool {
	runes := []rune(s)
	step := runes[1] - runes[0]
	if step < -1 || step > 1 {
		return false
	}
	for i := 1; i < len(runes); i++ {
		d := runes[i] - runes[i-1]
		if d != step && !(d == '0'-'9' && step == 1) && !(d == '9'-'0' && step == -1) {
			return false
		}
	}
	return true
}

// phc is a password hash with all that is needed to check it, in the PHC
// string form: $argon2id$v=19$m=19456,t=2,p=1$salt$hash.
type phc struct {
	memory, passes uint32
	lanes          uint8
	salt, hash     []byte
}

var errPHC = errors.New("chat: stored password hash is damaged")

// parsePHC reads what newHash wrote. The bounds keep a damaged row from asking for
// all memory.
func parsePHC(s []byte) (phc, error) {
	var p phc
	parts := strings.Split(string(s), "$")
	if len(parts) != 6 || parts[0] != "" || parts[1] != "argon2id" || parts[2] != "v=19" {
		return p, errPHC
	}
	n, err := fmt.Sscanf(parts[3], "m=%d,t=%d,p=%d", &p.memory, &p.passes, &p.lanes)
	if err != nil || n != 3 || p.memory > maxArgon2KiB || p.passes < 1 || p.passes > maxArgon2Passes || p.lanes < 1 {
		return p, errPHC
	}
	b64 := base64.RawStdEncoding.Strict()
	if p.salt, err = b64.DecodeString(parts[4]); err != nil || len(p.salt) < 8 || len(p.salt) > 64 {
		return p, errPHC
	}
	if p.hash, err = b64.DecodeString(parts[5]); err != nil || len(p.hash) < 16 || len(p.hash) > 64 {
		return p, errPHC
	}
	return p, nil
}

func (p phc) append(dst []byte) []byte {
	b64 := base64.RawStdEncoding
	return fmt.Appendf(dst, "$argon2id$v=19$m=%d,t=%d,p=%d$%s$%s",
		p.memory, p.passes, p.lanes, b64.EncodeToString(p.salt), b64.EncodeToString(p.hash))
}

// derive is the one place that runs argon2.
func (h *hasher) derive(p phc, password string) []byte {
	h.runs.Add(1)
	return argon2.IDKey([]byte(spellPassword(password)), p.salt, p.passes, p.memory, p.lanes, uint32(len(p.hash)))
}

// outdated reports whether p was made with other costs than o's.
func (p phc) outdated(o Argon2) bool {
	return p.memory != o.MemoryKiB || p.passes != o.Passes || p.lanes != o.Lanes || len(p.hash) != hashLen
}

// cost is a hash yet to be made, at today's costs.
func (h *hasher) cost(salt []byte) phc {
	return phc{memory: h.opt.MemoryKiB, passes: h.opt.Passes, lanes: h.opt.Lanes, salt: salt, hash: make([]byte, hashLen)}
}

// newHash hashes a password with a new salt. Only the pool calls it.
func (h *hasher) newHash(password string) ([]byte, error) {
	p := h.cost(make([]byte, saltLen))
	if _, err := rand.Read(p.salt); err != nil {
		return nil, err
	}
	p.hash = h.derive(p, password)
	return p.append(nil), nil
}

// verify checks a password against a stored hash. Without one (nobody has that
// name) it does the same work and says no, so that time tells nothing. renew
// is the hash to store instead where the costs have changed. Only the pool
// calls it.
func (h *hasher) verify(stored []byte, password string) (ok bool, renew []byte, err error) {
	p := h.cost(h.dummySalt)
	if stored != nil {
		if p, err = parsePHC(stored); err != nil {
			return false, nil, err
		}
	}
	ok = subtle.ConstantTimeCompare(h.derive(p, password), p.hash) == 1 && stored != nil
	if ok && p.outdated(h.opt) {
		renew, err = h.newHash(password)
	}
	return ok, renew, err
}
