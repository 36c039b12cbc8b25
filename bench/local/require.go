package local

import (
	"bytes"
	"context"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
)

// product is something that can be started: the programs it needs, each under
// one of several names, and the Debian packages that have them. None of those
// packages brings a service: mariadb-server and redis-server would start one.
type product struct {
	programs [][]string
	packages []string
}

// products that Require knows, by name.
func products() map[string]product {
	return map[string]product{
		"mariadb": {
			programs: [][]string{{"mariadbd"}, {"mariadb-install-db"}, {"my_print_defaults"}},
			packages: []string{"mariadb-server-core", "mariadb-client-core"},
		},
		"redis": {
			programs: [][]string{{"redis-server", "redis-check-rdb"}},
			packages: []string{"redis-tools"},
		},
	}
}

// find returns the path of the first of these programs that is there, or "".
// Servers are often in sbin, which ordinary users do not search.
func find(names ...string) string {
	for _, name := range names {
		if p, err := exec.LookPath(name); err == nil {
			return p
		}
		for _, dir := range []string{"/usr/sbin", "/usr/local/sbin", "/usr/local/bin"} {
			if p, err := exec.LookPath(filepath.Join(dir, name)); err == nil {
				return p
			}
		}
	}
	return ""
}

// Require makes sure that the named products ("mariadb", "redis") can be
// started. What is missing is installed if this process is root and has
// apt-get, one process at a time; otherwise the error names the command to run.
func Require(ctx context.Context, names ...string) error {
	missing, err := lacking(names)
	if err != nil || len(missing) == 0 {
		return err
	}
	apt := find("apt-get")
	if os.Geteuid() != 0 || apt == "" {
		return missingError(missing, nil)
	}
	unlock, err := lockFile(filepath.Join(os.TempDir(), "hermod-apt-"+strconv.Itoa(os.Geteuid())+".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	if missing, err = lacking(names); err != nil || len(missing) == 0 { // another process has done it
		return err
	}
	if err := install(ctx, apt, missing); err != nil {
		return err
	}
	if missing, _ = lacking(names); len(missing) > 0 {
		return missingError(missing, []byte("installed, and programs are missing still"))
	}
	return nil
}

// lacking returns the packages that the named products need and that are not
// there.
func lacking(names []string) (packages []string, err error) {
	for _, name := range names {
		p, ok := products()[name]
		if !ok {
			return nil, fmt.Errorf("local: %q is none of mariadb, redis", name)
		}
		if slices.ContainsFunc(p.programs, func(names []string) bool { return find(names...) == "" }) {
			packages = append(packages, p.packages...)
		}
	}
	return packages, nil
}

func missingError(packages []string, output []byte) error {
	err := fmt.Errorf("local: database programs are missing; run: sudo apt-get install --no-install-recommends %s (or your system's packages that have them)", strings.Join(packages, " "))
	if len(output) > 0 {
		err = fmt.Errorf("%w\n%s", err, output)
	}
	return err
}

// install runs apt-get. The package lists of a fresh machine are empty or old:
// a first failure fetches them.
func install(ctx context.Context, apt string, packages []string) error {
	args := append([]string{"install", "-y", "--no-install-recommends"}, packages...)
	if _, err := output(ctx, apt, args...); err == nil {
		return nil
	}
	out, err := output(ctx, apt, "update")
	if err == nil {
		out, err = output(ctx, apt, args...)
	}
	if err != nil {
		return missingError(packages, append(out, err.Error()...))
	}
	return nil
}

// output runs a command and returns the end of what it says.
func output(ctx context.Context, name string, args ...string) ([]byte, error) {
	cmd := exec.CommandContext(ctx, name, args...)
	cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
	out, err := cmd.CombinedOutput()
	if len(out) > 4000 {
		out = bytes.Clone(out[len(out)-4000:])
	}
	return out, err
}

// lockFile takes an advisory lock, which goes with the process.
func lockFile(path string) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o600)
	if err != nil {
		return nil, err
	}
	if err := syscall.Flock(int(f.Fd()), syscall.LOCK_EX); err != nil {
		_ = f.Close()
		return nil, err
	}
	return func() { _ = f.Close() }, nil
}
