//go:build !torture

package router

// bug is a mistake that a server made with the build tag torture has on
// purpose: see bug_on.go. Any other server has none, and the compiler drops the
// questions.
type bug struct{}

func openBug() bug { return bug{} }

func (bug) ignoresOrder() bool          { return false }
func (bug) attach(script string) string { return script }
