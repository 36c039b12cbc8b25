package main

import (
	"encoding/json"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/rs/zerolog"
	"golang.org/x/term"

	"github.com/hermod-im/hermod/bench"
)

// console shows progress: on a terminal one line that is written over every
// second, elsewhere a line every ten seconds.
type console struct {
	out, err io.Writer
	log      zerolog.Logger
	terminal bool
	width    int
	shown    bool
	last     time.Time
	phase    string
}

const plainEvery = 10 * time.Second

func newConsole(stdout, stderr io.Writer) *console {
	c := &console{out: stdout, err: stderr, log: zerolog.Nop(), width: 80}
	if f, ok := stderr.(*os.File); ok && term.IsTerminal(int(f.Fd())) {
		c.terminal = true
		if w, _, err := term.GetSize(int(f.Fd())); err == nil && w > 0 {
			c.width = w
		}
	}
	return c
}

func (c *console) progress(p bench.Progress) { c.line(p.Phase, p.String()) }

// line shows a line that takes the place of the one before.
func (c *console) line(phase, line string) {
	if !c.terminal {
		now := time.Now()
		if phase == c.phase && now.Sub(c.last) < plainEvery {
			return
		}
		c.phase, c.last = phase, now
		fmt.Fprintln(c.err, line)
		return
	}
	if runes := []rune(line); len(runes) >= c.width {
		line = string(runes[:c.width-1])
	}
	fmt.Fprintf(c.err, "\r\x1b[K%s", line)
	c.shown = true
}

func (c *console) endProgress() {
	if c.shown {
		fmt.Fprint(c.err, "\r\x1b[K")
		c.shown = false
	}
}

// writeJSON writes the report to a file; "" is none.
func writeJSON(path string, rep report) error {
	if path == "" {
		return nil
	}
	text, err := json.MarshalIndent(rep, "", "  ")
	if err != nil {
		return err
	}
	return os.WriteFile(path, append(text, '\n'), 0o644)
}
