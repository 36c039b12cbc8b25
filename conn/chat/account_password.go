package chat

import (
	"bytes"
	"context"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// changePassword checks the old password like a login does, stores the new one
// and revokes every other device. The answer is a token of the new generation.
func (c *Chat) changePassword(s *session, f *proto.Frame) bool {
	req := f.GetChangePassword()
	if len(req.OldPassword) > maxPasswordBytes {
		s.conn.Fail(f.Id, invalid("old_password has more than %d bytes", maxPasswordBytes))
		return false
	}
	p := &passwordCheck{password: req.OldPassword}
	var auth []byte
	var answer *proto.Frame
	var begun, checked bool
	c.start(&job{
		conn: s.conn,
		slot: s.id.user.Slot(),
		read: func(ctx context.Context) error {
			account, err := c.account(ctx, s.id.user)
			if err != nil {
				return err
			}
			p.name, p.account = account.Name, account
			if err := checkNewPassword(req.NewPassword, p.name); err != nil {
				return err
			}
			p.key = guessKey(p.name, s.conn.RemoteIP())
			if wait := c.auth.attempts.begin(p.key); wait > 0 {
				return tooMany(wait)
			}
			begun = true
			return nil
		},
		hash: func() (err error) {
			checked = true
			if err = c.checkPassword(p); err == nil {
				auth, err = c.auth.hasher.newHash(req.NewPassword)
			}
			return err
		},
		write: func(ctx context.Context) (err error) {
			answer, err = c.storePassword(ctx, s, p.account.Auth, auth)
			return err
		},
		end: func(_ context.Context, err error) {
			if begun && !checked {
				c.auth.attempts.unknown(p.key)
			}
			c.respond(s, f.Id, answer, err)
			s.conn.Resume()
		},
	})
	return true
}

// respond answers a request of a session.
func (c *Chat) respond(s *session, id uint64, answer *proto.Frame, err error) {
	if err == nil {
		s.conn.Reply(id, answer)
		return
	}
	fault := faultOf(err)
	c.logFault(s, fault)
	s.conn.Fail(id, fault)
}

// storePassword replaces the hash was by auth.
func (c *Chat) storePassword(ctx context.Context, s *session, was, auth []byte) (*proto.Frame, error) {
	user := s.id.user
	var st standing
	err := c.store.Update(ctx, ownRows(user), func(tx *storage.Tx) error {
		account := tx.Account(user)
		if !bytes.Equal(account.Auth, was) {
			return errAuthChanged()
		}
		st = standing{head: tx.User(user)}
		for _, d := range tx.Devices(user) {
			if d.Key.ID == s.id.device {
				st.dev, st.found = d, true
				continue
			}
			tx.DelDevice(d.Key)
		}
		if !st.found {
			return proto.Errorf(proto.ErrorCode_ERROR_CODE_REVOKED, "")
		}
		account.Auth = auth
		tx.PutAccount(account)
		st.head.TokenGen++
		tx.PutUser(st.head)
		return notify(tx, user, proto.SecurityKind_SECURITY_KIND_PASSWORD_CHANGED, nil)
	})
	if err != nil {
		return nil, err
	}
	c.settleDevices(user, st.head.TokenGen, func(id [16]byte) bool { return id == s.id.device })
	return c.tokenFrame(&st)
}

// tokenFrame signs a token for a device in good standing.
func (c *Chat) tokenFrame(st *standing) (*proto.Frame, error) {
	token, expires, err := c.auth.tokens.issue(access{
		user: st.head.User, device: st.dev.Key.ID, slot: st.dev.Slot, loginEpoch: st.dev.LoginEpoch, tokenGen: st.head.TokenGen,
	})
	if err != nil {
		return nil, err
	}
	return &proto.Frame{Body: &proto.Frame_AccessToken{AccessToken: &proto.AccessToken{Token: token, ExpiresUs: expires.UnixMicro()}}}, nil
}

// refreshToken gives a live session a new access token, if its device is
// still what it was.
func (c *Chat) refreshToken(s *session, f *proto.Frame) bool {
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		st, err := c.standing(ctx, storage.DeviceKey{User: s.id.user, ID: s.id.device})
		if err != nil {
			return nil, err
		}
		err = st.live()
		switch {
		case !st.found:
			err = proto.Errorf(proto.ErrorCode_ERROR_CODE_REVOKED, "")
		case st.dev.LoginEpoch != s.id.loginEpoch:
			err = proto.Errorf(proto.ErrorCode_ERROR_CODE_REPLACED, "")
		}
		if err != nil {
			c.closeSession(s, proto.AsFault(err))
			return nil, err
		}
		s.setTokenGen(st.head.TokenGen)
		return c.tokenFrame(&st)
	})
}
