package main

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"sync/atomic"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// The specification (proto/README.md), statement by statement, against a real
// server, over a socket and without the reference client. Each case is named
// after the section that it holds the server to: what an author of an SDK reads
// there is what happens. spec_*_test.go have the cases, by part of the document.

// specCase is one statement.
type specCase struct {
	section, name string
	run           func(*spec)
}

// spec is what a case is given: a server that it shares with the others, and
// people on it.
type spec struct {
	*testing.T
	node   *node
	people *atomic.Int64
}

func TestSpec(t *testing.T) {
	t.Parallel()
	n := serve(t)
	people := new(atomic.Int64)
	tested := make(map[string]bool)
	for _, c := range slices.Concat(wireCases(), helloCases(), deviceCases(), talkCases(), stateCases(), troubleCases()) {
		tested[c.section] = true
		t.Run(c.section+"/"+c.name, func(t *testing.T) {
			t.Parallel()
			c.run(&spec{t, n, people})
		})
	}
	text, err := os.ReadFile("../../proto/README.md")
	if err != nil {
		t.Fatal(err)
	}
	// What these say is about the client, or tested in package proto.
	for _, s := range []string{"The protocol in one minute", "The replay loop", "For server implementers", "Test vectors", "A checklist for an SDK"} {
		tested[s] = true
	}
	for _, m := range regexp.MustCompile(`(?m)^## (.+)$`).FindAllSubmatch(text, -1) {
		if section := string(m[1]); !tested[section] {
			t.Errorf("no case for the section %q", section)
		} else {
			delete(tested, section)
		}
	}
	for section := range tested {
		t.Errorf("cases for a section %q that there is not", section)
	}
}

// phone is a person's device on the wire, logged in.
type phone struct {
	*wire
	name    string
	token   string
	welcome *proto.Welcome
	events  []*proto.Event // that came before the answers to its requests
}

// ask sends a request and returns its answer.
func (p *phone) ask(f *proto.Frame) *proto.Frame {
	p.t.Helper()
	p.id++
	f.Id = p.id
	p.send(f)
	for {
		got := p.frame()
		if got.GetId() == f.Id {
			return got
		}
		if got.GetError() != nil {
			p.t.Fatalf("waiting for an answer: %v", got)
		}
		p.events = append(p.events, got.GetEvents().GetEvents()...)
	}
}

// dial connects to the shared server.
func (s *spec) dial() *wire {
	s.Helper()
	return s.dialTo(s.node)
}

func (s *spec) dialTo(n *node) *wire {
	s.Helper()
	w, err := dialWire(s.T, n.addr, "127.0.0.1")
	if err != nil {
		s.Fatal(err)
	}
	return w
}

// fresh is a name that nobody has.
func (s *spec) fresh() string { return fmt.Sprintf("person%d", s.people.Add(1)) }

// person registers somebody on the shared server.
func (s *spec) person() *phone {
	s.Helper()
	return s.personOn(s.node)
}

func (s *spec) personOn(n *node) *phone {
	s.Helper()
	name := s.fresh()
	return s.in(s.dialTo(n), name, registering(name))
}

// in says hello, wants a Welcome, and keeps what it brings.
func (s *spec) in(w *wire, name string, set func(*proto.Hello)) *phone {
	s.Helper()
	f := w.enter(set)
	if f.GetWelcome() == nil {
		s.Fatalf("hello of %s: %v", name, f)
	}
	return &phone{wire: w, name: name, token: f.GetWelcome().AccessToken, welcome: f.GetWelcome()}
}

// as is a new connection of the same installation, before its Hello.
func (s *spec) as(p *phone) *wire {
	s.Helper()
	w := s.dial()
	w.dev = p.dev
	return w
}

// second is another device of the same person, logged in by password.
func (s *spec) second(p *phone, slot proto.DeviceSlot) *phone {
	s.Helper()
	w := s.dial()
	w.dev.slot = slot
	return s.in(w, p.name, loggingIn(p.name, password))
}

func byToken(token string) func(*proto.Hello) {
	return func(h *proto.Hello) {
		h.Credentials, h.NextSecret = &proto.Hello_AccessToken{AccessToken: token}, nil
	}
}

func bySecret(user int64, current, next []byte) func(*proto.Hello) {
	return func(h *proto.Hello) {
		h.Credentials = &proto.Hello_DeviceSecret{DeviceSecret: &proto.DeviceSecret{UserId: user, Current: current}}
		h.NextSecret = next
	}
}

// wants compares an Error with the row of its code in the table.
func (s *spec) wants(what string, f *proto.Frame, code proto.ErrorCode) {
	s.Helper()
	e, row := f.GetError(), code.Info()
	switch {
	case e == nil:
		s.Errorf("%s: %v, want %s", what, f, code.Short())
	case e.Code != code:
		s.Errorf("%s: %s (%s), want %s", what, e.Code.Short(), e.Message, code.Short())
	case e.Retryable != row.Retryable || e.Message == "":
		s.Errorf("%s: %v does not go with the table's %+v", what, e, row)
	case row.RetryAfter > 0 && e.RetryAfterMs == 0:
		s.Errorf("%s: %s without retry_after", what, code.Short())
	}
}

// turnedAway wants the Hello answered by an Error, and the end.
func (s *spec) turnedAway(what string, w *wire, set func(*proto.Hello), code proto.ErrorCode) {
	s.Helper()
	f := w.hello(set)
	w.send(f)
	got := w.frame()
	if got.GetId() != f.Id {
		s.Errorf("%s: the answer has id %d, the request %d", what, got.GetId(), f.Id)
	}
	s.wants(what, got, code)
	w.ended()
}

// does wants a request to end in Ok.
func (s *spec) does(what string, p *phone, f *proto.Frame) {
	s.Helper()
	if got := p.ask(f); got.GetOk() == nil {
		s.Errorf("%s: %v, want Ok", what, got)
	}
}

// asks wants a request to end in an Error.
func (s *spec) asks(what string, p *phone, f *proto.Frame, code proto.ErrorCode) {
	s.Helper()
	s.wants(what, p.ask(f), code)
}

// event returns the next event, and acknowledges it.
func (s *spec) event(p *phone) *proto.Event {
	s.Helper()
	for len(p.events) == 0 {
		f := p.frame()
		if f.GetError() != nil {
			s.Fatalf("waiting for an event: %v", f)
		}
		p.events = f.GetEvents().GetEvents()
	}
	e := p.events[0]
	p.events = p.events[1:]
	p.send(ack(e.Seq))
	return e
}

// quiet wants nothing to come for a moment but what more is true of.
func (s *spec) quiet(w *wire, more func(*proto.Frame) bool) {
	s.Helper()
	_ = w.SetReadDeadline(time.Now().Add(150 * time.Millisecond))
	defer func() { _ = w.SetReadDeadline(time.Now().Add(wirePatience)) }()
	for {
		f, err := w.next()
		if err != nil {
			return
		}
		if !more(f) {
			s.Errorf("unexpected: %v", f)
		}
	}
}
