package main

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// requestTime bounds what a person waits for an answer.
const requestTime = 15 * time.Second

// historyPage is how many messages are loaded at a time.
const historyPage = 50

// remote joins the screen to the client: the client's callbacks become
// messages of the program, in order; the screen's wishes become requests.
type remote struct {
	c    *client.Client
	post func(tea.Msg) // to the program; safe from any goroutine

	mu     sync.Mutex
	primed bool // the conversations have been listed once
}

// options wires the callbacks into o.
func (r *remote) options(o client.Options) client.Options {
	o.OnEvents = r.events
	o.OnReset = func(ctx context.Context, c *client.Client, _ *proto.Reset) error { return r.rebuild(ctx, c) }
	o.OnCaughtUp = r.caughtUp
	o.OnHint = r.hint
	o.OnState = r.state
	return o
}

func (r *remote) state(c *client.Client, s client.State) {
	switch s.Phase {
	case client.Online:
		r.post(onlineMsg{user: c.UserID()})
	case client.Waiting:
		r.post(offlineMsg{why: reason(s.Err), until: s.RetryAt})
	case client.Closed:
		r.post(endedMsg{reason(s.Err)})
	}
}

// rebuild lists the conversations: this terminal keeps no messages on disk, so
// it starts from the server's list each time.
func (r *remote) rebuild(ctx context.Context, c *client.Client) error {
	convs, err := c.AllConversations(ctx)
	if err != nil {
		return err
	}
	r.mu.Lock()
	r.primed = true
	r.mu.Unlock()
	for _, cv := range convs {
		if cv.HeadConvSeq == 0 {
			continue // an own log of marks, nothing to show
		}
		r.post(talkMsg{
			key: string(cv.Conversation), peer: cv.PeerId, head: cv.HeadConvSeq, read: cv.ReadConvSeq,
			peerHas: cv.PeerDeliveredConvSeq, newest: micros(cv.GetLast().GetTimeUs()),
		})
	}
	return nil
}

// caughtUp lists the conversations where no reset did: after a resume.
func (r *remote) caughtUp(c *client.Client) {
	ctx, cancel := context.WithTimeout(context.Background(), requestTime)
	defer cancel()
	r.mu.Lock()
	primed := r.primed
	r.mu.Unlock()
	if primed {
		r.marks(ctx, c)
		return
	}
	if err := r.rebuild(ctx, c); err != nil {
		r.post(noteMsg("conversations: " + reason(err)))
	}
}

// marks pulls the delivered marks that came while the line was down: hints are
// not kept.
func (r *remote) marks(ctx context.Context, c *client.Client) {
	convs, err := c.AllConversations(ctx)
	if err != nil {
		return // the hints of the next messages bring them
	}
	for _, cv := range convs {
		r.post(deliveredMsg{string(cv.Conversation), cv.PeerDeliveredConvSeq})
		r.post(readMsg{string(cv.Conversation), cv.ReadConvSeq})
	}
}

func (r *remote) events(c *client.Client, events []*proto.Event) {
	for _, e := range events {
		switch b := e.Body.(type) {
		case *proto.Event_Message:
			r.post(lineMsg{key: string(e.Conversation), peer: peerOf(e, b.Message, c.UserID()), line: lineOf(e, b.Message, c.UserID())})
		case *proto.Event_Read:
			r.post(readMsg{string(b.Read.GetConversation()), b.Read.GetConvSeq()})
		case *proto.Event_Security:
			r.post(noteMsg(security(b.Security)))
		}
	}
}

func (r *remote) hint(c *client.Client, h *proto.Hint) {
	switch b := h.Body.(type) {
	case *proto.Hint_Typing:
		if b.Typing.GetUserId() != c.UserID() {
			r.post(typingMsg{string(b.Typing.GetConversation()), b.Typing.GetOn()})
		}
	case *proto.Hint_Delivered:
		if b.Delivered.GetUserId() != c.UserID() {
			r.post(deliveredMsg{string(b.Delivered.GetConversation()), b.Delivered.GetConvSeq()})
		}
	}
}

// peerOf is the other side of a message, seen from me.
func peerOf(e *proto.Event, m *proto.Message, me int64) int64 {
	if e.GetActorId() == me {
		return m.GetToUserId()
	}
	return e.GetActorId()
}

func lineOf(e *proto.Event, m *proto.Message, me int64) line {
	l := line{rev: e.GetRev(), convSeq: e.GetConvSeq(), from: e.GetActorId(), at: micros(e.GetTimeUs()), text: textOf(m.GetContent())}
	copy(l.sendID[:], m.GetSendId())
	if l.from == me {
		l.status = sent
	}
	return l
}

// textOf shows any content in a line.
func textOf(c *proto.Content) string {
	if c == nil {
		return ""
	}
	if c.Kind == proto.ContentKind_CONTENT_KIND_TEXT {
		var t proto.TextContent
		if err := gproto.Unmarshal(c.Body, &t); err != nil {
			return "[damaged text]"
		}
		return t.Text
	}
	kind := strings.ToLower(strings.TrimPrefix(c.Kind.String(), "CONTENT_KIND_"))
	return fmt.Sprintf("[%s, %d bytes: this terminal shows text only]", kind, len(c.Body))
}

func security(n *proto.SecurityNotice) string {
	device := strings.TrimSpace(n.GetDevice().GetPlatform() + " " + n.GetDevice().GetModel())
	switch n.GetKind() {
	case proto.SecurityKind_SECURITY_KIND_NEW_DEVICE:
		return "a new device logged in: " + device
	case proto.SecurityKind_SECURITY_KIND_DEVICE_REVOKED:
		return "a device was revoked: " + device
	case proto.SecurityKind_SECURITY_KIND_PASSWORD_CHANGED:
		return "the password was changed"
	case proto.SecurityKind_SECURITY_KIND_SECRET_REUSED:
		return "a device's secret was copied, it was revoked: " + device
	}
	return "the account's security changed"
}

func micros(us int64) time.Time {
	if us == 0 {
		return time.Time{}
	}
	return time.UnixMicro(us)
}

// reason is an error in words for a person.
func reason(err error) string {
	switch {
	case err == nil:
		return ""
	case errors.Is(err, client.ErrKicked):
		return "another device of this kind logged in; log in by password to take the place back (--login)"
	case errors.Is(err, client.ErrReplaced):
		return "this account is open in another terminal"
	case errors.Is(err, client.ErrRevoked):
		return "this device was logged out; log in by password (--login)"
	case errors.Is(err, client.ErrUnauthenticated):
		return "wrong name or password"
	case errors.Is(err, client.ErrNameTaken):
		return "this name is taken"
	case errors.Is(err, client.ErrNotAllowed):
		return "they do not accept messages from you"
	case errors.Is(err, client.ErrNotFound):
		return "nobody has this name"
	case errors.Is(err, client.ErrDisconnected):
		return "no connection"
	}
	var e *client.Error
	if errors.As(err, &e) && e.Message != "" {
		return e.Message
	}
	return err.Error()
}

func (t target) client() client.Target { return client.User(t.peer) }

func (r *remote) send(t target, words string) (id [16]byte) {
	sid, err := r.c.NewSendID()
	if err == nil {
		var body []byte
		if body, err = gproto.Marshal(&proto.TextContent{Text: words}); err == nil {
			content := &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_TEXT, Body: body}
			err = r.c.SendAsync(sid, t.client(), content, func(a client.Ack, err error) {
				// From a goroutine: the program may be busy, and this is the
				// connection's reader.
				go r.acked(t, sid, words, a, err)
			})
		}
	}
	if err != nil {
		go r.post(failMsg{t.peer, sid, reason(err)})
	}
	return sid
}

func (r *remote) acked(t target, id client.SendID, words string, a client.Ack, err error) {
	if err != nil {
		r.post(failMsg{t.peer, id, reason(err)})
		return
	}
	r.post(ackMsg{peer: t.peer, key: string(a.Conversation), line: line{
		sendID: id, rev: a.Rev, convSeq: a.ConvSeq, from: r.c.UserID(), at: a.Time, text: words, status: sent,
	}})
}

// ask runs f in the background, within requestTime.
func ask(f func(ctx context.Context) tea.Msg) tea.Cmd {
	return func() tea.Msg {
		ctx, cancel := context.WithTimeout(context.Background(), requestTime)
		defer cancel()
		return f(ctx)
	}
}

// note tells of an error, and nothing otherwise.
func note(err error) tea.Msg {
	if err == nil {
		return nil
	}
	return noteMsg(reason(err))
}

func (r *remote) older(key string, before uint64) tea.Cmd {
	return ask(func(ctx context.Context) tea.Msg {
		to := uint64(0)
		if before > 0 {
			to = before - 1
		}
		if before == 1 {
			return historyMsg{key: key}
		}
		h, err := r.c.History(ctx, []byte(key), client.Range{From: 1, To: to, Limit: historyPage, NewestFirst: true})
		if err != nil {
			return historyMsg{key: key, err: errors.New(reason(err))}
		}
		m := historyMsg{key: key, more: h.GetMore()}
		for _, e := range h.GetEntries() {
			m.oldest = e.GetRev()
			if msg := e.GetMessage(); msg != nil {
				m.lines = append(m.lines, lineOf(e, msg, r.c.UserID()))
			}
		}
		return m
	})
}

func (r *remote) find(name string) tea.Cmd {
	return ask(func(ctx context.Context) tea.Msg {
		p, err := r.c.LookupUser(ctx, name)
		if err != nil {
			return foundMsg{err: errors.New(reason(err))}
		}
		return foundMsg{user: p.GetUserId(), name: shown(p)}
	})
}

func (r *remote) name(user int64) tea.Cmd {
	return ask(func(ctx context.Context) tea.Msg {
		ps, err := r.c.Profiles(ctx, user)
		if err != nil || len(ps) == 0 {
			return nameMsg{user, "?"}
		}
		return nameMsg{user, shown(ps[0])}
	})
}

// shown is how a user is called on the screen: the account name is unique, a
// display name may pretend to be anybody.
func shown(p *proto.Profile) string {
	if d := p.GetDisplayName(); d != "" && d != p.GetName() {
		return d + " (" + p.GetName() + ")"
	}
	return p.GetName()
}

func (r *remote) read(key string, convSeq uint64) tea.Cmd {
	return ask(func(ctx context.Context) tea.Msg { return note(r.c.MarkRead(ctx, []byte(key), convSeq)) })
}

func (r *remote) typing(t target, on bool) { r.c.Typing(t.client(), on) }

func (r *remote) block(user int64, on bool) tea.Cmd {
	return ask(func(ctx context.Context) tea.Msg {
		err, done := error(nil), "blocked: you hear no more from this user"
		if on {
			err = r.c.Block(ctx, user)
		} else {
			err, done = r.c.Unblock(ctx, user), "unblocked"
		}
		if err != nil {
			return note(err)
		}
		return noteMsg(done)
	})
}

func (r *remote) devices() tea.Cmd {
	return ask(func(ctx context.Context) tea.Msg {
		ds, err := r.c.ListDevices(ctx)
		if err != nil {
			return note(err)
		}
		var words []string
		for _, d := range ds {
			w := strings.TrimSpace(d.GetInfo().GetPlatform() + " " + d.GetInfo().GetModel())
			switch {
			case d.GetCurrent():
				w += " (this)"
			case d.GetOnline():
				w += " (online)"
			default:
				w += " (seen " + micros(d.GetLastSeenUs()).Format("2 Jan 15:04") + ")"
			}
			words = append(words, w)
		}
		return noteMsg(strings.Join(words, " · "))
	})
}
