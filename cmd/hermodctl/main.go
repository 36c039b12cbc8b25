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
		CA   ClusterCA   `cmd:"" name:"ca" help:"Make the CA that the nodes of a cluster trust."`
		Cert ClusterCert `cmd:"" help:"Make a node's certificate."`
	} `cmd:"" help:"A cluster of nodes."`
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
