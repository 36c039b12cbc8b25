package conn

import (
	"testing"
)

func TestEcho(t *testing.T) {
	e := start(t, &echo{}, nil)
	c := e.dial().login()
	c.send(request(7), request(8))
	for _, want := range []uint64{7, 8} {
		if f := c.frame(); f.GetId() != want || f.GetOk() == nil {
			t.Fatalf("got %v, want Ok %d", f, want)
		}
	}
	c.write([]byte{0, 0, 0, 0})
	if f := c.frame(); f != nil {
		t.Fatalf("got %v for a heartbeat", f)
	}
	if n := e.Conns(); n != 1 {
		t.Errorf("Conns() = %d", n)
	}
	_ = c.Close()
	e.closedFor(ReasonPeerClosed)
}
