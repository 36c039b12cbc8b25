package mysql

import (
	"context"
	"errors"
	"fmt"
	"testing"

	"github.com/go-sql-driver/mysql"

	"github.com/hermod-im/hermod/storage"
)

// What a server says about its own state is nobody's fault: taken for a refusal
// for good it would part an operation from those that came with it.
func TestErrorsOfTheServersState(t *testing.T) {
	server := func(n uint16, text string) error {
		return fmt.Errorf("driver: %w", &mysql.MySQLError{Number: n, Message: text})
	}
	kinds := []error{storage.ErrBusy, storage.ErrFull, storage.ErrUnknown}
	for _, tt := range []struct {
		err error
		// what it means where nothing can have happened, and in the writes; nil:
		// refused for good
		before, writing error
	}{
		{server(errLockWait, ""), storage.ErrBusy, storage.ErrBusy},
		{server(errDeadlock, ""), storage.ErrBusy, storage.ErrBusy},
		{server(errLockTable, "The total number of locks exceeds the lock table size"), storage.ErrBusy, storage.ErrBusy},
		{server(errTooManyTrx, "Too many active concurrent transactions"), storage.ErrBusy, storage.ErrBusy},
		{server(errDefChanged, "Table definition has changed, please retry transaction"), storage.ErrBusy, storage.ErrBusy},
		{server(errCheckRead, "Record has changed since last read"), storage.ErrBusy, storage.ErrBusy},
		{server(errReadOnly, "--read-only"), storage.ErrBusy, storage.ErrBusy},
		{server(errDiskFull, "Disk full"), storage.ErrFull, storage.ErrFull},
		{server(errTableFull, "The table 'entries' is full"), storage.ErrFull, storage.ErrFull},
		{server(errWrite, `Error writing file 'binlog' (Errcode: 28 "No space left on device")`), storage.ErrFull, storage.ErrFull},
		{server(errFileFull, "Disk is full writing"), storage.ErrFull, storage.ErrFull},
		{server(errGotErrno, `Got error 28 "No space left on device" from storage engine InnoDB`), storage.ErrFull, storage.ErrFull},
		{server(errGotErrno, `Got error 168 "Unknown (generic) error from engine" from storage engine InnoDB`), nil, nil},
		{server(errDuplicate, "Duplicate entry"), nil, nil},
		{server(1406, "Data too long"), nil, nil},
		{server(errShutdown, ""), storage.ErrBusy, storage.ErrUnknown},
		{server(errDuringCommit, ""), nil, storage.ErrUnknown},
		{errors.New("broken pipe"), storage.ErrBusy, storage.ErrUnknown},
		{context.Canceled, storage.ErrBusy, storage.ErrUnknown},
		{mysql.ErrPktTooLarge, storage.ErrBusy, nil},
	} {
		for what, x := range map[string]struct{ got, want error }{
			"before": {wrap("test", tt.err), tt.before}, "writing": {outcome(tt.err), tt.writing},
		} {
			if !errors.Is(x.got, tt.err) {
				t.Errorf("%v, %s: the cause is lost in %v", tt.err, what, x.got)
			}
			for _, kind := range kinds {
				if errors.Is(x.got, kind) != (kind == x.want) {
					t.Errorf("%v, %s: became %v, want %v", tt.err, what, x.got, x.want)
				}
			}
		}
	}
}
