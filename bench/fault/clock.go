package fault

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"time"
)

// Clock is a file that says how wrong the clock of a process is, as «-1m30s»;
// no file: it is right. A process that can be told so reads it all the time
// (cmd/hermod does if it was built with the tag «torture»).
type Clock struct{ File string }

// Step makes the clock wrong by so much, at once.
func (c Clock) Step(by time.Duration) error {
	next := filepath.Join(filepath.Dir(c.File), "."+filepath.Base(c.File))
	if err := os.WriteFile(next, []byte(by.String()), 0o600); err != nil {
		return err
	}
	return os.Rename(next, c.File)
}

// Right sets it right.
func (c Clock) Right() error {
	if err := os.Remove(c.File); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	return nil
}

// Step lets a clock jump, and jump back.
func Step(name, about string, parts []Part[Clock], by, least, most time.Duration) Fault {
	f := Fault{Name: name, About: about, Least: least, Most: most}
	return On(f, parts, func(_ context.Context, c Clock) (Heal, error) {
		if err := c.Step(by); err != nil {
			return nil, err
		}
		return func(context.Context) error { return c.Right() }, nil
	})
}
