// Command lvmsnapctl shows the volumes, snapshots and pools of the driver on this node, and what is wrong with them.
package main

//go:generate go run ../../hack/ctldocs -reference ../../docs/reference/lvmsnapctl.md -dir ../../_output/lvmsnapctl

import (
	"context"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/term"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// version is set by the Makefile (-X main.version), from git.
var version = "unknown"

func main() { os.Exit(hostexec.Apart(run)) }

func run() int {
	// A signal ends questions, and has what must be given back given back; the second, by the default action, ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop)
	return ctl.Run(ctx, env(), os.Args[1:])
}

func env() ctl.Env {
	e := ctl.Env{
		Out: os.Stdout, Err: os.Stderr, Now: time.Now, Version: version, Open: open, Discover: discover,
		Terminal: term.IsTerminal(syscall.Stdout), NoColor: os.Getenv("NO_COLOR") != "" || os.Getenv("TERM") == "dumb",
	}
	if groups := os.Getenv("LVMSNAP_VOLUME_GROUP"); groups != "" {
		e.Defaults.VolumeGroups = strings.Split(groups, ",")
	}
	e.Defaults.NodeID = os.Getenv("NODE_NAME")
	if e.Defaults.NodeID == "" {
		e.Defaults.NodeID, _ = os.Hostname() // handles are the worse for it, and nothing else
	}
	return e
}
