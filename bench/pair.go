package bench

import (
	"bytes"
	"fmt"
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// pair is two users, their sessions, and the check of what they see. One mutex
// guards all of it; it is never held while bytes are written or read.
type pair struct {
	run   *pairsRun
	n     int
	mu    sync.Mutex
	sides [2]*side
	check *Checker
	conv  []byte // once known
	// sending: messages may be made (flat out).
	sending bool
	count   totals
}

// side is one user of a pair: the sink of its session.
type side struct {
	pair   *pair
	n      int // 0 or 1
	s      *session
	writes bool
	peer   int64
	out    outbox
	limit  int // sends in flight
	// idOffset is server time minus local time for send ids: of the first
	// connection, for good, since a retry must make the same id.
	idOffset time.Duration
	known    bool // idOffset is set
	// gapAt is the inbox seq after which events were missing; again there, the
	// gap is in the storage.
	gapAt   uint64
	syncing bool // events come from the storage, at the end
	body    []byte
	// Latencies of the current burst.
	acks, deliveries []time.Duration
}

// totals counts; of one pair, or of all.
type totals struct {
	sent, unsent, acked, refused, resent, unanswered uint64
	received, notPushed, repeats, resets             uint64
	ackedIn, deliveredIn                             uint64
	unverified                                       int
	durability                                       map[proto.Durability]uint64
	broken                                           [violations]uint64
}

func (t *totals) violations() (n uint64) {
	for _, v := range t.broken {
		n += v
	}
	return n
}

func (p *pairsRun) addPair(n int) {
	pr := &pair{run: p, n: n, check: NewChecker(fmt.Sprintf("pair %d", n), p.examples.add)}
	pr.count.durability = make(map[proto.Durability]uint64)
	for i := range pr.sides {
		sd := &side{pair: pr, n: i, writes: i == 0 || p.cfg.BothWays, out: outbox{base: 1}}
		sd.s = p.newSession(2*n+i, &pr.mu, sd)
		pr.sides[i] = sd
	}
	p.pairs = append(p.pairs, pr)
}

// meet tells both sides who the other one is.
func (pr *pair) meet() {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	for i, sd := range pr.sides {
		sd.peer = pr.sides[1-i].s.userID
		if sd.writes {
			pr.run.writers = append(pr.run.writers, sd)
		}
	}
}

// open lets messages flow.
func (pr *pair) open() {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.sending = pr.run.cfg.Rate == 0
	for _, sd := range pr.sides {
		sd.fill(pr.run.since())
		sd.s.flush()
	}
}

// settled reports whether nothing is under way any more.
func (pr *pair) settled() bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.idle() && pr.check.Complete()
}

// answered reports whether no send waits for its answer.
func (pr *pair) answered() bool {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	return pr.idle()
}

func (pr *pair) idle() bool {
	return len(pr.sides[0].out.msgs) == 0 && len(pr.sides[1].out.msgs) == 0
}

// giveUp drops what was never written.
func (pr *pair) giveUp() {
	pr.mu.Lock()
	defer pr.mu.Unlock()
	pr.sending = false
	for _, sd := range pr.sides {
		for range sd.out.dropUnwritten() {
			pr.check.Unsent(sd.n)
			pr.count.unsent++
		}
	}
}

// offer makes a message due at that time, and writes it if it may be.
func (sd *side) offer(due time.Duration) {
	sd.pair.mu.Lock()
	defer sd.pair.mu.Unlock()
	sd.push(due)
	sd.fill(due)
	sd.s.flush()
}

func (sd *side) push(intended time.Duration) {
	sd.out.push(intended)
	sd.pair.check.Sent(sd.n)
}

// fill queues as many frames as may be in flight.
func (sd *side) fill(at time.Duration) {
	if !sd.writes || sd.s.conn == nil {
		return
	}
	flatOut := sd.pair.sending && at >= sd.pair.run.sendFrom && at < sd.pair.run.to
	for {
		counter, m, resume, ok := sd.out.take(sd.limit)
		if !ok {
			if !flatOut || sd.out.held || len(sd.out.flight) >= sd.limit {
				return
			}
			sd.push(at)
			continue
		}
		sd.out.wrote(sd.write(counter, m, resume), counter, at)
	}
}

// write queues a message and returns its request id.
func (sd *side) write(counter uint64, m *pending, resume bool) (request uint64) {
	run := sd.pair.run
	if m.written {
		sd.pair.count.resent++
	} else {
		m.written = true
		sd.pair.count.sent++
	}
	sd.body = appendContent(sd.body[:0], stamp{
		Run: run.id, Pair: uint32(sd.pair.n), From: uint8(sd.n), Counter: counter, Intended: int64(m.intended),
	}, run.cfg.Size)
	id := sendID(run.begin.Add(m.intended+sd.idOffset), run.id, counter)
	request = sd.s.newID()
	sd.s.out = appendSend(sd.s.out, request, sd.peer, id, resume, sd.body)
	return request
}

// measured reports whether t is in the measured time.
func (p *pairsRun) measured(t time.Duration) bool { return t >= p.from && t < p.to }

// What follows is the sink.

func (sd *side) cursor() uint64 { return sd.pair.check.Seq(sd.n) }

func (sd *side) up(w *proto.Welcome, cursor uint64, reset bool) {
	sd.limit = sd.pair.run.cfg.InFlight
	if most := int(w.GetLimits().GetMaxInFlight()); most > 0 {
		sd.limit = min(sd.limit, most)
	}
	if !sd.known {
		sd.idOffset, sd.known = sd.s.offset, true
		sd.pair.check.Start(sd.n, cursor, false)
	} else if reset {
		sd.pair.check.Start(sd.n, cursor, true)
	}
	at := sd.pair.run.since()
	sd.out.rewind(at)
	sd.fill(at)
}

func (sd *side) down() { sd.out.rewind(sd.pair.run.since()) }

func (sd *side) ack(at time.Duration, id uint64, a ackView) {
	counter, ok := sd.out.land(id, at)
	if !ok {
		return
	}
	intended := sd.out.settle(counter)
	c := &sd.pair.count
	c.acked++
	c.durability[a.durability]++
	sd.pair.check.Acked(sd.n, counter, a.rev, a.convSeq)
	sd.pair.knowConv(a.conv)
	if sd.pair.run.measured(at) {
		c.ackedIn++
	}
	if sd.pair.run.measured(intended) {
		sd.acks = append(sd.acks, at-intended)
	}
}

func (sd *side) refused(at time.Duration, id uint64, f *proto.Fault) {
	counter, ok := sd.out.land(id, at)
	switch {
	case !ok:
	case f.Retryable:
		sd.out.hold(at, f.RetryAfter)
	default:
		sd.out.settle(counter)
		sd.pair.count.refused++
		sd.pair.check.Refused(sd.n, counter)
	}
}

func (sd *side) event(at time.Duration, e eventView) bool {
	seen, st := sd.pair.classify(sd.n, e)
	check := sd.pair.check
	fresh, ordered := check.Event(sd.n, seen)
	if !ordered {
		here := check.Seq(sd.n) + 1
		if sd.gapAt != here {
			sd.gapAt = here
			return false
		}
		check.Skip(sd.n, e.seq)
		fresh, _ = check.Event(sd.n, seen)
	}
	if !fresh || seen.What != ThisRun {
		return true
	}
	c := &sd.pair.count
	if sd.syncing {
		c.notPushed++
	}
	if seen.From == sd.n {
		return true
	}
	c.received++
	if sd.pair.run.measured(at) {
		c.deliveredIn++
	}
	if intended := time.Duration(st.Intended); sd.pair.run.measured(intended) {
		sd.deliveries = append(sd.deliveries, at-intended)
	}
	return true
}

func (sd *side) burst(at time.Duration) {
	if len(sd.acks) > 0 {
		sd.pair.run.ack.add(sd.acks...)
		sd.acks = sd.acks[:0]
	}
	if len(sd.deliveries) > 0 {
		sd.pair.run.delivery.add(sd.deliveries...)
		sd.deliveries = sd.deliveries[:0]
	}
	if sd.out.stuck(at) && sd.s.conn != nil {
		sd.s.conn.Close()
		return
	}
	sd.out.release(at)
	sd.fill(at)
}

// knowConv keeps the first conversation key; all messages have the same.
func (pr *pair) knowConv(conv []byte) {
	if pr.conv == nil {
		pr.conv = bytes.Clone(conv)
	}
}

// classify says what an event in the inbox of side n is.
func (pr *pair) classify(n int, e eventView) (Seen, stamp) {
	seen := Seen{Seq: e.seq, Rev: e.rev, ConvSeq: e.convSeq}
	if !e.message {
		return seen, stamp{}
	}
	switch e.actor {
	case pr.sides[n].s.userID:
		seen.From = n
	case pr.sides[1-n].s.userID:
		seen.From = 1 - n
	default:
		seen.What = Foreign
		return seen, stamp{}
	}
	counter, ours := sendIDCounter(e.sendID, pr.run.id)
	if ours {
		pr.knowConv(e.conv)
		if !bytes.Equal(e.conv, pr.conv) {
			seen.What = Foreign
			return seen, stamp{}
		}
	}
	seen.Counter = counter
	// The device that sent a message gets its event without the content.
	if seen.From == n && !e.hasContent {
		seen.What = EarlierRun
		if ours {
			seen.What = ThisRun
		}
		return seen, stamp{}
	}
	st, intact := readContent(e.content)
	switch {
	case !intact, (st.Run == pr.run.id) != ours:
		seen.What = Broken
	case !ours:
		seen.What = EarlierRun
	case int(st.Pair) != pr.n:
		seen.What = Foreign
	case int(st.From) != seen.From || st.Counter != counter || len(e.content) != pr.run.cfg.Size:
		seen.What = Broken
	default:
		seen.What = ThisRun
	}
	return seen, st
}

// totals adds all pairs up.
func (p *pairsRun) totals() (t totals) {
	t.durability = make(map[proto.Durability]uint64)
	for _, pr := range p.pairs {
		pr.mu.Lock()
		pr.addTo(&t)
		pr.mu.Unlock()
	}
	return t
}

func (pr *pair) addTo(t *totals) {
	c := &pr.count
	t.sent += c.sent
	t.unsent += c.unsent
	t.acked += c.acked
	t.refused += c.refused
	t.resent += c.resent
	t.received += c.received
	t.notPushed += c.notPushed
	t.ackedIn += c.ackedIn
	t.deliveredIn += c.deliveredIn
	t.unverified += c.unverified
	t.repeats += pr.check.Repeats
	for i, sd := range pr.sides {
		t.resets += uint64(pr.check.Resets(i))
		for _, m := range sd.out.msgs {
			if m.written && !m.done {
				t.unanswered++
			}
		}
	}
	for d, n := range c.durability {
		t.durability[d] += n
	}
	for v, n := range pr.check.Count {
		t.broken[v] += n
	}
}

// examples keeps the first few violations in words.
type examples struct {
	mu   sync.Mutex
	most int
	text []string
}

func newExamples(most int) *examples { return &examples{most: most} }

func (e *examples) add(v Violation, what string) {
	e.mu.Lock()
	defer e.mu.Unlock()
	if len(e.text) < e.most {
		e.text = append(e.text, v.String()+": "+what)
	}
}

func (e *examples) list() []string {
	e.mu.Lock()
	defer e.mu.Unlock()
	return append([]string(nil), e.text...)
}
