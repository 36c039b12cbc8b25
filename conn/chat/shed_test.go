package chat

import (
	"context"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/router"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/storagetest"
)

// Under load typing goes first, then receipts, and what people asked for last.
func TestShedding(t *testing.T) {
	const readers, queue = 1, 12
	f := newFleet(t, 1, 1, func(o *rigOptions) {
		o.store.Readers, o.store.ReaderQueue, o.store.QueueWait = readers, queue, time.Hour
		o.store.ReadTimeout = time.Hour
		o.chat.MarksEvery = 10 * time.Millisecond
	})
	r := f.nodes[0]
	a, b := f.talker(0), f.talker(0)
	slot := storage.UserID(a.user).Slot()
	typing := func(on bool) {
		a.write(&proto.Frame{Body: &proto.Frame_Typing{Typing: &proto.Typing{Target: &proto.Typing_ToUserId{ToUserId: b.user}, On: on}}})
	}
	isTyping := func(f *proto.Frame) bool { return f.GetHint().GetTyping() != nil }
	typing(true)
	b.take("typing", isTyping)
	conv := a.send(textTo(b.user, "x")).Conversation

	leave := make(chan struct{})
	fill := func(n int) {
		for range n {
			if err := r.store.Go(slot, func(context.Context) { <-leave }); err != nil {
				t.Fatal(err)
			}
		}
	}
	counter := func(name string) float64 { return counterOf(t, r.chat.metrics.hints[name]) }
	fill(readers + queue/4)
	shed := counter("shed")
	typing(false)
	eventually(t, "typing is shed", func() bool { return counter("shed") > shed })
	// Receipts are not yet.
	b.ack(b.gets("x").Seq)
	delivered := func(f *proto.Frame) bool { return f.GetHint().GetDelivered() != nil }
	a.take("delivered", delivered)

	fill(queue / 4)
	a.send(textTo(b.user, "y")) // messages go on
	b.ack(b.gets("y").Seq)
	eventually(t, "receipts are put off", func() bool { return counterOf(t, r.chat.metrics.markSpared) > 0 })
	for _, f := range a.early {
		if delivered(f) {
			t.Errorf("unexpected %v", f)
		}
	}
	fill(queue / 2)
	e := a.peer.refused(lookup(b.name), proto.ErrorCode_ERROR_CODE_OVERLOADED)
	if !e.Retryable || e.RetryAfterMs == 0 {
		t.Errorf("refused with %v", e)
	}
	close(leave)
	if hint := a.take("what was put off", delivered).GetHint().GetDelivered(); hint.ConvSeq != 2 {
		t.Errorf("hint %v", hint)
	}
	if m := a.marks(conv); m.PeerDeliveredConvSeq != 2 {
		t.Errorf("marks %v", m)
	}
}

// A full disk stops no revocation: it is done without the notice.
func TestRevocationOnAFullDisk(t *testing.T) {
	mem := storagetest.NewMem(1, storagetest.MemOptions{})
	r := newRig(t, func(o *rigOptions) { o.store.Shards = []storage.Shard{mem} })
	a := r.app("alice", phone)
	p := a.in(a.registers())
	stolen, lost := a.beside(r, desktop), a.beside(r, proto.DeviceSlot_DEVICE_SLOT_TABLET)
	victim := stolen.in(stolen.logsIn())
	lost.in(lost.logsIn())
	old := lost.secret
	lost.in(lost.showsSecret())
	notices := len(p.notices())
	mem.SetFault(func(_ int, w *storage.Writes) storagetest.Fault {
		if len(w.Entries)+len(w.Inbox)+len(w.Devices)+len(w.Accounts)+len(w.Sends) > 0 {
			return storagetest.Fault{Err: storage.ErrFull, Early: true}
		}
		return storagetest.Fault{}
	})
	if e := p.refused(sendFrame(textTo(a.user, "no room")), proto.ErrorCode_ERROR_CODE_OVERLOADED); e.RetryAfterMs == 0 {
		t.Errorf("refused with %v", e)
	}
	p.ok(revoke(stolen.id))
	if code := victim.closed(); code != proto.ErrorCode_ERROR_CODE_REVOKED {
		t.Errorf("closed with %v", code)
	}
	stolen.out(stolen.showsSecret(), proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	thief := *lost
	thief.secret, thief.next = old, random(32)
	thief.out(thief.showsSecret(), proto.ErrorCode_ERROR_CODE_REVOKED)
	if n := len(p.devices()); n != 1 {
		t.Errorf("%d devices are left", n)
	}
	mem.SetFault(nil)
	if n := len(p.notices()); n != notices {
		t.Errorf("%d notices, before the disk was full %d", n, notices)
	}
	req := textTo(a.user, "room again")
	req.ResumeOrder = true
	p.send(req)
}

// Delivered marks of one shard's users do not wait for another shard's.
func TestMarksBesideAnIllShard(t *testing.T) {
	f := newFleet(t, 1, 2, func(o *rigOptions) {
		// Never given up: what hangs, hangs.
		o.store.BreakAfter, o.store.StallTimeout, o.store.ReadTimeout = time.Hour, time.Hour, time.Hour
		o.chat.MarksEvery = time.Millisecond
	})
	well, well2 := f.talker(0), f.talker(0)
	var ill []talker
	for range markWorkers + 1 {
		ill = append(ill, f.talker(1))
	}
	for i := range ill {
		ill[i].send(textTo(ill[(i+1)%len(ill)].user, "x"))
	}
	var seqs []uint64
	for i := range ill {
		seqs = append(seqs, ill[i].events(2)[1].Seq)
	}
	f.shards[1].Hang()
	for i := range ill {
		ill[i].ack(seqs[i])
	}
	m := f.nodes[0].chat.marks
	eventually(t, "all workers of the shard wait for it", func() bool {
		m.mu.Lock()
		defer m.mu.Unlock()
		return m.open == len(ill)
	})
	for range 5 {
		ack := well.send(textTo(well2.user, "x"))
		well2.ack(well2.gets("x").Seq)
		hint := well.take("delivered", func(f *proto.Frame) bool { return f.GetHint().GetDelivered() != nil }).GetHint().GetDelivered()
		if hint.ConvSeq != ack.ConvSeq {
			t.Errorf("delivered up to %d of %d", hint.ConvSeq, ack.ConvSeq)
		}
	}
	if counterOf(t, f.nodes[0].chat.metrics.markFailures) > 0 {
		t.Error("that took until the ill shard's writes were given up")
	}
}

// A device that comes back by token is seen when it acknowledges.
func TestLastSeenFollowsAcks(t *testing.T) {
	clock := newFakeClock()
	r := newRig(t, func(o *rigOptions) {
		o.store.Shards = []storage.Shard{storagetest.NewMem(1, storagetest.MemOptions{Now: clock.Now})}
		atTime(clock)(o)
	})
	a, b := r.app("alice", phone), r.app("bob", phone)
	pa := a.in(a.registers())
	b.in(b.registers()).close()
	pb := b.in(b.showsToken())
	clock.Add(10 * time.Minute)
	seen := func() int64 {
		t.Helper()
		for _, d := range pb.devices() {
			if d.Current {
				return d.LastSeenUs
			}
		}
		t.Fatal("no device")
		return 0
	}
	now := clock.Now().UnixMicro()
	if seen() >= now {
		t.Error("seen without a word")
	}
	pa.send(textTo(b.user, "x"))
	pb.ack(pb.gets("x").Seq)
	eventually(t, "the device was seen", func() bool { return seen() >= now })
}

// Sessions that wait for readers of one shard are not held up by those that
// wait for another's.
func TestBacklogBesideAnIllShard(t *testing.T) {
	f := newFleet(t, 1, 2, func(o *rigOptions) {
		o.store.Readers, o.store.ReaderQueue = 1, 1
		o.store.BreakAfter, o.store.ReadTimeout, o.store.QueueWait = time.Hour, time.Hour, time.Hour
	})
	r := f.nodes[0]
	a, b := f.talker(0), f.talker(0)
	var ill []talker
	for range 10 {
		ill = append(ill, f.talker(1))
	}
	f.shards[1].Hang()
	for _, x := range ill { // each has a gap to read from storage
		r.chat.Push([]router.Delivery{{User: x.user, Seq: x.welcome.Head.Seq + 5, Event: []byte{}}})
	}
	leave := make(chan struct{})
	eventually(t, "the other shard's readers are taken", func() bool {
		return r.store.Go(storage.UserID(b.user).Slot(), func(context.Context) { <-leave }) != nil
	})
	r.dropping(func(storage.Delivery) bool { return true })
	a.send(textTo(b.user, "lost"))
	r.dropping(nil)
	a.send(textTo(b.user, "seen"))
	eventually(t, "a session of either shard waits", func() bool {
		r.chat.backlog.mu.Lock()
		defer r.chat.backlog.mu.Unlock()
		waiting := 0
		for _, l := range r.chat.backlog.lanes {
			if len(l.queue) > 0 {
				waiting++
			}
		}
		return waiting == 2
	})
	close(leave)
	b.gets("lost")
}
