package proto

import (
	"context"
	"errors"
	"fmt"
	"math"
	"time"
)

// Fault is a failure with two faces: Code, Msg, Retryable and RetryAfter go to the
// client; Cause is for the operator's log and never leaves the server.
type Fault struct {
	Code ErrorCode
	// Msg is English, for developers; it must hold no secret.
	Msg string
	// Retryable: the same request may succeed later, unchanged.
	Retryable bool
	// RetryAfter is the least time to wait, 0 for the client's own backoff.
	RetryAfter time.Duration
	Cause      error
}

// Errorf makes a Fault with what the code table says of code. An empty format
// takes the table's text. The text goes to the client: give causes to WithCause.
func Errorf(code ErrorCode, format string, args ...any) *Fault {
	info := code.Info()
	f := &Fault{Code: code, Msg: info.Text, Retryable: info.Retryable, RetryAfter: info.RetryAfter}
	if format != "" {
		f.Msg = fmt.Sprintf(format, args...)
	}
	return f
}

// WithRetry makes the fault retryable, no sooner than after d. It returns f.
func (f *Fault) WithRetry(d time.Duration) *Fault {
	f.Retryable, f.RetryAfter = true, d
	return f
}

// WithCause notes why, for the log. It returns f.
func (f *Fault) WithCause(err error) *Fault {
	f.Cause = err
	return f
}

// Error is for the operator's log: it includes the cause.
func (f *Fault) Error() string {
	s := f.Code.Short() + ": " + f.Msg
	if f.Cause != nil {
		s += ": " + f.Cause.Error()
	}
	return s
}

// Unwrap returns the cause.
func (f *Fault) Unwrap() error { return f.Cause }

// Closes reports whether the server closes the connection after this fault.
func (f *Fault) Closes() bool { return f.Code.Info().Closes }

// Wire returns what the client may see.
func (f *Fault) Wire() *Error {
	ms := f.RetryAfter / time.Millisecond
	if f.RetryAfter%time.Millisecond > 0 {
		ms++ // rounded up: never sooner
	}
	return &Error{
		Code:         f.Code,
		Message:      f.Msg,
		Retryable:    f.Retryable,
		RetryAfterMs: uint32(min(max(ms, 0), math.MaxUint32)),
	}
}

// FromWire is the other way round: the Fault that a server reported.
func FromWire(e *Error) *Fault {
	return &Fault{
		Code:       e.GetCode(),
		Msg:        e.GetMessage(),
		Retryable:  e.GetRetryable(),
		RetryAfter: time.Duration(e.GetRetryAfterMs()) * time.Millisecond,
	}
}

// AsFault finds the Fault in err's chain. A *FrameError becomes its code, a
// deadline UNAVAILABLE, and any other error INTERNAL with a text that says
// nothing; err is kept as the cause. AsFault(nil) is nil.
func AsFault(err error) *Fault {
	var fault *Fault
	var frame *FrameError
	switch {
	case err == nil:
		return nil
	case errors.As(err, &fault):
		return fault
	case errors.As(err, &frame):
		f := Errorf(frame.Code, "").WithCause(err)
		if frame.Code == ErrorCode_ERROR_CODE_FRAME_TOO_LARGE {
			f.Msg = fmt.Sprintf("frame of %d bytes, at most %d are allowed", frame.Size, frame.Max)
		}
		return f
	case errors.Is(err, context.DeadlineExceeded):
		return Errorf(ErrorCode_ERROR_CODE_UNAVAILABLE, "").WithCause(err)
	}
	return Errorf(ErrorCode_ERROR_CODE_INTERNAL, "").WithCause(err)
}

// CodeOf returns the code of err as AsFault sees it; 0 for nil.
func CodeOf(err error) ErrorCode {
	if f := AsFault(err); f != nil {
		return f.Code
	}
	return ErrorCode_ERROR_CODE_UNSPECIFIED
}
