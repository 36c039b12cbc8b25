package torture

import (
	"fmt"
	"slices"
	"time"
)

// late is from when on a push counts as lost and repaired.
const late = 2000 // ms

// repairs: how long after its ack, and after all was healed, a message is on a
// device that was online all the time. What takes long was a lost push, which
// the server has found by itself.
func (t *times) repairs() []Timing {
	var worst int32
	repaired := 0
	for _, d := range t.r.h.devices {
		for _, l := range d.lives {
			for _, s := range l.seen {
				lag := t.lag(d, s)
				if lag > late {
					repaired++
				}
				worst = max(worst, lag)
			}
		}
	}
	return []Timing{bound("lost pushes repaired, the last one (of so many over 2 s)", time.Duration(worst)*time.Millisecond, repairWithin, repaired, worst <= inMillis(repairWithin))}
}

// lag is how late a message was applied, in ms, for which no fault and no
// absence of the device is a reason.
func (t *times) lag(d *record, s sight) int32 {
	if s.message == 0 {
		return 0
	}
	m := t.r.h.at(s.message)
	if m.outcome != acked || m.ended == 0 {
		return 0
	}
	i, _ := slices.BinarySearchFunc(d.spans, s.at, func(sp span, at int32) int { return int(sp.from) - int(at) })
	if i == 0 || d.spans[i-1].to != 0 && d.spans[i-1].to < s.at {
		return 0 // while catching up
	}
	start := max(m.ended, d.spans[i-1].from)
	if s.at-start <= late {
		return max(0, s.at-start)
	}
	for _, f := range t.r.h.struck {
		if inMillis(f.At) <= s.at && inMillis(f.Healed) > start {
			start = inMillis(f.Healed)
		}
	}
	return max(0, s.at-start)
}

// othersSlack is what a p99 may rise by in any case: of two figures of a few
// milliseconds, twice says nothing.
const othersSlack = 10 // ms

// others: how long acks take those whom a broken database does not concern, in
// all strikes together: the p99 of one strike of some seconds is a handful of
// messages, and the worst of many such says how busy the machine once was. A
// strike that holds up everybody is far more than one message in a hundred, and
// shows. The worst strike is told, too.
func (t *times) others() []Timing {
	out := Timing{Name: "p99 of acks of other shards' users while one is away", OK: true, Want: fmt.Sprintf("≤ %d× the usual one", othersFactor)}
	usual := t.usualAcks()
	if len(usual) < fewAcks {
		return []Timing{out}
	}
	var all []int32
	var worst int32
	which := ""
	for _, s := range t.alone(prefixed("database-")) {
		acks := t.acksBeside(s)
		if len(acks) < fewAcks {
			continue
		}
		out.Count++
		all = append(all, acks...)
		slices.Sort(acks)
		if p99 := quantile(acks, 0.99); p99 >= worst {
			worst, which = p99, s.Fault
		}
	}
	if out.Count == 0 {
		return []Timing{out}
	}
	slices.Sort(all)
	before, during := quantile(usual, 0.99), quantile(all, 0.99)
	out.Got = fmt.Sprintf("%d ms, usually %d ms; %d ms in the worst, a %s", during, before, worst, which)
	out.OK = during <= max(othersFactor*before, before+othersSlack)
	return []Timing{out}
}

// fewAcks are too few for a p99.
const fewAcks = 100

// usualAcks are how long, in ms and ascending, messages waited for their ack
// while nothing was broken, nor became so: whatever is under way when a node
// freezes says how long that lasted.
func (t *times) usualAcks() (out []int32) {
	broken := t.broken()
	t.eachAck(func(m *message) {
		from, to := min(int(m.begun/brokenStep), len(broken)), min(int(m.ended/brokenStep)+1, len(broken))
		if !slices.Contains(broken[from:max(from, to)], true) {
			out = append(out, m.ended-m.begun)
		}
	})
	slices.Sort(out)
	return out
}

// eachAck calls f for every message that was acknowledged, but for those that an
// app gave up when it was killed, and handed over again when it started.
func (t *times) eachAck(f func(*message)) {
	for n := uint32(1); n < uint32(t.r.h.count); n++ {
		if m := t.r.h.at(n); m.outcome == acked && m.again == 0 {
			f(m)
		}
	}
}

// acksBeside are those of messages, begun during the strike, between people of
// other places than the one it hit.
func (t *times) acksBeside(s Struck) (out []int32) {
	at, healed := inMillis(s.At), inMillis(s.Healed)
	hit := make([]bool, len(t.r.h.people))
	for i, p := range t.r.h.people {
		hit[i] = t.r.opt.System.Place(p.id) == s.Target
	}
	t.eachAck(func(m *message) {
		if m.begun >= at && m.begun < healed && !hit[m.from] && !hit[m.to] {
			out = append(out, m.ended-m.begun)
		}
	})
	return out
}

// brokenStep is how finely broken looks, recovery how long after a fault is
// healed things may still be as it left them; in ms.
const brokenStep, recovery = 100, 5000

// broken says for each step of the run whether anything was broken then, or had
// been shortly before.
func (t *times) broken() (steps []bool) {
	for _, s := range t.r.h.struck {
		from, to := inMillis(s.At)/brokenStep, (inMillis(s.Healed)+recovery)/brokenStep
		for i := from; i <= to; i++ {
			if int(i) >= len(steps) {
				steps = append(steps, make([]bool, int(i)-len(steps)+1)...)
			}
			steps[i] = true
		}
	}
	return steps
}
