package fault

import (
	"context"
	"errors"
	"time"
)

// Process is one that can be killed and started again; those of bench/local are.
type Process interface {
	// Kill ends it with SIGKILL; one that does not run stays so.
	Kill()
	// Stop ends it with SIGTERM.
	Stop() error
	// Pause and Continue freeze and thaw it: SIGSTOP, SIGCONT.
	Pause() error
	Continue() error
	// Start starts it again and returns when it answers.
	Start(ctx context.Context) error
	// Pid is 0 while it does not run.
	Pid() int
	// Ended is closed when it has ended, by whomever.
	Ended() <-chan struct{}
}

// Revived is f with one more thing to heal: a process that ended by itself
// meanwhile is started again, as a service manager would. Targets of f that are
// no part's name have none.
func Revived(f Fault, parts []Part[Process]) Fault {
	strike := f.Strike
	f.Strike = func(ctx context.Context, target string) (Heal, error) {
		heal, err := strike(ctx, target)
		if err != nil {
			return nil, err
		}
		return func(ctx context.Context) error {
			err := heal(ctx)
			for _, p := range parts {
				if p.Name == target {
					err = errors.Join(err, revive(ctx, p.It))
				}
			}
			return err
		}, nil
	}
	return f
}

func revive(ctx context.Context, p Process) error {
	select {
	case <-p.Ended():
		return startAgain(p)(ctx)
	default:
		return nil
	}
}

// Kill is a crash: kill -9. Healing starts the process again.
func Kill(name, about string, parts []Part[Process], least, most time.Duration) Fault {
	f := Fault{Name: name, About: about, Least: least, Most: most}
	return On(f, parts, func(_ context.Context, p Process) (Heal, error) {
		p.Kill()
		return startAgain(p), nil
	})
}

// startAgain starts a process that was ended, or has ended since: again and
// again, as a service manager does, since what it needs may be away just then.
func startAgain(p Process) Heal {
	return func(ctx context.Context) error {
		for {
			p.Kill() // one that has ended by itself is not known to have
			err := p.Start(ctx)
			if err == nil {
				return nil
			}
			select {
			case <-ctx.Done():
				return err
			case <-time.After(startEvery):
			}
		}
	}
}

// startEvery is the pause between two starts of a process that does not stay.
const startEvery = 500 * time.Millisecond

// Pause freezes: connections stay open and nobody answers. Then the process
// goes on as if nothing had been.
func Pause(name, about string, parts []Part[Process], least, most time.Duration) Fault {
	f := Fault{Name: name, About: about, Least: least, Most: most}
	return On(f, parts, func(_ context.Context, p Process) (Heal, error) {
		if err := p.Pause(); err != nil {
			return nil, err
		}
		return func(context.Context) error { return p.Continue() }, nil
	})
}

// Restart is what an operator does to one process: SIGTERM, wait for its end,
// and start it again after the fault's time.
func Restart(name, about string, parts []Part[Process], least, most time.Duration) Fault {
	f := Fault{Name: name, About: about, Least: least, Most: most}
	return On(f, parts, func(_ context.Context, p Process) (Heal, error) {
		err := p.Stop()
		if err != nil { // it was killed, since it did not stop
			return nil, errors.Join(err, p.Start(context.Background()))
		}
		return startAgain(p), nil
	})
}

// Rolling restarts all processes, one after the other, the way a new version
// is rolled out. It is over when Strike returns: minutes, if many clients have
// to be drained. The target's name is «all».
func Rolling(name, about string, all []Part[Process]) Fault {
	f := Fault{Name: name, About: about, Alone: true}
	return On(f, []Part[[]Part[Process]]{{"all", all}}, func(ctx context.Context, all []Part[Process]) (Heal, error) {
		for _, p := range all {
			if err := p.It.Stop(); err != nil {
				return nil, errors.Join(err, startAgain(p.It)(ctx))
			}
			if err := startAgain(p.It)(ctx); err != nil {
				return nil, err
			}
		}
		return nil, nil
	})
}
