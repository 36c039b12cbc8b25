package proto

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math"
	"testing"
	"time"
)

func TestEveryCodeHasARow(t *testing.T) {
	rows := map[ErrorCode]CodeInfo{}
	last := ErrorCode(0)
	for _, row := range Codes() {
		if row.Code <= last {
			t.Errorf("%v is not in ascending order", row.Code)
		}
		last = row.Code
		rows[row.Code] = row
		if row.Text == "" || row.Do == "" {
			t.Errorf("%v has no text", row.Code)
		}
		if row.RetryAfter > 0 && !row.Retryable {
			t.Errorf("%v: a wait, and not retryable", row.Code)
		}
		if row != row.Code.Info() {
			t.Errorf("%v: Info differs from the table", row.Code)
		}
	}
	for n := range ErrorCode_name {
		if _, ok := rows[ErrorCode(n)]; !ok && n != 0 {
			t.Errorf("%v has no row in the code table", ErrorCode(n))
		}
	}
	if len(rows) != len(ErrorCode_name)-1 {
		t.Errorf("%d rows for %d codes", len(rows), len(ErrorCode_name)-1)
	}
	if info := ErrorCode(4999).Info(); info.Retryable || info.Closes || info.Text == "" {
		t.Errorf("unknown code: %+v", info)
	}
}

func TestFaultWire(t *testing.T) {
	cause := errors.New("password=secret")
	f := Errorf(ErrorCode_ERROR_CODE_BUSY, "%d are open", 64).WithRetry(1500 * time.Microsecond).WithCause(cause)
	w := f.Wire()
	if w.Code != ErrorCode_ERROR_CODE_BUSY || w.Message != "64 are open" || !w.Retryable || w.RetryAfterMs != 2 {
		t.Errorf("wire: %v", w)
	}
	if f.Error() != "BUSY: 64 are open: password=secret" || !errors.Is(f, cause) {
		t.Errorf("for the log: %v", f)
	}
	back := FromWire(w)
	if back.Code != f.Code || back.Msg != f.Msg || !back.Retryable || back.RetryAfter != 2*time.Millisecond || back.Cause != nil {
		t.Errorf("back: %+v", back)
	}
	for d, want := range map[time.Duration]uint32{0: 0, -time.Second: 0, time.Nanosecond: 1, time.Second: 1000, math.MaxInt64: math.MaxUint32} {
		if got := f.WithRetry(d).Wire().RetryAfterMs; got != want {
			t.Errorf("retry after %v: %d ms, want %d", d, got, want)
		}
	}
	if def := Errorf(ErrorCode_ERROR_CODE_OVERLOADED, ""); !def.Retryable || def.RetryAfter != 2*time.Second || def.Msg == "" {
		t.Errorf("defaults: %+v", def)
	}
}

func TestAsFault(t *testing.T) {
	own := Errorf(ErrorCode_ERROR_CODE_NOT_FOUND, "no such user")
	for _, c := range []struct {
		err  error
		want ErrorCode
		msg  string
	}{
		{nil, 0, ""},
		{own, ErrorCode_ERROR_CODE_NOT_FOUND, "no such user"},
		{fmt.Errorf("lookup: %w", own), ErrorCode_ERROR_CODE_NOT_FOUND, "no such user"},
		{&FrameError{Code: ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, Size: 9, Max: 8}, ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, "frame of 9 bytes, at most 8 are allowed"},
		{&FrameError{Code: ErrorCode_ERROR_CODE_BAD_FRAME, Cause: errGroup}, ErrorCode_ERROR_CODE_BAD_FRAME, "the bytes are not a frame"},
		{fmt.Errorf("read: %w", context.DeadlineExceeded), ErrorCode_ERROR_CODE_UNAVAILABLE, "the storage does not answer"},
		{io.ErrUnexpectedEOF, ErrorCode_ERROR_CODE_INTERNAL, "internal error"},
	} {
		f := AsFault(c.err)
		if CodeOf(c.err) != c.want {
			t.Errorf("CodeOf(%v) = %v", c.err, CodeOf(c.err))
		}
		if c.err == nil {
			if f != nil {
				t.Errorf("AsFault(nil) = %v", f)
			}
			continue
		}
		if f.Code != c.want || f.Wire().Message != c.msg {
			t.Errorf("AsFault(%v) = %v", c.err, f)
		}
		if !errors.Is(f, c.err) && f != own {
			t.Errorf("AsFault(%v) lost its cause", c.err)
		}
	}
}
