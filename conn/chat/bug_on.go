//go:build torture

package chat

import "os"

// bug is a mistake on purpose. HERMOD_TORTURE_BUG names one, once, when a Chat
// is made: the torture has to find it, or the torture is worth nothing.
type bug struct{ name string }

// staleSession: «a connection that is really over closes by itself». The node
// does not end a session when a newer one takes its device slot, neither told
// by the directory nor when it looks itself.
const staleSession = "stale-session"

func openBug() bug { return bug{os.Getenv("HERMOD_TORTURE_BUG")} }

func (g bug) keepsSession() bool { return g.name == staleSession }
