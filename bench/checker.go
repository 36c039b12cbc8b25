package bench

import "fmt"

// Violation is a kind of broken promise.
type Violation uint8

const (
	// Lost: acknowledged, and at the end not in a recipient's inbox.
	Lost Violation = iota
	// Duplicated: the same message in two places of one inbox.
	Duplicated
	// Reordered: a sender's message after a later one of the same sender.
	Reordered
	// InboxGap: an inbox seq was skipped on one connection.
	InboxGap
	// ConvOrder: conv_seq did not rise by one from message to message.
	ConvOrder
	// Disagreement: ack, sender's inbox and recipient's inbox do not give one
	// message the same conv_seq and rev.
	Disagreement
	// Corrupted: the content is not the one that was sent.
	Corrupted
	// Stray: an event that this inbox must not hold: of a stranger, of another
	// pair, or of a message that was never sent or was refused for good.
	Stray

	violations
)

func (v Violation) String() string {
	names := [violations]string{"lost", "duplicated", "reordered", "inbox_gap", "conv_order", "disagreement", "corrupted", "stray"}
	if v < violations {
		return names[v]
	}
	return fmt.Sprintf("violation(%d)", v)
}

// Seen is one event as a user's device saw it.
type Seen struct {
	// Seq is the inbox seq, Rev and ConvSeq the place in the conversation.
	Seq, Rev, ConvSeq uint64
	// What it is. Other events count for the inbox order only.
	What What
	// From is the side that sent it and Counter which message of that side;
	// only for ThisRun.
	From    int
	Counter uint64
}

// What says what a seen event is.
type What uint8

const (
	// Other is an event that is no message: a security notice, a read mark.
	Other What = iota
	// ThisRun is a message of this pair and run.
	ThisRun
	// EarlierRun is a message of this pair from an earlier run. It counts in
	// conv_seq.
	EarlierRun
	// Broken is a message of this pair with a damaged content.
	Broken
	// Foreign is a message that does not belong in this inbox.
	Foreign
)

// Checker follows one conversation of two users, side 0 and side 1, and says
// which promises were broken. It does no I/O and reads no clock. It forgets a
// message once it is acknowledged and in both inboxes, so its size follows
// what is under way. Not safe for concurrent use.
type Checker struct {
	name  string
	lanes [2]lane  // by sender
	inbox [2]inbox // by owner
	// Count is how often each violation was seen.
	Count [violations]uint64
	// Repeats counts events whose seq the inbox already had. Pushes may
	// repeat; clients drop them by seq.
	Repeats uint64
	note    func(Violation, string)
}

// cell is what is known of one message.
type cell struct {
	rev, convSeq uint64
	flags        uint8
}

const (
	cellAcked   = 1 << iota
	cellRefused // for good
	cellGot0    // in side 0's inbox
	cellGot1    // in side 1's inbox
	cellDone    = cellAcked | cellGot0 | cellGot1
)

// lane is one sender's messages: cells[i] is counter base+i.
type lane struct {
	base  uint64
	cells []cell
	// top is, per inbox, the highest counter seen there.
	top [2]uint64
}

// inbox is the state of one user's log.
type inbox struct {
	seq     uint64
	convSeq uint64 // 0: not known yet
	rev     uint64
	// resets counts how often the server said that events cannot be had any
	// more: those are then looked for in the conversation.
	resets int
}

// NewChecker makes a checker. note, if not nil, hears of every violation.
func NewChecker(name string, note func(Violation, string)) *Checker {
	c := &Checker{name: name, note: note}
	c.lanes[0].base, c.lanes[1].base = 1, 1
	return c
}

// Start sets where a side's inbox stands. Without reset it is the beginning of
// the run. With reset the events between its place and seq cannot be had.
func (c *Checker) Start(side int, seq uint64, reset bool) {
	in := &c.inbox[side]
	in.seq, in.convSeq, in.rev = seq, 0, 0
	if reset {
		in.resets++
	}
}

// Seq returns the last inbox seq that side has: its cursor.
func (c *Checker) Seq(side int) uint64 { return c.inbox[side].seq }

// Sent opens the next message of side from; counters start at 1 without holes.
func (c *Checker) Sent(from int) (counter uint64) {
	l := &c.lanes[from]
	l.cells = append(l.cells, cell{})
	return l.base + uint64(len(l.cells)) - 1
}

// Acked records the server's promise.
func (c *Checker) Acked(from int, counter, rev, convSeq uint64) {
	m, done := c.lanes[from].find(counter)
	if m == nil {
		if !done {
			c.violate(Stray, "side %d: ack of message %d, which was never sent", from, counter)
		}
		return
	}
	m.flags |= cellAcked
	c.place(m, from, counter, rev, convSeq, "ack")
	c.lanes[from].trim()
}

// Refused records that the server refused a message for good: it must not
// appear anywhere.
func (c *Checker) Refused(from int, counter uint64) {
	if m, _ := c.lanes[from].find(counter); m != nil {
		m.flags |= cellRefused
		if m.flags&(cellGot0|cellGot1) != 0 {
			c.violate(Stray, "side %d: message %d was delivered, then refused", from, counter)
		}
	}
}

// Unsent takes back the newest message of a side, which was never written.
func (c *Checker) Unsent(from int) {
	l := &c.lanes[from]
	l.cells = l.cells[:len(l.cells)-1]
}

// Event takes the next event that side's device saw, pushed or synced. It
// reports whether it is new (not a repeat) and whether the inbox order holds;
// after a gap the events between can be had by a sync.
func (c *Checker) Event(side int, e Seen) (fresh, ordered bool) {
	in := &c.inbox[side]
	if e.Seq <= in.seq {
		c.Repeats++
		return false, true
	}
	ordered = e.Seq == in.seq+1
	if !ordered {
		c.violate(InboxGap, "side %d: inbox seq %d after %d", side, e.Seq, in.seq)
		return false, false
	}
	in.seq = e.Seq
	switch e.What {
	case Other:
		return true, true
	case Foreign:
		c.violate(Stray, "side %d: inbox seq %d is not a message of this pair", side, e.Seq)
		return true, true
	}
	c.follow(side, e)
	switch e.What {
	case Broken:
		c.violate(Corrupted, "side %d: content of conv_seq %d", side, e.ConvSeq)
	case ThisRun:
		c.arrived(side, e)
	}
	return true, true
}

// follow checks that conv_seq counts without holes within the inbox.
func (c *Checker) follow(side int, e Seen) {
	in := &c.inbox[side]
	if in.convSeq != 0 && (e.ConvSeq != in.convSeq+1 || e.Rev <= in.rev) {
		c.violate(ConvOrder, "side %d: conv_seq %d rev %d after conv_seq %d rev %d", side, e.ConvSeq, e.Rev, in.convSeq, in.rev)
	}
	in.convSeq, in.rev = max(in.convSeq, e.ConvSeq), max(in.rev, e.Rev)
}

func (c *Checker) arrived(side int, e Seen) {
	l := &c.lanes[e.From]
	m, done := l.find(e.Counter)
	got := uint8(cellGot0 << side)
	switch {
	case m == nil && !done:
		c.violate(Stray, "side %d: message %d of side %d was never sent", side, e.Counter, e.From)
		return
	case done || m.flags&got != 0:
		c.violate(Duplicated, "side %d: message %d of side %d again at inbox seq %d", side, e.Counter, e.From, e.Seq)
		return
	case m.flags&cellRefused != 0:
		c.violate(Stray, "side %d: message %d of side %d was refused, yet delivered", side, e.Counter, e.From)
	}
	if e.Counter < l.top[side] {
		c.violate(Reordered, "side %d: message %d of side %d after %d", side, e.Counter, e.From, l.top[side])
	}
	l.top[side] = max(l.top[side], e.Counter)
	m.flags |= got
	c.place(m, e.From, e.Counter, e.Rev, e.ConvSeq, "inbox")
	l.trim()
}

// place compares the message's place with what is known of it.
func (c *Checker) place(m *cell, from int, counter, rev, convSeq uint64, source string) {
	if m.convSeq == 0 {
		m.rev, m.convSeq = rev, convSeq
		return
	}
	if m.rev != rev || m.convSeq != convSeq {
		c.violate(Disagreement, "message %d of side %d: %s says rev %d conv_seq %d, known was rev %d conv_seq %d",
			counter, from, source, rev, convSeq, m.rev, m.convSeq)
	}
}

// Missing is an acknowledged message that an inbox does not have.
type Missing struct {
	From    int
	Counter uint64
	Rev     uint64
}

// Missing lists what side's inbox should have and has not.
func (c *Checker) Missing(side int) (list []Missing) {
	for from := range c.lanes {
		l := &c.lanes[from]
		for i := range l.cells {
			m := &l.cells[i]
			if m.flags&cellAcked != 0 && m.flags&(cellGot0<<side) == 0 {
				list = append(list, Missing{From: from, Counter: l.base + uint64(i), Rev: m.rev})
			}
		}
	}
	return list
}

// Complete reports whether all that was acknowledged is in both inboxes, and
// nothing waits for its ack.
func (c *Checker) Complete() bool {
	for from := range c.lanes {
		for i := range c.lanes[from].cells {
			if m := &c.lanes[from].cells[i]; m.flags&cellRefused == 0 && m.flags&cellDone != cellDone {
				return false
			}
		}
	}
	return true
}

// FoundInLog settles a missing message that the conversation's log has. That
// is enough where the inbox was reset (retention); otherwise the inbox lost it.
func (c *Checker) FoundInLog(side int, m Missing) {
	if c.inbox[side].resets > 0 {
		if cell, _ := c.lanes[m.From].find(m.Counter); cell != nil {
			cell.flags |= cellGot0 << side
		}
		return
	}
	c.violate(Lost, "side %d: message %d of side %d (rev %d) is in the conversation, not in the inbox", side, m.Counter, m.From, m.Rev)
}

// LostEverywhere settles a missing message that the log does not have either.
func (c *Checker) LostEverywhere(side int, m Missing) {
	c.violate(Lost, "side %d: message %d of side %d (rev %d) was acknowledged and is nowhere", side, m.Counter, m.From, m.Rev)
}

// Resets returns how often side's inbox was reset.
func (c *Checker) Resets(side int) int { return c.inbox[side].resets }

func (c *Checker) violate(v Violation, format string, args ...any) {
	c.Count[v]++
	if c.note != nil {
		c.note(v, c.name+", "+fmt.Sprintf(format, args...))
	}
}

// find returns the cell of a counter; done means that it was complete and is
// forgotten.
func (l *lane) find(counter uint64) (m *cell, done bool) {
	if counter == 0 {
		return nil, false
	}
	if counter < l.base {
		return nil, true
	}
	if i := counter - l.base; i < uint64(len(l.cells)) {
		return &l.cells[i], false
	}
	return nil, false
}

// trim forgets complete messages at the front.
func (l *lane) trim() {
	n := 0
	for n < len(l.cells) && l.cells[n].flags&cellDone == cellDone {
		n++
	}
	l.cells = l.cells[n:]
	l.base += uint64(n)
}

// Skip moves side's inbox to just before seq: what is between is not in the
// storage either.
func (c *Checker) Skip(side int, seq uint64) {
	in := &c.inbox[side]
	in.seq, in.convSeq, in.rev = seq-1, 0, 0
}
