package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"regexp"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/go-sql-driver/mysql"

	"github.com/hermod-im/hermod/storage"
)

// recorder keeps the texts that go over the connections of a pool.
type recorder struct {
	driver.Connector
	mu    sync.Mutex
	texts map[string]bool
}

func (r *recorder) Connect(ctx context.Context) (driver.Conn, error) {
	c, err := r.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	return &recorded{Conn: c, r: r}, nil
}

func (r *recorder) note(text string) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for _, one := range strings.Split(bare(text), ";") {
		r.texts[one] = true
	}
}

type recorded struct {
	driver.Conn
	r *recorder
}

func (c *recorded) ExecContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Result, error) {
	c.r.note(text)
	return c.Conn.(driver.ExecerContext).ExecContext(ctx, text, args)
}

func (c *recorded) QueryContext(ctx context.Context, text string, args []driver.NamedValue) (driver.Rows, error) {
	c.r.note(text)
	return c.Conn.(driver.QueryerContext).QueryContext(ctx, text, args)
}

// Prepare sees what is sent with arguments: the driver refuses those above.
func (c *recorded) Prepare(text string) (driver.Stmt, error) {
	c.r.note(text)
	return c.Conn.Prepare(text)
}

var (
	quoted   = regexp.MustCompile(`(?s)'(?:[^']|'')*'`)
	comments = regexp.MustCompile(`(?m)--.*$`)
	spaces   = regexp.MustCompile(`\s+`)
	words    = regexp.MustCompile(`[A-Za-z_][A-Za-z_0-9]*`)
)

// bare is a text without what its literals and comments say.
func bare(text string) string {
	return spaces.ReplaceAllString(quoted.ReplaceAllString(comments.ReplaceAllString(text, ""), "''"), " ")
}

// foreign is syntax that one of the two does not have, or means differently.
var foreign = regexp.MustCompile(`(?i)\bRETURNING\b|\bVALUES\s*\(.*\)\s*AS\s|\bVALUES\s+ROW\b|\bVALUE\s*\(|\bFOR\s+SHARE\b|\bSKIP\s+LOCKED\b|\bNOWAIT\b|` +
	`\bWAIT\s+\d|\bOR\s+REPLACE\b|\b(?:ADD|DROP|MODIFY|CHANGE)\s+(?:COLUMN|INDEX|KEY)?\s*IF\b|\bCREATE\s+(?:UNIQUE\s+)?INDEX\s+IF\b|\bSEQUENCE\b|->|` +
	`\bINTERSECT\b|\bEXCEPT\b|\bFETCH\b|\bOFFSET\b|\bFULL\s+JOIN\b|\bSET\s+STATEMENT\b|\bPERSIST\b|\bINVISIBLE\b|\bVERSIONING\b|\bUUID\b|\bINET[46]\b|\bJSON\w*|` +
	"\\bEXECUTE\\s+IMMEDIATE\\b|\\bROWS\\s+EXAMINED\\b|\\bLATERAL\\b|/\\*|`|\"")

// reserved are words that MySQL 8.0 to 9 or MariaDB 10.11 to 12 took for
// themselves after long having left them to others.
const reserved = " accessible array cube cume_dist dense_rank empty except first_value function generated grouping groups intersect " +
	"json_table lag last_value lateral lead manual member ntile nth_value of offset optimizer_costs over parallel percent_rank " +
	"qualify rank recursive returning row_number rows stored sets system tablesample virtual window conversion library vector "

func lint(t *testing.T, text string) {
	t.Helper()
	text = bare(text)
	if found := foreign.FindString(text); found != "" {
		t.Errorf("%q is not the same in MySQL and MariaDB: %.300s", found, text)
	}
	for _, w := range words.FindAllString(text, -1) {
		if strings.Contains(reserved, " "+strings.ToLower(w)+" ") {
			t.Errorf("%q is a reserved word: %.300s", w, text)
		}
	}
}

// The linter finds what it is for.
func TestLint(t *testing.T) {
	for text, wrong := range map[string]bool{
		"INSERT INTO a (b) VALUES (1) RETURNING b":                                  true,
		"INSERT INTO a (b) VALUES (1) AS new ON DUPLICATE KEY UPDATE b=new.b":       true,
		"INSERT INTO a VALUES ROW(1)":                                               true,
		"SELECT b FROM a FOR SHARE":                                                 true,
		"SELECT b FROM a FOR UPDATE SKIP LOCKED":                                    true,
		"CREATE OR REPLACE TABLE a (b INT)":                                         true,
		"ALTER TABLE a ADD COLUMN IF NOT EXISTS b INT":                              true,
		"SELECT b->'$.c' FROM a":                                                    true,
		"SELECT rank FROM a":                                                        true,
		"CREATE TABLE IF NOT EXISTS groups (b INT)":                                 true,
		"SELECT b FROM a LOCK IN SHARE MODE":                                        false,
		"INSERT INTO a (b) VALUES (1),(2) ON DUPLICATE KEY UPDATE b=VALUES(b)":      false,
		"CREATE TABLE IF NOT EXISTS a (b INT COMMENT 'rank of; what''s returning')": false,
	} {
		b := bare(text)
		found := foreign.MatchString(b)
		for _, w := range words.FindAllString(b, -1) {
			found = found || strings.Contains(reserved, " "+strings.ToLower(w)+" ")
		}
		if found != wrong {
			t.Errorf("%s: found %v", text, found)
		}
	}
}

// What the package sends is plain enough for MySQL 8.0 to 9 and MariaDB alike:
// the migrations, what sets a session up, and every kind of statement that the
// calls of a Shard send. It proves that no construct is in it that is known to
// belong to one of them; that MySQL answers the same is not proved here, for
// which a MySQL server would be needed.
func TestDialect(t *testing.T) {
	for _, s := range mustSteps(t) {
		lint(t, s.text)
	}
	lint(t, session(time.Second))
	lint(t, "SELECT "+migrationLock)
	f := newFix(t, nil)
	r := f.record()
	f.everything()
	r.mu.Lock()
	defer r.mu.Unlock()
	for text := range r.texts {
		lint(t, text)
	}
	// A linter that was shown nothing finds nothing.
	for _, part := range []string{"INSERT INTO convs", "INSERT INTO sends", "DELETE FROM inbox", "DELETE FROM sends", "DELETE FROM tasks",
		"LOCK IN SHARE MODE", "FOR UPDATE", "INSERT INTO leases", "UPDATE fence", "CONSISTENT SNAPSHOT", "ROLLBACK", "ROW_COUNT", "BETWEEN", "SHOW VARIABLES", "FROM leases"} {
		seen := false
		for text := range r.texts {
			seen = seen || strings.Contains(text, part)
		}
		if !seen {
			t.Errorf("no statement with %q was recorded", part)
		}
	}
}

// record puts a recorder into the pool of f's shard.
func (f *fix) record() *recorder {
	f.Helper()
	cfg, err := f.s.opt.config()
	if err != nil {
		f.Fatal(err)
	}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		f.Fatal(err)
	}
	r := &recorder{Connector: &connector{Connector: c, session: session(f.s.opt.Timeout)}, texts: map[string]bool{}}
	if err := f.s.db.Close(); err != nil {
		f.Fatal(err)
	}
	f.s.db = sql.OpenDB(r)
	return r
}

// everything makes every kind of call.
func (f *fix) everything() {
	f.Helper()
	ctx := f.ctx()
	check := func(what string, err error) {
		f.Helper()
		if err != nil {
			f.Errorf("%s: %v", what, err)
		}
	}
	k := storage.SelfKey(anna)
	send := storage.SendKey{Conv: k, Sender: anna, SendID: [16]byte{1}}
	l := storage.Locks{
		Slots: []storage.SlotRef{{Slot: 5, Epoch: 1}}, Convs: []storage.ConvKey{k}, Users: []storage.UserID{anna}, Sends: []storage.SendKey{send},
		UserConvs: []storage.UserConvKey{{User: anna, Conv: k}}, Tasks: []storage.TaskKey{{Conv: k, Target: 2}}, Names: []string{"anna"},
		Accounts: []storage.UserID{anna}, DevicesOf: []storage.UserID{anna}, Blocks: []storage.BlockKey{{User: anna, Peer: bob}}, Meta: []string{"m"},
	}
	e := storage.Entry{Conv: k, Rev: 1, Sender: anna, Kind: 1, Body: []byte("it's; -- me")}
	w := storage.Writes{
		Convs: []storage.ConvHead{{Conv: k, Generation: 1}}, Users: []storage.UserHead{head(anna)}, Entries: []storage.Entry{e},
		Inbox: []storage.InboxRow{{User: anna, Seq: 1, Entry: e}}, Sends: []storage.SendRow{{Key: send}}, UserConvs: []storage.UserConv{{Key: l.UserConvs[0]}},
		Tasks: []storage.Task{{Key: l.Tasks[0], Owner: 1}}, Names: []storage.NameRow{{Name: "anna", User: anna}}, Accounts: []storage.Account{{User: anna, Name: "anna"}},
		Devices: []storage.Device{{Key: storage.DeviceKey{User: anna}}}, Blocks: []storage.Block{{Key: l.Blocks[0]}}, Meta: []storage.MetaRow{{Name: "m"}},
	}
	f.write(storage.Writes{Slots: []storage.SlotRow{{Slot: 5, State: storage.SlotOwned, Epoch: 1}}})
	check("Commit", f.try(l, plans(w)))
	check("View", f.s.View(ctx, l.Slots, func(v storage.Snap) error { f.readAll(v, k); return nil }))
	check("Barrier", f.s.Barrier(ctx))
	_, err := f.s.Tasks(ctx, 1, &l.Tasks[0], 5)
	check("Tasks", err)
	_, err = f.s.Lease(ctx, 1, 1, time.Second)
	check("Lease", err)
	check("deletions", f.try(storage.Locks{}, plans(storage.Writes{
		DelTasks: l.Tasks, DelDevices: []storage.DeviceKey{{User: anna}}, DelBlocks: l.Blocks, Trims: []storage.Trim{{User: anna, Floor: 1}},
		DelSendsBefore: 1, DelSendsSlots: []storage.Slot{0},
	})))
	check("Purge", f.s.Purge(ctx, 0))
	_, err = f.s.Check(ctx)
	check("Check", err)
	_, err = f.s.Status(ctx)
	check("Status", err)
	check("identify", identify(ctx, f.s.db, 1))
	check("migrate", migrate(ctx, f.s.db, mustSteps(f.T)))
}

// readAll calls every method of a Snap.
func (f *fix) readAll(v storage.Snap, k storage.ConvKey) {
	f.Helper()
	failed := func(_ any, err error) {
		f.Helper()
		if err != nil {
			f.Error(err)
		}
	}
	failed(v.User(anna))
	failed(v.Conv(k))
	failed(v.Inbox(anna, 0, 5))
	failed(v.Entries(k, 1, 9, 5, 1<<20, true))
	failed(v.UserConv(storage.UserConvKey{User: anna, Conv: k}))
	failed(v.UserConvs(anna, &k, 5))
	failed(v.Name("anna"))
	failed(v.Account(anna))
	failed(v.Devices(anna))
	failed(v.Block(storage.BlockKey{User: anna, Peer: bob}))
	failed(v.BlocksOf(anna, 0, 5))
	failed(v.UsersFrom(0, 5))
	failed(v.SlotRows())
	failed(v.Meta("m"))
	var after []byte
	for {
		_, next, err := v.Export(0, after, 1) // a page a row: every cursor
		failed(nil, err)
		if after = next; next == nil {
			return
		}
	}
}
