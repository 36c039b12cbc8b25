package conn

import (
	"fmt"
	"sync"

	"github.com/hermod-im/hermod/proto"
)

// buffer is a pooled run of framed bytes.
type buffer struct {
	b      []byte
	frames int
}

// keepBuffer is the largest buffer that goes back to a pool.
const keepBuffer = 64 << 10

// buffers hands out buffers. An outbox has one only while it is not empty, so
// idle connections share a few.
type buffers struct{ pool sync.Pool }

func (p *buffers) get() *buffer {
	if b, ok := p.pool.Get().(*buffer); ok {
		return b
	}
	return &buffer{b: make([]byte, 0, 512)}
}

func (p *buffers) put(b *buffer) {
	if cap(b.b) > keepBuffer {
		return
	}
	b.b, b.frames = b.b[:0], 0
	p.pool.Put(b)
}

// Send queues a frame, such as a server event with id 0. It fails with ErrClosed,
// or with an error that names a bug: a frame over proto.MaxFrameSession, or one
// that cannot be encoded. An outbox over Limits.OutboxBytes closes the
// connection (SLOW_CONSUMER).
func (c *Conn) Send(f *proto.Frame) error {
	push, err := c.send(f, false)
	if push {
		c.loop.push(c)
	}
	return err
}

// send is Send without waking the loop. The first reply is the one to Hello:
// nothing else is served before it.
func (c *Conn) send(f *proto.Frame, reply bool) (push bool, err error) {
	c.mu.Lock()
	defer c.mu.Unlock() // deferred: encoding a broken message can panic
	if c.shut {
		c.loop.srv.metrics.drop(DropClosed, 1)
		return false, ErrClosed
	}
	err = c.appendLocked(f)
	c.replied = c.replied || reply
	return c.markLocked(), err
}

// SendBytes is Send for whole frames that are encoded already, as
// proto.AppendEventsFrame does. The bytes are copied. Several frames may come
// at once; each must fit proto.MaxFrameSession.
func (c *Conn) SendBytes(framed []byte) error {
	c.mu.Lock()
	if c.shut {
		c.mu.Unlock()
		c.loop.srv.metrics.drop(DropClosed, 1)
		return ErrClosed
	}
	out := c.outLocked()
	out.b = append(out.b, framed...)
	out.frames++
	c.grownLocked(len(framed))
	push := c.markLocked()
	c.mu.Unlock()
	if push {
		c.loop.push(c)
	}
	return nil
}

// Buffered is the output that the kernel has not taken yet, in bytes: the
// outbox and, as of the loop's last look, gnet's own buffer.
func (c *Conn) Buffered() int {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.bufferedLocked()
}

func (c *Conn) bufferedLocked() int {
	n := int(c.kernel)
	if c.out != nil {
		n += len(c.out.b)
	}
	return n
}

func (c *Conn) outLocked() *buffer {
	if c.out == nil {
		c.out = c.loop.srv.buffers.get()
	}
	return c.out
}

// appendLocked encodes f into the outbox.
func (c *Conn) appendLocked(f *proto.Frame) error {
	out := c.outLocked()
	before := len(out.b)
	b, err := proto.AppendFrame(out.b, f)
	if err != nil {
		c.loop.srv.metrics.drop(DropEncode, 1)
		return err
	}
	if size := len(b) - before - proto.HeaderLen; size > proto.MaxFrameSession {
		c.loop.srv.metrics.drop(DropTooLarge, 1)
		return fmt.Errorf("conn: frame of %d bytes, at most %d can be sent", size, proto.MaxFrameSession)
	}
	out.b = b
	out.frames++
	c.grownLocked(len(b) - before)
	return nil
}

// grownLocked enforces the cap after n more bytes. What is in the outbox is
// given up whole, so the client sees an unbroken prefix of its events, and
// the Error.
func (c *Conn) grownLocked(n int) {
	c.loop.pending.Add(int64(n))
	if c.shut || c.bufferedLocked() <= c.loop.srv.limits.Load().OutboxBytes {
		return
	}
	c.shut, c.reason = true, ReasonSlowConsumer
	c.dropOutLocked()
	_ = c.appendLocked(&proto.Frame{Body: &proto.Frame_Error{
		Error: proto.Errorf(proto.ErrorCode_ERROR_CODE_SLOW_CONSUMER, "").Wire(),
	}})
}

func (c *Conn) dropOutLocked() {
	if c.out == nil {
		return
	}
	c.loop.pending.Add(-int64(len(c.out.b)))
	if len(c.out.b) > 0 {
		c.loop.srv.metrics.drop(DropUnsent, 1)
	}
	c.loop.srv.buffers.put(c.out)
	c.out = nil
}
