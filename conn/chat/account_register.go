package chat

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

var (
	// errUserTaken: the drawn id is in use; draw again.
	errUserTaken = errors.New("chat: user id is in use")
	// errNameRaced: the name was free a moment ago. It may be our own retry
	// that was faster, so look again.
	errNameRaced = errors.New("chat: name was taken meanwhile")
)

func nameTaken() *proto.Fault { return proto.Errorf(proto.ErrorCode_ERROR_CODE_NAME_TAKEN, "") }

// registration is an account somebody asks for.
type registration struct {
	passwordCheck
	displayName string
	// again: the name belongs to an account whose device has this very id and
	// secret, so the answer to this registration was lost. The password must
	// be right nevertheless, or else the person would believe in a wrong one.
	again bool
	auth  []byte // the new hash
}

// register makes an account with its first device.
func (c *Chat) register(a *arrival, r *proto.Register) {
	reg := &registration{displayName: r.DisplayName}
	var err error
	reg.password = r.Password
	if reg.name, err = normalizeName(r.Name); err == nil {
		err = checkNewPassword(r.Password, reg.name)
	}
	if err == nil {
		err = checkDisplayName(r.DisplayName)
	}
	if err == nil && !a.conn.Exempt() {
		if wait := c.auth.registers.take(a.conn.RemoteIP(), c.limits.Load().RegistersPerMinute); wait > 0 {
			err = proto.Errorf(proto.ErrorCode_ERROR_CODE_RATE_LIMITED, "too many registrations from this address").WithRetry(wait)
		}
	}
	if err != nil {
		c.refuse(a, err)
		return
	}
	c.tryRegister(a, reg, 1)
}

// tryRegister is one attempt; it may follow itself once, see errNameRaced.
func (c *Chat) tryRegister(a *arrival, reg *registration, more int) {
	var id identity
	c.start(&job{
		conn: a.conn,
		slot: c.store.NameSlot(reg.name),
		read: func(ctx context.Context) error { return c.readRegistered(ctx, a, reg) },
		hash: func() (err error) {
			if !reg.again {
				reg.auth, err = c.auth.hasher.newHash(reg.password)
				return err
			}
			ok, _, err := c.auth.hasher.verify(reg.account.Auth, reg.password)
			if err == nil && !ok {
				err = nameTaken()
			}
			return err
		},
		write: func(ctx context.Context) (err error) {
			if reg.again {
				id, err = c.loggedIn(ctx, a, &reg.passwordCheck)
			} else {
				id, err = c.createAccount(ctx, a, reg)
			}
			return err
		},
		end: func(ctx context.Context, err error) {
			if errors.Is(err, errNameRaced) && more > 0 {
				c.tryRegister(a, reg, more-1)
				return
			}
			if errors.Is(err, errNameRaced) {
				err = nameTaken()
			}
			c.arrived(ctx, a, id, err)
		},
	})
}

// readRegistered looks whether the name is taken, and if so, by this very
// registration.
func (c *Chat) readRegistered(ctx context.Context, a *arrival, reg *registration) error {
	slot := c.store.NameSlot(reg.name)
	return c.store.View(ctx, slot, func(sn storage.Snap) error {
		reg.again = false
		row, err := sn.Name(reg.name)
		if err != nil || !row.Found {
			return err
		}
		st, err := readStanding(sn, storage.DeviceKey{User: row.User, ID: a.device})
		if err != nil {
			return err
		}
		if !st.found || st.dev.SecretHash != a.next {
			return nameTaken()
		}
		reg.again = true
		reg.account, err = sn.Account(row.User)
		return err
	})
}

// createAccount writes everything a new user is, in one transaction on one
// shard: the id is made in the slot that the name decides.
func (c *Chat) createAccount(ctx context.Context, a *arrival, reg *registration) (identity, error) {
	const draws = 8 // of 51 bits each: a second one is a curiosity
	slot := c.store.NameSlot(reg.name)
	for range draws {
		var random [8]byte
		if _, err := rand.Read(random[:]); err != nil {
			return identity{}, err
		}
		user := storage.UserIDIn(slot, binary.BigEndian.Uint64(random[:]))
		if !user.Valid() {
			continue
		}
		out, err := c.createUser(ctx, c.signInOf(a, user), reg)
		switch {
		case errors.Is(err, errUserTaken):
			continue
		case err != nil:
			return identity{}, err
		}
		return c.identify(a, reg.name, out.head, out.dev)
	}
	return identity{}, errUserTaken
}

func (c *Chat) createUser(ctx context.Context, r signIn, reg *registration) (out signedIn, err error) {
	user := r.key.User
	profile, err := gproto.Marshal(&proto.Profile{DisplayName: reg.displayName})
	if err != nil {
		return out, err
	}
	rows := ownRows(user)
	rows.Names = []string{reg.name}
	err = c.store.Update(ctx, rows, func(tx *storage.Tx) (err error) {
		if tx.Name(reg.name).Found {
			return errNameRaced
		}
		head := tx.User(user)
		if head.Found || tx.Account(user).Found {
			return errUserTaken
		}
		head.TokenGen = 1 // 0 is what a missing claim reads as
		tx.PutUser(head)
		tx.PutName(storage.NameRow{Name: reg.name, User: user})
		tx.PutAccount(storage.Account{User: user, Name: reg.name, Created: tx.Now(), Auth: reg.auth, Profile: profile})
		out, err = signInTx(tx, r)
		return err
	})
	return out, err
}
