//go:build lab

package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	driverName   = "csi.lvmsnap.io"
	criSocket    = "/run/containerd/containerd.sock"
	pauseImage   = "e2e.local/pause:latest"
	podNetwork   = "10.88.0.0/24"
	cgroups      = "/sys/fs/cgroup"
	cniConfigDir = "/run/cni/net.d"
)

// machine makes the lab's machine one that kubelet can run on. All of it is the machine's own: nothing of this stays on the host,
// whose file system it has as its root.
func (p *programs) machine() {
	t := p.t
	t.Helper()
	// What containerd and kubelet keep. Their directories are the host's otherwise, and an overlay cannot lie on hostfs.
	disk := p.firstDisk()
	if _, err := exec.Command("blkid", "--match-types", "ext4", "--probe", disk).Output(); err != nil {
		labtest.Run(t, "mkfs.ext4", "-q", "-F", disk)
	}
	labtest.Run(t, "mount", disk, "/var/lib")
	labtest.Run(t, "mount", "-t", "tmpfs", "tmpfs", "/var/log")
	// The pod of the driver mounts the host's /etc/lvm: the administrator's configuration, which the lab has elsewhere.
	labtest.Run(t, "mount", "--bind", os.Getenv("LVM_SYSTEM_DIR"), "/etc/lvm")
	labtest.Run(t, "mount", "--make-rshared", "/")
	labtest.Run(t, "modprobe", "-a", "overlay", "veth")
	for _, controller := range []string{"cpu", "memory", "pids", "io"} {
		if err := os.WriteFile(cgroups+"/cgroup.subtree_control", []byte("+"+controller), 0o600); err != nil {
			t.Fatalf("the machine's kernel lacks the cgroup controller %s: %v", controller, err)
		}
	}
	p.processorSpeed()
	if err := os.MkdirAll(cniConfigDir, 0o755); err != nil {
		t.Fatal(err)
	}
}

// network connects the machine with the control plane.
func (p *programs) network() {
	p.t.Helper()
	labtest.Run(p.t, "ip", "address", "add", nodeAddress+"/24", "dev", "vec0")
	labtest.Run(p.t, "ip", "link", "set", "vec0", "up")
	labtest.Run(p.t, "ip", "route", "add", services, "via", gateway)
	if err := os.WriteFile("/proc/sys/net/ipv4/ip_forward", []byte("1"), 0o600); err != nil { // for pods
		p.t.Fatal(err)
	}
}

// firstDisk is the one that make e2e-kubelet gives (--disk), and no volume group's.
func (p *programs) firstDisk() string {
	p.t.Helper()
	disk := labtest.Disks(p.t)[0]
	lock, err := os.OpenFile(filepath.Join(os.Getenv("LVM_SYSTEM_DIR"), filepath.Base(disk)+".lock"), os.O_RDWR|os.O_CREATE, 0o600)
	if err == nil {
		err = syscall.Flock(int(lock.Fd()), syscall.LOCK_EX|syscall.LOCK_NB)
	}
	if err != nil {
		p.t.Fatal(err)
	}
	p.t.Cleanup(func() { _ = lock.Close() })
	return disk
}

// processorSpeed adds to /proc/cpuinfo what kubelet does not start without, and User Mode Linux does not say.
func (p *programs) processorSpeed() {
	p.t.Helper()
	text, err := os.ReadFile("/proc/cpuinfo")
	if err != nil {
		p.t.Fatal(err)
	}
	if !strings.Contains(string(text), "cpu MHz") {
		first, rest, _ := strings.Cut(string(text), "\n")
		labtest.Run(p.t, "mount", "--bind", p.write("cpuinfo", first+"\ncpu MHz\t\t: 2000.000\n"+rest), "/proc/cpuinfo")
	}
}

// containerd starts, and waits until it answers.
func (p *programs) containerd() {
	t := p.t
	t.Helper()
	if err := os.WriteFile(filepath.Join(cniConfigDir, "10-ptp.conflist"), fmt.Appendf(nil, `{"cniVersion": "0.4.0", "name": "e2e", "plugins": [
  {"type": "ptp", "ipMasq": false, "ipam": {"type": "host-local", "dataDir": "/run/cni/addresses", "subnet": %q, "routes": [{"dst": "0.0.0.0/0"}]}}]}`,
		podNetwork), 0o600); err != nil {
		t.Fatal(err)
	}
	config := p.write("containerd.toml", fmt.Sprintf(`version = 2
root = "/var/lib/containerd"
state = "/run/containerd"
disabled_plugins = ["io.containerd.internal.v1.opt", "io.containerd.snapshotter.v1.aufs", "io.containerd.snapshotter.v1.btrfs",
  "io.containerd.snapshotter.v1.devmapper", "io.containerd.snapshotter.v1.native", "io.containerd.snapshotter.v1.zfs", "io.containerd.tracing.processor.v1.otlp"]
[grpc]
  address = %q
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = %q
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = %q
`, criSocket, pauseImage, cniConfigDir))
	p.start("containerd", "containerd", "--config", config)
	kube.Await(t, "containerd to answer", time.Minute, func(ctx context.Context) error {
		return exec.CommandContext(ctx, "ctr", "--address", criSocket, "version").Run()
	})
}

// TestImages imports the images that make e2e-kubelet built, under the names that the objects have, into containerd's store on
// the first disk, which is kept: what has not changed since is left as it is.
func TestImages(t *testing.T) {
	p := newPrograms(t)
	p.machine()
	t.Cleanup(func() { labtest.Run(t, "umount", "/var/lib") })
	const marker = "/var/lib/images"
	have, _ := os.ReadFile(marker)
	var want strings.Builder
	var missing []string
	for _, name := range append(imageNames(slices.Concat(manifests(t), controller(t), kube.Chart(t), repository.Example(t, "volume.yaml"))), pauseImage) {
		id, err := os.ReadFile(filepath.Join(kube.Environment(t, "E2E_IMAGES"), archiveOf(name)+".id"))
		if err != nil {
			t.Fatal(err)
		}
		line := fmt.Sprintf("%s %s\n", name, strings.TrimSpace(string(id)))
		want.WriteString(line)
		if !strings.Contains(string(have), line) {
			missing = append(missing, name)
		}
	}
	if len(missing) == 0 {
		t.Log("all are there")
		return
	}
	p.containerd()
	for _, name := range missing {
		p.image(name)
	}
	labtest.Run(t, "sync")
	if err := os.WriteFile(marker, []byte(want.String()), 0o600); err != nil {
		t.Fatal(err)
	}
}

// archiveOf is the name of the archive for an image.
func archiveOf(image string) string { return strings.Split(path.Base(image), ":")[0] }

// image imports an archive, and gives the image the name that objects have for it.
func (p *programs) image(name string) {
	p.t.Helper()
	begin := time.Now()
	ctr := []string{"ctr", "--address", criSocket, "--namespace", "k8s.io", "images"}
	archive := archiveOf(name)
	labtest.Run(p.t, append(ctr, "import", filepath.Join(kube.Environment(p.t, "E2E_IMAGES"), archive+".tar"))...)
	if !strings.Contains(name, "/") {
		name = "docker.io/library/" + name
	}
	if own := "e2e.local/" + archive + ":latest"; own != name {
		labtest.Run(p.t, append(ctr, "tag", "--force", own, name)...)
	}
	p.t.Logf("%s: %.1f s", name, time.Since(begin).Seconds())
}

// imageNames are those that pods of the objects want.
func imageNames(objects []*unstructured.Unstructured) []string {
	var names []string
	for _, o := range objects {
		for _, where := range [][]string{{"spec", "containers"}, {"spec", "template", "spec", "containers"}} {
			containers, _, _ := unstructured.NestedSlice(o.Object, where...)
			for _, container := range containers {
				if image, ok := container.(map[string]any)["image"].(string); ok && !slices.Contains(names, image) {
					names = append(names, image)
				}
			}
		}
	}
	return names
}

const kubeletConfig = `apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
authentication: {anonymous: {enabled: true}, webhook: {enabled: false}}
authorization: {mode: AlwaysAllow}
cgroupDriver: cgroupfs
crashLoopBackOff: {maxContainerRestartPeriod: 3s}
containerRuntimeEndpoint: "unix://` + criSocket + `"
enforceNodeAllocatable: []
evictionHard: {memory.available: 10Mi, nodefs.available: 0%, imagefs.available: 0%, nodefs.inodesFree: 0%}
failSwapOn: false
imageGCHighThresholdPercent: 100
imageGCLowThresholdPercent: 99
localStorageCapacityIsolation: false
makeIPTablesUtilChains: false
resolvConf: ""
syncFrequency: 5s
volumePluginDir: /var/lib/kubelet/volume-plugins
volumeStatsAggPeriod: 0s
`

// kubelet starts and waits until its node is ready.
func (c *cluster) kubelet() {
	c.t.Helper()
	c.start("kubelet", c.built("kubelet"), "--config="+c.write("kubelet.yaml", kubeletConfig), "--kubeconfig="+c.kubeletAccess(),
		"--root-dir=/var/lib/kubelet", "--hostname-override="+nodeName, "--node-ip="+nodeAddress, "--cert-dir=/var/lib/kubelet/pki", "--v=2",
		"--housekeeping-interval=1m") // statistics that nobody asks for
	kube.Await(c.t, "the node to be ready", 5*time.Minute, func(ctx context.Context) error {
		node, err := c.CoreV1().Nodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range node.Status.Conditions {
			if condition.Type == corev1.NodeReady {
				if condition.Status == corev1.ConditionTrue {
					return nil
				}
				return errors.New(condition.Message)
			}
		}
		return errors.New("it says nothing of itself")
	})
}
