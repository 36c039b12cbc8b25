package mysql

import (
	"context"
	"database/sql"
	"database/sql/driver"
	"errors"
	"fmt"
	"io"
	"sync"
	"time"

	"github.com/go-sql-driver/mysql"
	"github.com/rs/zerolog"

	"github.com/hermod-im/hermod/storage"
)

// A Shard is one database. It implements storage.Shard.
type Shard struct {
	opt     Options
	log     zerolog.Logger
	db      *sql.DB
	t       *tables
	metrics *metrics
	order   order
	fences  fences
	stmts   sync.Pool // *stmt

	mu     sync.Mutex
	closed bool
	open   sync.WaitGroup // calls under way, dones included
}

// inlineBody is DESIGN's: reading is light where rows carry small bodies.
const inlineBody = 1024

// Open connects, checks the server (see Check), brings the tables to this
// version, and makes sure that the database is the shard that it is taken for.
func Open(ctx context.Context, opt Options) (*Shard, error) {
	if err := opt.Validate(); err != nil {
		return nil, err
	}
	opt = opt.withDefaults()
	db, err := connect(opt, opt.Timeout)
	if err != nil {
		return nil, err
	}
	s := &Shard{opt: opt, log: opt.Log, db: db, t: newTables()}
	s.stmts.New = func() any { return new(stmt) }
	if err := s.prepare(ctx); err != nil {
		return nil, errors.Join(advise(err), db.Close())
	}
	return s, nil
}

func (s *Shard) prepare(ctx context.Context) error {
	found, err := check(ctx, s.db)
	if err != nil {
		return err
	}
	if err := s.complain(found); err != nil {
		return err
	}
	if err := s.migrate(ctx); err != nil {
		return fmt.Errorf("mysql: shard %d: %w", s.opt.ID, err)
	}
	if err := identify(ctx, s.db, s.opt.ID); err != nil {
		return err
	}
	s.metrics, err = newMetrics(s.opt.Metrics, s)
	return err
}

// connect opens a pool whose connections are set up alike. A server may take
// patience for an answer; 0: as long as it likes.
func connect(opt Options, patience time.Duration) (*sql.DB, error) {
	cfg, err := opt.config()
	if err != nil {
		return nil, err
	}
	if patience == 0 {
		cfg.ReadTimeout = 0
	}
	c, err := mysql.NewConnector(cfg)
	if err != nil {
		return nil, fmt.Errorf("mysql: %w", err)
	}
	db := sql.OpenDB(&connector{Connector: c, session: session(opt.Timeout)})
	db.SetMaxOpenConns(opt.MaxConns)
	db.SetMaxIdleConns(opt.MaxConns)
	db.SetConnMaxIdleTime(maxIdle / 2)
	return db, nil
}

// connector sets sessions up: what the server's configuration says must not
// change what a transaction means.
type connector struct {
	driver.Connector
	session string
}

// maxIdle is when the server ends a connection on which nothing happens, and
// with it what a node that lost its power had locked; the server's own default
// is eight hours. The pool ends its idle connections before.
const maxIdle = 30 * time.Second

// session is what a connection begins with. The server gives up waiting for a
// lock before this node gives up waiting for the server: that is the answer
// that leaves nothing behind.
func session(timeout time.Duration) string {
	return fmt.Sprintf("SET SESSION TRANSACTION ISOLATION LEVEL READ COMMITTED;"+
		"SET SESSION sql_mode='STRICT_ALL_TABLES,NO_ENGINE_SUBSTITUTION', time_zone='+00:00', autocommit=1,"+
		" innodb_lock_wait_timeout=%d, wait_timeout=%d", min(5, max(1, int(timeout/time.Second)/2)), int(maxIdle/time.Second))
}

func (c *connector) Connect(ctx context.Context) (driver.Conn, error) {
	conn, err := c.Connector.Connect(ctx)
	if err != nil {
		return nil, err
	}
	if _, err := conn.(driver.ExecerContext).ExecContext(ctx, c.session, nil); err != nil {
		return nil, errors.Join(err, conn.Close())
	}
	return conn, nil
}

// ID implements storage.Shard.
func (s *Shard) ID() storage.ShardID { return s.opt.ID }

// InlineBody implements storage.Shard.
func (s *Shard) InlineBody() int { return inlineBody }

// Committers implements storage.CommitterHint.
func (s *Shard) Committers() int { return s.opt.Committers }

// enter counts a call under way; every nil is followed by open.Done.
func (s *Shard) enter(ctx context.Context) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return storage.ErrClosed
	}
	if err := ctx.Err(); err != nil {
		return fmt.Errorf("mysql: %w: %w", storage.ErrBusy, err)
	}
	s.open.Add(1)
	return nil
}

// Close implements storage.Shard.
func (s *Shard) Close() error {
	s.mu.Lock()
	first := !s.closed
	s.closed = true
	s.mu.Unlock()
	s.open.Wait()
	if !first {
		return nil
	}
	s.metrics.unregister()
	return s.db.Close()
}

// link is a connection in the hands of one call.
type link struct {
	c *sql.Conn
	s *Shard
}

func (s *Shard) link(ctx context.Context) (*link, error) {
	ctx, cancel := context.WithTimeout(ctx, s.opt.Timeout)
	defer cancel()
	c, err := s.db.Conn(ctx)
	if err != nil {
		// Whatever it says (a password that is being changed, a database that is
		// being restored): the operation is not to blame.
		return nil, fmt.Errorf("mysql: connect: %w: %w", storage.ErrBusy, err)
	}
	return &link{c: c, s: s}, nil
}

func (l *link) release() { _ = l.c.Close() } // back to the pool; a broken one is thrown away there

// drop throws the connection away, and with it what it has locked.
func (l *link) drop() { _ = l.c.Raw(func(any) error { return driver.ErrBadConn }) }

// exec runs statements that return no rows.
func (l *link) exec(ctx context.Context, text string) error {
	return l.c.Raw(func(dc any) error {
		_, err := dc.(driver.ExecerContext).ExecContext(ctx, text, nil)
		return err
	})
}

// query runs statements, and reads the results of those that return rows, each
// with the function at its place.
func (l *link) query(ctx context.Context, text string, read []func(*row)) error {
	return l.c.Raw(func(dc any) error {
		rows, err := dc.(driver.QueryerContext).QueryContext(ctx, text, nil)
		if err != nil {
			return err
		}
		return errors.Join(readResults(rows, read), rows.Close())
	})
}

func readResults(rows driver.Rows, read []func(*row)) error {
	more := rows.(driver.RowsNextResultSet)
	for i, each := range read {
		if i > 0 {
			if err := more.NextResultSet(); err != nil {
				return endOf(err, &fault{fmt.Errorf("%d results, want %d", i, len(read))})
			}
		}
		r := row{v: make([]driver.Value, len(rows.Columns()))}
		for {
			err := rows.Next(r.v)
			if err != nil {
				if err := endOf(err, nil); err != nil {
					return err
				}
				break
			}
			r.at = 0
			each(&r)
			if r.err != nil {
				return &fault{r.err}
			}
		}
	}
	// Statements after the last result may still fail.
	for {
		if err := more.NextResultSet(); err != nil {
			return endOf(err, nil)
		}
	}
}

// endOf returns nil for the end of rows or results, or what took its place.
func endOf(err, instead error) error {
	if errors.Is(err, io.EOF) {
		return instead
	}
	return err
}
