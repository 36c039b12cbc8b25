package conn

import (
	"net"
	"reflect"
	"unsafe"

	"github.com/panjf2000/gnet/v2"
	"github.com/panjf2000/gnet/v2/pkg/netpoll"
	"golang.org/x/sys/unix"
)

// gnetPeek reaches three fields inside gnet's connection. The client's address,
// kept as a socket address and as a net.Addr: for a TCP connection gnet reads
// neither again, and neither do we once the accept guard has seen it. And a
// method value that only gnet's other poller (build tag poll_opt) calls.
// Together they are 112 bytes, in four objects of the sizes in which a login
// leaves most garbage.
//
// The fields are found by name and type. If a release of gnet renames them
// nothing breaks: what is there stays, and a test fails and says so.
type gnetPeek struct {
	remote, remoteAddr, poll uintptr // offsets
	ok                       bool
}

func newGnetPeek(gc gnet.Conn) gnetPeek {
	t := reflect.TypeOf(gc)
	if t.Kind() != reflect.Pointer || t.Elem().Kind() != reflect.Struct {
		return gnetPeek{}
	}
	remote, ok1 := t.Elem().FieldByName("remote")
	addr, ok2 := t.Elem().FieldByName("remoteAddr")
	poll, ok3 := t.Elem().FieldByName("pollAttachment")
	ok := ok1 && ok2 && ok3 && remote.Type == reflect.TypeFor[unix.Sockaddr]() &&
		addr.Type == reflect.TypeFor[net.Addr]() && poll.Type == reflect.TypeFor[netpoll.PollAttachment]()
	return gnetPeek{remote: remote.Offset, remoteAddr: addr.Offset, poll: poll.Offset, ok: ok}
}

// release frees what gc does not need any more. On its loop only.
func (p gnetPeek) release(gc gnet.Conn) {
	if !p.ok {
		return
	}
	c := reflect.ValueOf(gc).UnsafePointer()
	*(*unix.Sockaddr)(unsafe.Add(c, p.remote)) = nil
	*(*net.Addr)(unsafe.Add(c, p.remoteAddr)) = nil
	if !pollCallsBack {
		(*netpoll.PollAttachment)(unsafe.Add(c, p.poll)).Callback = nil
	}
}
