package attack

import (
	"fmt"
	"time"

	"github.com/hermod-im/hermod/proto"
)

const password = "correct horse battery"

// hello is the device's first frame, with the credentials that set fills in.
func (w *wire) hello(set func(*proto.Hello)) *proto.Frame {
	h := &proto.Hello{
		MinVersion: 1, MaxVersion: 1, NextSecret: w.dev.secret, Cursor: w.dev.cursor,
		State:  proto.AppState_APP_STATE_FOREGROUND,
		Device: &proto.DeviceInfo{Id: w.dev.id, Slot: w.dev.slot, Platform: "attack"},
	}
	set(h)
	w.id++
	return &proto.Frame{Id: w.id, Body: &proto.Frame_Hello{Hello: h}}
}

func registering(name string) func(*proto.Hello) {
	return func(h *proto.Hello) {
		h.Credentials = &proto.Hello_Register{Register: &proto.Register{Name: name, Password: password}}
	}
}

func loggingIn(name, password string) func(*proto.Hello) {
	return func(h *proto.Hello) {
		h.Credentials = &proto.Hello_Login{Login: &proto.PasswordLogin{Name: name, Password: password}}
	}
}

func byToken(token string) func(*proto.Hello) {
	return func(h *proto.Hello) {
		h.NextSecret = nil
		h.Credentials = &proto.Hello_AccessToken{AccessToken: token}
	}
}

func bySecret(user int64, current, next []byte) func(*proto.Hello) {
	return func(h *proto.Hello) {
		h.NextSecret = next
		h.Credentials = &proto.Hello_DeviceSecret{DeviceSecret: &proto.DeviceSecret{UserId: user, Current: current}}
	}
}

// enter says hello and returns the answer: a Welcome or an Error.
func (w *wire) enter(set func(*proto.Hello)) *proto.Frame {
	f := w.hello(set)
	if _, err := w.Write(w.s.framed(f)); err != nil {
		return w.answer(f.Id)
	}
	f = w.answer(f.Id)
	if wel := f.GetWelcome(); wel != nil {
		w.dev.user, w.name = wel.UserId, wel.Name
		if wel.AccessToken != "" {
			w.token = wel.AccessToken
		}
		if w.dev.cursor == nil {
			w.dev.cursor = wel.Head
		}
	}
	return f
}

// in wants to be welcome.
func (w *wire) in(set func(*proto.Hello)) *wire {
	if f := w.enter(set); f.GetWelcome() == nil {
		w.s.fail("not let in: %v", f.GetError())
	}
	return w
}

// out wants to be turned away, with one of the codes.
func (w *wire) out(what string, set func(*proto.Hello), codes ...proto.ErrorCode) {
	f := w.enter(set)
	for _, code := range codes {
		if codeOf(f) == code {
			_ = w.Close()
			return
		}
	}
	w.s.breach("%s: the server answers %s", what, told(f))
}

// name is a new account's.
func (s *scene) name(kind string) string {
	return fmt.Sprintf("%s%d", kind, s.stage.names.Add(1))
}

// person registers an account and returns its phone.
func (s *scene) person() *wire { return s.dial().in(registering(s.name("person"))) }

// beside logs another device of the same person in.
func (w *wire) beside(slot proto.DeviceSlot) *wire {
	d := w.s.dial()
	d.dev.slot = slot
	return d.in(loggingIn(w.name, password))
}

// again is the same device on a new connection, before its Hello.
func (w *wire) again() *wire {
	d := w.s.dial()
	d.dev, d.name, d.token = w.dev, w.name, w.token
	return d
}

// thief is another device on a new connection.
func (w *wire) thief() *wire {
	d := w.s.dial()
	d.dev.slot = w.dev.slot
	return d
}

// message is a send request with a new id.
func message(to int64, text string) *proto.Frame {
	return custom(to, []byte(text))
}

func custom(to int64, body []byte) *proto.Frame {
	id := proto.NewSendID(time.Now())
	return &proto.Frame{Body: &proto.Frame_Send{Send: &proto.SendRequest{
		Target: &proto.SendRequest_ToUserId{ToUserId: to}, SendId: id[:],
		Content: &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: body},
	}}}
}

// says sends a message and wants the ack.
func (w *wire) says(to int64, text string) *proto.SendAck {
	f := w.ask(message(to, text))
	if f.GetSendAck() == nil {
		w.s.fail("a message was refused: %v", f)
	}
	return f.GetSendAck()
}

// lives wants the session to be served.
func (w *wire) lives(what string) {
	if f := w.ask(message(w.dev.user, "still here")); f.GetSendAck() == nil {
		w.s.breach("%s: the server answers %s", what, told(f))
	}
}

func ack(seq uint64) *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_DeliveryAck{DeliveryAck: &proto.DeliveryAck{Seq: seq}}}
}

func listBlocks() *proto.Frame {
	return &proto.Frame{Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{}}}
}
