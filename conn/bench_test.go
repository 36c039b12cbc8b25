package conn

import (
	"net"
	"testing"

	"github.com/hermod-im/hermod/proto"
)

// runEcho sends requests over one connection, 64 at a time, and reads the
// answers.
func runEcho(b *testing.B, s *Server) {
	nc, err := net.Dial("tcp", s.Addrs()[0].String())
	if err != nil {
		b.Fatal(err)
	}
	defer nc.Close()
	if _, err := nc.Write(framed(b, hello(1))); err != nil {
		b.Fatal(err)
	}
	buf := make([]byte, 64<<10)
	if _, err := nc.Read(buf); err != nil {
		b.Fatal(err)
	}
	var batch []byte
	for id := range uint64(64) {
		batch = append(batch, framed(b, request(id+1))...)
	}
	answer := len(framed(b, &proto.Frame{Id: 1, Body: ok().Body}))
	b.ReportAllocs()
	b.ResetTimer()
	for done := 0; done < b.N; done += 64 {
		if _, err := nc.Write(batch); err != nil {
			b.Fatal(err)
		}
		for got := 0; got < 64*answer; {
			n, err := nc.Read(buf)
			if err != nil {
				b.Fatal(err)
			}
			got += n
		}
	}
}

func BenchmarkEcho(b *testing.B) {
	// The whole way of a frame through loop, worker and outbox, over a socket,
	// 64 at a time.
	h := &echo{}
	s, err := Start(Options{Listeners: []Listener{{Addr: "127.0.0.1:0"}}, Handler: h})
	if err != nil {
		b.Fatal(err)
	}
	defer s.Close()
	runEcho(b, s)
}
