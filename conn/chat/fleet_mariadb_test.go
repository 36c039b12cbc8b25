package chat

import (
	"testing"
	"time"

	"github.com/hermod-im/hermod/bench/local"
	"github.com/hermod-im/hermod/storage"
	"github.com/hermod-im/hermod/storage/mysql"
)

// A database that is stopped, not killed: its connections stay open, and no
// byte comes. That is the worst of troubles, and the one that a network makes.
func TestPausedDatabase(t *testing.T) {
	well := local.TestMariaDB(t, local.MariaDBOptions{})
	ill := local.TestMariaDB(t, local.MariaDBOptions{})
	var shards []storage.Shard
	for i, db := range []*local.MariaDB{well, ill, well} {
		name := "hermod" + string(rune('1'+i))
		if err := db.CreateDatabase(t.Context(), name); err != nil {
			t.Fatal(err)
		}
		sh, err := mysql.Open(t.Context(), mysql.Options{ID: storage.ShardID(i + 1), DSN: db.DSN(name), Timeout: 2 * time.Second})
		if err != nil {
			t.Fatal(err)
		}
		shards = append(shards, sh)
	}
	f := newFleetOn(t, 1, shards, func(o *rigOptions) {
		o.store.BreakAfter, o.store.StallTimeout, o.store.ReadTimeout = 500*time.Millisecond, time.Second, time.Second
		o.store.RetryMin, o.store.RetryMax = 5*time.Millisecond, 100*time.Millisecond
		o.chat.AuditEvery, o.chat.MarksEvery = 50*time.Millisecond, time.Millisecond
	})
	a, b := f.talker(1), f.talker(1)
	c, d := f.talker(0), f.talker(2)
	if err := ill.Pause(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = ill.Continue() })
	f.askedInVain(t, a, b.user, "hangs")
	f.everyRequest(t, c, d, 1)
	f.askedInVain(t, a, b.user, "hangs")
	f.everyRequest(t, d, c, 2)
	if err := ill.Continue(); err != nil {
		t.Fatal(err)
	}
	back := textTo(b.user, "back")
	back.ResumeOrder = true
	eventually(t, "the shard is back", func() bool { return a.call(sendFrame(back)).GetSendAck() != nil })
	b.gets("back")
}
