package main

import (
	"os"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/hermod-im/hermod/cmd/internal/config"
)

func TestMain(m *testing.M) {
	config.SilenceRedis()
	// gnet's pool of goroutines lives as long as the process.
	goleak.VerifyTestMain(m,
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).purgeStaleWorkers"),
		goleak.IgnoreAnyFunction("github.com/panjf2000/ants/v2.(*poolCommon).ticktock"),
		goleak.Cleanup(func(code int) {
			if dir, err := binaryDir(); err == nil {
				_ = os.RemoveAll(dir)
			}
			os.Exit(code)
		}))
}

// eventually waits for a condition; what says what it was.
func eventually(t *testing.T, timeout time.Duration, what string, cond func() bool) {
	t.Helper()
	for end := time.Now().Add(timeout); ; time.Sleep(5 * time.Millisecond) {
		if cond() {
			return
		}
		if time.Now().After(end) {
			t.Fatalf("after %v: %s", timeout, what)
		}
	}
}
