package mysql

import (
	"strings"
	"testing"
	"time"
)

// good are the variables of a server that nothing is wrong with.
func good() map[string]string {
	return map[string]string{
		"version": "10.11.6-MariaDB", "innodb_flush_log_at_trx_commit": "1", "log_bin": "ON", "sync_binlog": "1",
		"innodb_doublewrite": "ON", "binlog_format": "MIXED", "read_only": "OFF", "max_allowed_packet": "67108864", "max_connections": "400",
	}
}

func TestRules(t *testing.T) {
	for _, tt := range []struct {
		change string // variable=value;…
		want   string // the variable found, "" for none
		fatal  bool
	}{
		{"", "", false},
		{"innodb_flush_log_at_trx_commit=2", "innodb_flush_log_at_trx_commit", false},
		{"innodb_flush_log_at_trx_commit=0", "innodb_flush_log_at_trx_commit", false},
		{"innodb_flush_log_at_trx_commit=3", "", false}, // MariaDB: also at prepare
		{"sync_binlog=0", "sync_binlog", false},
		{"sync_binlog=1000", "sync_binlog", false},
		{"sync_binlog=0;log_bin=OFF", "", false},
		{"innodb_doublewrite=OFF", "innodb_doublewrite", false},
		{"innodb_doublewrite=DETECT_ONLY", "innodb_doublewrite", false},
		{"innodb_doublewrite=DETECT_AND_RECOVER", "", false},
		{"innodb_doublewrite=fast", "", false},
		{"innodb_doublewrite=", "", false},
		{"binlog_format=STATEMENT", "binlog_format", true},
		{"binlog_format=STATEMENT;log_bin=OFF", "", false},
		{"binlog_format=ROW", "", false},
		{"read_only=ON", "read_only", true},
		{"read_only=1", "read_only", true},
		{"read_only=NO_LOCK", "read_only", true},
		{"max_allowed_packet=1048576", "max_allowed_packet", true},
		{"max_allowed_packet=16777216", "", false},
		{"max_connections=50", "max_connections", false},
	} {
		v := good()
		for _, set := range strings.Split(tt.change, ";") {
			if name, value, ok := strings.Cut(set, "="); ok {
				v[name] = value
			}
		}
		found := judge(v)
		switch {
		case tt.want == "" && len(found) > 0:
			t.Errorf("%q: %v", tt.change, found)
		case tt.want != "" && (len(found) != 1 || found[0].Variable != tt.want || found[0].Fatal != tt.fatal):
			t.Errorf("%q: %v, want %s (fatal: %v)", tt.change, found, tt.want, tt.fatal)
		}
	}
}

func TestVersions(t *testing.T) {
	for version, fatal := range map[string]bool{
		"8.0.36": false, "8.4.0": false, "9.1.0-commercial": false, "5.7.44-log": true, "8.0.35-0ubuntu0.22.04.1": false,
		"10.11.6-MariaDB-0+deb12u1": false, "11.4.2-MariaDB": false, "5.5.5-10.11.2-MariaDB": false, "12.0.1-MariaDB-log": false,
		"10.6.18-MariaDB": true, "5.5.5-10.5.1-MariaDB": true, "5.5.68-MariaDB": true,
	} {
		found := checkVersion(version)
		if got := len(found) > 0 && found[0].Fatal; got != fatal {
			t.Errorf("%s: %v, want fatal %v", version, found, fatal)
		}
	}
	if found := checkVersion("unknown"); len(found) != 1 || found[0].Fatal {
		t.Errorf("a version of nobody's: %v", found)
	}
}

func TestClock(t *testing.T) {
	at := time.Unix(1_000_000, 0)
	for _, tt := range []struct {
		theirs, before, after time.Duration
		wrong                 bool
	}{
		{0, 0, 0, false},
		{2 * time.Second, 0, 0, false},
		{-2 * time.Second, 0, 0, false},
		{3 * time.Second, 0, 0, true},
		{-3 * time.Second, 0, 0, true},
		{5 * time.Second, 0, 9 * time.Second, false}, // a slow answer says nothing about the clock
		{12 * time.Second, 0, 9 * time.Second, true},
	} {
		if got := len(checkClock(at.Add(tt.theirs), at.Add(tt.before), at.Add(tt.after))) > 0; got != tt.wrong {
			t.Errorf("%+v: found %v", tt, got)
		}
	}
}

// What an operator turns down on a running server is found, and named so that
// he can turn it up again; where nothing would work, Open refuses.
func TestCheckServer(t *testing.T) {
	f := newFix(t, nil)
	f.s.db.SetMaxIdleConns(0) // new connections see new settings
	found := func(variable string) *Finding {
		t.Helper()
		all, err := f.s.Check(f.ctx())
		if err != nil {
			t.Fatal(err)
		}
		for i := range all {
			if all[i].Variable == variable {
				return &all[i]
			}
		}
		return nil
	}
	for _, tt := range []struct {
		variable, value string
		found, fatal    bool
	}{
		{"innodb_flush_log_at_trx_commit", "2", true, false},
		{"innodb_flush_log_at_trx_commit", "0", true, false},
		{"sync_binlog", "0", false, false}, // there is no binary log
		{"max_connections", "50", true, false},
		{"max_allowed_packet", "1048576", true, true},
	} {
		var was string
		if err := f.sql.QueryRow("SELECT @@GLOBAL." + tt.variable).Scan(&was); err != nil {
			t.Fatal(err)
		}
		if x := found(tt.variable); x != nil {
			t.Errorf("%s as it comes: %v", tt.variable, x)
		}
		set := "SET GLOBAL " + tt.variable + "="
		t.Cleanup(func() { run(t, f.sql, set+was) })
		run(t, f.sql, set+tt.value)
		if x := found(tt.variable); (x != nil) != tt.found || tt.found && x.Fatal != tt.fatal {
			t.Errorf("%s=%s: found %v", tt.variable, tt.value, x)
		}
		err := opened(t, Options{ID: 1, DSN: f.dsn})
		if refused := err != nil && strings.Contains(err.Error(), tt.variable); refused != tt.fatal {
			t.Errorf("%s=%s: Open answers %v", tt.variable, tt.value, err)
		}
		run(t, f.sql, set+was)
	}
}
