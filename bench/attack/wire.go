package attack

import (
	"crypto/rand"
	"crypto/tls"
	"errors"
	"io"
	"net"
	"net/netip"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// wire is a client without manners: it writes what it is told, bytes or
// frames, and reads what comes. Its methods stop the script on trouble, where
// they do not return an error.
type wire struct {
	net.Conn
	s   *scene
	buf []byte
	id  uint64
	dev device
	// name and token are set once it is welcome.
	name, token string
}

// device is an installation that a wire logs in as.
type device struct {
	id, secret []byte
	user       int64
	cursor     *proto.Cursor
	slot       proto.DeviceSlot
}

func newDevice(slot proto.DeviceSlot) device {
	return device{id: random(proto.DeviceIDLen), secret: random(proto.DeviceSecretLen), slot: slot}
}

func random(n int) []byte {
	b := make([]byte, n)
	rand.Read(b)
	return b
}

// dial connects somebody new to the plain listener.
func (s *scene) dial() *wire { return s.dialFrom(s.someone(), s.srv.Plain) }

// dialFrom connects from an address of 127.0.0.0/8.
func (s *scene) dialFrom(ip netip.Addr, addr string) *wire {
	w, err := s.tryDial(ip, addr)
	s.must(err)
	return w
}

func (s *scene) tryDial(ip netip.Addr, addr string) (*wire, error) {
	d := net.Dialer{LocalAddr: &net.TCPAddr{IP: ip.AsSlice()}, KeepAlive: -1, Timeout: 10 * time.Second}
	nc, err := d.DialContext(s.ctx, "tcp", addr)
	if err != nil {
		return nil, err
	}
	return s.wire(nc), nil
}

// wire makes a wire of a connection, which ends with the script.
func (s *scene) wire(nc net.Conn) *wire {
	_ = nc.SetDeadline(time.Now().Add(3 * s.patience))
	s.later(func() { _ = nc.Close() })
	return &wire{Conn: nc, s: s, dev: newDevice(proto.DeviceSlot_DEVICE_SLOT_PHONE)}
}

// secure speaks TLS over w, as a client that trusts the server.
func (w *wire) secure(change func(*tls.Config)) error {
	cfg := &tls.Config{ServerName: "127.0.0.1", MinVersion: tls.VersionTLS13, NextProtos: []string{"hermod/1"}}
	if w.s.srv != nil {
		cfg.RootCAs = w.s.srv.Roots
	}
	if change != nil {
		change(cfg)
	}
	c := tls.Client(w.Conn, cfg)
	if err := c.HandshakeContext(w.s.ctx); err != nil {
		return err
	}
	w.Conn = c
	return nil
}

// write writes all of b.
func (w *wire) write(b []byte) {
	_, err := w.Write(b)
	w.s.must(err)
}

// framed encodes frames.
func (s *scene) framed(fs ...*proto.Frame) (b []byte) {
	for _, f := range fs {
		var err error
		b, err = proto.AppendFrame(b, f)
		s.must(err)
	}
	return b
}

func (w *wire) send(fs ...*proto.Frame) { w.write(w.s.framed(fs...)) }

// next reads a frame; nil is a heartbeat.
func (w *wire) next() (*proto.Frame, error) {
	for {
		payload, n, err := proto.Next(w.buf, proto.MaxFrameSession)
		if err != nil {
			return nil, err
		}
		if n > 0 {
			w.buf = w.buf[n:]
			if proto.IsHeartbeat(payload) {
				return nil, nil
			}
			f := new(proto.Frame)
			return f, proto.Decode(payload, f)
		}
		chunk := make([]byte, 16<<10)
		n, err = w.Read(chunk)
		if n == 0 && err != nil {
			return nil, err
		}
		w.buf = append(w.buf, chunk[:n]...)
	}
}

// answer reads up to the answer of request id. A connection that ends before
// is an Error too: the last one that came, or TIMEOUT, which means the same.
func (w *wire) answer(id uint64) *proto.Frame {
	last := &proto.Frame{Body: &proto.Frame_Error{Error: &proto.Error{Code: proto.ErrorCode_ERROR_CODE_TIMEOUT, Message: "the connection ended"}}}
	for {
		f, err := w.next()
		switch {
		case err != nil:
			if timedOut(err) {
				w.s.breach("no answer to request %d", id)
			}
			return last
		case f.GetId() == id && f != nil:
			return f
		case f.GetId() == 0 && f.GetError() != nil:
			last = f
		}
	}
}

// ask sends a request and returns its answer.
func (w *wire) ask(f *proto.Frame) *proto.Frame {
	w.id++
	f.Id = w.id
	if _, err := w.Write(w.s.framed(f)); err != nil {
		return w.answer(f.Id) // what the server said before it closed
	}
	return w.answer(f.Id)
}

// ended reads to the end of the connection, which the server has to make, and
// returns its last words (0: none).
func (w *wire) ended() proto.ErrorCode {
	code := proto.ErrorCode(0)
	for {
		f, err := w.next()
		if err != nil {
			if timedOut(err) {
				w.s.breach("the server does not close the connection")
			}
			_ = w.Close()
			return code
		}
		if e := f.GetError(); e != nil && f.GetId() == 0 {
			code = e.Code
		}
	}
}

// closedFor is ended with the last words that are due. A connection that was
// reset before they were read is as good.
func (w *wire) closedFor(want proto.ErrorCode) {
	if got := w.ended(); got != want && got != 0 {
		w.s.breach("closed with %s instead of %s", got.Short(), want.Short())
	}
}

// until limits how long reading and writing may take.
func (w *wire) until(d time.Duration) { _ = w.SetDeadline(time.Now().Add(d)) }

// quiet reads for a while and returns what came.
func (w *wire) quiet(d time.Duration) (fs []*proto.Frame) {
	w.until(d)
	defer w.until(3 * w.s.patience)
	for {
		f, err := w.next()
		if err != nil {
			if !timedOut(err) {
				w.s.fail("the connection ended: %v", err)
			}
			return fs
		}
		if f != nil {
			fs = append(fs, f)
		}
	}
}

func timedOut(err error) bool {
	var e net.Error
	return errors.As(err, &e) && e.Timeout()
}

// shut reports whether the other end closes within d, without looking at what
// it says.
func (w *wire) shut(d time.Duration) bool {
	w.until(d)
	_, err := io.Copy(io.Discard, w.Conn)
	return err == nil || !timedOut(err)
}

// codeOf is the code of an Error, 0 of others.
func codeOf(f *proto.Frame) proto.ErrorCode { return f.GetError().GetCode() }

// told names what a frame says.
func told(f *proto.Frame) string {
	switch {
	case f == nil:
		return "a heartbeat"
	case f.GetError() != nil:
		return codeOf(f).Short()
	case f.GetWelcome() != nil:
		return "a Welcome"
	}
	return string(f.ProtoReflect().WhichOneof(f.ProtoReflect().Descriptor().Oneofs().ByName("body")).Name())
}
