package attack

import (
	"context"
	"errors"
	"fmt"
	"time"
)

// Attack tries to break one claim.
type Attack struct {
	// Name is stable, for the command line; Group is a heading.
	Name, Group string
	// Claim is what has to hold.
	Claim string
	// Heavy attacks take turns, two by two: they would measure each other.
	Heavy bool
	// script returns what it measured. It stops early by scene.breach,
	// scene.must and scene.unable.
	script func(s *scene) string
}

// Verdict is how an attack ended.
type Verdict string

const (
	// Held: the claim held.
	Held Verdict = "held"
	// Breached: it did not.
	Breached Verdict = "BREACHED"
	// NotRun: what it needs cannot be had here.
	NotRun Verdict = "not run"
	// Failed: the attack could not be carried through, which proves nothing.
	Failed Verdict = "FAILED"
)

// Result is what came of one attack.
type Result struct {
	Name     string        `json:"name"`
	Group    string        `json:"group"`
	Claim    string        `json:"claim"`
	Verdict  Verdict       `json:"verdict"`
	Measured string        `json:"measured,omitempty"`
	Why      string        `json:"why,omitempty"` // unless Held
	Took     time.Duration `json:"took_ns"`
}

// ErrUnable is why something cannot be had here. A Site wraps it.
var ErrUnable = errors.New("cannot be had here")

// stop is what scripts panic with.
type stop struct {
	verdict Verdict
	why     string
}

// play runs the script to whatever end.
func (a *Attack) play(ctx context.Context, st *stage) (r Result) {
	r = Result{Name: a.Name, Group: a.Group, Claim: a.Claim, Verdict: Held}
	s := &scene{pace: st.pace, ctx: ctx, stage: st}
	begun := time.Now()
	defer func() {
		s.leave()
		r.Took = time.Since(begun)
		if end, stopped := caught(recover()); stopped {
			r.Verdict, r.Why = end.verdict, end.why
		}
	}()
	r.Measured = a.script(s)
	return r
}

// caught sorts a recovered value: a bug in a script is a failed attack, not the
// end of the run.
func caught(p any) (stop, bool) {
	switch p := p.(type) {
	case nil:
		return stop{}, false
	case stop:
		return p, true
	}
	return stop{Failed, fmt.Sprint("the script panicked: ", p)}, true
}
