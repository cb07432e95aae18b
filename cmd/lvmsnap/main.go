// Command lvmsnap is the CSI driver: one process per node, serving that node's own volume groups.
package main

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"k8s.io/klog/v2"
)

func main() {
	opts, err := parseFlags(os.Args[1:], os.Stdout)
	switch {
	case errors.Is(err, errHelp):
		os.Exit(0)
	case err != nil:
		fmt.Fprintf(os.Stderr, "lvmsnap: %v\n", err)
		os.Exit(2)
	case opts.version:
		fmt.Println("lvmsnap", version)
		os.Exit(0)
	}
	if opts.logFormat == formatJSON {
		logJSON(os.Stderr)
	}
	// The first signal drains; the second, by the default action, ends at once.
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	context.AfterFunc(ctx, stop)
	err = run(klog.NewContext(ctx, klog.Background()), opts)
	if err != nil {
		klog.Background().Error(err, "lvmsnap ends")
	}
	klog.Flush()
	if err != nil {
		os.Exit(1)
	}
}
