package chat

import (
	"testing"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

func TestSignIn(t *testing.T) {
	const now = 1000
	user := storage.UserIDIn(3, 4)
	key := func(n byte) storage.DeviceKey { return storage.DeviceKey{User: user, ID: [16]byte{n}} }
	head := storage.UserHead{User: user, Found: true, TokenGen: 2, LoginEpoch: 7, SlotEpochs: [7]uint64{1: 5, 3: 7}}
	phone := storage.Device{Key: key(1), Slot: 1, LoginEpoch: 5, SecretHash: secretHash(11), PrevHash: secretHash(10), Created: 1, LastSeen: 2, AckedSeq: 40}
	desktop := storage.Device{Key: key(3), Slot: 3, LoginEpoch: 7, SecretHash: secretHash(31)}
	both := []storage.Device{phone, desktop}
	login := func(device byte, slot uint8, next int) signIn {
		return signIn{key: key(device), slot: slot, next: secretHash(next), info: []byte("x"), max: 3}
	}
	kicked := head
	kicked.LoginEpoch, kicked.SlotEpochs[1] = 8, 8

	for _, tt := range []struct {
		what          string
		head          storage.UserHead
		devices       []storage.Device
		in            signIn
		code          proto.ErrorCode
		epoch         uint64 // of the device afterwards
		added, repeat bool
	}{
		{"first device", storage.UserHead{User: user}, nil, login(1, 1, 11), 0, 1, true, false},
		{"new device", head, both, login(9, 2, 90), 0, 8, true, false},
		{"new device takes a slot", head, both, login(9, 1, 90), 0, 8, true, false},
		{"known device again", head, both, login(1, 1, 12), 0, 8, false, false},
		{"known device in another slot", head, both, login(1, 2, 12), 0, 8, false, false},
		{"lost answer", head, both, login(1, 1, 11), 0, 5, false, true},
		{"lost answer, then the slot was taken", kicked, both, login(1, 1, 11), proto.ErrorCode_ERROR_CODE_KICKED, 0, false, true},
		{"kicked device by password", kicked, both, login(1, 1, 12), 0, 9, false, false},
		{"secret of before the last rotation", head, both, login(1, 1, 10), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT, 0, false, false},
		{"same secret, other slot", head, both, login(1, 2, 11), proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT, 0, false, false},
		{"one too many", head, append(both, storage.Device{Key: key(4)}), login(9, 1, 90), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED, 0, true, false},
		{"full, known device", head, append(both, storage.Device{Key: key(4)}), login(1, 1, 12), 0, 8, false, false},
	} {
		out, err := tt.in.apply(tt.head, tt.devices, now)
		if proto.CodeOf(err) != tt.code {
			t.Errorf("%s: %v, want %v", tt.what, err, tt.code)
			continue
		}
		if out.repeat != tt.repeat || out.added != tt.added {
			t.Errorf("%s: repeat %v, added %v", tt.what, out.repeat, out.added)
		}
		if err != nil {
			continue
		}
		if out.dev.LoginEpoch != tt.epoch {
			t.Errorf("%s: login epoch %d, want %d", tt.what, out.dev.LoginEpoch, tt.epoch)
		}
		if out.head.SlotEpochs[out.dev.Slot] != out.dev.LoginEpoch {
			t.Errorf("%s: slot epoch %d", tt.what, out.head.SlotEpochs[out.dev.Slot])
		}
		if out.dev.SecretHash != tt.in.next || out.head.TokenGen != tt.head.TokenGen {
			t.Errorf("%s: secret or token generation", tt.what)
		}
		if tt.repeat {
			if out.head != tt.head || out.dev.AckedSeq != 40 {
				t.Errorf("%s: something changed", tt.what)
			}
			continue
		}
		if out.head.LoginEpoch != tt.head.LoginEpoch+1 || out.dev.PrevHash != [32]byte{} || out.dev.LastSeen != now || out.dev.Slot != tt.in.slot {
			t.Errorf("%s: head %+v, device %+v", tt.what, out.head, out.dev)
		}
	}
}
