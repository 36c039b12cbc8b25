package conn

import (
	"net"
	"reflect"
	"unsafe"

	"github.com/panjf2000/gnet/v2"
	"golang.org/x/sys/unix"
)

// gnetPeek reaches two fields inside gnet's connection: the client's address,
// kept as a socket address and as a net.Addr. For a TCP connection gnet reads
// neither again, and neither do we once the accept guard has seen it; together
// they are some 100 bytes in three objects of the sizes in which a login leaves
// most garbage.
//
// The fields are found by name and type. If a release of gnet renames them
// nothing breaks: the addresses stay, and a test fails and says so.
type gnetPeek struct {
	remote, remoteAddr uintptr // offsets
	ok                 bool
}

func newGnetPeek(gc gnet.Conn) gnetPeek {
	t := reflect.TypeOf(gc)
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return gnetPeek{}
	}
	remote, ok1 := t.Elem().FieldByName("remote")
	addr, ok2 := t.Elem().FieldByName("remoteAddr")
	ok := ok1 && ok2 && remote.Type == reflect.TypeFor[unix.Sockaddr]() && addr.Type == reflect.TypeFor[net.Addr]()
	return gnetPeek{remote: remote.Offset, remoteAddr: addr.Offset, ok: ok}
}

// release frees the client's address. On the loop of gc only.
func (p gnetPeek) release(gc gnet.Conn) {
	if !p.ok {
		return
	}
	c := reflect.ValueOf(gc).UnsafePointer()
	*(*unix.Sockaddr)(unsafe.Add(c, p.remote)) = nil
	*(*net.Addr)(unsafe.Add(c, p.remoteAddr)) = nil
}
