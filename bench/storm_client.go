package bench

import (
	"context"
	"fmt"
	"net"
	"sync"
	"time"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// stormClient is one user with one device. It writes to its neighbour, the
// last to the first, once a round: so each is owed one message a round.
type stormClient struct {
	s    *storm
	n    int
	name string
	c    *client.Client

	mu     sync.Mutex
	online bool
	lost   time.Time   // when it was last no longer online
	synced []time.Time // caught up, each time
	seq    uint64      // of the newest event
	due    int         // rounds that it has to send and receive
	acked  int
	got    []int // how often the neighbour's message of each round came
}

// password is of no worth: these accounts live as long as their server.
const stormPassword = "a storm is coming"

// register makes the account and waits until it is online and synced. From
// then on the client looks after itself.
func (c *stormClient) register(ctx context.Context) (err error) {
	c.c, err = client.New(client.Options{
		Endpoints: []string{c.s.cfg.Server.Addr()}, TLS: c.s.cfg.TLS, Pool: c.s.pool,
		Credentials: client.Credentials{Name: c.name, Password: stormPassword, Register: true},
		Device:      client.Device{Slot: proto.DeviceSlot_DEVICE_SLOT_PHONE, Platform: "storm"},
		DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) { return c.s.dial.raw(ctx, c.n) },
		OnEvents:    func(_ *client.Client, events []*proto.Event) { c.events(events) },
		OnCaughtUp:  func(*client.Client) { c.caughtUp() },
		OnState: func(_ *client.Client, st client.State) {
			c.setOnline(st.Phase == client.Online)
		},
		// The whole storm has StormConfig.Within; one attempt should not take it.
		ConnectTimeout: 15 * time.Second,
		BackoffMax:     c.s.cfg.BackoffMax,
	})
	if err != nil {
		return err
	}
	if err := c.c.WaitOnline(ctx); err != nil {
		return err
	}
	for !c.isSynced() {
		if !sleepFor(ctx, 5*time.Millisecond) {
			return ctx.Err()
		}
	}
	return nil
}

func (c *stormClient) isSynced() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return len(c.synced) > 0
}

func (c *stormClient) setOnline(online bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.online && !online {
		c.lost = time.Now()
	}
	c.online = online
}

// lostAt is when it was last cut off.
func (c *stormClient) lostAt() time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.lost
}

func (c *stormClient) caughtUp() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.synced = append(c.synced, time.Now())
}

// backAt is when the client caught up for the last time after t, and is online
// since; the zero time if it is not.
func (c *stormClient) backAt(t time.Time) time.Time {
	c.mu.Lock()
	defer c.mu.Unlock()
	if n := len(c.synced); c.online && n > 0 && c.synced[n-1].After(t) {
		return c.synced[n-1]
	}
	return time.Time{}
}

// expect opens a round.
func (c *stormClient) expect(round int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.due = round
	for len(c.got) < round {
		c.got = append(c.got, 0)
	}
}

func (c *stormClient) neighbour() *stormClient {
	return c.s.clients[(c.n+1)%len(c.s.clients)]
}

func stormText(from, round int) string { return fmt.Sprintf("storm %d %d", from, round) }

// write sends the round's message; the client sees it through.
func (c *stormClient) write(round int) {
	to := client.User(c.neighbour().c.UserID())
	err := c.c.SendAsync(client.SendID{}, to, client.Text(stormText(c.n, round)), func(_ client.Ack, err error) {
		if err == nil {
			c.mu.Lock()
			c.acked++
			c.mu.Unlock()
		}
	})
	if err != nil {
		c.s.wrong.Add(1)
	}
}

// events takes what the inbox brings: each seq once and in order, own messages
// and the neighbour's, each once.
func (c *stormClient) events(events []*proto.Event) {
	c.mu.Lock()
	defer c.mu.Unlock()
	for _, ev := range events {
		if c.seq != 0 && ev.GetSeq() != c.seq+1 {
			c.s.wrong.Add(1)
		}
		c.seq = ev.GetSeq()
		text, ok := client.TextOf(ev.GetMessage().GetContent())
		if !ok || ev.GetActorId() == c.c.UserID() {
			continue
		}
		var from, round int
		_, err := fmt.Sscanf(text, "storm %d %d", &from, &round)
		if err != nil || from < 0 || from >= len(c.s.clients) || c.s.clients[from].neighbour() != c || round < 1 || round > len(c.got) || c.got[round-1] > 0 {
			c.s.wrong.Add(1)
			continue
		}
		c.got[round-1]++
	}
}

// complete reports whether all is acknowledged and received.
func (c *stormClient) complete() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.acked == c.due && c.received() == c.due
}

// received counts the messages that came. mu is held.
func (c *stormClient) received() (n int) {
	for _, times := range c.got {
		n += times
	}
	return n
}

// open is what is not acknowledged and what has not arrived.
func (c *stormClient) open() (unacked, missing int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.due - c.acked, c.due - c.received()
}

func (c *stormClient) close() {
	if c.c != nil {
		_ = c.c.Close()
	}
}
