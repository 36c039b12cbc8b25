//go:build torture

package router

import (
	"os"
	"strings"
)

// bug is a mistake on purpose. HERMOD_TORTURE_BUG names one, once, when a
// directory is opened: the torture has to find it, or the torture is worth
// nothing.
type bug struct{ name string }

// attachOrderIgnored: «who registers last is who came last». It is so until
// nodes register anew what a directory has forgotten.
const attachOrderIgnored = "attach-order-ignored"

func openBug() bug { return bug{os.Getenv("HERMOD_TORTURE_BUG")} }

func (g bug) ignoresOrder() bool { return g.name == attachOrderIgnored }

// attach is attachScript, without what compares.
func (g bug) attach(script string) string {
	const order = " and (epoch < oldEpoch or epoch == oldEpoch and no < oldNo)"
	if !g.ignoresOrder() {
		return script
	}
	if strings.Count(script, order) != 1 {
		panic("router: attachScript does not compare as it did; bug_on.go has to follow")
	}
	return strings.Replace(script, order, " and false", 1)
}
