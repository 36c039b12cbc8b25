package attack

import (
	"context"
	"errors"
	"fmt"
	"net/netip"
	"sync"
	"time"
)

// scene is what one script works with: whom it attacks, and how it ends.
type scene struct {
	pace
	ctx   context.Context
	stage *stage
	srv   *Server // set by shared or own

	mu    sync.Mutex
	after []func()
}

// breach ends the script: the claim does not hold.
func (s *scene) breach(format string, args ...any) {
	panic(stop{Breached, fmt.Sprintf(format, args...)})
}

// fail ends the script without a verdict.
func (s *scene) fail(format string, args ...any) {
	panic(stop{Failed, fmt.Sprintf(format, args...)})
}

// must ends the script if something went wrong that is no breach.
func (s *scene) must(err error) {
	switch {
	case err == nil:
	case errors.Is(err, ErrUnable):
		panic(stop{NotRun, err.Error()})
	default:
		panic(stop{Failed, err.Error()})
	}
}

// leave undoes what the script has made.
func (s *scene) leave() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for i := len(s.after) - 1; i >= 0; i-- {
		s.after[i]()
	}
	s.after = nil
}

func (s *scene) later(f func()) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.after = append(s.after, f)
}

// shared attacks the server that others attack too.
func (s *scene) shared() {
	srv, err := s.stage.server(s.ctx)
	s.must(err)
	s.srv = srv
}

// own attacks a server of its own.
func (s *scene) own(w Wish) {
	srv, err := s.stage.site.Serve(s.ctx, w)
	s.must(err)
	s.srv = srv
	s.later(func() { _ = srv.Close() })
}

// all runs f for 0 … n-1 at the same time; one that stops, stops the script.
func (s *scene) all(n int, f func(i int)) {
	var wg sync.WaitGroup
	var mu sync.Mutex
	var first *stop
	for i := range n {
		wg.Go(func() {
			defer func() {
				if end, stopped := caught(recover()); stopped {
					mu.Lock()
					defer mu.Unlock()
					if first == nil {
						first = &end
					}
				}
			}()
			f(i)
		})
	}
	wg.Wait()
	if first != nil {
		panic(*first)
	}
}

// eventually waits for what the server owes.
func (s *scene) eventually(within time.Duration, what string, cond func() bool) time.Duration {
	begun := time.Now()
	for !cond() {
		if time.Since(begun) > within {
			s.breach("not after %v: %s", within, what)
		}
		s.pause(10 * time.Millisecond)
	}
	return time.Since(begun)
}

// pause waits; the end of the run ends it.
func (s *scene) pause(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-s.ctx.Done():
		s.must(s.ctx.Err())
	}
}

// someone is the address of somebody new.
func (s *scene) someone() netip.Addr { return s.stage.address() }

// secs shows a time as the summary does.
func secs(d time.Duration) string { return fmt.Sprintf("%.1f s", d.Seconds()) }

// within wants what a limit says: no sooner, and not much later.
func (s *scene) within(got, limit time.Duration) string {
	if got < limit*9/10 || got > limit+5*time.Second {
		s.breach("closed after %s, the limit is %v", secs(got), limit)
	}
	return "closed after " + secs(got)
}
