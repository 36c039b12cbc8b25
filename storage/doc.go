// Package storage keeps what is true: conversations, inboxes, accounts and the
// deliveries still owed, on one or many shards.
package storage
