package torture

import (
	"context"
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/hermod-im/hermod/proto"
)

// checker compares what was acknowledged, what devices applied and what the
// stores hold. It is used once, when nobody writes any more.
type checker struct {
	h      *History
	stores Stores

	logs    map[uint32]*convLog // by conversation
	inboxes []*inbox            // by person
	blocks  map[pairOf][]*block
	// stands is where each message is in a log, by number; conv 0: nowhere.
	stands []standing

	found   []Violation
	count   [invariants]int
	applied int
	lost    int
	twice   int
}

// pairOf is who writes and to whom.
type pairOf struct{ from, to int32 }

// standing is a place in a conversation.
type standing struct{ conv, rev, convSeq uint32 }

// convLog is a conversation as its home has it; entry i has rev i+1, unless a
// violation was found.
type convLog struct {
	key     ConvKey
	entries []entry
}

// entry is an entry of a log, without its body.
type entry struct {
	message, convSeq uint32
	rev              uint32
	sender           int64
	time             int64
	kind             uint16
}

// inbox is a person's, without bodies; row i has seq floor+1+i, unless a
// violation was found.
type inbox struct {
	Inbox // without Rows
	rows  []row
}

type row struct {
	seq, conv, rev, convSeq, message uint32
	kind                             uint16
}

func newChecker(h *History, s Stores) *checker {
	c := &checker{h: h, stores: s, logs: make(map[uint32]*convLog), stands: make([]standing, h.count), blocks: make(map[pairOf][]*block)}
	for _, b := range h.blocks {
		k := pairOf{b.whom, b.by}
		c.blocks[k] = append(c.blocks[k], b)
	}
	return c
}

// mostFound is how many violations of one invariant are told in words.
const mostFound = 10

// violated notes a violation.
func (c *checker) violated(i Invariant, messages []uint32, format string, args ...any) {
	c.count[i]++
	if c.count[i] > mostFound {
		return
	}
	v := Violation{Invariant: i, Text: fmt.Sprintf(format, args...)}
	for _, n := range messages {
		if n != 0 {
			v.Messages = append(v.Messages, int(n))
		}
	}
	c.found = append(c.found, v)
}

// check reads the stores and finds everything that is wrong. The error says
// that they could not be read.
func (c *checker) check(ctx context.Context) error {
	for person := range c.h.people {
		if err := c.readInbox(ctx, int32(person)); err != nil {
			return fmt.Errorf("inbox of %s: %w", c.h.people[person].name, err)
		}
	}
	// Reading inboxes has added the conversations that only stores know.
	for n := 1; n < len(c.h.keys); n++ {
		if err := c.readLog(ctx, uint32(n)); err != nil {
			return fmt.Errorf("conversation %v: %w", c.h.keys[n], err)
		}
	}
	c.checkAcks()
	c.checkBlocks()
	for person, in := range c.inboxes {
		c.checkInbox(int32(person), in)
	}
	for _, d := range c.h.devices {
		c.checkDevice(d)
	}
	return c.checkTotals(ctx)
}

// checkAcks: every acknowledged message stands where its ack said (I1). What was
// not acknowledged may stand somewhere or not (I8), if there was a reason to
// refuse it; that it stands once only was seen when the logs were read.
func (c *checker) checkAcks() {
	for _, n := range c.h.fickle {
		m := c.h.at(n)
		c.violated(I1, []uint32{n}, "message %d was acknowledged as rev %d, place %d of %v, and answered otherwise when it was sent again", n, m.rev, m.convSeq, c.h.keys[m.conv])
	}
	for n := uint32(1); n < uint32(c.h.count); n++ {
		m, s := c.h.at(n), c.stands[n]
		switch {
		case m.outcome == refused && !c.mayRefuse(m):
			c.violated(I8, []uint32{n}, "message %d was refused for no reason: %s", n, proto.ErrorCode(m.code).Short())
		case m.outcome != acked:
		case s.conv == 0:
			c.lost++
			c.violated(I1, []uint32{n}, "message %d was acknowledged as rev %d of %v, and is in no conversation", n, m.rev, c.h.keys[m.conv])
		case s != standing{m.conv, m.rev, m.convSeq}:
			c.violated(I1, []uint32{n}, "message %d was acknowledged as rev %d, place %d of %v, and stands at rev %d, place %d of %v",
				n, m.rev, m.convSeq, c.h.keys[m.conv], s.rev, s.convSeq, c.h.keys[s.conv])
		}
	}
}

// blockKnown is how long after its answer a block may be unknown to another
// shard, in ms: 5 s, and one for the two clocks of a test.
const blockKnown = 6000

// checkBlocks: nobody who was blocked gets through (I5).
func (c *checker) checkBlocks() {
	if len(c.blocks) == 0 {
		return
	}
	for n := uint32(1); n < uint32(c.h.count); n++ {
		m := c.h.at(n)
		for _, b := range c.blocks[pairOf{m.from, m.to}] {
			if m.outcome == acked && b.from > 0 && m.begun >= b.from+blockKnown && m.ended <= b.until {
				c.violated(I5, []uint32{n}, "message %d was let through from %s, whom %s had blocked %d ms before",
					n, c.h.people[m.from].name, c.h.people[m.to].name, m.begun-b.from)
			}
		}
	}
}

// mayRefuse: what people write is in order, so the only reason to refuse it for
// good is that its sender has been blocked. INTERNAL is a server's trouble, which
// the client has given up on.
func (c *checker) mayRefuse(m *message) bool {
	switch proto.ErrorCode(m.code) {
	case proto.ErrorCode_ERROR_CODE_INTERNAL:
		return true
	case proto.ErrorCode_ERROR_CODE_NOT_ALLOWED:
		return slices.ContainsFunc(c.blocks[pairOf{m.from, m.to}], func(b *block) bool { return b.asked <= m.ended })
	}
	return false
}

// mayBeRefused: the first time that a message reached the server, its sender may
// have been blocked. If that answer is lost, with the app or with a connection,
// the message goes out again, and may come late, behind others.
func (c *checker) mayBeRefused(m *message) bool {
	for _, b := range c.blocks[pairOf{m.from, m.to}] {
		if (m.outcome == open || m.ended >= b.asked) && (b.over == 0 || m.begun <= b.over+blockKnown) {
			return true
		}
	}
	return false
}

// checkTotals: the shards hold what was read, and nothing else.
func (c *checker) checkTotals(ctx context.Context) error {
	got, err := c.stores.Totals(ctx)
	if err != nil {
		return fmt.Errorf("counting rows: %w", err)
	}
	var want Totals
	for _, in := range c.inboxes {
		want.Inbox += len(in.rows)
	}
	for _, l := range c.logs {
		want.Entries += len(l.entries)
	}
	if got.Inbox != want.Inbox || got.Entries != want.Entries {
		c.violated(I5, nil, "the stores hold %d inbox rows and %d entries; the people's own are %d and %d", got.Inbox, got.Entries, want.Inbox, want.Entries)
	}
	if got.Tasks != 0 {
		c.violated(I9, nil, "the stores hold %d tasks", got.Tasks)
	}
	return nil
}

// keyOf names the conversation of two users.
func keyOf(home, other int64) (k ConvKey) {
	binary.BigEndian.PutUint64(k[:], uint64(home))
	binary.BigEndian.PutUint64(k[8:], uint64(other))
	return k
}

// ids are the two that a conversation is of.
func (k ConvKey) ids() (home, other int64) {
	return int64(binary.BigEndian.Uint64(k[:8])), int64(binary.BigEndian.Uint64(k[8:]))
}

// of reports whether it is between two users.
func (k ConvKey) of(a, b int64) bool {
	home, other := k.ids()
	return home == a && other == b || home == b && other == a
}

// has reports whether a user is one of them.
func (k ConvKey) has(user int64) bool {
	home, other := k.ids()
	return user == home || user == other
}

// String shows both ids.
func (k ConvKey) String() string {
	home, other := k.ids()
	return fmt.Sprintf("%d‖%d", home, other)
}
