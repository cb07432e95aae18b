//go:build lab

package kubelet_test

import (
	"fmt"
	"path/filepath"
	"testing"
	"time"

	"k8s.io/client-go/rest"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
)

// patience with a machine of User Mode Linux that has kubelet and pods on its one CPU.
const patience = 6 * time.Minute

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
	*kube.Client
	*programs
}

// in is the cluster for a part of the test.
func (c *cluster) in(t *testing.T) *cluster {
	own := *c.programs
	own.t = t
	return &cluster{Client: c.In(t), programs: &own}
}

// controlPlane waits until the API is ready.
func controlPlane(p *programs) *cluster {
	p.t.Helper()
	c := &cluster{programs: p}
	c.Client = kube.Connect(p.t, &rest.Config{Host: apiAddress, BearerToken: "admin", TLSClientConfig: rest.TLSClientConfig{CAFile: c.authority()}}, patience)
	return c
}

func (c *cluster) authority() string {
	return filepath.Join(kube.Environment(c.t, "E2E_CONTROL"), "ca.crt")
}

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
