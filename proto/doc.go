// Package proto is the wire of Hermod: the messages of hermod.v1 (generated
// from the .proto files beside it), their framing, and the error codes.
//
// A connection carries frames in both directions. A frame is a 4-byte
// big-endian payload length and a protobuf [Frame]; a length of 0 is a
// heartbeat and carries nothing. README.md in this folder is the
// specification, written for people who implement a client in any language.
//
// Reading: keep the bytes that arrived in one buffer and call [Next] until it
// reports that it needs more. It refuses a frame over the cap as soon as its
// header is there, so nothing is ever buffered or allocated for it. Then
// [Decode] the payload:
//
//	payload, n, err := proto.Next(buf, proto.MaxFrameSession)
//	switch {
//	case err != nil: // close with proto.AsFault(err)
//	case n == 0:     // read more bytes
//	case proto.IsHeartbeat(payload):
//	default:
//		var f proto.Frame
//		err = proto.Decode(payload, &f)
//	}
//	buf = buf[n:]
//
// Writing: [AppendFrame] for any frame. A message that goes to many devices
// differs only in its seq, so [AppendEventSeq] and [AppendEventsFrame] put
// seqs in front of bytes that were encoded once.
//
// Errors: a [Fault] carries what the client may know (code, safe text, when to
// try again) and, apart from it, the cause for the operator's log.
//
// The package does no I/O, keeps no state, and imports nothing of Hermod. In
// files that also need the protobuf runtime, import that one as gproto.
package proto
