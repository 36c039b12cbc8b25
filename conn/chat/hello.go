package chat

import (
	"context"
	"crypto/sha256"
	"time"
	"unicode"
	"unicode/utf8"

	gproto "google.golang.org/protobuf/proto"

	"github.com/hermod-im/hermod/conn"
	"github.com/hermod-im/hermod/proto"
	"github.com/hermod-im/hermod/storage"
)

// protocolVersion is the one version there is.
const protocolVersion = 1

const (
	deviceIDLen  = 16
	secretLen    = 32
	maxInfoBytes = 64 // each text of DeviceInfo
	maxSlot      = uint8(proto.DeviceSlot_DEVICE_SLOT_OTHER)
)

func validSlot(slot uint8) bool { return slot >= 1 && slot <= maxSlot }

// identity is who a connection turned out to be.
type identity struct {
	user                 storage.UserID
	name                 string
	device               [16]byte
	slot                 uint8
	loginEpoch, tokenGen uint64
	info                 *proto.DeviceInfo
	head                 storage.UserHead // as read
	token                string
	tokenExpires         time.Time
	tokenFresh           bool // token is new and goes into the Welcome
}

// arrival is a Hello on its way to become a session. All its fields are checked
// and bounded; whether it is true is still to be found out.
type arrival struct {
	conn        *conn.Conn
	frame       *proto.Frame
	credentials string // for metrics
	device      [16]byte
	slot        uint8
	info        *proto.DeviceInfo
	infoBytes   []byte
	next        [32]byte // hash of next_secret; zero with an access token
}

// hello answers the first frame of a connection: by admit, or by an error and
// the end of the connection. It does not block.
func (c *Chat) hello(cn *conn.Conn, f *proto.Frame) {
	h := f.GetHello()
	a := &arrival{conn: cn, frame: f, credentials: "none"}
	if err := a.read(h); err != nil {
		c.refuse(a, err)
		return
	}
	switch cred := h.Credentials.(type) {
	case *proto.Hello_AccessToken:
		c.resumeByToken(a, cred.AccessToken)
	case *proto.Hello_DeviceSecret:
		c.resumeBySecret(a, cred.DeviceSecret)
	case *proto.Hello_Login:
		c.login(a, cred.Login)
	case *proto.Hello_Register:
		c.register(a, cred.Register)
	}
}

// read checks everything that needs no storage.
func (a *arrival) read(h *proto.Hello) error {
	switch {
	case h == nil:
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_HELLO_EXPECTED, "")
	case a.frame.Id == 0:
		return invalid("the frame of a hello needs an id above 0")
	case h.MinVersion > h.MaxVersion:
		return invalid("min_version %d is above max_version %d", h.MinVersion, h.MaxVersion)
	case h.MinVersion > protocolVersion || h.MaxVersion < protocolVersion:
		return proto.Errorf(proto.ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION, "this server speaks version %d, the client %d to %d", protocolVersion, h.MinVersion, h.MaxVersion)
	}
	if err := a.readDevice(h.Device); err != nil {
		return err
	}
	return a.readCredentials(h)
}

func (a *arrival) readDevice(d *proto.DeviceInfo) error {
	switch {
	case d == nil:
		return invalid("device is missing")
	case len(d.Id) != deviceIDLen || [deviceIDLen]byte(d.Id) == [deviceIDLen]byte{}:
		return invalid("device.id must be %d random bytes", deviceIDLen)
	case d.Slot < 1 || d.Slot > proto.DeviceSlot(maxSlot):
		return invalid("device.slot %d is not known", d.Slot)
	}
	for _, t := range []struct{ name, text string }{{"platform", d.Platform}, {"model", d.Model}, {"app_version", d.AppVersion}} {
		if len(t.text) > maxInfoBytes {
			return invalid("device.%s has %d bytes, at most %d are allowed", t.name, len(t.text), maxInfoBytes)
		}
		if !plainText(t.text) {
			return invalid("device.%s has control characters", t.name)
		}
	}
	info, err := gproto.Marshal(d)
	if err != nil {
		return err
	}
	a.device, a.slot, a.info, a.infoBytes = [deviceIDLen]byte(d.Id), uint8(d.Slot), d, info
	return nil
}

func (a *arrival) readCredentials(h *proto.Hello) error {
	needsSecret := true
	switch cred := h.Credentials.(type) {
	case *proto.Hello_AccessToken:
		a.credentials, needsSecret = "token", false
	case *proto.Hello_DeviceSecret:
		a.credentials = "secret"
		s := cred.DeviceSecret
		if len(s.GetCurrent()) != secretLen {
			return invalid("device_secret.current must be %d bytes", secretLen)
		}
		if string(s.Current) == string(h.NextSecret) {
			return invalid("next_secret must differ from device_secret.current")
		}
	case *proto.Hello_Login:
		a.credentials = "password"
		if len(cred.Login.GetPassword()) > maxPasswordBytes {
			return invalid("login.password has more than %d bytes", maxPasswordBytes)
		}
	case *proto.Hello_Register:
		a.credentials = "register"
	default:
		return invalid("credentials are missing")
	}
	if !needsSecret {
		if len(h.NextSecret) != 0 {
			return invalid("next_secret does not go with an access_token")
		}
		return nil
	}
	if len(h.NextSecret) != secretLen || [secretLen]byte(h.NextSecret) == [secretLen]byte{} {
		return invalid("next_secret must be %d random bytes", secretLen)
	}
	a.next = sha256.Sum256(h.NextSecret)
	return nil
}

// plainText reports whether s is fit to be shown in a line: no control
// characters, and none that turn the direction of the text around them.
func plainText(s string) bool {
	for _, r := range s {
		if r == utf8.RuneError || unicode.IsControl(r) || unicode.Is(unicode.Bidi_Control, r) || r == '\u2028' || r == '\u2029' {
			return false
		}
	}
	return true
}

// identify makes the identity of an arrival that has proved to be dev. It
// signs a new access token.
func (c *Chat) identify(a *arrival, name string, head storage.UserHead, dev storage.Device) (identity, error) {
	id := identity{
		user: head.User, name: name, device: a.device, slot: dev.Slot, info: a.info, head: head,
		loginEpoch: dev.LoginEpoch, tokenGen: head.TokenGen, tokenFresh: true,
	}
	var err error
	id.token, id.tokenExpires, err = c.auth.tokens.issue(access{
		user: id.user, device: id.device, slot: id.slot, loginEpoch: id.loginEpoch, tokenGen: id.tokenGen,
	})
	return id, err
}

// accept ends an arrival well: the rest is the session's.
func (c *Chat) accept(ctx context.Context, a *arrival, id identity) {
	c.auth.hellos.WithLabelValues(a.credentials, "OK").Inc()
	c.admit(ctx, a.conn, a.frame, id)
}

// refuse ends an arrival: the error answers the Hello, then the connection
// closes.
func (c *Chat) refuse(a *arrival, err error) {
	fault := faultOf(err)
	c.auth.hellos.WithLabelValues(a.credentials, fault.Code.Short()).Inc()
	event := c.log.Debug()
	if fault.Code >= proto.ErrorCode_ERROR_CODE_INTERNAL {
		event = c.often.Warn()
	}
	event.Err(fault).Str("credentials", a.credentials).Stringer("ip", a.conn.RemoteIP()).Uint64("conn", a.conn.ID()).Msg("hello refused")
	reason := refusalReason(fault.Code)
	if a.frame.Id == 0 {
		a.conn.Close(reason, fault)
		return
	}
	a.conn.Fail(a.frame.Id, fault)
	a.conn.Close(reason, nil)
}

func refusalReason(code proto.ErrorCode) conn.Reason {
	switch {
	case code == proto.ErrorCode_ERROR_CODE_REVOKED:
		return conn.ReasonRevoked
	case code == proto.ErrorCode_ERROR_CODE_KICKED:
		return conn.ReasonKicked
	case code == proto.ErrorCode_ERROR_CODE_HELLO_EXPECTED:
		return conn.ReasonHelloExpected
	case code < proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED:
		return conn.ReasonProtocol
	case code >= proto.ErrorCode_ERROR_CODE_INTERNAL:
		return conn.ReasonInternal
	}
	return conn.ReasonUnauthenticated
}

func unauthenticated(format string, args ...any) *proto.Fault {
	return proto.Errorf(proto.ErrorCode_ERROR_CODE_UNAUTHENTICATED, format, args...)
}
