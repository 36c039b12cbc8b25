package client

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// online returns a client and the server's side of its first connection.
func online(t *testing.T, change func(*Options), w ...func(*proto.Welcome)) (*server, *Client, *peer) {
	t.Helper()
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	if change != nil {
		change(&o)
	}
	c := start(t, o)
	p, _ := srv.login(w...)
	if err := c.WaitOnline(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	return srv, c, p
}

// results collects what SendAsync reports, by the text that was sent.
type results struct {
	mu   sync.Mutex
	acks map[string]Ack
	errs map[string]error
	ids  []SendID
	done []string // in order
}

func (r *results) send(t *testing.T, c *Client, to Target, texts ...string) {
	t.Helper()
	for _, text := range texts {
		err := c.SendAsync(SendID{}, to, Text(text), func(a Ack, err error) {
			r.mu.Lock()
			defer r.mu.Unlock()
			if r.acks == nil {
				r.acks, r.errs = map[string]Ack{}, map[string]error{}
			}
			r.acks[text], r.errs[text] = a, err
			r.done = append(r.done, text)
			r.ids = append(r.ids, a.SendID)
		})
		if err != nil {
			t.Fatal(err)
		}
	}
}

func (r *results) wait(t *testing.T, want ...string) {
	t.Helper()
	eventually(t, fmt.Sprint("done: ", want), func() bool {
		r.mu.Lock()
		defer r.mu.Unlock()
		return len(r.done) >= len(want)
	})
	r.mu.Lock()
	defer r.mu.Unlock()
	if !slices.Equal(r.done, want) {
		t.Fatalf("done %v, want %v", r.done, want)
	}
}

// sends reads n messages.
func (p *peer) sends(n int) (frames []*proto.Frame) {
	p.t.Helper()
	for range n {
		f := p.next()
		if f.GetSend() == nil {
			p.t.Fatalf("got a %T", f.GetBody())
		}
		frames = append(frames, f)
	}
	return frames
}

func texts(frames []*proto.Frame) (all []string) {
	for _, f := range frames {
		text, _ := TextOf(f.GetSend().GetContent())
		if f.GetSend().GetResumeOrder() {
			text += "!"
		}
		all = append(all, text)
	}
	return all
}

func wantTexts(t *testing.T, frames []*proto.Frame, want ...string) {
	t.Helper()
	if got := texts(frames); !slices.Equal(got, want) {
		t.Fatalf("the server got %v, want %v", got, want)
	}
}

// The connection breaks before the server has the message, and after it has
// acked it: the same id comes again.
func TestSendSurvivesCuts(t *testing.T) {
	srv, c, p := online(t, nil)
	var r results
	r.send(t, c, User(friend), "one", "two", "three")
	first := p.sends(3)
	wantTexts(t, first, "one", "two", "three")
	p.close()
	p, _ = srv.login()
	second := p.sends(3)
	wantTexts(t, second, "one", "two", "three")
	p.send(ack(second[0].GetId(), 1)) // the rest is lost
	r.wait(t, "one")
	p.close()
	p, _ = srv.login()
	third := p.sends(2)
	wantTexts(t, third, "two", "three")
	for i, f := range third {
		if !slices.Equal(f.GetSend().GetSendId(), first[i+1].GetSend().GetSendId()) {
			t.Fatal("another send id")
		}
		p.send(ack(f.GetId(), uint64(i+2)))
	}
	r.wait(t, "one", "two", "three")
	if r.errs["two"] != nil || r.acks["two"].Rev != 2 || c.Outbox() != 0 {
		t.Fatal(r.errs, r.acks)
	}
}

func TestRefusalKeepsTheOrder(t *testing.T) {
	_, c, p := online(t, nil)
	var r results
	r.send(t, c, User(friend), "1", "2", "3", "4", "5")
	f := p.sends(5)
	refused := time.Now()
	p.send(wireError(f[1].GetId(), fault(proto.ErrorCode_ERROR_CODE_UNAVAILABLE).WithRetry(100*time.Millisecond)),
		wireError(f[2].GetId(), fault(proto.ErrorCode_ERROR_CODE_BUSY)),
		ack(f[0].GetId(), 1))
	r.wait(t, "1") // so the client knows of the refusals before it
	r.send(t, c, User(friend), "6")
	r.send(t, c, User(78), "elsewhere") // other conversations go on
	wantTexts(t, p.sends(1), "elsewhere")
	// Only when all are answered …
	p.send(wireError(f[3].GetId(), fault(proto.ErrorCode_ERROR_CODE_BUSY)), wireError(f[4].GetId(), fault(proto.ErrorCode_ERROR_CODE_BUSY)))
	// … and after the wait, the earliest goes first, alone.
	again := p.sends(1)
	if time.Since(refused) < 100*time.Millisecond {
		t.Fatal("sooner than retry_after")
	}
	wantTexts(t, again, "2!")
	p.send(wireError(again[0].GetId(), fault(proto.ErrorCode_ERROR_CODE_UNAVAILABLE).WithRetry(time.Millisecond)))
	again = p.sends(1)
	wantTexts(t, again, "2!")
	p.send(ack(again[0].GetId(), 2))
	rest := p.sends(4)
	wantTexts(t, rest, "3", "4", "5", "6")
	for i, f := range rest {
		p.send(ack(f.GetId(), uint64(i+3)))
	}
	r.wait(t, "1", "2", "3", "4", "5", "6")
}

func TestFinalRefusalFailsOneMessage(t *testing.T) {
	_, c, p := online(t, nil)
	var r results
	r.send(t, c, User(friend), "1", "2", "3")
	f := p.sends(3)
	p.send(ack(f[0].GetId(), 1), wireError(f[1].GetId(), fault(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)), ack(f[2].GetId(), 2))
	r.wait(t, "1", "2", "3")
	wantKind(t, r.errs["2"], ErrNotAllowed)
	var e *Error
	if !errors.As(r.errs["2"], &e) || e.Code != proto.ErrorCode_ERROR_CODE_NOT_ALLOWED || e.Retryable || r.acks["2"].SendID.IsZero() {
		t.Fatalf("%+v", e)
	}
}

func TestInternalIsTriedFiveTimes(t *testing.T) {
	_, c, p := online(t, nil)
	var r results
	r.send(t, c, User(friend), "bad", "good")
	p.send(wireError(p.sends(1)[0].GetId(), fault(proto.ErrorCode_ERROR_CODE_INTERNAL)),
		wireError(p.sends(1)[0].GetId(), fault(proto.ErrorCode_ERROR_CODE_BUSY)))
	for range maxInternal - 1 {
		f := p.sends(1)
		wantTexts(t, f, "bad!")
		p.send(wireError(f[0].GetId(), fault(proto.ErrorCode_ERROR_CODE_INTERNAL)))
	}
	f := p.sends(1)
	wantTexts(t, f, "good!")
	p.send(ack(f[0].GetId(), 1))
	r.wait(t, "bad", "good")
	wantKind(t, r.errs["bad"], ErrInternal)
}

func TestInFlightIsBounded(t *testing.T) {
	_, c, p := online(t, nil, func(w *proto.Welcome) { w.Limits.MaxInFlight = 8 })
	var r results
	var want []string
	for i := range 20 {
		want = append(want, fmt.Sprint(i))
	}
	r.send(t, c, User(friend), want...)
	f := p.sends(6) // two are kept for other requests
	go c.LookupUser(ctxFor(t), "bob")
	if f := p.next(); f.GetLookupUser() == nil {
		t.Fatalf("got a %T", f.GetBody())
	}
	for i := range want {
		p.send(ack(f[i].GetId(), uint64(i+1)))
		if len(f) < len(want) {
			f = append(f, p.sends(1)...) // one for one
		}
	}
	wantTexts(t, f, want...)
	r.wait(t, want...)
}

func TestRateLimitPausesAllConversations(t *testing.T) {
	_, c, p := online(t, nil)
	var r results
	r.send(t, c, User(friend), "1")
	f := p.sends(1)
	at := time.Now()
	p.send(wireError(f[0].GetId(), fault(proto.ErrorCode_ERROR_CODE_RATE_LIMITED).WithRetry(100*time.Millisecond)))
	eventually(t, "refused", func() bool { c.mu.Lock(); defer c.mu.Unlock(); return len(c.outbox.parked) == 1 })
	r.send(t, c, User(78), "other")
	both := p.sends(2)
	if time.Since(at) < 100*time.Millisecond {
		t.Fatal("sooner than retry_after")
	}
	got := texts(both)
	slices.Sort(got)
	if !slices.Equal(got, []string{"1!", "other"}) {
		t.Fatal(got)
	}
}

func TestSendContextEnds(t *testing.T) {
	srv, c, p := online(t, nil)
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel()
	a, err := c.Send(ctx, User(friend), Text("hello"))
	wantKind(t, err, ErrCanceled)
	if !errors.Is(err, context.DeadlineExceeded) || a.SendID.IsZero() || c.Outbox() != 0 {
		t.Fatal(a, err)
	}
	f := p.sends(1)
	if string(f[0].GetSend().GetSendId()) != string(a.SendID[:]) {
		t.Fatal("another id")
	}
	// The answer comes late, and another message can go.
	p.send(ack(f[0].GetId(), 1))
	again := make(chan error, 1)
	go func() {
		b, err := c.SendWithID(ctxFor(t), a.SendID, User(friend), Text("hello"))
		if b.SendID != a.SendID {
			err = errors.New("another id")
		}
		again <- err
	}()
	f2 := p.sends(1)
	p.send(ack(f2[0].GetId(), 1))
	if err := <-again; err != nil || string(f2[0].GetSend().GetSendId()) != string(a.SendID[:]) {
		t.Fatal(err)
	}
	// An abandoned message is not sent on the next connection.
	short, cancel2 := context.WithTimeout(context.Background(), 20*time.Millisecond)
	defer cancel2()
	c.Send(short, User(friend), Text("never mind"))
	p.close()
	p, _ = srv.login()
	var r results
	r.send(t, c, User(friend), "next")
	wantTexts(t, p.sends(1), "next")
}

func TestAbandonedRefusalStillNeedsResumeOrder(t *testing.T) {
	_, c, p := online(t, nil)
	ctx, cancel := context.WithCancel(context.Background())
	gone := make(chan bool)
	go func() { c.Send(ctx, User(friend), Text("1")); close(gone) }()
	f := p.sends(1)
	var r results
	r.send(t, c, User(friend), "2")
	f = append(f, p.sends(1)...)
	cancel()
	<-gone
	p.send(wireError(f[0].GetId(), fault(proto.ErrorCode_ERROR_CODE_UNAVAILABLE).WithRetry(0)), wireError(f[1].GetId(), fault(proto.ErrorCode_ERROR_CODE_BUSY)))
	f = p.sends(1)
	wantTexts(t, f, "2!")
	p.send(ack(f[0].GetId(), 1))
	r.wait(t, "2")
}

func TestSendRefusedHere(t *testing.T) {
	_, c, _ := online(t, func(o *Options) { o.MaxOutbox = 2 }, func(w *proto.Welcome) { w.Limits.MaxContentBytes = 100 })
	_, err := c.Send(ctxFor(t), User(friend), &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_CUSTOM, Body: make([]byte, 101)})
	wantKind(t, err, ErrContentTooLarge)
	_, err = c.Send(ctxFor(t), Target{}, Text("x"))
	wantKind(t, err, ErrInvalidArgument)
	_, err = c.Send(ctxFor(t), User(friend), nil)
	wantKind(t, err, ErrInvalidArgument)
	var r results
	r.send(t, c, User(friend), "1", "2")
	wantKind(t, c.SendAsync(SendID{}, User(friend), Text("3"), nil), ErrOutboxFull)
	c.Close()
	r.wait(t, "1", "2")
	wantKind(t, r.errs["1"], ErrClosed)
	wantKind(t, c.SendAsync(SendID{}, User(friend), Text("3"), nil), ErrClosed)
}

// Before the first Welcome nobody knows server time: ids wait for it.
func TestIDsAreMadeOnServerTime(t *testing.T) {
	srv, a := newServer(t), &app{}
	o := a.options(srv.addr())
	o.Store, o.Credentials = resumed(0), Credentials{}
	c := start(t, o)
	if _, err := c.NewSendID(); err == nil {
		t.Fatal("an id without server time")
	}
	var r results
	r.send(t, c, User(friend), "early")
	ahead := time.Now().Add(48 * time.Hour)
	p, _ := srv.login(func(w *proto.Welcome) { w.ServerTimeUs = ahead.UnixMicro() })
	f := p.sends(1)
	made, ok := proto.SendIDTime([16]byte(f[0].GetSend().GetSendId()))
	if d := made.Sub(ahead); !ok || d < -time.Second || d > 10*time.Second {
		t.Fatalf("made %v off server time", d)
	}
	// A new Welcome may turn the clock back; ids rise all the same.
	p.close()
	p, _ = srv.login()
	p.sends(1)
	if err := c.WaitOnline(ctxFor(t)); err != nil {
		t.Fatal(err)
	}
	id, err := c.NewSendID()
	if err != nil || string(id[:]) <= string(f[0].GetSend().GetSendId()) {
		t.Fatal(id, err)
	}
}
