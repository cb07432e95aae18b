// livenessprobe stands in for the sidecar of that name, which the Go module proxy does not have: /healthz is what the driver
// answers to Probe. It takes the flags that the manifests give.
package main

import (
	"context"
	"errors"
	"flag"
	"log"
	"net/http"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
)

func main() {
	address := flag.String("csi-address", "", "the driver's socket")
	health := flag.String("http-endpoint", "", "where /healthz is served")
	timeout := flag.Duration("probe-timeout", time.Second, "how long the driver may take to answer")
	_ = flag.Int("v", 0, "taken, and not used")
	flag.Parse()
	http.HandleFunc("/healthz", func(w http.ResponseWriter, r *http.Request) {
		ctx, cancel := context.WithTimeout(r.Context(), *timeout)
		defer cancel()
		if err := probe(ctx, *address); err != nil {
			log.Print(err)
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	server := &http.Server{Addr: *health, ReadHeaderTimeout: time.Second}
	log.Fatal(server.ListenAndServe())
}

func probe(ctx context.Context, address string) error {
	conn, err := connection.Connect(ctx, address, nil, connection.WithTimeout(time.Second))
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	ready, err := rpc.Probe(ctx, conn)
	if err == nil && !ready {
		err = errors.New("the driver is not ready")
	}
	return err
}
