package storage

import (
	"context"
	"errors"
	"time"
)

// Errors that an engine answers with. It wraps them around the cause, so that
// the log has it; errors.Is finds them.
var (
	// ErrUnknown: the commit may or may not have happened. Commit again with
	// the same plan: seqs and dedupe rows make it safe.
	ErrUnknown = errors.New("storage: commit outcome unknown")
	// ErrSlotMoved: a slot is not owned at that epoch. Read the slot map again.
	ErrSlotMoved = errors.New("storage: slot moved")
	// ErrBusy: refused before anything happened; try later.
	ErrBusy = errors.New("storage: busy")
	// ErrFull: the disk's reserve is reached; reads go on.
	ErrFull = errors.New("storage: disk reserve reached")
	// ErrClosed: the shard or the store is closed.
	ErrClosed = errors.New("storage: closed")
)

// Shard is an engine's side of the seam: transactions over typed rows. What
// the rows mean (batching, seqs, dedupe, tasks) is Store's business.
//
// All methods may be called at any time from several goroutines.
type Shard interface {
	// ID is the shard's name, the same for ever.
	ID() ShardID

	// Commit runs one write transaction: check and share-lock locks.Slots,
	// lock the heads, read every row that locks names, run plan on them,
	// write what it returns (R2). It returns when the next plan of these rows
	// may run, with an error if this transaction is known to have failed
	// before then; done is then not called. Otherwise done is called exactly
	// once, from another goroutine or before Commit returns, with nil when
	// the writes are durable (R1). Calls of done keep the order of Commits
	// that touched the same rows. A plan with no writes is committed all the
	// same: its done vouches for what it read.
	//
	// What fails must not be rested upon: if done gets an error and this
	// transaction did not happen, no later one that read its rows does either.
	// Of two such calls of done the first returns before the second begins.
	// done must be quick, and never calls Commit.
	//
	// plan is pure, and may run again. An error of plan aborts the
	// transaction and is returned as it is. locks, the writes and all they
	// point to are the caller's again when Commit returns; the rows in Locked
	// are plan's until then, bodies excepted, which nobody changes.
	//
	// ErrUnknown, ErrSlotMoved, ErrBusy (also for: unreachable), ErrFull and
	// ErrClosed are answered as such. Any other error means that these rows
	// will never be accepted.
	Commit(ctx context.Context, locks *Locks, plan func(*Locked) (*Writes, error), done func(error)) error

	// View runs read on one consistent snapshot, after checking slots in it.
	// What it sees need not be durable yet: see Barrier.
	View(ctx context.Context, slots []SlotRef, read func(Snap) error) error

	// Barrier returns when everything that a View begun before it could see
	// is durable (R1).
	Barrier(ctx context.Context) error

	// Tasks returns up to limit tasks owned by owner, in key order after
	// `after` (nil: from the start). They may be older than this incarnation.
	Tasks(ctx context.Context, owner NodeID, after *TaskKey, limit int) ([]Task, error)

	// Lease renews this node's lease for ttl on the shard's own clock, and
	// returns the nodes whose leases have run out but which still own tasks.
	Lease(ctx context.Context, node NodeID, incarnation uint64, ttl time.Duration) (dead []NodeID, err error)

	// Purge deletes every row kept under a slot (see Snap.Export) that this
	// shard does not own, in transactions of bounded size, and returns when
	// that is durable. The slot's row stays. Each of the transactions checks
	// the row: ErrInvalid if its state is not SlotAbsent. No room is needed:
	// never ErrFull. What an aborted one left behind, the next one deletes.
	Purge(ctx context.Context, slot Slot) error

	// InlineBody is the size up to which inbox rows carry their entry's body;
	// 0: always pointers.
	InlineBody() int

	// Close waits for open transactions. Tasks and leases stay.
	Close() error
}

// Locks names every row that a plan reads. Order and duplicates do not matter
// to the plan: Locked answers position by position. An engine locks in the
// order of R2 and may sort.
type Locks struct {
	Slots     []SlotRef
	Convs     []ConvKey
	Users     []UserID
	Sends     []SendKey
	UserConvs []UserConvKey
	Tasks     []TaskKey
	Names     []string
	Accounts  []UserID
	DevicesOf []UserID
	Blocks    []BlockKey
	Meta      []string
}

// Locked holds the rows, position by position as Locks named them. A row that
// does not exist has its key set and Found false.
type Locked struct {
	// Now is the shard's clock (the database's, where there is one).
	Now       int64
	Convs     []ConvHead
	Users     []UserHead
	Sends     []SendRow
	UserConvs []UserConv
	Tasks     []Task
	Names     []NameRow
	Accounts  []Account
	Devices   [][]Device
	Blocks    []Block
	Meta      []MetaRow
}

// Writes is what a plan wants written: whole rows, insert or replace, and
// deletions. No key appears twice in one field.
type Writes struct {
	Convs      []ConvHead
	Users      []UserHead
	Entries    []Entry    // insert only
	Inbox      []InboxRow // insert only
	Sends      []SendRow  // insert only
	UserConvs  []UserConv
	Tasks      []Task
	Names      []NameRow // insert only
	Accounts   []Account
	Devices    []Device
	Blocks     []Block
	Slots      []SlotRow
	Meta       []MetaRow
	DelTasks   []TaskKey
	DelDevices []DeviceKey
	DelBlocks  []BlockKey
	// Trims delete inbox rows up to a floor; the plan also writes the head.
	Trims []Trim
	// DelSendsBefore, when above 0, deletes the dedupe rows of the named slots
	// whose send id was made before that time. It may keep up to a day more.
	DelSendsBefore int64
	DelSendsSlots  []Slot
}

// Trim deletes the rows of a user's inbox with seq ≤ Floor (R6).
type Trim struct {
	User  UserID
	Floor uint64
}

// Snap reads one snapshot. Slices and bodies belong to the caller. Lookups of
// what does not exist return Found false (or fewer rows), not an error.
type Snap interface {
	// Now is the shard's clock.
	Now() int64
	User(UserID) (UserHead, error)
	// UserHeads and UserConvRows are User and UserConv of many, position by
	// position, with as few looks as the engine can do it with.
	UserHeads([]UserID) ([]UserHead, error)
	UserConvRows([]UserConvKey) ([]UserConv, error)
	Conv(ConvKey) (ConvHead, error)
	// Inbox returns up to limit rows with seq > after, ascending.
	Inbox(user UserID, after uint64, limit int) ([]InboxRow, error)
	// OldestInbox returns the time of the first row, ok false if there is none.
	OldestInbox(UserID) (seq uint64, time int64, ok bool, err error)
	// Entries returns up to limit entries with from ≤ rev ≤ to, ascending, or
	// descending if desc, stopping once maxBytes of bodies are there (at least one).
	Entries(conv ConvKey, from, to uint64, limit, maxBytes int, desc bool) ([]Entry, error)
	UserConv(UserConvKey) (UserConv, error)
	// UserConvs pages through a user's conversations, by key, after `after`.
	UserConvs(user UserID, after *ConvKey, limit int) ([]UserConv, error)
	Name(string) (NameRow, error)
	Account(UserID) (Account, error)
	Devices(UserID) ([]Device, error)
	Block(BlockKey) (Block, error)
	// BlocksOf pages through a user's blocks by peer.
	BlocksOf(user, after UserID, limit int) ([]Block, error)
	// UsersFrom pages through the users of the snapshot's slots, ascending,
	// with id ≥ from.
	UsersFrom(from UserID, limit int) ([]UserID, error)
	// SlotRows returns every slot row of the shard.
	SlotRows() ([]SlotRow, error)
	// Export pages through everything that is kept under a slot, whatever the
	// slot's state: users, accounts, names, devices, blocks, inboxes and
	// user_convs by their user's slot, conversation heads, entries, dedupe
	// rows and tasks by their conversation's. Names are those of the accounts.
	// Rows are as they are kept (an inbox row that only points stays so), each
	// exactly once, in an order of the engine's; Found is true. Any engine's
	// Commit accepts a page as it is: Slots, Meta and deletions are empty.
	// after is nil for the first page, then what the page before returned as
	// next; next nil: that was the last page, which may be empty. A page has
	// about limit rows, fewer where bodies are large.
	Export(slot Slot, after []byte, limit int) (w Writes, next []byte, err error)
	Meta(string) (MetaRow, error)
}
