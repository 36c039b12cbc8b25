package chat

import (
	"context"
	"errors"
	"time"

	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// faultOf turns what storage says into what a client may know.
func faultOf(err error) *proto.Fault {
	var code proto.ErrorCode
	switch {
	case errors.Is(err, storage.ErrUnavailable): // first: it may wrap what was tried in vain
		f := proto.Errorf(proto.ErrorCode_ERROR_CODE_UNAVAILABLE, "").WithCause(err)
		f.RetryAfter = max(f.RetryAfter, storage.RetryAfter(err))
		return f
	case errors.Is(err, storage.ErrBlocked):
		code = proto.ErrorCode_ERROR_CODE_NOT_ALLOWED
	case errors.Is(err, storage.ErrNoUser):
		code = proto.ErrorCode_ERROR_CODE_NOT_FOUND
	case errors.Is(err, storage.ErrConflict):
		code = proto.ErrorCode_ERROR_CODE_CONFLICT
	case errors.Is(err, storage.ErrIDExpired):
		code = proto.ErrorCode_ERROR_CODE_ID_EXPIRED
	case errors.Is(err, storage.ErrIDInvalid):
		code = proto.ErrorCode_ERROR_CODE_ID_INVALID
	case errors.Is(err, storage.ErrBusy):
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_OVERLOADED, "").WithRetry(busyRetry).WithCause(err)
	case errors.Is(err, storage.ErrFull):
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_OVERLOADED, "the server's disk is full").WithRetry(fullRetry).WithCause(err)
	case errors.Is(err, storage.ErrUnknown), errors.Is(err, storage.ErrSlotMoved), errors.Is(err, storage.ErrClosed),
		errors.Is(err, context.Canceled):
		code = proto.ErrorCode_ERROR_CODE_UNAVAILABLE
	default:
		return proto.AsFault(err)
	}
	return proto.Errorf(code, "").WithCause(err)
}

const (
	busyRetry = 500 * time.Millisecond
	fullRetry = 30 * time.Second
)

func invalid(format string, args ...any) *proto.Fault {
	return proto.Errorf(proto.ErrorCode_ERROR_CODE_INVALID_ARGUMENT, format, args...)
}

func okFrame() *proto.Frame { return &proto.Frame{Body: &proto.Frame_Ok{Ok: &proto.Ok{}}} }
