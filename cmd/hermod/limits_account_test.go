package main

import (
	"encoding/binary"
	"fmt"
	"net/netip"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/proto"
)

func TestLimitRegistrationsPerIP(t *testing.T) {
	t.Parallel()
	n := serve(t, nobodyExempt, func(cfg *config.Config) { cfg.Limits.RegistersPerIP = config.Default().Limits.RegistersPerIP })
	for i := range 5 {
		n.dial().register(fmt.Sprintf("clone%d", i))
	}
	f := n.dial().enter(registering("clone5"))
	if codeOf(f) != proto.ErrorCode_ERROR_CODE_RATE_LIMITED || !f.GetError().Retryable {
		t.Fatalf("the sixth registration of a minute: %v", f)
	}
	if ms := f.GetError().RetryAfterMs; ms < 1_000 || ms > 60_000 {
		t.Errorf("retry after %d ms", ms)
	}
	n.dialFrom("127.0.0.2").register("bystander")
	if got := n.metric("hermod_chat_hellos_total", "register", "RATE_LIMITED"); got != 1 {
		t.Errorf("counted %v refusals, want 1", got)
	}
	// Who has an account gets in all the same.
	if f := n.dial().enter(loggingIn("clone0", password)); f.GetWelcome() == nil {
		t.Errorf("login: %v", f)
	}
}

func TestLimitWrongPasswords(t *testing.T) {
	t.Parallel()
	n := serve(t)
	n.dial().register("owner")
	words := make(map[string][]string)
	for _, name := range []string{"owner", "nobody"} {
		for i := range 7 {
			f := n.dial().enter(loggingIn(name, "wrong horse battery"))
			want := proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED
			if i >= 5 {
				want = proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS
			}
			if codeOf(f) != want {
				t.Fatalf("%s, guess %d: %v, want %s", name, i+1, f, want.Short())
			}
			if i >= 5 && f.GetError().RetryAfterMs == 0 {
				t.Errorf("%s, guess %d: no retry_after", name, i+1)
			}
			words[name] = append(words[name], f.GetError().Message)
		}
	}
	if !slices.Equal(words["owner"], words["nobody"]) {
		t.Errorf("a name that exists is answered differently:\n%q\n%q", words["owner"], words["nobody"])
	}
	// The right password does not shorten the wait, and nobody but the guesser
	// waits.
	if f := n.dial().enter(loggingIn("owner", password)); codeOf(f) != proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS {
		t.Errorf("the right password during the wait: %v", f)
	}
	if f := n.dialFrom("127.0.0.2").enter(loggingIn("owner", password)); f.GetWelcome() == nil {
		t.Errorf("the owner elsewhere: %v", f)
	}
	if got := n.metric("hermod_chat_hellos_total", "password", "TOO_MANY_ATTEMPTS"); got != 5 {
		t.Errorf("counted %v refusals, want 5", got)
	}
	// After the wait (1 s after the fifth) a guess counts again.
	eventually(t, 10*time.Second, "the owner gets in", func() bool {
		return n.dial().enter(loggingIn("owner", password)).GetWelcome() != nil
	})
}

func TestLimitWrongPasswordsAtTheSameMoment(t *testing.T) {
	t.Parallel()
	n := serve(t)
	n.dial().register("owner")
	before := n.metric("hermod_chat_password_hashes_total")
	var wg sync.WaitGroup
	var mu sync.Mutex
	codes := make(map[proto.ErrorCode]int)
	for range 40 {
		w := n.dial()
		wg.Go(func() {
			f := w.enter(loggingIn("owner", "wrong horse battery"))
			mu.Lock()
			codes[codeOf(f)]++
			mu.Unlock()
		})
	}
	wg.Wait()
	// The fifth wrong one starts a wait of a second; a slow machine may be
	// past it and allow the next.
	hashes := n.metric("hermod_chat_password_hashes_total") - before
	if looked := codes[proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED]; looked < 5 || looked > 7 || int(hashes) != looked {
		t.Errorf("of 40 guesses at once %d were looked at with %v hashes, want 5: %v", looked, hashes, codes)
	}
}

// A name that nobody has takes as long as a wrong password. Not parallel: it
// measures. The least of several counts, since noise only adds.
func TestLimitUnknownUsersTakeTheSameTime(t *testing.T) {
	n := serve(t, func(cfg *config.Config) { cfg.Auth.Argon2MemoryKiB, cfg.Auth.Argon2Time = 32<<10, 1 })
	const rounds = 20
	var known, unknown time.Duration
	guess := func(name string, best *time.Duration) {
		w := n.dial()
		before, began := n.metric("hermod_chat_password_hashes_total"), time.Now()
		if f := w.enter(loggingIn(name, "wrong horse battery")); codeOf(f) != proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED {
			t.Fatalf("%s: %v", name, f)
		}
		took := time.Since(began)
		if *best == 0 || took < *best {
			*best = took
		}
		if got := n.metric("hermod_chat_password_hashes_total") - before; got != 1 {
			t.Errorf("%s: %v hashes, want 1", name, got)
		}
	}
	for i := range rounds {
		if i%4 == 0 { // a name is good for five guesses
			n.dial().register(fmt.Sprintf("known%d", i/4))
		}
		guess(fmt.Sprintf("known%d", i/4), &known)
		guess(fmt.Sprintf("unknown%d", i/4), &unknown)
		if i >= 4 && known < unknown*3/2 && unknown < known*3/2 {
			return
		}
	}
	t.Errorf("known names take %v, unknown ones %v", known, unknown)
}

// A storm of registrations costs a bounded queue, gets clear refusals, and the
// people who are logged in go on talking.
func TestLimitArgon2Pool(t *testing.T) {
	t.Parallel()
	n := serve(t, func(cfg *config.Config) {
		cfg.Auth.Argon2MemoryKiB, cfg.Auth.Argon2Time = 8<<10, 1
		cfg.Limits.FirstByte, cfg.Limits.Login = config.Duration(time.Minute), config.Duration(time.Minute)
	})
	inside := n.dial().register("inside")
	const storm = 300
	wires := make([]*wire, storm)
	for i := range wires {
		wires[i] = n.dial()
	}
	for i, w := range wires {
		w.send(w.hello(registering(fmt.Sprintf("storm%d", i))))
	}
	if f := inside.ask(message(inside.dev.user, "in the storm")); f.GetSendAck() == nil {
		t.Errorf("a message in the storm: %v", f)
	}
	in, overloaded := 0, 0
	for _, w := range wires {
		switch f := w.answer(1); {
		case f.GetWelcome() != nil:
			in++
		case codeOf(f) == proto.ErrorCode_ERROR_CODE_OVERLOADED && f.GetError().RetryAfterMs > 0:
			overloaded++
		default:
			t.Fatalf("register: %v", f)
		}
	}
	if in == 0 || overloaded == 0 {
		t.Errorf("%d got in, %d were told to wait: want some of both", in, overloaded)
	}
	if got := n.metric("hermod_chat_hellos_total", "register", "OVERLOADED"); got != float64(overloaded) {
		t.Errorf("counted %v refusals, want %d", got, overloaded)
	}
	t.Logf("of %d registrations at once %d got in, %d were refused", storm, in, overloaded)
}

// proxyHeader is a PROXY v2 header for a TCP connection from client.
func proxyHeader(client string) []byte {
	b := []byte("\r\n\r\n\x00\r\nQUIT\n\x21")
	a := netip.MustParseAddr(client)
	ports := []byte{0x30, 0x39, 0x13, 0xec}
	family, size := byte(0x11), 12
	if a.Is6() {
		family, size = 0x21, 36
	}
	b = binary.BigEndian.AppendUint16(append(b, family), uint16(size))
	b = append(append(b, a.AsSlice()...), a.AsSlice()...)
	return append(b, ports...)
}

func TestLimitProxyUntrusted(t *testing.T) {
	t.Parallel()
	n := serve(t, func(cfg *config.Config) {
		cfg.Listen.Plain, cfg.Listen.Proxy, cfg.Listen.ProxyTrusted = "", "127.0.0.1:0", []string{"127.0.0.2/32"}
	})
	n.dial().ended()
	n.closedFor("proxy_untrusted", 1)
	w := n.dialFrom("127.0.0.2")
	w.send(w.hello(registering("headless")))
	w.ended()
	n.closedFor("proxy_header", 1)
	w = n.dialFrom("127.0.0.2")
	w.write(proxyHeader("203.0.113.9"))
	w.register("through")
}

// Whoever comes through the balancer is limited by the address in the header,
// /64 for IPv6, and never exempt, whatever that address or the balancer's is.
func TestLimitExemptionNeverBehindProxy(t *testing.T) {
	t.Parallel()
	n := serve(t, func(cfg *config.Config) {
		cfg.Listen.Plain, cfg.Listen.Proxy, cfg.Listen.ProxyTrusted = "", "127.0.0.1:0", []string{"127.0.0.0/8"}
		cfg.Limits.ConnsPerIP = 3
		cfg.Limits.Exempt = []string{"127.0.0.0/8", "::1/128", "2001:db8::/32"}
	})
	from := func(ip string) *wire {
		w := n.dial()
		w.write(proxyHeader(ip))
		return w
	}
	for i := range 3 {
		from("127.0.0.1").register(fmt.Sprintf("balanced%d", i))
	}
	from("127.0.0.1").ended()
	n.closedFor("per_ip_live", 1)
	for i := range 3 {
		from(fmt.Sprintf("2001:db8::%d", i+1)).register(fmt.Sprintf("six%d", i))
	}
	from("2001:db8::99").ended() // the same /64
	n.closedFor("per_ip_live", 2)
	from("2001:db8:0:1::1").register("neighbour")

	f := func() *proto.Frame {
		for i := range 5 { // leaves between: this is about registrations
			w := from("203.0.113.7")
			w.register(fmt.Sprintf("farm%d", i))
			_ = w.Close()
			n.closedFor("peer_closed", i+1)
		}
		return from("203.0.113.7").enter(registering("farm5"))
	}()
	if codeOf(f) != proto.ErrorCode_ERROR_CODE_RATE_LIMITED {
		t.Errorf("the sixth registration behind the balancer: %v", f)
	}
}
