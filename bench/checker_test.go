package bench

import (
	"strings"
	"testing"
)

// script drives a checker through a conversation in which side 0 writes.
type script struct {
	*Checker
	t    *testing.T
	seq  [2]uint64
	said []string
}

func newScript(t *testing.T) *script {
	s := &script{t: t}
	s.Checker = NewChecker("pair 0", func(v Violation, text string) { s.said = append(s.said, v.String()+": "+text) })
	s.Start(0, 100, false)
	s.Start(1, 200, false)
	s.seq = [2]uint64{100, 200}
	return s
}

// send opens n messages.
func (s *script) send(n int) {
	for range n {
		s.Sent(0)
	}
}

// see puts message counter, at conv_seq place, into the next row of a side.
func (s *script) see(side int, counter, place uint64) {
	s.seq[side]++
	s.Event(side, Seen{Seq: s.seq[side], Rev: place, ConvSeq: place, What: ThisRun, From: 0, Counter: counter})
}

// whole acks a message and shows it to both.
func (s *script) whole(counter, place uint64) {
	s.Acked(0, counter, place, place)
	s.see(0, counter, place)
	s.see(1, counter, place)
}

// settle ends the run as verify does, with nothing in the storage.
func (s *script) settle() {
	for side := range 2 {
		for _, m := range s.Missing(side) {
			s.LostEverywhere(side, m)
		}
	}
}

func TestCheckerCatchesEveryViolation(t *testing.T) {
	type want map[Violation]uint64
	cases := []struct {
		name string
		run  func(*script)
		want want
	}{
		{"all is well", func(s *script) { s.send(3); s.whole(1, 1); s.whole(2, 2); s.whole(3, 3) }, want{}},
		{"events before acks", func(s *script) {
			s.send(1)
			s.see(1, 1, 1)
			s.see(0, 1, 1)
			s.Acked(0, 1, 1, 1)
		}, want{}},
		{"unacked messages may be nowhere", func(s *script) { s.send(2); s.whole(1, 1) }, want{}},
		{"unacked messages may be somewhere", func(s *script) { s.send(1); s.see(1, 1, 1) }, want{}},
		{"repeated push", func(s *script) { s.send(1); s.whole(1, 1); s.seq[1]--; s.see(1, 1, 1) }, want{}},
		{"other events count only for the inbox", func(s *script) {
			s.send(2)
			s.whole(1, 1)
			s.seq[1]++
			s.Event(1, Seen{Seq: s.seq[1]})
			s.whole(2, 2)
		}, want{}},
		{"an earlier run's straggler", func(s *script) {
			s.send(1)
			s.seq[1]++
			s.Event(1, Seen{Seq: s.seq[1], Rev: 1, ConvSeq: 1, What: EarlierRun})
			s.whole(1, 2)
		}, want{}},

		{"lost at the receiver", func(s *script) { s.send(1); s.Acked(0, 1, 1, 1); s.see(0, 1, 1); s.settle() }, want{Lost: 1}},
		{"lost at the sender", func(s *script) { s.send(1); s.Acked(0, 1, 1, 1); s.see(1, 1, 1); s.settle() }, want{Lost: 1}},
		{"lost everywhere", func(s *script) { s.send(1); s.Acked(0, 1, 1, 1); s.settle() }, want{Lost: 2}},
		{"only in the log", func(s *script) {
			s.send(1)
			s.Acked(0, 1, 1, 1)
			s.see(0, 1, 1)
			s.FoundInLog(1, s.Missing(1)[0])
		}, want{Lost: 1}},
		{"only in the log after a reset", func(s *script) {
			s.send(1)
			s.Acked(0, 1, 1, 1)
			s.see(0, 1, 1)
			s.Start(1, 500, true)
			s.FoundInLog(1, s.Missing(1)[0])
			s.settle()
		}, want{}},
		{"duplicate of an open message", func(s *script) { s.send(1); s.see(1, 1, 1); s.see(1, 1, 2) }, want{Duplicated: 1}},
		{"duplicate of a forgotten message", func(s *script) { s.send(1); s.whole(1, 1); s.see(1, 1, 2) }, want{Duplicated: 1}},
		{"reordered", func(s *script) {
			s.send(2)
			s.see(1, 2, 1)
			s.see(1, 1, 2)
		}, want{Reordered: 1}},
		{"inbox gap", func(s *script) { s.send(2); s.whole(1, 1); s.seq[1]++; s.see(1, 2, 2) }, want{InboxGap: 1}},
		{"conv_seq jumps", func(s *script) { s.send(2); s.see(1, 1, 1); s.see(1, 2, 3) }, want{ConvOrder: 1}},
		{"conv_seq goes back", func(s *script) { s.send(2); s.see(1, 1, 5); s.see(1, 2, 4) }, want{ConvOrder: 1}},
		{"rev stands still", func(s *script) {
			s.send(2)
			s.see(1, 1, 1)
			s.seq[1]++
			s.Event(1, Seen{Seq: s.seq[1], Rev: 1, ConvSeq: 2, What: ThisRun, Counter: 2})
		}, want{ConvOrder: 1}},
		{"ack and inbox disagree", func(s *script) { s.send(1); s.Acked(0, 1, 7, 7); s.see(1, 1, 8) }, want{Disagreement: 1}},
		{"the two inboxes disagree", func(s *script) { s.send(1); s.see(0, 1, 7); s.see(1, 1, 8) }, want{Disagreement: 1}},
		{"a retry got another answer", func(s *script) { s.send(1); s.Acked(0, 1, 7, 7); s.Acked(0, 1, 8, 8) }, want{Disagreement: 1}},
		{"corrupted", func(s *script) {
			s.seq[1]++
			s.Event(1, Seen{Seq: s.seq[1], Rev: 1, ConvSeq: 1, What: Broken})
		}, want{Corrupted: 1}},
		{"foreign", func(s *script) {
			s.seq[1]++
			s.Event(1, Seen{Seq: s.seq[1], Rev: 1, ConvSeq: 1, What: Foreign})
		}, want{Stray: 1}},
		{"never sent", func(s *script) { s.send(1); s.see(1, 2, 1) }, want{Stray: 1}},
		{"ack of nothing", func(s *script) { s.Acked(0, 1, 1, 1) }, want{Stray: 1}},
		{"refused, then delivered", func(s *script) { s.send(1); s.Refused(0, 1); s.see(1, 1, 1) }, want{Stray: 1}},
		{"delivered, then refused", func(s *script) { s.send(1); s.see(1, 1, 1); s.Refused(0, 1) }, want{Stray: 1}},
	}
	caught := make(map[Violation]bool)
	for _, c := range cases {
		t.Run(c.name, func(t *testing.T) {
			s := newScript(t)
			c.run(s)
			for v := range violations {
				if s.Count[v] != c.want[v] {
					t.Errorf("%s: %d, want %d (%s)", v, s.Count[v], c.want[v], strings.Join(s.said, "; "))
				}
				if c.want[v] > 0 {
					caught[v] = true
				}
			}
		})
	}
	for v := range violations {
		if !caught[v] {
			t.Errorf("no case shows that %s is caught", v)
		}
	}
}

func TestCheckerForgetsWhatIsDone(t *testing.T) {
	s := newScript(t)
	for n := uint64(1); n <= 10_000; n++ {
		s.send(1)
		s.whole(n, n)
		if open := len(s.lanes[0].cells); open != 0 {
			t.Fatalf("message %d: %d are kept", n, open)
		}
	}
	if !s.Complete() {
		t.Fatal("not complete")
	}
	s.send(1)
	if s.Complete() {
		t.Fatal("complete with an open message")
	}
	s.Unsent(0)
	if !s.Complete() {
		t.Fatal("not complete after the open one was taken back")
	}
}

func TestCheckerGoesOnAfterAGap(t *testing.T) {
	s := newScript(t)
	s.send(1)
	if fresh, ordered := s.Event(1, Seen{Seq: 203, Rev: 1, ConvSeq: 1, What: ThisRun, Counter: 1}); fresh || ordered {
		t.Fatal("took an event beyond a gap")
	}
	if s.Seq(1) != 200 {
		t.Fatalf("the cursor moved to %d", s.Seq(1))
	}
	s.Skip(1, 203)
	if fresh, ordered := s.Event(1, Seen{Seq: 203, Rev: 1, ConvSeq: 1, What: ThisRun, Counter: 1}); !fresh || !ordered {
		t.Fatal("did not take it after the skip")
	}
}
