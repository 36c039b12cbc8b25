package torture

import (
	"context"
	"crypto/tls"

	"github.com/hermod-im/hermod/bench/fault"
)

// System is what is tortured. Methods may be called from several goroutines,
// while parts of the system are broken; they then fail, and are asked again.
type System interface {
	// About describes it in a line: «3 nodes, 4 MariaDB shards on 2 servers».
	About() string
	// Endpoints are where clients connect, host:port.
	Endpoints() []string
	// TLS is what clients connect with; nil: plaintext.
	TLS() *tls.Config
	// Faults are what can happen to it, those that cannot be had here included.
	Faults() []fault.Fault
	// Sessions is how many sessions the nodes have, all together.
	Sessions(ctx context.Context) (int, error)
	// Tasks is how many deliveries are owed between shards.
	Tasks(ctx context.Context) (int, error)
	// Routes is how many devices the directory has a place for; below 0: there is
	// no directory that could lose any.
	Routes(ctx context.Context) (int, error)
	// Memory is what the server processes have resident, in bytes, by their names.
	Memory(ctx context.Context) (map[string]uint64, error)
	// Place names the database (as faults name their targets) that keeps a
	// user; "" where all are in one.
	Place(user int64) string
	// Stores opens what the system keeps, for reading. Nobody is connected any
	// more; a system may stop its servers for it, and is of no other use then.
	// With an error they are nil, unless they can be read in spite of it.
	Stores(ctx context.Context) (Stores, error)
	// Logs copies what the servers wrote into a folder.
	Logs(dir string) error
}

// Stores is all that a system holds, read without the server's help.
type Stores interface {
	// Inbox reads everything of a user; ok is false if there is no such user.
	Inbox(ctx context.Context, user int64) (in Inbox, ok bool, err error)
	// Log reads a conversation; one that never was is empty.
	Log(ctx context.Context, conv ConvKey) (Log, error)
	// Totals counts the rows of all shards, whomever they belong to.
	Totals(ctx context.Context) (Totals, error)
	Close() error
}

// ConvKey names a conversation: two ids, big-endian, its home's first.
type ConvKey [16]byte

// KindMessage is the Row.Kind of a message; others are events of other kinds.
const KindMessage = 1

// Row is an event, as a store has it: a row of an inbox, or an entry of a log.
type Row struct {
	Seq          uint64 // in an inbox; 0 in a log
	Conv         ConvKey
	Rev, ConvSeq uint64
	Time         int64 // µs
	Sender       int64
	Kind         uint16
	SendID       [16]byte
	// Body is the entry's as stored. Rows of an inbox may have none (they point
	// to their log then).
	Body []byte
}

// Inbox is what is stored about one user.
type Inbox struct {
	User int64
	// Seq is the newest, Floor the last one that retention has taken.
	Seq, Floor, Epoch uint64
	Rows              []Row // ascending by Seq, all above Floor
	Views             []View
}

// View is a user's place in a conversation.
type View struct {
	Conv ConvKey
	// HeadRev is the newest rev that the inbox has, Head its conv_seq, Read how
	// far it is read (conv_seq).
	HeadRev, Head, Read uint64
}

// Log is a conversation. Its head says Rev and ConvSeq.
type Log struct {
	Conv         ConvKey
	Rev, ConvSeq uint64
	Entries      []Row // ascending by Rev
}

// Totals counts rows.
type Totals struct {
	Inbox, Entries, Tasks int
}
