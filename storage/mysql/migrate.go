package mysql

import (
	"context"
	"database/sql"
	"embed"
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/hermod-im/hermod/storage"
)

//go:embed migrations/*.sql
var migrations embed.FS

// migrationLock is held while tables change: of several nodes that start at
// once one works, the others wait and find it done. The lock is the server's,
// so the database is in its name, which may have 64 characters.
const migrationLock = "CONCAT('hermod.', LEFT(SHA2(DATABASE(), 256), 40))"

// lockWait bounds that wait. A large table may take long to change.
const lockWait = 10 * time.Minute

// A step is a file of migrations: a number, and statements. None is ever
// changed after a release. Each can be run again after it was cut off, since
// in MySQL a change of a table cannot be rolled back.
type step struct {
	number int
	name   string
	text   string
}

func steps() ([]step, error) {
	names, err := fs.Glob(migrations, "migrations/*.sql")
	if err != nil {
		return nil, err
	}
	var all []step
	for _, name := range names {
		text, err := migrations.ReadFile(name)
		if err != nil {
			return nil, err
		}
		base := strings.TrimPrefix(name, "migrations/")
		n, err := strconv.Atoi(base[:strings.IndexByte(base, '_')])
		if err != nil {
			return nil, fmt.Errorf("migration %s has no number", base)
		}
		all = append(all, step{n, base, string(text)})
	}
	slices.SortFunc(all, func(a, b step) int { return a.number - b.number })
	return all, nil
}

// migrate brings the tables to this version of the program.
func (s *Shard) migrate(ctx context.Context) error {
	all, err := steps()
	if err != nil {
		return err
	}
	if n, err := schemaVersion(ctx, s.db); err == nil && n >= all[len(all)-1].number {
		return tooNew(n, all)
	}
	db, err := connect(s.opt, 0) // a change of a large table is silent for long
	if err != nil {
		return err
	}
	return errors.Join(migrate(ctx, db, all), db.Close())
}

func migrate(ctx context.Context, db *sql.DB, all []step) (err error) {
	c, err := db.Conn(ctx)
	if err != nil {
		return wrap("connect", err)
	}
	defer func() { _ = c.Close() }()
	var got sql.NullInt64
	if err := c.QueryRowContext(ctx, "SELECT GET_LOCK("+migrationLock+", ?)", int(lockWait.Seconds())).Scan(&got); err != nil {
		return wrap("lock the migrations", err)
	}
	if got.Int64 != 1 {
		return errors.New("another node has been changing the tables for too long: see SHOW PROCESSLIST")
	}
	defer func() {
		_, e := c.ExecContext(context.WithoutCancel(ctx), "DO RELEASE_LOCK("+migrationLock+")")
		err = errors.Join(err, e)
	}()
	return apply(ctx, c, all)
}

// apply runs the steps that are missing, statement by statement.
func apply(ctx context.Context, c *sql.Conn, all []step) error {
	const table = "CREATE TABLE IF NOT EXISTS migrations (number INT UNSIGNED NOT NULL PRIMARY KEY, name VARBINARY(128) NOT NULL, " +
		"done_at TIMESTAMP NOT NULL DEFAULT CURRENT_TIMESTAMP) ENGINE=InnoDB COMMENT='what has been done to these tables'"
	if _, err := c.ExecContext(ctx, table); err != nil {
		return wrap("create the table of migrations", err)
	}
	var have sql.NullInt64
	if err := c.QueryRowContext(ctx, "SELECT MAX(number) FROM migrations").Scan(&have); err != nil {
		return wrap("read the migrations", err)
	}
	if err := tooNew(int(have.Int64), all); err != nil {
		return err
	}
	for _, s := range all {
		if s.number <= int(have.Int64) {
			continue
		}
		for _, text := range statements(s.text) {
			if _, err := c.ExecContext(ctx, text); err != nil {
				return fmt.Errorf("migration %s: %w", s.name, wrap("run", err))
			}
		}
		if _, err := c.ExecContext(ctx, "INSERT INTO migrations (number,name) VALUES (?,?)", s.number, s.name); err != nil {
			return wrap("note a migration", err)
		}
	}
	return nil
}

// statements splits a file at the semicolons that end its lines.
func statements(text string) (all []string) {
	for _, part := range strings.Split(text, ";\n") {
		if lines := strings.TrimSpace(part); lines != "" && !onlyComments(lines) {
			all = append(all, lines)
		}
	}
	return all
}

func onlyComments(text string) bool {
	for line := range strings.Lines(text) {
		if line = strings.TrimSpace(line); line != "" && !strings.HasPrefix(line, "--") {
			return false
		}
	}
	return true
}

func tooNew(have int, all []step) error {
	if newest := all[len(all)-1].number; have > newest {
		return fmt.Errorf("the tables are of version %d, this program knows %d: start the newer one", have, newest)
	}
	return nil
}

// schemaVersion is the newest step that was done.
func schemaVersion(ctx context.Context, db *sql.DB) (int, error) {
	var n sql.NullInt64
	err := db.QueryRowContext(ctx, "SELECT MAX(number) FROM migrations").Scan(&n)
	return int(n.Int64), err
}

// identityName is the meta row with the shard's id. The dot keeps it apart from
// the names that a Store uses.
const identityName = "mysql.shard_id"

// identify gives an empty database its id, and refuses one of another shard.
func identify(ctx context.Context, db *sql.DB, id storage.ShardID) error {
	want := strconv.FormatUint(uint64(id), 10)
	if _, err := db.ExecContext(ctx, "INSERT INTO meta (name,val) VALUES (?,?) ON DUPLICATE KEY UPDATE name=VALUES(name)", identityName, want); err != nil {
		return wrap("write the shard's id", err)
	}
	var have string
	if err := db.QueryRowContext(ctx, "SELECT val FROM meta WHERE name=?", identityName).Scan(&have); err != nil {
		return wrap("read the shard's id", err)
	}
	if have != want {
		return fmt.Errorf("%w: the database is shard %s, the configuration says %s: two shards would mix", storage.ErrInvalid, have, want)
	}
	// Rights that are missing come to light now, not with somebody's message.
	for _, text := range []string{"UPDATE fence SET ticks=ticks WHERE id=0", "DELETE FROM fence WHERE id=0"} {
		if _, err := db.ExecContext(ctx, text); err != nil {
			return wrap("try the account's rights", err)
		}
	}
	return nil
}
