package chat

import (
	"context"

	"google.golang.org/protobuf/encoding/protowire"

	"github.com/hermod-im/hermod/storage"
)

// eventSecurity is the field of Event.body for kindSecurity.
const eventSecurity = 11

// isNotice reports whether an encoded event is a security notice. A login that
// ends on one node is told to the user's devices by such a notice, which comes to
// every node that has sessions of the user: the word that was missing between
// nodes. Until it was taken as one, a device that was revoked on another node
// went on reading until the audit came round.
func isNotice(event []byte) bool {
	for len(event) > 0 {
		num, typ, n := protowire.ConsumeTag(event)
		if n < 0 || num == eventSecurity {
			return n >= 0
		}
		m := protowire.ConsumeFieldValue(num, typ, event[n:])
		if m < 0 {
			return false
		}
		event = event[n+m:]
	}
	return false
}

// recheck looks soon whether the logins of a user's sessions on this node still
// hold, as the audit does. It never blocks: where there is no reader, the audit
// has to do.
func (c *Chat) recheck(user storage.UserID) {
	_ = c.store.Go(user.Slot(), func(ctx context.Context) {
		heads, err := c.store.Heads(ctx, []storage.UserID{user})
		if err != nil || !heads[0].Found {
			return
		}
		for _, s := range c.sessionsOf(user) {
			if fault := c.checkLogin(ctx, s, &heads[0]); fault != nil {
				c.metrics.auditCloses.Inc()
				c.closeSession(s, fault)
			}
		}
	})
}
