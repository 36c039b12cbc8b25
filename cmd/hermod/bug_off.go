//go:build !torture

package main

import "os"

// environ is where settings come from. A server made with the build tag torture
// takes HERMOD_TORTURE_* out first; to this one they are settings that it does
// not have, and it does not start.
func environ() []string { return os.Environ() }
