package chat

import (
	"sync"

	"github.com/hermod-im/hermod/storage"
)

// flow is where one session stands in its user's inbox. It is the rule for
// what may be sent next, without any I/O; session.mu guards it.
//
// Invariant: events leave in the order sent+1, sent+2, …, either from a live
// push or from the one reader that holds `reading`, never from both.
type flow struct {
	sent  uint64 // newest seq in the outbox
	acked uint64 // newest seq the device has stored
	known uint64 // newest seq that exists, as far as we know
	// reading: a reader (or the admission) has the sole right to send; pushes
	// only raise known, and the reader goes on until it has sent that.
	reading  bool
	caughtUp bool
	// win holds what is on its way; nil when all is acknowledged.
	win *window
}

// window is the unacknowledged events, several to a point.
type window struct {
	points []point
	head   int
	bytes  int
}

// point is a run of events: the newest one's seq, their bytes, and the
// delivered mark that acknowledging them means (convSeq 0: none).
type point struct {
	seq     uint64
	convSeq uint64
	conv    storage.ConvKey
	bytes   int32
}

// mark is what an event means for delivered marks: the conversation, and the
// conv_seq if it is somebody else's message, 0 otherwise.
type mark struct {
	conv    storage.ConvKey
	convSeq uint64
}

// windows is the pool of empty windows: a session in a lively chat needs one
// a few milliseconds per message.
type windows struct{ pool sync.Pool }

func (p *windows) get() *window {
	if w, ok := p.pool.Get().(*window); ok {
		return w
	}
	return &window{points: make([]point, 0, 4)}
}

func (p *windows) put(w *window) {
	if cap(w.points) > 64 {
		return
	}
	w.points, w.head, w.bytes = w.points[:0], 0, 0
	p.pool.Put(w)
}

// verdict is what becomes of a live push.
type verdict uint8

const (
	forward verdict = iota // send it now
	stale                  // sent before
	later                  // the reader that is at work will come to it
	gap                    // start a reader
	full                   // the window is full: a later ack starts a reader
)

// push decides about a live event of size bytes.
func (f *flow) push(seq uint64, size int, lim *Limits) verdict {
	switch {
	case seq <= f.sent:
		return stale
	case f.reading:
		f.known = max(f.known, seq)
		return later
	case seq == f.sent+1 && f.known <= f.sent && f.fits(size, lim):
		return forward
	}
	f.known = max(f.known, seq)
	if !f.wants(lim) {
		return full
	}
	return gap
}

// note records that event seq of size bytes is in the outbox.
func (f *flow) note(seq uint64, size int, m mark, lim *Limits, pool *windows) {
	f.sent, f.known = seq, max(f.known, seq)
	w := f.win
	if w == nil {
		w = pool.get()
		f.win = w
	}
	w.bytes += size
	if n := len(w.points); n > w.head {
		// Runs stay short, so that partial acks free most of what they cover.
		p := &w.points[n-1]
		if int(p.bytes)+size <= lim.WindowBytes/16 && (m.convSeq == 0 || p.convSeq == 0 || p.conv == m.conv) {
			p.seq, p.bytes = seq, p.bytes+int32(size)
			if m.convSeq != 0 {
				p.conv, p.convSeq = m.conv, m.convSeq
			}
			return
		}
	}
	w.points = append(w.points, point{seq: seq, convSeq: m.convSeq, conv: m.conv, bytes: int32(size)})
}

// ack takes a cumulative acknowledgement and hands the marks it means to fold.
// It reports false for what was never sent (nonsense, ignored).
func (f *flow) ack(seq uint64, pool *windows, fold func(mark)) bool {
	if seq > f.sent {
		return false
	}
	if seq <= f.acked {
		return true
	}
	f.acked = seq
	w := f.win
	if w == nil {
		return true
	}
	for w.head < len(w.points) && w.points[w.head].seq <= seq {
		p := &w.points[w.head]
		w.bytes -= int(p.bytes)
		if p.convSeq != 0 {
			fold(mark{p.conv, p.convSeq})
		}
		w.head++
	}
	switch {
	case w.head == len(w.points):
		f.win = nil
		pool.put(w)
	case w.head > 32 && w.head > len(w.points)/2:
		w.points = append(w.points[:0], w.points[w.head:]...)
		w.head = 0
	}
	return true
}

func (f *flow) unacked() (events, bytes int) {
	if f.win != nil {
		bytes = f.win.bytes
	}
	return int(f.sent - f.acked), bytes
}

// fits reports whether an event of size bytes may be sent now. One event may
// always be on its way, however large.
func (f *flow) fits(size int, lim *Limits) bool {
	events, bytes := f.unacked()
	return events == 0 || events < lim.WindowEvents && bytes+size <= lim.WindowBytes
}

// wants reports whether a reader should start: there is something to send and
// at least half of the window is free. (Starting as soon as one event fits
// costs a storage read per ack.)
func (f *flow) wants(lim *Limits) bool {
	events, bytes := f.unacked()
	return !f.reading && f.known > f.sent && events <= lim.WindowEvents/2 && bytes <= lim.WindowBytes/2
}

// next says what the reader may read; events 0: nothing for now.
func (f *flow) next(lim *Limits) (after uint64, events, bytes int) {
	have, weigh := f.unacked()
	events = min(maxSyncEvents, lim.WindowEvents-have)
	bytes = min(pageBytes, lim.WindowBytes-weigh)
	if have == 0 {
		events, bytes = max(events, 1), max(bytes, 1)
	}
	if events <= 0 || bytes <= 0 || f.known <= f.sent {
		events, bytes = 0, 0
	}
	return f.sent, events, bytes
}
