// Package peer links the nodes of a fleet.
package peer
