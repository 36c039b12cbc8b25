package mysql

import (
	"context"
	"sync"
	"testing"

	"github.com/hermod-im/hermod/storage"
)

// TestMissingRowIsMadeOnce: two nodes look for a row, both find none, both write
// it. One of them is first; the other's plan runs again and sees that row, for
// it would otherwise go on with what is overwritten or overwrite it.
func TestMissingRowIsMadeOnce(t *testing.T) {
	u, peer := storage.UserIDIn(5, 1), storage.UserIDIn(5, 2)
	uc := storage.UserConvKey{User: u, Conv: storage.PairKey(u, peer)}
	task := storage.TaskKey{Conv: uc.Conv, Target: 9}
	for _, tt := range []struct {
		name  string
		locks storage.Locks
		write func(node uint64) storage.Writes
		read  func(l *storage.Locked) (node uint64, found bool)
	}{
		{"user", storage.Locks{Users: []storage.UserID{u}},
			func(n uint64) storage.Writes { return storage.Writes{Users: []storage.UserHead{{User: u, Seq: n}}} },
			func(l *storage.Locked) (uint64, bool) { return l.Users[0].Seq, l.Users[0].Found }},
		{"user_conv", storage.Locks{UserConvs: []storage.UserConvKey{uc}},
			func(n uint64) storage.Writes {
				return storage.Writes{UserConvs: []storage.UserConv{{Key: uc, Head: n}}}
			},
			func(l *storage.Locked) (uint64, bool) { return l.UserConvs[0].Head, l.UserConvs[0].Found }},
		{"task", storage.Locks{Tasks: []storage.TaskKey{task}},
			func(n uint64) storage.Writes { return storage.Writes{Tasks: []storage.Task{{Key: task, ToRev: n}}} },
			func(l *storage.Locked) (uint64, bool) { return l.Tasks[0].ToRev, l.Tasks[0].Found }},
		{"account", storage.Locks{Accounts: []storage.UserID{u}},
			func(n uint64) storage.Writes {
				return storage.Writes{Accounts: []storage.Account{{User: u, Created: int64(n)}}}
			},
			func(l *storage.Locked) (uint64, bool) { return uint64(l.Accounts[0].Created), l.Accounts[0].Found }},
		{"block", storage.Locks{Blocks: []storage.BlockKey{{User: u, Peer: peer}}},
			func(n uint64) storage.Writes {
				return storage.Writes{Blocks: []storage.Block{{Key: storage.BlockKey{User: u, Peer: peer}, Time: int64(n)}}}
			},
			func(l *storage.Locked) (uint64, bool) { return uint64(l.Blocks[0].Time), l.Blocks[0].Found }},
		{"meta", storage.Locks{Meta: []string{"key"}},
			func(n uint64) storage.Writes {
				return storage.Writes{Meta: []storage.MetaRow{{Name: "key", Value: []byte{byte(n)}}}}
			},
			func(l *storage.Locked) (uint64, bool) {
				if !l.Meta[0].Found {
					return 0, false
				}
				return uint64(l.Meta[0].Value[0]), true
			}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			dsn := database(t, 0)
			var both, ended sync.WaitGroup
			both.Add(2)
			var saw [2]uint64
			for i := range saw {
				s, err := Open(context.Background(), Options{ID: 1, DSN: dsn})
				if err != nil {
					t.Fatal(err)
				}
				defer func() { _ = s.Close() }()
				ended.Add(1)
				go func() {
					runs := 0
					w := tt.write(uint64(i) + 1)
					err := s.Commit(context.Background(), &tt.locks, func(l *storage.Locked) (*storage.Writes, error) {
						if runs++; runs == 1 {
							both.Done()
							both.Wait() // both have looked
						}
						if n, ok := tt.read(l); ok {
							saw[i] = n
							return nil, nil
						}
						saw[i] = uint64(i) + 1
						return &w, nil
					}, func(err error) {
						if err != nil {
							t.Error(err)
						}
						ended.Done()
					})
					if err != nil {
						t.Error(err)
						ended.Done()
					}
				}()
			}
			ended.Wait()
			if saw[0] != saw[1] || saw[0] == 0 {
				t.Errorf("the nodes go on with %d and %d", saw[0], saw[1])
			}
		})
	}
}
