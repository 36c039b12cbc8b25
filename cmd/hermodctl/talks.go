package main

import (
	"cmp"
	"slices"
	"strings"
	"time"
)

// status of a line that this device sent.
type status uint8

const (
	received  status = iota // from the server: another's, or an own one from elsewhere
	sending                 // not yet acknowledged
	sent                    // durable
	delivered               // on a device of the peer
	failed
)

// line is one message as shown.
type line struct {
	sendID  [16]byte
	rev     uint64
	convSeq uint64 // 0 while sending
	from    int64
	at      time.Time
	text    string
	status  status
	why     string // of failed
}

// talk is one conversation as the terminal knows it.
type talk struct {
	key       string // 16 bytes; empty until the server has named it
	peer      int64
	lines     []line // by conv_seq, then what is still on its way
	head      uint64 // conv_seq of the newest message
	read      uint64 // own read mark
	peerHas   uint64 // the peer's delivered mark
	newest    time.Time
	typing    time.Time // the peer types, shown until then
	heard     time.Time // the peer's last message came
	more      bool      // history goes further back
	oldestRev uint64    // of what is loaded; 0: nothing is
	loading   bool
}

// talks is everything shown, without a terminal: events go in, the view reads.
type talks struct {
	me    int64
	names map[int64]string
	all   []*talk
}

func newTalks() *talks { return &talks{names: make(map[int64]string)} }

// with returns the conversation with peer, making it.
func (ts *talks) with(peer int64) *talk {
	for _, t := range ts.all {
		if t.peer == peer {
			return t
		}
	}
	t := &talk{peer: peer}
	ts.all = append(ts.all, t)
	return t
}

// byKey returns the conversation of a server's key, or nil.
func (ts *talks) byKey(key string) *talk {
	for _, t := range ts.all {
		if t.key == key && key != "" {
			return t
		}
	}
	return nil
}

// sort puts the newest talk first.
func (ts *talks) sort() {
	slices.SortStableFunc(ts.all, func(a, b *talk) int { return b.newest.Compare(a.newest) })
}

// name of a user, as far as it is known.
func (ts *talks) name(user int64) string {
	if user == ts.me {
		return "me"
	}
	if n := ts.names[user]; n != "" {
		return n
	}
	return "…"
}

// unread counts what is to be read, as the server does: an own message has
// been read.
func (t *talk) unread(me int64) uint64 {
	seen := t.read
	for _, l := range t.lines {
		if l.from == me && l.convSeq > seen {
			seen = l.convSeq
		}
	}
	if t.head <= seen {
		return 0
	}
	return t.head - seen
}

// put adds or completes a message: events repeat, and may come before or after
// the acknowledgement and the history of the same message.
func (t *talk) put(l line) {
	t.head = max(t.head, l.convSeq)
	if l.at.After(t.newest) {
		t.newest = l.at
	}
	at := slices.IndexFunc(t.lines, func(o line) bool {
		return l.convSeq != 0 && o.convSeq == l.convSeq || o.sendID == l.sendID && l.sendID != [16]byte{}
	})
	if at < 0 {
		t.lines = append(t.lines, l)
	} else {
		o := &t.lines[at]
		o.rev, o.convSeq, o.at = max(o.rev, l.rev), max(o.convSeq, l.convSeq), l.at
		if o.text == "" {
			o.text = l.text
		}
		if o.status == sending || o.status == failed {
			o.status = sent
		}
	}
	t.sort()
	t.mark(0)
}

// sort orders by conv_seq; what has none yet stays behind, as it was written.
func (t *talk) sort() {
	slices.SortStableFunc(t.lines, func(a, b line) int {
		if (a.convSeq == 0) != (b.convSeq == 0) {
			return cmp.Compare(b.convSeq, a.convSeq)
		}
		return cmp.Compare(a.convSeq, b.convSeq)
	})
}

// mark raises the peer's delivered mark and the lines below it.
func (t *talk) mark(convSeq uint64) {
	t.peerHas = max(t.peerHas, convSeq)
	for i := range t.lines {
		if l := &t.lines[i]; l.status == sent && l.convSeq != 0 && l.convSeq <= t.peerHas {
			l.status = delivered
		}
	}
}

// fail says why a line could not be sent.
func (t *talk) fail(id [16]byte, why string) {
	for i := range t.lines {
		if l := &t.lines[i]; l.sendID == id && l.status == sending {
			l.status, l.why = failed, why
		}
	}
}

// printable drops what could drive the terminal: a peer's text is not trusted.
func printable(s string) string {
	return strings.Map(func(r rune) rune {
		switch {
		case r == '\n':
			return r
		case r == '\t':
			return ' '
		case r < 0x20, r >= 0x7f && r < 0xa0: // C0, DEL, C1
			return -1
		case r >= 0x202a && r <= 0x202e, r >= 0x2066 && r <= 0x2069: // direction overrides
			return -1
		}
		return r
	}, s)
}
