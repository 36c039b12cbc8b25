package main

import (
	"fmt"
	"strings"
	"time"

	"github.com/charmbracelet/bubbles/textinput"
	tea "github.com/charmbracelet/bubbletea"
)

// backend is what the screen needs of a logged-in client. No method blocks:
// answers come back as messages of the program.
type backend interface {
	// send starts a message; the answer is ackMsg or failMsg.
	send(t target, text string) (id [16]byte)
	// older loads history before rev (0: the newest); the answer is historyMsg.
	older(key string, before uint64) tea.Cmd
	// find looks an account up by name; the answer is foundMsg.
	find(name string) tea.Cmd
	// name asks for a user's name; the answer is nameMsg.
	name(user int64) tea.Cmd
	read(key string, convSeq uint64) tea.Cmd
	typing(t target, on bool)
	block(user int64, on bool) tea.Cmd
	devices() tea.Cmd
}

// target is a conversation, or a user where the server has not named it yet.
type target struct {
	key  string
	peer int64
}

// Messages from the client to the screen.
type (
	onlineMsg  struct{ user int64 }
	offlineMsg struct {
		why   string
		until time.Time // of the next attempt
	}
	endedMsg struct{ why string } // for good: kicked, revoked, wrong password
	lineMsg  struct {
		key  string
		peer int64
		line line
	}
	ackMsg struct {
		peer int64
		key  string
		line line
	}
	failMsg struct {
		peer int64
		id   [16]byte
		why  string
	}
	talkMsg struct { // a conversation as the server lists it
		key                 string
		peer                int64
		head, read, peerHas uint64
		newest              time.Time
	}
	historyMsg struct {
		key   string
		lines []line
		// oldest is the first rev of the page, 0 if it was empty.
		oldest uint64
		more   bool
		err    error
	}
	readMsg struct {
		key     string
		convSeq uint64
	}
	deliveredMsg struct {
		key     string
		convSeq uint64
	}
	typingMsg struct {
		key string
		on  bool
	}
	nameMsg struct {
		user int64
		name string
	}
	foundMsg struct {
		user int64
		name string
		err  error
	}
	noteMsg string // something to tell at the bottom
	tickMsg time.Time
)

// typingShown is how long a typing signal is shown, and typingEvery how often
// it is repeated.
const (
	typingShown = 6 * time.Second
	typingEvery = 4 * time.Second
)

// screen is the terminal program: bubbletea's model.
type screen struct {
	b      backend
	now    func() time.Time
	ts     *talks
	open   *talk // shown on the right
	input  textinput.Model
	width  int
	height int
	scroll int // lines from the bottom
	me     string
	online bool
	retry  time.Time
	note   string
	help   bool
	typed  time.Time // last typing signal sent
	ended  string
}

func newScreen(b backend, me string, now func() time.Time) *screen {
	in := textinput.New()
	in.Prompt = "> "
	in.Placeholder = "write, or /help"
	in.CharLimit = 8000
	in.Focus()
	return &screen{b: b, now: now, ts: newTalks(), input: in, me: me, width: 80, height: 24, note: "connecting…"}
}

// Init implements tea.Model.
func (s *screen) Init() tea.Cmd { return tea.Batch(textinput.Blink, tick()) }

func tick() tea.Cmd {
	return tea.Tick(time.Second, func(t time.Time) tea.Msg { return tickMsg(t) })
}

// Update implements tea.Model.
func (s *screen) Update(msg tea.Msg) (tea.Model, tea.Cmd) {
	switch m := msg.(type) {
	case tea.WindowSizeMsg:
		s.width, s.height = m.Width, m.Height
		s.input.Width = max(8, m.Width-5)
		return s, nil
	case tea.KeyMsg:
		return s, s.key(m)
	case tickMsg:
		return s, tick()
	}
	return s, s.event(msg)
}

// event applies what comes from the client.
func (s *screen) event(msg tea.Msg) tea.Cmd {
	switch m := msg.(type) {
	case onlineMsg:
		s.online, s.ts.me, s.note = true, m.user, ""
	case offlineMsg:
		s.online, s.retry, s.note = false, m.until, m.why
	case endedMsg:
		s.ended = m.why
		return tea.Quit
	case talkMsg:
		return s.listed(m)
	case lineMsg:
		return s.arrived(m)
	case ackMsg:
		t := s.ts.with(m.peer)
		t.key = m.key
		t.put(m.line)
		s.ts.sort()
	case failMsg:
		s.ts.with(m.peer).fail(m.id, m.why)
		s.note = "not sent: " + m.why
	case historyMsg:
		return s.loaded(m)
	case readMsg:
		if t := s.ts.byKey(m.key); t != nil {
			t.read = max(t.read, m.convSeq)
		}
	case deliveredMsg:
		if t := s.ts.byKey(m.key); t != nil {
			t.mark(m.convSeq)
		}
	case typingMsg:
		s.typingOf(m)
	case nameMsg:
		s.ts.names[m.user] = printable(m.name)
	case foundMsg:
		return s.found(m)
	case noteMsg:
		s.note = string(m)
	}
	return nil
}

// listed takes a conversation of the server's list.
func (s *screen) listed(m talkMsg) tea.Cmd {
	t := s.ts.with(m.peer)
	t.key, t.head, t.read = m.key, max(t.head, m.head), max(t.read, m.read)
	t.mark(m.peerHas)
	if m.newest.After(t.newest) {
		t.newest = m.newest
	}
	s.ts.sort()
	cmds := []tea.Cmd{s.learn(m.peer)}
	if s.open == nil {
		cmds = append(cmds, s.show(s.ts.all[0]))
	}
	return tea.Batch(cmds...)
}

// arrived takes a message, pushed or synced.
func (s *screen) arrived(m lineMsg) tea.Cmd {
	t := s.ts.with(m.peer)
	t.key = m.key
	if m.line.from == m.peer {
		t.typing, t.heard = time.Time{}, s.now()
	}
	had := len(t.lines)
	t.put(m.line)
	if t == s.open && s.scroll > 0 && len(t.lines) > had {
		s.scroll++ // stay on what is being read
	}
	s.ts.sort()
	cmds := []tea.Cmd{s.learn(m.peer)}
	if s.open == nil {
		cmds = append(cmds, s.show(t))
	}
	return tea.Batch(append(cmds, s.markRead())...)
}

func (s *screen) loaded(m historyMsg) tea.Cmd {
	t := s.ts.byKey(m.key)
	if t == nil {
		return nil
	}
	t.loading = false
	if m.err != nil {
		s.note = "history: " + m.err.Error()
		return nil
	}
	for _, l := range m.lines {
		t.put(l)
	}
	if m.oldest > 0 {
		t.oldestRev = m.oldest
	}
	t.more = m.more
	return s.markRead()
}

func (s *screen) found(m foundMsg) tea.Cmd {
	if m.err != nil {
		s.note = m.err.Error()
		return nil
	}
	s.ts.names[m.user] = printable(m.name)
	s.note = ""
	return s.show(s.ts.with(m.user))
}

// typingOf takes a typing signal. It travels beside the messages and may come
// after the one it announced.
func (s *screen) typingOf(m typingMsg) {
	t := s.ts.byKey(m.key)
	if t == nil {
		return
	}
	t.typing = time.Time{}
	if m.on && s.now().Sub(t.heard) > time.Second {
		t.typing = s.now().Add(typingShown)
	}
}

// learn asks for a name that is not known.
func (s *screen) learn(user int64) tea.Cmd {
	if _, known := s.ts.names[user]; known || user == s.ts.me {
		return nil
	}
	s.ts.names[user] = ""
	return s.b.name(user)
}

// show opens a conversation on the right.
func (s *screen) show(t *talk) tea.Cmd {
	s.open, s.scroll = t, 0
	cmds := []tea.Cmd{s.learn(t.peer), s.markRead()}
	if t.key != "" && t.oldestRev == 0 && !t.loading {
		t.loading = true
		cmds = append(cmds, s.b.older(t.key, 0))
	}
	return tea.Batch(cmds...)
}

// markRead tells the server what is being looked at, once.
func (s *screen) markRead() tea.Cmd {
	t := s.open
	if t == nil || t.key == "" || s.scroll > 0 || t.unread(s.ts.me) == 0 || len(t.lines) == 0 {
		return nil
	}
	t.read = t.head
	return s.b.read(t.key, t.head)
}

// key handles the keyboard.
func (s *screen) key(m tea.KeyMsg) tea.Cmd {
	switch m.String() {
	case "ctrl+c", "ctrl+d":
		return tea.Quit
	case "tab", "ctrl+n":
		return s.step(1)
	case "shift+tab", "ctrl+p":
		return s.step(-1)
	case "pgup", "shift+up", "up":
		return s.scrollBy(s.page(m.String()))
	case "pgdown", "shift+down", "down":
		return s.scrollBy(-s.page(m.String()))
	case "end", "esc":
		if s.input.Value() == "" || m.String() == "esc" {
			s.help = false
			return s.scrollBy(-s.scroll)
		}
	case "enter":
		return s.enter()
	}
	var cmd tea.Cmd
	before := s.input.Value()
	s.input, cmd = s.input.Update(m)
	if v := s.input.Value(); v != before && v != "" && !strings.HasPrefix(v, "/") {
		s.signal()
	}
	return cmd
}

func (s *screen) page(key string) int {
	if strings.HasPrefix(key, "pg") {
		return max(1, s.height-6)
	}
	return 1
}

// signal tells the peer that somebody types, now and then.
func (s *screen) signal() {
	if s.open != nil && s.now().Sub(s.typed) > typingEvery {
		s.typed = s.now()
		s.b.typing(s.target(), true)
	}
}

func (s *screen) target() target { return target{s.open.key, s.open.peer} }

// step opens the next or previous conversation of the list.
func (s *screen) step(by int) tea.Cmd {
	for i, t := range s.ts.all {
		if t == s.open {
			n := len(s.ts.all)
			return s.show(s.ts.all[(i+by+n)%n])
		}
	}
	return nil
}

// scrollBy moves up (above 0) or down; at the top it loads what is older.
func (s *screen) scrollBy(lines int) tea.Cmd {
	if s.open == nil {
		return nil
	}
	rows, fits := len(s.rows()), s.talkHeight()
	s.scroll = max(0, min(s.scroll+lines, rows-fits))
	t := s.open
	if lines > 0 && s.scroll >= rows-fits && t.more && !t.loading && t.key != "" {
		t.loading = true
		return s.b.older(t.key, t.oldestRev)
	}
	return s.markRead()
}

// enter sends the line, or does what a command says.
func (s *screen) enter() tea.Cmd {
	text := strings.TrimSpace(s.input.Value())
	if text == "" {
		return nil
	}
	s.input.Reset()
	s.note = ""
	if strings.HasPrefix(text, "/") {
		return s.command(strings.Fields(text))
	}
	if s.open == nil {
		s.note = "whom to? /to NAME opens a conversation"
		s.input.SetValue(text)
		return nil
	}
	id := s.b.send(s.target(), text)
	s.open.put(line{sendID: id, from: s.ts.me, at: s.now(), text: text, status: sending})
	s.scroll, s.typed = 0, time.Time{}
	return nil
}

func (s *screen) command(words []string) tea.Cmd {
	arg := ""
	if len(words) > 1 {
		arg = words[1]
	}
	switch words[0] {
	case "/help":
		s.help = !s.help
	case "/quit", "/exit":
		return tea.Quit
	case "/devices":
		return s.b.devices()
	case "/to":
		if arg == "" {
			s.note = "/to NAME: the account name of whom you want to write to"
			return nil
		}
		s.note = fmt.Sprintf("looking for %s…", printable(arg))
		return s.b.find(arg)
	case "/block", "/unblock":
		if s.open == nil {
			s.note = "open a conversation first"
			return nil
		}
		return s.b.block(s.open.peer, words[0] == "/block")
	default:
		s.note = words[0] + ": no such command; /help lists them"
	}
	return nil
}
