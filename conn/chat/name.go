package chat

import (
	"strings"
	"unicode"
	"unicode/utf8"

	"golang.org/x/text/cases"
	"golang.org/x/text/unicode/norm"

	"github.com/hermod-im/hermod/proto"
)

// Account names have 3 to 32 characters, counted after normalization.
const (
	minName      = 3
	maxName      = 32
	maxNameBytes = 256 // as typed: refused before any work
	maxMarks     = 2   // combining marks on one letter
)

// normalizeName returns the one spelling of a name that is stored and looked
// up: NFKC, then full case folding, repeated until nothing changes, since
// folding may undo normalization. What is left must be letters, digits and
// ". _ -", begin with a letter or digit, and not mix alphabets whose letters
// look alike. Anything invisible, control or direction characters are outside
// of that. The error is a NAME_INVALID fault that says what to change.
func normalizeName(s string) (string, error) {
	if len(s) > maxNameBytes {
		return "", nameFault("it has more than %d characters", maxName)
	}
	if !utf8.ValidString(s) {
		return "", nameFault("it is not UTF-8")
	}
	name, ok := foldName(s)
	if !ok {
		return "", nameFault("it has no stable spelling")
	}
	switch n := utf8.RuneCountInString(name); {
	case n < minName:
		return "", nameFault("it has less than %d characters", minName)
	case n > maxName:
		return "", nameFault("it has more than %d characters", maxName)
	}
	if err := checkNameRunes(name); err != nil {
		return "", err
	}
	return name, nil
}

func nameFault(format string, args ...any) error {
	f := proto.Errorf(proto.ErrorCode_ERROR_CODE_NAME_INVALID, format, args...)
	f.Msg = "bad account name: " + f.Msg
	return f
}

// foldName fails for the few strings that do not settle.
func foldName(s string) (string, bool) {
	for range 4 {
		next := norm.NFKC.String(cases.Fold().String(norm.NFKC.String(s)))
		if next == s {
			return s, true
		}
		if len(next) > 4*maxNameBytes { // one code point may become 18
			return "", false
		}
		s = next
	}
	return "", false
}

func checkNameRunes(name string) error {
	marks := 0
	prev := '.'
	for i, r := range name {
		switch {
		case r == '.' || r == '_' || r == '-':
			if i == 0 {
				return nameFault("it must begin with a letter or a digit")
			}
			if r == '.' && prev == '.' {
				return nameFault("two dots in a row")
			}
		case unicode.Is(unicode.Other_Default_Ignorable_Code_Point, r) || unicode.Is(unicode.Variation_Selector, r):
			return nameFault("U+%04X is invisible", r)
		case unicode.IsMark(r):
			if marks++; marks > maxMarks || i == 0 || strings.ContainsRune("._-", prev) || unicode.Is(unicode.Nd, prev) {
				return nameFault("a combining mark without its letter, or more than %d on one", maxMarks)
			}
			prev = r
			continue
		case unicode.IsLetter(r), unicode.Is(unicode.Nd, r):
		default:
			return nameFault("U+%04X is not allowed; use letters, digits, and . _ -", r)
		}
		marks, prev = 0, r
	}
	if prev == '.' {
		return nameFault("it must not end with a dot")
	}
	return checkNameScripts(name)
}

// checkNameScripts refuses names that mix alphabets with letters that look the
// same, such as Latin and Cyrillic "a". Whole words that look alike in two
// alphabets remain: that takes a table of confusables and a policy.
func checkNameScripts(name string) error {
	alike := [...]*unicode.RangeTable{unicode.Latin, unicode.Cyrillic, unicode.Greek, unicode.Armenian, unicode.Cherokee}
	var seen *unicode.RangeTable
	for _, r := range name {
		for _, t := range alike {
			if !unicode.Is(t, r) {
				continue
			}
			if seen != nil && seen != t {
				return nameFault("it mixes alphabets that look alike")
			}
			seen = t
		}
	}
	return nil
}
