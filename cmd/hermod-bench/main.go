// Command hermod-bench loads a Hermod server and verifies what comes back.
//
//	hermod-bench pairs --rate 500
//	hermod-bench pairs --rate 0 --pairs 100 --json flatout.json
//	hermod-bench idle --from 2000 --to 15000 --pid "$(pidof hermod)"
//
// The method, and what the figures mean, is in the documentation of package
// bench. It ends with 1 if a promise was broken or a run could not be done.
package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"syscall"

	"github.com/alecthomas/kong"
)

// version is set by the linker.
var version = "unknown"

type cli struct {
	Pairs   pairsCmd         `cmd:"" help:"Pairs of users write to each other; every message is verified."`
	Idle    idleCmd          `cmd:"" help:"Many idle connections: the server's memory per connection."`
	Disk    diskCmd          `cmd:"" help:"What one durable write costs on this disk, without a server."`
	Attack  attackCmd        `cmd:"" help:"Attack servers that it starts itself: limits, logins, other people's things, the fleet."`
	Users   usersCmd         `cmd:"" help:"Make the accounts that a later run uses, and stop."`
	Storm   stormCmd         `cmd:"" help:"Take its own server away from everybody at once, and watch them come back."`
	Torture tortureCmd       `cmd:"" help:"Break a system of its own while people write, and prove that nothing is lost."`
	Version kong.VersionFlag `help:"Print the version."`
}

func main() {
	os.Exit(run(os.Args[1:], os.Stdout, os.Stderr))
}

// errFailed says that the run was done and its report is not OK.
var errFailed = errors.New("the server broke a promise: see the report")

func run(args []string, stdout, stderr io.Writer) int {
	var c cli
	code := -1
	parser, err := kong.New(&c,
		kong.Name("hermod-bench"),
		kong.Description("Load tool of the Hermod instant-messaging server. It verifies every message."),
		kong.Vars{"version": version, "state": defaultState()},
		kong.UsageOnError(),
		kong.Writers(stdout, stderr),
		kong.Exit(func(n int) { code = n }),
	)
	if err != nil {
		fmt.Fprintln(stderr, "hermod-bench:", err)
		return 1
	}
	k, err := parser.Parse(args)
	if code >= 0 { // --help or --version
		return code
	}
	if err != nil {
		fmt.Fprintf(stderr, "hermod-bench: %v\nhermod-bench --help tells what there is.\n", err)
		return 2
	}
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt, syscall.SIGTERM)
	defer stop()
	ui := newConsole(stdout, stderr)
	k.BindTo(ctx, (*context.Context)(nil))
	if err := k.Run(ui); err != nil {
		fmt.Fprintln(stderr, "hermod-bench:", err)
		return 1
	}
	return 0
}

// report is how a run ended.
type report interface{ WriteSummary(io.Writer) error }

// finish prints and writes the report.
func finish(ui *console, rep report, ok bool, file string) error {
	ui.endProgress()
	if err := rep.WriteSummary(ui.out); err != nil {
		return err
	}
	if err := writeJSON(file, rep); err != nil {
		return err
	}
	if !ok {
		return errFailed
	}
	return nil
}
