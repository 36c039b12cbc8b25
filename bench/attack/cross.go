package attack

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
	"time"

	"google.golang.org/protobuf/encoding/prototext"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/hermod-im/hermod/proto"
)

// crime is who is in a script about other people's things: Ann and Ben talk,
// Eve knows every id and key of theirs and has an account of her own.
type crime struct {
	*scene
	ann, ben, eve *wire
	annDesk       *wire  // Ann's other device: it sees the same as she does
	conv          []byte // Ann's and Ben's
	evesConv      []byte // Eve's and Mallory's
	mallory       int64
}

// attackCrossUser has Eve try every request there is with what is Ann's. In the
// end, all that Ann and Ben have is as it was.
func attackCrossUser(s *scene) string {
	s.shared()
	c := &crime{scene: s, ann: s.person(), ben: s.person(), eve: s.person()}
	c.annDesk = c.ann.beside(proto.DeviceSlot_DEVICE_SLOT_DESKTOP)
	for i := range 3 {
		c.conv = c.ann.says(c.ben.dev.user, fmt.Sprint("between us ", i)).Conversation
	}
	c.ann.says(c.ann.dev.user, "to myself")
	c.mallory = s.person().dev.user
	c.evesConv = c.eve.says(c.mallory, "ours").Conversation
	blocks := &proto.Frame{Body: &proto.Frame_BlockUser{BlockUser: &proto.BlockUser{UserId: c.eve.dev.user}}}
	if f := c.ann.ask(blocks); f.GetOk() == nil {
		s.fail("block: %s", told(f))
	}
	ann, ben := c.state(c.ann), c.state(c.ben)

	tried := 0
	for i := range bodies().Len() {
		tried += c.try(bodies().Get(i))
	}
	for who, is := range map[string][2]string{"Ann": {ann, c.state(c.ann)}, "Ben": {ben, c.state(c.ben)}} {
		if is[0] != is[1] {
			s.breach("Eve has changed what %s has, from\n%s\nto\n%s", who, is[0], is[1])
		}
	}
	c.annDesk.lives("Ann's other device")
	return fmt.Sprintf("%d attempts with all %d kinds of frames; what Ann and Ben have is as it was", tried, bodies().Len())
}

// try attacks with one kind of frame and returns how many attempts it made.
func (c *crime) try(fd protoreflect.FieldDescriptor) int {
	name := string(fd.Name())
	if slices.Contains(serverOnly, name) {
		// An answer or an event, put by a client: nobody else may see it.
		f := new(proto.Frame)
		f.ProtoReflect().Mutable(fd)
		if ev := f.GetEvents(); ev != nil {
			ev.Events = []*proto.Event{{Seq: 1 << 40, Conversation: c.conv, Rev: 99, ActorId: c.ann.dev.user}}
		}
		if got := c.eve.ask(f); codeOf(got) != proto.ErrorCode_ERROR_CODE_UNKNOWN_REQUEST {
			c.breach("%s from a client: %s", name, told(got))
		}
		return 1
	}
	attempts, known := tries[name]
	if !known {
		c.fail("there is no attack with the request %s: add one to cross_try.go", name)
	}
	before := c.eve.id
	for _, a := range attempts {
		a.run(c, name+", "+a.what)
	}
	return max(len(attempts), int(c.eve.id-before))
}

// keys are what Eve puts where a conversation goes: Ann's and Ben's, the same
// with the home on the other side, Ann's own log, and what she makes up.
func (c *crime) keys() map[string][]byte {
	pair := func(a, b int64) []byte {
		return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, uint64(a)), uint64(b))
	}
	return map[string][]byte{
		"Ann's and Ben's":           c.conv,
		"the same turned round":     append(bytes.Clone(c.conv[8:]), c.conv[:8]...),
		"Ann's own log":             pair(c.ann.dev.user, c.ann.dev.user),
		"a group of Ann's number":   pair(c.ann.dev.user, 0),
		"Ann's and nobody's":        pair(c.ann.dev.user, 1<<62),
		"one with the sign bit set": pair(-c.ann.dev.user, c.ben.dev.user),
	}
}

// refused wants one of the answers that tell nothing.
func (c *crime) refused(what string, f *proto.Frame) {
	switch codeOf(f) {
	case proto.ErrorCode_ERROR_CODE_NOT_ALLOWED, proto.ErrorCode_ERROR_CODE_NOT_FOUND, invalid:
	default:
		c.breach("%s: %s", what, told(f))
	}
}

// state is everything that a person can read of their own, as text.
func (c *crime) state(w *wire) string {
	var b strings.Builder
	add := func(f *proto.Frame) *proto.Frame {
		got := w.ask(f)
		if got.GetError() != nil {
			c.fail("reading what is there: %v", got)
		}
		for _, d := range got.GetDevices().GetDevices() {
			d.LastSeenUs = 0
		}
		got.Id = 0
		b.WriteString(prototext.MarshalOptions{}.Format(got))
		b.WriteByte('\n')
		return got
	}
	me := w.dev.user
	list := add(&proto.Frame{Body: &proto.Frame_ListConversations{ListConversations: &proto.ListConversations{}}}).GetConversations()
	for _, conv := range list.GetConversations() {
		add(&proto.Frame{Body: &proto.Frame_GetHistory{GetHistory: &proto.GetHistory{Conversation: conv.Conversation}}})
		add(&proto.Frame{Body: &proto.Frame_GetMarks{GetMarks: &proto.GetMarks{Conversations: [][]byte{conv.Conversation}}}})
	}
	add(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: &proto.Cursor{Epoch: w.dev.cursor.GetEpoch()}}}})
	add(&proto.Frame{Body: &proto.Frame_ListDevices{ListDevices: &proto.ListDevices{}}})
	add(listBlocks())
	add(&proto.Frame{Body: &proto.Frame_GetProfiles{GetProfiles: &proto.GetProfiles{UserIds: []int64{me}}}})
	// prototext puts one or two spaces at random, so that nobody compares it.
	return strings.ReplaceAll(b.String(), "  ", " ")
}

// silence wants nothing to arrive at Ann's or Ben's.
func (c *crime) silence(what string) {
	for who, w := range map[string]*wire{"Ann": c.annDesk, "Ben": c.ben} {
		for _, f := range w.quiet(150 * time.Millisecond) {
			if f.GetHint() != nil && f.GetHint().GetTyping() == nil || f.GetCaughtUp() != nil {
				continue // delivered marks of what they said to each other
			}
			for _, e := range f.GetEvents().GetEvents() {
				if e.ActorId != c.eve.dev.user {
					f = nil
				}
			}
			if f != nil {
				c.breach("%s: %s gets %s", what, who, told(f))
			}
		}
	}
}
