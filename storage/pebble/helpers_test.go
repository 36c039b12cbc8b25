package pebble

import (
	"context"
	"fmt"
	"os"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/storage"
)

// openDir makes the test binary another process that opens a shard: see TestOneProcess.
const openDir = "HERMOD_TEST_OPEN_DIR"

func TestMain(m *testing.M) {
	if dir := os.Getenv(openDir); dir != "" {
		s, err := Open(Options{Dir: dir})
		if err != nil {
			fmt.Println(err)
			os.Exit(3)
		}
		_ = s.Close()
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// open opens a shard, by default on a new disk in memory, and closes it in the end.
func open(t testing.TB, o Options) *Shard {
	t.Helper()
	if o.Dir == "" {
		o.Dir = "data"
	}
	if o.FS == nil {
		o.FS = vfs.NewMem()
	}
	s, err := Open(o)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// write commits w and waits until it is durable.
func write(t testing.TB, s *Shard, w *storage.Writes) {
	t.Helper()
	if err := commit(s, &storage.Locks{}, func(*storage.Locked) (*storage.Writes, error) { return w, nil }); err != nil {
		t.Fatal(err)
	}
}

// commit waits until its transaction is durable.
func commit(s *Shard, l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error)) error {
	done := make(chan error, 1)
	if err := s.Commit(context.Background(), l, plan, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func view(t testing.TB, s *Shard, read func(v storage.Snap)) {
	t.Helper()
	if err := s.View(context.Background(), nil, func(v storage.Snap) error { read(v); return nil }); err != nil {
		t.Fatal(err)
	}
}

// meta is a small transaction, its value readable with metaValue.
func meta(value string) *storage.Writes {
	return &storage.Writes{Meta: []storage.MetaRow{{Name: "m", Value: []byte(value)}}}
}

func metaValue(t testing.TB, s *Shard) (value string) {
	t.Helper()
	view(t, s, func(v storage.Snap) {
		m, err := v.Meta("m")
		if err != nil {
			t.Fatal(err)
		}
		value = string(m.Value)
	})
	return value
}

// eventually polls until ok holds.
func eventually(t testing.TB, what string, ok func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !ok(); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatalf("not within 10 s: %s", what)
		}
	}
}
