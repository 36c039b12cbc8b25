package client

import (
	"errors"
	"fmt"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Kind classifies an Error and is itself an error to compare with:
//
//	if errors.Is(err, client.ErrNotAllowed) { … }
//
// A server's error has the kind of its code, Kind(code), also for codes that
// have no name here.
type Kind int32

// What the server says.
const (
	ErrUnsupportedVersion = Kind(proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION)
	ErrUnknownRequest     = Kind(proto.ErrorCode_ERROR_CODE_UNKNOWN_REQUEST)
	ErrInvalidArgument    = Kind(proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT)
	ErrUnauthenticated    = Kind(proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED)
	ErrTokenExpired       = Kind(proto.ErrorCode_ERROR_CODE_TOKEN_EXPIRED)
	ErrRevoked            = Kind(proto.ErrorCode_ERROR_CODE_REVOKED)
	ErrKicked             = Kind(proto.ErrorCode_ERROR_CODE_KICKED)
	ErrReplaced           = Kind(proto.ErrorCode_ERROR_CODE_REPLACED)
	ErrNameTaken          = Kind(proto.ErrorCode_ERROR_CODE_NAME_TAKEN)
	ErrNameInvalid        = Kind(proto.ErrorCode_ERROR_CODE_NAME_INVALID)
	ErrPasswordWeak       = Kind(proto.ErrorCode_ERROR_CODE_PASSWORD_WEAK)
	ErrTooManyAttempts    = Kind(proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS)
	ErrNotAllowed         = Kind(proto.ErrorCode_ERROR_CODE_NOT_ALLOWED)
	ErrNotFound           = Kind(proto.ErrorCode_ERROR_CODE_NOT_FOUND)
	ErrConflict           = Kind(proto.ErrorCode_ERROR_CODE_CONFLICT)
	ErrIDExpired          = Kind(proto.ErrorCode_ERROR_CODE_ID_EXPIRED)
	ErrIDInvalid          = Kind(proto.ErrorCode_ERROR_CODE_ID_INVALID)
	ErrContentTooLarge    = Kind(proto.ErrorCode_ERROR_CODE_CONTENT_TOO_LARGE)
	ErrFrameTooLarge      = Kind(proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
	ErrRateLimited        = Kind(proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
	ErrBusy               = Kind(proto.ErrorCode_ERROR_CODE_BUSY)
	ErrOverloaded         = Kind(proto.ErrorCode_ERROR_CODE_OVERLOADED)
	ErrDraining           = Kind(proto.ErrorCode_ERROR_CODE_DRAINING)
	ErrInternal           = Kind(proto.ErrorCode_ERROR_CODE_INTERNAL)
	ErrUnavailable        = Kind(proto.ErrorCode_ERROR_CODE_UNAVAILABLE)
)

// What the client itself says.
const (
	// ErrClosed: Close was called, or the client has ended; the cause says why.
	ErrClosed Kind = 10001 + iota
	// ErrDisconnected: the connection broke, or could not be made. For a
	// request: it may or may not have been carried out.
	ErrDisconnected
	// ErrNoSession: nothing to resume in the Store: log in by password.
	ErrNoSession
	// ErrOutboxFull: Options.MaxOutbox messages wait already.
	ErrOutboxFull
	// ErrCanceled: the context ended first; the cause is its error. A message
	// may still arrive: send it again under the same SendID to find out.
	ErrCanceled
	// ErrStore: the Store failed; the cause is its error.
	ErrStore
	// ErrProtocol: the server did what the protocol forbids.
	ErrProtocol
	// ErrLoggedOut: Logout succeeded and ended the client.
	ErrLoggedOut
	// ErrRebuild: OnReset failed; the cause is its error.
	ErrRebuild
)

var localKinds = [...]string{"closed", "disconnected", "no session", "outbox full", "canceled", "store failed", "protocol violated", "logged out", "rebuild failed"}

// Error is the name of the kind.
func (k Kind) Error() string {
	if i := int(k - ErrClosed); i >= 0 && i < len(localKinds) {
		return "client: " + localKinds[i]
	}
	return "client: " + proto.ErrorCode(k).Short()
}

// Error is every error that this package returns, save those of Validate.
type Error struct {
	Kind Kind
	// Code is the server's, UNSPECIFIED where the client itself failed.
	Code proto.ErrorCode
	// Message is English, for developers.
	Message string
	// Retryable: the same request may succeed later, unchanged.
	Retryable bool
	// RetryAfter: not sooner; 0 leaves it to your own backoff.
	RetryAfter time.Duration
	Cause      error
}

func (e *Error) Error() string {
	s := e.Kind.Error()
	if e.Message != "" {
		s += ": " + e.Message
	}
	if e.Cause != nil {
		s += ": " + e.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (e *Error) Unwrap() error { return e.Cause }

// Is matches a Kind.
func (e *Error) Is(target error) bool {
	k, ok := target.(Kind)
	return ok && k == e.Kind
}

// maxRetryAfter bounds the waits that a server may ask for.
const maxRetryAfter = time.Hour

func fromWire(e *proto.Error) *Error {
	code := e.GetCode()
	return &Error{
		Kind: Kind(code), Code: code, Message: e.GetMessage(), Retryable: e.GetRetryable(),
		RetryAfter: min(time.Duration(e.GetRetryAfterMs())*time.Millisecond, maxRetryAfter),
	}
}

func localError(k Kind, cause error, format string, args ...any) *Error {
	e := wrap(k, cause)
	e.Message = fmt.Sprintf(format, args...)
	return e
}

// wrap makes an error of kind k, whatever the cause is: an application's
// callback may return an *Error of this package, and it must not end the client.
func wrap(k Kind, cause error) *Error {
	retry := false
	switch k {
	case ErrDisconnected, ErrOutboxFull, ErrCanceled, ErrStore, ErrProtocol, ErrRebuild:
		retry = true
	}
	return &Error{Kind: k, Retryable: retry, Cause: cause}
}

// asError makes err an *Error, of kind k if it is none yet.
func asError(err error, k Kind) *Error {
	var e *Error
	if errors.As(err, &e) {
		return e
	}
	return wrap(k, err)
}

// terminal reports whether err, told by the server about a connection or a
// Hello, ends the client: connecting again would not help, or would do harm.
func (e *Error) terminal() bool {
	switch e.Kind {
	case ErrKicked, ErrReplaced, ErrRevoked, ErrUnsupportedVersion, ErrUnauthenticated, ErrNoSession, ErrLoggedOut, ErrClosed:
		return true
	}
	return false
}
