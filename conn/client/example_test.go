package client_test

import (
	"context"
	"fmt"
	"log"
	"os"
	"os/signal"

	"github.com/hermod-im/hermod/conn/client"
	"github.com/hermod-im/hermod/proto"
)

// A bot that answers every message. Start a server with `make run` first; the
// second run resumes the session and sees what it has missed.
func Example() {
	ctx, stop := signal.NotifyContext(context.Background(), os.Interrupt)
	defer stop()

	opts := client.Options{
		Endpoints: []string{"127.0.0.1:5100"},
		Device:    client.Device{Slot: proto.DeviceSlot_DEVICE_SLOT_BOT, Platform: "go"},
		Store:     client.FileStore{Path: "echo.json"},
		OnEvents: func(c *client.Client, events []*proto.Event) {
			for _, ev := range events {
				text, ok := client.TextOf(ev.GetMessage().GetContent())
				if !ok || ev.ActorId == c.UserID() {
					continue
				}
				if _, err := c.Send(ctx, client.User(ev.ActorId), client.Text("you said: "+text)); err != nil {
					log.Print("not answered: ", err)
				}
			}
		},
		OnState: func(_ *client.Client, s client.State) { log.Print(s.Phase, " ", s.Err) },
	}
	if s, err := opts.Store.Load(); err != nil {
		log.Fatal(err)
	} else if !s.LoggedIn() {
		opts.Credentials = client.Credentials{Name: "echo", Password: os.Getenv("ECHO_PASSWORD"), Register: true}
	}
	c, err := client.Dial(ctx, opts)
	if err != nil {
		log.Fatal(err)
	}
	defer c.Close()
	fmt.Println("write to", c.Name())
	select {
	case <-ctx.Done():
	case <-c.Done(): // kicked, revoked, …
		log.Print(c.Err())
	}
}
