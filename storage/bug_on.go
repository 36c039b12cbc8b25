//go:build torture

package storage

import (
	"os"
	"sync"
	"time"
)

// bug is a mistake on purpose. HERMOD_TORTURE_BUG names one, once, when a Store
// is opened: the torture has to find it, or the torture is worth nothing. Each
// is one that was made somewhere: the comment says what was believed then.
//
// Some show only when something comes between two moments. There they wait for a
// while, so that it need not be luck.
type bug struct {
	name string
	mu   *sync.Mutex
	seqs map[UserID]uint64
}

const (
	// ackBeforeCommit: «the database will not fail; answer now, write behind».
	ackBeforeCommit = "ack-before-commit"
	// visibleNotDurable: «what I can read is committed».
	visibleNotDurable = "visible-not-durable"
	// seqOutsideTx: «a counter in memory gives the numbers; it is faster».
	seqOutsideTx = "seq-outside-tx"
	// dedupeBeforeLock: «look for a duplicate first, then begin».
	dedupeBeforeLock = "dedupe-before-lock"
	// droppedTask: «whoever is not reached will ask».
	droppedTask = "dropped-task"
	// tasksOutOfOrder: «the newest first; the recipient sorts».
	tasksOutOfOrder = "tasks-out-of-order"
	// retentionWithoutFloor: «rows that old are missed by nobody».
	retentionWithoutFloor = "retention-without-floor"
)

// earlySends are dedupe rows as they were before a batch's transaction.
type earlySends []SendRow

// How long bugs wait: with a batch that is planned, and with one whose
// duplicates were looked for.
const (
	behind = 100 * time.Millisecond
	ahead  = 400 * time.Millisecond
)

func openBug() bug {
	return bug{name: os.Getenv("HERMOD_TORTURE_BUG"), mu: new(sync.Mutex), seqs: make(map[UserID]uint64)}
}

// planned is told of a batch that will be committed next. It answers sends: all
// of them, or those that were sent before, by a row that may be as young.
func (g bug) planned(b *batch) {
	sends := false
	for _, o := range b.ops {
		o, ok := o.(*appendOp)
		if !ok || o.err != nil {
			continue
		}
		sends = true
		if g.name == ackBeforeCommit || g.name == visibleNotDurable && o.res.Duplicate {
			done := o.done
			o.done = func(Appended, error) {}
			done(o.res, nil)
		}
	}
	if sends && (g.name == ackBeforeCommit || g.name == seqOutsideTx) {
		time.Sleep(behind)
	}
}

// lookEarly looks for the batch's duplicates in a transaction before its own.
func (g bug) lookEarly(c *committer) {
	c.w.early = nil
	if g.name != dedupeBeforeLock {
		return
	}
	_ = c.sh.Commit(c.ctx, c.w.merged(), func(l *Locked) (*Writes, error) {
		c.w.early = append(earlySends(nil), l.Sends...)
		return nil, nil
	}, func(error) {})
	if len(c.w.early) > 0 {
		time.Sleep(ahead)
	}
}

// sent is the dedupe row that the send at this position is judged by.
func (g bug) sent(w *work, at int32) SendRow {
	if int(at) < len(w.early) {
		return w.early[at]
	}
	return *w.sends.row(at)
}

// nextSeq counts on where a plan that came to nothing has counted.
func (g bug) nextSeq(u *UserHead) uint64 {
	if g.name != seqOutsideTx {
		return u.Seq + 1
	}
	g.mu.Lock()
	defer g.mu.Unlock()
	g.seqs[u.User] = max(g.seqs[u.User], u.Seq) + 1
	return g.seqs[u.User]
}

// forgetsTask: of every second entry the recipient on another shard is not told.
// The next one makes up for it, so it shows where a conversation ends.
func (g bug) forgetsTask(rev uint64) bool { return g.name == droppedTask && rev%2 == 0 }

// disorder puts the newest of the entries that a task delivers first.
func (g bug) disorder(es []Entry) {
	if n := len(es) - 1; g.name == tasksOutOfOrder && n > 0 && es[0].Rev < es[n].Rev {
		es[0], es[n] = es[n], es[0]
	}
}

// waitsForMore: one entry alone has no order that could be wrong. It is delivered
// with the next one.
func (g bug) waitsForMore(es []Entry) bool { return g.name == tasksOutOfOrder && len(es) == 1 }

// skipsRevs: delivery does not look whether earlier entries are there.
func (g bug) skipsRevs() bool { return g.name == tasksOutOfOrder }

// trustsYoung: reads are answered without a barrier.
func (g bug) trustsYoung() bool { return g.name == visibleNotDurable }

// keepFloor lets a head that is written with a Trim say what it said before.
func (g bug) keepFloor(u *UserHead, was UserHead) {
	if g.name == retentionWithoutFloor {
		u.Floor = was.Floor
	}
}
