package chat

import (
	"context"
	"crypto/sha256"
	"errors"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// resumeByToken is the cheap way back in: one read, nothing written.
func (c *Chat) resumeByToken(a *arrival, token string) {
	acc, err := c.auth.tokens.verify(token)
	switch {
	case err != nil:
		c.refuse(a, err)
		return
	case acc.device != a.device:
		c.refuse(a, unauthenticated("the access token is another device's"))
		return
	case acc.slot != a.slot:
		c.refuse(a, slotChanged())
		return
	}
	var id identity
	c.onShard(a.conn, acc.user.Slot(), func(ctx context.Context) error {
		st, err := c.standing(ctx, storage.DeviceKey{User: acc.user, ID: acc.device})
		if err == nil {
			err = st.access(acc)
		}
		if err == nil {
			id, err = c.identifyByToken(a, &st, token, acc)
		}
		return err
	}, func(ctx context.Context, err error) { c.arrived(ctx, a, id, err) })
}

// arrived ends an arrival either way. ctx is that of the reader, if it is one.
func (c *Chat) arrived(ctx context.Context, a *arrival, id identity, err error) {
	if err != nil {
		c.refuse(a, err)
		return
	}
	c.accept(ctx, a, id)
}

func slotChanged() *proto.Fault {
	return invalid("device.slot differs from the one the device has logged in with: log in by password to change it")
}

func (c *Chat) standing(ctx context.Context, k storage.DeviceKey) (st standing, err error) {
	err = c.store.View(ctx, k.User.Slot(), func(sn storage.Snap) (err error) {
		st, err = readStanding(sn, k)
		return err
	})
	return st, err
}

// identifyByToken keeps a token that has more than half of its life.
func (c *Chat) identifyByToken(a *arrival, st *standing, token string, acc access) (identity, error) {
	if !c.auth.tokens.fresh(acc) {
		return c.identify(a, st.name, st.head, st.dev)
	}
	return identity{
		user: acc.user, name: st.name, device: a.device, slot: st.dev.Slot, info: a.info, head: st.head,
		loginEpoch: st.dev.LoginEpoch, tokenGen: st.head.TokenGen, token: token, tokenExpires: acc.expires,
	}, nil
}

// resumeBySecret moves the device on to its next secret. Whoever is not
// believed causes no write, and learns nothing about which users and devices
// there are.
func (c *Chat) resumeBySecret(a *arrival, s *proto.DeviceSecret) {
	key := storage.DeviceKey{User: storage.UserID(s.UserId), ID: a.device}
	if !key.User.Valid() {
		c.refuse(a, unauthenticated(""))
		return
	}
	current := sha256.Sum256(s.Current)
	var id identity
	c.onShard(a.conn, key.User.Slot(), func(ctx context.Context) error {
		st, err := c.standing(ctx, key)
		if err != nil {
			return err
		}
		if !st.found || judgeSecret(&st.dev, current, a.next) == secretWrong {
			return unauthenticated("")
		}
		st, err = c.rotateSecret(ctx, a, key, current)
		if err == nil {
			id, err = c.identify(a, st.name, st.head, st.dev)
		}
		return err
	}, func(ctx context.Context, err error) { c.arrived(ctx, a, id, err) })
}

// rotateSecret judges again, in the transaction that writes.
func (c *Chat) rotateSecret(ctx context.Context, a *arrival, key storage.DeviceKey, current [32]byte) (st standing, err error) {
	reused := false
	err = c.notifying(ctx, key.User, func(tx *storage.Tx, tell notifier) error {
		reused = false
		st = standing{name: tx.Account(key.User).Name, head: tx.User(key.User)}
		st.dev, st.found = tx.Device(key)
		verdict := secretWrong
		if st.found {
			verdict = judgeSecret(&st.dev, current, a.next)
		}
		switch {
		case verdict == secretWrong:
			return unauthenticated("")
		case verdict == secretReused:
			reused = true
			st.head, err = revokeTx(tx, &st.dev, tell, proto.SecurityKind_SECURITY_KIND_SECRET_REUSED)
			return err
		case st.dev.Slot != a.slot:
			return slotChanged()
		}
		if err := st.live(); err != nil {
			return err
		}
		if verdict == secretGood {
			st.dev.PrevHash, st.dev.SecretHash = st.dev.SecretHash, a.next
		}
		st.dev.LastSeen, st.dev.Info = tx.Now(), a.infoBytes
		tx.PutDevice(st.dev)
		return nil
	})
	if err == nil && reused {
		c.log.Warn().Int64("user", int64(key.User)).Stringer("ip", a.conn.RemoteIP()).Msg("a used-up device secret came again; the device is revoked")
		c.settleDevices(key.User, st.head.TokenGen, func(id [16]byte) bool { return id != key.ID })
		err = proto.Errorf(proto.ErrorCode_ERROR_CODE_REVOKED, "a used-up device secret came again: the device is revoked")
	}
	return st, err
}

// revokeTx deletes a device and ends all access tokens of its user; devices
// that stay get new ones for their secrets.
func revokeTx(tx *storage.Tx, d *storage.Device, tell notifier, kind proto.SecurityKind) (storage.UserHead, error) {
	user := d.Key.User
	tx.DelDevice(d.Key)
	head := tx.User(user)
	head.TokenGen++
	tx.PutUser(head)
	err := tell(tx, user, kind, deviceInfo(d))
	return tx.User(user), err
}

// notifier is notify, or nothing.
type notifier func(*storage.Tx, storage.UserID, proto.SecurityKind, *proto.DeviceInfo) error

// notifying is an Update of a user's own rows that ends logins and tells the
// user's devices of it. On a full disk it is done without telling them: whoever
// has lost a phone cannot wait for a larger disk.
func (c *Chat) notifying(ctx context.Context, user storage.UserID, fn func(*storage.Tx, notifier) error) error {
	err := c.store.Update(ctx, ownRows(user), func(tx *storage.Tx) error { return fn(tx, notify) })
	if !errors.Is(err, storage.ErrFull) {
		return err
	}
	c.often.Warn().Err(err).Int64("user", int64(user)).Msg("no room for a security notice; revoking without it")
	return c.store.Update(ctx, ownRows(user), func(tx *storage.Tx) error {
		return fn(tx, func(*storage.Tx, storage.UserID, proto.SecurityKind, *proto.DeviceInfo) error { return nil })
	})
}

// settleDevices does at once, on this node, what the audit does everywhere:
// sessions of devices that are gone end, the others are marked as checked
// against the new generation.
func (c *Chat) settleDevices(user storage.UserID, gen uint64, stays func(device [16]byte) bool) {
	for _, s := range c.sessionsOf(user) {
		if stays(s.id.device) {
			s.setTokenGen(gen)
			continue
		}
		c.closeSession(s, proto.Errorf(proto.ErrorCode_ERROR_CODE_REVOKED, ""))
	}
}
