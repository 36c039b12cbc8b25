package attack

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

// Options of a run. Site is required.
type Options struct {
	Site Site
	// Only, unless empty, names the attacks or groups to run.
	Only []string
	// Progress is told of each attack that has ended; nil: nobody.
	Progress func(Result)
}

// Validate names what cannot work.
func (o *Options) Validate() error {
	if o.Site == nil {
		return errors.New("attack: Options.Site is missing")
	}
	for _, name := range o.Only {
		if !slices.ContainsFunc(All(), func(a Attack) bool { return a.is(name) }) {
			return fmt.Errorf("attack: there is no attack or group called %q", name)
		}
	}
	return nil
}

func (a *Attack) is(name string) bool { return a.Name == name || a.Group == name }

// Report is what came of a run.
type Report struct {
	// OK: no attack got through, and none failed.
	OK      bool          `json:"ok"`
	Results []Result      `json:"results"`
	Took    time.Duration `json:"took_ns"`
}

// Run carries out the attacks, all at the same time, save that heavy ones take
// turns, two by two, and returns when all have ended. The error is about Options only.
func Run(ctx context.Context, o Options) (*Report, error) {
	if err := o.Validate(); err != nil {
		return nil, err
	}
	var chosen []Attack
	for _, a := range All() {
		if len(o.Only) == 0 || slices.ContainsFunc(o.Only, a.is) {
			chosen = append(chosen, a)
		}
	}
	return o.run(ctx, chosen, newStage(o.Site, releasePace())), nil
}

func (o *Options) run(ctx context.Context, chosen []Attack, st *stage) *Report {
	begun := time.Now()
	rep := &Report{OK: true, Results: make([]Result, len(chosen))}
	var wg sync.WaitGroup
	var mu sync.Mutex
	for i, a := range chosen {
		wg.Go(func() {
			if a.Heavy {
				st.heavy <- struct{}{}
				defer func() { <-st.heavy }()
			}
			r := a.play(ctx, st)
			mu.Lock()
			defer mu.Unlock()
			rep.Results[i] = r
			if r.Verdict == Breached || r.Verdict == Failed {
				rep.OK = false
			}
			if o.Progress != nil {
				o.Progress(r)
			}
		})
	}
	wg.Wait()
	rep.Took = time.Since(begun)
	return rep
}

// WriteSummary prints the report for people.
func (r *Report) WriteSummary(w io.Writer) error {
	var b strings.Builder
	group := ""
	count := map[Verdict]int{}
	for _, x := range r.Results {
		if x.Group != group {
			group = x.Group
			fmt.Fprintf(&b, "\n%s\n", strings.ToUpper(group))
		}
		count[x.Verdict]++
		fmt.Fprintf(&b, "  %-8s  %-24s  %s\n", x.Verdict, x.Name, x.Claim)
		for _, line := range []string{x.Measured, x.Why} {
			if line != "" {
				fmt.Fprintf(&b, "            %-24s  → %s\n", "", line)
			}
		}
	}
	fmt.Fprintf(&b, "\n%d attacks in %s: %d held, %d breached, %d failed, %d not run\n", len(r.Results), secs(r.Took),
		count[Held], count[Breached], count[Failed], count[NotRun])
	_, err := io.WriteString(w, b.String())
	return err
}

// fileLimit is how many files this process may open.
func fileLimit() (int, error) {
	var r unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &r); err != nil {
		return 0, err
	}
	return int(min(r.Cur, 1<<30)), nil
}
