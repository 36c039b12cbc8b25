package torture

import (
	"fmt"
	"time"
)

// Invariant is a promise that holds at any time, whatever breaks.
type Invariant uint8

const (
	// I1: every acknowledged message is in every recipient's inbox, once.
	I1 Invariant = 1 + iota
	// I2: the seqs of an inbox are 1, 2, 3, … without holes.
	I2
	// I3: one order of a conversation, for all; a device's messages in theirs.
	I3
	// I4: no sync skipped a seq that could be seen later.
	I4
	// I5: nothing for somebody whom it does not concern.
	I5
	// I6: what devices applied is what the stores hold.
	I6
	// I7: at most one live session a device, 30 s after all is healed.
	I7
	// I8: sends without an ack appear once, or not at all.
	I8
	// I9: no delivery stays owed.
	I9

	invariants
)

// String is its name and what it says.
func (i Invariant) String() string {
	if i < 1 || i >= invariants {
		return fmt.Sprintf("I%d", uint8(i))
	}
	return fmt.Sprintf("I%d (%s)", uint8(i), [...]string{
		"acknowledged messages are there, once", "inboxes without holes", "one order", "syncs skip nothing",
		"nothing for strangers", "devices have what the stores have", "one session a device",
		"unanswered sends at most once", "nothing stays owed",
	}[i-1])
}

// Violation is one breach of an invariant.
type Violation struct {
	Invariant Invariant `json:"invariant"`
	Text      string    `json:"text"`
	// Messages are the numbers of those concerned, in the History.
	Messages []int `json:"messages,omitempty"`
}

func (v Violation) String() string { return fmt.Sprintf("I%d: %s", uint8(v.Invariant), v.Text) }

// Struck is a strike that was carried out.
type Struck struct {
	Strike
	// At and Healed are since the start of the run. Error says why it could
	// not be done, or not be healed.
	At     time.Duration `json:"at"`
	Healed time.Duration `json:"healed"`
	Error  string        `json:"error,omitempty"`
}

// Timing is a measured time, or another figure, and its bound.
type Timing struct {
	Name string `json:"name"`
	Got  string `json:"got"`
	Want string `json:"want"`
	// Count is how many measurements there are; none: neither kept nor broken.
	Count int  `json:"count"`
	OK    bool `json:"ok"`
}

// Report is the outcome of a run.
type Report struct {
	System  string        `json:"system"`
	Version string        `json:"version,omitempty"`
	Seed    uint64        `json:"seed"`
	Begun   time.Time     `json:"begun"`
	Elapsed time.Duration `json:"elapsed_ns"`
	People  int           `json:"people"`
	Devices int           `json:"devices"`
	// Acked, Refused and Open say how the sends ended; the outcome of the open
	// ones was not told to their device.
	Acked   int `json:"acked"`
	Refused int `json:"refused"`
	Open    int `json:"open"`
	// Codes are the refusals by code.
	Codes map[string]int `json:"codes,omitempty"`
	// Applied counts events on devices; Restarts, Rebuilds and Returns what
	// the devices went through.
	Applied  int               `json:"applied"`
	Restarts int               `json:"restarts"`
	Rebuilds int               `json:"rebuilds"`
	Returns  int               `json:"returns"`
	Strikes  []Struck          `json:"strikes"`
	NotRun   map[string]string `json:"not_run,omitempty"`
	// Violations are at most MaxViolations of each invariant; Counts are all.
	Violations []Violation       `json:"violations,omitempty"`
	Counts     map[Invariant]int `json:"counts,omitempty"`
	// Lost, Duplicates and Holes are what Counts says of I1, I1 and I8, I2.
	Lost       int      `json:"lost"`
	Duplicates int      `json:"duplicates"`
	Holes      int      `json:"holes"`
	Times      []Timing `json:"times,omitempty"`
	// Trouble is what kept the run from being done or checked.
	Trouble []string `json:"trouble,omitempty"`
	// Evidence is the folder of a failed run.
	Evidence string `json:"evidence,omitempty"`
}

// OK reports whether the run was done and nothing was wrong.
func (r *Report) OK() bool {
	for _, t := range r.Times {
		if !t.OK {
			return false
		}
	}
	return len(r.Violations) == 0 && len(r.Trouble) == 0
}
