package mysql

import (
	"context"
	"fmt"
	"slices"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// View implements storage.Shard: a read-only transaction on one snapshot. The
// slots are checked in it: a snapshot from before a slot moved away has its
// rows, one from after does not own it.
func (s *Shard) View(ctx context.Context, slots []storage.SlotRef, read func(storage.Snap) error) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	k, err := s.link(ctx)
	if err != nil {
		return err
	}
	defer k.release()
	v := &snap{s: s, k: k, ctx: ctx, slots: slots}
	defer v.close()
	if err := v.begin(); err != nil {
		return wrap("begin a view", err)
	}
	return read(v)
}

// Barrier implements storage.Shard. What is visible has its place in the redo
// log already; the commit of a write of our own is behind it there (and in the
// binary log, which is written in the same order), and returns when everything
// up to it is on the disk.
func (s *Shard) Barrier(ctx context.Context) error {
	st := &stmt{}
	tick(st)
	return s.run(ctx, "barrier", st.text(), nil)
}

// run is a call of one round trip.
func (s *Shard) run(ctx context.Context, what, text string, read []func(*row)) error {
	if err := s.enter(ctx); err != nil {
		return err
	}
	defer s.open.Done()
	k, err := s.link(ctx)
	if err != nil {
		return err
	}
	defer k.release()
	if read == nil {
		return wrap(what, k.exec(ctx, text))
	}
	return wrap(what, k.query(ctx, text, read))
}

// snap implements storage.Snap. Each read is a round trip.
type snap struct {
	s     *Shard
	k     *link
	ctx   context.Context
	slots []storage.SlotRef

	version uint64 // of the slots
	now     int64
}

const beginView = "SET TRANSACTION ISOLATION LEVEL REPEATABLE READ;" +
	"START TRANSACTION WITH CONSISTENT SNAPSHOT, READ ONLY;" +
	"SELECT version," + now + " FROM fence WHERE id=1"

func (v *snap) begin() error {
	err := v.k.query(v.ctx, beginView, []func(*row){func(r *row) {
		v.version, v.now = r.u64(), r.i64()+v.s.opt.Skew().Microseconds()
	}})
	if err != nil {
		return err
	}
	return v.s.checkSlots(v.ctx, v.k, v.slots, v.version)
}

func (v *snap) close() {
	ctx, cancel := context.WithTimeout(context.WithoutCancel(v.ctx), v.s.opt.Timeout)
	defer cancel()
	if err := v.k.exec(ctx, "ROLLBACK"); err != nil {
		v.k.drop() // or what comes next on it would be part of this transaction
	}
}

// selected collects rows of a table: tail is what follows WHERE.
func selected[R any](v *snap, t *table[R], tail func(*stmt)) (rows []R, err error) {
	st := v.s.stmts.Get().(*stmt)
	st.reset()
	t.from(st)
	tail(st)
	text := st.text()
	v.s.stmts.Put(st)
	err = v.k.query(v.ctx, text, []func(*row){func(r *row) { rows = append(rows, t.get(r)) }})
	return rows, wrap("read "+t.name, err)
}

// first is the row that is there, or none.
func first[R any](v *snap, t *table[R], none R, tail func(*stmt)) (R, error) {
	rows, err := selected(v, t, tail)
	if err != nil || len(rows) == 0 {
		return none, err
	}
	return rows[0], nil
}

func (s *stmt) limit(n int) { s.add(" LIMIT "); s.i64(int64(max(n, 0))) }

// Now implements storage.Snap, as do all that follow.
func (v *snap) Now() int64 { return v.now }

func (v *snap) User(u storage.UserID) (storage.UserHead, error) {
	return first(v, &v.s.t.users, storage.UserHead{User: u}, func(s *stmt) { byUser.is(s, u) })
}

func (v *snap) Conv(k storage.ConvKey) (storage.ConvHead, error) {
	h, err := first(v, &v.s.t.convs, storage.ConvHead{Conv: k}, func(s *stmt) { byConv.is(s, k) })
	return h, err
}

func (v *snap) UserHeads(us []storage.UserID) ([]storage.UserHead, error) {
	return selectEach(v, &v.s.t.users, us, &byUser,
		func(h *storage.UserHead) storage.UserID { return h.User },
		func(u storage.UserID) storage.UserHead { return storage.UserHead{User: u} })
}

func (v *snap) UserConvRows(ks []storage.UserConvKey) ([]storage.UserConv, error) {
	return selectEach(v, &v.s.t.userConvs, ks, &byUserConv,
		func(c *storage.UserConv) storage.UserConvKey { return c.Key },
		func(k storage.UserConvKey) storage.UserConv { return storage.UserConv{Key: k} })
}

// selectEach reads the rows with these keys in one round trip, position by
// position.
func selectEach[R any, K comparable](v *snap, t *table[R], keys []K, by *key[K], keyOf func(*R) K, none func(K) R) ([]R, error) {
	if len(keys) == 0 {
		return nil, nil
	}
	place := placing(t, keys, keyOf, none)
	var st stmt
	var read []func(*row)
	for some := range slices.Chunk(keys, keysAtOnce) {
		t.byKey(&st)
		by.is(&st, some...)
		st.end()
		read = append(read, place.row)
	}
	if err := v.k.query(v.ctx, st.text(), read); err != nil {
		return nil, wrap("read "+t.name, err)
	}
	return place.rows, nil
}

func (v *snap) Inbox(user storage.UserID, after uint64, limit int) ([]storage.InboxRow, error) {
	return selected(v, &v.s.t.inbox, func(s *stmt) {
		byUser.is(s, user)
		s.add(" AND seq>")
		s.u64(after)
		s.add(" ORDER BY seq")
		s.limit(limit)
	})
}

func (v *snap) OldestInbox(u storage.UserID) (seq uint64, time int64, ok bool, err error) {
	rows, err := v.Inbox(u, 0, 1)
	if err != nil || len(rows) == 0 {
		return 0, 0, false, err
	}
	return rows[0].Seq, rows[0].Entry.Time, true, nil
}

func (v *snap) Entries(conv storage.ConvKey, from, to uint64, limit, maxBytes int, desc bool) ([]storage.Entry, error) {
	page := entriesPage{conv: conv, from: from, to: to, desc: desc}
	var es []storage.Entry
	for size := 0; len(es) < limit && page.from <= page.to; {
		n := min(limit-len(es), entriesAtOnce)
		rows, err := page.read(v, n)
		if err != nil {
			return nil, err
		}
		for i := range rows {
			if size += len(rows[i].Body); len(es) > 0 && size > maxBytes {
				return es, nil
			}
			es = append(es, rows[i])
		}
		if len(rows) < n || !page.advance(&rows[n-1]) {
			break
		}
	}
	return es, nil
}

// entriesAtOnce bounds what is read to find out that maxBytes are there.
const entriesAtOnce = 100

type entriesPage struct {
	conv     storage.ConvKey
	from, to uint64
	desc     bool
}

func (p *entriesPage) read(v *snap, n int) ([]storage.Entry, error) {
	return selected(v, &v.s.t.entries, func(s *stmt) {
		byConv.is(s, p.conv)
		s.add(" AND rev>=")
		s.u64(p.from)
		s.add(" AND rev<=")
		s.u64(p.to)
		s.add(" ORDER BY rev")
		if p.desc {
			s.add(" DESC")
		}
		s.limit(n)
	})
}

// advance moves past e, and reports whether anything can follow.
func (p *entriesPage) advance(e *storage.Entry) bool {
	if p.desc {
		p.to = e.Rev - 1
		return e.Rev > p.from
	}
	p.from = e.Rev + 1
	return e.Rev < p.to
}

func (v *snap) UserConv(k storage.UserConvKey) (storage.UserConv, error) {
	return first(v, &v.s.t.userConvs, storage.UserConv{Key: k}, func(s *stmt) { byUserConv.is(s, k) })
}

func (v *snap) UserConvs(user storage.UserID, after *storage.ConvKey, limit int) ([]storage.UserConv, error) {
	return selected(v, &v.s.t.userConvs, func(s *stmt) {
		byUser.is(s, user)
		if after != nil {
			s.add(" AND conv>")
			s.bytes(after[:])
		}
		s.add(" ORDER BY conv")
		s.limit(limit)
	})
}

func (v *snap) Name(n string) (storage.NameRow, error) {
	return first(v, &v.s.t.names, storage.NameRow{Name: n}, func(s *stmt) { byName.is(s, n) })
}

func (v *snap) Account(u storage.UserID) (storage.Account, error) {
	return first(v, &v.s.t.accounts, storage.Account{User: u}, func(s *stmt) { byUser.is(s, u) })
}

func (v *snap) Devices(u storage.UserID) ([]storage.Device, error) {
	return selected(v, &v.s.t.devices, func(s *stmt) { byUser.is(s, u); s.add(" ORDER BY id") })
}

func (v *snap) Block(k storage.BlockKey) (storage.Block, error) {
	return first(v, &v.s.t.blocks, storage.Block{Key: k}, func(s *stmt) { byBlock.is(s, k) })
}

func (v *snap) BlocksOf(user, after storage.UserID, limit int) ([]storage.Block, error) {
	return selected(v, &v.s.t.blocks, func(s *stmt) {
		byUser.is(s, user)
		s.add(" AND peer>")
		s.i64(int64(after))
		s.add(" ORDER BY peer")
		s.limit(limit)
	})
}

func (v *snap) UsersFrom(from storage.UserID, limit int) (users []storage.UserID, err error) {
	if len(v.slots) == 0 {
		return nil, nil
	}
	st := &stmt{}
	st.add("SELECT user_id FROM user_heads WHERE user_id>=")
	st.i64(int64(from))
	st.open(" AND (")
	for _, r := range v.slots {
		st.sep(" OR ")
		st.add("user_id")
		slotRange(st, r.Slot)
	}
	st.add(") ORDER BY user_id")
	st.limit(limit)
	err = v.k.query(v.ctx, st.text(), []func(*row){func(r *row) { users = append(users, storage.UserID(r.i64())) }})
	return users, wrap("read users", err)
}

// slotRange is the condition on a user id to be of a slot.
func slotRange(s *stmt, slot storage.Slot) {
	s.add(" BETWEEN ")
	s.i64(int64(slot) << 51)
	s.add(" AND ")
	s.i64(int64(slot)<<51 | (1<<51 - 1))
}

func (v *snap) Meta(name string) (storage.MetaRow, error) {
	return first(v, &v.s.t.meta, storage.MetaRow{Name: name}, func(s *stmt) { byName.is(s, name) })
}

// Tasks implements storage.Shard.
func (s *Shard) Tasks(ctx context.Context, owner storage.NodeID, after *storage.TaskKey, limit int) (tasks []storage.Task, err error) {
	st := &stmt{}
	s.t.tasks.from(st)
	st.add("owner=")
	st.u64(uint64(owner))
	if after != nil {
		fmt.Fprintf(st, " AND (conv>X'%s' OR conv=X'%s' AND target>%d)", after.Conv, after.Conv, after.Target)
	}
	st.add(" ORDER BY conv,target")
	st.limit(limit)
	err = s.run(ctx, "read tasks", st.text(), []func(*row){func(r *row) { tasks = append(tasks, s.t.tasks.get(r)) }})
	return tasks, err
}

// Write lets fmt write into s.
func (s *stmt) Write(p []byte) (int, error) {
	s.b = append(s.b, p...)
	return len(p), nil
}

// Lease implements storage.Shard, in the database's time.
func (s *Shard) Lease(ctx context.Context, node storage.NodeID, incarnation uint64, ttl time.Duration) (dead []storage.NodeID, err error) {
	skew := s.opt.Skew().Microseconds()
	text := fmt.Sprintf("INSERT INTO leases (node,incarnation,until_us) VALUES (%d,%d,%s+%d) "+
		"ON DUPLICATE KEY UPDATE incarnation=VALUES(incarnation), until_us=VALUES(until_us);"+
		"SELECT node FROM leases WHERE until_us<=%s+%d AND node<>%d AND EXISTS (SELECT 1 FROM tasks WHERE owner=node) ORDER BY node",
		node, incarnation, now, skew+ttl.Microseconds(), now, skew, node)
	err = s.run(ctx, "renew the lease", text, []func(*row){func(r *row) { dead = append(dead, storage.NodeID(r.u64())) }})
	return dead, err
}
