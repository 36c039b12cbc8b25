package bench

import (
	"context"
	"fmt"
	"io"
	"runtime"
	"slices"
	"strings"
	"time"

	"github.com/hermod-im/hermod/bench/observe"
)

// StormReport is what a storm found out.
type StormReport struct {
	OK       bool      `json:"ok"`
	Started  time.Time `json:"started"`
	Elapsed  Seconds   `json:"elapsed_s"`
	Problems []string  `json:"problems"`
	Clients  int       `json:"clients"`
	TLS      bool      `json:"tls"`
	Go       string    `json:"go"`
	Host     HostInfo  `json:"host"`

	Cuts []StormCut `json:"cuts"`
}

// StormCut is one time that everybody lost the server. Times count from the
// moment of the cut, or of the order to drain.
type StormCut struct {
	Kind Cut `json:"kind"`
	// Gone is when the old process had ended, Ready when the new one said that
	// it takes clients, or when the first of them was back if that was sooner.
	Gone  Seconds `json:"gone_s"`
	Ready Seconds `json:"ready_s"`
	// Back is how long it took until a client was online and had all it missed,
	// of those that came back in time.
	Back   int   `json:"back"`
	From   Times `json:"from_cut"`
	Online Times `json:"from_ready"`
	// Peak is the most clients that were back within one second: how well they
	// were spread.
	Peak int `json:"peak_per_s"`
	// LeftPeak is the most clients that were cut off within a quarter of the time
	// until the old process had ended: all of them by a kill; by a drain, whose
	// GoAway gives each another moment, not many more than a quarter.
	LeftPeak int `json:"left_peak"`
	// Hellos are the new process's, by credentials and result; Hashes its
	// argon2 runs.
	Hellos map[string]uint64 `json:"hellos"`
	Hashes uint64            `json:"password_hashes"`
	// Written counts messages on their way at the cut or soon after, Unacked and
	// Missing those that stayed without an ack, and that did not arrive.
	Written int `json:"written"`
	Unacked int `json:"unacked"`
	Missing int `json:"missing"`
	// RSSPeak is the new process's, in bytes.
	RSSPeak uint64 `json:"rss_peak"`
}

// Times is a distribution in seconds.
type Times struct {
	P50 Seconds `json:"p50_s"`
	P95 Seconds `json:"p95_s"`
	Max Seconds `json:"max_s"`
}

func newStormReport(c *StormConfig) *StormReport {
	return &StormReport{
		Started: time.Now(), Problems: []string{}, Clients: c.Clients, TLS: c.TLS != nil, Go: runtime.Version(),
		Host: HostInfo{CPUs: runtime.NumCPU(), System: systemName()},
	}
}

func (r *StormReport) problem(format string, args ...any) {
	r.Problems = append(r.Problems, fmt.Sprintf(format, args...))
}

// timesOf needs ds sorted.
func timesOf(ds []time.Duration) Times {
	if len(ds) == 0 {
		return Times{}
	}
	at := func(q float64) Seconds { return seconds(ds[min(int(q*float64(len(ds))), len(ds)-1)]) }
	return Times{P50: at(.5), P95: at(.95), Max: at(1)}
}

// times notes how long everybody took.
func (s *storm) times(res *StormCut, cutAt, gone, ready time.Time) {
	var back, left []time.Duration
	for _, c := range s.clients {
		if at := c.backAt(gone); !at.IsZero() {
			back = append(back, at.Sub(cutAt))
		}
		if at := c.lostAt(); at.After(cutAt) {
			left = append(left, at.Sub(cutAt))
		}
	}
	slices.Sort(back)
	slices.Sort(left)
	res.LeftPeak = peakWithin(left, gone.Sub(cutAt)/4)
	if most := len(s.clients) * 6 / 10; res.Kind == CutDrain && res.LeftPeak > most {
		s.rep.problem("%s: %d of %d clients left within a quarter of the time: the server's hint has not spread them", res.Kind, res.LeftPeak, len(s.clients))
	}
	if len(back) > 0 && back[0] < ready.Sub(cutAt) {
		ready = cutAt.Add(back[0])
	}
	res.Gone, res.Ready = seconds(gone.Sub(cutAt)), seconds(ready.Sub(cutAt))
	res.Back, res.From, res.Peak = len(back), timesOf(back), peakWithin(back, time.Second)
	for i := range back {
		back[i] -= ready.Sub(cutAt)
	}
	res.Online = timesOf(back)
}

// peakWithin is the most of the sorted times that lie within one window.
func peakWithin(at []time.Duration, window time.Duration) (most int) {
	first := 0
	for last := range at {
		for at[last]-at[first] >= window {
			first++
		}
		most = max(most, last-first+1)
	}
	return most
}

// judge compares the round with what is promised.
func (s *storm) judge(ctx context.Context, res *StormCut) error {
	res.Written = len(s.clients)
	for _, c := range s.clients {
		unacked, missing := c.open()
		res.Unacked += unacked
		res.Missing += missing
	}
	series, err := observe.Get(ctx, s.cfg.Server.Admin())
	if err != nil {
		return err
	}
	res.Hellos = make(map[string]uint64)
	for name, v := range series {
		labels, ok := strings.CutPrefix(name, "hermod_chat_hellos_total")
		if !ok || v == 0 {
			continue
		}
		res.Hellos[labelValues(labels)] = uint64(v)
		if strings.Contains(labels, `"password"`) || strings.Contains(labels, `"register"`) {
			s.rep.problem("%s: %d clients came back with a password", res.Kind, uint64(v))
		}
	}
	if res.Hashes, err = s.hashes(series); err != nil {
		return err
	}
	if res.Hashes > 0 {
		s.rep.problem("%s: argon2 ran %d times", res.Kind, res.Hashes)
	}
	if res.Back < len(s.clients) {
		s.rep.problem("%s: %d of %d clients were not back and synced after %v", res.Kind, len(s.clients)-res.Back, len(s.clients), s.cfg.Within)
	}
	if res.Unacked+res.Missing > 0 {
		s.rep.problem("%s: %d messages without an ack, %d did not arrive within %v", res.Kind, res.Unacked, res.Missing, s.cfg.Delivery)
	}
	return nil
}

// hashes is how many passwords the present process has hashed.
func (s *storm) hashes(series observe.Page) (uint64, error) {
	n, ok := series["hermod_chat_password_hashes_total"]
	if !ok {
		return 0, fmt.Errorf("bench: %s/metrics does not count password hashes", s.cfg.Server.Admin())
	}
	return uint64(n), nil
}

// labelValues makes «token OK» of {credentials="token",result="OK"}.
func labelValues(labels string) string {
	var values []string
	for i, part := range strings.Split(labels, `"`) {
		if i%2 == 1 {
			values = append(values, part)
		}
	}
	return strings.Join(values, " ")
}

// WriteSummary prints the report for people.
func (r *StormReport) WriteSummary(w io.Writer) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-18s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "\nstorm: %d clients%s, server and clients on this machine (%d CPUs)\n", r.Clients, tlsWord(r.TLS), r.Host.CPUs)
	for _, c := range r.Cuts {
		fmt.Fprintf(&b, "\n %s: gone after %.1f s, a new process takes clients after %.1f s\n", c.Kind, float64(c.Gone), float64(c.Ready))
		row("back and synced", "%d, from the cut: p50 %.1f s, p95 %.1f s, all %.1f s", c.Back, float64(c.From.P50), float64(c.From.P95), float64(c.From.Max))
		row("since it is there", "p50 %.1f s, p95 %.1f s, all %.1f s; at most %d within a second", float64(c.Online.P50), float64(c.Online.P95), float64(c.Online.Max), c.Peak)
		row("cut off", "at most %d within a quarter of the time until the old process was gone", c.LeftPeak)
		row("hellos", "%s; %d argon2 runs", counts(c.Hellos), c.Hashes)
		row("messages", "%d written around the cut, %d without an ack, %d not delivered", c.Written, c.Unacked, c.Missing)
		row("server memory", "RSS %s at most", size(c.RSSPeak))
	}
	b.WriteByte('\n')
	for _, p := range r.Problems {
		row("PROBLEM", "%s", p)
	}
	verdict := "OK"
	if !r.OK {
		verdict = "FAILED"
	}
	row("result", "%s", verdict)
	_, err := io.WriteString(w, b.String())
	return err
}
