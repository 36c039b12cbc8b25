package chat

import (
	"errors"
	"fmt"
	"slices"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// Conversations across shards: who lives where is nobody's business.
func TestTalkAcrossShards(t *testing.T) {
	for name, nodes := range map[string]int{"one node": 1, "two nodes": 2} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, nodes, 3, func(o *rigOptions) {
				o.chat.AuditEvery, o.chat.MarksEvery = 50*time.Millisecond, time.Millisecond
			})
			var ts []talker
			for shard := range f.shards {
				for i, a := range f.apps(0, shard, 2) {
					ts = append(ts, f.talkers(a.at(f.nodes[i%nodes]))...)
				}
			}
			const each = 5
			for i := range each {
				for _, a := range ts {
					for _, b := range ts {
						if a.user != b.user {
							a.send(textTo(b.user, fmt.Sprintf("%d>%d:%d", a.user, b.user, i)))
						}
					}
				}
			}
			order := map[string][]string{} // by conversation
			for _, a := range ts {
				got := map[string][]string{}
				evs := a.events(2 * each * (len(ts) - 1))
				for _, ev := range evs {
					if ev.ActorId != a.user {
						got[string(ev.Conversation)] = append(got[string(ev.Conversation)], text(ev))
					}
				}
				if len(got) != len(ts)-1 {
					t.Errorf("%d conversations", len(got))
				}
				for conv, texts := range got {
					if len(texts) != each || !slices.IsSorted(texts) {
						t.Errorf("got %q", texts)
					}
					var log []string
					for _, ev := range a.history(&proto.GetHistory{Conversation: []byte(conv)}).Entries {
						log = append(log, text(ev))
					}
					if order[conv] == nil {
						order[conv] = log
					}
					if len(log) != 2*each || !slices.Equal(log, order[conv]) {
						t.Errorf("the log is %q for one and %q for the other", log, order[conv])
					}
				}
				for _, c := range a.list(&proto.ListConversations{Limit: maxConversations}).Conversations {
					if c.HeadConvSeq != 2*each || (c.Unread == 0) != (c.Last.ActorId == a.user) {
						t.Errorf("list has %v", c)
					}
				}
				a.ack(evs[len(evs)-1].Seq)
			}
			for _, a := range ts {
				for conv := range order {
					if storage.ConvKey([]byte(conv)).Has(storage.UserID(a.user)) {
						eventually(t, "delivered", func() bool { return a.marks([]byte(conv)).PeerDeliveredConvSeq > 0 })
						a.ok(read([]byte(conv), 2*each))
					}
				}
				for _, c := range a.list(&proto.ListConversations{Limit: maxConversations}).Conversations {
					if c.Unread != 0 {
						t.Errorf("unread is %d after reading all", c.Unread)
					}
				}
			}
			for _, a := range ts[1:] {
				ts[0].ok(block(a.user))
				// On another shard a block may be known up to BlockStale later.
				sameShard := shardOf(storage.UserID(a.user).Slot(), len(f.shards)) == 0
				if sameShard {
					a.peer.refused(sendFrame(textTo(ts[0].user, "x")), proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
				}
			}
		})
	}
}

// A directory that is down, or hangs, refuses no login and no message; when it
// is back, who came meanwhile is in it, and the older of two connections ends.
func TestDirectoryDown(t *testing.T) {
	for name, hang := range map[string]bool{"fails": false, "hangs": true} {
		t.Run(name, func(t *testing.T) {
			r := newRig(t, nil)
			c := r.app("carol", phone)
			early := c.in(c.registers())
			r.directory.set(errors.New("connection refused"), hang)
			a, b := r.app("alice", phone), r.app("bob", phone)
			pa, pb := a.in(a.registers()), b.in(b.registers())
			pa.send(textTo(b.user, "hello"))
			if ev := pb.events(1)[0]; text(ev) != "hello" {
				t.Errorf("got %v", ev)
			}
			if d := pa.devices(); len(d) != 1 || !d[0].Current {
				t.Errorf("devices %v", d)
			}
			newer := b.in(b.showsToken())
			early.close()
			r.directory.set(nil, false)
			if code := pb.closed(); code != proto.ErrorCode_ERROR_CODE_REPLACED {
				t.Errorf("the older connection was closed with %v", code)
			}
			for _, id := range []int64{a.user, b.user} {
				eventually(t, "they are in the directory", func() bool {
					at, err := r.chat.router.Online(t.Context(), id)
					return err == nil && len(at) == 1
				})
			}
			newer.send(textTo(a.user, "still here"))
		})
	}
}
