package attack

import "time"

// pace is how long things take: the limits of the release, and how long a
// script waits for what has to happen, on a machine that has other things to
// do. Only the package's own test, whose server keeps no limit, has another.
type pace struct {
	firstByte, login, partialFrame, stall time.Duration
	// revoked is how long a revoked session may live, partitioned the same on a
	// node that hears nothing of the others.
	revoked, partitioned time.Duration
	// hammer is how long passwords are guessed.
	hammer time.Duration
	// patience bounds every wait; a connection lives for three of them at most.
	patience time.Duration
}

func releasePace() pace {
	return pace{
		firstByte: 5 * time.Second, login: 10 * time.Second, partialFrame: 15 * time.Second, stall: 30 * time.Second,
		revoked: 5 * time.Second, partitioned: time.Minute,
		hammer: 12 * time.Second, patience: 20 * time.Second,
	}
}
