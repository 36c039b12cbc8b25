package local

import (
	"io"
	"os/exec"
	"strconv"
	"syscall"
)

// guardScript kills $1 when standard input ends without a line: the process at
// the other end of the pipe is gone, so nobody removes the folder $2 either, if
// it is a temporary one. A line means that $1 has ended by itself, and that its
// number may be another process's by now.
const guardScript = `read -r line && exit
kill -9 "$1"
i=0
while kill -0 "$1" 2>/dev/null && [ $i -lt 100 ]; do i=$((i + 1)); sleep 0.05; done
if [ -n "$2" ]; then rm -rf -- "$2"; fi`

// guard is a server's watchdog.
type guard struct {
	cmd  *exec.Cmd
	pipe io.WriteCloser
}

// watch starts the watchdog of a process; folder is removed with it, unless it
// is empty. The write end of its pipe is closed
// on exec, so only this process holds it.
func watch(pid int, folder string) (*guard, error) {
	cmd := exec.Command("/bin/sh", "-c", guardScript, "guard", strconv.Itoa(pid), folder)
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	pipe, err := cmd.StdinPipe()
	if err != nil {
		return nil, err
	}
	if err := cmd.Start(); err != nil {
		return nil, err
	}
	return &guard{cmd: cmd, pipe: pipe}, nil
}

// dismiss ends the watchdog of a process that has ended.
func (g *guard) dismiss() {
	_, _ = io.WriteString(g.pipe, "done\n")
	_ = g.pipe.Close()
	_ = g.cmd.Wait()
}
