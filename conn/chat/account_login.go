package chat

import (
	"bytes"
	"context"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// passwordCheck is a password somebody claims an account with: where to look,
// what was found, and the outcome.
type passwordCheck struct {
	name     string
	password string
	key      attemptKey
	account  storage.Account
	renewed  []byte // the hash to store instead, at today's costs
}

// tooMany is the answer to a guess that came too early.
func tooMany(wait time.Duration) *proto.Fault {
	return proto.Errorf(proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS, "too many wrong passwords").WithRetry(wait)
}

// login is a login by password. A name that nobody has takes the same way as
// a wrong password: a read, a hash, the same words.
func (c *Chat) login(a *arrival, l *proto.PasswordLogin) {
	name, err := normalizeName(l.Name)
	if err != nil {
		c.refuse(a, unauthenticated("")) // the rules are public
		return
	}
	p := &passwordCheck{name: name, password: l.Password, key: guessKey(name, a.conn.RemoteIP())}
	if wait := c.auth.attempts.begin(p.key); wait > 0 {
		c.refuse(a, tooMany(wait))
		return
	}
	checked := false
	var id identity
	c.start(&job{
		conn: a.conn,
		slot: c.store.NameSlot(name),
		read: func(ctx context.Context) error { return c.readAccount(ctx, p) },
		hash: func() error {
			checked = true
			return c.checkPassword(p)
		},
		write: func(ctx context.Context) (err error) {
			id, err = c.loggedIn(ctx, a, p)
			return err
		},
		end: func(ctx context.Context, err error) {
			if !checked {
				c.auth.attempts.unknown(p.key)
			}
			c.arrived(ctx, a, id, err)
		},
	})
}

// readAccount finds the account of p.name, if there is one. It reads as many
// rows if there is none.
func (c *Chat) readAccount(ctx context.Context, p *passwordCheck) error {
	slot := c.store.NameSlot(p.name)
	return c.store.View(ctx, slot, func(sn storage.Snap) error {
		row, err := sn.Name(p.name)
		if err != nil {
			return err
		}
		user := row.User
		if !row.Found {
			user = storage.UserIDIn(slot, 0)
		}
		p.account, err = sn.Account(user)
		if !row.Found {
			p.account = storage.Account{}
		}
		return err
	})
}

// checkPassword runs on the pool.
func (c *Chat) checkPassword(p *passwordCheck) error {
	ok, renewed, err := c.auth.hasher.verify(p.account.Auth, p.password)
	switch {
	case err != nil:
		return err
	case !ok:
		return unauthenticated("")
	}
	p.renewed = renewed
	c.auth.attempts.right(p.key)
	return nil
}

// errAuthChanged: the hash that was checked is not the account's any more.
func errAuthChanged() *proto.Fault {
	return proto.Errorf(proto.ErrorCode_ERROR_CODE_UNAVAILABLE, "the account has changed in this very moment; try again").WithRetry(100 * time.Millisecond)
}

// loggedIn writes a login whose password was right.
func (c *Chat) loggedIn(ctx context.Context, a *arrival, p *passwordCheck) (identity, error) {
	r := c.signInOf(a, p.account.User)
	var out signedIn
	err := c.store.Update(ctx, ownRows(r.key.User), func(tx *storage.Tx) (err error) {
		if hasLeft(a.conn) {
			// Whoever waited has given up, and logged in elsewhere, maybe on
			// another device: a newer login now would end that for good.
			return context.Canceled
		}
		account := tx.Account(r.key.User)
		if !bytes.Equal(account.Auth, p.account.Auth) {
			return errAuthChanged()
		}
		if out, err = signInTx(tx, r); err == nil && p.renewed != nil {
			account.Auth = p.renewed
			tx.PutAccount(account)
		}
		return err
	})
	if err != nil {
		return identity{}, err
	}
	return c.identify(a, p.name, out.head, out.dev)
}
