package client

import (
	"os"
	"path/filepath"
	"reflect"
	"strings"
	"testing"
	"time"
)

func TestFileStore(t *testing.T) {
	path := filepath.Join(t.TempDir(), "new", "session.json")
	f := FileStore{Path: path}
	if s, err := f.Load(); err != nil || !reflect.DeepEqual(s, Session{}) {
		t.Fatal(s, err)
	}
	want := Session{
		DeviceID: secretOf('d')[:16], UserID: testUser, Name: "ann", Secret: secretOf('a'), NextSecret: secretOf('b'),
		Token: "token", TokenExpires: time.UnixMicro(1_800_000_000_000_000).UTC(),
		Cursor: Cursor{Epoch: 1<<64 - 1, Seq: 7}, HasCursor: true,
	}
	for range 2 {
		if err := f.Save(want); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := f.Load(); err != nil || !reflect.DeepEqual(got, want) {
		t.Fatalf("got %+v, %v", got, err)
	}
	if info, err := os.Stat(path); err != nil || info.Mode().Perm() != 0o600 {
		t.Fatal(info.Mode(), err)
	}
	if files, err := os.ReadDir(filepath.Dir(path)); err != nil || len(files) != 1 {
		t.Fatal("temporary files stay: ", files, err)
	}

	if err := os.Chmod(path, 0o640); err != nil {
		t.Fatal(err)
	}
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "chmod 600") {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte("{"), 0o600); err != nil {
		t.Fatal(err)
	}
	os.Chmod(path, 0o600)
	if _, err := f.Load(); err == nil || !strings.Contains(err.Error(), "damaged") {
		t.Fatal(err)
	}
	_, err := New(Options{Endpoints: []string{"127.0.0.1:1"}, Store: f})
	wantKind(t, err, ErrStore)
}

func TestFileStoreThatCannotBeWritten(t *testing.T) {
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := (FileStore{Path: filepath.Join(file, "session.json")}).Save(Session{}); err == nil {
		t.Fatal("saved below a file")
	}
}
