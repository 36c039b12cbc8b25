package torture

import (
	"errors"
	"math/rand/v2"
	"slices"
	"time"

	"github.com/hermod-im/hermod/bench/fault"
)

// Strike is one line of a schedule.
type Strike struct {
	// After is the pause between the moment when all before was healed and
	// this, or, if With is set, between the strike before and this: the two
	// are then broken at the same time.
	After  time.Duration `json:"after"`
	With   bool          `json:"with,omitempty"`
	Fault  string        `json:"fault"`
	Target string        `json:"target"`
	// Last is how long it lasts before it is healed.
	Last time.Duration `json:"last"`
}

// Pauses between strikes, and the share of them that come together.
const (
	leastPause, mostPause = 2 * time.Second, 8 * time.Second
	togetherOne           = 5 // of so many
)

// Plan draws n strikes from the seed. Each fault that can be had comes once
// before any comes again, each time in another order.
func Plan(seed uint64, faults []fault.Fault, n int) []Strike {
	able := slices.DeleteFunc(slices.Clone(faults), func(f fault.Fault) bool { return unable(f) != nil })
	if len(able) == 0 {
		return nil
	}
	r := rand.New(rand.NewPCG(seed, 0x686572_6d6f64))
	var plan []Strike
	var round []int
	var before *fault.Fault
	for range n {
		if len(round) == 0 {
			round = r.Perm(len(able))
		}
		f := &able[round[0]]
		round = round[1:]
		s := Strike{
			After: within(r, leastPause, mostPause), Fault: f.Name,
			Target: f.Targets[r.IntN(len(f.Targets))], Last: within(r, f.Least, f.Most),
		}
		// Two at a time, sometimes; never three, and never on the same fault.
		if r.IntN(togetherOne) == 0 && before != nil && !before.Alone && !f.Alone && !plan[len(plan)-1].With && before.Name != f.Name &&
			plan[len(plan)-1].Target != s.Target {
			s.With, s.After = true, within(r, 0, time.Second)
		}
		plan = append(plan, s)
		before = f
	}
	return plan
}

// unable says why a fault cannot be had here; nil: it can.
func unable(f fault.Fault) error {
	switch {
	case f.Unable != nil:
		return f.Unable()
	case len(f.Targets) == 0:
		return errors.New("there is nothing that it could hit")
	}
	return nil
}

// within draws a duration, in whole milliseconds.
func within(r *rand.Rand, least, most time.Duration) time.Duration {
	if most <= least {
		return least
	}
	return least + time.Duration(r.Int64N(int64((most-least)/time.Millisecond)))*time.Millisecond
}
