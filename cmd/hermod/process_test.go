package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"syscall"
	"testing"
	"time"
)

// binaryDir is where binaries are built; TestMain removes it.
var binaryDir = sync.OnceValues(func() (string, error) { return os.MkdirTemp("", "hermod-test-") })

// serverBinary builds the server once for all tests that need a process to
// kill, toolBinary the operator's tool.
var (
	serverBinary = sync.OnceValues(func() (string, error) { return build("hermod", ".") })
	toolBinary   = sync.OnceValues(func() (string, error) { return build("hermodctl", "../hermodctl") })
)

// build makes a binary without the race detector: such a server would be killed
// ten times slower.
func build(name, pkg string) (string, error) {
	dir, err := binaryDir()
	if err != nil {
		return "", err
	}
	path := filepath.Join(dir, name)
	out, err := exec.Command("go", "build", "-o", path, pkg).CombinedOutput()
	if err != nil {
		return "", &buildError{err, out}
	}
	return path, nil
}

type buildError struct {
	err error
	out []byte
}

func (e *buildError) Error() string { return e.err.Error() + "\n" + string(e.out) }

// process is a server of its own, to be killed and started again on the same
// data and the same port.
type process struct {
	t    *testing.T
	dir  string
	addr string // of the plain listener; fixed by the first start
	env  []string
	// ulimit, if set, is how many files the process may open.
	ulimit int
	admin  string // address of the admin page
	tls    string // of the TLS listener, if there is one
	log    *logBuffer
	cmd    *exec.Cmd
	done   chan struct{} // stderr has been read to its end
}

func newProcess(t *testing.T, env ...string) *process {
	p := &process{t: t, dir: t.TempDir(), addr: "127.0.0.1:0", env: env, log: new(logBuffer)}
	t.Cleanup(func() {
		if p.cmd != nil {
			p.kill()
		}
	})
	return p
}

// start returns when the server listens.
func (p *process) start() {
	p.t.Helper()
	bin, err := serverBinary()
	if err != nil {
		p.t.Fatal(err)
	}
	p.cmd = exec.Command(bin)
	if p.ulimit > 0 {
		p.cmd = exec.Command("sh", "-c", fmt.Sprintf("ulimit -n %d && exec %s", p.ulimit, bin))
	}
	p.cmd.Dir = p.dir
	p.cmd.Env = append(os.Environ(), append([]string{
		"HERMOD_LISTEN_PLAIN=" + p.addr,
		"HERMOD_ADMIN_LISTEN=127.0.0.1:0",
		"HERMOD_LOG_FORMAT=json",
		"HERMOD_AUTH_ARGON2_MEMORY_KIB=64",
		"HERMOD_AUTH_ARGON2_TIME=1",
		"HERMOD_STORAGE_FREE_RESERVE_MIB=64",
	}, p.env...)...)
	stderr, err := p.cmd.StderrPipe()
	if err != nil {
		p.t.Fatal(err)
	}
	if err := p.cmd.Start(); err != nil {
		p.t.Fatal(err)
	}
	listening := make(chan struct{})
	p.done = make(chan struct{})
	go p.read(stderr, listening)
	select {
	case <-listening:
	case <-p.done:
		p.t.Fatalf("the server ended before it listened: %v", p.cmd.Wait())
	case <-time.After(time.Minute):
		p.t.Fatal("the server does not listen")
	}
}

// read follows the log. The admin page comes last; then all listen.
func (p *process) read(r io.Reader, listening chan<- struct{}) {
	defer close(p.done)
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		_, _ = p.log.Write(append(lines.Bytes(), '\n'))
		var l struct{ Level, Message, Address, Mode string }
		err := json.Unmarshal(lines.Bytes(), &l)
		switch {
		case err != nil || l.Level == "error" || l.Level == "fatal" || l.Level == "panic":
			p.t.Logf("server: %s", lines.Text())
		case l.Message == "listening" && l.Mode == "plain":
			p.addr = l.Address
		case l.Message == "listening" && l.Mode == "tls":
			p.tls = l.Address
		case l.Message == "listening" && l.Mode == "admin":
			p.admin = l.Address
			close(listening)
		}
	}
}

// kill ends the process as a power cut would, save for the page cache.
func (p *process) kill() {
	_ = p.cmd.Process.Signal(syscall.SIGKILL)
	<-p.done
	_ = p.cmd.Wait()
	p.cmd = nil
}

// terminate asks it to drain, and returns its exit code.
func (p *process) terminate() int {
	_ = p.cmd.Process.Signal(syscall.SIGTERM)
	return p.wait(time.Minute)
}

// wait waits for its end and returns the exit code.
func (p *process) wait(patience time.Duration) int {
	p.t.Helper()
	select {
	case <-p.done:
	case <-time.After(patience):
		p.t.Fatalf("the process has not ended after %v", patience)
	}
	_ = p.cmd.Wait()
	code := p.cmd.ProcessState.ExitCode()
	p.cmd = nil
	return code
}
