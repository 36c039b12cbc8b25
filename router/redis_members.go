package router

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
)

// maxAddr bounds the address in a lease.
const maxAddr = 255

func validAddr(s string) bool {
	return len(s) <= maxAddr && !strings.ContainsFunc(s, func(c rune) bool { return c <= ' ' || c == 0x7f })
}

// lease is what a node's field in the hash of leases says:
// "incarnation ends buckets address", for people to read.
type lease struct {
	Member
	buckets int
}

// parseLease decodes a field of the hash of leases.
func parseLease(node, text string) (l lease, err error) {
	part := strings.SplitN(text, " ", 4)
	if len(part) != 4 || !validAddr(part[3]) {
		return l, fmt.Errorf("router: %q is no lease", clip(text))
	}
	var errs [3]error
	l.Node, errs[0] = strconv.ParseUint(node, 10, 64)
	l.Incarnation, errs[1] = strconv.ParseUint(part[0], 10, 64)
	l.buckets, errs[2] = strconv.Atoi(part[2])
	l.Addr = part[3]
	if err := errors.Join(errs[:]...); err != nil {
		return l, fmt.Errorf("router: lease of node %q: %w", clip(node), err)
	}
	return l, nil
}

func clip(s string) string { return s[:min(len(s), 100)] }

// members is who is alive, as of the last answer of Redis. While Redis is away
// nobody can tell, so it stays as it is.
type members struct {
	self  Member
	known atomic.Pointer[roster]
	// asking serializes refreshes.
	asking sync.Mutex
}

// roster is never changed once it is there.
type roster struct {
	list  []Member
	byTag map[tag]Member
	// absent are tags that were looked for after the roster was made, and were
	// nobody's. It is the one part that changes.
	absent sync.Map // tag → struct{}
	// answered: Redis said so. Before its first answer this node knows itself
	// only, and takes nobody for dead.
	answered bool
}

func (m *members) init(self Member) {
	m.self = self
	m.known.Store(newRoster([]Member{self}, false))
}

func newRoster(list []Member, answered bool) *roster {
	r := &roster{list: list, byTag: make(map[tag]Member, len(list)), answered: answered}
	for _, m := range list {
		r.byTag[tagOf(Run{m.Node, m.Incarnation})] = m
	}
	return r
}

// alike reports whether two runs share a tag.
func (r *roster) alike() bool { return len(r.byTag) < len(r.list) }

// Members implements Fleet. It does not ask Redis: what it returns is as old as
// the last renewal. It fails until Redis has answered for the first time.
func (r *Redis) Members(context.Context) ([]Member, error) {
	known := r.members.known.Load()
	if !known.answered {
		return nil, errors.New("router: Redis has not answered yet, so the other nodes are not known")
	}
	return slices.Clone(known.list), nil
}

// setMembers takes what Redis answered to a renewal.
func (r *Redis) setMembers(fields []string) {
	list := []Member{r.members.self}
	mismatched := 0
	for i := 0; i+1 < len(fields); i += 2 {
		l, err := parseLease(fields[i], fields[i+1])
		switch {
		case err != nil:
			mismatched++
			r.often.Warn().Err(err).Msg("directory: a lease that is none; ignored")
			continue
		case l.Node == r.opt.Node:
			continue // self, or a newer run that renew complains about
		case l.buckets != r.opt.Buckets:
			mismatched++
			r.often.Error().Uint64("other", l.Node).Int("its_buckets", l.buckets).Int("our_buckets", r.opt.Buckets).
				Msg("directory: a node divides the directory otherwise, so neither finds the other's users; give both the same number of buckets")
		}
		list = append(list, l.Member)
	}
	known := newRoster(list, true)
	if known.alike() {
		mismatched++
		r.often.Error().Msg("directory: two runs of nodes look alike in the directory; restart the node that came last")
	}
	r.members.known.Store(known)
	r.metrics.members.Set(float64(len(list)))
	r.metrics.mismatched.Set(float64(mismatched))
}

// find returns the live run that a tag stands for. A tag that is not known may
// be a node's that has just joined, so Redis is asked once about it. Neither
// live nor dead: it could not be asked.
func (r *Redis) find(ctx context.Context, t tag) (run Run, live, dead bool) {
	known := r.members.known.Load()
	if m, ok := known.byTag[t]; ok {
		return Run{m.Node, m.Incarnation}, true, false
	}
	if _, absent := known.absent.Load(t); !absent {
		if known = r.refresh(ctx, known); known == nil {
			return Run{}, false, false
		}
		if m, ok := known.byTag[t]; ok {
			return Run{m.Node, m.Incarnation}, true, false
		}
		known.absent.Store(t, struct{}{})
	}
	r.metrics.stale.Inc()
	return Run{}, false, true
}

// refresh returns what Redis says about who is alive: to somebody else since
// the caller looked, or now. It returns nil if Redis does not say.
func (r *Redis) refresh(ctx context.Context, seen *roster) *roster {
	r.members.asking.Lock()
	defer r.members.asking.Unlock()
	if r.members.known.Load() == seen {
		if !r.Up() {
			return nil
		}
		if err := r.ask(ctx); err != nil {
			return nil
		}
	}
	return r.members.known.Load()
}
