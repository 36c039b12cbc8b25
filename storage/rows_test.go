package storage_test

import (
	"testing"

	"github.com/hermod-im/hermod/storage"
)

// §3: max(0, head − max(read, own_sent, joined − 1, cleared)).
func TestUnread(t *testing.T) {
	for _, tt := range []struct {
		name string
		c    storage.UserConv
		want uint64
	}{
		{"nothing", storage.UserConv{}, 0},
		{"never read", storage.UserConv{Head: 7}, 7},
		{"read some", storage.UserConv{Head: 7, Read: 3}, 4},
		{"read all", storage.UserConv{Head: 7, Read: 7}, 0},
		{"read ahead of the head", storage.UserConv{Head: 7, Read: 9}, 0},
		{"answering is reading", storage.UserConv{Head: 7, Read: 2, OwnSent: 6}, 1},
		{"cleared", storage.UserConv{Head: 7, Read: 2, Cleared: 5}, 2},
		{"joined at the start", storage.UserConv{Head: 7, Joined: 1}, 7},
		{"joined later", storage.UserConv{Head: 7, Joined: 6}, 2},
		{"joined after the head", storage.UserConv{Head: 7, Joined: 8}, 0},
		{"joined, then read", storage.UserConv{Head: 9, Joined: 6, Read: 8}, 1},
		{"delivered is not read", storage.UserConv{Head: 7, Delivered: 7}, 7},
	} {
		if got := tt.c.Unread(); got != tt.want {
			t.Errorf("%s: %d unread, want %d", tt.name, got, tt.want)
		}
	}
}
