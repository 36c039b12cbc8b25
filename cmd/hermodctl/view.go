package main

import (
	"fmt"
	"strings"

	"github.com/charmbracelet/lipgloss"
	"github.com/charmbracelet/x/ansi"
)

// styles use the terminal's own 16 colours, so that they fit any background.
var (
	barStyle    = lipgloss.NewStyle().Reverse(true)
	openStyle   = lipgloss.NewStyle().Bold(true)
	unreadStyle = lipgloss.NewStyle().Bold(true).Foreground(lipgloss.Color("2"))
	meStyle     = lipgloss.NewStyle().Foreground(lipgloss.Color("6"))
	peerStyle   = lipgloss.NewStyle().Foreground(lipgloss.Color("3"))
	faintStyle  = lipgloss.NewStyle().Faint(true)
	errorStyle  = lipgloss.NewStyle().Foreground(lipgloss.Color("1"))
)

const helpText = `/to NAME     write to an account            Tab, Shift-Tab   next, previous conversation
/block       hear no more from this user     PgUp, PgDn       scroll; Esc goes to the newest
/unblock     take that back                  /devices         your devices
/quit        leave (or Ctrl-C)               … sending   ✓ stored   ✓✓ on their device`

// View implements tea.Model. It fills exactly the size of the terminal.
func (s *screen) View() string {
	if s.width < 20 || s.height < 6 {
		return "too small"
	}
	rows := []string{s.bar()}
	if s.help {
		for l := range strings.SplitSeq(helpText, "\n") {
			rows = append(rows, faintStyle.Render(fit(l, s.width)))
		}
	}
	left, right := s.list(), s.messages()
	side := s.side()
	for i := range right {
		if side == 0 {
			rows = append(rows, right[i])
			continue
		}
		l := strings.Repeat(" ", side)
		if i < len(left) {
			l = left[i]
		}
		rows = append(rows, l+faintStyle.Render("│")+right[i])
	}
	rows = append(rows, faintStyle.Render(fit(s.below(), s.width)), ansi.Truncate(s.input.View(), s.width, ""))
	return strings.Join(rows, "\n")
}

// side is the width of the list; narrow terminals have none.
func (s *screen) side() int {
	if s.width < 60 {
		return 0
	}
	return min(28, s.width/4)
}

// talkHeight is how many rows the conversation has.
func (s *screen) talkHeight() int {
	h := s.height - 3
	if s.help {
		h -= strings.Count(helpText, "\n") + 1
	}
	return max(1, h)
}

// bar is the first row: who, with whom, and the connection.
func (s *screen) bar() string {
	link := "● online"
	switch {
	case s.online:
	case s.retry.After(s.now()):
		link = fmt.Sprintf("○ offline, again in %ds", int(s.retry.Sub(s.now()).Seconds())+1)
	default:
		link = "○ connecting…"
	}
	with := ""
	if s.open != nil {
		with = " · with " + s.ts.name(s.open.peer)
	}
	var total uint64
	for _, t := range s.ts.all {
		total += t.unread(s.ts.me)
	}
	if total > 0 {
		with += fmt.Sprintf(" · %d unread", total)
	}
	text := fit(" hermod · "+s.me+with, s.width-ansi.StringWidth(link)-1) + link + " "
	return barStyle.Render(fit(text, s.width))
}

// list is the left side: conversations, newest first.
func (s *screen) list() []string {
	w := s.side()
	if w == 0 {
		return nil
	}
	if len(s.ts.all) == 0 {
		return []string{faintStyle.Render(fit(" /to NAME", w))}
	}
	var rows []string
	for _, t := range s.ts.all {
		count := ""
		if n := t.unread(s.ts.me); n > 0 {
			count = fmt.Sprintf(" %d ", n)
		}
		row := fit("  "+s.ts.name(t.peer), w-len(count))
		if t == s.open {
			row = openStyle.Render(fit("▸ "+s.ts.name(t.peer), w-len(count)))
		}
		rows = append(rows, row+unreadStyle.Render(count))
	}
	return rows
}

// messages is the right side, exactly talkHeight rows.
func (s *screen) messages() []string {
	h := s.talkHeight()
	rows := s.rows()
	end := max(0, len(rows)-s.scroll)
	rows = rows[max(0, end-h):end]
	for len(rows) < h {
		rows = append([]string{""}, rows...)
	}
	return rows
}

// rows are all rows of the open conversation.
func (s *screen) rows() []string {
	if s.open == nil {
		return []string{faintStyle.Render(" no conversation yet: /to NAME opens one")}
	}
	w := s.width - 1
	if side := s.side(); side > 0 {
		w = s.width - side - 2
	}
	var rows []string
	if s.open.loading {
		rows = append(rows, faintStyle.Render(" loading…"))
	}
	day := ""
	for i := range s.open.lines {
		l := &s.open.lines[i]
		if d := l.at.Format("Mon 2 Jan 2006"); d != day {
			day = d
			rows = append(rows, faintStyle.Render(" ── "+d+" ──"))
		}
		rows = append(rows, s.lineRows(l, w)...)
	}
	return rows
}

// lineRows wraps one message behind its time and name.
func (s *screen) lineRows(l *line, w int) []string {
	name, style := s.ts.name(l.from), peerStyle
	if l.from == s.ts.me {
		style = meStyle
	}
	head := " " + l.at.Format("15:04") + " "
	indent := ansi.StringWidth(head) + ansi.StringWidth(name) + 2
	if indent > w/2 {
		name = ansi.Truncate(name, w/4, "…")
		indent = ansi.StringWidth(head) + ansi.StringWidth(name) + 2
	}
	text := printable(l.text)
	if mark := l.mark(); mark != "" {
		text += " " + mark
	}
	var rows []string
	for i, part := range strings.Split(ansi.Wrap(text, max(4, w-indent), ""), "\n") {
		switch {
		case l.status == failed:
			part = errorStyle.Render(part)
		case l.status == sending:
			part = faintStyle.Render(part)
		}
		if i == 0 {
			rows = append(rows, faintStyle.Render(head)+style.Render(name)+": "+part)
		} else {
			rows = append(rows, strings.Repeat(" ", indent)+part)
		}
	}
	return rows
}

func (l *line) mark() string {
	switch l.status {
	case sending:
		return "…"
	case sent:
		return "✓"
	case delivered:
		return "✓✓"
	case failed:
		return "✗ " + l.why
	}
	return ""
}

// below is the row above the input: typing, notes, how far up one is.
func (s *screen) below() string {
	switch {
	case s.note != "":
		return " " + printable(s.note)
	case s.open != nil && s.open.typing.After(s.now()):
		return " " + s.ts.name(s.open.peer) + " is typing…"
	case s.scroll > 0:
		return fmt.Sprintf(" %d rows below; Esc goes to the newest", s.scroll)
	}
	return ""
}

// fit cuts or fills s to w columns.
func fit(s string, w int) string {
	s = ansi.Truncate(s, max(0, w), "…")
	return s + strings.Repeat(" ", max(0, w-ansi.StringWidth(s)))
}
