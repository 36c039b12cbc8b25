package torture

import (
	"context"
	"slices"
	"strings"
	"testing"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/proto"
)

// held is a History, and Stores that hold what it says: two people, ann with a
// phone and bob with a phone and a desktop. Ann sends 1 and 2, bob sends 3, and
// ann sends 4, which nobody answers. It is the whole world of TestChecker, which
// breaks one thing in it at a time.
type held struct {
	h       *History
	inboxes map[int64]*Inbox
	logs    map[ConvKey]*Log
	extra   Totals
}

const ann, bob, carl = 100, 200, 300

var pair = keyOf(ann, bob)

func (w *held) Inbox(_ context.Context, user int64) (Inbox, bool, error) {
	in, ok := w.inboxes[user]
	if !ok {
		return Inbox{}, false, nil
	}
	return *in, true, nil
}

func (w *held) Log(_ context.Context, conv ConvKey) (Log, error) {
	if l, ok := w.logs[conv]; ok {
		return *l, nil
	}
	return Log{Conv: conv}, nil
}

func (w *held) Totals(context.Context) (n Totals, err error) {
	n = w.extra
	for _, in := range w.inboxes {
		n.Inbox += len(in.Rows)
	}
	for _, l := range w.logs {
		n.Entries += len(l.Entries)
	}
	return n, nil
}

func (w *held) Close() error { return nil }

// newHeld makes the world in which nothing is wrong.
func newHeld(t *testing.T) *held {
	t.Helper()
	h := NewHistory(7)
	w := &held{h: h, inboxes: map[int64]*Inbox{}, logs: map[ConvKey]*Log{pair: {Conv: pair}}}
	var devices []*record
	for i, a := range []account{{ann, "ann"}, {bob, "bob"}, {carl, "carl"}} {
		n := h.person(a.name)
		h.identify(n, a.id)
		w.inboxes[a.id] = &Inbox{User: a.id, Epoch: 9}
		devices = append(devices, h.device(n, 1))
		if i == 1 {
			devices = append(devices, h.device(n, 3))
		}
	}
	conv := h.conv(pair[:])
	w.say(devices[0], 1)
	w.say(devices[0], 1)
	w.say(devices[1], 0)
	w.say(devices[0], 1)
	for n := uint32(1); n <= 3; n++ {
		h.answer(n, acked, func(m *message) { m.conv, m.rev, m.convSeq = conv, n, n })
	}
	h.read(1, pair[:], 2)
	w.inboxes[bob].Views[0].Read = 2
	for _, d := range devices {
		d.lives = []*life{w.live(d.person)}
	}
	return w
}

// say sends a message and stores it where it belongs.
func (w *held) say(from *record, to int32) {
	n := uint32(w.h.count)
	w.h.begin([16]byte{byte(n), 1}, from, to)
	log := w.logs[pair]
	s := stamp{7, n, w.h.people[from.person].id, w.h.people[to].id}
	body, _ := gproto.Marshal(s.content(64))
	r := Row{Conv: pair, Rev: log.Rev + 1, ConvSeq: log.ConvSeq + 1, Time: int64(log.Rev + 1), Sender: s.from, Kind: KindMessage, SendID: [16]byte{byte(n), 1}, Body: body}
	log.Rev, log.ConvSeq = r.Rev, r.ConvSeq
	log.Entries = append(log.Entries, r)
	for _, user := range []int64{ann, bob} {
		in := w.inboxes[user]
		in.Seq++
		r.Seq = in.Seq
		in.Rows = append(in.Rows, r)
		in.Views = []View{{Conv: pair, HeadRev: r.Rev, Head: r.ConvSeq}}
	}
}

// turn has two messages of the conversation change places, everywhere.
func (w *held) turn(i, k int) {
	change := func(rows []Row) {
		a, b := &rows[i], &rows[k]
		a.SendID, b.SendID, a.Body, b.Body = b.SendID, a.SendID, b.Body, a.Body
	}
	change(w.logs[pair].Entries)
	change(w.inboxes[ann].Rows)
	change(w.inboxes[bob].Rows)
	for _, d := range w.h.devices[:3] {
		s := d.lives[0].seen
		s[i].message, s[k].message = s[k].message, s[i].message
	}
	a, b := w.h.at(uint32(i)+1), w.h.at(uint32(k)+1)
	a.rev, b.rev, a.convSeq, b.convSeq = b.rev, a.rev, b.convSeq, a.convSeq
}

// live is the life of a device that applied all, after a rebuild at the start.
func (w *held) live(person int32) *life {
	l := &life{epoch: 9}
	for _, r := range w.inboxes[w.h.people[person].id].Rows {
		l.seen = append(l.seen, sight{seq: uint32(r.Seq), rev: uint32(r.Rev), convSeq: uint32(r.ConvSeq), conv: w.h.convs[r.Conv], message: w.h.byID[r.SendID]})
	}
	return l
}

// refuse has message 4, which stands all the same, answered by an error.
func (w *held) refuse(code proto.ErrorCode) {
	w.h.answer(4, refused, func(m *message) { m.code = int32(code) })
}

// retry has message n, which was acknowledged, answered once more.
func (w *held) retry(n uint32, how outcome, rev uint32) {
	w.h.answer(n, how, func(m *message) {
		if how == acked {
			m.rev, m.convSeq = rev, rev
		} else {
			m.code = int32(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
		}
	})
}

// marks stores a read mark of one user with another, too, who has seen it.
func (w *held) marks(user, reader int64) {
	own := keyOf(reader, reader)
	r := Row{Conv: own, Rev: 1, Time: 1, Sender: reader, Kind: kindRead}
	w.logs[own] = &Log{Conv: own, Rev: 1, Entries: []Row{r}}
	for _, u := range []int64{user, reader} {
		in := w.inboxes[u]
		in.Seq++
		r.Seq = in.Seq
		in.Rows = append(in.Rows, r)
	}
	w.h.conv(own[:])
	for _, d := range w.h.devices {
		d.lives[0] = w.live(d.person)
		for i := range d.lives[0].seen {
			if s := &d.lives[0].seen[i]; s.message == 0 {
				s.kind = sawOther
			}
		}
	}
}

// desktop is the life of bob's second device.
func (w *held) desktop() *life { return w.h.devices[2].lives[0] }

// drop takes row i out of an inbox, renumber has the seqs follow each other.
func (in *Inbox) drop(i int, renumber bool) {
	in.Rows = slices.Delete(slices.Clone(in.Rows), i, i+1)
	if !renumber {
		return
	}
	in.Seq--
	for k := range in.Rows {
		in.Rows[k].Seq = uint64(k) + 1
	}
}

// TestChecker: each invariant, violated once in a world that is otherwise in
// order, is found; and in a world in order nothing is.
func TestChecker(t *testing.T) {
	for name, c := range map[string]struct {
		change func(w *held)
		want   string // "" : nothing
	}{
		"in order": {change: func(*held) {}},
		"an unanswered send that nobody has": {change: func(w *held) {
			w.logs[pair].Entries = w.logs[pair].Entries[:3]
			w.logs[pair].Rev, w.logs[pair].ConvSeq = 3, 3
			for _, user := range []int64{ann, bob} {
				in := w.inboxes[user]
				in.drop(3, true)
				in.Views[0].HeadRev, in.Views[0].Head = 3, 3
			}
			for _, d := range w.h.devices {
				if l := d.lives[0]; len(l.seen) == 4 {
					l.seen = l.seen[:3]
				}
			}
		}},
		"retention, told": {change: func(w *held) {
			in := w.inboxes[ann]
			in.Floor, in.Rows = 2, in.Rows[2:]
		}},
		"a device that rebuilt": {change: func(w *held) {
			*w.desktop() = life{epoch: 9, base: 4, rebuilt: []rebuilt{{conv: 1, rev: 2, head: 4, messages: []uint32{2, 3, 4}}}}
		}},
		"a block that may not be known yet": {change: func(w *held) {
			b := w.h.block(1, 0)
			b.from, b.until = 1, 1<<20
			w.h.at(1).begun, w.h.at(1).ended = blockKnown, 2+blockKnown
		}},
		"a late one, refused before, which nobody heard": {change: func(w *held) {
			w.turn(0, 1)
			w.h.block(1, 0).asked = 0
		}},
		"a late one, refused before, never answered": {change: func(w *held) {
			w.turn(0, 1)
			w.h.block(1, 0).asked = 1 << 20
			w.h.at(1).outcome = open
		}},
		"refused by one who had blocked": {change: func(w *held) {
			w.h.block(1, 0).asked = 0
			w.refuse(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
		}},
		"a retry, answered alike": {change: func(w *held) { w.retry(2, acked, 2) }},
		"a read mark of a peer":   {change: func(w *held) { w.marks(ann, bob) }},
		"a device that was replaced": {change: func(w *held) {
			w.h.devices[2].ended = true
			w.desktop().seen = w.desktop().seen[:1]
		}},

		"I1, lost everywhere": {change: func(w *held) {
			l := w.logs[pair]
			l.Entries = slices.Delete(slices.Clone(l.Entries), 3, 4)
			l.Rev, l.ConvSeq = 3, 3
			w.h.answer(4, acked, func(m *message) { m.conv, m.rev, m.convSeq = 1, 4, 4 })
			for _, user := range []int64{ann, bob} {
				w.inboxes[user].drop(3, true)
				w.inboxes[user].Views[0].HeadRev, w.inboxes[user].Views[0].Head = 3, 3
			}
		}, want: "I1: message 4 was acknowledged as rev 4 of 100‖200, and is in no conversation"},
		"I1, not in the recipient's inbox": {change: func(w *held) { w.inboxes[bob].drop(1, true) }, want: "I1: inbox of bob has rev 1 of 100‖200, and not rev 2"},
		"I1, not at the end of an inbox":   {change: func(w *held) { w.inboxes[bob].drop(3, true) }, want: "I1: inbox of bob has rev 3 of 100‖200, and not rev 4"},
		"I1, twice in an inbox": {change: func(w *held) {
			in := w.inboxes[bob]
			r := in.Rows[1]
			in.Seq++
			r.Seq = in.Seq
			in.Rows = append(in.Rows, r)
		}, want: "twice, or out of order"},
		"I1, twice in a conversation": {change: func(w *held) {
			l := w.logs[pair]
			r := l.Entries[1]
			r.Rev, r.ConvSeq, r.Time = 5, 5, 5
			l.Entries, l.Rev, l.ConvSeq = append(l.Entries, r), 5, 5
		}, want: "I1: message 2 is rev 2 of 100‖200, and rev 5"},
		"I1, elsewhere than acknowledged":    {change: func(w *held) { w.h.at(2).convSeq = 7 }, want: "I1: message 2 was acknowledged as rev 2, place 7"},
		"I1, a retry acknowledged otherwise": {change: func(w *held) { w.retry(2, acked, 3) }, want: "I1: message 2 was acknowledged as rev 2, place 2 of 100‖200, and answered otherwise"},
		"I1, a retry refused": {change: func(w *held) {
			w.h.block(1, 0).asked = 0
			w.retry(2, refused, 0)
		}, want: "I1: message 2 was acknowledged as rev 2, place 2 of 100‖200, and answered otherwise"},
		"I1, another content": {change: func(w *held) {
			l := w.logs[pair]
			l.Entries[1].Body = l.Entries[2].Body
		}, want: "I1: message 2 has another content"},
		"I2, a hole":       {change: func(w *held) { w.inboxes[ann].drop(1, false) }, want: "I2: inbox of ann: seq 1 is followed by seq 3"},
		"I2, a false head": {change: func(w *held) { w.inboxes[ann].Seq = 9 }, want: "I2: inbox of ann ends with seq 4; its head says 9"},
		"I2, retention without its floor": {change: func(w *held) {
			in := w.inboxes[ann]
			in.Rows = in.Rows[2:]
		}, want: "I2: inbox of ann: seq 0 is followed by seq 3"},
		"I3, two places the same": {change: func(w *held) { w.logs[pair].Entries[2].ConvSeq = 2 }, want: "I3: conversation 100‖200: rev 3, place 2 comes after"},
		"I3, time runs back":      {change: func(w *held) { w.logs[pair].Entries[2].Time = 1 }, want: "I3: conversation 100‖200: rev 3 was written at 1"},
		"I3, another order in an inbox": {change: func(w *held) {
			r := w.inboxes[bob].Rows
			r[1].Rev, r[2].Rev, r[1].ConvSeq, r[2].ConvSeq = 3, 2, 3, 2
			r[1].SendID, r[2].SendID = r[2].SendID, r[1].SendID
		}, want: "rev 2 of 100‖200, after rev 3"},
		"I3, the sender's order turned": {change: func(w *held) {
			w.turn(0, 1)
		}, want: "I3: message 1 stands behind message 2, which the same device sent after it"},
		"I4, a sync that skips": {change: func(w *held) {
			l := w.desktop()
			l.seen = slices.Delete(l.seen, 1, 2)
		}, want: "I4: device 2 of bob has applied seq 3 after seq 1"},
		"I4, a rebuild that lacks": {change: func(w *held) {
			*w.desktop() = life{epoch: 9, base: 4, rebuilt: []rebuilt{{conv: 1, rev: 1, head: 3, messages: []uint32{1, 2, 3}}}}
		}, want: "I4: device 2 of bob has rebuilt for seq 4, without seq 4"},
		"I5, a stranger's inbox": {change: func(w *held) {
			in := w.inboxes[carl]
			r := w.inboxes[ann].Rows[0]
			in.Rows, in.Seq = append(in.Rows, r), 1
			w.h.devices[3].lives[0] = w.live(2)
		}, want: "I5: inbox of carl: seq 1 is rev 1 of 100‖200, which is none of theirs"},
		"I5, pushed to a stranger": {change: func(w *held) {
			w.h.devices[3].lives[0].seen = []sight{{seq: 1, rev: 1, convSeq: 1, conv: 1, message: 1}}
		}, want: "I5: device 3 of carl was given message 1, seq 1, which is between others"},
		"I5, under another's name": {change: func(w *held) { w.logs[pair].Entries[0].Sender = carl }, want: "by 300"},
		"I5, through a block": {change: func(w *held) {
			b := w.h.block(1, 0)
			b.from, b.until = 1, 1<<20
			w.h.at(1).begun, w.h.at(1).ended = 1+blockKnown, 2+blockKnown
		}, want: "I5: message 1 was let through from ann, whom bob had blocked"},
		"I5, under another's name in an inbox": {change: func(w *held) { w.inboxes[bob].Rows[0].Sender = carl }, want: "I5: message 1 is by 300 in the inbox of bob"},
		"I1, another content in an inbox": {change: func(w *held) {
			rows := w.inboxes[bob].Rows
			rows[1].Body = rows[0].Body
		}, want: "I1: message 2 has another content in the inbox of bob, seq 2"},
		"I5, a stranger's read mark": {change: func(w *held) { w.marks(carl, bob) }, want: "I5: inbox of carl: seq 1 is rev 1 of 200‖200, which is none of theirs"},
		"I5, rows of nobody":         {change: func(w *held) { w.extra.Inbox = 1 }, want: "I5: the stores hold 9 inbox rows"},
		"I3, the sender's order turned before a block": {change: func(w *held) {
			w.turn(0, 1)
			w.h.block(1, 0).asked = 1 << 20
		}, want: "I3: message 1 stands behind message 2"},
		"I6, a push that was lost": {change: func(w *held) {
			l := w.desktop()
			l.seen = l.seen[:3]
		}, want: "I6: device 2 of bob has everything up to seq 3; the inbox goes on to 4"},
		"I6, nothing ever applied": {change: func(w *held) { w.h.devices[2].lives = nil }, want: "I6: device 2 of bob has everything up to seq 0; the inbox goes on to 4"},
		"I6, applied and not stored": {change: func(w *held) {
			l := w.desktop()
			l.seen = append(l.seen, sight{seq: 5, rev: 5, convSeq: 5, conv: 1, message: 4})
		}, want: "I6: device 2 of bob has applied seq 5 (message 4); the inbox ends with 4"},
		"I6, applied otherwise than stored": {change: func(w *held) { w.desktop().seen[1].rev = 9 }, want: "I6: device 2 of bob has applied seq 2 as message 2, rev 9"},
		"I6, applied twice":                 {change: func(w *held) { w.desktop().seen[1].seq = 1 }, want: "I6: device 2 of bob has applied seq 1 again"},
		"I6, another content":               {change: func(w *held) { w.desktop().seen[1].kind = sawDamaged }, want: "was given message 2 with another content"},
		"I6, another epoch":                 {change: func(w *held) { w.desktop().epoch = 1 }, want: "is in epoch 1"},
		"I6, a read mark that fell back":    {change: func(w *held) { w.inboxes[bob].Views[0].Read = 1 }, want: "bob has read 100‖200 up to 2, as was acknowledged; stored is 1"},
		"I6, a view that lags":              {change: func(w *held) { w.inboxes[bob].Views[0].Head = 3 }, want: "bob is told that 100‖200 ends with rev 4, place 3"},
		"I6, rebuilt as another": {change: func(w *held) {
			*w.desktop() = life{epoch: 9, base: 4, rebuilt: []rebuilt{{conv: 1, rev: 1, head: 4, messages: []uint32{1, 3, 3, 4}}}}
		}, want: "has rebuilt rev 2 of 100‖200 as message 3; stored is message 2"},
		"I8, twice": {change: func(w *held) {
			l := w.logs[pair]
			r := l.Entries[3]
			r.Rev, r.ConvSeq, r.Time = 5, 5, 5
			l.Entries, l.Rev, l.ConvSeq = append(l.Entries, r), 5, 5
		}, want: "I8: message 4 is rev 4 of 100‖200, and rev 5"},
		"I8, refused, and nobody had blocked": {change: func(w *held) {
			w.h.block(0, 1)
			w.refuse(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
		}, want: "I8: message 4 was refused for no reason: NOT_ALLOWED"},
		"I8, a retry taken for another": {change: func(w *held) {
			w.h.block(1, 0).asked = 0
			w.refuse(proto.ErrorCode_ERROR_CODE_CONFLICT)
		}, want: "I8: message 4 was refused for no reason: CONFLICT"},
		"I8, never sent": {change: func(w *held) { w.logs[pair].Entries[1].SendID[1] = 99 }, want: "rev 2 is a message that nobody sent"},
		"I9, owed":       {change: func(w *held) { w.extra.Tasks = 2 }, want: "I9: the stores hold 2 tasks"},
	} {
		t.Run(name, func(t *testing.T) {
			w := newHeld(t)
			c.change(w)
			found := checked(t, w)
			if (found == "") != (c.want == "") || !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}

// checked is everything that the checker finds, a line each.
func checked(t *testing.T, w *held) string {
	t.Helper()
	c := newChecker(w.h, w)
	if err := c.check(t.Context()); err != nil {
		t.Fatal(err)
	}
	var lines []string
	for _, v := range c.found {
		lines = append(lines, v.String())
	}
	return strings.Join(lines, "\n")
}
