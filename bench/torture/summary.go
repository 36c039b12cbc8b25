package torture

import (
	"bufio"
	"cmp"
	"fmt"
	"io"
	"maps"
	"slices"
	"strings"
	"time"
)

// WriteSummary prints the report for people.
func (r *Report) WriteSummary(w io.Writer) error {
	b := bufio.NewWriter(w)
	fmt.Fprintf(b, "torture of %s · seed %d · %v\n", r.System, r.Seed, r.Elapsed.Round(time.Second))
	fmt.Fprintf(b, "  messages    %s acknowledged, %s refused%s, %s unanswered\n", thousands(r.Acked), thousands(r.Refused), r.codes(), thousands(r.Open))
	fmt.Fprintf(b, "  people      %d with %d devices: %s events applied, %d returns, %d kills of the app, %d new devices\n",
		r.People, r.Devices, thousands(r.Applied), r.Returns, r.Restarts, r.Rebuilds)
	fmt.Fprintf(b, "  faults      %d%s\n", len(r.Strikes), r.byFault())
	for _, name := range slices.Sorted(maps.Keys(r.NotRun)) {
		fmt.Fprintf(b, "  not run     %s: %s\n", name, r.NotRun[name])
	}
	for _, t := range r.Times {
		verdict := "ok"
		switch {
		case !t.OK:
			verdict = "NOT KEPT"
		case t.Count == 0:
			verdict = "not measured"
		}
		fmt.Fprintf(b, "  %-68s %s (%s, %d measured) %s\n", t.Name, cmp.Or(t.Got, "-"), t.Want, t.Count, verdict)
	}
	for _, what := range r.Trouble {
		fmt.Fprintf(b, "  trouble     %s\n", what)
	}
	for i := I1; i < invariants; i++ {
		if n := r.Counts[i]; n > 0 {
			fmt.Fprintf(b, "  BROKEN      %v: %d times\n", i, n)
			r.writeFound(b, i)
		}
	}
	verdict := "passed"
	if !r.OK() {
		verdict = "FAILED"
	}
	fmt.Fprintf(b, "  %s: lost %d, duplicates %d, holes %d\n", verdict, r.Lost, r.Duplicates, r.Holes)
	if r.Evidence != "" {
		fmt.Fprintf(b, "  evidence in %s\n", r.Evidence)
	}
	return b.Flush()
}

// toldEach is how many violations of an invariant a summary quotes.
const toldEach = 3

func (r *Report) writeFound(w io.Writer, i Invariant) {
	told := 0
	for _, v := range r.Violations {
		if v.Invariant == i && told < toldEach {
			fmt.Fprintf(w, "              %s\n", v.Text)
			told++
		}
	}
}

func (r *Report) codes() string {
	var parts []string
	for _, code := range slices.Sorted(maps.Keys(r.Codes)) {
		parts = append(parts, fmt.Sprintf("%s %d", code, r.Codes[code]))
	}
	if parts == nil {
		return ""
	}
	return " (" + strings.Join(parts, ", ") + ")"
}

func (r *Report) byFault() string {
	count := make(map[string]int)
	for _, s := range r.Strikes {
		count[s.Fault]++
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(count)) {
		parts = append(parts, fmt.Sprintf("%s %d", name, count[name]))
	}
	if parts == nil {
		return ""
	}
	return ": " + strings.Join(parts, ", ")
}

// thousands writes 1234567 as 1,234,567.
func thousands(n int) string {
	s := fmt.Sprint(n)
	for i := len(s) - 3; i > 0; i -= 3 {
		s = s[:i] + "," + s[i:]
	}
	return s
}

// String is the progress in a line.
func (p Progress) String() string {
	s := fmt.Sprintf("%s %v: %s acknowledged, %d of %d strikes, %d devices online",
		p.Phase, p.Elapsed.Round(time.Second), thousands(p.Acked), p.Strikes, p.Planned, p.Online)
	if p.Striking != "" {
		s += ", broken now: " + p.Striking
	}
	return s
}
