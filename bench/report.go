package bench

import (
	"maps"
	"runtime"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// Report is all that a run found out. Its JSON is what --json writes; fields
// are only ever added.
type Report struct {
	// Scenario is "pairs", "idle" or "users".
	Scenario string    `json:"scenario"`
	OK       bool      `json:"ok"`
	Started  time.Time `json:"started"`
	// Elapsed is the whole run, logging in and verifying included.
	Elapsed Seconds `json:"elapsed_s"`
	// Problems say in words why OK is false; Notes what else to know about the
	// figures.
	Problems []string `json:"problems"`
	Notes    []string `json:"notes"`

	Tool   ToolInfo   `json:"tool"`
	Host   HostInfo   `json:"host"`
	Server ServerInfo `json:"server"`
	// Users counts what preparing the accounts took.
	Users UsersResult `json:"users"`
	// Errors counts, by code or kind, every error met, those that a retry
	// overcame too.
	Errors map[string]uint64 `json:"errors"`

	Pairs *PairsResult `json:"pairs,omitempty"`
	Idle  *IdleResult  `json:"idle,omitempty"`
}

// Seconds is a duration that JSON shows in seconds.
type Seconds float64

func seconds(d time.Duration) Seconds { return Seconds(d.Seconds()) }

// ToolInfo names what measured.
type ToolInfo struct {
	Version string `json:"version"`
	Go      string `json:"go"`
	// CPUPercent is what the tool itself used in the measured time, in percent
	// of one core: on one machine the server did not have that.
	CPUPercent float64 `json:"cpu_percent"`
}

// HostInfo names where it measured from.
type HostInfo struct {
	CPUs   int    `json:"cpus"`
	System string `json:"system"`
}

// ServerInfo is the server as seen from outside.
type ServerInfo struct {
	Addr string `json:"addr"`
	TLS  bool   `json:"tls"`
	// Durability counts the acks by what they were promised by.
	Durability map[string]uint64 `json:"durability"`
	// Source is where the figures of the process come from; "" for none.
	Source string `json:"source"`
	// RSS in bytes: before the first connection, the most seen (once a second),
	// after the last message.
	RSSBefore uint64 `json:"rss_before"`
	RSSPeak   uint64 `json:"rss_peak"`
	RSSAfter  uint64 `json:"rss_after"`
	// CPUPercent is of one core, over the measured time.
	CPUPercent float64 `json:"cpu_percent"`
	// CPUPerMessage is in microseconds per acknowledged message: its commit,
	// its push, and everything else the server did meanwhile.
	CPUPerMessage float64 `json:"cpu_us_per_message,omitempty"`
	// Restarted: the process was replaced in the middle, so that there are no
	// CPU figures.
	Restarted bool `json:"restarted,omitempty"`
}

// UsersResult is what it took to have all users logged in.
type UsersResult struct {
	Count      int     `json:"count"`
	Registered int     `json:"registered"`
	Elapsed    Seconds `json:"elapsed_s"`
}

// PairsResult is what the pairs scenario found.
type PairsResult struct {
	Params PairsParams `json:"params"`
	// Measured is the time after the warm-up in which messages were offered.
	Measured Seconds `json:"measured_s"`
	// Acked, Delivered and Rate count acks and deliveries to the other side
	// that came within the measured time; Rate is acks per second.
	Acked     uint64  `json:"acked"`
	Delivered uint64  `json:"delivered"`
	Rate      float64 `json:"rate"`
	// Ack is from the intended send time to the ack, Delivery to the arrival
	// at the receiver; of messages intended within the measured time.
	Ack      Latency `json:"ack_latency"`
	Delivery Latency `json:"delivery_latency"`
	// Lag is how late the tool itself wrote a message (open loop only); it is
	// a part of both latencies.
	Lag Latency `json:"generator_lag"`

	Verification Verification `json:"verification"`
	Connections  Connections  `json:"connections"`
}

// PairsParams repeats what was asked for.
type PairsParams struct {
	Pairs    int     `json:"pairs"`
	BothWays bool    `json:"both_ways"`
	Rate     float64 `json:"rate"`
	InFlight int     `json:"in_flight"`
	Size     int     `json:"size"`
	Warmup   Seconds `json:"warmup_s"`
	Duration Seconds `json:"duration_s"`
}

// Verification counts messages of the whole run, warm-up included.
type Verification struct {
	// Sent were written to a connection at least once; Unsent were due but
	// never written.
	Sent   uint64 `json:"sent"`
	Unsent uint64 `json:"unsent"`
	Acked  uint64 `json:"acked"`
	// Unanswered got neither an ack nor a final refusal; Refused the latter.
	Unanswered uint64 `json:"unanswered"`
	Refused    uint64 `json:"refused"`
	// Resent counts frames sent again under the same id.
	Resent uint64 `json:"resent"`
	// Received counts events at the other side, each message once.
	Received uint64 `json:"received"`
	// NotPushed came only when the tool asked the storage at the end.
	NotPushed uint64 `json:"not_pushed"`
	// Repeats are pushes that an inbox already had: allowed.
	Repeats uint64 `json:"repeats"`
	// Resets are inboxes that retention had cut; what they missed was read
	// from the conversations.
	Resets uint64 `json:"resets"`
	// Violations are broken promises by kind; a run without any is OK.
	Violations map[string]uint64 `json:"violations"`
	Examples   []string          `json:"examples,omitempty"`
	// Unverified users could not be asked at the end.
	Unverified int `json:"unverified"`
}

// Connections counts what happened to them.
type Connections struct {
	Open         int    `json:"open"`
	Logins       uint64 `json:"logins"`
	Drops        uint64 `json:"drops"`
	Heartbeats   uint64 `json:"heartbeats"`
	DeliveryAcks uint64 `json:"delivery_acks"`
}

// IdleResult is what the idle scenario found.
type IdleResult struct {
	From      int     `json:"from"`
	To        int     `json:"to"`
	Heartbeat Seconds `json:"heartbeat_s"`
	// Warm: everybody had logged in once before, and left again.
	Warm bool `json:"warm,omitempty"`
	// At are the two points, after settling.
	At []IdlePoint `json:"at"`
	// BytesPerConnection is the growth of the server's RSS between the points
	// divided by the connections between them; the others likewise.
	BytesPerConnection float64 `json:"bytes_per_connection"`
	PSSPerConnection   float64 `json:"pss_per_connection"`
	AnonPerConnection  float64 `json:"anon_per_connection"`
	// Hold is how long all were kept after the second point, and IdleCPU what
	// the server used then, in percent of one core.
	Hold        Seconds     `json:"hold_s"`
	IdleCPU     float64     `json:"idle_cpu_percent"`
	Connections Connections `json:"connections"`
}

// IdlePoint is the server's memory at a number of connections.
type IdlePoint struct {
	Connections int    `json:"connections"`
	RSS         uint64 `json:"rss"`
	PSS         uint64 `json:"pss"`
	Anon        uint64 `json:"anon"`
	// Settled is how long it took until RSS stood still; Stable is false if it
	// had not by the end of the time given.
	Settled Seconds `json:"settled_s"`
	Stable  bool    `json:"stable"`
}

func newReport(scenario string, t Target) *Report {
	r := &Report{
		Scenario: scenario,
		Started:  time.Now(),
		Problems: []string{},
		Notes:    []string{},
		Tool:     ToolInfo{Version: t.Version, Go: runtime.Version()},
		Host:     HostInfo{CPUs: runtime.NumCPU(), System: systemName()},
		Server:   ServerInfo{Addr: t.Addr, TLS: t.TLS != nil, Durability: map[string]uint64{}},
		Errors:   map[string]uint64{},
	}
	return r
}

func systemName() string {
	var u unix.Utsname
	if err := unix.Uname(&u); err != nil {
		return runtime.GOOS
	}
	return unix.ByteSliceToString(u.Sysname[:]) + " " + unix.ByteSliceToString(u.Release[:]) + " " + unix.ByteSliceToString(u.Machine[:])
}

// sortedKeys is for printing maps.
func sortedKeys[V any](m map[string]V) []string { return slices.Sorted(maps.Keys(m)) }
