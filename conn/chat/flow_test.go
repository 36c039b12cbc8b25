package chat

import (
	"math/rand/v2"
	"testing"

	"github.com/hermod-im/hermod/storage"
)

func testLimits() *Limits {
	l := &Limits{WindowEvents: 8, WindowBytes: 800}
	l.defaults()
	return l
}

func TestFlowPush(t *testing.T) {
	for _, tt := range []struct {
		name string
		f    flow
		seq  uint64
		size int
		want verdict
	}{
		{"next", flow{sent: 5, acked: 5, known: 5}, 6, 10, forward},
		{"duplicate", flow{sent: 5, acked: 5, known: 5}, 5, 10, stale},
		{"old", flow{sent: 5, acked: 5, known: 5}, 1, 10, stale},
		{"gap", flow{sent: 5, acked: 5, known: 5}, 7, 10, gap},
		{"next, while reading", flow{sent: 5, acked: 5, known: 5, reading: true}, 6, 10, later},
		{"next, but more is known", flow{sent: 5, acked: 5, known: 6}, 6, 10, gap},
		{"first, however large", flow{sent: 5, acked: 5, known: 5}, 6, 10000, forward},
		{"second, too large, window mostly free", flow{sent: 6, acked: 5, known: 6, win: &window{bytes: 10}}, 7, 10000, gap},
		{"window full by count", flow{sent: 13, acked: 5, known: 13, win: &window{bytes: 80}}, 14, 10, full},
		{"window full by bytes", flow{sent: 6, acked: 5, known: 6, win: &window{bytes: 795}}, 7, 10, full},
	} {
		t.Run(tt.name, func(t *testing.T) {
			before := tt.f.known
			if got := tt.f.push(tt.seq, tt.size, testLimits()); got != tt.want {
				t.Errorf("verdict is %d, want %d", got, tt.want)
			}
			if tt.want > stale && tt.f.known != max(before, tt.seq) {
				t.Errorf("known is %d after a push of %d", tt.f.known, tt.seq)
			}
		})
	}
}

func TestFlowAck(t *testing.T) {
	lim, pool := testLimits(), new(windows)
	a, b := storage.PairKey(1, 2), storage.PairKey(1, 3)
	f := flow{sent: 100, acked: 100, known: 100}
	f.note(101, 40, mark{a, 7}, lim, pool)
	f.note(102, 40, mark{a, 8}, lim, pool)
	f.note(103, 40, mark{b, 1}, lim, pool)
	f.note(104, 40, mark{}, lim, pool)
	if f.ack(105, pool, nil) {
		t.Error("an ack of what was never sent was taken")
	}
	got := map[storage.ConvKey]uint64{}
	fold := func(m mark) { got[m.conv] = max(got[m.conv], m.convSeq) }
	if !f.ack(102, pool, fold) || got[a] != 8 || len(got) != 1 {
		t.Errorf("ack of 102 folded %v", got)
	}
	if events, bytes := f.unacked(); events != 2 || bytes != 80 {
		t.Errorf("%d events, %d bytes are on their way", events, bytes)
	}
	if !f.ack(101, pool, func(mark) { t.Error("an older ack folded something") }) {
		t.Error("an older ack is nonsense")
	}
	if !f.ack(104, pool, fold) || got[b] != 1 || f.win != nil {
		t.Errorf("after the last ack: marks %v, window %v", got, f.win)
	}
}

// TestFlowModel plays a session against the plain rule: everything is sent
// once and in order, within the window, and after enough acks nothing is left.
func TestFlowModel(t *testing.T) {
	for seed := range uint64(200) {
		rnd := rand.New(rand.NewPCG(seed, 1))
		lim, pool := testLimits(), new(windows)
		size := func(seq uint64) int { return 20 + int(seq*7919%300) }
		m := func(seq uint64) mark {
			return mark{storage.PairKey(1, storage.UserID(2+seq%3)), seq}
		}
		var f flow
		var head, pushed uint64
		marks := map[storage.ConvKey]uint64{}
		send := func(seq uint64) {
			if seq != f.sent+1 {
				t.Fatalf("seed %d: %d sent after %d", seed, seq, f.sent)
			}
			f.note(seq, size(seq), m(seq), lim, pool)
			if events, bytes := f.unacked(); events > lim.WindowEvents || bytes > lim.WindowBytes && events > 1 {
				t.Fatalf("seed %d: %d events, %d bytes are on their way", seed, events, bytes)
			}
		}
		read := func() { // one page of the reader
			after, events, _ := f.next(lim)
			if events == 0 {
				f.reading = false
				return
			}
			f.known = max(f.known, head)
			for seq := after + 1; seq <= min(head, after+uint64(events)) && f.fits(size(seq), lim); seq++ {
				send(seq)
			}
		}
		ack := func(seq uint64) {
			f.ack(seq, pool, func(m mark) { marks[m.conv] = max(marks[m.conv], m.convSeq) })
			if f.wants(lim) {
				f.reading = true
			}
		}
		for range 500 {
			switch rnd.IntN(6) {
			case 0, 1: // an event is committed
				head++
			case 2, 3: // pushed, or lost
				if pushed < head {
					pushed += 1 + uint64(rnd.IntN(int(head-pushed)))
					switch f.push(pushed, size(pushed), lim) {
					case forward:
						send(pushed)
					case gap:
						f.reading = true
					}
				}
			case 4:
				if f.reading {
					read()
				}
			case 5:
				if f.sent > f.acked {
					ack(f.acked + 1 + uint64(rnd.IntN(int(f.sent-f.acked))))
				}
			}
		}
		f.known = head // the audit
		for range 10000 {
			if f.sent == head && f.acked == head {
				break
			}
			if f.wants(lim) {
				f.reading = true
			}
			if f.reading {
				read()
			}
			ack(f.sent)
		}
		if f.sent != head || f.acked != head || f.win != nil {
			t.Fatalf("seed %d: sent %d, acked %d of %d", seed, f.sent, f.acked, head)
		}
		want := map[storage.ConvKey]uint64{}
		for seq := uint64(1); seq <= head; seq++ {
			want[m(seq).conv] = seq
		}
		for conv, seq := range want {
			if marks[conv] != seq {
				t.Fatalf("seed %d: mark of %v is %d, want %d", seed, conv, marks[conv], seq)
			}
		}
	}
}
