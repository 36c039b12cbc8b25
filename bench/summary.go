package bench

import (
	"fmt"
	"io"
	"strings"
	"time"
)

// WriteSummary prints a report for people.
func (r *Report) WriteSummary(w io.Writer) error {
	var b strings.Builder
	row := func(name, format string, args ...any) {
		fmt.Fprintf(&b, "  %-18s %s\n", name, fmt.Sprintf(format, args...))
	}
	fmt.Fprintf(&b, "\n%s against %s%s, from this machine (%d CPUs)\n\n", r.Scenario, r.Server.Addr, tlsWord(r.Server.TLS), r.Host.CPUs)
	row("users", "%d, %d of them registered now (%.1f s)", r.Users.Count, r.Users.Registered, float64(r.Users.Elapsed))
	switch {
	case r.Pairs != nil:
		r.Pairs.summary(row)
		r.serverRows(row)
		r.Pairs.Verification.summary(row)
	case r.Idle != nil:
		r.Idle.summary(row)
		r.serverRows(row)
	}
	if len(r.Errors) > 0 {
		row("errors met", "%s", counts(r.Errors))
	}
	for _, n := range r.Notes {
		row("note", "%s", n)
	}
	for _, p := range r.Problems {
		row("PROBLEM", "%s", p)
	}
	if r.OK {
		row("result", "OK")
	} else {
		row("result", "FAILED")
	}
	_, err := io.WriteString(w, b.String())
	return err
}

func tlsWord(on bool) string {
	if on {
		return " (TLS 1.3)"
	}
	return ""
}

type rowFunc func(name, format string, args ...any)

func (p *PairsResult) summary(row rowFunc) {
	ways := "one way"
	if p.Params.BothWays {
		ways = "both ways"
	}
	offered := fmt.Sprintf("open loop, %.0f messages/s in all", p.Params.Rate)
	from := "from the intended send time"
	if p.Params.Rate == 0 {
		offered = fmt.Sprintf("flat out, %d in flight per writer", p.Params.InFlight)
		from = "from the write"
	}
	row("load", "%d pairs %s, %s, %d-byte bodies", p.Params.Pairs, ways, offered, p.Params.Size)
	row("measured", "%.0f s after %.0f s of warm-up", float64(p.Measured), float64(p.Params.Warmup))
	row("acknowledged", "%d messages, %.0f per second", p.Acked, p.Rate)
	row("delivered", "%d messages to the other side in that time", p.Delivered)
	row("ack latency", "%s (%s)", p.Ack, from)
	row("delivery latency", "%s (to the receiver)", p.Delivery)
	if p.Params.Rate > 0 {
		row("tool's own lag", "%s (part of both)", p.Lag)
	}
	c := p.Connections
	row("connections", "%d open, %d logins, %d drops, %d delivery acks", c.Open, c.Logins, c.Drops, c.DeliveryAcks)
}

// String is one line of percentiles.
func (l Latency) String() string {
	if l.Count == 0 {
		return "none"
	}
	return fmt.Sprintf("p50 %s  p90 %s  p99 %s  p99.9 %s  max %s", micros(l.P50), micros(l.P90), micros(l.P99), micros(l.P999), micros(l.Max))
}

// micros shows microseconds in the unit that suits them.
func micros(us int64) string {
	switch {
	case us < 1000:
		return fmt.Sprintf("%d µs", us)
	case us < 1_000_000:
		return fmt.Sprintf("%.2f ms", float64(us)/1e3)
	}
	return fmt.Sprintf("%.2f s", float64(us)/1e6)
}

func (v *Verification) summary(row rowFunc) {
	row("whole run", "%d sent, %d acked, %d received, %d resent, %d refused, %d unanswered, %d unsent",
		v.Sent, v.Acked, v.Received, v.Resent, v.Refused, v.Unanswered, v.Unsent)
	row("verification", "%s", counts(v.Violations))
	row("not pushed", "%d, found by a sync at the end; %d repeated pushes, %d resets", v.NotPushed, v.Repeats, v.Resets)
	for _, e := range v.Examples {
		row("", "%s", e)
	}
}

func (i *IdleResult) summary(row rowFunc) {
	for _, p := range i.At {
		stable := ""
		if !p.Stable {
			stable = ", not at rest"
		}
		row(fmt.Sprintf("at %d", p.Connections), "RSS %s, PSS %s, anonymous %s (after %.0f s%s)",
			size(p.RSS), size(p.PSS), size(p.Anon), float64(p.Settled), stable)
	}
	if i.Warm {
		row("before", "every user had logged in and left once")
	}
	row("per connection", "RSS %.0f B, PSS %.0f B, anonymous %.0f B (growth between the two points, the whole process)",
		i.BytesPerConnection, i.PSSPerConnection, i.AnonPerConnection)
	row("idle CPU", "%.1f%% of a core over %.0f s, heartbeat every %.0f s", i.IdleCPU, float64(i.Hold), float64(i.Heartbeat))
	c := i.Connections
	row("connections", "%d open, %d logins, %d drops, %d heartbeats sent", c.Open, c.Logins, c.Drops, c.Heartbeats)
}

func (r *Report) serverRows(row rowFunc) {
	s := r.Server
	if len(s.Durability) > 0 {
		row("acks promise", "%s", counts(s.Durability))
	}
	if s.Source == "" {
		return
	}
	row("server memory", "RSS %s before, %s at most, %s after (%s)", size(s.RSSBefore), size(s.RSSPeak), size(s.RSSAfter), s.Source)
	if s.CPUPerMessage > 0 {
		row("server CPU", "%.1f%% of a core, %.1f µs per message; the tool used %.1f%%", s.CPUPercent, s.CPUPerMessage, r.Tool.CPUPercent)
	}
}

func counts(m map[string]uint64) string {
	var parts []string
	for _, k := range sortedKeys(m) {
		parts = append(parts, fmt.Sprintf("%s %d", k, m[k]))
	}
	return strings.Join(parts, ", ")
}

func size(n uint64) string { return fmt.Sprintf("%.1f MiB", float64(n)/(1<<20)) }

// String is the progress in one line of a terminal.
func (p Progress) String() string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-8s %4.0fs", p.Phase, p.Elapsed.Truncate(time.Second).Seconds())
	if p.Total > 0 {
		n := p.Done
		if p.Connected > 0 {
			n = p.Connected
		}
		fmt.Fprintf(&b, "  %d/%d", n, p.Total)
	}
	if p.Acked > 0 {
		fmt.Fprintf(&b, "  %.0f/s  %d acked  ack p50 %s p99 %s  delivery p50 %s p99 %s",
			p.Rate, p.Acked, micros(p.Ack.P50), micros(p.Ack.P99), micros(p.Delivery.P50), micros(p.Delivery.P99))
	}
	if p.RSS > 0 {
		fmt.Fprintf(&b, "  rss %s", size(p.RSS))
	}
	if p.Violations > 0 {
		fmt.Fprintf(&b, "  VIOLATIONS %d", p.Violations)
	}
	return b.String()
}
