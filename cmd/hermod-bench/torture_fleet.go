package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"strconv"
	"sync"

	"github.com/go-sql-driver/mysql"
	"github.com/rs/zerolog"
	"golang.org/x/sync/errgroup"

	"github.com/hermod-im/hermod/bench/observe"
	"github.com/hermod-im/hermod/bench/torture"
	"github.com/hermod-im/hermod/cmd/internal/cluster"
	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/storage"
)

// fleet is a cluster of real parts on this machine.
type fleet struct {
	*cluster.Cluster
	roots *x509.CertPool
	dbs   []*sql.DB // of the shards, for looking
	place [storage.Slots]string
}

// startFleet starts a cluster. change is for a smaller one, or another one.
func startFleet(ctx context.Context, binary, dir string, change ...func(*cluster.Options)) (*fleet, error) {
	o := cluster.Options{
		Dir: dir, Binary: binary, TLS: true, Links: true, Init: initShards,
		Settings: []string{
			"HERMOD_AUTH_ARGON2_MEMORY_KIB=" + strconv.Itoa(tortureArgonKiB), "HERMOD_AUTH_ARGON2_TIME=" + strconv.Itoa(tortureArgonTime),
			"HERMOD_STORAGE_RETAIN_EVENTS=" + strconv.Itoa(tortureRetention),
			// Apps come back within a second or two; waiting longer for them
			// would make a rolling restart the longest of all faults.
			"HERMOD_DRAIN_WINDOW=3s",
		},
	}
	for _, f := range change {
		f(&o)
	}
	c, err := cluster.Start(ctx, o)
	if err != nil {
		return nil, err
	}
	f := &fleet{Cluster: c, roots: x509.NewCertPool()}
	if err := f.look(ctx); err != nil {
		return nil, errors.Join(err, f.Close())
	}
	return f, nil
}

// initShards is what «hermodctl shards init» does.
func initShards(ctx context.Context, file string) error {
	cfg, err := config.Load(file, nil)
	if err != nil {
		return err
	}
	shards, err := cfg.OpenShards(ctx, config.OpenOptions{})
	if err != nil {
		return err
	}
	err = storage.Prepare(ctx, shards, zerolog.Nop())
	for _, sh := range shards {
		err = errors.Join(err, sh.Close())
	}
	return err
}

// look opens the databases, and finds out which slots are where.
func (f *fleet) look(ctx context.Context) error {
	pem, err := os.ReadFile(f.CA.Cert)
	if err != nil {
		return err
	}
	if !f.roots.AppendCertsFromPEM(pem) {
		return fmt.Errorf("%s holds no certificate", f.CA.Cert)
	}
	for i, dsn := range f.ShardDSN {
		cfg, err := mysql.ParseDSN(dsn)
		if err != nil {
			return err
		}
		cfg.Logger = &mysql.NopLogger{}
		con, err := mysql.NewConnector(cfg)
		if err != nil {
			return err
		}
		db := sql.OpenDB(con)
		f.dbs = append(f.dbs, db)
		if err := f.findSlots(ctx, db, "mariadb"+strconv.Itoa(1+i%len(f.Databases))); err != nil {
			return err
		}
	}
	return nil
}

func (f *fleet) findSlots(ctx context.Context, db *sql.DB, name string) error {
	rows, err := db.QueryContext(ctx, "SELECT slot FROM slots WHERE state=1")
	if err != nil {
		return err
	}
	defer func() { _ = rows.Close() }()
	for rows.Next() {
		var slot int
		if err := rows.Scan(&slot); err != nil {
			return err
		}
		f.place[slot%storage.Slots] = name
	}
	return rows.Err()
}

// Close kills everything.
func (f *fleet) Close() (err error) {
	for _, db := range f.dbs {
		err = errors.Join(err, db.Close())
	}
	return errors.Join(err, f.Cluster.Close())
}

// About, Endpoints and the methods below make it a torture.System; the cluster
// itself has the Faults.
func (f *fleet) About() string {
	return fmt.Sprintf("%d nodes, %d MariaDB shards on %d servers, Redis, TLS everywhere", len(f.Nodes), len(f.ShardDSN), len(f.Databases))
}

// Endpoints are the nodes' listeners.
func (f *fleet) Endpoints() (out []string) {
	for _, n := range f.Nodes {
		out = append(out, n.Addr)
	}
	return out
}

// TLS trusts the cluster's CA.
func (f *fleet) TLS() *tls.Config { return &tls.Config{RootCAs: f.roots} }

// Sessions asks all nodes.
func (f *fleet) Sessions(ctx context.Context) (sum int, err error) {
	for _, n := range f.Nodes {
		s, err := askSessions(ctx, n.Admin)
		if err != nil {
			return 0, err
		}
		sum += s
	}
	return sum, nil
}

// Tasks asks the databases.
func (f *fleet) Tasks(ctx context.Context) (int, error) {
	n, err := f.totals(ctx, "tasks")
	return n.Tasks, err
}

// totals counts the rows of tables of all shards, all at once.
func (f *fleet) totals(ctx context.Context, tables ...string) (n torture.Totals, err error) {
	into := map[string]*int{"inbox": &n.Inbox, "entries": &n.Entries, "tasks": &n.Tasks}
	var g errgroup.Group
	var mu sync.Mutex
	for _, db := range f.dbs {
		g.Go(func() error {
			for _, table := range tables {
				var rows int
				if err := db.QueryRowContext(ctx, "SELECT COUNT(*) FROM "+table).Scan(&rows); err != nil {
					return err
				}
				mu.Lock()
				*into[table] += rows
				mu.Unlock()
			}
			return nil
		})
	}
	err = g.Wait()
	return n, err
}

// Routes counts the entries of the directory.
func (f *fleet) Routes(ctx context.Context) (int, error) {
	const count = `local n = 0 for _, key in ipairs(redis.call('KEYS', 'hermod:u:*')) do n = n + redis.call('HLEN', key) end return n`
	n, err := f.Redis.Do(ctx, "EVAL", count, 0)
	if err != nil {
		return -1, err
	}
	routes, ok := n.(int64)
	if !ok {
		return -1, fmt.Errorf("redis counts %v", n)
	}
	return int(routes), nil
}

// Memory is the nodes'.
func (f *fleet) Memory(context.Context) (map[string]uint64, error) {
	all := make(map[string]uint64)
	for _, n := range f.Nodes {
		if b, err := observe.Resident(n.Pid()); err == nil { // one that was killed has none
			all[n.Name] = b
		}
	}
	return all, nil
}

// Place is the database of a user's shard.
func (f *fleet) Place(user int64) string { return f.place[storage.UserID(user).Slot()] }

// Logs copies everybody's log.
func (f *fleet) Logs(to string) error { return copyLogs(f.Dir, to) }

// Stores stops the nodes and opens the shards.
func (f *fleet) Stores(ctx context.Context) (torture.Stores, error) {
	var g errgroup.Group
	for _, n := range f.Nodes {
		g.Go(n.Stop)
	}
	stopped := g.Wait() // who had to be killed is gone all the same
	cfg, err := config.Load(f.Nodes[0].Config, nil)
	if err != nil {
		return nil, errors.Join(stopped, err)
	}
	shards, err := cfg.OpenShards(ctx, config.OpenOptions{})
	if err != nil {
		return nil, errors.Join(stopped, err)
	}
	st, err := openStores(ctx, shards, func(ctx context.Context) (torture.Totals, error) {
		return f.totals(ctx, "inbox", "entries", "tasks")
	})
	if err != nil {
		return nil, errors.Join(stopped, err)
	}
	return st, stopped
}
