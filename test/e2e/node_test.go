//go:build lab

package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	"k8s.io/apimachinery/pkg/api/resource"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	systemNamespace = "lvmsnap-system"
	driverName      = "csi.lvmsnap.io"
	topologyKey     = "topology.csi.lvmsnap.io/node"
)

// machine is where a node's programs run.
type machine interface {
	// run runs a command as the administrator would, and returns its standard output.
	run(t testing.TB, argv ...string) string
	// container starts a program that is started again when it ends.
	container(t testing.TB, env []string, binary, name string, args ...string)
	// file is the path by which the machine has a file of the test's.
	file(t testing.TB, path string) string
	// tempDir is a directory of the machine's for a test.
	tempDir(t testing.TB) string
}

// here is the test's own machine.
type here struct{ c *cluster }

func (here) run(t testing.TB, argv ...string) string {
	t.Helper()
	return labtest.Run(t, argv...)
}

func (h here) container(_ testing.TB, env []string, binary, name string, args ...string) {
	h.c.container(env, binary, name, args...)
}

func (here) file(_ testing.TB, path string) string { return path }

func (here) tempDir(t testing.TB) string { return t.TempDir() }

// node is a node without a kubelet: the driver and the sidecars of the DaemonSet, with its arguments and its account's
// rights. What kubelet would do, stage and publish, the test does.
type node struct {
	*driverproc.Driver
	machine
	c    *cluster
	vg   *labtest.Group
	name string
	dir  string
}

// newNode applies the manifests, and starts what the DaemonSet and the Deployment have in them.
func newNode(c *cluster, name string, group labtest.Options, manifests []*unstructured.Unstructured) *node {
	c.t.Helper()
	vg := labtest.VolumeGroup(c.t, group)
	n := &node{c: c, machine: here{c}, vg: vg, name: name, dir: c.t.TempDir()}

	daemonSet := new(appsv1.DaemonSet)
	c.typed(kube.OfKind(manifests, "DaemonSet"), daemonSet)
	n.register(daemonSet)

	n.Driver = driverproc.Start(c.t, driverproc.Options{
		Groups: []string{vg.Name}, NodeID: name,
		Flags: []string{"--driver-name", driverName, "--kubernetes-events", "-v=5"}, // 5: with the beginning of calls
		Env:   c.asPod(systemNamespace, daemonSet.Spec.Template.Spec.ServiceAccountName),
	})
	n.sidecars(daemonSet)
	return n
}

// sidecars starts those of the DaemonSet that the test has programs of.
func (n *node) sidecars(daemonSet *appsv1.DaemonSet) {
	n.c.t.Helper()
	account := n.c.kubeconfigOf(systemNamespace, daemonSet.Spec.Template.Spec.ServiceAccountName)
	for _, container := range daemonSet.Spec.Template.Spec.Containers {
		if container.Name == "csi-provisioner" || container.Name == "csi-snapshotter" {
			n.sidecar(container, account)
		}
	}
}

// resizer starts what the Deployment has in it; it is on this node.
func (n *node) resizer(manifests []*unstructured.Unstructured) {
	n.c.t.Helper()
	deployment := new(appsv1.Deployment)
	n.c.typed(kube.OfKind(manifests, "Deployment"), deployment)
	spec := deployment.Spec.Template.Spec
	n.sidecar(spec.Containers[0], n.c.kubeconfigOf(systemNamespace, spec.ServiceAccountName))
}

// in is the node for a part of the test.
func (n *node) in(t *testing.T) *node {
	part := *n
	part.c, part.dir = n.c.in(t), n.tempDir(t)
	return &part
}

// typed reads an object that the API server has accepted into its type.
func (c *cluster) typed(o *unstructured.Unstructured, into any) {
	c.t.Helper()
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(c.Must(o).Object, into); err != nil {
		c.t.Fatal(err)
	}
}

// register makes what kubelet and the DaemonSet's controller would: the Node with the driver's topology, the CSINode, and the
// DaemonSet's pod, which goes through the API server's admission as any other.
func (n *node) register(daemonSet *appsv1.DaemonSet) {
	n.c.t.Helper()
	_, err := n.c.CoreV1().Nodes().Create(n.c.Context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{corev1.LabelHostname: n.name, topologyKey: n.name}},
		Status: corev1.NodeStatus{ // for the scheduler
			Allocatable: corev1.ResourceList{
				corev1.ResourceCPU: resource.MustParse("4"), corev1.ResourceMemory: resource.MustParse("8Gi"), corev1.ResourcePods: resource.MustParse("110"),
			},
			Conditions: []corev1.NodeCondition{{Type: corev1.NodeReady, Status: corev1.ConditionTrue}},
		},
	}, metav1.CreateOptions{})
	if err != nil {
		n.c.t.Fatal(err)
	}
	_, err = n.c.StorageV1().CSINodes().Create(n.c.Context(), &storagev1.CSINode{
		ObjectMeta: metav1.ObjectMeta{Name: n.name},
		Spec:       storagev1.CSINodeSpec{Drivers: []storagev1.CSINodeDriver{{Name: driverName, NodeID: n.name, TopologyKeys: []string{topologyKey}}}},
	}, metav1.CreateOptions{})
	if err != nil {
		n.c.t.Fatal(err)
	}
	pod := &corev1.Pod{ObjectMeta: *daemonSet.Spec.Template.ObjectMeta.DeepCopy(), Spec: *daemonSet.Spec.Template.Spec.DeepCopy()}
	pod.Name, pod.Namespace = n.podName(), systemNamespace
	pod.OwnerReferences = []metav1.OwnerReference{*metav1.NewControllerRef(daemonSet, appsv1.SchemeGroupVersion.WithKind("DaemonSet"))}
	pod.Spec.NodeName = n.name
	if _, err := n.c.CoreV1().Pods(systemNamespace).Create(n.c.Context(), pod, metav1.CreateOptions{}); err != nil {
		n.c.t.Fatalf("the DaemonSet's pod: %v", err)
	}
}

func (n *node) podName() string { return "lvmsnap-node-" + n.name }

// sidecar starts a container's program with its arguments; only the socket is elsewhere, and there is no pod to take
// the account from.
func (n *node) sidecar(container corev1.Container, kubeconfig string) {
	n.c.t.Helper()
	args := []string{"--kubeconfig=" + n.file(n.c.t, kubeconfig)}
	for _, arg := range container.Args {
		switch {
		case strings.HasPrefix(arg, "--csi-address="):
			arg = "--csi-address=" + n.Socket
		case arg == "--leader-election":
			args = append(args, "--leader-election-namespace="+systemNamespace)
		}
		args = append(args, arg)
	}
	env := []string{"NODE_NAME=" + n.name, "POD_NAME=" + n.podName(), "NAMESPACE=" + systemNamespace}
	n.container(n.c.t, env, container.Name, container.Name+"-"+n.name, args...)
}

// claim makes an example's claim with what the scheduler would add: the node that its pod goes to.
func (n *node) claim(objects []*unstructured.Unstructured) *unstructured.Unstructured {
	n.c.t.Helper()
	o := kube.OfKind(objects, "PersistentVolumeClaim")
	n.want(o)
	return n.c.AwaitField(o, "Bound", "status", "phase")
}

// want makes a claim for this node and does not wait for its volume.
func (n *node) want(claim *unstructured.Unstructured) {
	n.c.t.Helper()
	claim.SetAnnotations(map[string]string{"volume.kubernetes.io/selected-node": n.name})
	n.c.Apply(claim)
}

// volume is a claim's volume, staged and published as kubelet does.
type volume struct {
	n               *node
	id              string
	capability      *csi.VolumeCapability
	staging, target string
}

// use stages and publishes the volume of a claim.
func (n *node) use(claim *unstructured.Unstructured) *volume {
	t := n.c.t
	t.Helper()
	pv, err := n.c.CoreV1().PersistentVolumes().Get(n.c.Context(), kube.Field(claim, "spec", "volumeName"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if a := pv.Spec.NodeAffinity; a == nil || !strings.Contains(fmt.Sprint(a.Required), n.name) {
		t.Errorf("the volume of %s may be used on any node: %v", claim.GetName(), a)
	}
	capability := &csi.VolumeCapability{
		AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
		AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{FsType: pv.Spec.CSI.FSType}},
	}
	if kube.Field(claim, "spec", "volumeMode") == "Block" {
		capability.AccessType = &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}}
	}
	dir := filepath.Join(n.dir, claim.GetName())
	v := &volume{n, pv.Spec.CSI.VolumeHandle, capability, filepath.Join(dir, "staging"), filepath.Join(dir, "target")}
	n.run(t, "mkdir", "-p", v.staging)
	if _, err := n.Node.NodeStageVolume(n.c.Context(), &csi.NodeStageVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging, VolumeCapability: capability, VolumeContext: pv.Spec.CSI.VolumeAttributes,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Node.NodePublishVolume(n.c.Context(), &csi.NodePublishVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging, TargetPath: v.target, VolumeCapability: capability, VolumeContext: pv.Spec.CSI.VolumeAttributes,
	}); err != nil {
		t.Fatal(err)
	}
	return v
}

// leave is the end of the pod.
func (v *volume) leave() {
	t := v.n.c.t
	t.Helper()
	if _, err := v.n.Node.NodeUnpublishVolume(v.n.c.Context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: v.target}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.n.Node.NodeUnstageVolume(v.n.c.Context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.staging}); err != nil {
		t.Fatal(err)
	}
}

// place is where data goes: a file, or the device itself.
func (v *volume) place() string {
	if v.capability.GetBlock() != nil {
		return v.target
	}
	return filepath.Join(v.target, "orders")
}

// write puts text into the volume and onto the disk.
func (v *volume) write(text string) {
	v.n.c.t.Helper()
	v.n.run(v.n.c.t, "sh", "-c", `printf '%s\0' "$1" | dd of="$2" conv=notrunc,fsync status=none`, "sh", text, v.place())
}

func (v *volume) reads(want string) {
	v.n.c.t.Helper()
	out := v.n.run(v.n.c.t, "dd", "if="+v.place(), "bs=4096", "count=1", "status=none")
	if text, _, _ := strings.Cut(out, "\x00"); text != want {
		v.n.c.t.Errorf("%s of %s has %q, want %q", v.place(), v.n.name, text, want)
	}
}

// lvs are the driver's logical volumes, as LVM shows them.
func (n *node) lvs() []string {
	n.c.t.Helper()
	names := strings.Fields(n.run(n.c.t, "lvs", "--noheadings", "-o", "lv_name", n.vg.Name))
	return slices.DeleteFunc(names, func(name string) bool { return name == n.vg.ThinPool })
}

// awaitLVs waits until LVM has so many volumes and snapshots of the driver's, and nothing else.
func (n *node) awaitLVs(volumes, snapshots int) {
	n.c.t.Helper()
	n.awaitLVsFor(90*time.Second, volumes, snapshots)
}

// awaitLVsFor is awaitLVs with a limit of its own, and with LVs that are not the driver's.
func (n *node) awaitLVsFor(limit time.Duration, volumes, snapshots int, others ...string) {
	n.c.t.Helper()
	n.c.Await(fmt.Sprintf("%d volumes and %d snapshots in LVM", volumes, snapshots), limit, func(context.Context) error {
		have := slices.DeleteFunc(n.lvs(), func(name string) bool { return slices.Contains(others, name) })
		v, s := 0, 0
		for _, name := range have {
			switch {
			case strings.HasPrefix(name, "csi-v-"):
				v++
			case strings.HasPrefix(name, "csi-s-"):
				s++
			}
		}
		if v != volumes || s != snapshots || v+s != len(have) {
			return fmt.Errorf("LVM has %v", have)
		}
		return nil
	})
}
