package chat

import (
	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// signIn is a login by password, applied to a user's head and devices.
type signIn struct {
	key  storage.DeviceKey
	slot uint8
	next [32]byte
	info []byte
	max  int // devices of one user
}

// signedIn is what a signIn changes.
type signedIn struct {
	head storage.UserHead
	dev  storage.Device
	// repeat: this same login was done before and its answer lost; nothing
	// changes.
	repeat bool
	// added: the device is new.
	added bool
}

// apply decides a login. next_secret is what tells a repetition from a login
// that a person has made anew: the former keeps its login epoch, so that it
// cannot take the slot back from whoever came between.
func (r signIn) apply(head storage.UserHead, devices []storage.Device, now int64) (signedIn, error) {
	out := signedIn{head: head, added: true}
	for _, d := range devices {
		if d.Key == r.key {
			out.dev, out.added = d, false
		}
	}
	switch {
	case out.added && len(devices) >= r.max:
		return out, proto.Errorf(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED,
			"the account has %d devices, the most allowed: log out or revoke one of them first", len(devices))
	case !out.added && out.dev.SecretHash == r.next && out.dev.Slot == r.slot:
		out.repeat = true
		st := standing{head: head, dev: out.dev, found: true}
		return out, st.live()
	case !out.added && (out.dev.SecretHash == r.next || out.dev.PrevHash == r.next):
		// A login that was on its way for long; the device has moved on.
		return out, invalid("next_secret was used before: make a new one for each login")
	}
	out.head.LoginEpoch++
	out.head.SlotEpochs[r.slot] = out.head.LoginEpoch
	if out.added {
		out.dev = storage.Device{Key: r.key, Created: now}
	}
	out.dev.Slot, out.dev.LoginEpoch = r.slot, out.head.LoginEpoch
	out.dev.SecretHash, out.dev.PrevHash = r.next, [32]byte{}
	out.dev.LastSeen, out.dev.Info = now, r.info
	return out, nil
}

func (c *Chat) signInOf(a *arrival, user storage.UserID) signIn {
	return signIn{
		key: storage.DeviceKey{User: user, ID: a.device}, slot: a.slot, next: a.next, info: a.infoBytes, max: c.auth.limits.Devices,
	}
}

// signInTx applies r to the rows of tx and tells the user's other devices of
// a new one. It returns the head after it.
func signInTx(tx *storage.Tx, r signIn) (signedIn, error) {
	user := r.key.User
	out, err := r.apply(tx.User(user), tx.Devices(user), tx.Now())
	if err != nil || out.repeat {
		return out, err
	}
	tx.PutUser(out.head)
	tx.PutDevice(out.dev)
	if out.added {
		err = notify(tx, user, proto.SecurityKind_SECURITY_KIND_NEW_DEVICE, deviceInfo(&out.dev))
	}
	out.head = tx.User(user)
	return out, err
}

// ownRows names what a change of somebody's account and devices touches.
func ownRows(user storage.UserID) storage.Reads {
	return storage.Reads{
		Convs:     []storage.ConvKey{storage.SelfKey(user)},
		Users:     []storage.UserID{user},
		Accounts:  []storage.UserID{user},
		DevicesOf: []storage.UserID{user},
	}
}

// notify appends a security notice to the user's own log.
func notify(tx *storage.Tx, user storage.UserID, kind proto.SecurityKind, device *proto.DeviceInfo) error {
	return appendOwn(tx, user, kindSecurity, &proto.SecurityNotice{Kind: kind, Device: device})
}

// appendOwn appends an entry to the user's own log: all the user's devices,
// the asking one too, learn of the change by it.
func appendOwn(tx *storage.Tx, user storage.UserID, kind uint16, m gproto.Message) error {
	body, err := entryBody(m)
	if err != nil {
		return err
	}
	_, err = tx.Append(storage.Append{Conv: storage.SelfKey(user), Sender: user, Kind: kind, Body: body})
	return err
}

// deviceInfo is what a device said about itself at its last login. A row that
// cannot be read leaves the id and the slot.
func deviceInfo(d *storage.Device) *proto.DeviceInfo {
	info := new(proto.DeviceInfo)
	if gproto.Unmarshal(d.Info, info) != nil {
		info = new(proto.DeviceInfo)
	}
	info.Id, info.Slot = d.Key.ID[:], proto.DeviceSlot(d.Slot)
	return info
}
