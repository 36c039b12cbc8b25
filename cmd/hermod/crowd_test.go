package main

import (
	"context"
	"crypto/tls"
	"fmt"
	"math/rand/v2"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// crowd is many users, each with one device, who write to each other without
// pause and write down everything that they see.
type crowd struct {
	t      *testing.T
	pool   *client.Pool
	people []*talker
	byID   map[int64]*talker
}

// talker is one of them.
type talker struct {
	name  string
	c     *client.Client
	peers []*talker

	mu sync.Mutex
	// seen is everything applied, in the order of the inbox.
	seen []sighting
	// acked is what was acknowledged to this one, by text.
	acked map[string]client.Ack
	// failed is what was given up: it may have happened, once.
	failed map[string]bool
	sent   int
}

// sighting is a message as an inbox has it.
type sighting struct {
	seq, rev, convSeq uint64
	conv              string
	actor             int64
	text              string
}

// see keeps what e says.
func see(e *proto.Event) sighting {
	s := sighting{seq: e.Seq, rev: e.Rev, convSeq: e.ConvSeq, conv: string(e.Conversation), actor: e.ActorId}
	if m := e.GetMessage(); m != nil {
		s.text = textOf(m.Content)
	}
	return s
}

// newCrowd registers n users at the endpoints, which each starts with another
// one of. Everybody has a few whom they write to, and is written to by as many.
func newCrowd(t *testing.T, n, peers int, endpoints []string, tlsConf *tls.Config) *crowd {
	t.Helper()
	cr := &crowd{t: t, pool: client.NewPool(), byID: make(map[int64]*talker)}
	cr.people = make([]*talker, n)
	var wg sync.WaitGroup
	room := make(chan struct{}, 16)
	for i := range n {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			at := i % len(endpoints)
			cr.people[i] = cr.join(fmt.Sprintf("talker%d", i), slices.Concat(endpoints[at:], endpoints[:at]), tlsConf)
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	for i, p := range cr.people {
		cr.byID[p.c.UserID()] = p
		for k := range peers {
			// A step that differs: some pairs write both ways, and all mix.
			p.peers = append(p.peers, cr.people[(i+1+k*k*7)%n])
		}
	}
	return cr
}

// join registers one user.
func (cr *crowd) join(name string, endpoints []string, tlsConf *tls.Config) *talker {
	p := &talker{name: name, acked: make(map[string]client.Ack), failed: make(map[string]bool)}
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{
		Endpoints: endpoints, TLS: tlsConf, Pool: cr.pool,
		Device:      client.Device{Slot: proto.DeviceSlot_DEVICE_SLOT_PHONE, Platform: "test"},
		Credentials: client.Credentials{Name: name, Password: password, Register: true},
		OnEvents:    p.apply,
		BackoffBase: 50 * time.Millisecond, BackoffMax: time.Second,
		Heartbeat: 10 * time.Second,
	})
	if err != nil {
		cr.t.Errorf("%s: %v", name, err)
		return p
	}
	p.c = c
	cr.t.Cleanup(func() { _ = c.Close() })
	return p
}

func (p *talker) apply(_ *client.Client, events []*proto.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		p.seen = append(p.seen, see(e))
	}
}

// talk has everybody write, about every pause, until stop is closed and all
// that was written is answered.
func (cr *crowd) talk(pause time.Duration, stop <-chan struct{}) {
	var wg sync.WaitGroup
	for _, p := range cr.people {
		wg.Go(func() { p.talk(cr.t, pause, stop) })
	}
	wg.Wait()
}

// inFlight is how many messages of one talker may be unanswered.
const inFlight = 8

func (p *talker) talk(t *testing.T, pause time.Duration, stop <-chan struct{}) {
	var open sync.WaitGroup
	defer open.Wait()
	room := make(chan struct{}, inFlight)
	for {
		select {
		case <-stop:
			return
		case <-time.After(time.Duration(rand.Int64N(int64(2 * pause)))):
		}
		select {
		case <-stop:
			return
		case room <- struct{}{}:
		}
		to := p.peers[p.sent%len(p.peers)]
		text := fmt.Sprintf("%d %d %d", p.c.UserID(), to.c.UserID(), p.sent)
		p.sent++
		id, err := p.c.NewSendID()
		if err != nil {
			t.Errorf("%s: send id: %v", p.name, err)
			return
		}
		open.Add(1)
		answered := func(a client.Ack, err error) {
			p.answered(text, a, err)
			<-room
			open.Done()
		}
		if err := p.c.SendAsync(id, client.User(to.c.UserID()), textContent(text), answered); err != nil {
			answered(client.Ack{}, err)
		}
	}
}

func (p *talker) answered(text string, a client.Ack, err error) {
	p.mu.Lock()
	defer p.mu.Unlock()
	if err != nil {
		p.failed[text] = true
		return
	}
	p.acked[text] = a
}

// totals is how many messages were acknowledged, and how many given up.
func (cr *crowd) totals() (acked, failed int) {
	for _, p := range cr.people {
		p.mu.Lock()
		acked += len(p.acked)
		failed += len(p.failed)
		p.mu.Unlock()
	}
	return acked, failed
}

// arrived waits until everybody has applied all that was acknowledged to them
// and to those who write to them.
func (cr *crowd) arrived(patience time.Duration) {
	cr.t.Helper()
	owed := make(map[*talker]map[string]bool)
	for _, p := range cr.people {
		owed[p] = make(map[string]bool)
	}
	for _, p := range cr.people {
		p.mu.Lock()
		for text := range p.acked {
			owed[p][text] = true
			owed[cr.addressee(text)][text] = true
		}
		p.mu.Unlock()
	}
	end := time.Now().Add(patience)
	for _, p := range cr.people {
		at := 0
		for len(owed[p]) > 0 {
			p.mu.Lock()
			for ; at < len(p.seen); at++ {
				delete(owed[p], p.seen[at].text)
			}
			p.mu.Unlock()
			if len(owed[p]) > 0 && time.Now().After(end) {
				cr.t.Fatalf("%s has not applied %d acknowledged messages, like %q", p.name, len(owed[p]), firstKey(owed[p]))
			}
			time.Sleep(5 * time.Millisecond)
		}
	}
}

func firstKey(m map[string]bool) string {
	for k := range m {
		return k
	}
	return ""
}

// addressee is whom a text was written to.
func (cr *crowd) addressee(text string) *talker {
	fields := strings.Fields(text)
	if len(fields) != 3 {
		return nil
	}
	id, _ := strconv.ParseInt(fields[1], 10, 64)
	return cr.byID[id]
}

// check holds I1 to I6 and I8 for everything so far: what the devices applied,
// what the stores hold, and what was promised. Nobody may be writing.
func (cr *crowd) check() {
	cr.t.Helper()
	order := make(map[string]map[uint64]string) // conversation, conv_seq → text (I3)
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, 16)
	for _, p := range cr.people {
		room <- struct{}{}
		wg.Go(func() {
			defer func() { <-room }()
			stored, err := p.inbox()
			if err != nil {
				cr.t.Errorf("%s: reading the inbox: %v", p.name, err)
				return
			}
			mu.Lock()
			defer mu.Unlock()
			for _, what := range p.violations(p.c.UserID(), stored, order) {
				cr.t.Error(what)
			}
		})
	}
	wg.Wait()
}

// violations compares one inbox with everything that is known of it.
func (p *talker) violations(me int64, stored []sighting, order map[string]map[uint64]string) (out []string) {
	bad := func(format string, args ...any) { out = append(out, p.name+": "+fmt.Sprintf(format, args...)) }
	p.mu.Lock()
	defer p.mu.Unlock()
	times := make(map[string]int)
	for i, s := range stored {
		if s.seq != uint64(i+1) { // I2
			bad("inbox row %d has seq %d", i+1, s.seq)
		}
		if s.text == "" {
			continue // no message
		}
		times[s.text]++
		var from, to int64
		var n int
		if _, err := fmt.Sscanf(s.text, "%d %d %d", &from, &to, &n); err != nil || from != s.actor || from != me && to != me { // I5
			bad("has %q by %d", s.text, s.actor)
		}
		seqs := order[s.conv]
		if seqs == nil {
			seqs = make(map[uint64]string)
			order[s.conv] = seqs
		}
		if was, ok := seqs[s.convSeq]; ok && was != s.text { // I3
			bad("place %d of a conversation is %q, for another %q", s.convSeq, s.text, was)
		}
		seqs[s.convSeq] = s.text
	}
	// I4, I6: the device applied exactly the rows there are, in their order. (A
	// notice of the registration itself may be older than the device.)
	if missed := len(stored) - len(p.seen); missed < 0 || missed > 1 || !slices.Equal(p.seen, stored[missed:]) {
		bad("applied %d events, the inbox has %d, and they differ", len(p.seen), len(stored))
	}
	for text, count := range times { // I1 (at most), I8
		if count != 1 {
			bad("has %q %d times", text, count)
		}
	}
	for text, a := range p.acked { // I1 (at least), at the place that was told
		switch {
		case times[text] == 0:
			bad("%q was acknowledged, and is in the own inbox 0 times", text)
		case order[string(a.Conversation)][a.ConvSeq] != text:
			bad("%q stands elsewhere than its ack says", text)
		}
	}
	return out
}

// inbox reads all rows of the user's inbox, as a device does that has none.
func (p *talker) inbox() (rows []sighting, err error) {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	for at := (client.Cursor{Epoch: p.c.Cursor().Epoch}); ; {
		r, err := p.c.Sync(ctx, at, 200)
		if err != nil {
			return rows, err
		}
		for _, e := range r.GetEvents() {
			rows = append(rows, see(e))
			at.Seq = e.Seq
		}
		if len(r.GetEvents()) == 0 || at.Seq >= p.c.Cursor().Seq {
			return rows, nil
		}
	}
}
