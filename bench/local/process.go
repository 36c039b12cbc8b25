package local

import (
	"context"
	"errors"
	"os/exec"
)

// ProcessOptions says what StartProcess runs.
type ProcessOptions struct {
	// Name names the log in Dir, and the process in errors.
	Name string
	// Dir is its working folder; empty: a temporary one, removed by Close.
	Dir string
	// Command returns the command line, anew for each start. Output goes to the
	// log.
	Command func() *exec.Cmd
	// Ready returns nil once the process does what it is for. It is asked every
	// 10 ms.
	Ready func(ctx context.Context) error
}

// StartProcess starts any other program, which then has the life of a Server:
// it can be killed, stopped with SIGTERM, paused and started again, and dies
// with this process. Ports are the command's own business; see [FreePort].
func StartProcess(ctx context.Context, opt ProcessOptions) (*Server, error) {
	s, err := NewProcess(opt)
	if err != nil {
		return nil, err
	}
	if err := s.Start(ctx); err != nil {
		_ = s.Close()
		return nil, err
	}
	return s, nil
}

// NewProcess is StartProcess without the start.
func NewProcess(opt ProcessOptions) (*Server, error) {
	if opt.Name == "" || opt.Command == nil || opt.Ready == nil {
		return nil, errors.New("local: ProcessOptions needs Name, Command and Ready")
	}
	dir, own, err := folder(opt.Dir, opt.Name)
	if err != nil {
		return nil, err
	}
	s := &Server{name: opt.Name, dir: dir, ownDir: own, ready: opt.Ready}
	s.command = func(int) *exec.Cmd { return opt.Command() }
	return s, nil
}

// FreePort returns a port of 127.0.0.1 that nobody uses now.
func FreePort() (int, error) { return freePort() }

// Ended is closed when the present process has ended, by whomever; of a server
// that does not run it is closed already. After such an end, Kill and Start
// start it again.
func (s *Server) Ended() <-chan struct{} {
	if r := s.current(); r != nil {
		return r.gone
	}
	ended := make(chan struct{})
	close(ended)
	return ended
}
