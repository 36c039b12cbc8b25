package bench

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sync/errgroup"
	"golang.org/x/sync/semaphore"

	"github.com/hermod-im/hermod/proto"
)

// runner is what the scenarios share: accounts, connections, the server's
// figures, progress, and the report.
type runner struct {
	target    Target
	users     Users
	accounts  *accounts
	dialer    *dialer
	logins    *semaphore.Weighted
	heartbeat time.Duration
	probe     *probe // nil: no figures
	begin     time.Time
	report    *Report
	readSize  int

	cancel   context.CancelFunc
	running  sync.WaitGroup
	sessions []*session

	mu     sync.Mutex
	errors map[string]uint64
	first  error // the first error of a login, for the message

	peak      uint64
	lastShown time.Time
	lastAcked uint64
}

// progressEvery is how often Progress is called and the server's RSS sampled.
const progressEvery = time.Second

func newRunner(ctx context.Context, scenario string, t Target, u Users, conns int) (*runner, error) {
	d, err := newDialer(t.Addr, t.TLS, conns)
	if err != nil {
		return nil, err
	}
	a, err := openAccounts(u.State, u.Prefix, u.Password)
	if err != nil {
		return nil, err
	}
	r := &runner{
		target: t, users: u, accounts: a, dialer: d,
		logins:   semaphore.NewWeighted(int64(u.Logins)),
		probe:    newProbe(t.PID, t.Admin),
		begin:    time.Now(),
		report:   newReport(scenario, t),
		readSize: 4096,
		errors:   make(map[string]uint64),
	}
	if err := r.reach(ctx); err != nil {
		a.close()
		return nil, err
	}
	r.sampleBefore(ctx)
	return r, nil
}

// reach opens one connection, TLS handshake included, to fail early with a
// message that says why.
func (r *runner) reach(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, 10*time.Second)
	defer cancel()
	conn, err := r.dialer.dial(ctx, 0)
	if err != nil {
		return fmt.Errorf("bench: no connection to %s: %w", r.target.Addr, err)
	}
	return conn.Close()
}

// since is the time since the run began: monotonic, and small enough to
// subtract without thinking.
func (r *runner) since() time.Duration { return time.Since(r.begin) }

// sampleBefore reads the server's figures for the first time. A server that
// cannot be looked into is measured all the same, without them.
func (r *runner) sampleBefore(ctx context.Context) {
	if r.probe == nil {
		r.note("no figures of the server's process: give its pid or its admin address")
		return
	}
	u, err := r.probe.read(ctx, false)
	if err != nil {
		r.note("no figures of the server's process: %v", err)
		r.probe = nil
		return
	}
	r.report.Server.Source = r.probe.source()
	r.report.Server.RSSBefore = u.RSS
	r.peak = u.RSS
}

// sample reads the server's figures; ok is false if there are none now.
func (r *runner) sample(ctx context.Context, detailed bool) (usage, bool) {
	if r.probe == nil {
		return usage{}, false
	}
	u, err := r.probe.read(ctx, detailed)
	if err != nil {
		r.target.Log.Debug().Err(err).Msg("server figures")
		return usage{}, false
	}
	r.peak = max(r.peak, u.RSS)
	return u, true
}

func (r *runner) note(format string, args ...any) {
	r.report.Notes = append(r.report.Notes, fmt.Sprintf(format, args...))
}

func (r *runner) problem(format string, args ...any) {
	r.report.Problems = append(r.report.Problems, fmt.Sprintf(format, args...))
}

// errorSeen counts an error under its code, or under what kind it is.
func (r *runner) errorSeen(err error) {
	kind := errorKind(err)
	if kind == "" {
		return
	}
	r.mu.Lock()
	defer r.mu.Unlock()
	r.errors[kind]++
	if r.first == nil {
		r.first = err
	}
	if r.errors[kind] == 1 {
		r.target.Log.Debug().Err(err).Str("kind", kind).Msg("first of its kind")
	}
}

func errorKind(err error) string {
	var fault *proto.Fault
	var ne net.Error
	switch {
	case err == nil || errors.Is(err, context.Canceled) || errors.Is(err, net.ErrClosed):
		return ""
	case errors.As(err, &fault):
		return fault.Code.Short()
	case errors.Is(err, errRepair):
		return "gap_repair"
	case errors.Is(err, syscall.ECONNREFUSED):
		return "connection_refused"
	case errors.Is(err, syscall.ECONNRESET), errors.Is(err, syscall.EPIPE):
		return "connection_reset"
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return "connection_closed"
	case errors.Is(err, os.ErrDeadlineExceeded), errors.Is(err, context.DeadlineExceeded), errors.As(err, &ne) && ne.Timeout():
		return "timeout"
	}
	return "other"
}

// prepare makes the accounts 0 … count-1 that do not exist yet, so that no
// password is hashed while something is measured.
func (r *runner) prepare(ctx context.Context, count int) error {
	began := time.Now()
	if err := r.dropStale(ctx); err != nil {
		return err
	}
	var missing []*account
	for n := range count {
		if acc := r.accounts.get(n); acc.UserID == 0 {
			missing = append(missing, acc)
		}
	}
	if err := r.allOnce(ctx, "users", missing); err != nil {
		return err
	}
	r.report.Users = UsersResult{Count: count, Registered: len(missing), Elapsed: seconds(time.Since(began))}
	return nil
}

// allOnce logs each account in once, or registers it, and disconnects.
func (r *runner) allOnce(ctx context.Context, phase string, accs []*account) error {
	var mu sync.Mutex
	done := 0
	g, gctx := errgroup.WithContext(ctx)
	g.SetLimit(r.users.Logins)
	finished := make(chan error, 1)
	go func() {
		for _, acc := range accs {
			if gctx.Err() != nil {
				break
			}
			g.Go(func() error {
				if err := r.once(gctx, acc); err != nil {
					return fmt.Errorf("bench: user %s: %w", r.accounts.name(acc.N), err)
				}
				mu.Lock()
				done++
				mu.Unlock()
				return nil
			})
		}
		finished <- g.Wait()
	}()
	var err error
	r.watch(ctx, phase, 0, func() bool {
		select {
		case err = <-finished:
			return true
		default:
			return false
		}
	}, func(p *Progress) {
		mu.Lock()
		p.Done, p.Total = done, len(accs)
		mu.Unlock()
	})
	if ctx.Err() != nil {
		<-finished // after the context, so soon
		return ctx.Err()
	}
	return err
}

// dropStale forgets all user ids if the server no longer knows the first user:
// its data are new.
func (r *runner) dropStale(ctx context.Context) error {
	acc := r.accounts.get(0)
	was := acc.UserID
	if err := r.once(ctx, acc); err != nil {
		return fmt.Errorf("bench: logging in user %s: %w", r.accounts.name(0), err)
	}
	if was == 0 || acc.UserID == was {
		return nil
	}
	r.note("the server did not know the users of the state folder; they were registered again")
	return r.accounts.forgetBut(acc)
}

// once logs a user in and leaves. Refusals that pass are waited out.
func (r *runner) once(ctx context.Context, acc *account) error {
	backoff := minBackoff
	for {
		l, err := r.accounts.login(ctx, r.dialer.dial, acc, loginHow{now: time.Now})
		if err == nil {
			return l.conn.Close()
		}
		r.errorSeen(err)
		var f *proto.Fault
		if !errors.As(err, &f) || !f.Retryable {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(max(backoff, f.RetryAfter)):
		}
		backoff = min(2*backoff, maxBackoff)
	}
}

// newSession adds a session for user n; start runs it.
func (r *runner) newSession(n int, mu *sync.Mutex, k sink) *session {
	s := &session{r: r, acc: r.accounts.get(n), sink: k, mu: mu, readSize: r.readSize}
	r.sessions = append(r.sessions, s)
	return s
}

func (r *runner) start(ctx context.Context, s *session) {
	r.running.Go(func() { s.run(ctx) })
}

// connected counts the sessions that are in and caught up, and returns why one
// of them will never be.
func (r *runner) connected(list []*session) (n int, err error) {
	for _, s := range list {
		ok, dead := s.ready()
		if ok {
			n++
		}
		if dead != nil && err == nil {
			err = fmt.Errorf("bench: user %s: %w", r.accounts.name(s.acc.N), dead)
		}
	}
	return n, err
}

// tickAll calls tick on the sessions, every so often, until ctx ends.
func (r *runner) tickAll(ctx context.Context, every time.Duration, list []*session) {
	r.running.Go(func() {
		t := time.NewTicker(every)
		defer t.Stop()
		for {
			select {
			case <-ctx.Done():
				return
			case <-t.C:
			}
			at := r.since()
			for _, s := range list {
				s.tick(at)
			}
		}
	})
}

// watch waits until done says so, ctx ends, or limit (if above 0) is over, and
// shows progress meanwhile. It reports whether done said so.
func (r *runner) watch(ctx context.Context, phase string, limit time.Duration, done func() bool, fill func(*Progress)) bool {
	began := time.Now()
	poll := time.NewTicker(20 * time.Millisecond)
	defer poll.Stop()
	for {
		if done() {
			return true
		}
		if limit > 0 && time.Since(began) >= limit {
			return false
		}
		if now := time.Now(); now.Sub(r.lastShown) >= progressEvery {
			r.show(ctx, now, phase, now.Sub(began), fill)
		}
		select {
		case <-ctx.Done():
			return false
		case <-poll.C:
		}
	}
}

func (r *runner) show(ctx context.Context, now time.Time, phase string, elapsed time.Duration, fill func(*Progress)) {
	p := Progress{Phase: phase, Elapsed: elapsed}
	if u, ok := r.sample(ctx, false); ok {
		p.RSS = u.RSS
	}
	if fill != nil {
		fill(&p)
	}
	if step := now.Sub(r.lastShown); step < time.Minute && p.Acked >= r.lastAcked {
		p.Rate = float64(p.Acked-r.lastAcked) / step.Seconds()
	}
	r.lastShown, r.lastAcked = now, p.Acked
	if r.target.Progress != nil {
		r.target.Progress(p)
	}
}

// stop ends all sessions and waits for everything that the runner started.
func (r *runner) stop() error {
	for _, s := range r.sessions {
		s.close()
	}
	if r.cancel != nil {
		r.cancel()
	}
	r.running.Wait()
	return r.accounts.close()
}

// finish completes the report.
func (r *runner) finish(ctx context.Context) *Report {
	rep := r.report
	if u, ok := r.sample(ctx, false); ok {
		rep.Server.RSSAfter = u.RSS
	}
	rep.Server.RSSPeak = r.peak
	r.mu.Lock()
	for k, v := range r.errors {
		rep.Errors[k] = v
	}
	r.mu.Unlock()
	rep.Elapsed = seconds(r.since())
	rep.OK = len(rep.Problems) == 0
	return rep
}

// connections sums up the sessions.
func (r *runner) connections() (c Connections) {
	for _, s := range r.sessions {
		s.mu.Lock()
		if s.conn != nil {
			c.Open++
		}
		c.Logins += s.stats.logins
		c.Drops += s.stats.drops
		c.Heartbeats += s.stats.heartbeats
		c.DeliveryAcks += s.stats.deliveryAcks
		s.mu.Unlock()
	}
	return c
}
