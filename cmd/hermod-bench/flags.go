package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"github.com/hermod-im/hermod/bench"
)

// serverFlags say which server, and how to look at it.
type serverFlags struct {
	Server   string `default:"127.0.0.1:5100" help:"Server address (TLS is 5101 by default). Users take turns on several nodes: give all, with commas."`
	TLS      bool   `name:"tls" help:"Connect with TLS 1.3."`
	CA       string `name:"ca" type:"existingfile" help:"PEM file with the certificate to trust; implies --tls."`
	Insecure bool   `name:"insecure" help:"With TLS: do not verify the server's certificate."`
	PID      int    `name:"pid" help:"Process id of the server, for its memory and CPU."`
	Admin    string `help:"Admin HTTP of the server, where --pid is not given. For a server on 127.0.0.1:5100 or 5101 it is http://127.0.0.1:5180."`
}

// admin guesses the admin address of a server at its default place only: the
// figures of another process than the one under load would be worse than none.
func (f *serverFlags) admin() string {
	if f.Admin == "" && (f.Server == "127.0.0.1:5100" || f.Server == "127.0.0.1:5101") {
		return "http://127.0.0.1:5180"
	}
	return f.Admin
}

func (f *serverFlags) target(ui *console) (bench.Target, error) {
	t := bench.Target{Addr: f.Server, PID: f.PID, Admin: f.admin(), Version: version, Log: ui.log, Progress: ui.progress}
	if !f.TLS && f.CA == "" {
		if f.Insecure {
			return t, errors.New("--insecure is about TLS: give --tls too")
		}
		return t, nil
	}
	t.TLS = &tls.Config{MinVersion: tls.VersionTLS13, InsecureSkipVerify: f.Insecure}
	if f.CA != "" {
		pem, err := os.ReadFile(f.CA)
		if err != nil {
			return t, err
		}
		t.TLS.RootCAs = x509.NewCertPool()
		if !t.TLS.RootCAs.AppendCertsFromPEM(pem) {
			return t, fmt.Errorf("%s holds no PEM certificate", f.CA)
		}
	}
	return t, nil
}

// userFlags say as whom.
type userFlags struct {
	UsersPrefix string `default:"bench" help:"Names of the accounts: this and a number. Runs at the same time need different ones."`
	State       string `default:"${state}" type:"path" help:"Folder for device secrets and tokens, so that later runs need no passwords."`
	Password    string `env:"HERMOD_BENCH_PASSWORD" help:"Password of the accounts; by default a random one, kept in the state."`
	Logins      int    `default:"16" help:"Logins and registrations at a time."`
}

func (f *userFlags) users() bench.Users {
	return bench.Users{State: f.State, Prefix: f.UsersPrefix, Password: f.Password, Logins: f.Logins}
}

// defaultState is a folder of the person who runs it.
func defaultState() string {
	dir, err := os.UserConfigDir()
	if err != nil {
		dir = "."
	}
	return filepath.Join(dir, "hermod-bench")
}

type pairsCmd struct {
	serverFlags
	userFlags
	Pairs    int           `default:"50" help:"Pairs of users."`
	BothWays bool          `help:"Both users of a pair write; by default one does."`
	Rate     float64       `default:"500" help:"Messages per second in all, offered on schedule (open loop). 0: flat out."`
	InFlight int           `default:"64" help:"Most unanswered sends per writer."`
	Size     int           `default:"128" help:"Bytes of a message body, 40 to 32768."`
	Warmup   time.Duration `default:"3s" help:"Verified, not measured."`
	Duration time.Duration `default:"30s" help:"Measured, after the warm-up."`
	Drain    time.Duration `default:"15s" help:"Longest wait at the end for what is under way."`
	JSON     string        `name:"json" type:"path" help:"Write everything to this file."`
}

func (c *pairsCmd) Run(ctx context.Context, ui *console) error {
	t, err := c.target(ui)
	if err != nil {
		return err
	}
	rep, err := bench.Pairs(ctx, bench.PairsConfig{
		Target: t, Users: c.users(),
		Pairs: c.Pairs, BothWays: c.BothWays, Rate: c.Rate, InFlight: c.InFlight, Size: c.Size,
		Warmup: c.Warmup, Duration: c.Duration, Drain: c.Drain,
	})
	if err != nil {
		ui.endProgress()
		return err
	}
	return finish(ui, rep, rep.OK, c.JSON)
}

type idleCmd struct {
	serverFlags
	userFlags
	From      int           `default:"2000" help:"Connections at the first measurement."`
	To        int           `default:"15000" help:"Connections at the second one."`
	Ramp      float64       `default:"1000" help:"New connections per second."`
	Heartbeat time.Duration `default:"0s" help:"Interval to ask for; 0: the server's."`
	Cold      bool          `help:"Do not have every user log in and leave once before: what the storage caches of the accounts then counts as memory of connections."`
	Settle    time.Duration `default:"40s" help:"How long memory must have stood still at each point; the server returns what it does not need within half a minute."`
	Hold      time.Duration `default:"30s" help:"How long to watch the server's CPU at the end."`
	JSON      string        `name:"json" type:"path" help:"Write everything to this file."`
}

func (c *idleCmd) Run(ctx context.Context, ui *console) error {
	t, err := c.target(ui)
	if err != nil {
		return err
	}
	rep, err := bench.Idle(ctx, bench.IdleConfig{
		Target: t, Users: c.users(),
		From: c.From, To: c.To, Warm: !c.Cold, Ramp: c.Ramp, Heartbeat: c.Heartbeat, Settle: c.Settle, Hold: c.Hold,
	})
	if err != nil {
		ui.endProgress()
		return err
	}
	return finish(ui, rep, rep.OK, c.JSON)
}

type usersCmd struct {
	serverFlags
	userFlags
	Count int    `default:"15000" help:"How many accounts there must be."`
	JSON  string `name:"json" type:"path" help:"Write everything to this file."`
}

func (c *usersCmd) Run(ctx context.Context, ui *console) error {
	t, err := c.target(ui)
	if err != nil {
		return err
	}
	rep, err := bench.MakeUsers(ctx, bench.UsersConfig{Target: t, Users: c.users(), Count: c.Count})
	if err != nil {
		ui.endProgress()
		return err
	}
	return finish(ui, rep, rep.OK, c.JSON)
}
