//go:build lab

package kubelet_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"fmt"
	"math/big"
	"net"
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

const (
	nodeName = "worker-1"
	// Addresses of the machine's loopback device. The API server listens where the Service kubernetes is, so that pods reach it
	// without a kube-proxy.
	serviceAddress = "10.96.0.1"
	nodeAddress    = "192.0.2.1"
	apiAddress     = "https://" + serviceAddress + ":443"
	adminToken     = "admin"
	kubeletToken   = "kubelet"
)

// cluster is a control plane of real programs, in the lab's machine and gone with it.
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

// controlPlane starts etcd, kube-apiserver with the usual admission, kube-controller-manager and kube-scheduler.
func controlPlane(p *programs) *cluster {
	p.t.Helper()
	c := &cluster{programs: p}
	c.writeSecrets()
	etcd := "http://127.0.0.1:2379"
	c.start("etcd", c.built("server"), "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", "http://127.0.0.1:2380",
		"--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "default=http://127.0.0.1:2380")
	key := c.path("sa.key")
	c.start("kube-apiserver", c.built("kube-apiserver"), "--etcd-servers="+etcd, "--bind-address=0.0.0.0", "--secure-port=443",
		"--advertise-address="+nodeAddress, "--endpoint-reconciler-type=none", // it wants a route otherwise, and there is none
		"--tls-cert-file="+c.path("api.crt"), "--tls-private-key-file="+c.path("api.key"), "--cert-dir="+c.dir,
		"--service-account-issuer=https://e2e", "--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--token-auth-file="+c.path("tokens.csv"), "--authorization-mode=Node,RBAC", "--service-cluster-ip-range=10.96.0.0/24",
		// Its taint is taken away by a controller that does not run here.
		"--disable-admission-plugins=TaintNodesByCondition",
		"--kubelet-preferred-address-types=InternalIP", "--allow-privileged", "--profiling=false", "--enable-priority-and-fairness=false")
	c.connect()
	kubeconfig := c.kubeconfig("admin", adminToken)
	kubeconfigs := []string{"--kubeconfig=" + kubeconfig, "--authentication-kubeconfig=" + kubeconfig, "--authorization-kubeconfig=" + kubeconfig,
		"--leader-elect=false", "--bind-address=127.0.0.1"}
	c.start("kube-controller-manager", c.built("kube-controller-manager"), append(kubeconfigs, "--root-ca-file="+c.path("ca.crt"),
		"--controllers=persistentvolume-binder-controller,persistentvolume-expander-controller,persistentvolumeclaim-protection-controller,"+
			"persistentvolume-protection-controller,daemonset-controller,deployment-controller,replicaset-controller,serviceaccount-controller,"+
			"root-ca-certificate-publisher-controller,garbage-collector-controller,namespace-controller")...)
	c.start("kube-scheduler", c.built("kube-scheduler"), kubeconfigs...)
	return c
}

func (c *cluster) path(name string) string { return filepath.Join(c.dir, name) }

func (c *cluster) connect() {
	c.t.Helper()
	config := &rest.Config{Host: apiAddress, BearerToken: adminToken, TLSClientConfig: rest.TLSClientConfig{CAFile: c.path("ca.crt")}, QPS: 100, Burst: 200}
	var err error
	if c.Clientset, err = kubernetes.NewForConfig(config); err != nil {
		c.t.Fatal(err)
	}
	if c.dynamic, err = dynamic.NewForConfig(config); err != nil {
		c.t.Fatal(err)
	}
	c.mapper = restmapper.NewDeferredDiscoveryRESTMapper(memory.NewMemCacheClient(discovery.NewDiscoveryClientForConfigOrDie(config)))
	await(c.t, "the API to be ready", 5*time.Minute, func(ctx context.Context) error {
		return c.RESTClient().Get().AbsPath("/readyz").Do(ctx).Error()
	})
}

func (c *cluster) kubeconfig(user, token string) string {
	return c.write(user+".kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: %q, certificate-authority: %q}}]
users: [{name: user, user: {token: %q}}]
contexts: [{name: e2e, context: {cluster: e2e, user: user}}]
current-context: e2e
`, apiAddress, c.path("ca.crt"), token))
}

// context is for one request.
func (c *cluster) context() context.Context {
	ctx, cancel := context.WithTimeout(context.Background(), time.Minute)
	c.t.Cleanup(cancel)
	return ctx
}

// writeSecrets makes the authority that pods trust, the API server's certificate, the key of service accounts' tokens, and
// the tokens of the administrator and of kubelet, which has a node's rights and no others.
func (c *cluster) writeSecrets() {
	c.t.Helper()
	c.write("tokens.csv", adminToken+`,admin,admin,"system:masters"`+"\n"+kubeletToken+`,system:node:`+nodeName+`,kubelet,"system:nodes"`+"\n")
	c.key("sa.key")
	authorityKey := c.key("ca.key")
	authority := &x509.Certificate{
		SerialNumber: big.NewInt(1), Subject: pkix.Name{CommonName: "e2e"}, NotBefore: time.Now().Add(-time.Hour), NotAfter: time.Now().Add(24 * time.Hour),
		IsCA: true, BasicConstraintsValid: true, KeyUsage: x509.KeyUsageCertSign | x509.KeyUsageDigitalSignature,
	}
	c.certificate("ca.crt", authority, authority, &authorityKey.PublicKey, authorityKey)
	serverKey := c.key("api.key")
	server := &x509.Certificate{
		SerialNumber: big.NewInt(2), Subject: pkix.Name{CommonName: "kube-apiserver"}, NotBefore: authority.NotBefore, NotAfter: authority.NotAfter,
		KeyUsage: x509.KeyUsageDigitalSignature, ExtKeyUsage: []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		IPAddresses: []net.IP{net.ParseIP(serviceAddress), net.IPv4(127, 0, 0, 1)}, DNSNames: []string{"kubernetes", "kubernetes.default", "localhost"},
	}
	c.certificate("api.crt", server, authority, &serverKey.PublicKey, authorityKey)
}

func (c *cluster) key(name string) *ecdsa.PrivateKey {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(name, string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	return key
}

func (c *cluster) certificate(name string, of, by *x509.Certificate, public *ecdsa.PublicKey, signer *ecdsa.PrivateKey) {
	c.t.Helper()
	der, err := x509.CreateCertificate(rand.Reader, of, by, public, signer)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write(name, string(pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: der})))
}
