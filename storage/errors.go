package storage

import "errors"

// Errors that Store answers with, beside the engine's (ErrBusy, ErrFull,
// ErrClosed). Find them with errors.Is.
var (
	// ErrConflict: the send id was used before with another kind or body.
	ErrConflict = errors.New("storage: send id used with other content")
	// ErrIDExpired: the send id is older than 29 days, so that nobody can
	// tell any more whether it was sent.
	ErrIDExpired = errors.New("storage: send id expired")
	// ErrIDInvalid: the send id is no UUIDv7, or is from more than 10 minutes
	// ahead.
	ErrIDInvalid = errors.New("storage: send id is not a UUIDv7 of about now")
	// ErrBlocked: the recipient does not want to hear from the sender.
	ErrBlocked = errors.New("storage: blocked by the recipient")
	// ErrNoUser: a side of the conversation does not exist.
	ErrNoUser = errors.New("storage: no such user")
	// ErrUnavailable: the shard did not answer in time. The outcome may be
	// unknown: send again with the same send id.
	ErrUnavailable = errors.New("storage: shard unavailable")
	// ErrInvalid: the call makes no sense; the text says why.
	ErrInvalid = errors.New("storage: invalid call")
	// ErrCorrupt: the shard contradicts itself; an operator must look.
	ErrCorrupt = errors.New("storage: inconsistent rows")
)
