package fault

import (
	"context"
	"fmt"
)

// Part is something of a system that can be hit. Parts that are the same thing
// have the same name in all faults, so that a schedule can avoid to hit one
// twice at once.
type Part[T any] struct {
	Name string
	It   T
}

// On completes a fault: strike happens to one of the parts.
func On[T any](f Fault, parts []Part[T], strike func(ctx context.Context, it T) (Heal, error)) Fault {
	for _, p := range parts {
		f.Targets = append(f.Targets, p.Name)
	}
	f.Strike = func(ctx context.Context, target string) (Heal, error) {
		for _, p := range parts {
			if p.Name != target {
				continue
			}
			heal, err := strike(ctx, p.It)
			if err != nil {
				return nil, fmt.Errorf("fault %s on %s: %w", f.Name, target, err)
			}
			return named(f.Name, target, heal), nil
		}
		return nil, fmt.Errorf("fault %s: there is no %q; targets are %q", f.Name, target, f.Targets)
	}
	return f
}

// named makes a Heal that is never nil, and whose error says what could not be
// healed.
func named(fault, target string, heal Heal) Heal {
	return func(ctx context.Context) error {
		if heal == nil {
			return nil
		}
		if err := heal(ctx); err != nil {
			return fmt.Errorf("fault %s on %s: healing: %w", fault, target, err)
		}
		return nil
	}
}
