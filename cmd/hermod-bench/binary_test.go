package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"sync"
	"testing"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

// binaryDir is where servers are built for tests.
var binaryDir string

func TestMain(m *testing.M) {
	config.SilenceRedis()
	dir, err := os.MkdirTemp("", "hermod-bench-test-")
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	binaryDir = dir
	code := m.Run()
	_ = os.RemoveAll(dir)
	os.Exit(code)
}

// binaries are the servers that tests have built, by build tags.
var binaries = struct {
	sync.Mutex
	built map[string]string
}{built: make(map[string]string)}

// serverBinary builds the server, once for all tests; tags may be empty. It is
// built without the race detector, with which it would be too slow to be
// tortured.
func serverBinary(t *testing.T, tags string) string {
	t.Helper()
	binaries.Lock()
	defer binaries.Unlock()
	if path, ok := binaries.built[tags]; ok {
		return path
	}
	path := filepath.Join(binaryDir, "hermod-"+tags)
	out, err := exec.Command("go", "build", "-tags", tags, "-o", path, "../hermod").CombinedOutput()
	if err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	binaries.built[tags] = path
	return path
}
