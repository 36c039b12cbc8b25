package conn

import (
	"encoding/binary"

	"github.com/hermod-im/hermod/proto"
)

// phase is how far a connection has come. It only goes forward.
type phase uint8

const (
	phaseProxy   phase = iota // waiting for a PROXY header
	phaseTLS                  // waiting for a ClientHello, or shaking hands
	phaseHello                // waiting for the first frame
	phaseLogin                // Hello is with the Handler; nothing is read until Accept and Reply
	phaseLive                 // accepted
	phaseClosing              // last output is on its way; input is thrown away
)

// session is the protocol of one connection without any I/O: it is fed bytes
// and the time and says what to do. Only the connection's loop uses it.
type session struct {
	opened  stamp // accepted by the listener
	heard   stamp // last whole frame, heartbeats included
	partial stamp // when the unfinished frame was begun
	closeAt stamp // phaseClosing: when patience ends
	need    int32 // input is not worth looking at before it has so many bytes
	refused int32 // frames refused for lack of credits since there were enough
	rate    bucket
	flood   bucket
	phase   phase
	started bool // a first byte came; phaseClosing: the FIN is sent
	// unfinished: input ends in a part of a frame, since partial
	unfinished bool
	exempt     bool
}

// step is what to do with the front of the input.
type step uint8

const (
	stepWait      step = iota // nothing: more bytes (or Accept) are needed
	stepFrame                 // decode the payload, then ask admit
	stepHeartbeat             // answer it
	stepSkip                  // a heartbeat over the rate: do not answer
	stepRefuse                // decode the payload, let the Handler refuse it
	stepClose                 // say fault, close for reason
)

// action is a step with what belongs to it. It is returned by value: the
// frame path must not allocate.
type action struct {
	step    step
	size    int    // bytes of input that are done with
	payload []byte // stepFrame, stepRefuse: a part of the input
	reason  Reason // stepClose
	code    proto.ErrorCode
	err     error // stepClose: what else there is to say; may be nil
}

func closing(reason Reason, code proto.ErrorCode) action {
	return action{step: stepClose, reason: reason, code: code}
}

// read looks at the front of the input.
func (s *session) read(buf []byte, now stamp, lim *Limits) action {
	limit := proto.MaxFrameSession
	switch s.phase {
	case phaseHello:
		limit = proto.MaxFrameHello
	case phaseLive:
	default:
		return action{}
	}
	payload, n, err := proto.Next(buf, limit)
	switch {
	case err != nil:
		a := closing(ReasonFrameTooLarge, proto.ErrorCode_ERROR_CODE_FRAME_TOO_LARGE)
		a.err = err
		return a
	case n == 0:
		s.wait(buf, now)
		return action{}
	}
	s.need, s.unfinished, s.heard = 0, false, now
	heartbeat := proto.IsHeartbeat(payload)
	if s.phase == phaseHello {
		if heartbeat {
			return closing(ReasonHelloExpected, proto.ErrorCode_ERROR_CODE_HELLO_EXPECTED)
		}
		return action{step: stepFrame, size: n, payload: payload}
	}
	a := action{step: stepFrame, size: n, payload: payload}
	if heartbeat {
		a = action{step: stepHeartbeat, size: n}
	}
	if s.exempt || s.rate.take(now, lim.FrameRate, lim.FrameBurst) && s.flood.take(now, floodFactor*lim.FrameRate, floodFactor*lim.FrameBurst) {
		return a
	}
	if !s.flood.take(now, floodFactor*lim.FrameRate, floodFactor*lim.FrameBurst) {
		return closing(ReasonRateLimited, proto.ErrorCode_ERROR_CODE_RATE_LIMITED)
	}
	if heartbeat {
		return action{step: stepSkip, size: n}
	}
	a.step, a.code = stepRefuse, proto.ErrorCode_ERROR_CODE_RATE_LIMITED
	return a
}

// wait notes that buf ends in an unfinished frame. Knowing how many bytes are
// missing keeps a client that dribbles from having its frame looked at (and
// copied out of gnet's ring) once per byte.
func (s *session) wait(buf []byte, now stamp) {
	if len(buf) == 0 {
		s.need, s.unfinished = 0, false
		return
	}
	s.begin(now)
	s.need = proto.HeaderLen
	if len(buf) >= proto.HeaderLen {
		s.need += int32(binary.BigEndian.Uint32(buf))
	}
}

// begin notes that a frame was begun, unless one is already.
func (s *session) begin(now stamp) {
	if !s.unfinished {
		s.unfinished, s.partial = true, now
	}
}

// admit says whether a decoded frame may be queued: stepFrame, stepRefuse or
// stepClose. open counts the requests without a reply, queued and bytes what
// waits in the mailbox.
func (s *session) admit(f *proto.Frame, open, queued, bytes int, lim *Limits) action {
	_, hello := f.GetBody().(*proto.Frame_Hello)
	if s.phase == phaseHello {
		if !hello {
			return closing(ReasonHelloExpected, proto.ErrorCode_ERROR_CODE_HELLO_EXPECTED)
		}
		s.phase = phaseLogin
		return action{step: stepFrame}
	}
	if hello {
		return closing(ReasonHelloRepeated, proto.ErrorCode_ERROR_CODE_HELLO_REPEATED)
	}
	// One-way frames take no credit, only room: as many again as requests. So
	// who has all requests open, as anybody may, can still acknowledge.
	room := queued < 2*lim.MaxInFlight && (queued == 0 || bytes < lim.MailboxBytes)
	if room && (f.GetId() == 0 || open < lim.MaxInFlight) {
		if open <= lim.MaxInFlight/2 {
			s.refused = 0
		}
		return action{step: stepFrame}
	}
	if s.refused++; int(s.refused) > floodFactor*lim.MaxInFlight {
		return closing(ReasonBusy, proto.ErrorCode_ERROR_CODE_BUSY)
	}
	return action{step: stepRefuse, code: proto.ErrorCode_ERROR_CODE_BUSY}
}

// accept begins the second phase: bigger caps, heartbeats.
func (s *session) accept(now stamp) {
	if s.phase == phaseLogin {
		s.phase, s.heard, s.need, s.unfinished = phaseLive, now, 0, false
	}
}

// deadline returns when this connection has waited long enough, and what that
// would be called. heartbeat is the agreed interval in milliseconds.
func (s *session) deadline(heartbeat uint32, lim *Limits) (stamp, Reason) {
	switch {
	case s.phase == phaseClosing:
		return s.closeAt, ReasonUnknown
	case s.phase == phaseLive:
		at, why := s.heard+stamp(heartbeat+heartbeat/2), ReasonIdle
		if late := s.partial.plus(lim.PartialFrame); s.unfinished && late.since(at) < 0 {
			at, why = late, ReasonPartialFrame
		}
		return at, why
	case !s.started && lim.FirstByte < lim.Login:
		return s.opened.plus(lim.FirstByte), ReasonFirstByte
	}
	return s.opened.plus(lim.Login), ReasonLogin
}
