package bench

import (
	"context"
	"net"
	"testing"
)

func TestUsersTakeTurnsOnServers(t *testing.T) {
	var addrs [3]string
	for i := range addrs {
		ln, err := net.Listen("tcp", "127.0.0.1:0")
		if err != nil {
			t.Fatal(err)
		}
		defer ln.Close()
		addrs[i] = ln.Addr().String()
	}
	d, err := newDialer(addrs[0]+","+addrs[1]+","+addrs[2], nil, 10)
	if err != nil {
		t.Fatal(err)
	}
	for n := range 7 {
		c, err := d.dial(context.Background(), n)
		if err != nil {
			t.Fatal(err)
		}
		if got := c.RemoteAddr().String(); got != addrs[n%3] {
			t.Errorf("user %d is on %s, want %s", n, got, addrs[n%3])
		}
		c.Close()
	}
	if _, err := newDialer(addrs[0]+",nowhere", nil, 1); err == nil {
		t.Error("an address without a port is accepted")
	}
}
