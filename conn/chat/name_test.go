package chat

import (
	"strings"
	"testing"
	"unicode/utf8"

	"github.com/hermod-im/hermod/proto"
)

func TestNormalizeName(t *testing.T) {
	for _, tt := range []struct{ in, want string }{
		{"bob", "bob"},
		{"Bob", "bob"},
		{"BOB_1.2-3", "bob_1.2-3"},
		{"ｆｕｌｌ", "full"},         // full width
		{"ﬁne", "fine"},          // ligature
		{"STRASSE", "strasse"},   //
		{"straße", "strasse"},    // full folding
		{"Ångström", "ångström"}, // composed
		{"Ångström", "ångström"}, // decomposed
		{"ΣΊΣΥΦΟΣ", "σίσυφοσ"},   // final sigma folds
		{"张伟一", "张伟一"},
		{"мария", "мария"},
		{"नमस्ते", "नमस्ते"}, // marks belong to the script
		{"13800001111", "13800001111"},
		{strings.Repeat("a", 32), strings.Repeat("a", 32)},
	} {
		got, err := normalizeName(tt.in)
		if err != nil || got != tt.want {
			t.Errorf("normalizeName(%q) = %q, %v; want %q", tt.in, got, err, tt.want)
		}
	}
}

func TestNormalizeNameRefuses(t *testing.T) {
	for what, in := range map[string]string{
		"empty":               "",
		"short":               "ab",
		"short once folded":   "a\u0301b", // á is one character
		"long":                strings.Repeat("a", 33),
		"long once folded":    strings.Repeat("ß", 17),
		"huge":                strings.Repeat("a", 10_000),
		"not UTF-8":           "bob\xff",
		"space":               "bob smith",
		"trailing space":      "bob ",
		"no-break space":      "bob\u00a0smith",
		"zero width space":    "bob\u200b",
		"zero width joiner":   "bob\u200d",
		"ideographic space":   "bob\u3000x",
		"newline":             "bob\n",
		"NUL":                 "bob\x00",
		"right to left":       "bob\u202etxt",
		"isolate":             "bob\u2066x",
		"soft hyphen":         "bo\u00adb",
		"byte order mark":     "\ufeffbob",
		"hangul filler":       "bob\u3164",
		"variation selector":  "bob\ufe0f",
		"braille blank":       "bob\u2800",
		"emoji":               "bob😀",
		"at":                  "bob@host",
		"slash":               "bob/x",
		"leading dot":         ".bob",
		"leading dash":        "-bob",
		"trailing dot":        "bob.",
		"two dots":            "bob..x",
		"mark without letter": "\u0301bob",
		"mark on a digit":     "bob1\u0338x",
		"pile of marks":       "bo\u0332\u0333\u0347b",
		"Cyrillic in Latin":   "p\u0430ypal",
		"Greek in Latin":      "\u03bfbama",
		"superscript slash":   "a\u2044b",
	} {
		if got, err := normalizeName(in); proto.CodeOf(err) != proto.ErrorCode_ERROR_CODE_NAME_INVALID {
			t.Errorf("%s: normalizeName(%q) = %q, %v; want NAME_INVALID", what, in, got, err)
		}
	}
}

// FuzzName: whatever is accepted is its own only spelling, within the limits,
// and the same for every way to write it that folding joins.
func FuzzName(f *testing.F) {
	for _, s := range []string{"bob", "Ångström", "straße", "ﷺ", "ǅabc", "İstanbul", "a\u0345bc", "\u1e9e\u1e9e\u1e9e", "नमस्ते", "bob\u200b"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		name, err := normalizeName(s)
		if err != nil {
			if proto.CodeOf(err) != proto.ErrorCode_ERROR_CODE_NAME_INVALID {
				t.Fatalf("%q: %v", s, err)
			}
			return
		}
		if again, err := normalizeName(name); err != nil || again != name {
			t.Fatalf("%q → %q → %q, %v: not stable", s, name, again, err)
		}
		if n := utf8.RuneCountInString(name); n < minName || n > maxName || !plainText(name) || strings.ContainsAny(name, " \t\n@/\\") {
			t.Fatalf("%q → %q breaks the rules", s, name)
		}
		if upper, err := normalizeName(strings.ToUpper(name)); err == nil && upper != name && strings.ToLower(strings.ToUpper(name)) == name {
			t.Fatalf("%q and its upper case differ: %q", name, upper)
		}
	})
}
