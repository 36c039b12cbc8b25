package main

import (
	"strings"
	"testing"

	"github.com/hermod-im/hermod/bench/attack"
)

// TestAttacks attacks real servers and a real cluster, with the limits of the
// release. What cannot be had here (10,000 more open files, say) is logged.
func TestAttacks(t *testing.T) {
	site := &attackSite{binary: serverBinary(t, "")}
	rep, err := attack.Run(t.Context(), attack.Options{Site: site})
	if closing := site.Close(); err != nil || closing != nil {
		t.Fatal(err, closing)
	}
	var text strings.Builder
	if err := rep.WriteSummary(&text); err != nil {
		t.Fatal(err)
	}
	t.Log(text.String())
	for _, r := range rep.Results {
		switch r.Verdict {
		case attack.Held, attack.NotRun:
		default:
			t.Errorf("%s: %s: %s", r.Verdict, r.Name, r.Why)
		}
	}
}
