package chat

import (
	"errors"
	"fmt"
	"runtime"
	"time"
)

// Argon2 sets what a password hash costs, and how many may run at once. The
// cost is kept with each hash, so it can be changed at any time: an old hash
// is renewed at the next login.
type Argon2 struct {
	// MemoryKiB per hash; default 19 MiB (OWASP), at most 1 GiB.
	MemoryKiB uint32
	// Passes over that memory; default 2.
	Passes uint32
	// Lanes is the parallelism inside one hash; default 1.
	Lanes uint8
	// Workers is how many hashes run at once; default one a CPU.
	Workers int
	// Queue is how many more may wait before OVERLOADED; default 64 a worker.
	Queue int
}

// withDefaults fills what is 0.
func (o Argon2) withDefaults() Argon2 {
	if o.MemoryKiB == 0 {
		o.MemoryKiB = 19 << 10
	}
	if o.Passes == 0 {
		o.Passes = 2
	}
	if o.Lanes == 0 {
		o.Lanes = 1
	}
	if o.Workers == 0 {
		o.Workers = runtime.NumCPU()
	}
	if o.Queue == 0 {
		o.Queue = 64 * o.Workers
	}
	return o
}

// Validate names the first value that cannot work.
func (o Argon2) Validate() error {
	switch {
	case o.MemoryKiB < 8*uint32(o.Lanes) || o.MemoryKiB > maxArgon2KiB:
		return fmt.Errorf("chat: Argon2.MemoryKiB is %d, must be %d … %d", o.MemoryKiB, 8*uint32(o.Lanes), maxArgon2KiB)
	case o.Passes < 1 || o.Passes > maxArgon2Passes:
		return fmt.Errorf("chat: Argon2.Passes is %d, must be 1 … %d", o.Passes, maxArgon2Passes)
	case o.Lanes < 1:
		return errors.New("chat: Argon2.Lanes is 0")
	case o.Workers < 1 || o.Queue < 1:
		return errors.New("chat: Argon2.Workers and Queue must be above 0")
	}
	return nil
}

// Tokens sets the access tokens and where their signing keys are.
type Tokens struct {
	// Dir holds the keys, token-*.pem; it and a first key are made if missing.
	Dir string
	// Life of a token, 15 … 60 min; default 30 min.
	Life time.Duration
	// Leeway for clocks of other nodes that differ; default 5 s, at most 1 min.
	Leeway time.Duration
}

func (o Tokens) withDefaults() Tokens {
	if o.Life == 0 {
		o.Life = 30 * time.Minute
	}
	if o.Leeway == 0 {
		o.Leeway = 5 * time.Second
	}
	return o
}

// Validate names the first value that cannot work.
func (o Tokens) Validate() error {
	switch {
	case o.Dir == "":
		return errors.New("chat: Tokens.Dir is missing: the folder of the signing keys")
	case o.Life < 15*time.Minute || o.Life > time.Hour:
		return fmt.Errorf("chat: Tokens.Life is %v, must be 15m … 1h", o.Life)
	case o.Leeway < 0 || o.Leeway > time.Minute:
		return fmt.Errorf("chat: Tokens.Leeway is %v, must be 0 … 1m", o.Leeway)
	}
	return nil
}

// maxDevices is how many surely fit into one Devices frame.
const maxDevices = 200

// Accounts sets the limits of accounts and devices.
type Accounts struct {
	// Devices that may be logged in to one account; default 50, at
	// most 200.
	Devices int
	// Blocks that one account may hold; default 10,000.
	Blocks int
	// Tracked is how many pairs of account and IP, and how many IPs, the
	// tables of attempts remember; default 65,536, about 100 bytes each.
	Tracked int
}

func (o Accounts) withDefaults() Accounts {
	if o.Devices == 0 {
		o.Devices = 50
	}
	if o.Blocks == 0 {
		o.Blocks = 10_000
	}
	if o.Tracked == 0 {
		o.Tracked = 64 << 10
	}
	return o
}

// Validate names the first value that cannot work.
func (o Accounts) Validate() error {
	switch {
	case o.Blocks < 1 || o.Tracked < 1:
		return errors.New("chat: Accounts.Blocks and Tracked must be above 0")
	case o.Devices < 1 || o.Devices > maxDevices:
		return fmt.Errorf("chat: Accounts.Devices is %d, must be 1 … %d", o.Devices, maxDevices)
	}
	return nil
}
