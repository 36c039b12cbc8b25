package router

import (
	"context"
	"slices"
	"strings"
	"sync/atomic"
	"testing"

	"github.com/redis/go-redis/v9"

	"github.com/hermod-im/hermod/bench/local"
)

// deaf is a hook that does not hear the answers to so many scripts that attach:
// they run, and time out.
type deaf struct{ left atomic.Int32 }

func (d *deaf) hears(cmds ...redis.Cmder) error {
	sha := newScripts().attach.Hash()
	for _, c := range cmds {
		if strings.HasPrefix(c.Name(), "eval") && slices.Contains(c.Args(), any(sha)) && c.Err() == nil && d.left.Add(-1) >= 0 {
			c.SetErr(context.DeadlineExceeded)
			return c.Err()
		}
	}
	return nil
}

func (d *deaf) DialHook(next redis.DialHook) redis.DialHook { return next }

func (d *deaf) ProcessHook(next redis.ProcessHook) redis.ProcessHook {
	return func(ctx context.Context, cmd redis.Cmder) error {
		if err := next(ctx, cmd); err != nil {
			return err
		}
		return d.hears(cmd)
	}
}

func (d *deaf) ProcessPipelineHook(next redis.ProcessPipelineHook) redis.ProcessPipelineHook {
	return func(ctx context.Context, cmds []redis.Cmder) error {
		if err := next(ctx, cmds); err != nil {
			return err
		}
		return d.hears(cmds...)
	}
}

// A connection took the slot of another node's, and the answer that says so was
// lost, at first sight or when it was registered anew. The loser is found out.
func TestTheLoserOfALostAnswer(t *testing.T) {
	for name, lost := range map[string]int32{"attach": 1, "attach and registered anew": 2} {
		t.Run(name, func(t *testing.T) {
			f := newFleet(t, local.RedisOptions{})
			d := new(deaf)
			a, b, c := f.start(1, 1, func(o *RedisOptions) { o.Client.AddHook(d) }), f.start(2, 1), f.start(3, 1)
			b.attach(7, 1, 70, 1)
			c.sees(7, b.ref(70))
			a.attach(8, 1, 80, 1) // the script is known
			eventually(t, func() bool { ms, err := a.Members(context.Background()); return err == nil && len(ms) == 3 }, func() any { return a.log })
			d.left.Store(lost)
			if got := a.attach(7, 1, 71, 1); got.Lost || got.Loser != (Ref{}) {
				t.Fatalf("the answer was heard: %+v", got)
			}
			c.sees(7, a.ref(71))
			asked := kick{7, 1, 0, false}
			eventually(t, func() bool { return len(a.toldOf()) >= 2 }, func() any { return a.toldOf() })
			if got := a.toldOf(); !slices.Equal(got, []kick{asked, asked}) {
				t.Errorf("told %+v, want both other nodes asked", got)
			}
			for _, n := range []*node{b, c} { // as the router does
				n.Again(7, 1)
			}
			eventually(t, func() bool { return slices.Equal(b.toldOf(), []kick{{7, 1, 70, false}}) }, func() any { return b.toldOf() })
			c.sees(7, a.ref(71))
			if got := c.toldOf(); len(got) != 0 {
				t.Errorf("a node that has nothing was told %+v", got)
			}
			// Nobody is asked twice, nor where no answer was lost.
			a.attach(7, 1, 72, 1)
			a.attach(9, 1, 90, 1)
			if got := a.toldOf(); len(got) != 2 {
				t.Errorf("told %+v", got)
			}
		})
	}
}
