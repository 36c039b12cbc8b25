package storagetest

import (
	"bytes"
	"context"
	"math"

	"github.com/hermod-im/hermod/storage"
)

// crashCheck reads everything that a shard has and looks for contradictions.
type crashCheck struct {
	s    storage.Shard
	fail func(format string, args ...any)
}

// crashFound is all of a shard's content.
type crashFound struct {
	users  map[storage.UserID]storage.UserHead
	inbox  map[storage.UserID][]storage.InboxRow
	log    map[storage.ConvKey][]storage.Entry
	bySend map[storage.SendKey]storage.Entry
}

// read collects the content and checks it against itself.
func (c *crashCheck) read() crashFound {
	f := crashFound{
		users: map[storage.UserID]storage.UserHead{}, inbox: map[storage.UserID][]storage.InboxRow{},
		log: map[storage.ConvKey][]storage.Entry{}, bySend: map[storage.SendKey]storage.Entry{},
	}
	err := c.s.View(context.Background(), nil, func(v storage.Snap) error {
		for a := range crashUsers {
			for b := range a {
				if err := c.readConv(v, f, storage.PairKey(crashUser(a), crashUser(b))); err != nil {
					return err
				}
			}
		}
		for a := range crashUsers {
			if err := c.readUser(v, f, crashUser(a)); err != nil {
				return err
			}
		}
		return nil
	})
	if err != nil {
		c.fail("read back: %v", err)
	}
	return f
}

// readConv: revs and conv_seqs from 1 without holes, times ascending, no send
// twice, head and both user_convs at the log's end.
func (c *crashCheck) readConv(v storage.Snap, f crashFound, k storage.ConvKey) error {
	head, err := v.Conv(k)
	if err != nil {
		return err
	}
	log, err := v.Entries(k, 0, math.MaxUint64, math.MaxInt, math.MaxInt, false)
	if err != nil {
		return err
	}
	f.log[k] = log
	for i, e := range log {
		if e.Rev != uint64(i)+1 || e.ConvSeq != e.Rev || i > 0 && e.Time <= log[i-1].Time {
			c.fail("log %v: entry %d has rev %d, conv_seq %d, time %d", k, i, e.Rev, e.ConvSeq, e.Time)
		}
		s := storage.SendKey{Conv: k, Sender: e.Sender, SendID: e.SendID}
		if old, twice := f.bySend[s]; twice {
			c.fail("log %v: send %x is rev %d and rev %d", k, e.SendID, old.Rev, e.Rev)
		}
		if !bytes.Equal(e.Body, crashBody(s, len(e.Body))) {
			c.fail("log %v: rev %d has another body", k, e.Rev)
		}
		f.bySend[s] = e
	}
	n := uint64(len(log))
	if head.Rev != n || head.ConvSeq != n || head.Found != (n > 0) || n > 0 && (head.LastTime != log[n-1].Time || head.Generation != 7) {
		c.fail("conversation %v has %d entries, its head says %+v", k, n, head)
	}
	for _, u := range []storage.UserID{k.Home(), k.Other()} {
		uc, err := v.UserConv(storage.UserConvKey{User: u, Conv: k})
		if err != nil {
			return err
		}
		if uc.HeadRev != n || uc.Head != n {
			c.fail("conversation %v has %d entries, user %d's user_conv says %+v", k, n, u, uc)
		}
	}
	return nil
}

// readUser: seqs from the floor to the head without holes, each row the next rev
// of its conversation, and as many rows ever as the logs have entries for u.
func (c *crashCheck) readUser(v storage.Snap, f crashFound, u storage.UserID) error {
	h, err := v.User(u)
	if err != nil {
		return err
	}
	rows, err := v.Inbox(u, 0, math.MaxInt)
	if err != nil {
		return err
	}
	f.users[u], f.inbox[u] = h, rows
	last := map[storage.ConvKey]uint64{}
	for i, r := range rows {
		if r.Seq != h.Floor+1+uint64(i) {
			c.fail("inbox %d: row %d has seq %d above floor %d", u, i, r.Seq, h.Floor)
		}
		k, rev := r.Entry.Conv, r.Entry.Rev
		if rev == 0 || rev > uint64(len(f.log[k])) {
			c.fail("inbox %d: seq %d points to rev %d of %v, which is not there", u, r.Seq, rev, k)
			continue
		}
		if e := f.log[k][rev-1]; e.SendID != r.Entry.SendID || e.Sender != r.Entry.Sender || e.Time != r.Entry.Time {
			c.fail("inbox %d: seq %d tells %+v, the log %+v", u, r.Seq, r.Entry, e)
		}
		if old := last[k]; old > 0 && rev != old+1 {
			c.fail("inbox %d: after rev %d of %v comes rev %d", u, old, k, rev)
		}
		last[k] = rev
	}
	var entries uint64
	for k, log := range f.log {
		if k.Has(u) {
			entries += uint64(len(log))
			if r := last[k]; r > 0 && r != uint64(len(log)) {
				c.fail("inbox %d ends at rev %d of %v, which has %d", u, r, k, len(log))
			}
		}
	}
	if h.Seq != entries || h.Seq != h.Floor+uint64(len(rows)) {
		c.fail("user %d has %d entries in logs, %d rows, and the head %+v", u, entries, len(rows), h)
	}
	return nil
}

// compare looks for everything that the world was told.
func (c *crashCheck) compare(told *crashModel, f crashFound) {
	for k, a := range told.acked {
		if e, ok := f.bySend[k]; !ok || e.Rev != a.Rev || e.ConvSeq != a.ConvSeq || e.Time != a.Time {
			c.fail("send %x in %v was acked as %+v, found %v as %d, %d, %d", k.SendID, k.Conv, a, ok, e.Rev, e.ConvSeq, e.Time)
		}
	}
	for u, floor := range told.floors {
		if f.users[u].Floor < floor {
			c.fail("user %d: floor %d was told, found %d", u, floor, f.users[u].Floor)
		}
	}
	for u, gen := range told.gens {
		if f.users[u].TokenGen < gen {
			c.fail("user %d: token generation %d was told, found %d", u, gen, f.users[u].TokenGen)
		}
	}
	for k := range f.bySend {
		if _, ok := told.asked[k]; !ok {
			c.fail("send %x in %v was never asked for", k.SendID, k.Conv)
		}
	}
}

// appliedOnce: after everything was sent again, everything is there, and what
// was there before the retries is where it was.
func (c *crashCheck) appliedOnce(told *crashModel, before, after crashFound) {
	if len(after.bySend) != len(told.asked) || len(told.acked) != len(told.asked) {
		c.fail("%d sends, all retried: %d answered, %d in the logs", len(told.asked), len(told.acked), len(after.bySend))
	}
	for k, old := range before.bySend {
		if e := after.bySend[k]; e.Rev != old.Rev || e.Time != old.Time {
			c.fail("send %x in %v: rev %d before its retry, %d after", k.SendID, k.Conv, old.Rev, e.Rev)
		}
	}
	for u, h := range before.users {
		if after.users[u].Seq < h.Seq {
			c.fail("user %d: seq fell from %d to %d", u, h.Seq, after.users[u].Seq)
		}
	}
}
