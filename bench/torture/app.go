package torture

import (
	"context"
	"errors"
	"sync"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// app is one process of a device's app: it lives until it is closed or killed.
// What it applied is in the record at once, as in a database of its own, and
// the next process goes on from there.
type app struct {
	h   *History
	rec *record
	c   *client.Client

	mu   sync.Mutex
	dead bool // killed: nothing that it still does counts
}

// errDead is what a process gets for what it does after it was killed.
var errDead = errors.New("torture: this process was killed")

// flash is where a device keeps the session, for one process after the other.
type flash struct {
	mu sync.Mutex
	s  client.Session
}

// memory is the flash as one process sees it.
type memory struct {
	*flash
	app *app
}

// Load returns the session, with the place up to which events were applied: the
// app keeps that with the events themselves.
func (m memory) Load() (client.Session, error) {
	m.flash.mu.Lock()
	defer m.flash.mu.Unlock()
	s := m.s
	m.app.rec.mu.Lock()
	defer m.app.rec.mu.Unlock()
	if l := m.app.rec.current(); l != nil {
		s.Cursor, s.HasCursor = client.Cursor{Epoch: l.epoch, Seq: l.last()}, true
	}
	return s, nil
}

// Save keeps s, unless the process is dead.
func (m memory) Save(s client.Session) error {
	return m.app.alive(func() {
		m.flash.mu.Lock()
		defer m.flash.mu.Unlock()
		m.s = s
	})
}

// alive calls f, if the process lives, and keeps it from being killed meanwhile.
func (a *app) alive(f func()) error {
	a.mu.Lock()
	defer a.mu.Unlock()
	if a.dead {
		return errDead
	}
	f()
	return nil
}

// kill ends the process as kill -9 does.
func (a *app) kill() {
	a.mu.Lock()
	a.dead = true
	a.mu.Unlock()
	a.close()
}

// close ends it as its user does. What is unanswered stays in the outbox.
func (a *app) close() {
	_ = a.c.Close() // fails only if the flash is that of a dead process
	a.rec.lost(a.h.now(), true)
}

// onEvents applies events.
func (a *app) onEvents(_ *client.Client, events []*proto.Event) {
	_ = a.alive(func() {
		seen := a.h.look(events)
		a.rec.mu.Lock()
		defer a.rec.mu.Unlock()
		if l := a.rec.current(); l != nil {
			l.seen = append(l.seen, seen...)
		}
	})
}

// look finds out what events are.
func (h *History) look(events []*proto.Event) []sight {
	now := h.now()
	out := make([]sight, 0, len(events))
	h.mu.Lock()
	defer h.mu.Unlock()
	for _, e := range events {
		s := sight{seq: uint32(e.GetSeq()), rev: uint32(e.GetRev()), convSeq: uint32(e.GetConvSeq()), conv: h.conv(e.GetConversation()), at: now, kind: sawOther}
		if m := e.GetMessage(); m != nil {
			s.message, s.kind = h.recognize(m, e.GetActorId())
		}
		out = append(out, s)
	}
	return out
}

// recognize finds the message that an event shows. Own messages may come
// without their content. mu is held.
func (h *History) recognize(m *proto.Message, actor int64) (uint32, sightKind) {
	if len(m.GetSendId()) != 16 {
		return 0, sawMessage
	}
	n := h.byID[[16]byte(m.GetSendId())]
	if n == 0 || m.GetContent() == nil {
		return n, sawMessage
	}
	s, ok := readStamp(m.GetContent())
	if want := h.at(n); !ok || s.run != h.run || s.number != n || s.from != actor || s.from != h.people[want.from].id || s.to != h.people[want.to].id {
		return n, sawDamaged
	}
	return n, sawMessage
}

// rebuildEntries is how much of each conversation a rebuild reads, the newest.
const rebuildEntries = 200

// onReset rebuilds from the conversations, and begins a new life.
func (a *app) onReset(ctx context.Context, c *client.Client, r *proto.Reset) error {
	l := &life{at: a.h.now(), epoch: r.GetResume().GetEpoch(), base: r.GetResume().GetSeq()}
	convs, err := c.AllConversations(ctx)
	if err != nil {
		return err
	}
	for _, conv := range convs {
		b, err := a.h.rebuild(ctx, c, conv.GetConversation())
		if err != nil {
			return err
		}
		l.rebuilt = append(l.rebuilt, b)
	}
	l.ended = a.h.now()
	return a.alive(func() {
		a.rec.mu.Lock()
		defer a.rec.mu.Unlock()
		a.rec.lives = append(a.rec.lives, l)
	})
}

// rebuild reads the newest entries of a conversation.
func (h *History) rebuild(ctx context.Context, c *client.Client, conv []byte) (rebuilt, error) {
	var b rebuilt
	for r := (client.Range{NewestFirst: true}); ; {
		page, err := c.History(ctx, conv, r)
		if err != nil {
			return b, err
		}
		entries := page.GetEntries()
		for _, s := range h.look(entries) {
			if b.head == 0 {
				b.conv, b.head = s.conv, uint64(s.rev)
			}
			b.messages = append(b.messages, s.message)
			b.rev = uint64(s.rev)
		}
		if !page.GetMore() || len(b.messages) >= rebuildEntries || len(entries) == 0 || b.rev <= 1 {
			break
		}
		r.To = b.rev - 1
	}
	for i, j := 0, len(b.messages)-1; i < j; i, j = i+1, j-1 {
		b.messages[i], b.messages[j] = b.messages[j], b.messages[i]
	}
	return b, nil
}

func (a *app) onCaughtUp(*client.Client) {
	_ = a.alive(func() { a.rec.caughtUp(a.h.now()) })
}

func (a *app) onState(_ *client.Client, s client.State) {
	if s.Phase != client.Online {
		_ = a.alive(func() { a.rec.lost(a.h.now(), false) })
	}
}
