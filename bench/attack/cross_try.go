package attack

import (
	"bytes"
	"encoding/json"
	"strconv"

	"github.com/hermod-im/hermod/proto"
)

// attempt is one thing that Eve tries with a kind of request.
type attempt struct {
	what string
	run  func(c *crime, what string)
}

// serverOnly are the kinds of frames that no client may send.
var serverOnly = []string{
	"send_ack", "events", "error", "hint", "caught_up", "ok", "welcome", "go_away", "access_token",
	"devices", "profiles", "blocks", "sync_response", "conversations", "history", "marks",
}

// tries has every request of the protocol. One that is missing fails the run.
var tries = map[string][]attempt{
	"hello": {{"once more, as Ann", func(c *crime, what string) {
		w := c.person()
		w.dev.id = c.ann.dev.id
		f := w.hello(byToken(c.ann.token))
		_, _ = w.Write(c.framed(f))
		w.closedFor(proto.ErrorCode_ERROR_CODE_HELLO_REPEATED)
	}}},
	"send": {
		{"into conversations of others", func(c *crime, what string) {
			for which, key := range c.keys() {
				f := message(1, "from Ann, really")
				f.GetSend().Target = &proto.SendRequest_Conversation{Conversation: key}
				c.refused(what+": "+which, c.eve.ask(f))
			}
			c.silence(what)
		}},
		{"to Ann, who has blocked her", func(c *crime, what string) {
			if f := c.eve.ask(message(c.ann.dev.user, "let me in")); codeOf(f) != proto.ErrorCode_ERROR_CODE_NOT_ALLOWED {
				c.breach("%s: %s", what, told(f))
			}
		}},
		{"in somebody else's name", func(c *crime, what string) {
			// There is no field for a sender: unknown ones must not become one.
			x, y := c.person(), c.person()
			f := message(y.dev.user, "x")
			f.GetSend().ProtoReflect().SetUnknown([]byte{0x30, 1, 0x38, 1, 0xc0, 0x3e, 1})
			if got := x.ask(f); got.GetSendAck() == nil {
				c.fail("%s: %s", what, told(got))
			}
			for {
				got, err := y.next()
				c.must(err)
				if ev := got.GetEvents().GetEvents(); len(ev) > 0 {
					if ev[0].ActorId != x.dev.user {
						c.breach("%s: the actor is %d", what, ev[0].ActorId)
					}
					return
				}
			}
		}},
	},
	"delivery_ack": {{"for what was never sent", func(c *crime, what string) {
		c.eve.send(ack(1<<62), ack(0))
		c.eve.lives(what)
	}}},
	"typing": {{"in conversations of others", func(c *crime, what string) {
		for _, key := range c.keys() {
			c.eve.send(&proto.Frame{Body: &proto.Frame_Typing{Typing: &proto.Typing{Target: &proto.Typing_Conversation{Conversation: key}, On: true}}})
		}
		c.eve.send(&proto.Frame{Body: &proto.Frame_Typing{Typing: &proto.Typing{Target: &proto.Typing_ToUserId{ToUserId: c.ann.dev.user}, On: true}}})
		c.silence(what)
	}}},
	"set_state": {{"names nobody", own(&proto.Frame{Body: &proto.Frame_SetState{SetState: &proto.SetState{State: proto.AppState_APP_STATE_BACKGROUND}}})}},
	"list_devices": {{"only her own", func(c *crime, what string) {
		for _, d := range c.eve.ask(&proto.Frame{Body: &proto.Frame_ListDevices{ListDevices: &proto.ListDevices{}}}).GetDevices().GetDevices() {
			if !bytes.Equal(d.Info.GetId(), c.eve.dev.id) {
				c.breach("%s: %v", what, d)
			}
		}
	}}},
	"refresh_token": {{"is hers, on her device", func(c *crime, what string) {
		t := c.takeApart(c.eve.ask(&proto.Frame{Body: &proto.Frame_RefreshToken{RefreshToken: &proto.RefreshToken{}}}).GetAccessToken().GetToken())
		if t.claims["sub"] != strconv.FormatInt(c.eve.dev.user, 10) {
			text, _ := json.Marshal(t.claims)
			c.breach("%s: %s", what, text)
		}
	}}},
	"logout": {{"ends her device only", func(c *crime, what string) {
		w := c.person()
		if f := w.ask(&proto.Frame{Body: &proto.Frame_Logout{Logout: &proto.Logout{}}}); f.GetOk() == nil {
			c.fail("%s: %s", what, told(f))
		}
	}}},
	"revoke_device": {{"Ann's devices", func(c *crime, what string) {
		for _, d := range []*wire{c.ann, c.annDesk} {
			c.refused(what, c.eve.ask(revoking(d.dev.id)))
		}
	}}},
	"change_password": {{"with Ann's", func(c *crime, what string) {
		w := c.person()
		if f := w.ask(changePassword("not "+password, password+"?")); codeOf(f) != unauthenticated {
			c.breach("%s: %s", what, told(f))
		}
		if f := w.ask(changePassword(password, password+"?")); f.GetAccessToken() == nil {
			c.fail("%s: %s", what, told(f))
		}
		d := c.ann.thief() // hers is what it was
		d.dev.slot = proto.DeviceSlot_DEVICE_SLOT_BOT
		d.out(what, loggingIn(c.ann.name, password+"?"), unauthenticated)
	}}},
	"lookup_user": {{"gives the public profile", profiles(func(c *crime) *proto.Frame {
		return &proto.Frame{Body: &proto.Frame_LookupUser{LookupUser: &proto.LookupUser{Name: c.ann.name}}}
	})}},
	"get_profiles": {{"gives the public profile", profiles(func(c *crime) *proto.Frame {
		return &proto.Frame{Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: []int64{c.ann.dev.user}}}}
	})}},
	"update_profile": {{"is her own", own(&proto.Frame{Body: &proto.Frame_UpdateProfile{UpdateProfile: &proto.UpdateProfile{DisplayName: "Ann"}}})}},
	"block_user": {{"is her own list", func(c *crime, what string) {
		own(&proto.Frame{Body: &proto.Frame_BlockUser{BlockUser: &proto.BlockUser{UserId: c.ben.dev.user}}})(c, what)
	}}},
	"unblock_user": {{"takes back only what she has blocked", func(c *crime, what string) {
		for _, id := range []int64{c.eve.dev.user, c.ann.dev.user} {
			_ = c.eve.ask(&proto.Frame{Body: &proto.Frame_UnblockUser{UnblockUser: &proto.UnblockUser{UserId: id}}})
		}
		if f := c.eve.ask(message(c.ann.dev.user, "unblocked?")); codeOf(f) != proto.ErrorCode_ERROR_CODE_NOT_ALLOWED {
			c.breach("%s: a message to Ann: %s", what, told(f))
		}
	}}},
	"list_blocks": {{"only her own", func(c *crime, what string) {
		for _, after := range []int64{0, -1, c.ann.dev.user - 1} {
			f := c.eve.ask(&proto.Frame{Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{After: after}}})
			for _, id := range f.GetBlocks().GetUserIds() {
				if id != c.ben.dev.user {
					c.breach("%s: %d", what, id)
				}
			}
		}
	}}},
	"sync": {{"with Ann's cursors", func(c *crime, what string) {
		for _, cur := range []*proto.Cursor{c.ann.dev.cursor, {Epoch: c.ann.dev.cursor.GetEpoch()}, {Epoch: c.eve.dev.cursor.GetEpoch()}, nil} {
			c.onlyHers(what, c.eve.ask(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: cur}}}).GetSyncResponse().GetEvents())
		}
	}}},
	"list_conversations": {{"starting at Ann's", func(c *crime, what string) {
		for _, after := range append([][]byte{nil, make([]byte, 16)}, c.conv) {
			f := c.eve.ask(&proto.Frame{Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{After: after}}})
			for _, conv := range f.GetConversations().GetConversations() {
				if p := conv.PeerId; p != c.mallory && p != c.eve.dev.user {
					c.breach("%s: %v", what, conv)
				}
			}
		}
	}}},
	"get_history": {{"of others", func(c *crime, what string) {
		for which, key := range c.keys() {
			for _, newest := range []bool{false, true} {
				c.refused(what+": "+which, c.eve.ask(&proto.Frame{Body: &proto.Frame_GetHistory{GetHistory: &proto.GetHistory{Conversation: key, NewestFirst: newest}}}))
			}
		}
	}}},
	"get_marks": {{"of others, among her own", func(c *crime, what string) {
		for which, key := range c.keys() {
			for _, keys := range [][][]byte{{key}, {c.evesConv, key}} {
				f := c.eve.ask(&proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: keys}}})
				for _, m := range f.GetMarks_().GetMarks() {
					if !bytes.Equal(m.Conversation, c.evesConv) {
						c.breach("%s: %s: %v", what, which, m)
					}
				}
			}
		}
	}}},
	"mark_read": {{"for others", func(c *crime, what string) {
		for which, key := range c.keys() {
			c.refused(what+": "+which, c.eve.ask(&proto.Frame{Body: &proto.Frame_MarkRead{MarkRead: &proto.MarkRead{Conversation: key, ConvSeq: 2}}}))
		}
		c.silence(what)
	}}},
}

// own is a request that names nothing of anybody else's: it works, and Ann's
// state, compared in the end, shows that it is not hers.
func own(f *proto.Frame) func(*crime, string) {
	return func(c *crime, what string) {
		if got := c.eve.ask(f); got.GetError() != nil {
			c.fail("%s: %s", what, told(got))
		}
	}
}

// profiles wants what everybody may know of Ann, and no more.
func profiles(ask func(*crime) *proto.Frame) func(*crime, string) {
	return func(c *crime, what string) {
		list := c.eve.ask(ask(c)).GetProfiles_().GetProfiles()
		if len(list) != 1 || list[0].UserId != c.ann.dev.user || list[0].Name != c.ann.name || list[0].AvatarUrl != "" {
			c.breach("%s: %v", what, list)
		}
	}
}

// onlyHers wants events of Eve's own inbox.
func (c *crime) onlyHers(what string, events []*proto.Event) {
	for _, e := range events {
		if e.ActorId != c.eve.dev.user || bytes.Equal(e.Conversation, c.conv) {
			c.breach("%s: %v", what, e)
		}
	}
}
