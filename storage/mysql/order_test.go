package mysql

import (
	"errors"
	"fmt"
	"strings"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/hermod-im/hermod/storage"
)

// The dones of transactions come in the order of their locks, nobody's waits
// for a plan that failed, and none is lost.
func TestOrder(t *testing.T) {
	var o order
	var got []int
	call := func(n int) func() { return func() { got = append(got, n) } }
	a, b, c, d := o.enter(), o.enter(), o.enter(), o.enter()
	o.leave(c, call(3))
	o.leave(b, nil) // failed
	if len(got) > 0 {
		t.Errorf("done before an earlier transaction: %v", got)
	}
	o.leave(a, func() {
		got = append(got, 1)
		o.leave(d, call(4)) // from within a done: left to the one who runs them
		if len(got) != 1 {
			t.Errorf("a done began before the one before it ended: %v", got)
		}
	})
	if fmt.Sprint(got) != "[1 3 4]" {
		t.Errorf("dones in the order %v", got)
	}
	if len(o.calls) > 0 {
		t.Errorf("%d calls are kept", len(o.calls))
	}
}

// A server that has become read-only is busy, not wrong, and its connections
// are not kept.
func TestReadOnlyServer(t *testing.T) {
	f := newFix(t, nil)
	f.write(storage.Writes{Users: []storage.UserHead{head(anna)}})
	err := (&tx{s: f.s, k: f.linked()}).undo(fmt.Errorf("x: %w", refusal(errReadOnly)))
	if number(err) != errReadOnly {
		t.Errorf("undo changed the error to %v", err)
	}
	if n := f.s.db.Stats().OpenConnections; n != 1 {
		t.Errorf("%d connections are left of two, want 1", n)
	}
}

// linked returns a connection beside one that the pool keeps.
func (f *fix) linked() *link {
	f.Helper()
	a, err := f.s.link(f.ctx())
	if err != nil {
		f.Fatal(err)
	}
	b, err := f.s.link(f.ctx())
	if err != nil {
		f.Fatal(err)
	}
	a.release()
	return b
}

func refusal(number uint16) error {
	return &mysql.MySQLError{Number: number, Message: "made by a test"}
}

// Errors mean to a Store what they should.
func TestErrors(t *testing.T) {
	for _, tt := range []struct {
		number       uint16
		lock, commit error // nil: for good
	}{
		{errDiskFull, storage.ErrFull, storage.ErrFull},
		{errTableFull, storage.ErrFull, storage.ErrFull},
		{errLockWait, storage.ErrBusy, storage.ErrBusy},
		{errDeadlock, storage.ErrBusy, storage.ErrBusy},
		{errTooManyConns, storage.ErrBusy, storage.ErrBusy},
		{errReadOnly, storage.ErrBusy, storage.ErrBusy},
		{errIdle, storage.ErrBusy, storage.ErrBusy},
		{errShutdown, storage.ErrBusy, storage.ErrUnknown},
		{errInterrupted, storage.ErrBusy, storage.ErrUnknown},
		{errConnKilled, storage.ErrBusy, storage.ErrUnknown},
		{errMaxStatement, storage.ErrBusy, storage.ErrUnknown},
		{errDuringCommit, nil, storage.ErrUnknown},
		{errDuplicate, nil, nil},
		{1406, nil, nil}, // data too long
		{1153, nil, nil}, // packet too large
	} {
		err := refusal(tt.number)
		for what, c := range map[string]struct{ got, want error }{
			"lock": {wrapTry("lock", err), tt.lock}, "commit": {outcome(err), tt.commit},
		} {
			for _, e := range []error{storage.ErrFull, storage.ErrBusy, storage.ErrUnknown} {
				if errors.Is(c.got, e) != (e == c.want) {
					t.Errorf("%d at %s: %v, want %v", tt.number, what, c.got, c.want)
				}
			}
			if number(c.got) != tt.number || !strings.HasPrefix(c.got.Error(), "mysql: ") {
				t.Errorf("%d at %s lost its cause: %v", tt.number, what, c.got)
			}
		}
	}
}
