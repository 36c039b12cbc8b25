package pebble

import (
	"context"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/hermod-im/hermod/storage"
)

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

func commit(s *Shard, l *storage.Locks, plan func(*storage.Locked) (*storage.Writes, error)) error {
	done := make(chan error, 1)
	if err := s.Commit(context.Background(), l, plan, func(err error) { done <- err }); err != nil {
		return err
	}
	return <-done
}

func TestSmoke(t *testing.T) {
	fs := vfs.NewMem()
	s := open(t, Options{FS: fs})
	u := storage.UserIDIn(7, 1)
	write(t, s, &storage.Writes{Users: []storage.UserHead{{User: u, InboxEpoch: 9}}})
	write(t, s, &storage.Writes{Users: []storage.UserHead{{User: u, InboxEpoch: 9, Seq: 1}}, Inbox: []storage.InboxRow{{User: u, Seq: 1, Entry: storage.Entry{Conv: storage.SelfKey(u), Rev: 1, Kind: 1, Sender: u}}}})
	if err := s.Close(); err != nil {
		t.Fatal(err)
	}
	s = open(t, Options{FS: fs})
	err := s.View(context.Background(), nil, func(v storage.Snap) error {
		h, err := v.User(u)
		if h.Seq != 1 || h.InboxEpoch != 9 || !h.Found {
			t.Errorf("%+v", h)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
}
