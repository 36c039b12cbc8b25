package router

import "context"

// Slot is a device slot, 1 … 6: of each kind one device is live at a time.
type Slot = uint8

// Ref names a connection in the whole fleet.
type Ref struct {
	Node        uint64
	Incarnation uint64
	Conn        uint64
}

// Entry is what the directory holds for a user's device slot.
type Entry struct {
	Ref
	// LoginEpoch is durable: it rises with every first login of a device.
	LoginEpoch uint64
	// AttachNo orders the connections of one login: microseconds of the
	// directory's clock, but always above the one before.
	AttachNo uint64
}

// Beats reports whether e takes the slot from old.
func (e Entry) Beats(old Entry) bool {
	if e.LoginEpoch != old.LoginEpoch {
		return e.LoginEpoch > old.LoginEpoch
	}
	return e.AttachNo >= old.AttachNo
}

// Route is an entry found by Lookup.
type Route struct {
	User int64
	Slot Slot
	Entry
}

// Attached is the outcome of Directory.Attach.
type Attached struct {
	// AttachNo is the entry's number: to be used again when the same
	// connection is registered anew after the directory has forgotten it.
	AttachNo uint64
	// Lost: the slot belongs to a newer login or connection (Loser is the one
	// that asked). Otherwise the entry is registered.
	Lost bool
	// Loser, unless zero, has to go.
	Loser Ref
	// NewLogin: the winner's login is newer than the loser's. Otherwise both
	// are connections of one device.
	NewLogin bool
}

// Directory maps users to the connections that own their device slots.
// Implementations are safe for concurrent use and hold nothing durable.
type Directory interface {
	// Attach registers e for (user, slot) unless the entry there beats it.
	// AttachNo 0 asks for a new number, above every earlier one of the slot.
	Attach(ctx context.Context, user int64, slot Slot, e Entry) (Attached, error)
	// Detach removes the entry if it is ref's; any other entry stays.
	Detach(ctx context.Context, user int64, slot Slot, ref Ref) error
	// Lookup appends the routes of all users to dst; users without any add
	// nothing. Routes of one user are next to each other, users in the order
	// asked for.
	Lookup(ctx context.Context, users []int64, dst []Route) ([]Route, error)
	// Close releases what the directory holds; entries need not survive.
	Close() error
}

// Member is a live run of a node: one that holds its lease.
type Member struct {
	Node, Incarnation uint64
	// Addr is where its peers reach it, host:port.
	Addr string
}

// Fleet is implemented by directories that several nodes share over a network.
// Their Lookup may take a round trip, so a Router never waits for it where
// deliveries come from.
type Fleet interface {
	// Members returns the live nodes, this one included.
	Members(ctx context.Context) ([]Member, error)
}

// Rejoiner is implemented by directories that register connections anew by
// themselves, after an outage or a loss. Nobody waits for the outcome of such
// an Attach, so whoever lost is told to OnLoser's function: the connection that
// was registered anew, or the one that it replaced.
type Rejoiner interface {
	// OnLoser comes before the first Attach. kick does not block. A loser whose
	// Conn is 0 names a node only: should it have a connection there that has to
	// go, it is that node's directory that knows, and it is to be asked by Again.
	OnLoser(kick func(user int64, slot Slot, loser Ref, newLogin bool))
	// Again registers anew what this node has for a slot, if anything, so that a
	// loser whom nobody could name comes out. It does not block.
	Again(user int64, slot Slot)
}
