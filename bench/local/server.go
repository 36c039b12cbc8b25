package local

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"sync"
	"syscall"
	"time"
)

// startTimeout bounds a start, stopTimeout a graceful stop; a machine that
// runs many tests at once is slow.
const (
	startTimeout = 60 * time.Second
	stopTimeout  = 60 * time.Second
)

// Server is the life of one private server; [MariaDB] and [Redis] are Servers.
// Its methods are safe for concurrent use.
type Server struct {
	name string
	dir  string
	// ownDir: dir was made here and goes with Close.
	ownDir bool
	port   int
	// command returns the command line for the port.
	command func(port int) *exec.Cmd
	// ready returns nil once the server answers.
	ready func(ctx context.Context) error

	mu  sync.Mutex
	run *run // the present process; nil when stopped
}

// run is one process of a server.
type run struct {
	cmd   *exec.Cmd
	guard *guard
	// gone is closed after the process was waited for; err is set before.
	gone chan struct{}
	err  error
}

// folder returns dir, or a new temporary folder if it is empty.
func folder(dir, name string) (_ string, own bool, err error) {
	if dir != "" {
		return dir, false, os.MkdirAll(dir, 0o700)
	}
	dir, err = os.MkdirTemp("", "hermod-"+name+"-")
	return dir, true, err
}

// freePort finds a port that nobody uses now. The kernel, asked for one, gives
// of those that it also gives to connections that go out; while a server is
// down, one of those may take its port, or a client that connects to it may be
// given just that and connect to itself. So it is one from below these.
func freePort() (int, error) {
	const from, to = 15_000, 32_000
	var err error
	for range 100 {
		port := from + rand.IntN(to-from)
		var l net.Listener
		if l, err = net.Listen("tcp", net.JoinHostPort("127.0.0.1", strconv.Itoa(port))); err == nil {
			return port, l.Close()
		}
	}
	return 0, fmt.Errorf("local: no free port: %w", err)
}

// first starts the server for the first time. Between asking for a free port
// and using it somebody else may take it, so it asks again.
func (s *Server) first(ctx context.Context) (err error) {
	for range 3 {
		if s.port, err = freePort(); err != nil {
			return err
		}
		if err = s.Start(ctx); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

// Start starts the server again after Kill or Stop, on the same port and with
// what its folder holds, and returns when it answers.
func (s *Server) Start(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, startTimeout)
	defer cancel()
	s.mu.Lock()
	if s.run != nil {
		s.mu.Unlock()
		return fmt.Errorf("local: %s runs already", s.name)
	}
	r, err := s.launch()
	if err == nil {
		s.run = r
	}
	s.mu.Unlock()
	if err != nil {
		return fmt.Errorf("local: start %s: %w", s.name, err)
	}
	for {
		err := s.ready(ctx)
		if err == nil {
			return nil
		}
		select {
		case <-r.gone:
			s.forget(r)
			return fmt.Errorf("local: %s ended while starting (%v); its log ends with:\n%s", s.name, r.err, s.LogTail(2000))
		case <-ctx.Done():
			s.Kill()
			return fmt.Errorf("local: %s does not answer (%w, last %v); its log ends with:\n%s", s.name, ctx.Err(), err, s.LogTail(2000))
		case <-time.After(10 * time.Millisecond):
		}
	}
}

// launch starts the process and its watchdog.
func (s *Server) launch() (*run, error) {
	log, err := os.OpenFile(s.logFile(), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o600)
	if err != nil {
		return nil, err
	}
	defer log.Close()
	cmd := s.command(s.port)
	cmd.Dir, cmd.Stdout, cmd.Stderr = s.dir, log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	r := &run{cmd: cmd, gone: make(chan struct{})}
	temporary := ""
	if s.ownDir {
		temporary = s.dir
	}
	if r.guard, err = watch(cmd.Process.Pid, temporary); err != nil {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
		return nil, err
	}
	go func() {
		r.err = cmd.Wait()
		r.guard.dismiss()
		close(r.gone)
	}()
	return r, nil
}

// current returns the present process, or nil.
func (s *Server) current() *run {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.run
}

// forget takes the process that has ended for gone.
func (s *Server) forget(r *run) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.run == r {
		s.run = nil
	}
}

// signal sends sig to the process; a server that does not run gets none.
func (s *Server) signal(sig syscall.Signal) error {
	r := s.current()
	if r == nil {
		return fmt.Errorf("local: %s does not run", s.name)
	}
	return r.cmd.Process.Signal(sig)
}

// Kill ends the server as a crash does (SIGKILL) and returns when it is gone.
// One that does not run stays so.
func (s *Server) Kill() {
	if r := s.current(); r != nil {
		_ = r.cmd.Process.Kill()
		<-r.gone
		s.forget(r)
	}
}

// Stop ends the server as its operator would (SIGTERM), paused or not, and
// returns when it is gone. After a minute it is killed, which is an error.
func (s *Server) Stop() error {
	r := s.current()
	if r == nil {
		return nil
	}
	_ = r.cmd.Process.Signal(syscall.SIGTERM)
	_ = r.cmd.Process.Signal(syscall.SIGCONT)
	select {
	case <-r.gone:
		s.forget(r)
		return nil
	case <-time.After(stopTimeout):
		s.Kill()
		return fmt.Errorf("local: %s did not stop within %v and was killed", s.name, stopTimeout)
	}
}

// Pause freezes the server (SIGSTOP): its connections stay open and nobody
// answers, the way a dying disk or a cut network looks. Continue ends that.
func (s *Server) Pause() error { return s.signal(syscall.SIGSTOP) }

// Continue lets a paused server go on.
func (s *Server) Continue() error { return s.signal(syscall.SIGCONT) }

// Close kills the server and removes its folder, unless the options named one.
func (s *Server) Close() error {
	s.Kill()
	if s.ownDir {
		return os.RemoveAll(s.dir)
	}
	return nil
}

// Addr is the server's address, 127.0.0.1 and the same port all its life.
func (s *Server) Addr() string { return net.JoinHostPort("127.0.0.1", strconv.Itoa(s.port)) }

// Dir is the folder with the server's data and log.
func (s *Server) Dir() string { return s.dir }

// Pid is the present process's id, 0 if the server does not run.
func (s *Server) Pid() int {
	if r := s.current(); r != nil {
		return r.cmd.Process.Pid
	}
	return 0
}

func (s *Server) logFile() string { return filepath.Join(s.dir, s.name+".log") }

// LogTail returns up to n bytes of the end of the server's log.
func (s *Server) LogTail(n int64) string {
	f, err := os.Open(s.logFile())
	if err != nil {
		return err.Error()
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.Size() > n {
		_, _ = f.Seek(-n, io.SeekEnd)
	}
	b, err := io.ReadAll(io.LimitReader(f, n))
	if err != nil {
		return errors.Join(errors.New(string(b)), err).Error()
	}
	return string(b)
}
