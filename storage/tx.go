package storage

import (
	"fmt"
	"math/rand/v2"
	"runtime/debug"
	"slices"
)

// A Tx reads and changes the rows that an Update named. Reading a row that was
// not named makes the Update fail with ErrInvalid: it would not be locked.
// A Tx is dead when fn returns.
type Tx struct {
	w    *work
	op   *updateOp
	err  error
	once bool // what was done must not be done twice
}

// run calls fn, and keeps its panic from the other operations of the batch.
func (t *Tx) run(fn func(*Tx) error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			t.w.s.log.Error().Interface("panic", p).Bytes("stack", debug.Stack()).Msg("an update panicked")
			err = fmt.Errorf("storage: an update panicked: %v", p)
		}
	}()
	if err = fn(t); err == nil {
		err = t.err
	}
	return err
}

func (t *Tx) unnamed(what string, key any) {
	if t.err == nil {
		t.err = fmt.Errorf("%w: %s %v is not named in Reads", ErrInvalid, what, key)
	}
}

// find returns the position of a row that the update named.
func find[K comparable, V any](t *Tx, x *index[K, V], pos []int32, what string, k K) (int32, bool) {
	if i, ok := x.at[k]; ok && slices.Contains(pos, i) {
		return i, true
	}
	t.unnamed(what, k)
	return 0, false
}

// Now is the shard's clock, in µs.
func (t *Tx) Now() int64 { return t.w.now }

// Conv returns a conversation's head.
func (t *Tx) Conv(k ConvKey) ConvHead {
	if i, ok := find(t, &t.w.convs, t.op.pos.convs, "conversation", k); ok {
		return *t.w.convs.row(i)
	}
	return ConvHead{Conv: k}
}

// User returns a user's head.
func (t *Tx) User(u UserID) UserHead {
	if i, ok := find(t, &t.w.users, t.op.pos.users, "user", u); ok {
		return *t.w.users.row(i)
	}
	return UserHead{User: u}
}

// PutUser writes a user's head: TokenGen, LoginEpoch and SlotEpochs. Seq and
// Floor belong to the Store and stay what they are, so that an older copy can
// be put after an Append; so does InboxEpoch, which a new user gets here.
func (t *Tx) PutUser(h UserHead) {
	i, ok := find(t, &t.w.users, t.op.pos.users, "user", h.User)
	if !ok {
		return
	}
	r := t.w.users.touch(i)
	if !r.Found {
		r.Found, r.InboxEpoch = true, rand.Uint64()|1
	}
	r.TokenGen, r.LoginEpoch, r.SlotEpochs = h.TokenGen, h.LoginEpoch, h.SlotEpochs
}

// Send returns the dedupe row of a send, Found false if there is none.
func (t *Tx) Send(k SendKey) SendRow {
	if i, ok := find(t, &t.w.sends, t.op.pos.sends, "send", k); ok {
		return *t.w.sends.row(i)
	}
	return SendRow{Key: k}
}

// UserConv returns a user's view of a conversation.
func (t *Tx) UserConv(k UserConvKey) UserConv {
	if i, ok := find(t, &t.w.userConvs, t.op.pos.userConvs, "user_conv", k); ok {
		return *t.w.userConvs.row(i)
	}
	return UserConv{Key: k}
}

// PutUserConv writes Read, Cleared, Joined and Delivered. The other fields
// follow the inbox and belong to the Store.
func (t *Tx) PutUserConv(c UserConv) {
	if i, ok := find(t, &t.w.userConvs, t.op.pos.userConvs, "user_conv", c.Key); ok {
		r := t.w.userConvs.touch(i)
		r.Found = true
		r.Read, r.Cleared, r.Joined, r.Delivered = c.Read, c.Cleared, c.Joined, c.Delivered
	}
}

// Name returns whose name n is.
func (t *Tx) Name(n string) NameRow {
	if i, ok := find(t, &t.w.names, t.op.pos.names, "name", n); ok {
		return *t.w.names.row(i)
	}
	return NameRow{Name: n}
}

// PutName gives a name to a user. Names are for good: look with Name first.
func (t *Tx) PutName(r NameRow) {
	i, ok := find(t, &t.w.names, t.op.pos.names, "name", r.Name)
	if !ok {
		return
	}
	if t.w.names.row(i).Found {
		t.fail(fmt.Errorf("%w: name %q is taken", ErrInvalid, r.Name))
		return
	}
	r.Found = true
	*t.w.names.touch(i) = r
	t.once = true
}

// Account returns a user's account.
func (t *Tx) Account(u UserID) Account {
	if i, ok := find(t, &t.w.accounts, t.op.pos.accounts, "account", u); ok {
		return *t.w.accounts.row(i)
	}
	return Account{User: u}
}

// PutAccount writes a whole account.
func (t *Tx) PutAccount(a Account) {
	if i, ok := find(t, &t.w.accounts, t.op.pos.accounts, "account", a.User); ok {
		a.Found = true
		*t.w.accounts.touch(i) = a
	}
}

// Devices returns a user's devices.
func (t *Tx) Devices(u UserID) []Device {
	i, ok := find(t, &t.w.devices, t.op.pos.devices, "devices of", u)
	if !ok {
		return nil
	}
	rows := *t.w.devices.row(i)
	ds := make([]Device, 0, len(rows))
	for _, r := range rows {
		ds = append(ds, r.Device)
	}
	return ds
}

// Device returns one device, false if there is none.
func (t *Tx) Device(k DeviceKey) (Device, bool) {
	i, ok := find(t, &t.w.devices, t.op.pos.devices, "devices of", k.User)
	if !ok {
		return Device{}, false
	}
	for _, r := range *t.w.devices.row(i) {
		if r.Key == k {
			return r.Device, true
		}
	}
	return Device{}, false
}

// PutDevice writes a whole device.
func (t *Tx) PutDevice(d Device) {
	if i, ok := find(t, &t.w.devices, t.op.pos.devices, "devices of", d.Key.User); ok {
		r := t.w.devices.touch(i)
		*r = append(without(*r, d.Key), deviceRow{Device: d, dirty: true})
	}
}

// DelDevice deletes a device, if there is one.
func (t *Tx) DelDevice(k DeviceKey) {
	if i, ok := find(t, &t.w.devices, t.op.pos.devices, "devices of", k.User); ok {
		r := t.w.devices.touch(i)
		*r = without(*r, k)
	}
}

// without returns a copy, so that an undo finds the old list as it was.
func without(rows []deviceRow, k DeviceKey) []deviceRow {
	return slices.DeleteFunc(slices.Clone(rows), func(d deviceRow) bool { return d.Key == k })
}

// Block returns a block, Found false if there is none.
func (t *Tx) Block(k BlockKey) Block {
	if i, ok := find(t, &t.w.blocks, t.op.pos.blocks, "block", k); ok {
		return *t.w.blocks.row(i)
	}
	return Block{Key: k}
}

// PutBlock writes a block.
func (t *Tx) PutBlock(b Block) {
	if i, ok := find(t, &t.w.blocks, t.op.pos.blocks, "block", b.Key); ok {
		b.Found = true
		*t.w.blocks.touch(i) = b
	}
}

// DelBlock deletes a block, if there is one.
func (t *Tx) DelBlock(k BlockKey) {
	if i, ok := find(t, &t.w.blocks, t.op.pos.blocks, "block", k); ok {
		*t.w.blocks.touch(i) = Block{Key: k}
	}
}

// Append adds an entry to a conversation named in Reads.Convs, in the same
// transaction. It takes no SendID (the Update as a whole happens once) and no
// UnlessBlocked, and looks at the sides that live on this shard only: meant for
// one's own log.
func (t *Tx) Append(a Append) (Appended, error) {
	if err := a.check(); err != nil {
		return Appended{}, err
	}
	if a.SendID != [16]byte{} || a.UnlessBlocked != (BlockKey{}) {
		return Appended{}, fmt.Errorf("%w: Tx.Append takes no SendID and no UnlessBlocked", ErrInvalid)
	}
	n := slices.Index(t.op.reads.Convs, a.Conv)
	if n < 0 {
		t.unnamed("conversation", a.Conv)
		return Appended{}, t.err
	}
	r := &t.op.convs[n]
	if r.lost {
		return Appended{}, ErrBusy
	}
	if !t.w.usersExist(r) {
		return Appended{}, ErrNoUser
	}
	t.once = true
	return t.w.addEntry(r, &a), nil
}

func (t *Tx) fail(err error) {
	if t.err == nil {
		t.err = err
	}
}
