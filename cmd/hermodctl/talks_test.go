package main

import (
	"testing"
	"time"
)

func TestLinesAreOrderedWhateverComesFirst(t *testing.T) {
	at := func(s int) time.Time { return time.Unix(int64(1000+s), 0) }
	tk := &talk{peer: 2}
	tk.put(line{sendID: [16]byte{9}, from: 1, text: "mine", at: at(5), status: sending})
	tk.put(line{convSeq: 3, rev: 3, from: 2, text: "three", at: at(3)})
	tk.put(line{convSeq: 1, rev: 1, from: 2, text: "one", at: at(1)})
	tk.put(line{convSeq: 3, rev: 3, from: 2, text: "three", at: at(3)}) // pushed again
	// The own event comes without content, before the acknowledgement.
	tk.put(line{sendID: [16]byte{9}, convSeq: 4, rev: 4, from: 1, at: at(6), status: sent})
	tk.put(line{sendID: [16]byte{9}, convSeq: 4, rev: 4, from: 1, at: at(6), status: sent})
	var got []string
	for _, l := range tk.lines {
		got = append(got, l.text)
	}
	if len(got) != 3 || got[0] != "one" || got[1] != "three" || got[2] != "mine" {
		t.Fatalf("lines %q", got)
	}
	if l := tk.lines[2]; l.status != sent || l.convSeq != 4 {
		t.Errorf("own line %+v", l)
	}
	tk.mark(4)
	if tk.lines[2].status != delivered || tk.lines[0].status != received {
		t.Errorf("after the delivered mark: %+v", tk.lines)
	}
	if !tk.newest.Equal(at(6)) || tk.head != 4 {
		t.Errorf("newest %v, head %d", tk.newest, tk.head)
	}
}

func TestUnread(t *testing.T) {
	for name, c := range map[string]struct {
		head, read uint64
		own        uint64
		want       uint64
	}{
		"none read":              {3, 0, 0, 3},
		"some read":              {3, 2, 0, 1},
		"an own message is read": {5, 1, 4, 1},
		"all":                    {5, 5, 0, 0},
		"mark ahead of head":     {5, 9, 0, 0},
	} {
		tk := &talk{head: c.head, read: c.read}
		if c.own > 0 {
			tk.lines = []line{{convSeq: c.own, from: 1}}
		}
		if got := tk.unread(1); got != c.want {
			t.Errorf("%s: %d, want %d", name, got, c.want)
		}
	}
}

func TestFailedLineCanStillArrive(t *testing.T) {
	tk := &talk{}
	tk.put(line{sendID: [16]byte{1}, from: 1, text: "x", status: sending})
	tk.fail([16]byte{1}, "no")
	if tk.lines[0].status != failed || tk.lines[0].why != "no" {
		t.Fatalf("%+v", tk.lines[0])
	}
	tk.put(line{sendID: [16]byte{1}, convSeq: 1, from: 1, status: sent})
	if len(tk.lines) != 1 || tk.lines[0].status != sent {
		t.Errorf("%+v", tk.lines)
	}
}

func TestPrintableDisarmsTheTerminal(t *testing.T) {
	if got := printable("a\x1b[2Jb\u202ec\u009bd\te\nf\x00\x7f é 你好 👋"); got != "a[2Jbcd e\nf é 你好 👋" {
		t.Errorf("%q", got)
	}
}
