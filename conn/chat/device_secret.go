package chat

import (
	"crypto/subtle"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// What a device secret says about the one who shows it. Only hashes are kept,
// of the current secret and of the one before.
//
// A client stores the next secret before it sends {current, next}, so whether
// or not the answer arrives, it owns what the server will ask for: it repeats
// the pair until it is welcomed. The secret before the current one can thus
// only come with the same next. With another one, two installations hold the
// same secret: it was copied, and nobody can tell which one is the owner's.
type secretVerdict uint8

const (
	secretWrong  secretVerdict = iota
	secretGood                 // current: move on to next
	secretRepeat               // the answer was lost; next is current already
	secretReused               // the one before, with another next
)

// judgeSecret compares in constant time, though hashes of 32 random bytes
// would tell little.
func judgeSecret(d *storage.Device, current, next [32]byte) secretVerdict {
	isCurrent := subtle.ConstantTimeCompare(d.SecretHash[:], current[:])
	isPrevious := subtle.ConstantTimeCompare(d.PrevHash[:], current[:])
	nextIsCurrent := subtle.ConstantTimeCompare(d.SecretHash[:], next[:])
	none := [32]byte{}
	switch {
	case isCurrent == 1 && d.SecretHash != none:
		return secretGood
	case isPrevious == 1 && d.PrevHash != none && nextIsCurrent == 1:
		return secretRepeat
	case isPrevious == 1 && d.PrevHash != none:
		return secretReused
	}
	return secretWrong
}

// standing is what a user's head and devices say about one device.
type standing struct {
	name  string
	head  storage.UserHead
	dev   storage.Device
	found bool // the device
}

func readStanding(sn storage.Snap, k storage.DeviceKey) (st standing, err error) {
	if st.head, err = sn.User(k.User); err != nil {
		return st, err
	}
	account, err := sn.Account(k.User)
	if err != nil {
		return st, err
	}
	st.name = account.Name
	devices, err := sn.Devices(k.User)
	for _, d := range devices {
		if d.Key == k {
			st.dev, st.found = d, true
		}
	}
	return st, err
}

// live checks that the device still has its slot: a newer login of another
// device takes it for good, until there is a login by password again.
func (st *standing) live() error {
	if st.dev.LoginEpoch < st.head.SlotEpochs[st.dev.Slot] {
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_KICKED, "")
	}
	return nil
}

// access checks a token against what holds now. REVOKED is said to the holder
// of a true token only, so it tells nobody else that the device existed.
func (st *standing) access(a access) error {
	switch {
	case !st.head.Found:
		return unauthenticated("")
	case !st.found:
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_REVOKED, "")
	case a.loginEpoch != st.dev.LoginEpoch:
		// Of an earlier login of this device: its secret knows more.
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED, "the device has logged in again since")
	}
	if err := st.live(); err != nil {
		return err
	}
	if a.tokenGen != st.head.TokenGen {
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED, "access tokens were revoked; use the device secret")
	}
	return nil
}
