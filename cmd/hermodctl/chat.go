package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"time"

	tea "github.com/charmbracelet/bubbletea"
	"golang.org/x/term"

	"github.com/hermod-im/hermod/cmd/internal/config"
	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// Chat is the terminal client.
type Chat struct {
	Server   []string `default:"127.0.0.1:5100" help:"host:port of the server; of several, separated by commas, any one that lives."`
	Name     string   `required:"" help:"Account name."`
	Register bool     `help:"Make the account."`
	Login    bool     `help:"Log in by password, even if this terminal is logged in."`
	TLS      bool     `name:"tls" help:"Use TLS 1.3 (always, off loopback)."`
	CA       string   `name:"ca" type:"path" help:"PEM file with the certificate to trust."`
	Pin      string   `help:"sha256/… of the server's public key; trusts a self-signed certificate."`
	State    string   `type:"path" help:"Folder for the login (the user's config folder by default)."`
}

// Run logs in and shows the screen until the person leaves.
func (c *Chat) Run() error {
	opts, err := c.options()
	if err != nil {
		return err
	}
	session, err := opts.Store.Load()
	if err != nil {
		return err
	}
	if c.Register || c.Login || !session.LoggedIn() {
		pw, err := askPassword(os.Stdin, os.Stderr, c.Register)
		if err != nil {
			return err
		}
		opts.Credentials = client.Credentials{Name: c.Name, Password: pw, Register: c.Register}
	}
	var program *tea.Program
	ready := make(chan struct{})
	r := &remote{post: func(m tea.Msg) { <-ready; program.Send(m) }}
	cl, err := client.New(r.options(opts))
	if err != nil {
		return err
	}
	r.c = cl
	s := newScreen(r, c.Name, time.Now)
	program = tea.NewProgram(s, tea.WithAltScreen())
	close(ready)
	_, err = program.Run()
	err = errors.Join(err, cl.Close())
	if s.ended != "" {
		return errors.New(s.ended)
	}
	return err
}

// options says where to connect to, and where the login is kept.
func (c *Chat) options() (client.Options, error) {
	o := client.Options{
		Endpoints: c.Server,
		Device: client.Device{
			Slot: proto.DeviceSlot_DEVICE_SLOT_DESKTOP, Platform: "terminal",
			Model: runtime.GOOS + "/" + runtime.GOARCH, AppVersion: clip(version, 64),
		},
	}
	encrypted := c.TLS || c.CA != "" || c.Pin != ""
	for _, addr := range c.Server {
		host, _, err := net.SplitHostPort(addr)
		if err != nil {
			return o, fmt.Errorf("--server %s: write host:port", addr)
		}
		encrypted = encrypted || !config.IsLoopback(host)
	}
	if encrypted {
		var err error
		if o.TLS, o.Pins, err = c.tls(); err != nil {
			return o, err
		}
	}
	dir := c.State
	if dir == "" {
		base, err := os.UserConfigDir()
		if err != nil {
			return o, fmt.Errorf("no config folder: %w; name one with --state", err)
		}
		dir = filepath.Join(base, "hermod")
	}
	o.Store = client.FileStore{Path: filepath.Join(dir, fileName(c.Name+"@"+c.Server[0])+".json")}
	return o, nil
}

// fileName keeps letters, digits and a few marks.
func fileName(s string) string {
	return strings.Map(func(r rune) rune {
		if r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || strings.ContainsRune("@._-", r) || r > 0x7f {
			return r
		}
		return '_'
	}, s)
}

func clip(s string, n int) string { return s[:min(len(s), n)] }

func (c *Chat) tls() (*tls.Config, [][32]byte, error) {
	cfg := &tls.Config{}
	if c.CA != "" {
		pem, err := os.ReadFile(c.CA)
		if err != nil {
			return nil, nil, err
		}
		cfg.RootCAs = x509.NewCertPool()
		if !cfg.RootCAs.AppendCertsFromPEM(pem) {
			return nil, nil, fmt.Errorf("%s holds no PEM certificate", c.CA)
		}
	}
	if c.Pin == "" {
		return cfg, nil, nil
	}
	raw, err := base64.StdEncoding.DecodeString(strings.TrimPrefix(c.Pin, "sha256/"))
	if err != nil || len(raw) != 32 {
		return nil, nil, errors.New("--pin: write sha256/ and the base64 of 32 bytes, as «hermodctl cert dev» prints it")
	}
	// The pin decides; a self-signed certificate has no chain to verify.
	cfg.InsecureSkipVerify = c.CA == ""
	return cfg, [][32]byte{[32]byte(raw)}, nil
}

// askPassword reads a password without showing it; twice for a new one. From
// a pipe it reads a line.
func askPassword(in *os.File, out io.Writer, twice bool) (string, error) {
	if !term.IsTerminal(int(in.Fd())) {
		return readLine(in)
	}
	read := func(prompt string) (string, error) {
		fmt.Fprint(out, prompt)
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(out)
		return string(b), err
	}
	pw, err := read("password: ")
	if err != nil || !twice {
		return pw, err
	}
	again, err := read("again: ")
	if err == nil && again != pw {
		err = errors.New("the two passwords differ")
	}
	return pw, err
}

// readLine reads byte by byte: what follows the line is not ours.
func readLine(in io.Reader) (string, error) {
	var line []byte
	var b [1]byte
	for {
		if _, err := in.Read(b[:]); err != nil || b[0] == '\n' {
			if err != nil && len(line) == 0 {
				return "", errors.New("no password: give it on the terminal or as a line on standard input")
			}
			return string(bytes.TrimRight(line, "\r")), nil
		}
		line = append(line, b[0])
	}
}
