package conn

import "time"

// stamp is milliseconds since the server started. Four bytes on every
// connection instead of eight or twenty-four; it wraps after 49 days, so stamps
// are compared by difference only, and no two that are compared lie further
// apart than 24 days.
type stamp uint32

// since returns the milliseconds from t to s; negative if t is later.
func (s stamp) since(t stamp) int { return int(int32(s - t)) }

// plus returns s later by d.
func (s stamp) plus(d time.Duration) stamp { return s + stamp(d/time.Millisecond) }
