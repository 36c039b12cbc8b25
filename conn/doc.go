// Package conn is the edge: it holds the clients' TCP connections and turns
// bytes into frames for a Handler and frames into bytes. It knows no accounts,
// no messages and no storage.
//
//	s, err := conn.Start(conn.Options{
//		Listeners: []conn.Listener{{Addr: "127.0.0.1:5100"}, {Addr: ":5101", Mode: conn.TLS, TLS: certs}},
//		Handler:   h,
//	})
//
// # The way of a frame
//
// A gnet loop reads, finds whole frames in place (session.read), decodes them,
// and puts them into the connection's mailbox (session.admit). One of a few
// workers takes them out and calls the Handler, one frame at a time and in
// order per connection. What the Handler sends goes into the outbox of a
// Conn, as bytes; the first one marks the Conn and wakes its loop, the loop
// looks at all marked connections at once, encrypts, and writes once for each.
// Nothing on this way blocks, and an idle connection holds no buffer, no goroutine
// and no channel: see Conn.
//
// Who may touch what: fields of a Conn belong to its loop, or are atomic, or
// are under Conn.mu; the struct says which. No lock is held while calling out.
//
// # Life of a connection
//
//	OnOpen: accept guard ── proxy: header ─┐
//	          │            ── tls: handshake ┤
//	          └── plain ─────────────────────┴─ hello ─ login ─ live ─ closing
//
// hello: the first frame must be a Hello of at most 4 KiB. login: the Handler
// has it; whatever else arrives stays unread in gnet's buffer, at most
// Limits.LoginBytes. live: from Conn.Accept and the Reply to Hello on. closing: the last frames are
// on their way, then FIN, then we wait for the client's FIN for at most
// Limits.CloseGrace, because closing a socket with unread input is a reset and
// would take the client's last frames (its Error) with it. A client's own FIN
// ends the connection at once: gnet knows no half-closed one.
//
// # Bounds
//
// gnet cannot pause reading, so what a client may cost is bounded by refusing:
// requests hold credits (BUSY), frames a rate (RATE_LIMITED), and who goes on is
// closed. gnet's own write buffer has no bound, so it is given an outbox only
// when it is empty; both together are capped (SLOW_CONSUMER). gnet has no
// deadlines, so each loop has a timing wheel. gnet does not recover, so every
// callback does; a panic costs the one connection.
//
// The engine runs with SO_REUSEPORT. In gnet's other mode one goroutine
// empties the accept queue before anybody is asked, runs into EMFILE, and gnet shuts
// down; in this mode each loop accepts one connection and asks at once,
// so the guard is exact. For what that needs, see bind.
//
// # TLS
//
// crypto/tls runs over memory. A handshake has a goroutine, started only when
// the whole ClientHello is there; afterwards records are decrypted and
// encrypted on the loop, because crypto/tls does not remember a Temporary error of its
// transport between records. Whole records only are fed, so that nothing is left
// inside crypto/tls between two reads, and its buffers can be the loop's (see tlsPeek).
package conn
