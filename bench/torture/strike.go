package torture

import (
	"context"
	"fmt"
	"strings"
	"time"

	"github.com/hermod-im/hermod/bench/fault"
)

const (
	// healTimeout bounds a heal: a server that recovers a large log takes a while.
	healTimeout = 2 * time.Minute
	// strikeTimeout bounds a strike: a rolling restart is one that takes long, and
	// with a node that does not start any more would never end.
	strikeTimeout = 5 * time.Minute
)

// strikeAll follows the schedule. Everything is healed when it returns, also if
// ctx ends.
func (r *run) strikeAll(ctx context.Context) {
	for i := 0; i < len(r.schedule); {
		n := 1
		for i+n < len(r.schedule) && r.schedule[i+n].With {
			n++
		}
		sleep(ctx, r.schedule[i].After)
		if ctx.Err() != nil {
			return
		}
		r.together(ctx, r.schedule[i:i+n])
		i += n
	}
}

// together carries out strikes that overlap, and returns when all are healed.
func (r *run) together(ctx context.Context, strikes []Strike) {
	var names []string
	done := make(chan struct{}, len(strikes))
	for i, s := range strikes {
		if i > 0 {
			sleep(ctx, s.After)
		}
		names = append(names, s.Fault+" "+s.Target)
		r.now(strings.Join(names, " + "))
		go func() {
			r.strike(ctx, s)
			done <- struct{}{}
		}()
	}
	for range strikes {
		<-done
	}
	r.now("")
}

func (r *run) now(striking string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.striking = striking
}

// strike carries out one strike, waits, and heals.
func (r *run) strike(ctx context.Context, s Strike) {
	f, ok := r.fault(s.Fault)
	if !ok {
		r.trouble("the schedule has the fault %q, which the system has not", s.Fault)
		return
	}
	log := r.opt.Log.With().Str("fault", s.Fault).Str("target", s.Target).Logger()
	log.Info().Dur("for", s.Last).Msg("strikes")
	st := Struck{Strike: s, At: time.Since(r.h.begun)}
	sc, cancel := context.WithTimeout(ctx, strikeTimeout)
	heal, err := f.Strike(sc, s.Target)
	cancel()
	if err == nil {
		sleep(ctx, s.Last)
		// Also of a run that is given up: nothing must stay broken.
		hc, cancel := context.WithTimeout(context.WithoutCancel(ctx), healTimeout)
		err = heal(hc)
		cancel()
	}
	st.Healed = time.Since(r.h.begun)
	if err != nil {
		st.Error = err.Error()
		r.trouble("%s %s at %v: %v", s.Fault, s.Target, st.At.Round(time.Second), err)
	}
	log.Info().Err(err).Dur("after", st.Healed-st.At).Msg("healed")
	r.h.mu.Lock()
	r.h.struck = append(r.h.struck, st)
	r.h.mu.Unlock()
}

func (r *run) fault(name string) (fault.Fault, bool) {
	for _, f := range r.opt.System.Faults() {
		if f.Name == name {
			return f, true
		}
	}
	return fault.Fault{}, false
}

// String is the strike in a line.
func (s Strike) String() string {
	when := fmt.Sprintf("%v after", s.After)
	if s.With {
		when = fmt.Sprintf("with it, %v later", s.After)
	}
	return fmt.Sprintf("%s: %s on %s for %v", when, s.Fault, s.Target, s.Last)
}
