package torture

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"
)

// Run tortures a system and judges it. The error says why there is no verdict:
// bad options, a system that nobody could join, ctx. Everything else is in the
// report.
func Run(ctx context.Context, opt Options) (*Report, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	r := &run{opt: &opt, h: NewHistory(rand.Uint64())}
	r.rep = &Report{System: opt.System.About(), Seed: opt.Seed, Begun: r.h.begun, NotRun: make(map[string]string), Counts: make(map[Invariant]int)}
	r.plan()
	if err := r.torture(ctx); err != nil {
		return nil, err
	}
	r.judge(ctx)
	r.rep.Elapsed = time.Since(r.h.begun)
	if !r.rep.OK() && opt.Evidence != "" {
		if err := r.keepEvidence(); err != nil {
			r.rep.Trouble = append(r.rep.Trouble, fmt.Sprintf("evidence: %v", err))
		}
	}
	return r.rep, nil
}

// run is one torture.
type run struct {
	opt      *Options
	h        *History
	rep      *Report
	schedule []Strike
	crowd    *crowd
	times    *times
	wait     sync.WaitGroup

	mu       sync.Mutex
	phase    string
	striking string
}

// plan makes the schedule, and notes what cannot be had here.
func (r *run) plan() {
	faults := r.opt.faults()
	for _, f := range faults {
		if why := unable(f); why != nil {
			r.rep.NotRun[f.Name] = why.Error()
		}
	}
	r.schedule = r.opt.Schedule
	if r.schedule == nil {
		r.schedule = Plan(r.opt.Seed, faults, r.opt.Faults)
		if len(r.schedule) < r.opt.Faults {
			r.trouble("none of the faults that were asked for can be had here")
		}
	}
}

// torture does everything up to the moment when all is healed, quiet and closed.
func (r *run) torture(ctx context.Context) (err error) {
	r.enter("registering")
	stopped, end := context.WithCancel(ctx)
	r.wait.Go(func() { r.tellProgress(stopped) })
	defer func() { end(); r.wait.Wait() }()
	r.crowd, err = newCrowd(ctx, r.opt, r.h)
	defer r.crowd.close()
	if err != nil {
		return fmt.Errorf("torture: nobody could log in, before anything was broken: %w", err)
	}
	r.times = newTimes(r)
	r.wait.Go(func() { r.times.watch(stopped) })

	stop, quiet := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(quiet)
		r.crowd.talk(ctx, stop)
	}()
	r.enter("calm")
	begin := time.Now()
	sleep(ctx, r.opt.Calm)
	r.times.calm = r.h.now()
	r.enter("torture")
	r.strikeAll(ctx)
	r.last(ctx, begin)
	close(stop)
	<-quiet
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("torture: given up: %w", err)
	}
	r.settle(ctx)
	return nil
}

// last waits until the run has gone on for long enough.
func (r *run) last(ctx context.Context, begin time.Time) {
	sleep(ctx, time.Until(begin.Add(r.opt.Duration)))
	before, since := r.h.ackedSoFar(), time.Now()
	for ctx.Err() == nil && before < r.opt.Messages {
		sleep(ctx, time.Second)
		if n := r.h.ackedSoFar(); n > before {
			before, since = n, time.Now()
		} else if time.Since(since) > r.opt.Patience {
			r.trouble("no message was acknowledged for %v, though nothing was broken", r.opt.Patience)
			return
		}
	}
}

// settle waits until everything that was promised should be everywhere.
func (r *run) settle(ctx context.Context) {
	r.enter("settling")
	patient, cancel := context.WithTimeout(ctx, r.opt.Patience)
	defer cancel()
	r.crowd.each(func(d *device) { r.settleDevice(patient, d) })
	r.comesTo(patient, I9, "tasks", 0, r.opt.System.Tasks)
	// Who has just come back may still have a session elsewhere, for so long.
	soon, cancel := context.WithTimeout(ctx, min(sessionsWithin, r.opt.Patience))
	defer cancel()
	r.comesTo(soon, I7, "sessions", r.crowd.devices(), r.opt.System.Sessions)
}

// sessionsWithin is how long after healing a device may have two sessions.
const sessionsWithin = 30 * time.Second

// comesTo waits until a count is what it should be in the end.
func (r *run) comesTo(ctx context.Context, i Invariant, what string, want int, ask func(context.Context) (int, error)) {
	var n int
	var err error
	if until(ctx, func() bool { n, err = ask(ctx); return err == nil && n == want }) {
		return
	}
	// Once more: the time may have been over before the first answer came.
	last, cancel := context.WithTimeout(context.WithoutCancel(ctx), actTimeout)
	defer cancel()
	if n, err = ask(last); err != nil || n != want {
		r.found(i, nil, "there are %d %s at the end, not %d (%v)", n, what, want, err)
	}
}

// settleDevice waits until a device is online, unblocks whom it has blocked,
// and waits until all its sends are answered and it has all that its user has.
func (r *run) settleDevice(ctx context.Context, d *device) {
	var err error
	ok := until(ctx, func() bool {
		if err = d.back(); err != nil {
			return false
		}
		c := d.client()
		if err = c.WaitOnline(ctx); err != nil || d.unanswered() > 0 || !d.p.makeUp(ctx, c) {
			return false
		}
		at := c.Cursor()
		page, e := c.Sync(ctx, at, 1)
		if err = e; err != nil {
			return false
		}
		return page.GetReset_() == nil && len(page.GetEvents()) == 0 && page.GetCaughtUp()
	})
	if ok {
		return
	}
	d.mu.Lock()
	waiting := d.outbox
	d.mu.Unlock()
	r.trouble("%s, device %d: not settled %v after the last fault: %d sends are unanswered %v (%v)", d.p.name, d.rec.number, r.opt.Patience, len(waiting), waiting, err)
}

// judge compares the three sides.
func (r *run) judge(ctx context.Context) {
	r.enter("checking")
	count := r.h.totals()
	r.rep.Acked, r.rep.Refused, r.rep.Open = count[acked], count[refused], count[open]
	r.rep.People, r.rep.Devices = len(r.crowd.people), r.crowd.devices()
	r.rep.Codes, r.rep.Restarts, r.rep.Rebuilds, r.rep.Returns = r.crowd.codes, r.crowd.restarts, r.crowd.replaced, r.crowd.returns
	r.rep.Strikes = r.h.struck
	r.rep.Trouble = append(r.rep.Trouble, r.crowd.troubles...)
	if n := r.crowd.ousted; n > 0 {
		r.found(I7, nil, "%d times a device was told that another connection has its place, and none had come after it", n)
	}
	for why, n := range r.crowd.ends {
		r.trouble("the server ended %d sessions for good, for no reason: %s", n, why)
	}
	stores, err := r.opt.System.Stores(ctx)
	if err != nil {
		r.trouble("opening the stores: %v", err)
	}
	if stores == nil {
		return
	}
	c := newChecker(r.h, stores)
	err = errors.Join(c.check(ctx), stores.Close())
	if err != nil {
		r.trouble("the stores cannot be read: %v", err)
	}
	r.rep.Violations = append(r.rep.Violations, c.found...)
	for i, n := range c.count {
		if n > 0 {
			r.rep.Counts[Invariant(i)] += n
		}
	}
	r.rep.Applied, r.rep.Lost, r.rep.Duplicates, r.rep.Holes = c.applied, c.lost, c.twice, r.rep.Counts[I2]
	if r.opt.Times {
		r.rep.Times = r.times.judge()
	}
}

// found notes a violation that needed no checker.
func (r *run) found(i Invariant, messages []int, format string, args ...any) {
	r.rep.Violations = append(r.rep.Violations, Violation{i, fmt.Sprintf(format, args...), messages})
	r.rep.Counts[i]++
}

func (r *run) trouble(format string, args ...any) {
	r.mu.Lock()
	defer r.mu.Unlock()
	if len(r.rep.Trouble) < mostTroubles {
		r.rep.Trouble = append(r.rep.Trouble, fmt.Sprintf(format, args...))
	}
}

func (r *run) enter(phase string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.phase = phase
	r.opt.Log.Info().Dur("elapsed", time.Since(r.h.begun)).Msg(phase)
}

// tellProgress tells about every second where the run is.
func (r *run) tellProgress(ctx context.Context) {
	for r.opt.Progress != nil && ctx.Err() == nil {
		r.mu.Lock()
		p := Progress{Phase: r.phase, Elapsed: time.Since(r.h.begun), Planned: len(r.schedule), Striking: r.striking}
		r.mu.Unlock()
		r.h.mu.Lock()
		p.Acked, p.Strikes = r.h.acked, len(r.h.struck)
		devices := r.h.devices
		r.h.mu.Unlock()
		for _, d := range devices {
			if d.online() {
				p.Online++
			}
		}
		r.opt.Progress(p)
		sleep(ctx, time.Second)
	}
}

// sleep waits for d, or less if ctx ends.
func sleep(ctx context.Context, d time.Duration) {
	select {
	case <-ctx.Done():
	case <-time.After(d):
	}
}

// until waits for a condition, and reports whether it came before ctx ended.
func until(ctx context.Context, ok func() bool) bool {
	for pause := 5 * time.Millisecond; ; pause = min(2*pause, 500*time.Millisecond) {
		if ok() {
			return true
		}
		if ctx.Err() != nil {
			return false
		}
		sleep(ctx, pause)
	}
}
