package storage

// The rows that an engine keeps. Times are int64 microseconds since 1970 UTC.
// Payloads (Body, Auth, Profile, Info) are opaque to storage and engines.

// ConvHead is the head of a conversation's log, locked by every write to it.
type ConvHead struct {
	Conv ConvKey
	// Generation is random, made with the head, never changed (R7).
	Generation uint64
	// Rev and ConvSeq are those of the newest entry; 0: none yet.
	Rev, ConvSeq uint64
	// LastTime is the newest entry's time; times never run backwards (§3).
	LastTime int64
	// MemberVersion rises with every change of membership (R3). Pairs keep 0.
	MemberVersion uint64
	// Found is false for a head that did not exist when it was locked.
	Found bool
}

// UserHead is the head of a user's inbox, made at registration, never deleted.
type UserHead struct {
	User UserID
	// Seq is the newest inbox seq; Floor the highest one deleted by retention.
	Seq, Floor uint64
	// InboxEpoch is random; a restore gives a new one (R7).
	InboxEpoch uint64
	// TokenGen rises with every revocation: older access tokens end.
	TokenGen uint64
	// LoginEpoch rises with every first login of a device; SlotEpochs holds,
	// per device slot (1 … 6, index 0 unused), the newest one's.
	LoginEpoch uint64
	SlotEpochs [7]uint64
	Found      bool
}

// Entry is one entry of a conversation's log.
type Entry struct {
	Conv         ConvKey
	Rev, ConvSeq uint64
	Time         int64
	Sender       UserID
	// Kind is the caller's own numbering, above 0.
	Kind uint16
	// SendID is zero where no client made one.
	SendID [16]byte
	Body   []byte
}

// InboxRow is one row of a user's inbox: it points to an entry, and may carry it.
type InboxRow struct {
	User UserID
	Seq  uint64
	// The entry it points to. Entry.Body is nil where the row is a pointer
	// only (Inline false); the other fields are always there.
	Entry  Entry
	Inline bool
}

// SendKey is the scope of exactly-once (§1.2).
type SendKey struct {
	Conv   ConvKey
	Sender UserID
	SendID [16]byte
}

// SendRow remembers a send for 29 days, so that a retry gets the first result.
type SendRow struct {
	Key          SendKey
	Hash         [16]byte // of kind and body
	Rev, ConvSeq uint64
	Time         int64
	Found        bool
}

// UserConvKey names one user's view of a conversation.
type UserConvKey struct {
	User UserID
	Conv ConvKey
}

// UserConv is one user's view of a conversation, on the user's shard. All
// marks are conv_seqs except HeadRev, the newest rev this inbox has (R4).
type UserConv struct {
	Key       UserConvKey
	HeadRev   uint64
	Head      uint64
	Read      uint64
	OwnSent   uint64
	Cleared   uint64
	Joined    uint64 // first conv_seq the user may see; 0 or 1: from the start
	Delivered uint64 // some device of User has everything up to here
	HeadTime  int64
	Found     bool
}

// Unread counts the messages the user has neither read nor sent (§3).
func (c *UserConv) Unread() uint64 {
	seen := max(c.Read, c.OwnSent, c.Cleared)
	if c.Joined > 0 {
		seen = max(seen, c.Joined-1)
	}
	if c.Head <= seen {
		return 0
	}
	return c.Head - seen
}

// NameRow maps a normalized account name to its user; unique on its shard,
// and thereby everywhere, because the name decides the slot.
type NameRow struct {
	Name  string
	User  UserID
	Found bool
}

// Account is what a user is, beyond the inbox.
type Account struct {
	User    UserID
	Name    string // normalized
	Created int64
	Auth    []byte // the caller's: password hash and its parameters
	Profile []byte // the caller's
	Found   bool
}

// DeviceKey names a device of a user.
type DeviceKey struct {
	User UserID
	ID   [16]byte
}

// Device is one logged-in installation.
type Device struct {
	Key        DeviceKey
	Slot       uint8 // 1 … 6
	LoginEpoch uint64
	// SecretHash is the hash of the current secret, PrevHash of the one before.
	SecretHash, PrevHash [32]byte
	Created, LastSeen    int64
	// AckedSeq is the inbox cursor that the device last acknowledged.
	AckedSeq uint64
	Info     []byte // the caller's: platform, model, versions
}

// BlockKey says that User does not want to hear from Peer.
type BlockKey struct{ User, Peer UserID }

// Block is a block and when it was made.
type Block struct {
	Key   BlockKey
	Time  int64
	Found bool
}

// ShardID names a shard for good.
type ShardID uint32

// NodeID names a node for good (kept in its data folder); a node's Incarnation
// rises at every start.
type NodeID uint64

// TaskKey names the delivery of one conversation's entries to one other shard.
type TaskKey struct {
	Conv   ConvKey
	Target ShardID
}

// Task says that entries NextRev … ToRev of Conv are still to be delivered to
// the recipients that live on Target (R4).
type Task struct {
	Key            TaskKey
	NextRev, ToRev uint64
	Owner          NodeID
	Incarnation    uint64
	Found          bool
}

// SlotState says what a shard may do with a slot.
type SlotState uint8

const (
	// SlotAbsent: the shard does not own the slot.
	SlotAbsent SlotState = iota
	// SlotOwned: reads and writes.
	SlotOwned
	// SlotFrozen: on its way elsewhere; nothing but the mover touches it.
	SlotFrozen
)

// SlotRow is a shard's claim on a slot (R5).
type SlotRow struct {
	Slot  Slot
	State SlotState
	Epoch uint64
}

// SlotRef is a slot and the epoch at which the caller believes to know it.
type SlotRef struct {
	Slot  Slot
	Epoch uint64
}

// MetaRow is a named value that belongs to the shard itself.
type MetaRow struct {
	Name  string
	Value []byte
	Found bool
}
