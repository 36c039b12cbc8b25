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

// others: how long acks take those whom a broken database does not concern.
func (t *times) others() []Timing {
	strikes := t.alone(prefixed("database-"))
	worst := Timing{Name: "p99 of acks of other shards' users while one is away", OK: true, Want: fmt.Sprintf("≤ %d× the usual one", othersFactor)}
	factor := 0.0
	for _, s := range strikes {
		before, during := t.acks(s)
		if len(before) < 100 || len(during) < 100 {
			continue // too few for a p99
		}
		b, d := quantile(before, 0.99), quantile(during, 0.99)
		worst.Count++
		if f := float64(d) / float64(max(b, 1)); f > factor {
			factor = f
			worst.Got = fmt.Sprintf("%d ms, usually %d ms", d, b)
		}
		if d > othersFactor*b && d > b+othersSlack {
			worst.OK = false
		}
	}
	return []Timing{worst}
}

// acks are how long, in ms, messages between people of other places than that
// of the strike waited for their ack: while nothing was broken, and during the
// strike.
func (t *times) acks(s Struck) (before, during []int32) {
	h, at, healed := t.r.h, inMillis(s.At), inMillis(s.Healed)
	places := make([]string, len(h.people))
	for i, p := range h.people {
		places[i] = t.r.opt.System.Place(p.id)
	}
	broken := t.broken()
	for n := uint32(1); n < uint32(h.count); n++ {
		m := h.at(n)
		if m.outcome != acked || m.again > 0 || places[m.from] == s.Target || places[m.to] == s.Target {
			continue
		}
		switch i := int(m.begun / brokenStep); {
		case m.begun >= at && m.begun < healed:
			during = append(during, m.ended-m.begun)
		case i >= len(broken) || !broken[i]:
			before = append(before, m.ended-m.begun)
		}
	}
	slices.Sort(before)
	slices.Sort(during)
	return before, during
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
