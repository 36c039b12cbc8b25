package router

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/redis/go-redis/v9"
)

// crowded is how many fields a bucket should have at most: a Redis whose
// configuration is no older than 7.0 keeps hashes of up to 128 packed.
const crowded = 100

// Attach implements Directory. It fails for slots that do not exist and for
// connections that are not this node's, and never because of Redis: while Redis
// does not answer, the connection counts among this node's own only, with a
// provisional number, and is registered later.
func (r *Redis) Attach(ctx context.Context, user int64, slot Slot, e Entry) (Attached, error) {
	switch {
	case slot < 1 || slot > maxSlots:
		return Attached{}, fmt.Errorf("router: slot %d: the directory has slots 1 to %d", slot, maxSlots)
	case e.Node != r.opt.Node || e.Incarnation != r.opt.Incarnation:
		return Attached{}, fmt.Errorf("router: node %d attaches its own connections only, not those of %d", r.opt.Node, e.Node)
	}
	e.LoginEpoch, e.AttachNo = min(e.LoginEpoch, maxEpoch), min(e.AttachNo, maxAttachNo)
	if !r.Up() {
		return r.attachHere(ctx, user, slot, e)
	}
	losses, asks := r.losses.Load(), r.asks.Load()
	a, err := r.register(ctx, opAttach, user, slot, e)
	if err != nil {
		r.owed.doubt(userSlot{user, slot})
		return r.attachHere(ctx, user, slot, e)
	}
	if a.Lost {
		return a, nil
	}
	e.AttachNo = a.AttachNo
	here, err := r.mirror.Attach(ctx, user, slot, e)
	if err != nil {
		return Attached{}, err
	}
	if r.losses.Load() != losses || r.asks.Load() != asks {
		r.owe(user, slot) // what we registered may be what was lost, or asked for
	}
	r.askLosers(user, slot)
	return r.settle(user, slot, a, here), nil
}

// askLosers ends the doubt about a slot once its connection is registered for
// sure, or is gone: whoever Redis may have named as the loser in an answer that
// was lost is sought at every node. A node that registers anew what it has for
// the slot finds out what became of it. Without that, two connections of a device
// lived side by side until the loser's next round.
func (r *Redis) askLosers(user int64, slot Slot) {
	if !r.owed.settled(userSlot{user, slot}) {
		return
	}
	for _, m := range r.members.known.Load().list {
		if m.Node != r.opt.Node {
			r.tell(user, slot, Ref{Node: m.Node, Incarnation: m.Incarnation}, false)
		}
	}
}

// Again implements Rejoiner.
func (r *Redis) Again(user int64, slot Slot) {
	r.asks.Add(1)
	if _, ok := r.mirror.find(user, slot); ok {
		r.owe(user, slot)
		r.owed.poke()
	}
}

// settle joins what Redis and the mirror say about an entry that won in Redis.
// They differ when two attaches overtook each other on their way back, when a
// connection of this node is not registered yet, or when Redis forgot one. Each
// loser of either is told, if need be twice: one that Redis forgot before the
// mirror had it is known to nobody else.
func (r *Redis) settle(user int64, slot Slot, a, here Attached) Attached {
	switch {
	case here.Lost:
		r.tell(user, slot, a.Loser, a.NewLogin)
		r.owe(user, slot)
		return here
	case here.Loser == (Ref{}) || here.Loser == a.Loser:
	case a.Loser == (Ref{}):
		a.Loser, a.NewLogin = here.Loser, here.NewLogin
	default:
		r.tell(user, slot, here.Loser, here.NewLogin)
	}
	return a
}

// attachHere attaches among this node's own connections.
func (r *Redis) attachHere(ctx context.Context, user int64, slot Slot, e Entry) (Attached, error) {
	r.metrics.mirrored.WithLabelValues(opAttach).Inc()
	a, err := r.mirror.Attach(ctx, user, slot, e)
	if err == nil && !a.Lost {
		r.owe(user, slot)
	}
	return a, err
}

// register runs attachScript. If it loses to the entry of a run that is no
// more, it runs it again with leave to overwrite just that one.
func (r *Redis) register(ctx context.Context, op string, user int64, slot Slot, e Entry) (Attached, error) {
	floor := uint64(0)
	if old, ok := r.mirror.find(user, slot); ok {
		floor = old.AttachNo + 1
	}
	last := r.deadline(r.now())
	for dead := ""; ; {
		args := r.attachArgs(user, slot, e, floor, dead, last)
		var res attachReply
		err := r.request(ctx, op, func(ctx context.Context) error {
			reply, err := r.scripts.attach.Run(ctx, r.opt.Client, []string{r.layout.key(user)}, args...).Slice()
			if err == nil {
				res, err = parseAttach(reply)
			}
			return err
		})
		if err != nil {
			return Attached{}, err
		}
		if late := r.deadline(time.UnixMicro(int64(res.no))); res.status == attachLate && late > last {
			last = late // and yet the answer is here: it is the clocks that differ
			continue
		}
		a, stale, unsure := r.outcome(ctx, e, res)
		if stale && dead == "" {
			dead = res.old
			continue
		}
		if unsure {
			r.owed.doubt(userSlot{user, slot})
		}
		return a, nil
	}
}

func (r *Redis) attachArgs(user int64, slot Slot, e Entry, floor uint64, dead string, last int64) []any {
	return []any{r.layout.field(user, slot), e.LoginEpoch, e.AttachNo, floor, who(r.self, e.Conn), dead, last}
}

// deadline is when a request that is sent now will be given up, by a clock that
// says now. After that it must not run: what follows, a Detach above all, counts
// on being later. Servers of a Cluster whose clocks are ahead by more than the
// time-out take two requests for an attach.
func (r *Redis) deadline(now time.Time) int64 { return now.Add(r.opt.Timeout).UnixMicro() }

// What attachScript answers first.
const (
	attachWon  = 1
	attachLate = 2
)

// attachReply is attachScript's answer.
type attachReply struct {
	status int64
	no     uint64
	old    string
	fields int64
}

func parseAttach(reply []any) (a attachReply, err error) {
	if len(reply) == 4 {
		status, ok1 := reply[0].(int64)
		no, ok2 := reply[1].(int64)
		old, ok3 := reply[2].(string)
		fields, ok4 := reply[3].(int64)
		if ok1 && ok2 && ok3 && ok4 {
			return attachReply{status: status, no: uint64(no), old: old, fields: fields}, nil
		}
	}
	return a, errors.New("router: attach answered something else")
}

// outcome says what an answer means for e. stale: e lost, but to a run that is
// no more. unsure: e won, and whose entry it took could not be found out.
func (r *Redis) outcome(ctx context.Context, e Entry, res attachReply) (a Attached, stale, unsure bool) {
	if res.fields > crowded {
		r.metrics.crowded.Inc()
	}
	a.AttachNo = res.no
	old, ok := parseValue(res.old)
	if !ok {
		return a, false, false
	}
	run, live, dead := r.find(ctx, old.tag)
	if res.status != attachWon {
		a.Lost, a.Loser, a.NewLogin = true, e.Ref, old.entry.LoginEpoch > e.LoginEpoch
		return a, dead, false
	}
	if live {
		a.Loser = Ref{Node: run.Node, Incarnation: run.Incarnation, Conn: old.entry.Conn}
		a.NewLogin = e.LoginEpoch > old.entry.LoginEpoch
	}
	return a, false, !live && !dead
}

// Detach implements Directory. Like Attach it never fails because of Redis: what
// Redis did not hear of now it hears later.
func (r *Redis) Detach(ctx context.Context, user int64, slot Slot, ref Ref) error {
	_ = r.mirror.Detach(ctx, user, slot, ref)
	if slot < 1 || slot > maxSlots {
		return nil
	}
	defer r.askLosers(user, slot) // who goes before the doubt ended leaves it behind
	d := detached{r.layout.key(user), r.layout.field(user, slot), who(tagOf(ref.Run()), ref.Conn)}
	if r.Up() {
		err := r.request(ctx, opDetach, func(ctx context.Context) error {
			return r.scripts.detach.Run(ctx, r.opt.Client, []string{d.key}, d.field, d.who).Err()
		})
		if err == nil {
			return nil
		}
	}
	r.metrics.mirrored.WithLabelValues(opDetach).Inc()
	r.oweDetach(d)
	return nil
}

// Lookup implements Directory: one pipelined request for all users. Whom Redis
// does not answer for is looked up among this node's own connections; it never
// fails.
func (r *Redis) Lookup(ctx context.Context, users []int64, dst []Route) ([]Route, error) {
	if !r.Up() {
		r.metrics.mirrored.WithLabelValues(opLookup).Add(float64(len(users)))
		return r.mirror.Lookup(ctx, users, dst)
	}
	replies := make([]*redis.SliceCmd, len(users))
	_ = r.request(ctx, opLookup, func(ctx context.Context) error {
		pipe := r.opt.Client.Pipeline()
		for i, user := range users {
			replies[i] = pipe.HMGet(ctx, r.layout.key(user), r.fields(user)...)
		}
		_, err := pipe.Exec(ctx)
		return unlessSome(err, replies)
	})
	for i, user := range users {
		if replies[i].Err() != nil {
			r.metrics.mirrored.WithLabelValues(opLookup).Inc()
			dst, _ = r.mirror.Lookup(ctx, users[i:i+1], dst)
			continue
		}
		dst = r.appendRoutes(ctx, dst, user, replies[i].Val())
	}
	return dst, nil
}

func (r *Redis) fields(user int64) []string {
	fields := make([]string, maxSlots)
	for i := range fields {
		fields[i] = r.layout.field(user, Slot(i+1))
	}
	return fields
}

// appendRoutes appends what is registered for a user: a value for each slot.
func (r *Redis) appendRoutes(ctx context.Context, dst []Route, user int64, vals []any) []Route {
	for i, val := range vals {
		s, ok := val.(string)
		if !ok {
			continue
		}
		v, ok := parseValue(s)
		if !ok {
			continue
		}
		if run, live, _ := r.find(ctx, v.tag); live {
			v.entry.Node, v.entry.Incarnation = run.Node, run.Incarnation
			dst = append(dst, Route{User: user, Slot: Slot(i + 1), Entry: v.entry})
		}
	}
	return dst
}

// unlessSome drops a pipeline's error if any command of it was answered: one
// dead server of a Cluster is not the end of all of them.
func unlessSome[C redis.Cmder](err error, cmds []C) error {
	for i := range cmds {
		if cmds[i].Err() == nil {
			return nil
		}
	}
	return err
}
