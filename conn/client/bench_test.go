package client

import (
	"bufio"
	"context"
	"encoding/binary"
	"io"
	"net"
	"runtime"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// echoes is a server that acks every send, and pushes it back as an event where
// events is set. It answers in bursts, as the real one does.
func echoes(t testing.TB, push bool) string {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			conn, err := ln.Accept()
			if err != nil {
				return
			}
			go echo(conn, push)
		}
	}()
	return ln.Addr().String()
}

func echo(conn net.Conn, push bool) {
	defer conn.Close()
	r := bufio.NewReader(conn)
	var out []byte
	var head [4]byte
	var payload []byte
	seq := uint64(0)
	for {
		if r.Buffered() == 0 && len(out) > 0 {
			if _, err := conn.Write(out); err != nil {
				return
			}
			out = out[:0]
		}
		if _, err := io.ReadFull(r, head[:]); err != nil {
			return
		}
		n := int(binary.BigEndian.Uint32(head[:]))
		if n > len(payload) {
			payload = make([]byte, n)
		}
		if _, err := io.ReadFull(r, payload[:n]); err != nil {
			return
		}
		var f proto.Frame
		switch {
		case n == 0:
			out = proto.AppendHeartbeat(out)
			continue
		case proto.Decode(payload[:n], &f) != nil:
			return
		case f.GetHello() != nil:
			out, _ = proto.AppendFrame(out, welcome(f.GetId(), func(w *proto.Welcome) {
				w.Limits.MaxInFlight, w.Limits.EventWindow = 64, 1024
			}))
		case f.GetSend() != nil:
			seq++
			out, _ = proto.AppendFrame(out, ack(f.GetId(), seq))
			if push {
				out, _ = proto.AppendFrame(out, events(seq, seq))
			}
		}
	}
}

func dialBench(b testing.TB, o Options) *Client {
	o.Store = resumed(0)
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	c, err := Dial(ctx, o)
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { c.Close() })
	return c
}

// One message, its ack, and one event, with 48 in flight: what a client costs,
// and the server of this test with it.
func BenchmarkSendAsync(b *testing.B) {
	addr := echoes(b, true)
	c := dialBench(b, Options{Endpoints: []string{addr}, OnEvents: func(*Client, []*proto.Event) {}})
	slots := make(chan bool, 48)
	content := Text("It is raining in Lisbon, of all places")
	done := func(_ Ack, err error) {
		if err != nil {
			b.Error(err)
		}
		<-slots
	}
	b.ReportAllocs()
	for b.Loop() {
		slots <- true
		if err := c.SendAsync(SendID{}, User(friend), content, done); err != nil {
			b.Fatal(err)
		}
	}
	for range cap(slots) {
		slots <- true
	}
}

// Many clients with one message in flight each: nothing coalesces.
func BenchmarkSendMany(b *testing.B) {
	addr := echoes(b, false)
	pool := NewPool()
	var clients []*Client
	for range 200 {
		clients = append(clients, dialBench(b, Options{Endpoints: []string{addr}, Pool: pool}))
	}
	content := Text("It is raining in Lisbon, of all places")
	free := make(chan *Client, len(clients))
	for _, c := range clients {
		free <- c
	}
	var wg sync.WaitGroup
	b.ReportAllocs()
	for b.Loop() {
		c := <-free
		wg.Add(1)
		if err := c.SendAsync(SendID{}, User(friend), content, func(Ack, error) { free <- c; wg.Done() }); err != nil {
			b.Fatal(err)
		}
	}
	wg.Wait()
}

// An idle client is one goroutine.
func TestIdleClientHasOneGoroutine(t *testing.T) {
	addr := echoes(t, false)
	pool := NewPool()
	const n = 100
	for range n {
		dialBench(t, Options{Endpoints: []string{addr}, Pool: pool, OnState: func(*Client, State) {}})
	}
	ours := func() int {
		buf := make([]byte, 4<<20)
		stacks := strings.Split(string(buf[:runtime.Stack(buf, true)]), "\n\n")
		count := 0
		for _, s := range stacks {
			if strings.Contains(s, "client.(*") && !strings.Contains(s, "testing.tRunner") {
				count++
			}
		}
		return count
	}
	eventually(t, "one goroutine a client", func() bool { return ours() <= n })
	time.Sleep(3 * wheelTick) // and it stays so while the wheel turns
	// The pool's wheel turns on a goroutine of its own, seen now and then.
	if got := ours(); got < n || got > n+1 {
		t.Fatalf("%d goroutines for %d idle clients", got, n)
	}
}
