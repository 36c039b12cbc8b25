package torture

import (
	"context"
	"errors"
	"reflect"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench/fault"
)

func someFaults() []fault.Fault {
	no := func() error { return errors.New("needs root") }
	nothing := func(context.Context, string) (fault.Heal, error) {
		return func(context.Context) error { return nil }, nil
	}
	return []fault.Fault{
		{Name: "kill", Targets: []string{"a", "b", "c"}, Least: time.Second, Most: 9 * time.Second, Strike: nothing},
		{Name: "pause", Targets: []string{"a", "b"}, Least: time.Second, Most: 2 * time.Second, Strike: nothing},
		{Name: "flush", Targets: []string{"r"}, Strike: nothing},
		{Name: "roll", Targets: []string{"all"}, Alone: true, Strike: nothing},
		{Name: "full", Targets: []string{"a"}, Unable: no, Strike: nothing},
		{Name: "none", Strike: nothing},
	}
}

// TestPlan: a seed reproduces a schedule; what can be had comes evenly, what
// cannot never; what must be alone is.
func TestPlan(t *testing.T) {
	plan := Plan(42, someFaults(), 400)
	if !reflect.DeepEqual(plan, Plan(42, someFaults(), 400)) {
		t.Error("the same seed draws another schedule")
	}
	if reflect.DeepEqual(plan, Plan(43, someFaults(), 400)) {
		t.Error("another seed draws the same schedule")
	}
	if !reflect.DeepEqual(plan[:40], Plan(42, someFaults(), 40)) {
		t.Error("a shorter schedule does not begin like a longer one")
	}
	count := make(map[string]int)
	together := 0
	for i, s := range plan {
		count[s.Fault]++
		if s.With {
			together++
			before := plan[i-1]
			if before.With || s.Fault == "roll" || before.Fault == "roll" || s.Fault == before.Fault || s.Target == before.Target {
				t.Errorf("strike %d, %v, comes with %v", i, s, before)
			}
		}
		if s.Fault == "kill" && (s.Last < time.Second || s.Last > 9*time.Second) || s.Fault == "flush" && s.Last != 0 {
			t.Errorf("strike %d lasts %v", i, s.Last)
		}
	}
	if want := map[string]int{"kill": 100, "pause": 100, "flush": 100, "roll": 100}; !reflect.DeepEqual(count, want) {
		t.Errorf("faults come %v times, want %v", count, want)
	}
	if together < 10 {
		t.Errorf("%d strikes come with another one", together)
	}
	if p := Plan(1, someFaults()[4:], 10); p != nil {
		t.Errorf("of what cannot be had: %v", p)
	}
}

// TestFaultsThatCannotBeHad: a run without the faults that it was asked for is
// no good one.
func TestFaultsThatCannotBeHad(t *testing.T) {
	for only, want := range map[string]bool{"kill": true, "full": false, "none": false} {
		r := &run{opt: &Options{System: &fakeSystem{faults: someFaults()}, Faults: 3, Only: []string{only}}, rep: &Report{NotRun: map[string]string{}}}
		r.plan()
		if r.rep.OK() != want || (len(r.schedule) == 3) != want {
			t.Errorf("%s: %v, %v", only, r.schedule, r.rep.Trouble)
		}
	}
}

func TestOptions(t *testing.T) {
	for name, c := range map[string]struct {
		change func(o *Options)
		want   string
	}{
		"the defaults":       {func(*Options) {}, ""},
		"no system":          {func(o *Options) { o.System = nil }, "System is required"},
		"three people":       {func(o *Options) { o.People = 3 }, "4 to 100,000"},
		"no rate":            {func(o *Options) { o.Rate = -1 }, "above 0"},
		"a tiny body":        {func(o *Options) { o.Size = 10 }, "36 to 32768"},
		"too restless":       {func(o *Options) { o.Restless = 1000 }, "at most 600"},
		"backwards":          {func(o *Options) { o.Duration = -1 }, "not below 0"},
		"a fault misspelled": {func(o *Options) { o.Only = []string{"kil"} }, `no fault "kil"; there are: kill, pause`},
	} {
		t.Run(name, func(t *testing.T) {
			o := Options{System: &fakeSystem{faults: someFaults()}}
			c.change(&o)
			err := o.Validate()
			if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
				t.Errorf("%v, want %q", err, c.want)
			}
		})
	}
	o := Options{System: &fakeSystem{faults: someFaults()}, Only: []string{"flush", "full"}}
	if err := o.Validate(); err != nil || len(o.faults()) != 2 {
		t.Errorf("%v, %d faults are left of two", err, len(o.faults()))
	}
}

// TestStrikeAll: all strikes are carried out and healed, those that cannot be
// done are trouble, and a torture that is given up leaves nothing broken.
func TestStrikeAll(t *testing.T) {
	broken := make(map[string]bool)
	strike := func(_ context.Context, target string) (fault.Heal, error) {
		if target == "stone" {
			return nil, errors.New("will not break")
		}
		broken[target] = true
		return func(context.Context) error { delete(broken, target); return nil }, nil
	}
	faults := []fault.Fault{{Name: "break", Targets: []string{"glass", "stone"}, Strike: strike}}
	r := &run{opt: &Options{System: &fakeSystem{faults: faults}}, h: NewHistory(1), rep: new(Report)}
	r.schedule = []Strike{
		{Fault: "break", Target: "glass", Last: time.Millisecond}, {Fault: "break", Target: "stone", With: true}, {Fault: "bend", Target: "glass"},
	}
	r.strikeAll(t.Context())
	if len(r.h.struck) != 2 || len(broken) > 0 {
		t.Errorf("%d strikes are told, broken are %v", len(r.h.struck), broken)
	}
	if got := strings.Join(r.rep.Trouble, "\n"); !strings.Contains(got, "will not break") || !strings.Contains(got, `"bend"`) {
		t.Errorf("trouble: %s", got)
	}
	ctx, cancel := context.WithCancel(t.Context())
	r.schedule = []Strike{{Fault: "break", Target: "glass", Last: time.Hour}, {Fault: "break", Target: "glass"}}
	time.AfterFunc(10*time.Millisecond, cancel)
	r.strikeAll(ctx)
	if len(r.h.struck) != 3 || len(broken) > 0 {
		t.Errorf("given up: %d strikes are told, broken are %v", len(r.h.struck), broken)
	}
}
