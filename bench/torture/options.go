package torture

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"time"

	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/bench/fault"
)

// Options for Run. Only System is required. A run goes on until Duration is
// over, Faults have struck and Messages are acknowledged.
type Options struct {
	System System
	// Seed decides the schedule. What people do is random in any case: how
	// their turns interleave with a server's cannot be had again.
	Seed uint64
	// Duration is the least time of torture, without start and check.
	Duration time.Duration
	// Faults is how many strikes there are, Messages how many sends must have
	// been acknowledged at the end.
	Faults, Messages int
	// Only names the faults to use; empty: all that the system has.
	Only []string
	// Schedule, if not nil, is followed instead of one drawn from the seed.
	Schedule []Strike

	// People is how many users write. Default 60.
	People int
	// Rate is how many messages a second all people together would like to
	// send. Default 200.
	Rate float64
	// InFlight is how many sends of one device may be unanswered. Default 8.
	InFlight int
	// Size is about how many bytes the body of a message has. Default 128.
	Size int
	// Restless is how many times a minute a device does something else than
	// sending: it reads, leaves and comes back, dies, is replaced, blocks.
	// Default 4; below 0: never.
	Restless float64
	// Ghosts is the share of those acts in which an app comes back while an older
	// process of it is still connected. Default 0.03; below 0: none.
	Ghosts float64

	// Calm is how long people talk before the first strike. Default 5 s; 20 s
	// with Times, whose other figures are compared with this one's.
	Calm time.Duration
	// Times adds the times to the verdict (see package doc).
	Times bool
	// Patience is how long everything may take to arrive after the last fault
	// is healed. Default 90 s: the server repairs a lost push within 60.
	Patience time.Duration
	// Evidence is the folder that a failed run fills. Empty: none is kept.
	Evidence string
	// Log gets what happens, as it happens; the zero Logger writes nothing.
	Log zerolog.Logger
	// Progress, if not nil, is called about every second.
	Progress func(Progress)
}

// Progress is where a run is.
type Progress struct {
	Phase    string
	Elapsed  time.Duration
	Acked    int
	Strikes  int
	Planned  int
	Online   int // devices
	Striking string
}

// Validate fills in defaults and says what cannot work.
func (o *Options) Validate() error {
	if o.System == nil {
		return errors.New("torture: Options.System is required")
	}
	calm := 5 * time.Second
	if o.Times {
		calm = 20 * time.Second
	}
	def(&o.People, 60)
	def(&o.Rate, 200)
	def(&o.InFlight, 8)
	def(&o.Size, 128)
	def(&o.Restless, 4.0)
	def(&o.Ghosts, 0.03)
	def(&o.Calm, calm)
	def(&o.Patience, 90*time.Second)
	switch {
	case o.People < 4 || o.People > 100_000:
		return fmt.Errorf("torture: %d people: 4 to 100,000", o.People)
	case o.Rate <= 0 || o.InFlight < 1 || o.InFlight > 64:
		return fmt.Errorf("torture: rate %v with %d in flight: above 0, and at most 64", o.Rate, o.InFlight)
	case o.Size < bodyLen || o.Size > 32<<10:
		return fmt.Errorf("torture: bodies of %d bytes: %d to 32768", o.Size, bodyLen)
	case o.Restless > 600:
		return fmt.Errorf("torture: restless %v times a minute: at most 600", o.Restless)
	case o.Duration < 0 || o.Faults < 0 || o.Messages < 0 || o.Calm < 0 || o.Patience <= 0:
		return errors.New("torture: durations and counts are not below 0")
	}
	return o.checkOnly()
}

func def[T comparable](p *T, v T) {
	var zero T
	if *p == zero {
		*p = v
	}
}

// checkOnly refuses a name that is none: a fault that is misspelled would be
// one that never strikes.
func (o *Options) checkOnly() error {
	var names []string
	for _, f := range o.System.Faults() {
		names = append(names, f.Name)
	}
	for _, want := range o.Only {
		if !slices.Contains(names, want) {
			return fmt.Errorf("torture: there is no fault %q; there are: %s", want, strings.Join(names, ", "))
		}
	}
	return nil
}

// faults are those that the run may use, able or not.
func (o *Options) faults() []fault.Fault {
	return slices.DeleteFunc(slices.Clone(o.System.Faults()), func(f fault.Fault) bool {
		return len(o.Only) > 0 && !slices.Contains(o.Only, f.Name)
	})
}
