//go:build lab

package e2e_test

import (
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/x509"
	"encoding/pem"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	authenticationv1 "k8s.io/api/authentication/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/client-go/rest"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
)

const (
	repository kube.Repository = "../.."
	adminToken                 = "admin"
	patience                   = 90 * time.Second
)

// cluster is a control plane of real programs, in the lab's machine: on its loopback device, with nothing on the
// host's network, and gone with it.
type cluster struct {
	*kube.Client

	t       *testing.T
	dir     string
	address string            // of the API server
	logs    map[string]string // files, by the program's name
}

// in is the cluster for a part of the test.
func (c *cluster) in(t *testing.T) *cluster {
	part := *c
	part.t, part.Client = t, c.In(t)
	return &part
}

// newCluster starts etcd, kube-apiserver and kube-controller-manager, and waits until the API is ready, at an address of
// the machine's.
func newCluster(t *testing.T, address string) *cluster {
	t.Helper()
	c := &cluster{t: t, dir: t.TempDir(), address: address, logs: map[string]string{}}
	t.Cleanup(c.showLogs)
	c.writeSecrets()
	etcd := "http://127.0.0.1:2379"
	c.start("server", "etcd", "--data-dir", filepath.Join(c.dir, "etcd"), "--unsafe-no-fsync", "--log-level=warn",
		"--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", "http://127.0.0.1:2380",
		"--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "default=http://127.0.0.1:2380")
	key := filepath.Join(c.dir, "sa.key")
	c.start("kube-apiserver", "kube-apiserver", "--etcd-servers="+etcd, "--bind-address="+address, "--secure-port=6443",
		"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none", // it wants a route otherwise, and there is none
		"--cert-dir="+c.dir, "--service-account-issuer=https://e2e", "--service-account-key-file="+key, "--service-account-signing-key-file="+key,
		"--token-auth-file="+filepath.Join(c.dir, "tokens.csv"), "--authorization-mode=RBAC", "--service-cluster-ip-range=10.96.0.0/24",
		"--disable-admission-plugins=ServiceAccount,TaintNodesByCondition", "--allow-privileged", "--profiling=false",
		"--audit-policy-file="+c.write("audit.yaml", auditPolicy), "--audit-log-path="+filepath.Join(c.dir, "audit.log"))
	c.Client = kube.Connect(t, &rest.Config{Host: c.url(), BearerToken: adminToken, TLSClientConfig: rest.TLSClientConfig{Insecure: true}}, patience)
	c.start("kube-controller-manager", "kube-controller-manager", "--kubeconfig="+c.kubeconfig("admin", adminToken), "--leader-elect=false",
		"--bind-address=127.0.0.1", "--controllers=persistentvolume-binder-controller,persistentvolume-expander-controller,"+
			"persistentvolumeclaim-protection-controller,persistentvolume-protection-controller")
	return c
}

// writeSecrets makes the key of service accounts' tokens and the administrator's token.
func (c *cluster) writeSecrets() {
	c.t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		c.t.Fatal(err)
	}
	der, err := x509.MarshalECPrivateKey(key)
	if err != nil {
		c.t.Fatal(err)
	}
	c.write("sa.key", string(pem.EncodeToMemory(&pem.Block{Type: "EC PRIVATE KEY", Bytes: der})))
	c.write("tokens.csv", adminToken+`,admin,admin,"system:masters"`+"\n")
}

func (c *cluster) write(name, text string) string {
	c.t.Helper()
	file := filepath.Join(c.dir, name)
	if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
		c.t.Fatal(err)
	}
	return file
}

func (c *cluster) kubeconfig(user, token string) string {
	return c.write(user+".kubeconfig", fmt.Sprintf(`apiVersion: v1
kind: Config
clusters: [{name: e2e, cluster: {server: %q, insecure-skip-tls-verify: true}}]
users: [{name: user, user: {token: %q}}]
contexts: [{name: e2e, context: {cluster: e2e, user: user}}]
current-context: e2e
`, c.url(), token))
}

func (c *cluster) url() string { return "https://" + c.address + ":6443" }

// kubeconfigOf is for a service account: with its rights and no others.
func (c *cluster) kubeconfigOf(namespace, account string) string {
	c.t.Helper()
	return c.kubeconfig(account, c.token(namespace, account))
}

func (c *cluster) token(namespace, account string) string {
	c.t.Helper()
	seconds := int64(3600)
	token, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(c.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	return token.Status.Token
}

// start starts a program of $E2E_BIN, which ends with the test. One that ends by itself fails the test.
func (c *cluster) start(binary, name string, args ...string) {
	c.t.Helper()
	cmd := c.command(nil, binary, name, args...)
	c.supervise(name, cmd, func(err error) *exec.Cmd {
		c.t.Errorf("%s ended by itself: %v", name, err)
		return nil
	})
}

// container is a program that is started again when it ends, as kubelet does: sidecars end when the driver does.
func (c *cluster) container(env []string, binary, name string, args ...string) {
	c.t.Helper()
	first := c.command(env, binary, name, args...)
	c.supervise(name, first, func(error) *exec.Cmd {
		time.Sleep(time.Second) // kubelet's back-off, of which nothing tells the end
		next := exec.Command(first.Path, args...)
		next.Env = first.Env
		return next
	})
}

func (c *cluster) command(env []string, binary, name string, args ...string) *exec.Cmd {
	c.t.Helper()
	c.logs[name] = filepath.Join(c.dir, name+".log")
	if !filepath.IsAbs(binary) {
		binary = filepath.Join(kube.Environment(c.t, "E2E_BIN"), binary)
	}
	cmd := exec.Command(binary, args...)
	cmd.Env = append(os.Environ(), env...)
	return cmd
}

// supervise runs cmd, and what ended makes of its end, until the test is over.
func (c *cluster) supervise(name string, cmd *exec.Cmd, ended func(error) *exec.Cmd) {
	c.t.Helper()
	log, err := os.OpenFile(c.logs[name], os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		c.t.Fatal(err)
	}
	begin := func(cmd *exec.Cmd) error {
		cmd.Stdout, cmd.Stderr = log, log
		return cmd.Start()
	}
	if err := begin(cmd); err != nil {
		c.t.Fatalf("%v (make e2e builds the programs)", err)
	}
	var mu sync.Mutex // of cmd and over
	over, done := false, make(chan struct{})
	go func() {
		defer close(done)
		for {
			err := cmd.Wait()
			mu.Lock()
			if !over {
				next := ended(err)
				if next != nil && begin(next) == nil {
					cmd = next
					mu.Unlock()
					continue
				}
			}
			mu.Unlock()
			return
		}
	}()
	c.t.Cleanup(func() {
		mu.Lock()
		over = true
		_ = cmd.Process.Signal(syscall.SIGTERM)
		mu.Unlock()
		kill := time.AfterFunc(5*time.Second, func() {
			mu.Lock()
			defer mu.Unlock()
			_ = cmd.Process.Kill()
		})
		<-done
		kill.Stop()
		_ = log.Close()
	})
}

// log is what a program has written.
func (c *cluster) log(name string) string {
	text, _ := os.ReadFile(c.logs[name])
	return string(text)
}

// forbidden is what programs were not allowed to do: lines of their logs.
func (c *cluster) forbidden() []string {
	var out []string
	for name := range c.logs {
		for line := range strings.Lines(c.log(name)) {
			if strings.Contains(line, "is forbidden: User") {
				out = append(out, name+": "+strings.TrimSpace(line))
			}
		}
	}
	return out
}

func (c *cluster) showLogs() {
	if !c.t.Failed() {
		return
	}
	const enough = 6 << 10
	for name := range c.logs {
		c.t.Logf("the log of %s:\n%s", name, end(c.log(name), enough))
	}
}

// end of a text.
func end(text string, bytes int) string {
	if len(text) > bytes {
		text = "..." + text[len(text)-bytes:]
	}
	return text
}
