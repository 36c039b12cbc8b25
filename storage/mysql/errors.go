package mysql

import (
	"context"
	"errors"
	"fmt"

	"github.com/go-sql-driver/mysql"

	"github.com/hermod-im/hermod/storage"
)

// Error numbers, the same in MySQL and MariaDB.
const (
	errDiskFull      = 1021
	errDuplicate     = 1062
	errTableFull     = 1114
	errLockWait      = 1205
	errDeadlock      = 1213
	errNoSuchTable   = 1146
	errFileTooBig    = 1026
	errOutOfMemory   = 1041
	errTooManyConns  = 1040
	errShutdown      = 1053
	errHostBlocked   = 1129
	errUserConns     = 1203
	errReadOnly      = 1290
	errInterrupted   = 1317
	errReadOnlyMode  = 1836
	errMaxStatement  = 1969
	errQueryTimeout  = 3024
	errConnKilled    = 1927
	errServerStopped = 1077
)

// number is the server's error number, 0 if err is not the server's.
func number(err error) uint16 {
	var e *mysql.MySQLError
	if errors.As(err, &e) {
		return e.Number
	}
	return 0
}

// wrap says what an error means to a Store, where nothing of the transaction
// can have happened. What the server refuses for good stays as it is.
func wrap(what string, err error) error {
	if err == nil {
		return nil
	}
	for _, own := range []error{storage.ErrSlotMoved, storage.ErrClosed, storage.ErrBusy, storage.ErrUnknown, storage.ErrFull, storage.ErrInvalid} {
		if errors.Is(err, own) {
			return err
		}
	}
	switch n := number(err); n {
	case 0:
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrBusy, err)
		}
		var bad *fault
		if errors.As(err, &bad) {
			return fmt.Errorf("mysql: %s: %w", what, err)
		}
		return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrBusy, err) // the network, or the server's end
	case errDiskFull, errTableFull, errFileTooBig:
		return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrFull, err)
	case errLockWait, errDeadlock, errOutOfMemory, errTooManyConns, errShutdown, errHostBlocked, errUserConns, errReadOnly,
		errInterrupted, errReadOnlyMode, errMaxStatement, errQueryTimeout, errConnKilled, errServerStopped:
		return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrBusy, err)
	}
	return fmt.Errorf("mysql: %s: %w", what, err)
}

// fault is an answer that cannot be read: no use to try again.
type fault struct{ err error }

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }
