package router

// Run names one run of a node. What an earlier run of it held is gone.
type Run struct{ Node, Incarnation uint64 }

// Run is the run that has the connection.
func (r Ref) Run() Run { return Run{r.Node, r.Incarnation} }

// Place is a connection as the directory names it within its node.
type Place struct {
	User int64
	Slot Slot
	Conn uint64
}

// Forwarded is a delivery or a hint for a user who is attached elsewhere.
type Forwarded struct {
	User int64
	// Seq and Event are a Delivery's; of a Hint, Event is its frame.
	Seq   uint64
	Event []byte
	Hint  bool
	// Routes are all of the user's routes, those on other nodes too.
	Routes []Route
}

// Peers carries things to other nodes: router/peer, over its links. No method
// blocks, none keeps a slice or the bytes in it, and what cannot be taken is
// dropped and counted there. Things for one run arrive in the order given.
type Peers interface {
	Forward(to Run, batch []Forwarded)
	Kick(to Run, at Place, newLogin bool)
}

// Arrived is what came from another node in one go. It is valid during the
// call only, the bytes included: they are the buffer it was read into.
type Arrived struct {
	Deliveries []Delivery
	Hints      []Hint
	// Places is where the sender's directory has the users of Deliveries.
	Places []Place
}

// Receiver takes what other nodes send. Router is one. No method blocks.
type Receiver interface {
	// Receive pushes to the sessions of this node and never any further. It
	// appends to gone the places that are not here.
	Receive(a *Arrived, gone []Place) []Place
	// ReceiveKick ends a connection of this node; false: it is not here.
	ReceiveKick(at Place, newLogin bool) bool
	// NotHere takes what Receive found gone on another node.
	NotHere(from Run, gone []Place)
}
