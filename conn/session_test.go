package conn

import (
	"testing"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// The session alone: bytes and time in, actions out.

func testLimits() *Limits {
	l := Limits{MaxInFlight: 4, FrameRate: 10, FrameBurst: 5}.withDefaults()
	return &l
}

func TestSessionPhases(t *testing.T) {
	lim := testLimits()
	s := session{phase: phaseHello, opened: 100}
	first := framed(t, hello(1))
	for i := range len(first) {
		if a := s.read(first[:i], 200, lim); a.step != stepWait || a.size != 0 {
			t.Fatalf("%d bytes of a hello: %+v", i, a)
		}
	}
	if int(s.need) != len(first) {
		t.Errorf("need %d, the frame has %d", s.need, len(first))
	}
	a := s.read(first, 200, lim)
	if a.step != stepFrame || a.size != len(first) {
		t.Fatalf("a hello: %+v", a)
	}
	if a = s.admit(hello(1), 0, 0, 0, lim); a.step != stepFrame || s.phase != phaseLogin {
		t.Fatalf("a hello: %+v in phase %d", a, s.phase)
	}
	if a = s.read(framed(t, request(1)), 300, lim); a.step != stepWait {
		t.Fatalf("before Accept: %+v", a)
	}
	s.accept(300)
	if a = s.read(framed(t, request(1)), 300, lim); a.step != stepFrame {
		t.Fatalf("after Accept: %+v", a)
	}
	if a = s.admit(hello(1), 0, 0, 0, lim); a.reason != ReasonHelloRepeated {
		t.Fatalf("a second hello: %+v", a)
	}
}

func TestSessionDeadlines(t *testing.T) {
	lim := testLimits()
	at := func(s *session, beat uint32) (time.Duration, Reason) {
		d, why := s.deadline(beat, lim)
		return time.Duration(d.since(s.opened)) * time.Millisecond, why
	}
	const opened = stamp(1<<32 - 2000) // the clock wraps within the login
	s := session{phase: phaseHello, opened: opened}
	check := func(beat uint32, want time.Duration, reason Reason) {
		t.Helper()
		if d, why := at(&s, beat); d != want || why != reason {
			t.Errorf("deadline %v for %v, want %v for %v", d, why, want, reason)
		}
	}
	check(0, 5*time.Second, ReasonFirstByte)
	s.started = true
	check(0, 10*time.Second, ReasonLogin)
	s.phase = phaseLogin
	check(0, 10*time.Second, ReasonLogin)
	s.accept(opened.plus(3 * time.Second))
	check(60_000, 93*time.Second, ReasonIdle)
	s.read([]byte{0, 0}, opened.plus(4*time.Second), lim)
	check(60_000, 19*time.Second, ReasonPartialFrame)
	s.read([]byte{0, 0, 0, 9, 1}, opened.plus(8*time.Second), lim)
	check(60_000, 19*time.Second, ReasonPartialFrame)
	s.read([]byte{0, 0, 0, 0}, opened.plus(9*time.Second), lim)
	s.read(nil, opened.plus(9*time.Second), lim)
	check(60_000, 99*time.Second, ReasonIdle)
}

func TestSessionRates(t *testing.T) {
	lim := testLimits() // 10/s, burst 5; closed at 100/s, burst 50
	s := session{phase: phaseLive}
	frame := framed(t, request(1))
	var steps [stepClose + 1]int
	for range 60 {
		steps[s.read(frame, 1000, lim).step]++
	}
	if steps[stepFrame] != 5 || steps[stepRefuse] != 45 || steps[stepClose] != 10 {
		t.Errorf("taken %d, refused %d, closed %d; want 5, 45, 10", steps[stepFrame], steps[stepRefuse], steps[stepClose])
	}
	// Forty a second for a minute is refused for the most part, never closed.
	s, steps = session{phase: phaseLive}, [stepClose + 1]int{}
	for i := range stamp(40 * 60) {
		steps[s.read(frame, 25*i, lim).step]++
	}
	if steps[stepClose] != 0 || steps[stepFrame] < 595 || steps[stepFrame] > 610 {
		t.Errorf("taken %d, closed %d of 40/s in a minute", steps[stepFrame], steps[stepClose])
	}
	s = session{phase: phaseLive, exempt: true}
	for range 1000 {
		if a := s.read(frame, 1000, lim); a.step != stepFrame {
			t.Fatalf("exempt: %+v", a)
		}
	}
}

func TestSessionCredits(t *testing.T) {
	lim := testLimits() // 4 in flight
	s := session{phase: phaseLive}
	for _, test := range []struct {
		open, queued, bytes int
		want                step
	}{
		{0, 0, 0, stepFrame},
		{3, 3, 3000, stepFrame},
		{4, 0, 0, stepRefuse},
		{0, 7, 100, stepFrame}, // one-way frames wait
		{0, 8, 100, stepRefuse},
		{1, 1, lim.MailboxBytes, stepRefuse},
		{0, 0, lim.MailboxBytes, stepFrame},
	} {
		if a := s.admit(request(1), test.open, test.queued, test.bytes, lim); a.step != test.want {
			t.Errorf("%+v: %+v", test, a)
		}
	}
	s.refused = 0
	for i := range floodFactor*4 + 1 {
		a := s.admit(request(1), 4, 4, 0, lim)
		if last := i == floodFactor*4; (a.step == stepClose) != last {
			t.Fatalf("refusal %d: %+v", i, a)
		}
	}
	// With half of the credits back the count starts again.
	if s.admit(request(1), 1, 0, 0, lim); s.refused != 0 {
		t.Errorf("%d refusals are kept", s.refused)
	}
}

// Whatever the bytes, the session consumes no more than it was given, knows
// what it waits for, and does not panic.
func FuzzSession(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 2, 8, 1}, byte(3))
	f.Add([]byte{0, 1, 0, 0, 1}, byte(200))
	f.Fuzz(func(t *testing.T, b []byte, chunk byte) {
		lim := testLimits()
		for _, p := range []phase{phaseHello, phaseLogin, phaseLive} {
			s := session{phase: p, exempt: p == phaseLive}
			var have []byte
			for rest := b; len(rest) > 0; {
				n := min(int(chunk)+1, len(rest))
				have, rest = append(have, rest[:n]...), rest[n:]
				for {
					a := s.read(have, 0, lim)
					if a.step == stepClose {
						return
					}
					if a.step == stepWait {
						if a.size != 0 || s.phase == phaseLive && len(have) > 0 && int(s.need) <= len(have) {
							t.Fatalf("waits for %d bytes with %d at hand", s.need, len(have))
						}
						break
					}
					if a.size < proto.HeaderLen || a.size > len(have) {
						t.Fatalf("took %d of %d bytes", a.size, len(have))
					}
					have = have[a.size:]
				}
			}
		}
	})
}

func TestWheel(t *testing.T) {
	w := &wheel{tick: 10}
	visited := map[*Conn]int64{}
	now := int64(0)
	run := func(to int64) {
		for ; now < to; now++ {
			w.advance(now, func(c *Conn) { visited[c] = now })
		}
	}
	a, b, c, d := &Conn{slot: -1}, &Conn{slot: -1}, &Conn{slot: -1}, &Conn{slot: -1}
	w.arm(a, 100)
	w.arm(b, 500)
	w.arm(c, 500)
	w.arm(d, 500)
	w.arm(b, 200)  // nearer: moves
	w.arm(c, 9000) // farther: stays
	w.remove(d)
	w.remove(d)
	run(1000)
	for conn, want := range map[*Conn]int64{a: 100, b: 200, c: 500} {
		if got := visited[conn]; got < want || got > want+20 {
			t.Errorf("visited at %d, want %d", got, want)
		}
	}
	if len(visited) != 3 {
		t.Errorf("%d visited, want 3", len(visited))
	}
	n := 0
	w.arm(a, 1<<30) // beyond the wheel: as late as it can be
	w.each(func(*Conn) { n++ })
	if n != 1 {
		t.Errorf("each saw %d", n)
	}
	clear(visited)
	run(now + wheelSlots*10 - 30)
	if len(visited) != 0 {
		t.Error("visited early")
	}
	w.advance(now+1_000_000, func(c *Conn) { visited[c] = 1 }) // a jump
	if len(visited) != 1 {
		t.Error("not visited after a jump of the clock")
	}
}

func TestBucketWraps(t *testing.T) {
	b := bucket{}
	now := stamp(1<<32 - 10)
	for range 5 {
		if !b.take(now, 10, 5) {
			t.Fatal("not full")
		}
	}
	if b.take(now, 10, 5) {
		t.Fatal("more than it holds")
	}
	if !b.take(now+150, 10, 5) {
		t.Error("nothing grew back over the wrap")
	}
}
