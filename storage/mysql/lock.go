package mysql

import (
	"bytes"
	"cmp"
	"context"
	"slices"

	"github.com/hermod-im/hermod/storage"
)

// locking is the first round trip of a transaction: it begins, locks what is
// named in the order of R2, and reads it.
type locking struct {
	s   *Shard
	l   *storage.Locks
	st  *stmt
	out *storage.Locked

	version uint64
	missing bool // a conversation's head
	read    []func(*row)
}

// now is the database's clock in microseconds.
const now = "CAST(UNIX_TIMESTAMP(SYSDATE(6))*1000000 AS SIGNED)"

// lock runs the round trip. A conversation that has no head yet is not locked
// by looking for it. So, when one was missing, everything begins anew with
// writing heads where there are none (create), which locks them all.
func (s *Shard) lock(ctx context.Context, k *link, l *storage.Locks) (*storage.Locked, error) {
	for create := false; ; create = true {
		g := &locking{s: s, l: l, out: new(storage.Locked)}
		g.st = s.stmts.Get().(*stmt)
		g.st.reset()
		g.build(create)
		text := g.st.text()
		s.stmts.Put(g.st)
		if err := k.query(ctx, text, g.read); err != nil {
			return nil, err
		}
		if err := s.checkSlots(ctx, k, l.Slots, g.version); err != nil {
			return nil, err
		}
		if !g.missing {
			g.out.Now += s.opt.Skew().Microseconds()
			return g.out, nil
		}
		if err := k.exec(ctx, "ROLLBACK"); err != nil {
			return nil, err
		}
	}
}

func (g *locking) build(create bool) {
	g.st.add("START TRANSACTION;")
	g.clock()
	if create {
		g.createConvs()
	}
	l, t, out, first := g.l, g.s.t, g.out, len(g.read)
	out.Convs = lockRows(g, &t.convs, l.Convs, compareConvs, &byConv,
		func(h *storage.ConvHead) storage.ConvKey { return h.Conv },
		func(k storage.ConvKey) storage.ConvHead { return storage.ConvHead{Conv: k} })
	if !create {
		g.countConvs(first)
	}
	out.Users = lockRows(g, &t.users, l.Users, cmp.Compare, &byUser,
		func(h *storage.UserHead) storage.UserID { return h.User },
		func(u storage.UserID) storage.UserHead { return storage.UserHead{User: u} })
	out.Sends = lockRows(g, &t.sends, l.Sends, compareSends, &bySend,
		func(r *storage.SendRow) storage.SendKey { return r.Key },
		func(k storage.SendKey) storage.SendRow { return storage.SendRow{Key: k} })
	out.UserConvs = lockRows(g, &t.userConvs, l.UserConvs, compareUserConvs, &byUserConv,
		func(c *storage.UserConv) storage.UserConvKey { return c.Key },
		func(k storage.UserConvKey) storage.UserConv { return storage.UserConv{Key: k} })
	out.Tasks = lockRows(g, &t.tasks, l.Tasks, compareTasks, &byTask,
		func(r *storage.Task) storage.TaskKey { return r.Key },
		func(k storage.TaskKey) storage.Task { return storage.Task{Key: k} })
	out.Names = lockRows(g, &t.names, l.Names, cmp.Compare, &byName,
		func(n *storage.NameRow) string { return n.Name },
		func(n string) storage.NameRow { return storage.NameRow{Name: n} })
	out.Accounts = lockRows(g, &t.accounts, l.Accounts, cmp.Compare, &byUser,
		func(a *storage.Account) storage.UserID { return a.User },
		func(u storage.UserID) storage.Account { return storage.Account{User: u} })
	g.lockDevices()
	out.Blocks = lockRows(g, &t.blocks, l.Blocks, compareBlocks, &byBlock,
		func(b *storage.Block) storage.BlockKey { return b.Key },
		func(k storage.BlockKey) storage.Block { return storage.Block{Key: k} })
	out.Meta = lockRows(g, &t.meta, l.Meta, cmp.Compare, &byName,
		func(m *storage.MetaRow) string { return m.Name },
		func(n string) storage.MetaRow { return storage.MetaRow{Name: n} })
}

// clock reads the time, and share-locks the fence where slots are to stay.
func (g *locking) clock() {
	g.st.add("SELECT version," + now + " FROM fence WHERE id=1")
	if len(g.l.Slots) > 0 {
		g.st.add(" LOCK IN SHARE MODE")
	}
	g.st.end()
	g.read = append(g.read, func(r *row) { g.version, g.out.Now = r.u64(), r.i64() })
}

// createConvs writes heads that say nothing (no generation) where there are
// none, and locks those that are there, in one order.
func (g *locking) createConvs() {
	s := g.st
	s.open("INSERT INTO convs (conv,generation,rev,conv_seq,last_time_us,member_version) VALUES ")
	for _, k := range sorted(g.l.Convs, compareConvs) {
		s.sep(",")
		s.add("(")
		s.bytes(k[:])
		s.add(",NULL,0,0,0,0)")
	}
	s.add(" ON DUPLICATE KEY UPDATE conv=VALUES(conv)")
	s.end()
}

// countConvs finds out whether a head is missing: with all heads there, as many
// rows are read as there are different keys. The heads' results are those from
// first on.
func (g *locking) countConvs(first int) {
	want := len(sorted(g.l.Convs, compareConvs))
	g.missing = want > 0
	for i := first; i < len(g.read); i++ {
		each := g.read[i]
		g.read[i] = func(r *row) {
			each(r)
			want--
			g.missing = want > 0
		}
	}
}

// keysAtOnce is how many keys a list has at most. MariaDB makes a join out of a
// list of 1,000 numbers (a key may be four), and then locks the whole table.
const keysAtOnce = 200

// lockRows adds SELECT … FOR UPDATE for the rows with these keys, and returns
// where they will be, position by position.
func lockRows[R any, K comparable](g *locking, t *table[R], keys []K, compare func(a, b K) int, by *key[K], keyOf func(*R) K, none func(K) R) []R {
	if len(keys) == 0 {
		return nil
	}
	place := placing(t, keys, keyOf, none)
	for some := range slices.Chunk(sorted(keys, compare), keysAtOnce) {
		t.byKey(g.st)
		by.is(g.st, some...)
		g.st.add(" FOR UPDATE")
		g.st.end()
		g.read = append(g.read, place.row)
	}
	return place.rows
}

// places are rows where their keys are asked for, each as none until row has
// read it.
type places[R any, K comparable] struct {
	t     *table[R]
	keyOf func(*R) K
	rows  []R
	at    map[K][]int
}

func placing[R any, K comparable](t *table[R], keys []K, keyOf func(*R) K, none func(K) R) *places[R, K] {
	p := &places[R, K]{t: t, keyOf: keyOf, rows: make([]R, len(keys)), at: make(map[K][]int, len(keys))}
	for i, k := range keys {
		p.rows[i] = none(k)
		p.at[k] = append(p.at[k], i)
	}
	return p
}

func (p *places[R, K]) row(r *row) {
	v := p.t.get(r)
	for _, i := range p.at[p.keyOf(&v)] {
		p.rows[i] = v
	}
}

// lockDevices reads all devices of users, each user's in the order of their ids.
func (g *locking) lockDevices() {
	if len(g.l.DevicesOf) == 0 {
		return
	}
	t, rows := &g.s.t.devices, make([][]storage.Device, len(g.l.DevicesOf))
	g.out.Devices = rows
	at := make(map[storage.UserID][]int, len(rows))
	for i, u := range g.l.DevicesOf {
		at[u] = append(at[u], i)
	}
	read := func(r *row) {
		d := t.get(r)
		for _, i := range at[d.Key.User] {
			rows[i] = append(rows[i], d)
		}
	}
	for some := range slices.Chunk(sorted(g.l.DevicesOf, cmp.Compare), keysAtOnce) {
		t.byKey(g.st)
		byUser.is(g.st, some...)
		g.st.add(" ORDER BY user_id,id FOR UPDATE")
		g.st.end()
		g.read = append(g.read, read)
	}
}

func compareConvs(a, b storage.ConvKey) int { return bytes.Compare(a[:], b[:]) }

func compareSends(a, b storage.SendKey) int {
	return cmp.Or(cmp.Compare(a.Conv.Slot(), b.Conv.Slot()), bytes.Compare(a.SendID[:], b.SendID[:]),
		compareConvs(a.Conv, b.Conv), cmp.Compare(a.Sender, b.Sender))
}

func compareUserConvs(a, b storage.UserConvKey) int {
	return cmp.Or(cmp.Compare(a.User, b.User), compareConvs(a.Conv, b.Conv))
}

func compareTasks(a, b storage.TaskKey) int {
	return cmp.Or(compareConvs(a.Conv, b.Conv), cmp.Compare(a.Target, b.Target))
}

func compareBlocks(a, b storage.BlockKey) int {
	return cmp.Or(cmp.Compare(a.User, b.User), cmp.Compare(a.Peer, b.Peer))
}
