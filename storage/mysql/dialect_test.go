package mysql

import (
	"context"
	"database/sql"
	"regexp"
	"strings"
	"testing"
	"time"

	"github.com/hermod-im/hermod/storage"
)

// foreign is SQL that one of MariaDB 10.11+ and MySQL 8.0+/9 does not take, or
// takes to mean something else.
var foreign = map[string]*regexp.Regexp{
	"MariaDB only": regexp.MustCompile(`\bRETURNING\b|CREATE OR REPLACE (TABLE|USER|INDEX)|\bSEQUENCE\b|NEXT VALUE FOR|SET STATEMENT|` +
		`EXECUTE IMMEDIATE|FOR PORTION OF|SYSTEM VERSIONING|\bVALUE\(|UPDATE WAIT|ROWS EXAMINED|NOPAD|TX_ISOLATION|PAGE_CHECKSUM|` +
		`(COLUMN|INDEX|KEY) IF (NOT )?EXISTS|\bMINUS\b|\bINET6\b|IDLE_\w*TRANSACTION_TIMEOUT`),
	"MySQL only": regexp.MustCompile(`\) AS \w+ ON DUPLICATE|FOR SHARE|VALUES ROW|->|_0900_|TRANSACTION_ISOLATION|/\*\+|SET PERSIST|` +
		`\bLATERAL\b|\bMEMBER OF\b|ANY_VALUE|BIN_TO_UUID|UUID_TO_BIN|FORMAT=TREE|AS OF TIMESTAMP|MAX_EXECUTION_TIME`),
	"for one version": regexp.MustCompile(`/\*M?!`),
}

// reserved are words that are reserved in some version of either and were not
// always: as names of tables and columns they would need quotes.
var reserved = strings.Fields(`array conversion cube cume_dist dense_rank empty except first_value function generated grouping groups
	intersect json_table lag last_value lateral lead library manual member nth_value ntile of offset optimizer_costs over parallel
	percent_rank qualify rank recursive returning row_number rows row stored system tablesample vector virtual window
	read key keys range condition groups to from order group limit index interval int long release schema`)

var quoted = regexp.MustCompile(`'(?:[^'\\]|''|\\.)*'`)

func findForeign(text string) string {
	text = strings.ToUpper(strings.Join(strings.Fields(quoted.ReplaceAllString(text, "''")), " "))
	for whose, re := range foreign {
		if m := re.FindString(text); m != "" {
			return m + " is " + whose
		}
	}
	return ""
}

// TestDialect looks at all that the server is told, from the first migration
// to the last deletion.
func TestDialect(t *testing.T) {
	for _, bad := range []string{
		"INSERT INTO a VALUES (1) RETURNING id", "INSERT INTO a VALUES (1) AS new ON DUPLICATE KEY UPDATE b=new.b",
		"SELECT 1 FROM a FOR  SHARE", "SET SESSION transaction_isolation='x'", "CREATE OR REPLACE TABLE a (b INT)", "SELECT /*+ x */ 1",
	} {
		if findForeign(bad) == "" {
			t.Errorf("not noticed: %s", bad)
		}
	}
	dsn := database(t, 0)
	said := listen(t)
	exercise(t, dsn)
	texts := said()
	if len(texts) < 40 {
		t.Fatalf("only %d statements were heard", len(texts))
	}
	for _, text := range texts {
		if why := findForeign(text); why != "" {
			t.Errorf("%s: %.300s", why, text)
		}
	}
	db, err := sql.Open("mysql", dsn)
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = db.Close() }()
	for _, word := range reserved {
		var n int
		if err := db.QueryRow("SELECT COUNT(*) FROM information_schema.columns WHERE table_schema=DATABASE() AND (column_name=? OR table_name=?)", word, word).Scan(&n); err != nil {
			t.Fatal(err)
		}
		if n > 0 {
			t.Errorf("%s is a reserved word, and the name of a table or column", word)
		}
	}
}

// listen has the server write down every statement until said is called.
func listen(t *testing.T) (said func() []string) {
	db, err := sql.Open("mysql", dbs[0].DSN("mysql"))
	if err != nil {
		t.Fatal(err)
	}
	run := func(text string) {
		if _, err := db.Exec(text); err != nil {
			t.Fatal(err)
		}
	}
	run("SET GLOBAL log_output='TABLE'")
	run("TRUNCATE TABLE general_log")
	run("SET GLOBAL general_log=1")
	return func() (texts []string) {
		defer func() { _ = db.Close() }()
		run("SET GLOBAL general_log=0")
		rows, err := db.Query("SELECT CONVERT(argument USING utf8mb4) FROM general_log WHERE command_type IN ('Query','Prepare','Execute')")
		if err != nil {
			t.Fatal(err)
		}
		defer func() { _ = rows.Close() }()
		for rows.Next() {
			var text string
			if err := rows.Scan(&text); err != nil {
				t.Fatal(err)
			}
			texts = append(texts, text)
		}
		if err := rows.Err(); err != nil {
			t.Fatal(err)
		}
		return texts
	}
}

// exercise makes a shard and does with it whatever one can do.
func exercise(t *testing.T, dsn string) {
	ctx := context.Background()
	s, err := Open(ctx, Options{ID: 1, DSN: dsn})
	if err != nil {
		t.Fatal(err)
	}
	defer func() { _ = s.Close() }()
	u, peer := storage.UserIDIn(5, 1), storage.UserIDIn(5, 2)
	k := storage.PairKey(u, peer)
	send := storage.SendKey{Conv: k, Sender: u, SendID: [16]byte{1}}
	w := storage.Writes{
		Slots: []storage.SlotRow{{Slot: 5, State: storage.SlotOwned, Epoch: 1}}, Convs: []storage.ConvHead{{Conv: k, Rev: 1}},
		Users: []storage.UserHead{{User: u, Seq: 1}}, Entries: []storage.Entry{{Conv: k, Rev: 1, Kind: 1, Sender: u, Body: []byte("x")}},
		Inbox: []storage.InboxRow{{User: u, Seq: 1, Entry: storage.Entry{Conv: k, Rev: 1}}, {User: u, Seq: 2, Inline: true}},
		Sends: []storage.SendRow{{Key: send}}, UserConvs: []storage.UserConv{{Key: storage.UserConvKey{User: u, Conv: k}}},
		Tasks: []storage.Task{{Key: storage.TaskKey{Conv: k, Target: 2}, Owner: 1}}, Names: []storage.NameRow{{Name: "anna", User: u}},
		Accounts: []storage.Account{{User: u, Name: "anna"}}, Devices: []storage.Device{{Key: storage.DeviceKey{User: u}}},
		Blocks: []storage.Block{{Key: storage.BlockKey{User: u, Peer: peer}}}, Meta: []storage.MetaRow{{Name: "m"}},
	}
	slots := []storage.SlotRef{{Slot: 5, Epoch: 1}}
	locks := storage.Locks{
		Slots: slots, Convs: []storage.ConvKey{k, storage.SelfKey(u)}, Users: []storage.UserID{u}, Sends: []storage.SendKey{send},
		UserConvs: []storage.UserConvKey{w.UserConvs[0].Key}, Tasks: []storage.TaskKey{w.Tasks[0].Key}, Names: []string{"anna"},
		Accounts: []storage.UserID{u}, DevicesOf: []storage.UserID{u}, Blocks: []storage.BlockKey{w.Blocks[0].Key}, Meta: []string{"m"},
	}
	must := func(_ any, err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	commit := func(l storage.Locks, w storage.Writes) {
		t.Helper()
		done := make(chan error, 1)
		must(nil, s.Commit(ctx, &l, func(*storage.Locked) (*storage.Writes, error) { return &w, nil }, func(err error) { done <- err }))
		must(nil, <-done)
	}
	commit(storage.Locks{}, w)
	commit(locks, storage.Writes{})
	commit(locks, storage.Writes{DelTasks: locks.Tasks, DelDevices: []storage.DeviceKey{w.Devices[0].Key}, DelBlocks: locks.Blocks,
		Trims: []storage.Trim{{User: u, Floor: 1}}, DelSendsBefore: 1, DelSendsSlots: []storage.Slot{5}})
	must(nil, s.View(ctx, slots, func(v storage.Snap) error {
		must(v.User(u))
		must(v.Conv(k))
		must(v.Inbox(u, 0, 9))
		_, _, _, err := v.OldestInbox(u)
		must(nil, err)
		must(v.Entries(k, 1, 9, 9, 9, false))
		must(v.Entries(k, 1, 9, 9, 9, true))
		must(v.UserConv(w.UserConvs[0].Key))
		must(v.UserConvs(u, nil, 9))
		must(v.UserConvs(u, &k, 9))
		must(v.Name("anna"))
		must(v.Account(u))
		must(v.Devices(u))
		must(v.Block(w.Blocks[0].Key))
		must(v.BlocksOf(u, 0, 9))
		must(v.UsersFrom(0, 9))
		must(v.SlotRows())
		must(v.Meta("m"))
		for after, more := []byte(nil), true; more; more = after != nil {
			_, next, err := v.Export(5, after, 1)
			must(nil, err)
			after = next
		}
		return nil
	}))
	must(nil, s.Barrier(ctx))
	must(s.Tasks(ctx, 1, &w.Tasks[0].Key, 9))
	must(s.Lease(ctx, 1, 1, time.Second))
	must(s.Status(ctx))
	must(s.Check(ctx))
	commit(storage.Locks{}, storage.Writes{Slots: []storage.SlotRow{{Slot: 5, State: storage.SlotAbsent, Epoch: 2}}})
	must(nil, s.Purge(ctx, 5))
}
