package proto

import (
	"strings"
	"time"
)

// CodeInfo is a row of the code table: what holds for a code unless a Fault
// says otherwise. README.md prints the same table; a test compares them.
type CodeInfo struct {
	Code ErrorCode
	// Retryable: the same request may succeed later, unchanged.
	Retryable bool
	// Closes: the server closes the connection after it. (After any error that
	// answers Hello it closes anyway.)
	Closes bool
	// RetryAfter is the wait that goes with the code by default.
	RetryAfter time.Duration
	// Text is the default message.
	Text string
	// Do is what a client does about it.
	Do string
}

// Info returns the code's row. For a code this version does not know, a row
// that says so: not retryable, does not close.
func (x ErrorCode) Info() CodeInfo {
	for i := range codes {
		if codes[i].Code == x {
			return codes[i]
		}
	}
	return CodeInfo{Code: x, Text: "unknown error", Do: "Go by retryable and retry_after_ms."}
}

// Short is the name without its prefix, such as "BAD_FRAME": for logs,
// metric labels and people.
func (x ErrorCode) Short() string { return strings.TrimPrefix(x.String(), "ERROR_CODE_") }

// Codes returns the whole table, ascending.
func Codes() []CodeInfo { return append([]CodeInfo(nil), codes[:]...) }

// codes is ordered as in frame.proto.
var codes = [...]CodeInfo{
	{Code: ErrorCode_ERROR_CODE_BAD_FRAME, Closes: true, Text: "the bytes are not a frame",
		Do: "A bug of the client. Log it, reconnect with backoff."},
	{Code: ErrorCode_ERROR_CODE_FRAME_TOO_LARGE, Closes: true, Text: "the frame is too large",
		Do: "A bug of the client. Log it, reconnect with backoff, do not send that frame again."},
	{Code: ErrorCode_ERROR_CODE_UNSUPPORTED_VERSION, Closes: true, Text: "no protocol version in common",
		Do: "Do not reconnect. Ask the person to update the app."},
	{Code: ErrorCode_ERROR_CODE_UNKNOWN_REQUEST, Text: "the server does not know this request",
		Do: "Do without it: the server is older than the client."},
	{Code: ErrorCode_ERROR_CODE_HELLO_EXPECTED, Closes: true, Text: "the first frame must be hello",
		Do: "A bug of the client. Reconnect with backoff."},
	{Code: ErrorCode_ERROR_CODE_HELLO_REPEATED, Closes: true, Text: "one hello a connection",
		Do: "A bug of the client. Reconnect with backoff."},
	{Code: ErrorCode_ERROR_CODE_INVALID_ARGUMENT, Text: "a field is missing or out of range",
		Do: "A bug of the client. Log the message; the request will never succeed."},
	{Code: ErrorCode_ERROR_CODE_TIMEOUT, Retryable: true, Closes: true, Text: "nothing came in time",
		Do: "Reconnect with backoff."},

	{Code: ErrorCode_ERROR_CODE_UNAUTHENTICATED, Text: "wrong name, password, token or secret",
		Do: "After an access token: use the device secret. After the device secret: ask for the password. After a password: let the person type it again."},
	{Code: ErrorCode_ERROR_CODE_TOKEN_EXPIRED, Closes: true, Text: "the access token has expired",
		Do: "Forget the token, reconnect at once with the device secret."},
	{Code: ErrorCode_ERROR_CODE_REVOKED, Closes: true, Text: "this device was revoked",
		Do: "Do not reconnect. Forget token and secret, ask for the password."},
	{Code: ErrorCode_ERROR_CODE_KICKED, Closes: true, Text: "a newer login took this device slot",
		Do: "Do not reconnect. Say that another device took over; log in by password if the person asks for it."},
	{Code: ErrorCode_ERROR_CODE_REPLACED, Closes: true, Text: "this device opened a newer connection",
		Do: "Do not reconnect from here: the newer connection of this installation lives."},
	{Code: ErrorCode_ERROR_CODE_NAME_TAKEN, Text: "this name is in use",
		Do: "Let the person choose another name."},
	{Code: ErrorCode_ERROR_CODE_NAME_INVALID, Text: "this name breaks the rules for names",
		Do: "Let the person choose another name."},
	{Code: ErrorCode_ERROR_CODE_PASSWORD_WEAK, Text: "this password is too short, too long or too common",
		Do: "Let the person choose another password."},
	{Code: ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS, Retryable: true, RetryAfter: time.Minute, Text: "too many attempts",
		Do: "Wait for retry_after_ms; say so."},

	{Code: ErrorCode_ERROR_CODE_NOT_ALLOWED, Text: "not allowed",
		Do: "Show that it was not delivered. Do not retry."},
	{Code: ErrorCode_ERROR_CODE_NOT_FOUND, Text: "no such user, device or conversation",
		Do: "Do not retry."},
	{Code: ErrorCode_ERROR_CODE_CONFLICT, Text: "this send id was used with other content",
		Do: "A bug of the client: a retry must repeat the content byte for byte. Send with a new id if the person asks for it."},
	{Code: ErrorCode_ERROR_CODE_ID_EXPIRED, Text: "this send id is too old",
		Do: "Ask the person; send with a new id if they say so."},
	{Code: ErrorCode_ERROR_CODE_ID_INVALID, Text: "this send id is not a UUIDv7 on server time",
		Do: "Correct the clock offset from the next Welcome; send with a new id."},
	{Code: ErrorCode_ERROR_CODE_CONTENT_TOO_LARGE, Text: "the content is too large",
		Do: "Show it as failed. Do not retry."},

	{Code: ErrorCode_ERROR_CODE_RATE_LIMITED, Retryable: true, RetryAfter: time.Second, Text: "too many requests",
		Do: "Wait for retry_after_ms, then go on more slowly."},
	{Code: ErrorCode_ERROR_CODE_BUSY, Retryable: true, Text: "too many requests are open",
		Do: "Wait for answers; for sends follow the resume_order rule."},
	{Code: ErrorCode_ERROR_CODE_OVERLOADED, Retryable: true, RetryAfter: 2 * time.Second, Text: "the server is overloaded",
		Do: "Wait for retry_after_ms, then back off."},
	{Code: ErrorCode_ERROR_CODE_DRAINING, Retryable: true, Text: "the server is shutting down",
		Do: "Reconnect, to another address if there is one."},
	{Code: ErrorCode_ERROR_CODE_SLOW_CONSUMER, Retryable: true, Closes: true, Text: "the client reads too slowly",
		Do: "Reconnect with backoff; the missed events come again."},

	{Code: ErrorCode_ERROR_CODE_INTERNAL, Retryable: true, Text: "internal error",
		Do: "Back off and retry; give up on a request after 5 of them."},
	{Code: ErrorCode_ERROR_CODE_UNAVAILABLE, Retryable: true, RetryAfter: time.Second, Text: "the storage does not answer",
		Do: "Wait for retry_after_ms, then back off. Other conversations may work."},
}
