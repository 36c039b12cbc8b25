// Package client is the reference client of Hermod: one device's session over
// as many connections as it takes. The tests, the load tool and the terminal
// client are built on it, and whoever writes a client in another language may
// read it beside the specification (proto/README.md).
//
//	c, err := client.Dial(ctx, client.Options{
//		Endpoints:   []string{"127.0.0.1:5100"},
//		Credentials: client.Credentials{Name: "ann", Password: "…"},
//		Store:       client.FileStore{Path: "session.json"},
//		OnEvents:    func(c *client.Client, events []*proto.Event) { … },
//	})
//	ack, err := c.Send(ctx, client.User(id), client.Text("hello"))
//
// # What it takes care of
//
// Connections (run.go, link.go): endpoints in turn, TLS 1.3 and pins, full
// jitter, the server's hints (retry_after, GoAway), heartbeats. It stops for
// good (Closed, Err) when the server says that coming back would not help:
// KICKED, REPLACED, REVOKED, UNSUPPORTED_VERSION, UNAUTHENTICATED, and whatever
// makes a login or registration fail for good. To go on, make a new Client.
//
// Login (hello.go): name and password once, then the access token while it
// holds, else the device secret, whose successor is stored before it is sent.
//
// Events (inbox.go): in seq order, without gaps, each applied once, then the
// cursor is stored, then acknowledged. A gap is fetched by Sync. A Reset has
// the application rebuild and then goes on.
//
// Messages (outbox.go): one id for good, kept until the server says yes or no,
// in order per conversation, many on the way at a time. The outbox is in
// memory; an application that must not lose messages with its process stores
// NewSendID and the content first, and calls SendWithID again after a restart.
//
// Other requests (requests.go) wait until the client is online and, where it
// does no harm, are repeated until Options.RequestTimeout or the context ends.
//
// # What it costs
//
// An idle client has one goroutine, a 4 KiB read buffer and a place on the
// wheel of its Pool; thousands of clients share one Pool. Two more goroutines
// come and go with the traffic: one writes, one runs callbacks.
package client
