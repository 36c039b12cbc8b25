package local

import (
	"cmp"
	"context"
	"crypto/rand"
	"database/sql"
	"fmt"
	"os"
	"os/exec"
	"os/user"
	"path/filepath"
	"strconv"
	"strings"

	"github.com/go-sql-driver/mysql"
)

// dbUser is the account that DSN names; it may do everything.
const dbUser = "hermod"

// MariaDBOptions says how a MariaDB is started; the zero value will do.
type MariaDBOptions struct {
	// Dir is the server's folder; empty: a temporary one, removed by Close.
	// One that holds a server's data already is used as it is.
	Dir string
	// Data is the folder of the data, if that is to be on another disk than Dir.
	Data string
	// Args are appended to the server's command line and win over the small
	// defaults: --innodb-buffer-pool-size=64M --innodb-log-file-size=48M.
	Args []string
}

// MariaDB is a private MariaDB server.
type MariaDB struct {
	Server
	password string
	data     string // folder
}

// StartMariaDB makes an empty server and returns when it answers. ctx bounds
// the start only.
func StartMariaDB(ctx context.Context, opt MariaDBOptions) (*MariaDB, error) {
	if err := Require(ctx, "mariadb"); err != nil {
		return nil, err
	}
	dir, own, err := folder(opt.Dir, "mariadb")
	if err != nil {
		return nil, err
	}
	db := &MariaDB{password: rand.Text(), data: cmp.Or(opt.Data, filepath.Join(dir, "data"))}
	db.Server = Server{name: "mariadb", dir: dir, ownDir: own, ready: db.ping}
	if err := db.install(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	db.command = func(port int) *exec.Cmd {
		return exec.Command(find("mariadbd"), append(db.args(port), opt.Args...)...)
	}
	if err := db.first(ctx); err != nil {
		_ = db.Close()
		return nil, err
	}
	return db, nil
}

func (db *MariaDB) temp() string     { return filepath.Join(db.dir, "tmp") }
func (db *MariaDB) initFile() string { return filepath.Join(db.dir, "init.sql") }

// install makes the data folder and the statements that the server runs before
// it listens, at each start: they give the run its account.
func (db *MariaDB) install(ctx context.Context) error {
	account := "'" + dbUser + "'@'127.0.0.1'"
	init := fmt.Sprintf("CREATE OR REPLACE USER %s IDENTIFIED BY '%s';\nGRANT ALL ON *.* TO %s WITH GRANT OPTION;\n", account, db.password, account)
	if err := os.WriteFile(db.initFile(), []byte(init), 0o600); err != nil {
		return err
	}
	// A server clears its folder for temporary tables when it starts: in a shared
	// one it would take another server's.
	if err := os.MkdirAll(db.temp(), 0o700); err != nil {
		return err
	}
	if _, err := os.Stat(filepath.Join(db.data, "mysql")); err == nil {
		return nil
	}
	cmd := exec.CommandContext(ctx, find("mariadb-install-db"), "--no-defaults", "--datadir="+db.data,
		"--user="+userName(), "--auth-root-authentication-method=normal", "--skip-test-db", "--skip-name-resolve",
		"--innodb-log-file-size=48M", "--tmpdir="+db.temp())
	if out, err := cmd.CombinedOutput(); err != nil {
		return fmt.Errorf("local: mariadb-install-db: %w:\n%s", err, out)
	}
	return nil
}

// userName: a server started by root wants to be told that this is meant.
func userName() string {
	if u, err := user.Current(); err == nil {
		return u.Username
	}
	return strconv.Itoa(os.Getuid())
}

// args has no socket, since a socket's path may have 107 bytes and a test's
// folder easily has more.
func (db *MariaDB) args(port int) []string {
	return []string{
		"--no-defaults", "--user=" + userName(), "--datadir=" + db.data, "--init-file=" + db.initFile(),
		"--bind-address=127.0.0.1", "--port=" + strconv.Itoa(port), "--socket=", "--skip-name-resolve",
		"--tmpdir=" + db.temp(), "--pid-file=" + filepath.Join(db.dir, "pid"), "--max-connections=400",
		"--character-set-server=utf8mb4", "--innodb-buffer-pool-size=64M", "--innodb-log-file-size=48M",
	}
}

// DSN is what go-sql-driver opens the database with. The password in it is of
// this run only.
func (db *MariaDB) DSN(database string) string { return db.DSNAt(db.Addr(), database) }

// DSNAt is a DSN that reaches the server at another address, like that of a
// proxy.
func (db *MariaDB) DSNAt(addr, database string) string {
	c := mysql.NewConfig()
	c.User, c.Passwd, c.Net, c.Addr, c.DBName = dbUser, db.password, "tcp", addr, database
	return c.FormatDSN()
}

func (db *MariaDB) ping(ctx context.Context) error {
	return db.do(ctx, func(c *sql.DB) error { return c.PingContext(ctx) })
}

// CreateDatabase creates an empty database unless it is there.
func (db *MariaDB) CreateDatabase(ctx context.Context, name string) error {
	return db.Exec(ctx, "CREATE DATABASE IF NOT EXISTS `"+strings.ReplaceAll(name, "`", "``")+"`")
}

// Exec runs one statement as the all-mighty account, outside any database.
func (db *MariaDB) Exec(ctx context.Context, query string) error {
	return db.do(ctx, func(c *sql.DB) error { _, err := c.ExecContext(ctx, query); return err })
}

// do opens the server, calls f and closes it again: whoever tests leaks sees
// no connection of this package's.
func (db *MariaDB) do(ctx context.Context, f func(*sql.DB) error) error {
	cfg, err := mysql.ParseDSN(db.DSN(""))
	if err != nil {
		return err
	}
	cfg.Logger = &mysql.NopLogger{}
	con, err := mysql.NewConnector(cfg)
	if err != nil {
		return err
	}
	pool := sql.OpenDB(con)
	defer pool.Close()
	return f(pool)
}
