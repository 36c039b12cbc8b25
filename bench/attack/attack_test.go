package attack

import (
	"bytes"
	"context"
	"errors"
	"slices"
	"strings"
	"testing"
	"time"

	"go.uber.org/goleak"
)

// hurried is a pace for a server that keeps no limit: nothing has to be waited
// for that will not come.
func hurried() pace {
	return pace{
		firstByte: 50 * time.Millisecond, login: 50 * time.Millisecond, partialFrame: 50 * time.Millisecond, stall: 50 * time.Millisecond,
		revoked: 50 * time.Millisecond, partitioned: 50 * time.Millisecond, hammer: 100 * time.Millisecond, patience: time.Second,
	}
}

// TestNoAttackCallsAnOpenHouseGood: every attack finds a server out that lets
// everybody in.
func TestNoAttackCallsAnOpenHouseGood(t *testing.T) {
	leaks := goleak.IgnoreCurrent()
	t.Cleanup(func() { goleak.VerifyNone(t, leaks) }) // after the listeners'
	// Where a server's memory cannot be seen, nothing can be said about it.
	unseen := []string{"silence", "half-hellos"}
	o := Options{}
	rep := o.run(t.Context(), All(), newStage(newOpenHouse(t), hurried()))
	breaches := 0
	for _, r := range rep.Results {
		switch {
		case r.Verdict == Held, slices.Contains(unseen, r.Name) != (r.Verdict == NotRun):
			t.Errorf("%s: %s: %s%s", r.Name, r.Verdict, r.Measured, r.Why)
		case r.Verdict == Breached:
			breaches++
		case r.Verdict == Failed: // a machine that is busy: no verdict, and the run fails
			t.Logf("%s: %s", r.Name, r.Why)
		}
	}
	if most := len(rep.Results) - len(unseen); breaches < most*3/4 {
		t.Errorf("%d breaches were found by %d attacks", breaches, most)
	}
	if rep.OK {
		t.Error("the report is OK")
	}
}

// nowhere is a Site that has nothing.
type nowhere struct{ err error }

func (n nowhere) Serve(context.Context, Wish) (*Server, error) { return nil, n.err }
func (n nowhere) Fleet(context.Context) (*Fleet, error)        { return nil, n.err }

func TestWhatCannotBeHadIsNotRun(t *testing.T) {
	for _, tt := range []struct {
		err  error
		want Verdict
		ok   bool
	}{
		{errors.Join(errors.New("no binary"), ErrUnable), NotRun, true},
		{errors.New("broken"), Failed, false},
	} {
		rep, err := Run(t.Context(), Options{Site: nowhere{tt.err}, Only: []string{"first-byte", "fleet"}})
		if err != nil || rep.OK != tt.ok || len(rep.Results) != 5 {
			t.Fatalf("%v: %+v, %v", tt.err, rep, err)
		}
		var text bytes.Buffer
		if err := rep.WriteSummary(&text); err != nil {
			t.Fatal(err)
		}
		for _, r := range rep.Results {
			if r.Verdict != tt.want || !strings.Contains(text.String(), r.Why) || r.Why == "" {
				t.Errorf("%+v in\n%s", r, &text)
			}
		}
	}
}

func TestOptions(t *testing.T) {
	for what, o := range map[string]Options{"no site": {}, "no such attack": {Site: nowhere{}, Only: []string{"limits", "magic"}}} {
		if _, err := Run(t.Context(), o); err == nil {
			t.Errorf("%s: runs", what)
		}
	}
	seen := map[string]bool{}
	for _, a := range All() {
		if seen[a.Name] || a.Claim == "" || a.Group == "" || a.script == nil {
			t.Errorf("%+v", a)
		}
		seen[a.Name] = true
	}
}

// A bug in a script is no verdict, and not the end of the run.
func TestScriptsMayStopAnywhere(t *testing.T) {
	st := newStage(nowhere{}, hurried())
	left := 0
	for what, want := range map[string]Verdict{"held": Held, "breach": Breached, "fail": Failed, "unable": NotRun, "panic": Failed, "many": Breached} {
		a := Attack{script: func(s *scene) string {
			s.later(func() { left++ })
			switch what {
			case "breach":
				s.breach("x")
			case "fail":
				s.fail("x")
			case "unable":
				s.must(ErrUnable)
			case "panic":
				panic("x")
			case "many":
				s.all(3, func(i int) {
					if i == 1 {
						s.breach("x")
					}
				})
			}
			return "x"
		}}
		if r := a.play(t.Context(), st); r.Verdict != want {
			t.Errorf("%s: %+v", what, r)
		}
	}
	if left != 6 {
		t.Errorf("%d of 6 scripts were tidied up after", left)
	}
}
