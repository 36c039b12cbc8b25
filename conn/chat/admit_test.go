package chat

import (
	"context"
	"sync/atomic"
	"testing"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// slowShard lets one View wait.
type slowShard struct {
	storage.Shard
	slow    atomic.Bool // the next View waits
	waiting chan struct{}
	goOn    chan struct{}
}

func (s *slowShard) View(ctx context.Context, slots []storage.SlotRef, read func(storage.Snap) error) error {
	if s.slow.CompareAndSwap(true, false) {
		close(s.waiting)
		<-s.goOn
	}
	return s.Shard.View(ctx, slots, read)
}

func newSlowRig(t *testing.T) (*rig, *slowShard) {
	shard := &slowShard{waiting: make(chan struct{}), goOn: make(chan struct{})}
	return newRig(t, func(o *rigOptions) {
		shard.Shard = o.store.Shards[0]
		o.store.Shards[0] = shard
	}), shard
}

// A login that takes longer than its client waits must not replace the
// connection that the client has made since: REPLACED is for good.
func TestLoginOfAGoneClientReplacesNobody(t *testing.T) {
	r, shard := newSlowRig(t)
	a := r.register("alice")
	shard.slow.Store(true)
	gone := a.d.open(&proto.Hello{Cursor: a.d.head, Credentials: &proto.Hello_AccessToken{AccessToken: a.d.token}})
	<-shard.waiting
	gone.close()
	eventually(t, "the end of the first is known", func() bool { return r.closed.Load() == 1 })
	second := a.d.resume(a.d.head)
	second.caughtUp()
	if code := a.closed(); code != proto.ErrorCode_ERROR_CODE_REPLACED {
		t.Errorf("the registering connection was closed with %v", code)
	}
	close(shard.goOn)
	for range 20 {
		second.quiet("being replaced", func(f *proto.Frame) bool { return f.GetError() != nil })
	}
	second.send(textTo(second.d.user, "still here"))
	second.events(1)
}

// A login by password that is decided when nobody waits for it any more is no
// newer login: whoever has the slot keeps it.
func TestLoginOfAGoneClientKicksNobody(t *testing.T) {
	r, shard := newSlowRig(t)
	a := r.register("alice")
	shard.slow.Store(true)
	late := r.device("alice", proto.DeviceSlot_DEVICE_SLOT_PHONE)
	gone := late.open(&proto.Hello{Credentials: &proto.Hello_Login{Login: &proto.PasswordLogin{Name: "alice", Password: password}}})
	<-shard.waiting
	gone.close()
	eventually(t, "the end of the late one is known", func() bool { return r.closed.Load() == 1 })
	close(shard.goOn)
	for range 20 {
		a.quiet("being kicked", func(f *proto.Frame) bool { return f.GetError() != nil })
	}
	a.send(textTo(a.d.user, "still here"))
}

// Whatever admit has put into the table and the directory after Closed came is
// taken out again.
func TestClosedWhileAdmitted(t *testing.T) {
	r := newRig(t, nil)
	s := &session{conn: new(conn.Conn), id: member{user: storage.UserIDIn(1, 1)}, slot: 1}
	r.chat.drop(s) // Closed
	r.chat.table.add(s)
	if fault := r.chat.attach(t.Context(), s); fault != nil {
		t.Fatal(fault)
	}
	r.chat.drop(s) // admit finds the connection closed
	if found := r.chat.sessionsOf(s.id.user); len(found) > 0 {
		t.Error("the session is still in the table")
	}
	eventually(t, "the directory has forgotten it", func() bool {
		at, err := r.chat.router.Online(t.Context(), int64(s.id.user))
		return err == nil && len(at) == 0
	})
}
