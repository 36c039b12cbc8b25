package main

import (
	"bytes"
	"fmt"
	"net"
	"os"
	"testing"
	"time"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/proto"
)

// The tests named TestLimit attack the rows of the table of limits, each
// through the front door of a real server, and look for the attack in the
// metrics. What takes accounts is in limits_account_test.go, what takes a
// conversation in limits_session_test.go.

func TestLimitFirstByteLoginPartialFrame(t *testing.T) {
	t.Parallel()
	n := serve(t, func(cfg *config.Config) {
		cfg.Limits.FirstByte = config.Duration(time.Second)
		cfg.Limits.Login = config.Duration(2 * time.Second)
		cfg.Limits.PartialFrame = config.Duration(time.Second)
	})
	for _, c := range []struct {
		name, reason string
		attack       func(*wire)
		after        time.Duration
	}{
		{"no first byte", "first_byte", func(*wire) {}, time.Second},
		{"half a hello", "login_timeout", func(w *wire) { w.write(framed(t, w.hello(registering("half")))[:20]) }, 2 * time.Second},
		{"a hello byte by byte", "login_timeout", func(w *wire) {
			b := framed(t, w.hello(registering("drip")))
			go func() {
				for i := range b {
					if _, err := w.Write(b[i : i+1]); err != nil {
						return
					}
					time.Sleep(100 * time.Millisecond)
				}
			}()
		}, 2 * time.Second},
		{"half a frame", "partial_frame", func(w *wire) {
			w.register("frames")
			w.write([]byte{0, 0, 1})
		}, time.Second},
	} {
		t.Run(c.name, func(t *testing.T) {
			t.Parallel()
			before := n.metric("hermod_conn_closed_total", c.reason)
			w := n.dial()
			w.t = t
			began := time.Now()
			c.attack(w)
			w.fault(proto.ErrorCode_ERROR_CODE_TIMEOUT)
			if took := time.Since(began); took < c.after*9/10 || took > c.after+3*time.Second {
				t.Errorf("closed after %v, want %v", took, c.after)
			}
			n.closedFor(c.reason, int(before)+1)
		})
	}
}

func TestLimitBytesBeforeLogin(t *testing.T) {
	t.Parallel()
	// A password that takes a while, so that the flood comes before the Welcome.
	n := serve(t, func(cfg *config.Config) { cfg.Auth.Argon2MemoryKiB, cfg.Auth.Argon2Time = 64<<10, 4 })
	w := n.dial()
	flood := framed(t, w.hello(registering("flooder")))
	w.write(append(flood, make([]byte, 20<<10)...)) // heartbeats
	w.fault(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	n.closedFor("login_bytes", 1)
	eventually(t, 5*time.Second, "no session is left", func() bool { return n.metric("hermod_chat_sessions") == 0 })
}

func TestLimitFrameCaps(t *testing.T) {
	t.Parallel()
	n := serve(t)

	early := n.dial()
	early.write(header(proto.MaxFrameHello + 1)) // the header is enough
	early.fault(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	n.closedFor("frame_too_large", 1)

	w := n.dial()
	w.write(padded(t, w.hello(registering("largest")), proto.MaxFrameHello))
	if f := w.answer(w.id); f.GetWelcome() == nil {
		t.Fatalf("a hello of exactly %d bytes: %v", proto.MaxFrameHello, f)
	}
	w.write(padded(t, &proto.Frame{Id: 2, Body: &proto.Frame_ListBlocks{ListBlocks: &proto.ListBlocks{}}}, proto.MaxFrameSession))
	if f := w.answer(2); f.GetBlocks() == nil {
		t.Fatalf("a request of exactly %d bytes: %v", proto.MaxFrameSession, f)
	}
	w.write(header(proto.MaxFrameSession + 1))
	w.fault(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	n.closedFor("frame_too_large", 2)
}

func TestLimitNesting(t *testing.T) {
	t.Parallel()
	n := serve(t)
	for i, c := range []struct {
		name    string
		payload []byte
	}{
		// Field 1000, of type group, in itself, in itself.
		{"groups in groups", bytes.Repeat([]byte{0xc3, 0x3e}, 10_000)},
		// Thirty thousand empty events in one batch.
		{"more messages than the length excuses", append([]byte{0x22, 0xe0, 0xd4, 0x03}, bytes.Repeat([]byte{0x0a, 0x00}, 30_000)...)},
		{"no protobuf at all", bytes.Repeat([]byte{0xff}, 60_000)},
	} {
		w := n.dial().register(fmt.Sprintf("nester%d", i))
		w.write(append(header(len(c.payload)), c.payload...))
		w.fault(proto.ErrorCode_ERROR_CODE_BAD_FRAME)
		n.closedFor("bad_frame", i+1)
	}
}

func TestLimitNewConnectionsPerIP(t *testing.T) {
	t.Parallel()
	n := serve(t, nobodyExempt)
	const storm = 200 // in far less than the three seconds that 50/s would take
	began := time.Now()
	for range storm {
		n.dial()
	}
	eventually(t, 10*time.Second, "all were looked at", func() bool {
		return n.metric("hermod_conn_opened_total")+n.metric("hermod_conn_closed_total", "per_ip_rate") >= storm
	})
	most := 50 + 50*time.Since(began).Seconds() + 1
	if got := n.metric("hermod_conn_opened_total"); got < 50 || got > most {
		t.Errorf("%v connections of %d stayed, want 50 to %.0f", got, storm, most)
	}
	n.dialFrom("127.0.0.2").register("bystander") // does not pay for it
}

func TestLimitLiveConnectionsPerIP(t *testing.T) {
	t.Parallel()
	n := serve(t, nobodyExempt, func(cfg *config.Config) { cfg.Limits.ConnsPerIP, cfg.Limits.NewConnsPerIP = 10, 1000 })
	var live []*wire
	for i := range 10 {
		live = append(live, n.dial().register(fmt.Sprintf("live%d", i)))
	}
	for range 5 {
		n.dial().ended()
	}
	n.closedFor("per_ip_live", 5)
	n.dialFrom("127.0.0.2").register("bystander")
	_ = live[0].Close()
	n.closedFor("peer_closed", 1)
	n.dial().register("successor")
}

func TestLimitExemptNetworksSkipTheRates(t *testing.T) {
	t.Parallel()
	n := serve(t) // loopback is exempt by default
	for range 120 {
		n.dial()
	}
	eventually(t, 10*time.Second, "all are open", func() bool { return n.metric("hermod_conn_opened_total") >= 120 })
	for i := range 8 {
		n.dial().register(fmt.Sprintf("exempt%d", i)) // 5 a minute for others
	}
	w := n.dial().register("fast")
	for range 300 {
		if f := w.ask(&proto.Frame{Body: &proto.Frame_Sync{Sync: &proto.SyncRequest{Cursor: w.dev.cursor}}}); f.GetSyncResponse() == nil {
			t.Fatalf("sync: %v", f)
		}
	}
}

func TestLimitMaxConns(t *testing.T) {
	t.Parallel()
	n := serve(t, func(cfg *config.Config) { cfg.Limits.MaxConns = 5 })
	w := n.dial().register("inside")
	var rest []*wire
	for range 4 {
		rest = append(rest, n.dial())
	}
	eventually(t, 5*time.Second, "five are open", func() bool { return n.metric("hermod_conn_open") == 5 })
	for range 3 {
		n.dial().ended()
	}
	n.closedFor("max_conns", 3)
	if f := w.ask(message(w.dev.user, "still here")); f.GetSendAck() == nil {
		t.Errorf("a session at the limit: %v", f)
	}
	_ = rest[0].Close()
	eventually(t, 5*time.Second, "one has left", func() bool { return n.metric("hermod_conn_open") == 4 })
	n.dial().register("next")
}

// On EMFILE gnet would shut its engine down; the guard stops well before, with
// files left for the store.
func TestLimitDescriptors(t *testing.T) {
	t.Parallel()
	p := newProcess(t, "HERMOD_DRAIN_WINDOW=1s", "HERMOD_DRAIN_TIMEOUT=1s")
	p.ulimit = 256
	p.start()
	dial := func() *wire {
		w, err := dialWire(t, p.addr, "127.0.0.1")
		if err != nil {
			t.Fatal(err)
		}
		return w
	}
	inside := dial().register("inside")
	var crowd []net.Conn
	for range 400 {
		crowd = append(crowd, dial())
	}
	turnedAway := func() float64 {
		_, page := getPage(t, "http://"+p.admin+"/metrics", "")
		return metricIn(t, page, "hermod_conn_closed_total", "max_conns")
	}
	// The admin page needs a descriptor too, and has one: a tenth stays free.
	eventually(t, 10*time.Second, "connections were turned away", func() bool { return turnedAway() > 100 })
	for i := range 20 {
		if f := inside.ask(message(inside.dev.user, fmt.Sprint(i))); f.GetSendAck() == nil {
			t.Fatalf("a session in the crowd: %v", f)
		}
	}
	for _, c := range crowd {
		_ = c.Close()
	}
	eventually(t, 10*time.Second, "newcomers get in again", func() bool {
		w := dial()
		defer func() { _ = w.Close() }()
		w.send(w.hello(registering("newcomer")))
		f, err := w.next()
		return err == nil && f.GetWelcome() != nil
	})
	if code := p.terminate(); code != 0 {
		t.Errorf("exit code %d", code)
	}
}

func TestLimitPlaintextOffLoopbackIsRefused(t *testing.T) {
	t.Parallel()
	for _, addr := range []string{":0", "0.0.0.0:0", "[::]:0"} {
		cfg := testConfig(t)
		cfg.Listen.Plain = addr
		s, err := Start(cfg, zerolog.Nop())
		if err == nil {
			_ = s.Close()
			t.Fatalf("%s: started", addr)
		}
		wantError(t, err, "listen.plain", "not loopback", "listen.plain_insecure")
		if entries, err := os.ReadDir(cfg.Data.Dir); err != nil || len(entries) != 0 {
			t.Errorf("%s: a refused start leaves %v in the data folder (%v)", addr, entries, err)
		}
	}
	n := serve(t, func(cfg *config.Config) { cfg.Listen.Plain, cfg.Listen.PlainInsecure = "0.0.0.0:0", true })
	if !bytes.Contains([]byte(n.log.String()), []byte("can be read on the way")) {
		t.Error("insecure by name starts without a warning")
	}
}
