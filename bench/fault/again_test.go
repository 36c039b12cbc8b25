package fault

import (
	"context"
	"errors"
	"testing"
	"time"
)

// reluctant is a process that does not start so many times; the other methods
// are not called.
type reluctant struct {
	Process
	fails, kills int
}

func (p *reluctant) Kill() { p.kills++ }

func (p *reluctant) Start(context.Context) error {
	if p.fails--; p.fails >= 0 {
		return errors.New("what it needs is away")
	}
	return nil
}

// TestStartAgain: what does not start is started again, until there is no time.
func TestStartAgain(t *testing.T) {
	p := &reluctant{fails: 2}
	if err := startAgain(p)(t.Context()); err != nil || p.kills != 3 {
		t.Errorf("%v after %d kills", err, p.kills)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	p = &reluctant{fails: 1 << 30}
	if err := startAgain(p)(ctx); err == nil || p.kills != 1 {
		t.Errorf("no time left: %v after %d kills", err, p.kills)
	}
}
