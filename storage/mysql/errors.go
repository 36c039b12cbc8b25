package mysql

import (
	"context"
	"errors"
	"fmt"
	"strings"

	"github.com/go-sql-driver/mysql"

	"github.com/hermod-im/hermod/storage"
)

// Error numbers, the same in MySQL and MariaDB.
const (
	errWrite         = 3  // of the file system's layer, which has small numbers
	errFileFull      = 20 // likewise
	errCheckRead     = 1020
	errDiskFull      = 1021
	errGotErrno      = 1030
	errDuplicate     = 1062
	errTableFull     = 1114
	errLockWait      = 1205
	errLockTable     = 1206 // too many locks
	errDeadlock      = 1213
	errDefChanged    = 1412 // a table was changed after the snapshot
	errTooManyTrx    = 1637
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
	errDuringCommit  = 1180
	errIdle          = 4031 // MySQL's farewell to a connection that was not used
	errNoDatabase    = 1049
	errLoginDenied   = 1045
	errDBDenied      = 1044
	errTableDenied   = 1142
	errColumnDenied  = 1143
	errRoutineDenied = 1370
	errSuperDenied   = 1227
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
	case errGotErrno:
		if !strings.Contains(err.Error(), noSpace) {
			break
		}
		return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrFull, err)
	case 0:
		if errors.Is(err, context.Canceled) || errors.Is(err, context.DeadlineExceeded) {
			return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrBusy, err)
		}
		var bad *fault
		if errors.As(err, &bad) {
			return fmt.Errorf("mysql: %s: %w", what, err)
		}
		return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrBusy, err) // the network, or the server's end
	case errDiskFull, errTableFull, errFileTooBig, errWrite, errFileFull:
		return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrFull, err)
	case errLockWait, errDeadlock, errOutOfMemory, errTooManyConns, errShutdown, errHostBlocked, errUserConns, errReadOnly,
		errInterrupted, errReadOnlyMode, errMaxStatement, errQueryTimeout, errConnKilled, errServerStopped, errIdle,
		errLockTable, errDefChanged, errTooManyTrx, errCheckRead:
		return fmt.Errorf("mysql: %s: %w: %w", what, storage.ErrBusy, err)
	}
	return fmt.Errorf("mysql: %s: %w", what, err)
}

// noSpace is how a storage engine's own error (1030) says ENOSPC.
const noSpace = "error 28 "

// readOnly reports that the server has become a replica. Its connections are no
// use; new ones may find the primary behind the same name.
func readOnly(err error) bool { n := number(err); return n == errReadOnly || n == errReadOnlyMode }

// advise adds to an error of Open what to do about it.
func advise(err error) error {
	switch number(err) {
	case errNoDatabase:
		return fmt.Errorf("%w (create it: CREATE DATABASE … CHARACTER SET utf8mb4)", err)
	case errLoginDenied:
		return fmt.Errorf("%w (user and password of the DSN, and from which hosts the account may come)", err)
	case errDBDenied, errTableDenied, errColumnDenied, errRoutineDenied, errSuperDenied:
		return fmt.Errorf("%w (the account needs all rights on its database: GRANT ALL ON database.* TO …)", err)
	}
	return err
}

// fault is an answer that cannot be read: no use to try again.
type fault struct{ err error }

func (f *fault) Error() string { return f.err.Error() }
func (f *fault) Unwrap() error { return f.err }
