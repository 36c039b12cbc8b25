package main

import (
	"slices"
	"strings"
	"testing"

	"github.com/hermod-im/hermod/conn/client"
)

// TestCrowdCheckerFails: the checker of the cluster test finds each violation
// that it is there for, in an inbox that is otherwise in order.
func TestCrowdCheckerFails(t *testing.T) {
	const me, peer = 1, 2
	inbox := func() []sighting {
		return []sighting{
			{seq: 1, text: ""}, // a notice
			{seq: 2, rev: 1, convSeq: 1, conv: "c", actor: me, text: "1 2 0"},
			{seq: 3, rev: 2, convSeq: 2, conv: "c", actor: peer, text: "2 1 0"},
			{seq: 4, rev: 3, convSeq: 3, conv: "c", actor: me, text: "1 2 1"},
		}
	}
	acked := map[string]client.Ack{"1 2 0": {Conversation: []byte("c"), ConvSeq: 1}, "1 2 1": {Conversation: []byte("c"), ConvSeq: 3}}
	for name, c := range map[string]struct {
		change func(stored []sighting) []sighting
		seen   func(stored []sighting) []sighting // what the device applied; nil: all
		others map[uint64]string                  // what another inbox says about the order
		want   string
	}{
		"in order":          {},
		"the notice missed": {seen: func(s []sighting) []sighting { return s[1:] }},
		"I1, lost":          {change: func(s []sighting) []sighting { return s[:3] }, want: "0 times"},
		"I1, twice": {change: func(s []sighting) []sighting {
			twice := s[3]
			twice.seq = 5
			return append(s, twice)
		}, want: "2 times"},
		"I1, elsewhere":      {change: func(s []sighting) []sighting { s[1].convSeq = 7; return s }, want: "stands elsewhere"},
		"I2, a hole":         {change: func(s []sighting) []sighting { s[3].seq = 5; return s }, want: "has seq 5"},
		"I3, another order":  {others: map[uint64]string{2: "1 2 0"}, want: "for another"},
		"I4, skipped":        {seen: func(s []sighting) []sighting { return slices.Delete(slices.Clone(s), 2, 3) }, want: "they differ"},
		"I5, not for us":     {change: func(s []sighting) []sighting { s[2].text = "2 3 0"; return s }, want: `has "2 3 0"`},
		"I5, another's name": {change: func(s []sighting) []sighting { s[2].actor = 3; return s }, want: "by 3"},
		"I6, changed":        {seen: func(s []sighting) []sighting { s = slices.Clone(s); s[2].rev = 9; return s }, want: "they differ"},
	} {
		t.Run(name, func(t *testing.T) {
			stored := inbox()
			if c.change != nil {
				stored = c.change(stored)
			}
			p := &talker{name: "p", acked: acked, seen: stored}
			if c.seen != nil {
				p.seen = c.seen(stored)
			}
			order := map[string]map[uint64]string{}
			if c.others != nil {
				order["c"] = c.others
			}
			found := strings.Join(p.violations(me, stored, order), "\n")
			if (found == "") != (c.want == "") || !strings.Contains(found, c.want) {
				t.Errorf("found %q, want %q", found, c.want)
			}
		})
	}
}
