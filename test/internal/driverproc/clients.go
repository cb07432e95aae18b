package driverproc

import (
	"context"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/backoff"
	"google.golang.org/grpc/credentials/insecure"
)

// Clients are CSI's services on one connection.
type Clients struct {
	Identity   csi.IdentityClient
	Controller csi.ControllerClient
	Node       csi.NodeClient
}

// Connect makes clients of the driver on a socket, which may appear later. Calls wait for it.
func Connect(t testing.TB, socket string) *Clients {
	t.Helper()
	conn, err := grpc.NewClient("unix://"+socket,
		grpc.WithTransportCredentials(insecure.NewCredentials()),
		grpc.WithDefaultCallOptions(grpc.WaitForReady(true)),
		grpc.WithConnectParams(grpc.ConnectParams{
			Backoff: backoff.Config{BaseDelay: 20 * time.Millisecond, Multiplier: 1.5, MaxDelay: 200 * time.Millisecond},
			// Without it a connection has no more time to come up than the backoff, and is closed under the call
			// that uses it when the machine is slow.
			MinConnectTimeout: 10 * time.Second,
		}))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = conn.Close() })
	return &Clients{csi.NewIdentityClient(conn), csi.NewControllerClient(conn), csi.NewNodeClient(conn)}
}

// waitReady returns when Probe says that the driver is ready.
func (c *Clients) waitReady(ctx context.Context) error {
	for {
		res, err := c.Identity.Probe(ctx, &csi.ProbeRequest{})
		if err == nil && (res.GetReady() == nil || res.GetReady().GetValue()) {
			return nil
		}
		if ctx.Err() != nil {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}
