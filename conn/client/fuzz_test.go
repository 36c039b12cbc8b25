package client

import (
	"context"
	"io"
	"net"
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// meet runs a client against what server writes on its one connection, and
// returns it closed.
func meet(t *testing.T, o Options, server func(conn net.Conn)) *Client {
	here, there := net.Pipe()
	first := make(chan net.Conn, 1)
	first <- here
	o.Endpoints = []string{"127.0.0.1:1"}
	o.Store = resumed(0)
	o.Credentials = Credentials{}
	o.DialContext = func(ctx context.Context, _, _ string) (net.Conn, error) {
		select {
		case c := <-first:
			return c, nil
		case <-ctx.Done():
			return nil, ctx.Err()
		}
	}
	c, err := New(o)
	if err != nil {
		t.Fatal(err)
	}
	drained := make(chan bool)
	go func() {
		io.Copy(io.Discard, there)
		close(drained)
	}()
	there.SetWriteDeadline(time.Now().Add(patience))
	begun := time.Now()
	server(there)
	there.Close()
	if time.Since(begun) > patience/2 {
		t.Fatal("the client neither reads nor closes")
	}
	<-drained
	eventually(t, "the connection ends", func() bool {
		c.mu.Lock()
		defer c.mu.Unlock()
		return c.link == nil && !c.inbox.running
	})
	c.Close()
	return c
}

func quietOptions() Options {
	return Options{BackoffBase: time.Hour, BackoffMax: time.Hour, AckDelay: time.Millisecond,
		OnHint: func(*Client, *proto.Hint) {}, OnCaughtUp: func(*Client) {}, OnState: func(*Client, State) {}}
}

// Whatever bytes a server sends, before or after the Welcome: no panic, no
// hang, and no event is applied that does not follow the last.
func FuzzServerBytes(f *testing.F) {
	for _, fr := range []*proto.Frame{welcome(1), events(1, 3), events(4, 9), caughtUp(3), ack(2, 1), goAway(0), ok(),
		wireError(0, fault(proto.ErrorCode_ERROR_CODE_KICKED)), syncResponse(2, events(1, 3), 3, true)} {
		b, err := proto.AppendFrame(nil, fr)
		if err != nil {
			f.Fatal(err)
		}
		f.Add(true, b)
		f.Add(false, b)
		f.Add(true, append(proto.AppendHeartbeat(nil), b[:len(b)-1]...))
	}
	hello, err := proto.AppendFrame(nil, welcome(1))
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, welcomed bool, data []byte) {
		o := quietOptions()
		last := uint64(0)
		o.OnReset = func(_ context.Context, _ *Client, r *proto.Reset) error { last = r.GetResume().GetSeq(); return nil }
		o.OnEvents = func(_ *Client, evs []*proto.Event) {
			for _, ev := range evs {
				if last++; ev.GetSeq() != last {
					t.Errorf("event %d instead of %d", ev.GetSeq(), last)
				}
			}
		}
		meet(t, o, func(conn net.Conn) {
			if welcomed {
				conn.Write(hello)
			}
			conn.Write(data)
		})
	})
}

// A server that speaks well-formed nonsense: each byte is a frame. All that was
// sent is answered for exactly once, and events are applied in order.
func FuzzServerFrames(f *testing.F) {
	f.Add([]byte{0x00, 0x11, 0x22, 0x33, 0x44, 0x55, 0x66, 0x77, 0x88, 0x99})
	f.Add([]byte("\x00\x01\x02\x10\x11\x12\x20\x21\x03\x13\x23\x33"))
	f.Add([]byte("\x30\x31\x32\x33\x34\x35\x36\x37\x38\x39"))
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) > 200 {
			return
		}
		o := quietOptions()
		last, resets := uint64(0), 0
		o.OnReset = func(_ context.Context, _ *Client, r *proto.Reset) error {
			resets++
			last = r.GetResume().GetSeq()
			return nil
		}
		o.OnEvents = func(_ *Client, evs []*proto.Event) {
			for _, ev := range evs {
				if last++; ev.GetSeq() != last {
					t.Errorf("event %d instead of %d", ev.GetSeq(), last)
				}
			}
		}
		done := make(chan int, 64)
		sent := 0
		var b []byte
		var cl *Client
		o.OnState = func(c *Client, s State) {
			for s.Phase == Online && sent < 10 {
				i := sent
				to := User(int64(1 + i%3))
				if c.SendAsync(SendID{}, to, Text("x"), func(Ack, error) { done <- i }) != nil {
					return
				}
				sent++
			}
		}
		cl = meet(t, o, func(conn net.Conn) {
			b, _ = proto.AppendFrame(nil, welcome(1))
			for _, op := range script {
				b, _ = proto.AppendFrame(b, scripted(op))
			}
			conn.Write(b)
		})
		if cl.Outbox() != 0 {
			t.Fatal("messages stay after Close")
		}
		seen := map[int]bool{}
		for range sent {
			i := <-done
			if seen[i] {
				t.Fatal("a message was answered for twice")
			}
			seen[i] = true
		}
		select {
		case <-done:
			t.Fatal("a message was answered for twice")
		default:
		}
	})
}

// scripted makes the frame that op names: kind in the high half, argument in
// the low one.
func scripted(op byte) *proto.Frame {
	n := uint64(op & 15)
	codes := proto.Codes()
	switch op >> 4 {
	case 0:
		return events(n, n)
	case 1:
		return events(n, n+3)
	case 2:
		return ack(n, n)
	case 3:
		return wireError(n, fault(proto.ErrorCode_ERROR_CODE_BUSY))
	case 4:
		return wireError(n, fault(codes[int(n)%len(codes)].Code))
	case 5:
		return wireError(n+1, fault(codes[int(n+16)%len(codes)].Code).WithRetry(time.Millisecond))
	case 6:
		return caughtUp(n)
	case 7:
		return syncResponse(n, events(n, n+2), n+2, op&1 == 0)
	case 8:
		return goAway(time.Duration(n) * time.Millisecond)
	case 9:
		return &proto.Frame{Id: n, Body: &proto.Frame_SyncResponse{SyncResponse: &proto.SyncResponse{
			Reset_: &proto.Reset{Resume: &proto.Cursor{Epoch: n, Seq: n}}}}}
	case 10:
		return welcome(n)
	case 11:
		return &proto.Frame{Id: n, Body: &proto.Frame_Ok{Ok: &proto.Ok{}}}
	default:
		return &proto.Frame{Body: &proto.Frame_Hint{Hint: &proto.Hint{}}}
	}
}
