package main

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"sync"
	"testing"
	"time"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// person is a user with one device, who writes down what arrives.
type person struct {
	c  *client.Client
	mu sync.Mutex
	// got is the text of every message from others, in the order applied.
	got []string
	// seqs are the conv_seqs of all messages, own ones included.
	seqs []uint64
	// logins counts the connections that were welcomed.
	logins int
}

func newPerson(t *testing.T, pool *client.Pool, addr, name string, slot proto.DeviceSlot, register bool) *person {
	t.Helper()
	p := &person{}
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	c, err := client.Dial(ctx, client.Options{
		Endpoints:   []string{addr},
		Pool:        pool,
		Device:      client.Device{Slot: slot, Platform: "test"},
		Credentials: client.Credentials{Name: name, Password: "correct horse battery", Register: register},
		OnEvents:    p.apply,
		BackoffBase: 20 * time.Millisecond,
		BackoffMax:  200 * time.Millisecond,
	})
	if err != nil {
		t.Fatalf("%s: %v", name, err)
	}
	p.c = c
	t.Cleanup(func() { _ = c.Close() })
	return p
}

func (p *person) apply(c *client.Client, events []*proto.Event) {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, e := range events {
		m := e.GetMessage()
		if m == nil {
			continue
		}
		p.seqs = append(p.seqs, e.ConvSeq)
		if e.ActorId != c.UserID() {
			p.got = append(p.got, textOf(m.Content))
		}
	}
}

func (p *person) received() []string {
	p.mu.Lock()
	defer p.mu.Unlock()
	return slices.Clone(p.got)
}

func textContent(s string) *proto.Content {
	b, err := gproto.Marshal(&proto.TextContent{Text: s})
	if err != nil {
		panic(err)
	}
	return &proto.Content{Kind: proto.ContentKind_CONTENT_KIND_TEXT, Body: b}
}

func textOf(c *proto.Content) string {
	var m proto.TextContent
	if err := gproto.Unmarshal(c.GetBody(), &m); err != nil {
		return "undecodable: " + err.Error()
	}
	return m.Text
}

// flood keeps messages in flight from p to peer until stop is closed, and then
// waits for every answer. It returns the numbers that were acknowledged.
func (p *person) flood(t *testing.T, peer int64, inFlight int, stop <-chan struct{}) (acked map[int]uint64, sent int) {
	acked = make(map[int]uint64)
	var mu sync.Mutex
	var wg sync.WaitGroup
	room := make(chan struct{}, inFlight)
	for {
		select {
		case <-stop:
			wg.Wait()
			return acked, sent
		case room <- struct{}{}:
		}
		n := sent
		sent++
		id, err := p.c.NewSendID()
		if err != nil {
			t.Errorf("send id: %v", err)
			<-room
			continue
		}
		wg.Add(1)
		err = p.c.SendAsync(id, client.User(peer), textContent(strconv.Itoa(n)), func(a client.Ack, err error) {
			if err == nil {
				mu.Lock()
				acked[n] = a.ConvSeq
				mu.Unlock()
			} else if !errors.Is(err, client.ErrClosed) {
				t.Errorf("message %d: %v", n, err)
			}
			<-room
			wg.Done()
		})
		if err != nil {
			t.Errorf("message %d: %v", n, err)
			<-room
			wg.Done()
		}
	}
}

// TestKillNineLosesNothing kills the server in the middle of hundreds of
// messages in flight, again and again, and then looks for every single one:
// on the recipient's screen, in the order sent, and in what a new device reads.
func TestKillNineLosesNothing(t *testing.T) {
	const pairs, inFlight, kills = 8, 48, 4
	srv := newProcess(t)
	srv.start()
	pool := client.NewPool()
	var senders, receivers []*person
	for i := range pairs {
		senders = append(senders, newPerson(t, pool, srv.addr, fmt.Sprintf("sender%d", i), proto.DeviceSlot_DEVICE_SLOT_PHONE, true))
		receivers = append(receivers, newPerson(t, pool, srv.addr, fmt.Sprintf("receiver%d", i), proto.DeviceSlot_DEVICE_SLOT_PHONE, true))
	}
	stop := make(chan struct{})
	acked := make([]map[int]uint64, pairs)
	sent := make([]int, pairs)
	var wg sync.WaitGroup
	for i := range pairs {
		wg.Go(func() { acked[i], sent[i] = senders[i].flood(t, receivers[i].c.UserID(), inFlight, stop) })
	}
	for k := range kills {
		before := len(receivers[0].received())
		eventually(t, 30*time.Second, "messages flow", func() bool { return len(receivers[0].received()) > before+200 })
		srv.kill()
		t.Logf("kill %d at %d messages of pair 0", k+1, len(receivers[0].received()))
		srv.start()
	}
	before := len(receivers[0].received())
	eventually(t, 30*time.Second, "messages flow after the last kill", func() bool { return len(receivers[0].received()) > before+200 })
	close(stop)
	wg.Wait()

	total := 0
	for i := range pairs {
		if len(acked[i]) != sent[i] {
			t.Errorf("pair %d: %d sent, %d acknowledged", i, sent[i], len(acked[i]))
		}
		total += sent[i]
		eventually(t, 60*time.Second, fmt.Sprintf("receiver %d has all %d messages", i, sent[i]), func() bool {
			return len(receivers[i].received()) >= sent[i]
		})
		checkOrder(t, fmt.Sprintf("receiver %d", i), receivers[i].received(), sent[i])
		checkContiguous(t, fmt.Sprintf("receiver %d", i), receivers[i])
	}
	t.Logf("%d messages, %d kills", total, kills)
	checkHistory(t, pool, srv.addr, receivers[0], senders[0], sent[0])
}

// checkOrder wants 0, 1, 2, … n-1, each once.
func checkOrder(t *testing.T, who string, got []string, n int) {
	t.Helper()
	if len(got) != n {
		t.Errorf("%s has %d messages, want %d", who, len(got), n)
	}
	for i, text := range got {
		if text != strconv.Itoa(i) {
			t.Errorf("%s: message %d is %q", who, i, text)
			return
		}
	}
}

// checkContiguous wants conv_seqs 1, 2, 3, … in the order applied.
func checkContiguous(t *testing.T, who string, p *person) {
	t.Helper()
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, seq := range p.seqs {
		if seq != uint64(i+1) {
			t.Errorf("%s: conv_seq %d at place %d", who, seq, i+1)
			return
		}
	}
}

// checkHistory reads the conversation as a new device of the receiver does.
func checkHistory(t *testing.T, pool *client.Pool, addr string, receiver, sender *person, n int) {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), 60*time.Second)
	defer cancel()
	tablet := newPerson(t, pool, addr, receiver.c.Name(), proto.DeviceSlot_DEVICE_SLOT_TABLET, false)
	convs, err := tablet.c.Conversations(ctx, nil, 100)
	if err != nil {
		t.Fatal(err)
	}
	if len(convs.Conversations) != 1 || convs.Conversations[0].PeerId != sender.c.UserID() {
		t.Fatalf("conversations of the new device: %v", convs)
	}
	conv := convs.Conversations[0]
	if conv.HeadConvSeq != uint64(n) || conv.Unread != uint64(n) {
		t.Errorf("head %d, unread %d, want %d", conv.HeadConvSeq, conv.Unread, n)
	}
	var got []string
	for from := uint64(1); ; {
		h, err := tablet.c.History(ctx, conv.Conversation, client.Range{From: from})
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range h.Entries {
			got = append(got, textOf(e.GetMessage().GetContent()))
			from = e.Rev + 1
		}
		if !h.More {
			break
		}
	}
	checkOrder(t, "history", got, n)
}
