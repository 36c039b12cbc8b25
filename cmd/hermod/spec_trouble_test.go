package main

import (
	"encoding/binary"
	"math/bits"
	"time"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/proto"
)

// Errors, GoAway and reconnecting, Versioning.

func troubleCases() []specCase {
	return []specCase{
		{"Errors", "after one with id 0 nothing follows, and what comes in is thrown away", func(s *spec) {
			p := s.person()
			p.send(p.hello(byToken("x")))
			var b []byte
			for range 100 {
				b = append(b, framed(s.T, setState(1))...)
			}
			p.write(b) // no reset, though nobody reads it
			p.fault(proto.ErrorCode_ERROR_CODE_HELLO_REPEATED)
		}},
		{"Errors", "text, retryable and retry_after of every code", func(s *spec) {
			for _, row := range proto.Codes() {
				e := proto.Errorf(row.Code, "").Wire()
				if e.Message == "" || e.Retryable != row.Retryable || time.Duration(e.RetryAfterMs)*time.Millisecond != row.RetryAfter {
					s.Errorf("%s: %v", row.Code.Short(), e)
				}
			}
		}},
		{"GoAway and reconnecting", "what a drained server says", specDrain},
		{"GoAway and reconnecting", "who is just logging in learns it behind the Welcome", func(s *spec) {
			n := serve(s.T, func(cfg *config.Config) {
				cfg.Auth.Argon2MemoryKiB, cfg.Auth.Argon2Time = 64<<10, 8 // a login takes a while
				cfg.Drain.Window, cfg.Drain.Timeout = config.Duration(time.Minute), config.Duration(time.Minute)
			})
			w := s.dialTo(n)
			w.send(w.hello(registering("ann")))
			eventually(s.T, 5*time.Second, "the Hello is looked at", func() bool { return n.metric("hermod_conn_frames_in_total") > 0 })
			done := make(chan struct{})
			go func() { defer close(done); _ = n.Shutdown(nil) }()
			if f := w.frame(); f.GetWelcome() == nil {
				s.Fatalf("the answer to the Hello: %v", f)
			}
			for f := w.frame(); f.GetGoAway() == nil; f = w.frame() {
				if f.GetError() != nil {
					s.Fatalf("before the GoAway: %v", f)
				}
			}
			_ = w.Close()
			<-done
		}},
		{"Versioning", "fields that the server does not know", func(s *spec) {
			a, b := s.person(), s.person()
			f := message(b.dev.user, "known")
			f.Id = 2
			a.write(padded(s.T, f, 4000))
			if got := a.answer(2); got.GetSendAck() == nil {
				s.Fatalf("send: %v", got)
			}
			if e := s.event(b); textOf(e.GetMessage().GetContent()) != "known" || len(e.ProtoReflect().GetUnknown()) > 0 {
				s.Errorf("event %v", e)
			}
		}},
	}
}

func specDrain(s *spec) {
	n := serve(s.T, func(cfg *config.Config) {
		cfg.Drain.Window, cfg.Drain.Timeout = config.Duration(time.Second), config.Duration(3*time.Second)
	})
	stays, silent := s.personOn(n), s.dialTo(n)
	eventually(s.T, 5*time.Second, "both are open", func() bool { return n.metric("hermod_conn_open") == 2 })
	began, done := time.Now(), make(chan struct{})
	go func() { defer close(done); _ = n.Shutdown(nil) }()
	for {
		if g := stays.frame().GetGoAway(); g != nil {
			if g.Reason != proto.GoAwayReason_GO_AWAY_REASON_DRAINING || g.WindowMs != 1000 {
				s.Errorf("got %v", g)
			}
			break
		}
	}
	silent.fault(proto.ErrorCode_ERROR_CODE_DRAINING)
	s.dialTo(n).fault(proto.ErrorCode_ERROR_CODE_DRAINING)
	if f := stays.ask(message(stays.dev.user, "x")); f.GetSendAck() == nil {
		s.Errorf("a request while the node drains: %v", f)
	}
	stays.fault(proto.ErrorCode_ERROR_CODE_DRAINING)
	if took := time.Since(began); took < 900*time.Millisecond {
		s.Errorf("closed %v after the GoAway, within its window", took)
	}
	<-done
}

// pairKey is made as the specification says.
func pairKey(a, b int64) []byte {
	lo, hi := uint64(min(a, b)), uint64(max(a, b))
	x := lo ^ bits.RotateLeft64(hi, 32)
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	if x ^= x >> 31; x%2 == 1 {
		lo, hi = hi, lo
	}
	return binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, lo), hi)
}
