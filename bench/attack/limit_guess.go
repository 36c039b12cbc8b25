package attack

import (
	"fmt"
	"sync"
	"time"

	"github.com/hermod-im/hermod/proto"
)

// Guessing: passwords, names, device secrets.

const wrongPassword = "wrong horse battery"

// attackGuesses hammers one account from one address, and does not wait when
// told to.
func attackGuesses(s *scene) string {
	s.shared()
	owner := s.person()
	const rush = 40
	ip := s.someone()
	begun := time.Now()
	guesses := make([]int, rush)
	s.all(rush, func(i int) {
		switch f := s.dialFrom(ip, s.srv.Plain).enter(loggingIn(owner.name, wrongPassword)); {
		case f.GetWelcome() != nil:
			s.breach("a wrong password gets in")
		case codeOf(f) == unauthenticated:
			guesses[i] = 1
		}
	})
	looked := 0
	for _, n := range guesses {
		looked += n
	}
	if most := allowedGuesses(time.Since(begun)); looked > most {
		s.breach("%d of %d guesses at once were looked at, at most %d are allowed", looked, rush, most)
	}
	s.pause(time.Second) // the connections per second are another limit
	tries := rush
	for ; time.Since(begun) < s.hammer; tries++ {
		switch f := s.dialFrom(ip, s.srv.Plain).enter(loggingIn(owner.name, wrongPassword)); codeOf(f) {
		case unauthenticated:
			looked++
		case proto.ErrorCode_ERROR_CODE_TOO_MANY_ATTEMPTS:
		default:
			s.fail("a wrong password: %s", told(f))
		}
		s.pause(100 * time.Millisecond)
	}
	if most := allowedGuesses(time.Since(begun)); looked > most {
		s.breach("%d guesses were looked at in %s, at most %d are allowed", looked, secs(time.Since(begun)), most)
	}
	// The owner, elsewhere, does not pay for it.
	if f := owner.thief().enter(loggingIn(owner.name, password)); f.GetWelcome() == nil {
		s.breach("the owner is locked out by somebody else's guesses: %s", told(f))
	}
	return fmt.Sprintf("%d guesses in %s, %d were looked at", tries, secs(time.Since(begun)), looked)
}

// allowedGuesses is five at once, then after 1 s, 2 s more, 4 s more, … and one
// for a clock that ticked in between.
func allowedGuesses(d time.Duration) int {
	n := 5 + 1
	for wait := time.Second; d >= wait; wait *= 2 {
		d -= wait
		n++
	}
	return n
}

// attackNames wants to learn who has an account, by what is answered and by how
// long that takes.
func attackNames(s *scene) string {
	s.shared()
	ask := func(name string) (took time.Duration, words string) {
		w := s.dial()
		begun := time.Now()
		f := w.enter(loggingIn(name, wrongPassword))
		if codeOf(f) != unauthenticated {
			s.breach("a wrong password: %s", told(f))
		}
		return time.Since(begun), f.GetError().String()
	}
	var known, unknown time.Duration
	for i := range 40 {
		a, wordsA := ask(s.person().name)
		b, wordsB := ask(s.name("nobody"))
		if wordsA != wordsB {
			s.breach("a name that exists gets %q, another one %q", wordsA, wordsB)
		}
		// The least of several, since noise only adds.
		if known == 0 || a < known {
			known = a
		}
		if unknown == 0 || b < unknown {
			unknown = b
		}
		if i >= 4 && known < unknown*5/4 && unknown < known*5/4 {
			return fmt.Sprintf("the same words; %.1f ms for a known name, %.1f ms for an unknown one", ms(known), ms(unknown))
		}
	}
	s.breach("%.1f ms for a known name, %.1f ms for an unknown one", ms(known), ms(unknown))
	return ""
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// attackSecrets guesses device secrets of a known device, and of nobody's.
func attackSecrets(s *scene) string {
	s.shared()
	owner := s.person()
	const tries = 100
	s.all(4, func(i int) {
		for range tries / 4 {
			w := owner.again()
			if i%2 == 0 {
				w.out("a guessed secret", bySecret(owner.dev.user, random(32), random(32)), unauthenticated)
			} else {
				w.out("a secret of nobody", bySecret(owner.dev.user^1<<20, random(32), random(32)), unauthenticated)
			}
		}
	})
	owner.again().in(bySecret(owner.dev.user, owner.dev.secret, random(32))).lives("the owner's own secret")
	return fmt.Sprintf("%d guesses of 256 bits, all UNAUTHENTICATED; the right one works", tries)
}

// attackHashes has hundreds register at once, each from an address of its own:
// every one would cost a password hash.
func attackHashes(s *scene) string {
	s.own(Wish{})
	inside, friend := s.person(), s.person()
	const storm = 400
	var in, wait, rest int
	var mu sync.Mutex
	left := func() int {
		mu.Lock()
		defer mu.Unlock()
		return storm - in - wait - rest
	}
	slowest := time.Duration(0)
	s.all(storm+1, func(i int) {
		for i == storm && left() > 0 {
			begun := time.Now()
			inside.says(friend.dev.user, "in the storm")
			slowest = max(slowest, time.Since(begun))
			s.pause(50 * time.Millisecond)
		}
		if i == storm {
			return
		}
		f := s.dial().enter(registering(s.name("storm")))
		mu.Lock()
		defer mu.Unlock()
		switch {
		case f.GetWelcome() != nil:
			in++
		case codeOf(f) == proto.ErrorCode_ERROR_CODE_OVERLOADED && f.GetError().RetryAfterMs > 0:
			wait++
		default:
			rest++
		}
	})
	if slowest > s.revoked || wait == 0 {
		s.breach("%d of %d registrations at once were taken, %d told to wait; a message took %s meanwhile", in, storm, wait, secs(slowest))
	}
	return fmt.Sprintf("of %d at once %d got in, %d were told to wait; the slowest message meanwhile took %.0f ms", storm, in, wait, ms(slowest))
}
