package bench

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"
)

// pairsRun is one run of the pairs scenario.
type pairsRun struct {
	*runner
	cfg   PairsConfig
	id    uint64 // of the run, in every content and send id
	pairs []*pair
	// writers are the sides that send, in the order in which the pacer asks
	// them.
	writers []*side

	// Messages are due from sendFrom on, those intended in [from, to) are
	// measured. Set before the first message, times since the run began.
	sendFrom, from, to time.Duration

	ack, delivery, lag *recorder
	examples           *examples
}

// Pairs runs the pairs scenario and verifies every message. It returns an error
// if the run could not be done, and a report with OK false if the server broke
// a promise.
func Pairs(ctx context.Context, cfg PairsConfig) (*Report, error) {
	if err := cfg.Validate(); err != nil {
		return nil, err
	}
	r, err := newRunner(ctx, "pairs", cfg.Target, cfg.Users, 2*cfg.Pairs)
	if err != nil {
		return nil, err
	}
	p := &pairsRun{
		runner: r, cfg: cfg, id: rand.Uint64(),
		ack: newRecorder(), delivery: newRecorder(), lag: newRecorder(),
		examples: newExamples(20),
	}
	rep, err := p.run(ctx)
	return rep, errors.Join(err, r.stop())
}

func (p *pairsRun) run(ctx context.Context) (*Report, error) {
	if err := p.prepare(ctx, 2*p.cfg.Pairs); err != nil {
		return nil, err
	}
	ctx, p.cancel = context.WithCancel(ctx)
	p.readSize = 32 << 10
	for n := range p.cfg.Pairs {
		p.addPair(n)
	}
	if err := p.connectAll(ctx); err != nil {
		return nil, err
	}
	for _, pr := range p.pairs {
		pr.meet()
	}
	p.tickAll(ctx, 10*time.Millisecond, p.sessions)

	start, end := p.offer(ctx)
	if err := ctx.Err(); err != nil {
		return nil, err
	}
	p.drain(ctx)
	p.verify(ctx)
	p.result(start, end)
	return p.finish(ctx), ctx.Err()
}

// connectAll brings every session up, a few at a time.
func (p *pairsRun) connectAll(ctx context.Context) error {
	for _, s := range p.sessions {
		p.start(ctx, s)
	}
	var dead error
	n := 0
	ok := p.watch(ctx, "connect", time.Minute+time.Duration(len(p.sessions))*50*time.Millisecond, func() bool {
		n, dead = p.connected(p.sessions)
		return dead != nil || n == len(p.sessions)
	}, func(pr *Progress) { pr.Done, pr.Total = n, len(p.sessions) })
	switch {
	case dead != nil:
		return dead
	case ctx.Err() != nil:
		return ctx.Err()
	case !ok:
		return fmt.Errorf("bench: only %d of %d users could log in; the first error was: %w", n, len(p.sessions), p.firstError())
	}
	return nil
}

func (r *runner) firstError() error {
	r.mu.Lock()
	defer r.mu.Unlock()
	if r.first == nil {
		return errors.New("none, no CaughtUp came")
	}
	return r.first
}

// moment is what the server and the tool had used and done at one time.
type moment struct {
	at     time.Duration
	server usage
	ok     bool
	tool   time.Duration
	acked  uint64
}

func (p *pairsRun) moment(ctx context.Context) moment {
	m := moment{tool: ownCPU(), at: p.since()}
	m.server, m.ok = p.sample(ctx, false)
	m.acked = p.totals().acked
	return m
}

// offer runs warm-up and measurement, and returns their two ends.
func (p *pairsRun) offer(ctx context.Context) (start, end moment) {
	p.sendFrom = p.since() + 50*time.Millisecond
	p.from = p.sendFrom + p.cfg.Warmup
	p.to = p.from + p.cfg.Duration
	for _, pr := range p.pairs {
		pr.open()
	}
	paced := make(chan struct{})
	p.running.Go(func() {
		defer close(paced)
		if p.cfg.Rate > 0 {
			p.pace(ctx)
		}
	})
	p.watch(ctx, "warm-up", 0, p.reached(p.from), p.fill)
	start = p.moment(ctx)
	p.watch(ctx, "measure", 0, p.reached(p.to), p.fill)
	end = p.moment(ctx)
	// A pacer that was late still offers all that was due: a run that did not
	// wait for it left these messages out, those that had to wait the longest.
	<-paced
	return start, end
}

func (p *pairsRun) reached(at time.Duration) func() bool {
	return func() bool { return p.since() >= at }
}

func (p *pairsRun) fill(pr *Progress) {
	t := p.totals()
	pr.Acked, pr.Violations = t.acked, t.violations()
	pr.Ack, pr.Delivery = p.ack.latency(), p.delivery.latency()
	pr.Connected, _ = p.connected(p.sessions)
	pr.Total = len(p.sessions)
}

// drain waits for what is still under way. What was due and never written is
// then given up; what was written still gets a while for its answer.
func (p *pairsRun) drain(ctx context.Context) {
	settled := func() bool {
		for _, pr := range p.pairs {
			if !pr.settled() {
				return false
			}
		}
		return true
	}
	if p.watch(ctx, "drain", p.cfg.Drain, settled, p.fill) {
		return
	}
	for _, pr := range p.pairs {
		pr.giveUp()
	}
	answered := func() bool {
		for _, pr := range p.pairs {
			if !pr.answered() {
				return false
			}
		}
		return true
	}
	p.watch(ctx, "drain", min(p.cfg.Drain, 5*time.Second), answered, p.fill)
}

// result sums the run up.
func (p *pairsRun) result(start, end moment) {
	t := p.totals()
	rep := p.report
	res := &PairsResult{
		Params: PairsParams{
			Pairs: p.cfg.Pairs, BothWays: p.cfg.BothWays, Rate: p.cfg.Rate, InFlight: p.cfg.InFlight,
			Size: p.cfg.Size, Warmup: seconds(p.cfg.Warmup), Duration: seconds(p.cfg.Duration),
		},
		Measured:  seconds(p.cfg.Duration),
		Acked:     t.ackedIn,
		Delivered: t.deliveredIn,
		Rate:      float64(t.ackedIn) / p.cfg.Duration.Seconds(),
		Ack:       p.ack.latency(), Delivery: p.delivery.latency(), Lag: p.lag.latency(),
		Connections: p.connections(),
	}
	res.Verification = Verification{
		Sent: t.sent, Unsent: t.unsent, Acked: t.acked, Refused: t.refused,
		Unanswered: t.unanswered, Resent: t.resent, Received: t.received, NotPushed: t.notPushed,
		Repeats: t.repeats, Resets: t.resets, Unverified: t.unverified,
		Violations: map[string]uint64{}, Examples: p.examples.list(),
	}
	for v, n := range t.broken {
		res.Verification.Violations[Violation(v).String()] = n
	}
	for d, n := range t.durability {
		rep.Server.Durability[strings.TrimPrefix(d.String(), "DURABILITY_")] = n
	}
	rep.Pairs = res
	p.usageBetween(start, end)
	p.judge(t, res)
}

func (p *pairsRun) usageBetween(start, end moment) {
	wall := (end.at - start.at).Seconds()
	p.report.Tool.CPUPercent = 100 * (end.tool - start.tool).Seconds() / wall
	if !start.ok || !end.ok {
		if p.probe != nil {
			p.note("the server's process could not be read at both ends of the measured time: no CPU figures")
		}
		return
	}
	if start.server.started != end.server.started {
		p.report.Server.Restarted = true
		p.note("the server was restarted in the measured time: no CPU figures")
		return
	}
	used := end.server.CPU - start.server.CPU
	p.report.Server.CPUPercent = 100 * used.Seconds() / wall
	if n := end.acked - start.acked; n > 0 {
		p.report.Server.CPUPerMessage = float64(used.Microseconds()) / float64(n)
	}
}

// judge says in words what is wrong with the run, and what to know about it.
func (p *pairsRun) judge(t totals, res *PairsResult) {
	for v, n := range t.broken {
		if n > 0 {
			p.problem("%s: %d", Violation(v), n)
		}
	}
	if t.unverified > 0 {
		p.problem("%d users could not be asked at the end; what they miss is not known", t.unverified)
	}
	if t.unanswered > 0 {
		p.problem("%d sends were never answered", t.unanswered)
	}
	if t.acked == 0 {
		p.problem("nothing was acknowledged")
	}
	if t.refused > 0 {
		p.note("%d sends were refused for good; see errors", t.refused)
	}
	if t.unsent > 0 {
		p.note("%d messages were due and never written: the server did not keep up, and the latencies do not count them", t.unsent)
	}
	if p.cfg.Rate > 0 && res.Rate < 0.99*p.cfg.Rate {
		p.note("%.0f of %.0f messages/s were acknowledged: more was offered than done, or the run was short", res.Rate, p.cfg.Rate)
	}
	if p.cfg.Rate == 0 {
		p.note("flat out: latencies are those of a full pipeline, counted from the write; they say nothing about a lighter load")
	}
	if res.Lag.P99 > 1000 {
		p.note("the tool itself was late by %d µs (p99): its processors were too busy, and the latencies contain that", res.Lag.P99)
	}
}
