package cluster

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sync/errgroup"

	"github.com/hermod-im/hermod/bench/fault"
	"github.com/hermod-im/hermod/bench/local"
)

// Options says what a cluster on this machine is made of. Zero values mean the
// defaults named on the fields; Binary and Init are required.
type Options struct {
	// Dir holds everything; empty: a temporary folder, removed by Close.
	Dir string
	// Binary is the server to run.
	Binary string
	// Init prepares the shards that a configuration file names, once, before
	// the first node starts («hermodctl shards init»).
	Init func(ctx context.Context, configFile string) error
	// Nodes, Shards and Databases: how many; 3, 4 and 2. Shards take turns on
	// the databases, which are MariaDB servers.
	Nodes, Shards, Databases int
	// TLS encrypts what would be plaintext on loopback, too: clients (then on
	// the TLS listener), databases and Redis. Links between nodes always are.
	TLS bool
	// Ports are what the nodes' client listeners would like, one after the
	// other; 0, and whatever is taken: free ones.
	Ports int
	// Links puts a link between all parts, which can be cut, delayed and so on:
	// Faults has more to offer then. A connection costs a little more.
	Links bool
	// Previous is a server of an earlier version, for the fault that runs a node
	// with it; empty: there is none.
	Previous string
	// SmallDisk puts the first database on a disk of its own of so many bytes, in
	// memory, which can be full; 0: on none. Without root it is not done.
	SmallDisk int64
	// Clocks says that Binary was built with the tag torture, so that its clocks
	// can be set wrong.
	Clocks bool
	// Settings are added to every node's environment, like HERMOD_LOG_LEVEL=debug.
	Settings []string
	// DatabaseArgs are added to the databases' command lines.
	DatabaseArgs []string
}

func (o *Options) defaults() error {
	if o.Binary == "" || o.Init == nil {
		return errors.New("cluster: Options needs Binary and Init")
	}
	for _, f := range []struct {
		n *int
		v int
	}{{&o.Nodes, 3}, {&o.Shards, 4}, {&o.Databases, 2}} {
		if *f.n == 0 {
			*f.n = f.v
		}
		if *f.n < 1 || *f.n > 64 {
			return fmt.Errorf("cluster: %d nodes, %d shards, %d databases: each from 1 to 64", o.Nodes, o.Shards, o.Databases)
		}
	}
	return nil
}

// Cluster is one that runs. Its parts may be killed, stopped, paused and
// started again at any time.
type Cluster struct {
	Dir       string
	CA        Pair
	Databases []*local.MariaDB
	Redis     *local.Redis
	Nodes     []*Node
	// ShardDSN is how to look into each shard's database, in plaintext.
	ShardDSN []string

	opt       Options
	ownDir    bool
	redisAddr string // where nodes would find it without links
	links     links
	disk      *fault.Disk // the first database's; nil: none of its own
}

// Start starts databases and Redis, prepares the shards, and starts the nodes.
// It returns when clients can connect to all of them. ctx bounds the start.
func Start(ctx context.Context, opt Options) (*Cluster, error) {
	if err := opt.defaults(); err != nil {
		return nil, err
	}
	c := &Cluster{Dir: opt.Dir, opt: opt}
	if err := c.start(ctx); err != nil {
		return nil, errors.Join(err, c.Close())
	}
	return c, nil
}

func (c *Cluster) start(ctx context.Context) (err error) {
	// Looked for together, so that the operator has one command to run.
	if err := local.Require(ctx, "mariadb", "redis"); err != nil {
		return err
	}
	if c.Dir == "" {
		c.ownDir = true
		c.Dir, err = os.MkdirTemp("", "hermod-cluster-")
	} else if c.Dir, err = filepath.Abs(c.Dir); err == nil {
		err = os.MkdirAll(c.Dir, 0o700)
	}
	if err != nil {
		return err
	}
	if err := c.certificates(); err != nil {
		return err
	}
	if err := c.servers(ctx); err != nil {
		return err
	}
	if err := c.shards(ctx); err != nil {
		return err
	}
	if err := c.makeNodes(); err != nil {
		return err
	}
	if err := c.opt.Init(ctx, c.Nodes[0].Config); err != nil {
		return fmt.Errorf("cluster: preparing the shards: %w", err)
	}
	// The first one alone: it makes the keys that all share.
	if err := c.Nodes[0].Start(ctx); err != nil {
		return err
	}
	var g errgroup.Group
	for _, n := range c.Nodes[1:] {
		g.Go(func() error { return n.Start(ctx) })
	}
	return g.Wait()
}

// certificates makes the CA, if the folder has none, and a pair for the
// servers; nodes get theirs when they are made.
func (c *Cluster) certificates() (err error) {
	dir := filepath.Join(c.Dir, "pki")
	c.CA = Pair{Cert: filepath.Join(dir, CACert), Key: filepath.Join(dir, CAKey)}
	if _, err := os.Stat(c.CA.Cert); errors.Is(err, os.ErrNotExist) {
		if c.CA, err = MakeCA(CertOptions{Dir: dir, Life: devLife}); err != nil {
			return err
		}
	}
	_, err = MakeCert(CertOptions{Dir: dir, Name: "servers", Hosts: []string{"127.0.0.1", "localhost"}, Life: devLife, Replace: true})
	return err
}

// devLife is how long certificates of a cluster to play with are valid.
const devLife = 90 * 24 * time.Hour

// pki is a file of the cluster's certificates.
func (c *Cluster) pki(name string) string { return filepath.Join(c.Dir, "pki", name) }

// servers starts databases and Redis, all at once.
func (c *Cluster) servers(ctx context.Context) error {
	c.Databases = make([]*local.MariaDB, c.opt.Databases)
	if c.opt.SmallDisk > 0 && fault.Mountable() == nil {
		var err error
		if c.disk, err = fault.MountDisk(filepath.Join(c.Dir, "disk"), c.opt.SmallDisk); err != nil {
			return fmt.Errorf("cluster: %w", err)
		}
	}
	var g errgroup.Group
	for i := range c.Databases {
		g.Go(func() (err error) {
			args := c.opt.DatabaseArgs
			if c.opt.TLS {
				args = append([]string{"--ssl-ca=" + c.CA.Cert, "--ssl-cert=" + c.pki("servers.pem"), "--ssl-key=" + c.pki("servers-key.pem")}, args...)
			}
			o := local.MariaDBOptions{Dir: filepath.Join(c.Dir, databaseName(i)), Args: args}
			if i == 0 && c.disk != nil {
				o.Data = filepath.Join(c.disk.Dir(), "data")
			}
			c.Databases[i], err = local.StartMariaDB(ctx, o)
			return err
		})
	}
	g.Go(func() error { return c.startRedis(ctx) })
	return g.Wait()
}

func (c *Cluster) startRedis(ctx context.Context) (err error) {
	var args []string
	if c.opt.TLS {
		port, err := local.FreePort()
		if err != nil {
			return err
		}
		c.redisAddr = net.JoinHostPort("127.0.0.1", strconv.Itoa(port))
		args = []string{
			"--tls-port", strconv.Itoa(port), "--tls-auth-clients", "no", "--tls-ca-cert-file", c.CA.Cert,
			"--tls-cert-file", c.pki("servers.pem"), "--tls-key-file", c.pki("servers-key.pem"),
		}
	}
	c.Redis, err = local.StartRedis(ctx, local.RedisOptions{Dir: filepath.Join(c.Dir, "redis"), Args: args})
	if err != nil {
		return err
	}
	if !c.opt.TLS {
		c.redisAddr = c.Redis.Addr()
	}
	return os.WriteFile(filepath.Join(c.Dir, "redis-password"), []byte(c.Redis.Password()+"\n"), 0o600)
}

// shards makes a database for each shard.
func (c *Cluster) shards(ctx context.Context) error {
	for i := range c.opt.Shards {
		db := c.Database(i + 1)
		if err := db.CreateDatabase(ctx, schema(i+1)); err != nil {
			return err
		}
		c.ShardDSN = append(c.ShardDSN, db.DSN(schema(i+1)))
	}
	return nil
}

// schema is the name of a shard's database.
func schema(shard int) string { return "hermod_" + strconv.Itoa(shard) }

// Database is the server that a shard is on.
func (c *Cluster) Database(shard int) *local.MariaDB {
	return c.Databases[(shard-1)%len(c.Databases)]
}

// Stop ends the nodes as an operator would, then everything else.
func (c *Cluster) Stop() error {
	var g errgroup.Group
	for _, n := range c.Nodes {
		g.Go(n.Stop)
	}
	return errors.Join(g.Wait(), c.Close())
}

// Close ends everything at once. A folder that was named stays.
func (c *Cluster) Close() error {
	var errs []error
	for _, n := range c.Nodes {
		errs = append(errs, n.Close())
	}
	for _, db := range c.Databases {
		if db != nil {
			errs = append(errs, db.Close())
		}
	}
	if c.Redis != nil {
		errs = append(errs, c.Redis.Close())
	}
	errs = append(errs, c.links.close()...)
	if c.disk != nil {
		errs = append(errs, c.disk.Close())
	}
	if c.ownDir {
		errs = append(errs, os.RemoveAll(c.Dir))
	}
	return errors.Join(errs...)
}
