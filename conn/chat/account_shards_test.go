package chat

import (
	"fmt"
	"sync/atomic"
	"testing"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// moreShards gives a rig n shards beside its own.
func moreShards(t *testing.T, n int) (mems []*storagetest.Mem, change func(*rigOptions)) {
	for i := range n {
		m := storagetest.NewMem(storage.ShardID(i+2), storagetest.MemOptions{})
		t.Cleanup(func() { // after the rig's
			if err := m.Close(); err != nil {
				t.Error(err)
			}
		})
		mems = append(mems, m)
	}
	return mems, func(o *rigOptions) {
		for _, m := range mems {
			o.store.Shards = append(o.store.Shards, m)
		}
	}
}

// TestAccountsOnSeveralShards: a name decides the shard, and what joins two
// users works across them.
func TestAccountsOnSeveralShards(t *testing.T) {
	const users, shards = 12, 3
	_, more := moreShards(t, shards-1)
	r := newRig(t, more)
	var ids []int64
	var apps []*app
	var peers []*peer
	seen := map[int]bool{}
	for i := range users {
		a := r.app(fmt.Sprintf("user-%d", i), phone)
		peers = append(peers, a.in(a.registers()))
		apps, ids = append(apps, a), append(ids, a.user)
		seen[shardOf(storage.UserID(a.user).Slot(), shards)] = true
	}
	if len(seen) != shards {
		t.Fatalf("the users live on %d of %d parts: choose other names", len(seen), shards)
	}
	got := peers[0].profiles(profilesOf(ids...))
	if len(got) != users {
		t.Fatalf("%d profiles of %d", len(got), users)
	}
	for i, p := range got {
		if p.UserId != ids[i] || p.Name != apps[i].name {
			t.Errorf("profile %d is %v", i, p)
		}
	}
	for i, p := range peers {
		other := apps[(i+1)%users]
		if found := p.profiles(lookup(other.name)); found[0].UserId != other.user {
			t.Errorf("lookup of %s: %v", other.name, found)
		}
		p.ok(block(other.user))
		if b := p.blocked(0, 0); len(b.UserIds) != 1 || b.UserIds[0] != other.user {
			t.Errorf("blocks %v", b)
		}
		apps[i].in(apps[i].showsToken())
		apps[i].in(apps[i].showsSecret())
		apps[i].in(apps[i].logsIn())
	}
}

// on returns an app whose name lives on the shard-th third of the slots.
func (r *rig) on(shard, shards int) *app {
	for i := 0; ; i++ {
		name := fmt.Sprintf("user-%d", i)
		if shardOf(r.store.NameSlot(name), shards) == shard {
			return r.app(name, phone)
		}
	}
}

// TestHangingShardStopsItsOwnLoginsOnly: neither the readers nor the password
// pool of the node are used up by a shard that does not answer.
func TestHangingShardStopsItsOwnLoginsOnly(t *testing.T) {
	mems, more := moreShards(t, 1)
	r := newRig(t, more)
	well, ill := r.on(0, 2), r.on(1, 2)
	well.in(well.registers())
	ill.in(ill.registers())
	release := mems[0].Hold()
	var waiting []*peer
	start := func(h *proto.Hello) {
		h.MinVersion, h.MaxVersion = 1, 1
		h.Device = &proto.DeviceInfo{Id: ill.id, Slot: phone}
		p := ill.dial()
		p.write(&proto.Frame{Id: 1, Body: &proto.Frame_Hello{Hello: h}})
		waiting = append(waiting, p)
	}
	start(ill.logsIn())
	ill.next = nil
	for range 40 { // more than the shard has readers
		start(ill.showsSecret())
	}
	well.in(well.logsIn())
	well.in(well.showsSecret())
	release()
	for _, p := range waiting {
		if f := p.next("answer"); f.GetWelcome() == nil && f.GetError() == nil {
			t.Errorf("answered with %v", f)
		}
	}
}

// TestTroubleIsNoWrongPassword: a guess that nobody looked at is not counted.
func TestTroubleIsNoWrongPassword(t *testing.T) {
	mems, more := moreShards(t, 1)
	r := newRig(t, more)
	a := r.on(1, 2)
	a.in(a.registers())
	mems[0].SetDown(storage.ErrUnavailable)
	for range 2 * freeGuesses {
		if e := a.out(a.logsIn(), proto.ErrorCode_ERROR_CODE_UNAVAILABLE); !e.Retryable {
			t.Fatalf("%v", e)
		}
	}
	mems[0].SetDown(nil)
	a.in(a.logsIn())
}

// TestUnknownOutcomes: whatever a commit's lost answer was, there is one
// account, one device, one notice, and the secret that the client has is good.
func TestUnknownOutcomes(t *testing.T) {
	for _, applied := range []bool{false, true} {
		t.Run(fmt.Sprintf("applied %v", applied), func(t *testing.T) {
			mems, more := moreShards(t, 1)
			r := newRig(t, more)
			a := r.on(1, 2)
			once := func() {
				var done atomic.Bool
				mems[0].SetFault(func(int, *storage.Writes) storagetest.Fault {
					if done.Swap(true) {
						return storagetest.Fault{}
					}
					return storagetest.Fault{Err: storage.ErrUnknown, Applied: applied}
				})
			}
			once()
			p := a.in(a.registers())
			if got := p.notices(); len(got) != 1 {
				t.Errorf("notices %v", got)
			}
			once()
			a.in(a.showsSecret())
			once()
			p = a.in(a.logsIn())
			if n := len(p.devices()); n != 1 {
				t.Errorf("%d devices", n)
			}
			once()
			f := p.call(changePassword(password, "staple battery horse"))
			if f.GetAccessToken() == nil {
				t.Fatalf("answered with %v", f)
			}
			a.token = f.GetAccessToken().Token
			a.in(a.showsToken())
			a.in(a.showsSecret())
		})
	}
}
