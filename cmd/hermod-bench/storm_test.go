package main

import (
	"bytes"
	"context"
	"os/exec"
	"path/filepath"
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench"
)

// A storm in a glass: 1,500 clients lose the server to a kill -9, and then to a
// drain. All are back and synced in time, by tokens, nothing is lost, nobody's
// password is hashed.
func TestStorm(t *testing.T) {
	binary := filepath.Join(t.TempDir(), "hermod")
	if out, err := exec.Command("go", "build", "-o", binary, "github.com/hermod-im/hermod/cmd/hermod").CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
	defer cancel()
	srv, err := startStormServer(ctx, binary, t.TempDir(), true, "HERMOD_DRAIN_WINDOW=2s", "HERMOD_DRAIN_TIMEOUT=4s")
	if err != nil {
		t.Fatal(err)
	}
	defer srv.Close()
	rep, err := bench.Storm(ctx, bench.StormConfig{Server: srv, Clients: 1500, Within: 60 * time.Second, BackoffMax: 4 * time.Second})
	if err != nil {
		t.Fatal(err)
	}
	var text bytes.Buffer
	if err := rep.WriteSummary(&text); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	if !rep.OK {
		t.Error("see the report")
	}
	for _, cut := range rep.Cuts {
		if cut.Hellos["token OK"] < 1500 {
			t.Errorf("%s: the new process welcomed %d by token: were they cut off at all?", cut.Kind, cut.Hellos["token OK"])
		}
	}
}
