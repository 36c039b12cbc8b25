package conn

import (
	"bytes"
	"crypto/tls"
	"reflect"
	"unsafe"
)

// tlsPeek reaches two buffers inside a *tls.Conn. crypto/tls keeps what it has
// once grown: after a handshake some 5 KB, more than everything else that an
// idle TLS connection costs us. Both are bytes.Buffers and empty whenever we
// touch them (tlsState sees to that), and an empty bytes.Buffer may be replaced by
// another one.
//
// The fields are found by name and type. If a Go release renames them nothing
// breaks: the buffers stay, and the memory test fails and says so.
type tlsPeek struct {
	rawInput, hand uintptr // offsets
	ok             bool
}

func newTLSPeek() tlsPeek {
	conn, buffer := reflect.TypeFor[tls.Conn](), reflect.TypeFor[bytes.Buffer]()
	raw, ok1 := conn.FieldByName("rawInput")
	hand, ok2 := conn.FieldByName("hand")
	ok := ok1 && ok2 && raw.Type == buffer && hand.Type == buffer && len(raw.Index) == 1 && len(hand.Index) == 1
	return tlsPeek{rawInput: raw.Offset, hand: hand.Offset, ok: ok}
}

func at(c *tls.Conn, offset uintptr) *bytes.Buffer {
	return (*bytes.Buffer)(unsafe.Add(unsafe.Pointer(c), offset))
}

// release frees what the handshake has left behind.
func (p tlsPeek) release(c *tls.Conn) {
	if !p.ok {
		return
	}
	for _, offset := range [...]uintptr{p.rawInput, p.hand} {
		if b := at(c, offset); b.Len() == 0 {
			*b = bytes.Buffer{}
		}
	}
}

// lend gives crypto/tls the loop's buffer to read records into.
func (p tlsPeek) lend(c *tls.Conn, scratch *[]byte) {
	if !p.ok {
		return
	}
	if *scratch == nil {
		*scratch = recordBuffer()
	}
	if b := at(c, p.rawInput); b.Len() == 0 {
		*b = *bytes.NewBuffer((*scratch)[:0])
	}
}

// takeBack ends what lend began.
func (p tlsPeek) takeBack(c *tls.Conn, scratch *[]byte) {
	if !p.ok {
		return
	}
	if b := at(c, p.rawInput); b.Len() == 0 {
		*b = bytes.Buffer{}
	} else {
		*scratch = nil // it keeps it: a record that was not whole
	}
}
