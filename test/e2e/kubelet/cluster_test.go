//go:build lab

package kubelet_test

import (
	"context"
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/discovery"
	"k8s.io/client-go/discovery/cached/memory"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/kubernetes"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/restmapper"
)

// What the program controlplane says: tokens, the nodes' name, and addresses.
const (
	nodeName    = "worker-1"
	nodeAddress = "10.77.0.2"
	gateway     = "10.77.0.1"
	services    = "10.96.0.0/24"
	apiAddress  = "https://10.96.0.1:443"
)

// cluster is the control plane, beside the lab's machine.
type cluster struct {
	*kubernetes.Clientset
	*programs
	dynamic dynamic.Interface
	mapper  *restmapper.DeferredDiscoveryRESTMapper
}

// in is the cluster for a part of the test.
func (c *cluster) in(t *testing.T) *cluster {
	part, own := *c, *c.programs
	own.t = t
	part.programs = &own
	return &part
}

// controlPlane waits until the API is ready.
func controlPlane(p *programs) *cluster {
	p.t.Helper()
	c := &cluster{programs: p}
	config := &rest.Config{Host: apiAddress, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{CAFile: c.authority()}, QPS: 100, Burst: 200}
	var err error
	if c.Clientset, err = kubernetes.NewForConfig(config); err != nil {
		c.t.Fatal(err)
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		c.t.Fatal(err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery.NewDiscoveryClientForConfigOrDie(config)))
	await(c.t, "the API to be ready", 2*time.Minute, func(ctx context.Context) error {
		return c.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
	return c
}

func (c *cluster) authority() string { return filepath.Join(environment(c.t, "E2E_CONTROL"), "ca.crt") }

// kubeletAccess is kubelet's access to the API, with a node's rights.
func (c *cluster) kubeletAccess() string {
	return c.write("kubelet.kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: kubelet, user: {token: kubelet}}]
contexts: [{name: e2e, context: {cluster: e2e, user: kubelet}}]
current-context: e2e
`, apiAddress, c.authority()))
}

// context is for one request.
func (c *cluster) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.t.Cleanup(cancel)
	return ctx
}
