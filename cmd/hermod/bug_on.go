//go:build torture

package main

import (
	"fmt"
	"os"
	"slices"
	"strings"
)

// environ is where settings come from. What the build tag torture adds is for
// the packages that have a bug_on.go, and taken out here. This server is for
// tests alone, and says so.
func environ() []string {
	name := os.Getenv("HERMOD_TORTURE_BUG")
	if name != "" && !slices.Contains(bugs(), name) {
		fmt.Fprintf(os.Stderr, "HERMOD_TORTURE_BUG: no bug is called %q; there are %s\n", name, strings.Join(bugs(), ", "))
		os.Exit(2)
	}
	fmt.Fprintf(os.Stderr, "made with the build tag torture: NEVER keep messages with it (bug: %q)\n", name)
	return slices.DeleteFunc(os.Environ(), func(kv string) bool { return strings.HasPrefix(kv, "HERMOD_TORTURE_") })
}

// bugs are the names that some bug_on.go knows.
func bugs() []string {
	return []string{
		"ack-before-commit", "visible-not-durable", "seq-outside-tx", "dedupe-before-lock", "dropped-task",
		"tasks-out-of-order", "retention-without-floor", "ack-before-sync", "attach-order-ignored", "stale-session",
	}
}
