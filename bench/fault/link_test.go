package fault

import (
	"bytes"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"go.uber.org/goleak"
)

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func waitFor(t *testing.T, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(20 * time.Second); !ok(); time.Sleep(2 * time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("waited in vain for %s", what)
		}
	}
}

// linkRig is a link to a server that the test plays itself.
type linkRig struct {
	*Link
	t    *testing.T
	door *Door
	srv  *net.TCPListener
}

func newLinkRig(t *testing.T) *linkRig {
	ln, err := net.Listen("tcp", "127.0.0.1:0")
	must(t, err)
	r := &linkRig{Link: NewLink("a→b", ln.Addr().String()), t: t, srv: ln.(*net.TCPListener)}
	r.door, err = OpenLink("127.0.0.1:0", r.Link)
	must(t, err)
	t.Cleanup(func() {
		must(t, r.door.Close())
		r.Close()
		_ = ln.Close()
		goleak.VerifyNone(t)
	})
	return r
}

// connect returns both ends of a new connection.
func (r *linkRig) connect() (client, server *net.TCPConn) {
	r.t.Helper()
	client = r.dial()
	must(r.t, r.srv.SetDeadline(time.Now().Add(10*time.Second)))
	server, err := r.srv.AcceptTCP()
	must(r.t, err)
	r.t.Cleanup(func() { _ = server.Close() })
	return client, server
}

func (r *linkRig) dial() *net.TCPConn {
	r.t.Helper()
	c, err := net.Dial("tcp", r.door.Addr())
	must(r.t, err)
	r.t.Cleanup(func() { _ = c.Close() })
	return c.(*net.TCPConn)
}

// expect reads exactly these bytes.
func expect(t *testing.T, c net.Conn, want string) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	got := make([]byte, len(want))
	if _, err := io.ReadFull(c, got); err != nil || string(got) != want {
		t.Fatalf("read %q, %v; want %q", got, err, want)
	}
}

// silent wants nothing to arrive for a while.
func silent(t *testing.T, c net.Conn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(100*time.Millisecond)))
	if n, err := c.Read(make([]byte, 1)); n > 0 || !errors.Is(err, os.ErrDeadlineExceeded) {
		t.Fatalf("%d bytes, %v; want silence", n, err)
	}
}

// broken wants a reset.
func broken(t *testing.T, c net.Conn) {
	t.Helper()
	must(t, c.SetReadDeadline(time.Now().Add(10*time.Second)))
	if _, err := c.Read(make([]byte, 1)); !errors.Is(err, syscall.ECONNRESET) {
		t.Fatalf("%v; want a reset", err)
	}
}

// refused wants a new connection to be reset, at once or a little later.
func (r *linkRig) refused() {
	r.t.Helper()
	c, err := net.Dial("tcp", r.door.Addr())
	if err == nil {
		defer c.Close()
		broken(r.t, c)
	} else if !errors.Is(err, syscall.ECONNRESET) {
		r.t.Fatalf("%v; want a reset", err)
	}
}

func write(t *testing.T, c net.Conn, s string) {
	t.Helper()
	_, err := io.WriteString(c, s)
	must(t, err)
}

func TestLinkRelaysEveryByte(t *testing.T) {
	for name, trouble := range map[string]Trouble{
		"without trouble": {},
		"delayed":         {Up: Way{Delay: 20 * time.Millisecond}, Down: Way{Delay: time.Millisecond}},
		"dripping":        {Up: Way{Rate: 4 << 20}},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLinkRig(t)
			r.Add(trouble)
			client, server := r.connect()
			data := make([]byte, 3<<20)
			for i := range data {
				data[i] = byte(rand.Uint32())
			}
			go func() {
				_, _ = client.Write(data)
				_ = client.CloseWrite()
			}()
			got, err := io.ReadAll(server)
			must(t, err)
			if !bytes.Equal(got, data) {
				t.Errorf("%d bytes arrived of %d, or others", len(got), len(data))
			}
			// One direction has ended, the other has not.
			write(t, server, "answer")
			must(t, server.Close())
			expect(t, client, "answer")
			if _, err := client.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
				t.Errorf("at the end: %v", err)
			}
			waitFor(t, "the relay to end", func() bool { return r.Open() == 0 })
		})
	}
}

func TestLinkRefuses(t *testing.T) {
	r := newLinkRig(t)
	client, server := r.connect()
	heal := r.Add(Trouble{Refused: true})
	broken(t, client)
	broken(t, server)
	r.refused()
	heal()
	client, server = r.connect()
	r.Break()
	broken(t, client)
	broken(t, server)
	r.connect()
}

func TestLinkHoldsOneWay(t *testing.T) {
	r := newLinkRig(t)
	client, server := r.connect()
	heal := r.Add(Trouble{Up: Way{Held: true}})
	also := r.Add(Trouble{Up: Way{Held: true}})
	write(t, client, "question")
	silent(t, server)
	write(t, server, "news")
	expect(t, client, "news")
	late := r.dial()
	write(t, late, "late")
	must(t, r.srv.SetDeadline(time.Now().Add(100*time.Millisecond)))
	if _, err := r.srv.Accept(); err == nil {
		t.Error("connected through a way that is held")
	}
	must(t, client.CloseWrite())
	heal()
	silent(t, server)
	also()
	expect(t, server, "question")
	if _, err := server.Read(make([]byte, 1)); !errors.Is(err, io.EOF) {
		t.Errorf("behind what was held: %v", err)
	}
	must(t, r.srv.SetDeadline(time.Now().Add(10*time.Second)))
	other, err := r.srv.Accept()
	must(t, err)
	defer other.Close()
	expect(t, other, "late")

	// What a held way has no room for, waits at the sender; nothing is lost.
	client, server = r.connect()
	heal = r.Add(Trouble{Down: Way{Held: true}})
	data := bytes.Repeat([]byte("x"), 8<<20)
	sent := make(chan error, 1)
	go func() { _, err := server.Write(data); sent <- err }()
	select {
	case err := <-sent:
		t.Fatalf("%v: all of it was taken, which nobody could have kept", err)
	case <-time.After(100 * time.Millisecond):
	}
	heal()
	must(t, client.SetReadDeadline(time.Now().Add(10*time.Second)))
	_, err = io.ReadFull(client, make([]byte, len(data)))
	must(t, err)
	must(t, <-sent)
}

func TestLinkDelays(t *testing.T) {
	r := newLinkRig(t)
	client, server := r.connect()
	r.Add(Trouble{Down: Way{Delay: 100 * time.Millisecond}})
	heal := r.Add(Trouble{Down: Way{Delay: 100 * time.Millisecond}})
	begin := time.Now()
	for range 10 { // all under way at once
		write(t, server, "x")
		time.Sleep(2 * time.Millisecond)
	}
	expect(t, client, "xxxxxxxxxx")
	if took := time.Since(begin); took < 200*time.Millisecond || took > time.Second {
		t.Errorf("ten bytes took %v", took)
	}
	write(t, server, "y")
	silent(t, client)
	heal()
	expect(t, client, "y")
	begin = time.Now()
	write(t, client, "up")
	expect(t, server, "up")
	if took := time.Since(begin); took > 100*time.Millisecond {
		t.Errorf("the other way took %v", took)
	}
}

func TestLinkDrips(t *testing.T) {
	r := newLinkRig(t)
	client, server := r.connect()
	heal := r.Add(Trouble{Up: Way{Rate: 100}})
	begin := time.Now()
	write(t, client, "0123456789012345678901234567890123456789")
	expect(t, server, "01234")
	if took := time.Since(begin); took > 200*time.Millisecond {
		t.Errorf("the first drip took %v", took)
	}
	expect(t, server, "567890123456789")
	if took := time.Since(begin); took < 120*time.Millisecond {
		t.Errorf("20 bytes took %v", took)
	}
	heal()
	expect(t, server, "01234567890123456789")
}

func TestLinkTellsOfEnds(t *testing.T) {
	r := newLinkRig(t)
	client, server := r.connect()
	must(t, server.SetLinger(0))
	must(t, server.Close())
	broken(t, client)
	_ = r.srv.Close()
	r.refused() // nobody listens
	waitFor(t, "the relays to end", func() bool { return r.Open() == 0 })
}

func TestDoorTellsWhoComes(t *testing.T) {
	r := newLinkRig(t)
	var pids atomic.Pointer[[]int]
	pids.Store(new([]int))
	d, err := Open("127.0.0.1:0", func(from net.Addr) *Link {
		if Owner(from, *pids.Load()) == os.Getpid() {
			return r.Link
		}
		return nil
	})
	must(t, err)
	defer d.Close()
	(&linkRig{Link: r.Link, t: t, door: d}).refused() // of no process that was asked for
	pids.Store(&[]int{0, 1 << 30, os.Getpid()})
	c, err := net.Dial("tcp", d.Addr())
	must(t, err)
	defer c.Close()
	s, err := r.srv.Accept()
	must(t, err)
	defer s.Close()
	write(t, c, "hello")
	expect(t, s, "hello")
}
