package chat

import (
	"context"
	"fmt"
	"runtime/debug"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// job is work around a password: read on the shard's bulkhead, hash on the
// pool, write on the bulkhead. No step holds a place in one while it waits for
// the other, so a flood of logins cannot stop a shard's readers, nor a hanging
// shard the logins of the others.
type job struct {
	conn  *conn.Conn
	slot  storage.Slot
	read  func(context.Context) error
	hash  func() error
	write func(context.Context) error
	// end gets the first error, or nil after write: once, on whatever
	// goroutine, with the context of the reader if it is one. After a panic the
	// connection is closed instead.
	end func(context.Context, error)
}

func (c *Chat) start(j *job) {
	c.onShard(j.conn, j.slot, j.read, func(ctx context.Context, err error) {
		if err != nil {
			j.end(ctx, err)
			return
		}
		c.onPool(j)
	})
}

func (c *Chat) onPool(j *job) {
	err := c.auth.hasher.submit(func() {
		c.protect(j.conn, func() {
			if err := j.hash(); err != nil {
				j.end(c.ctx, err)
				return
			}
			c.onShard(j.conn, j.slot, j.write, j.end)
		})
	})
	if err != nil {
		j.end(c.ctx, err)
	}
}

// onShard runs fn on the bulkhead of slot's shard and gives then its error.
func (c *Chat) onShard(cn *conn.Conn, slot storage.Slot, fn func(context.Context) error, then func(context.Context, error)) {
	err := c.store.Go(slot, func(ctx context.Context) {
		c.protect(cn, func() { then(ctx, fn(ctx)) })
	})
	if err != nil {
		then(c.ctx, err)
	}
}

// protect keeps a panic in fn from the process: it costs one connection.
func (c *Chat) protect(cn *conn.Conn, fn func()) {
	defer func() {
		if p := recover(); p != nil {
			c.metrics.panics.Inc()
			c.log.Error().Str("panic", fmt.Sprint(p)).Bytes("stack", debug.Stack()).Uint64("conn", cn.ID()).Msg("a login or account request panicked; its connection is closed")
			cn.Close(conn.ReasonPanic, proto.Errorf(proto.ErrorCode_ERROR_CODE_INTERNAL, ""))
		}
	}()
	fn()
}
