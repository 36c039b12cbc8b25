package proto

import (
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"math/bits"
	"os"
	"regexp"
	"strconv"
	"strings"
	"testing"
)

func readme(t *testing.T) string {
	t.Helper()
	raw, err := os.ReadFile("README.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(raw)
}

// The hex in the specification is that of the vector it names.
func TestReadmeExamples(t *testing.T) {
	want := map[string]string{}
	for _, v := range load[frameVector](t, "frames.json") {
		want[v.Name] = v.Hex
	}
	blocks := regexp.MustCompile("(?s)<!-- vector: (.*?) -->\n```hex\n(.*?)```").FindAllStringSubmatch(readme(t), -1)
	if len(blocks) < 2 {
		t.Fatalf("%d examples found", len(blocks))
	}
	for _, b := range blocks {
		var got strings.Builder
		for line := range strings.Lines(b[2]) {
			data, _, _ := strings.Cut(line, ";")
			got.WriteString(strings.Join(strings.Fields(data), ""))
		}
		if got.String() != want[b[1]] {
			t.Errorf("example %q:\n got %s\nwant %s", b[1], got.String(), want[b[1]])
		}
	}
}

// codeTable renders the code table for the specification.
func codeTable() string {
	var b strings.Builder
	b.WriteString("| code | name | closes | retryable | wait | what a client does |\n| --- | --- | --- | --- | --- | --- |\n")
	yes := map[bool]string{true: "yes"}
	for _, c := range Codes() {
		wait := ""
		if c.RetryAfter > 0 {
			wait = c.RetryAfter.String()
		}
		fmt.Fprintf(&b, "| %d | `%s` | %s | %s | %s | %s |\n", c.Code, c.Code.Short(), yes[c.Closes], yes[c.Retryable], wait, c.Do)
	}
	return b.String()
}

func TestReadmeErrorCodes(t *testing.T) {
	text := readme(t)
	m := regexp.MustCompile("(?s)(<!-- begin: error codes[^\n]*-->\n)(.*?)(<!-- end: error codes -->)").FindStringSubmatchIndex(text)
	if m == nil {
		t.Fatal("the markers of the table are gone")
	}
	if *update {
		text = text[:m[4]] + codeTable() + text[m[5]:]
		if err := os.WriteFile("README.md", []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
		return
	}
	if text[m[4]:m[5]] != codeTable() {
		t.Errorf("the table of error codes is stale: go test ./proto -update")
	}
}

// Every code, request and body that the .proto files have is spoken of.
func TestReadmeIsComplete(t *testing.T) {
	text := readme(t)
	fields := (*Frame)(nil).ProtoReflect().Descriptor().Oneofs().Get(0).Fields()
	for i := range fields.Len() {
		name := string(fields.Get(i).Message().Name())
		if !regexp.MustCompile("`" + name + "[`{]").MatchString(text) {
			t.Errorf("`%s` is not mentioned", name)
		}
	}
	// What is in backticks and looks like a code is one.
	known := map[string]bool{}
	for _, names := range []map[string]int32{ErrorCode_value, ResetReason_value, GoAwayReason_value, SecurityKind_value, ContentKind_value, Durability_value} {
		for name := range names {
			for _, prefix := range []string{"ERROR_CODE_", "RESET_REASON_", "GO_AWAY_REASON_", "SECURITY_KIND_", "CONTENT_KIND_", "DURABILITY_"} {
				if short, ok := strings.CutPrefix(name, prefix); ok {
					known[short] = true
				}
			}
		}
	}
	for _, allowed := range []string{"MORE", "TCP_NODELAY"} {
		known[allowed] = true
	}
	for _, m := range regexp.MustCompile("`([A-Z][A-Z_]{2,})`").FindAllStringSubmatch(text, -1) {
		if !known[m[1]] {
			t.Errorf("`%s` is no code", m[1])
		}
	}
}

// Links within the document, and from the vectors to it, lead somewhere.
func TestReadmeSections(t *testing.T) {
	text := readme(t)
	titles, anchors := map[string]bool{}, map[string]bool{}
	for _, m := range regexp.MustCompile(`(?m)^#+ (.+)$`).FindAllStringSubmatch(text, -1) {
		titles[m[1]] = true
		anchors[strings.ReplaceAll(strings.ToLower(regexp.MustCompile(`[^\w\s-]`).ReplaceAllString(m[1], "")), " ", "-")] = true
	}
	for _, m := range regexp.MustCompile(`\]\(#([^)]+)\)`).FindAllStringSubmatch(text, -1) {
		if !anchors[m[1]] {
			t.Errorf("link to #%s, which is no section", m[1])
		}
	}
	check := func(name, spec string) {
		if !titles[spec] {
			t.Errorf("vector %q illustrates %q, which is no section", name, spec)
		}
	}
	for _, v := range load[frameVector](t, "frames.json") {
		check(v.Name, v.Spec)
	}
	for _, v := range load[contentVector](t, "contents.json") {
		check(v.Name, v.Spec)
	}
	for _, v := range load[lenientVector](t, "lenient.json") {
		check(v.Name, v.Spec)
	}
	for _, v := range load[badVector](t, "bad.json") {
		check(v.Name, v.Spec)
	}
}

// pairFromReadme follows the description of the pair's key word by word.
func pairFromReadme(a, b uint64) string {
	lo, hi := min(a, b), max(a, b)
	x := lo ^ bits.RotateLeft64(hi, 32)
	x = (x ^ (x >> 30)) * 0xbf58476d1ce4e5b9
	x = (x ^ (x >> 27)) * 0x94d049bb133111eb
	x ^= x >> 31
	if x%2 == 1 {
		lo, hi = hi, lo
	}
	return hex.EncodeToString(binary.BigEndian.AppendUint64(binary.BigEndian.AppendUint64(nil, lo), hi))
}

func TestReadmePairKeys(t *testing.T) {
	_, table, ok := strings.Cut(readme(t), "<!-- pairs -->\n")
	if !ok {
		t.Fatal("the table of pairs is gone")
	}
	table, _, _ = strings.Cut(table, "\n\n")
	rows := regexp.MustCompile("\\| (\\d+) \\| (\\d+) \\| `([0-9a-f]{32})` \\|").FindAllStringSubmatch(table, -1)
	if len(rows) < 2 {
		t.Fatalf("%d pairs found", len(rows))
	}
	for _, row := range rows {
		a, errA := strconv.ParseUint(row[1], 10, 63)
		b, errB := strconv.ParseUint(row[2], 10, 63)
		if errA != nil || errB != nil {
			t.Fatal(errA, errB)
		}
		if got := pairFromReadme(a, b); got != row[3] || pairFromReadme(b, a) != got {
			t.Errorf("pair(%d, %d) = %s, the table has %s", a, b, got, row[3])
		}
	}
}
