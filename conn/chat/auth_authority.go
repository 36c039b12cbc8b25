package chat

import (
	"github.com/prometheus/client_golang/prometheus"
)

// authority decides who somebody is: signing keys, the password pool, and what
// is remembered of wrong attempts.
type authority struct {
	hasher    *hasher
	tokens    *tokens
	attempts  *attempts
	registers *registers
	limits    Accounts
	hellos    *prometheus.CounterVec
}

func newAuthority(opt Options) (*authority, error) {
	argon, tok, limits := opt.Argon2.withDefaults(), opt.Tokens.withDefaults(), opt.Accounts.withDefaults()
	for _, v := range []interface{ Validate() error }{argon, tok, limits} {
		if err := v.Validate(); err != nil {
			return nil, err
		}
	}
	t, err := newTokens(tok, opt.Now)
	if err != nil {
		return nil, err
	}
	h, err := newHasher(argon, opt.Log)
	if err != nil {
		return nil, err
	}
	a := &authority{
		hasher:    h,
		tokens:    t,
		attempts:  newAttempts(limits.Tracked, opt.Now),
		registers: newRegisters(limits.Tracked, opt.Now),
		limits:    limits,
		hellos: prometheus.NewCounterVec(prometheus.CounterOpts{
			Name: "hermod_chat_hellos_total", Help: "Hellos by credentials and outcome (OK or an error code).",
		}, []string{"credentials", "result"}),
	}
	opt.Metrics.MustRegister(a.hellos)
	h.register(opt.Metrics)
	return a, nil
}

// close waits for the password checks under way.
func (a *authority) close() { a.hasher.close() }

// ReloadKeys takes the signing keys that are in Tokens.Dir now: the newest
// signs, the one before it is accepted. On an error the old ones stay.
func (c *Chat) ReloadKeys() error { return c.auth.tokens.ring.reload() }

// RotateKeys makes a new signing key. Tokens of the key before stay good; those
// of the one before that end at once, and their devices use their secrets.
func (c *Chat) RotateKeys() error { return c.auth.tokens.ring.rotate(c.now()) }
