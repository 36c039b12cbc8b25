package chat

import "github.com/hermod-im/hermod/storage"

// Under load the less important goes first, before what matters has to wait:
// typing signals, then receipts (delivered marks, which coalesce for longer and
// are not lost), and only then are requests refused. The numbers are the load
// of a shard (storage.Store.Load) from which on it is spared; a shard that
// answers nobody has load 1. Each shard is looked at by itself.
const (
	shedTyping   = 0.25
	shedReceipts = 0.5
)

// shed reports whether something that needs the shards of these users should
// be left out.
func (c *Chat) shed(above float64, users ...storage.UserID) bool {
	for _, u := range users {
		if c.store.Load(u.Slot()) >= above {
			return true
		}
	}
	return false
}
