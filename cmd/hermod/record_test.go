package main

import (
	"bytes"
	"context"
	"crypto/tls"
	"encoding/hex"
	"encoding/json"
	"flag"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// The fuzzers of what reads bytes start from what real connections carry: the
// golden vectors, and traffic between the reference client and this server that
// was recorded into their testdata/fuzz. It is recorded anew by
//
//	go test ./cmd/hermod -run TestRecordedTraffic -record
//
// which is worth doing when the protocol has grown. The secrets in it are those
// of a server that lived for that long.
var record = flag.Bool("record", false, "record the traffic that fuzzers start from")

// tape is what one connection has carried, each way.
type tape struct {
	net.Conn
	mu       sync.Mutex
	up, down bytes.Buffer
}

func (c *tape) Read(b []byte) (int, error) {
	n, err := c.Conn.Read(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.down.Write(b[:n])
	return n, err
}

func (c *tape) Write(b []byte) (int, error) {
	n, err := c.Conn.Write(b)
	c.mu.Lock()
	defer c.mu.Unlock()
	c.up.Write(b[:n])
	return n, err
}

// taped has a client's connections recorded.
func taped(tapes *[]*tape) func(*client.Options) {
	return func(o *client.Options) {
		o.DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
			nc, err := new(net.Dialer).DialContext(ctx, network, addr)
			if err != nil {
				return nil, err
			}
			c := &tape{Conn: nc}
			*tapes = append(*tapes, c)
			return c, nil
		}
	}
}

// corpus is a recorded file: where it is, and what is in it.
type corpus struct {
	dir, name string
	data      []byte
	// before and after are the fuzzer's other arguments, as the file has them.
	before, after string
	// cap is that of its frames; 0: it holds TLS records.
	cap int
}

func (c *corpus) path() string { return filepath.Join("../..", c.dir, c.name) }

// corpora are all that is recorded, empty.
func corpora() map[string]*corpus {
	return map[string]*corpus{
		"client": {dir: "conn/testdata/fuzz/FuzzSession", name: "recorded-client", after: "byte('\\x07')\n", cap: proto.MaxFrameSession},
		"server": {dir: "conn/client/testdata/fuzz/FuzzServerBytes", name: "recorded-server", before: "bool(false)\n", cap: proto.MaxFrameSession},
		"stream": {dir: "proto/testdata/fuzz/FuzzNext", name: "recorded-server", after: "[]byte(\"\\x03\\x50\")\nuint16(65535)\n", cap: proto.MaxFrameSession},
		"tls":    {dir: "conn/testdata/fuzz/FuzzRecords", name: "recorded-client"},
	}
}

func (c *corpus) save(t *testing.T) {
	t.Helper()
	text := fmt.Sprintf("go test fuzz v1\n%s[]byte(%s)\n%s", c.before, strconv.Quote(string(c.data)), c.after)
	if err := os.MkdirAll(filepath.Dir(c.path()), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(c.path(), []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func (c *corpus) load(t *testing.T) {
	t.Helper()
	text, err := os.ReadFile(c.path())
	if err != nil {
		t.Fatal(err)
	}
	rest := strings.TrimPrefix(string(text), "go test fuzz v1\n"+c.before+"[]byte(")
	quoted, _, ok := strings.Cut(rest, ")\n"+c.after)
	data, err := strconv.Unquote(quoted)
	if !ok || err != nil {
		t.Fatalf("%s: %v", c.path(), err)
	}
	c.data = []byte(data)
}

// TestRecordedTraffic reads what was recorded by an earlier build: who speaks
// the protocol today must understand it, every byte.
func TestRecordedTraffic(t *testing.T) {
	all := corpora()
	if *record {
		recordTraffic(t, all)
		for _, c := range all {
			c.save(t)
		}
	}
	for what, c := range all {
		c.load(t)
		if c.cap == 0 {
			continue
		}
		kinds := map[string]bool{}
		for rest := c.data; len(rest) > 0; {
			payload, n, err := proto.Next(rest, c.cap)
			if err != nil || n == 0 {
				t.Fatalf("%s: %d bytes left, %v", what, len(rest), err)
			}
			rest = rest[n:]
			if proto.IsHeartbeat(payload) {
				continue
			}
			f := new(proto.Frame)
			if err := proto.Decode(payload, f); err != nil || f.Body == nil {
				t.Fatalf("%s: %x: %v", what, payload, err)
			}
			kinds[fmt.Sprintf("%T", f.Body)] = true
		}
		if len(kinds) < 12 {
			t.Errorf("%s holds only %d kinds of frames", what, len(kinds))
		}
	}
}

// serverKinds are the kinds of frames that a server sends.
var serverKinds = []string{
	"send_ack", "events", "error", "hint", "caught_up", "ok", "welcome", "go_away", "access_token", "devices",
	"profiles", "blocks", "sync_response", "conversations", "history", "marks",
}

// vectorCorpora are what fuzzers start from of the golden vectors. (Those of
// package proto and of router/peer read them themselves.)
func vectorCorpora(t *testing.T) []*corpus {
	t.Helper()
	text, err := os.ReadFile("../../proto/testdata/frames.json")
	if err != nil {
		t.Fatal(err)
	}
	var vectors []struct{ Name, Hex string }
	if err := json.Unmarshal(text, &vectors); err != nil {
		t.Fatal(err)
	}
	client := &corpus{dir: "conn/testdata/fuzz/FuzzSession", name: "vectors", after: "byte('\\x07')\n"}
	server := &corpus{dir: "conn/client/testdata/fuzz/FuzzServerBytes", name: "vectors", before: "bool(true)\n"}
	all := []*corpus{client, server}
	for _, v := range vectors {
		framed, err := hex.DecodeString(v.Hex)
		if err != nil {
			t.Fatal(err)
		}
		kind, _, _ := strings.Cut(v.Name, "/")
		stream := client
		if slices.Contains(serverKinds, kind) {
			stream = server
		}
		stream.data = append(stream.data, framed...)
		dir := map[string]string{
			"hello": "conn/chat/testdata/fuzz/FuzzHello", "send_ack": "bench/testdata/fuzz/FuzzViews",
			"events": "bench/testdata/fuzz/FuzzViews", "error": "bench/testdata/fuzz/FuzzViews",
		}[kind]
		if dir != "" {
			name := strings.NewReplacer("/", "-", " ", "-", ",", "").Replace(v.Name)
			all = append(all, &corpus{dir: dir, name: name, data: framed[proto.HeaderLen:]})
		}
	}
	return all
}

// TestFuzzersStartFromTheVectors: a vector that is changed or new is in what
// fuzzers start from.
func TestFuzzersStartFromTheVectors(t *testing.T) {
	for _, c := range vectorCorpora(t) {
		if *record {
			c.save(t)
			continue
		}
		want := c.data
		if c.load(t); !bytes.Equal(c.data, want) {
			t.Errorf("%s is not what the vectors say: go test ./cmd/hermod -run FromTheVectors -record", c.path())
		}
	}
}

// recordTraffic does a bit of everything, on several connections.
func recordTraffic(t *testing.T, all map[string]*corpus) {
	dir := t.TempDir()
	writeCert(t, dir)
	n := serve(t)
	var tapes []*tape
	var store client.MemoryStore
	ben := join(t, n.addr, "ben")
	ann := join(t, n.addr, "ann", taped(&tapes), func(o *client.Options) { o.Store = &store })
	busyDay(t, ann, ben)
	for range 2 { // by token, then by secret
		if err := ann.c.Close(); err != nil {
			t.Fatal(err)
		}
		ben.say(t, ann.c.UserID(), "while you were away")
		ann = join(t, n.addr, "", taped(&tapes), resuming(&store))
		s, err := store.Load()
		if err != nil {
			t.Fatal(err)
		}
		s.Token = ""
		if err := store.Save(s); err != nil {
			t.Fatal(err)
		}
	}
	ctx, cancel := testContext()
	defer cancel()
	if err := ann.c.Logout(ctx); err != nil {
		t.Fatal(err)
	}
	for _, c := range tapes {
		_ = c.Close()
		c.mu.Lock()
		all["client"].data = append(all["client"].data, c.up.Bytes()...)
		all["server"].data = append(all["server"].data, c.down.Bytes()...)
		c.mu.Unlock()
	}
	all["stream"].data = all["server"].data

	secure := serve(t, withTLS(dir))
	raw, err := net.Dial("tcp", secure.addr)
	if err != nil {
		t.Fatal(err)
	}
	c := &tape{Conn: raw}
	s := tls.Client(c, &tls.Config{InsecureSkipVerify: true, NextProtos: []string{"hermod/1"}})
	w := newWire(t, s).register("secure")
	w.ask(message(w.dev.user, "encrypted"))
	all["tls"].data = c.up.Bytes()
}

// busyDay is what two people may do with their apps.
func busyDay(t *testing.T, ann, ben *person) {
	t.Helper()
	ctx, cancel := testContext()
	defer cancel()
	do := func(what string, err error) {
		t.Helper()
		if err != nil {
			t.Fatalf("%s: %v", what, err)
		}
	}
	key := ann.say(t, ben.c.UserID(), "good morning").Conversation
	ann.c.Typing(client.User(ben.c.UserID()), true)
	ben.say(t, ann.c.UserID(), "to you, too")
	eventually(t, 10*time.Second, "the answer is there", func() bool { return len(ann.received()) == 1 })
	do("mark read", ann.c.MarkRead(ctx, key, 2))
	do("set state", ann.c.SetState(ctx, true))
	_, err := ann.c.LookupUser(ctx, "ben")
	do("look up", err)
	_, err = ann.c.Profiles(ctx, ann.c.UserID(), ben.c.UserID())
	do("profiles", err)
	_, err = ann.c.UpdateProfile(ctx, "Ann", "https://example.org/ann.png")
	do("profile", err)
	do("block", ann.c.Block(ctx, ben.c.UserID()))
	_, err = ann.c.Blocks(ctx)
	do("blocks", err)
	_, err = ben.c.Send(ctx, client.User(ann.c.UserID()), textContent("blocked"))
	if err == nil {
		t.Fatal("a block does not hold")
	}
	do("unblock", ann.c.Unblock(ctx, ben.c.UserID()))
	_, err = ann.c.AllConversations(ctx)
	do("conversations", err)
	_, err = ann.c.History(ctx, key, client.Range{})
	do("history", err)
	_, err = ann.c.Marks(ctx, key)
	do("marks", err)
	_, err = ann.c.Sync(ctx, client.Cursor{Epoch: ann.c.Cursor().Epoch}, 100)
	do("sync", err)
	_, err = ann.c.ListDevices(ctx)
	do("devices", err)
	do("refresh", ann.c.RefreshToken(ctx))
	if err := ann.c.RevokeDevice(ctx, random(16)); err == nil {
		t.Fatal("a device of nobody is revoked")
	}
	do("password", ann.c.ChangePassword(ctx, password, password+"!"))
}
