// Command hermodctl is the operator's tool and a chat client for a terminal.
package main

import (
	"io"
	"os"

	"github.com/alecthomas/kong"
)

// version is set by the linker.
var version = "unknown"

type cli struct {
	Chat Chat `cmd:"" help:"Chat in this terminal."`
	Cert struct {
		Dev CertDev `cmd:"" help:"Make a self-signed certificate for trying TLS."`
	} `cmd:"" help:"Certificates."`
	Cluster struct {
		CA     ClusterCA     `cmd:"" name:"ca" help:"Make the CA that the nodes of a cluster trust."`
		Cert   ClusterCert   `cmd:"" help:"Make a node's certificate."`
		Status ClusterStatus `cmd:"" help:"Show nodes, shards and Redis, as the node of this machine sees them."`
		Dev    ClusterDev    `cmd:"" help:"Run a whole cluster on this machine, to play with."`
	} `cmd:"" help:"A cluster of nodes."`
	Shards struct {
		Init   ShardsInit   `cmd:"" help:"Prepare the shards of the configuration; may be repeated."`
		Status ShardsStatus `cmd:"" help:"Show the shards of the configuration."`
		Check  ShardsCheck  `cmd:"" help:"Say what is wrong with how the databases are set up."`
	} `cmd:"" help:"The shards that data is on."`
	Slots struct {
		Move   SlotsMove   `cmd:"" help:"Move slots, with all that is in them, from one shard to another."`
		Status SlotsStatus `cmd:"" help:"Show which shard has which slots."`
	} `cmd:"" help:"Slots: which users are on which shard."`
	Version kong.VersionFlag `help:"Print the version."`
}

func main() {
	var c cli
	ctx := kong.Parse(&c,
		kong.Name("hermodctl"),
		kong.Description("Operator's tool and terminal chat of the Hermod instant-messaging server."),
		kong.Vars{"version": version},
		kong.BindTo(os.Stdout, (*io.Writer)(nil)),
		kong.UsageOnError(),
	)
	ctx.FatalIfErrorf(ctx.Run())
}
