package storage

import (
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"slices"
	"time"
)

// metaMover is the meta row with which a Mover keeps others away.
const metaMover = "slots_mover"

// errLockLost: this Mover was taken for dead, and another one is at work.
var errLockLost = errors.New("storage: this move was taken for dead and replaced by another one")

// moveLock is a Mover's hold on its shards: a row on each, renewed by every
// transaction that it makes there, on the shard's own clock.
type moveLock struct {
	token string
	who   string
	ttl   time.Duration
	held  []Shard
}

// moverRow is the value of metaMover, as JSON: operators may look at it.
type moverRow struct {
	Token string `json:"token"`
	Who   string `json:"who"`
	// Until is on the shard's clock, in µs.
	Until int64 `json:"until_us"`
}

func newMoveLock(who string, ttl time.Duration) moveLock {
	return moveLock{token: rand.Text(), who: who, ttl: ttl}
}

// take takes the lock of a shard, or renews it. ErrMoving: somebody has it.
func (l *moveLock) take(ctx context.Context, sh Shard) error {
	err := l.write(ctx, sh, &Writes{}, func(r moverRow, now int64) error {
		if r.Token != l.token && r.Until > now {
			return fmt.Errorf("%w, by %q; should that be dead, try again in %v", ErrMoving, r.Who, time.Duration(r.Until-now)*time.Microsecond)
		}
		return nil
	})
	if err == nil && !slices.Contains(l.held, sh) {
		l.held = append(l.held, sh)
	}
	return err
}

// commit writes w while the lock is held. It returns when w is durable.
func (l *moveLock) commit(ctx context.Context, sh Shard, w *Writes) error {
	return l.write(ctx, sh, w, func(r moverRow, _ int64) error {
		if r.Token != l.token {
			return errLockLost
		}
		return nil
	})
}

func (l *moveLock) write(ctx context.Context, sh Shard, w *Writes, check func(r moverRow, now int64) error) error {
	return commitNow(ctx, sh, &Locks{Meta: []string{metaMover}}, func(rows *Locked) (*Writes, error) {
		var r moverRow
		if row := &rows.Meta[0]; row.Found && len(row.Value) > 0 {
			if err := json.Unmarshal(row.Value, &r); err != nil {
				return nil, fmt.Errorf("%w: meta row %s: %w", ErrCorrupt, metaMover, err)
			}
		}
		if err := check(r, rows.Now); err != nil {
			return nil, err
		}
		value, err := json.Marshal(moverRow{Token: l.token, Who: l.who, Until: rows.Now + l.ttl.Microseconds()})
		if err != nil {
			return nil, err
		}
		locked := *w // the plan may run again
		locked.Meta = []MetaRow{{Name: metaMover, Value: value, Found: true}}
		return &locked, nil
	})
}

// release gives up the locks that are still this Mover's.
func (l *moveLock) release(ctx context.Context) (failed error) {
	l.ttl = 0
	for _, sh := range l.held {
		if err := l.commit(ctx, sh, &Writes{}); err != nil && !errors.Is(err, errLockLost) {
			failed = errors.Join(failed, fmt.Errorf("shard %d: %w", sh.ID(), err))
		}
	}
	l.held = nil
	return failed
}
