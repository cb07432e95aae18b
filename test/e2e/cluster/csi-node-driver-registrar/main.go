// csi-node-driver-registrar stands in for the sidecar of that name, which the Go module proxy does not have: it tells kubelet
// where the driver's socket is. It takes the flags that the manifests give.
package main

import (
	"context"
	"errors"
	"flag"
	"io/fs"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"path/filepath"
	"syscall"
	"time"

	"github.com/kubernetes-csi/csi-lib-utils/connection"
	"github.com/kubernetes-csi/csi-lib-utils/rpc"
	"google.golang.org/grpc"
	registration "k8s.io/kubelet/pkg/apis/pluginregistration/v1"
)

// registrationDir is where the manifests mount kubelet's plugins_registry.
const registrationDir = "/registration"

type registrar struct {
	registration.UnimplementedRegistrationServer
	driver, endpoint string
}

func (r *registrar) GetInfo(context.Context, *registration.InfoRequest) (*registration.PluginInfo, error) {
	return &registration.PluginInfo{Type: registration.CSIPlugin, Name: r.driver, Endpoint: r.endpoint, SupportedVersions: []string{"1.0.0"}}, nil
}

func (r *registrar) NotifyRegistrationStatus(_ context.Context, status *registration.RegistrationStatus) (*registration.RegistrationStatusResponse, error) {
	if !status.PluginRegistered {
		log.Fatalf("kubelet did not register %s: %s", r.driver, status.Error)
	}
	log.Printf("kubelet has registered %s", r.driver)
	return &registration.RegistrationStatusResponse{}, nil
}

func main() {
	address := flag.String("csi-address", "", "the driver's socket")
	endpoint := flag.String("kubelet-registration-path", "", "the same, as kubelet sees it")
	health := flag.String("http-endpoint", "", "where /healthz is served")
	_ = flag.Int("v", 0, "taken, and not used")
	flag.Parse()
	if err := run(*address, *endpoint, *health); err != nil {
		log.Fatal(err)
	}
}

func run(address, endpoint, health string) error {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	defer cancel()
	conn, err := connection.Connect(ctx, address, nil)
	if err != nil {
		return err
	}
	driver, err := rpc.GetDriverName(ctx, conn)
	if err != nil {
		return err
	}
	socket := filepath.Join(registrationDir, driver+"-reg.sock")
	if err := os.Remove(socket); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	listener, err := net.Listen("unix", socket)
	if err != nil {
		return err
	}
	http.HandleFunc("/healthz", func(w http.ResponseWriter, _ *http.Request) {
		if _, err := os.Stat(socket); err != nil {
			http.Error(w, err.Error(), http.StatusInternalServerError)
		}
	})
	server := &http.Server{Addr: health, ReadHeaderTimeout: time.Second}
	go func() { log.Fatal(server.ListenAndServe()) }()
	g := grpc.NewServer()
	registration.RegisterRegistrationServer(g, &registrar{driver: driver, endpoint: endpoint})
	// The socket goes with the pod, and with it the registration.
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	go func() {
		<-signals
		g.Stop()
	}()
	return g.Serve(listener)
}
