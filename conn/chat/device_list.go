package chat

import (
	"cmp"
	"context"
	"slices"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
)

// logout forgets the device and closes the session after its answer.
func (c *Chat) logout(s *session, f *proto.Frame) bool {
	c.onShard(s.conn, s.id.user.Slot(), func(ctx context.Context) error {
		return c.forgetDevice(ctx, s)
	}, func(_ context.Context, err error) {
		c.respond(s, f.Id, okFrame(), err)
		if err == nil {
			s.conn.Close(conn.ReasonLogout, nil)
		}
		s.conn.Resume()
	})
	return true
}

func (c *Chat) forgetDevice(ctx context.Context, s *session) error {
	user := s.id.user
	var head storage.UserHead
	err := c.store.Update(ctx, ownRows(user), func(tx *storage.Tx) error {
		head = tx.User(user)
		k := storage.DeviceKey{User: user, ID: s.id.device}
		if _, ok := tx.Device(k); !ok {
			return nil
		}
		tx.DelDevice(k)
		head.TokenGen++
		tx.PutUser(head)
		return nil
	})
	if err != nil {
		return err
	}
	// The asking session itself ends after its answer.
	c.settleDevices(user, head.TokenGen, func([16]byte) bool { return true })
	return nil
}

// listDevices answers with the account's devices, oldest first.
func (c *Chat) listDevices(s *session, f *proto.Frame) bool {
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		var devices []storage.Device
		err := c.store.View(ctx, s.id.user.Slot(), func(sn storage.Snap) (err error) {
			devices, err = sn.Devices(s.id.user)
			return err
		})
		if err != nil {
			return nil, err
		}
		routes, err := c.online(ctx, s.id.user)
		if err != nil {
			// Who is online is worth less than the list.
			c.often.Warn().Err(err).Msg("directory lookup failed; devices are listed as offline")
		}
		return &proto.Frame{Body: &proto.Frame_Devices{Devices: deviceList(devices, routes, s.id.device)}}, nil
	})
}

func deviceList(devices []storage.Device, routes []router.Route, asking [16]byte) *proto.Devices {
	slices.SortFunc(devices, func(a, b storage.Device) int {
		return cmp.Or(cmp.Compare(a.Created, b.Created), slices.Compare(a.Key.ID[:], b.Key.ID[:]))
	})
	list := new(proto.Devices)
	for i := range devices {
		d := &devices[i]
		list.Devices = append(list.Devices, &proto.Device{
			Info:       deviceInfo(d),
			CreatedUs:  d.Created,
			LastSeenUs: d.LastSeen,
			Current:    d.Key.ID == asking,
			Online: d.Key.ID == asking || slices.ContainsFunc(routes, func(r router.Route) bool {
				return r.Slot == d.Slot && r.LoginEpoch == d.LoginEpoch
			}),
		})
	}
	return list
}

// revokeDevice ends the login of another device of the same user.
func (c *Chat) revokeDevice(s *session, f *proto.Frame) bool {
	id := f.GetRevokeDevice().DeviceId
	if len(id) != deviceIDLen {
		s.conn.Fail(f.Id, invalid("device_id must be %d bytes", deviceIDLen))
		return false
	}
	key := storage.DeviceKey{User: s.id.user, ID: [deviceIDLen]byte(id)}
	if key.ID == s.id.device {
		s.conn.Fail(f.Id, invalid("this is the asking device: use logout"))
		return false
	}
	return c.read(s, f.Id, s.id.user.Slot(), func(ctx context.Context) (*proto.Frame, error) {
		var head storage.UserHead
		err := c.notifying(ctx, key.User, func(tx *storage.Tx, tell notifier) (err error) {
			d, ok := tx.Device(key)
			if !ok {
				return proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_FOUND, "no such device")
			}
			head, err = revokeTx(tx, &d, tell, proto.SecurityKind_SECURITY_KIND_DEVICE_REVOKED)
			return err
		})
		if err != nil {
			return nil, err
		}
		c.settleDevices(key.User, head.TokenGen, func(id [16]byte) bool { return id != key.ID })
		return okFrame(), nil
	})
}
