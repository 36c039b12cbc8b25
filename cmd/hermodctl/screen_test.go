package main

import (
	"errors"
	"strings"
	"testing"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"github.com/charmbracelet/x/ansi"
)

// desk is a backend that writes down what the screen wants.
type desk struct {
	sent   []string
	asked  []string
	reads  map[string]uint64
	types  int
	nextID byte
}

func (d *desk) send(_ target, text string) (id [16]byte) {
	d.sent = append(d.sent, text)
	d.nextID++
	return [16]byte{d.nextID}
}
func (d *desk) older(key string, _ uint64) tea.Cmd {
	d.asked = append(d.asked, "older "+key)
	return nil
}
func (d *desk) find(name string) tea.Cmd { d.asked = append(d.asked, "find "+name); return nil }
func (d *desk) name(user int64) tea.Cmd {
	return func() tea.Msg { return nameMsg{user, "user"} }
}
func (d *desk) read(key string, seq uint64) tea.Cmd { d.reads[key] = seq; return nil }
func (d *desk) typing(target, bool)                 { d.types++ }
func (d *desk) block(_ int64, on bool) tea.Cmd {
	d.asked = append(d.asked, map[bool]string{true: "block", false: "unblock"}[on])
	return nil
}
func (d *desk) devices() tea.Cmd { d.asked = append(d.asked, "devices"); return nil }

type fixture struct {
	*screen
	d  *desk
	at time.Time
	t  *testing.T
}

func newFixture(t *testing.T) *fixture {
	f := &fixture{d: &desk{reads: map[string]uint64{}}, at: time.Date(2026, 1, 2, 15, 0, 0, 0, time.UTC), t: t}
	f.screen = newScreen(f.d, "ann", func() time.Time { return f.at })
	f.do(tea.WindowSizeMsg{Width: 80, Height: 24}, onlineMsg{user: 1})
	return f
}

// do runs messages, and one round of what they ask for.
func (f *fixture) do(msgs ...tea.Msg) {
	for _, m := range msgs {
		f.Update(m)
	}
}

func (f *fixture) press(keys string) {
	for _, r := range keys {
		f.do(tea.KeyMsg{Type: tea.KeyRunes, Runes: []rune{r}})
	}
}

func (f *fixture) enterLine(text string) {
	f.press(text)
	f.do(tea.KeyMsg{Type: tea.KeyEnter})
}

// plain is the screen without colours; it always has the terminal's size.
func (f *fixture) plain() string {
	f.t.Helper()
	out := ansi.Strip(f.View())
	rows := strings.Split(out, "\n")
	if len(rows) != f.height {
		f.t.Fatalf("%d rows on a terminal of %d:\n%s", len(rows), f.height, out)
	}
	for _, r := range rows {
		if ansi.StringWidth(r) > f.width {
			f.t.Fatalf("row of %d columns on a terminal of %d: %q", ansi.StringWidth(r), f.width, r)
		}
	}
	return out
}

func (f *fixture) shows(parts ...string) {
	f.t.Helper()
	out := f.plain()
	for _, p := range parts {
		if !strings.Contains(out, p) {
			f.t.Errorf("%q is not on the screen:\n%s", p, out)
		}
	}
}

func message(seq uint64, text string, at time.Time) lineMsg {
	return lineMsg{key: "k2", peer: 2, line: line{convSeq: seq, rev: seq, from: 2, at: at, text: text}}
}

func TestConversationFromFirstWordToDelivered(t *testing.T) {
	f := newFixture(t)
	f.shows("no conversation yet", "online", "/to NAME")
	f.enterLine("/to bob")
	if len(f.d.asked) != 1 || f.d.asked[0] != "find bob" {
		t.Fatalf("asked %q", f.d.asked)
	}
	f.do(foundMsg{user: 2, name: "bob"})
	f.shows("with bob", "▸ bob")
	f.enterLine("hello there")
	f.shows("me: hello there …")
	f.do(ackMsg{peer: 2, key: "k2", line: line{sendID: [16]byte{1}, convSeq: 1, rev: 1, from: 1, at: f.at, status: sent}})
	f.shows("me: hello there ✓")
	f.do(deliveredMsg{"k2", 1})
	f.shows("me: hello there ✓✓")
	f.do(typingMsg{"k2", true})
	f.shows("bob is typing")
	f.do(message(2, "hi ann", f.at))
	f.shows("bob: hi ann")
	f.do(typingMsg{"k2", true}) // overtaken by its message
	if strings.Contains(f.plain(), "typing") {
		t.Error("still typing after the message")
	}
	if f.d.reads["k2"] != 2 {
		t.Errorf("read up to %d, want 2", f.d.reads["k2"])
	}
	if len(f.d.sent) != 1 || f.d.types == 0 {
		t.Errorf("sent %q, %d typing signals", f.d.sent, f.d.types)
	}
}

func TestUnreadIsShownUntilOpened(t *testing.T) {
	f := newFixture(t)
	f.do(foundMsg{user: 3, name: "cara"})
	f.do(nameMsg{2, "bob"}, message(1, "a", f.at), message(2, "b", f.at))
	f.shows("2 unread", "bob")
	if _, read := f.d.reads["k2"]; read {
		t.Error("read without being open")
	}
	f.do(tea.KeyMsg{Type: tea.KeyTab})
	f.shows("with bob", "bob: b")
	if f.d.reads["k2"] != 2 || strings.Contains(f.plain(), "unread") {
		t.Errorf("opened: read %v\n%s", f.d.reads, f.plain())
	}
}

func TestScrollingLoadsHistoryAndStays(t *testing.T) {
	f := newFixture(t)
	f.do(talkMsg{key: "k2", peer: 2, head: 100, newest: f.at}, nameMsg{2, "bob"})
	if len(f.d.asked) != 1 {
		t.Fatalf("asked %q", f.d.asked)
	}
	page := historyMsg{key: "k2", oldest: 51, more: true}
	for i := uint64(51); i <= 100; i++ {
		page.lines = append(page.lines, message(i, "text "+strings.Repeat("x", int(i%7)), f.at).line)
	}
	f.do(page)
	for range 10 {
		f.do(tea.KeyMsg{Type: tea.KeyPgUp})
	}
	if len(f.d.asked) != 2 || f.d.asked[1] != "older k2" {
		t.Fatalf("asked %q", f.d.asked)
	}
	f.shows("rows below")
	before := strings.Split(f.plain(), "\n")[3]
	f.do(historyMsg{key: "k2", oldest: 51}, message(101, "new", f.at))
	if now := strings.Split(f.plain(), "\n")[2]; !strings.Contains(f.plain(), strings.TrimSpace(before[22:])) {
		t.Errorf("the text moved away: %q, then %q", before, now)
	}
	f.do(tea.KeyMsg{Type: tea.KeyEsc})
	f.shows("bob: new")
}

func TestEverySizeFits(t *testing.T) {
	f := newFixture(t)
	f.do(foundMsg{user: 2, name: strings.Repeat("longname", 5)})
	f.do(message(1, strings.Repeat("word ", 80)+strings.Repeat("長", 100)+"\nsecond\n\nfourth \x1b[31m", f.at))
	for _, size := range [][2]int{{80, 24}, {200, 60}, {59, 10}, {20, 6}, {61, 7}, {120, 8}} {
		f.do(tea.WindowSizeMsg{Width: size[0], Height: size[1]})
		f.plain()
	}
	f.do(tea.WindowSizeMsg{Width: 80, Height: 24})
	f.enterLine("/help")
	f.shows("/block", "PgUp")
	f.do(tea.WindowSizeMsg{Width: 5, Height: 2})
	if f.View() != "too small" {
		t.Errorf("tiny: %q", f.View())
	}
}

func TestConnectionIsShown(t *testing.T) {
	f := newFixture(t)
	f.do(offlineMsg{why: "connection lost", until: f.at.Add(7 * time.Second)})
	f.shows("offline, again in 8s", "connection lost")
	f.at = f.at.Add(8 * time.Second)
	f.shows("connecting…")
	f.do(onlineMsg{user: 1})
	f.shows("● online")
	f.do(foundMsg{err: errors.New("nobody has this name")})
	f.shows("nobody has this name")
	f.enterLine("hello")
	f.shows("whom to?")
	_, cmd := f.Update(endedMsg{"kicked"})
	if cmd == nil || f.ended != "kicked" {
		t.Error("an ended login does not end the program")
	}
}

func TestCommands(t *testing.T) {
	f := newFixture(t)
	f.enterLine("/block")
	f.shows("open a conversation first")
	f.do(foundMsg{user: 2, name: "bob"})
	f.enterLine("/block")
	f.enterLine("/unblock")
	f.enterLine("/devices")
	if got := strings.Join(f.d.asked, ","); got != "block,unblock,devices" {
		t.Errorf("asked %s", got)
	}
	f.enterLine("/nonsense")
	f.shows("no such command")
	f.do(failMsg{peer: 2, id: [16]byte{9}, why: "NOT_ALLOWED"})
	f.shows("not sent: NOT_ALLOWED")
	if len(f.d.sent) != 0 {
		t.Errorf("a command was sent: %q", f.d.sent)
	}
}
