package mysql

import (
	"context"
	"fmt"
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

// What an operator turns down on a real server is found, and named so that he
// can turn it up again.
func TestCheckServer(t *testing.T) {
	f := newFix(t, nil)
	set := func(name, value string) {
		t.Helper()
		if err := dbs[0].Exec(f.ctx(), fmt.Sprintf("SET GLOBAL %s=%s", name, value)); err != nil {
			t.Fatal(err)
		}
	}
	names := func() map[string]bool {
		t.Helper()
		found, err := f.s.Check(context.Background())
		if err != nil {
			t.Fatal(err)
		}
		got := map[string]bool{}
		for _, x := range found {
			got[x.Variable] = true
		}
		return got
	}
	if got := names(); got["innodb_flush_log_at_trx_commit"] || got["sync_binlog"] || got["read_only"] {
		t.Errorf("a server as it comes: %v", got)
	}
	t.Cleanup(func() { set("innodb_flush_log_at_trx_commit", "1") })
	set("innodb_flush_log_at_trx_commit", "2")
	if !names()["innodb_flush_log_at_trx_commit"] {
		t.Error("innodb_flush_log_at_trx_commit=2 was not found")
	}
	set("sync_binlog", "0") // there is no binary log
	if names()["sync_binlog"] {
		t.Error("sync_binlog was found where there is no binary log")
	}
}
