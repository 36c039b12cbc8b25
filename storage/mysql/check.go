package mysql

import (
	"context"
	"database/sql"
	"fmt"
	"strconv"
	"strings"
	"time"
)

// A Finding is something about the database server that an operator should
// know.
type Finding struct {
	// Fatal: a shard must not run like this.
	Fatal bool
	// Variable is what to change, where there is one.
	Variable string
	// Text says what is wrong, and what to do.
	Text string
}

func (f Finding) String() string {
	if f.Variable == "" {
		return f.Text
	}
	return f.Variable + ": " + f.Text
}

// maxSkew is how far the clocks of a database and a node may differ before it
// is worth a word: leases and send ids go by them.
const maxSkew = 2 * time.Second

// minPacket takes a batch of the largest messages, in hexadecimal.
const minPacket = 16 << 20

// rules look at the server's variables. A variable that a server does not have
// is "".
var rules = []struct {
	variable string
	wrong    func(v map[string]string) bool
	fatal    bool
	text     string
}{
	{"innodb_flush_log_at_trx_commit", func(v map[string]string) bool {
		return v["innodb_flush_log_at_trx_commit"] != "1" && v["innodb_flush_log_at_trx_commit"] != "3" // MariaDB has a 3, which does more
	}, false,
		"is not 1: an acknowledged message is lost when the machine of the database dies. Set it to 1."},
	{"sync_binlog", func(v map[string]string) bool { return on(v["log_bin"]) && v["sync_binlog"] != "1" }, false,
		"is not 1: after a crash replicas and the recovered server may lack acknowledged messages. Set it to 1."},
	{"innodb_doublewrite", func(v map[string]string) bool {
		return off(v["innodb_doublewrite"]) || strings.EqualFold(v["innodb_doublewrite"], "DETECT_ONLY")
	}, false,
		"is off: a power cut in the middle of a page destroys what was acknowledged before, unless the file system writes pages atomically."},
	{"binlog_format", func(v map[string]string) bool {
		return on(v["log_bin"]) && strings.EqualFold(v["binlog_format"], "STATEMENT")
	}, true, "is STATEMENT, which transactions at READ COMMITTED cannot be written with. Set it to ROW."},
	{"read_only", func(v map[string]string) bool { return v["read_only"] != "" && !off(v["read_only"]) }, true,
		"is on: this is a replica. Point the configuration to the primary."},
	{"max_allowed_packet", func(v map[string]string) bool { return below(v["max_allowed_packet"], minPacket) }, true,
		"is below 16 MiB: a batch of large messages would be refused. Set it to 64M."},
	{"max_connections", func(v map[string]string) bool { return below(v["max_connections"], 100) }, false,
		"is below 100: every node of the cluster opens up to 32 connections."},
}

func on(v string) bool  { return strings.EqualFold(v, "ON") || v == "1" }
func off(v string) bool { return strings.EqualFold(v, "OFF") || v == "0" }

// below reports whether v is a number under n.
func below(v string, n int64) bool {
	have, err := strconv.ParseInt(v, 10, 64)
	return err == nil && have < n
}

// Check looks at what the server is and how it is set up.
func (s *Shard) Check(ctx context.Context) ([]Finding, error) { return check(ctx, s.db) }

func check(ctx context.Context, db *sql.DB) ([]Finding, error) {
	v, err := variables(ctx, db)
	if err != nil {
		return nil, wrap("read the server's variables", err)
	}
	found := judge(v)
	before := time.Now()
	var theirs int64
	if err := db.QueryRowContext(ctx, "SELECT "+now).Scan(&theirs); err != nil {
		return nil, wrap("read the server's clock", err)
	}
	return append(found, checkClock(time.UnixMicro(theirs), before, time.Now())...), nil
}

// judge finds what is wrong with a server of these variables.
func judge(v map[string]string) []Finding {
	found := checkVersion(v["version"])
	for _, r := range rules {
		if r.wrong(v) {
			found = append(found, Finding{Fatal: r.fatal, Variable: r.variable, Text: r.text})
		}
	}
	return found
}

// checkClock compares with a reading taken between two of our own.
func checkClock(theirs, before, after time.Time) []Finding {
	off := max(theirs.Sub(after), before.Sub(theirs))
	if off <= maxSkew {
		return nil
	}
	return []Finding{{Text: fmt.Sprintf("the clock of the database and that of this node differ by %v: run NTP on both", off.Round(time.Millisecond))}}
}

func variables(ctx context.Context, db *sql.DB) (map[string]string, error) {
	rows, err := db.QueryContext(ctx, "SHOW VARIABLES")
	if err != nil {
		return nil, err
	}
	defer func() { _ = rows.Close() }()
	v := make(map[string]string)
	for rows.Next() {
		var name, value string
		if err := rows.Scan(&name, &value); err != nil {
			return nil, err
		}
		v[strings.ToLower(name)] = value
	}
	return v, rows.Err()
}

// checkVersion knows servers by what VERSION() says: 8.0.36, 9.1.0-commercial,
// 10.11.6-MariaDB-0+deb12u1.
func checkVersion(version string) []Finding {
	product, major, minor := "MySQL", 8, 0
	if strings.Contains(version, "MariaDB") {
		product, major, minor = "MariaDB", 10, 11
	}
	var a, b int
	if _, err := fmt.Sscanf(strings.TrimPrefix(version, "5.5.5-"), "%d.%d", &a, &b); err != nil {
		return []Finding{{Text: fmt.Sprintf("the server calls itself %q, which no version is known of", version)}}
	}
	if a > major || a == major && b >= minor {
		return nil
	}
	return []Finding{{Fatal: true, Text: fmt.Sprintf("the server is %s %d.%d; %d.%d is the oldest that is supported", product, a, b, major, minor)}}
}

// complain logs what was found, and refuses what is fatal.
func (s *Shard) complain(found []Finding) error {
	for _, f := range found {
		if f.Fatal {
			return fmt.Errorf("mysql: shard %d: %v", s.opt.ID, f)
		}
		s.log.Warn().Uint32("shard", uint32(s.opt.ID)).Str("variable", f.Variable).Msg(f.Text)
	}
	return nil
}
