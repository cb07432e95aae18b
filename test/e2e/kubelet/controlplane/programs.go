package main

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
)

// control is the control plane; what it keeps is in dir.
type control struct {
	dir     string
	running []*exec.Cmd
}

func (c *control) path(name string) string { return filepath.Join(c.dir, name) }

// start starts etcd, kube-apiserver with the usual admission, kube-controller-manager and kube-scheduler. They wait for one another.
func (c *control) start() error {
	if err := c.secrets(); err != nil {
		return err
	}
	etcd := "http://127.0.0.1:2379"
	access := c.path("admin.kubeconfig")
	kubeconfigs := []string{
		"--kubeconfig=" + access, "--authentication-kubeconfig=" + access, "--authorization-kubeconfig=" + access,
		"--leader-elect=false", "--bind-address=127.0.0.1",
	}
	for _, program := range [][]string{
		{
			"server", "--data-dir", c.path("etcd"), "--unsafe-no-fsync", "--log-level=warn",
			"--listen-client-urls", etcd, "--advertise-client-urls", etcd, "--listen-peer-urls", "http://127.0.0.1:2380",
			"--initial-advertise-peer-urls", "http://127.0.0.1:2380", "--initial-cluster", "default=http://127.0.0.1:2380",
		},
		{
			"kube-apiserver", "--etcd-servers=" + etcd, "--bind-address=0.0.0.0", "--secure-port=443",
			"--advertise-address=192.0.2.1", "--endpoint-reconciler-type=none", // it wants a default route otherwise, and there is none
			"--tls-cert-file=" + c.path("api.crt"), "--tls-private-key-file=" + c.path("api.key"), "--cert-dir=" + c.dir,
			"--service-account-issuer=https://e2e", "--service-account-key-file=" + c.path("sa.key"), "--service-account-signing-key-file=" + c.path("sa.key"),
			"--token-auth-file=" + c.path("tokens.csv"), "--authorization-mode=Node,RBAC", "--service-cluster-ip-range=" + services,
			// Its taint is taken away by a controller that does not run here.
			"--disable-admission-plugins=TaintNodesByCondition",
			"--kubelet-preferred-address-types=InternalIP", "--allow-privileged", "--profiling=false",
		},
		append([]string{
			"kube-controller-manager", "--root-ca-file=" + c.path("ca.crt"),
			"--controllers=persistentvolume-binder-controller,persistentvolume-expander-controller,persistentvolumeclaim-protection-controller," +
				"persistentvolume-protection-controller,daemonset-controller,deployment-controller,replicaset-controller,serviceaccount-controller," +
				"root-ca-certificate-publisher-controller,garbage-collector-controller,namespace-controller",
		}, kubeconfigs...),
		append([]string{"kube-scheduler"}, kubeconfigs...),
	} {
		if err := c.program(program[0], program[1:]); err != nil {
			return fmt.Errorf("%w (make e2e-kubelet builds the programs)", err)
		}
	}
	return nil
}

// program starts one, whose log is in $E2E_LOGS.
func (c *control) program(name string, args []string) error {
	log, err := os.Create(filepath.Join(os.Getenv("E2E_LOGS"), name+".log"))
	if err != nil {
		return err
	}
	defer log.Close()
	cmd := exec.Command(filepath.Join(os.Getenv("E2E_BIN"), name), args...)
	cmd.Stdout, cmd.Stderr = log, log
	cmd.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := cmd.Start(); err != nil {
		return err
	}
	c.running = append(c.running, cmd)
	return nil
}

func (c *control) stop() {
	for _, cmd := range c.running {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}
}
