//go:build lab

package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	storagev1 "k8s.io/api/storage/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	systemNamespace = "lvmsnap-system"
	driverName      = "csi.lvmsnap.io"
	topologyKey     = "topology.csi.lvmsnap.io/node"
)

// node is a node without a kubelet: the driver and the sidecars of the DaemonSet, with its arguments and its account's
// rights. What kubelet would do, stage and publish, the test does.
type node struct {
	*driverproc.Driver
	c    *cluster
	vg   *labtest.Group
	name string
	dir  string
}

// newNode applies the manifests, and starts what the DaemonSet and the Deployment have in them.
func newNode(c *cluster, name string, manifests []*unstructured.Unstructured) *node {
	c.t.Helper()
	vg := labtest.VolumeGroup(c.t, labtest.Options{Name: "data", ThinPool: "pool"})
	n := &node{c: c, vg: vg, name: name, dir: c.t.TempDir()}

	daemonSet := new(appsv1.DaemonSet)
	c.typed(ofKind(manifests, "DaemonSet"), daemonSet)
	resizer := new(appsv1.Deployment)
	c.typed(ofKind(manifests, "Deployment"), resizer)
	n.register(daemonSet)

	n.Driver = driverproc.Start(c.t, driverproc.Options{Groups: []string{vg.Name}, NodeID: name, Flags: []string{"--driver-name", driverName}})
	account := c.kubeconfigOf(systemNamespace, daemonSet.Spec.Template.Spec.ServiceAccountName)
	for _, container := range daemonSet.Spec.Template.Spec.Containers {
		if container.Name == "csi-provisioner" || container.Name == "csi-snapshotter" {
			n.sidecar(container, account)
		}
	}
	n.sidecar(resizer.Spec.Template.Spec.Containers[0], c.kubeconfigOf(systemNamespace, resizer.Spec.Template.Spec.ServiceAccountName))
	return n
}

// typed reads an object that the API server has accepted into its type.
func (c *cluster) typed(o *unstructured.Unstructured, into any) {
	c.t.Helper()
	got, err := c.get(c.context(), o)
	if err != nil {
		c.t.Fatal(err)
	}
	if err := runtime.DefaultUnstructuredConverter.FromUnstructured(got.Object, into); err != nil {
		c.t.Fatal(err)
	}
}

// register makes what kubelet and the DaemonSet's controller would: the Node with the driver's topology, the CSINode, and the
// DaemonSet's pod, which goes through the API server's admission as any other.
func (n *node) register(daemonSet *appsv1.DaemonSet) {
	n.c.t.Helper()
	_, err := n.c.CoreV1().Nodes().Create(n.c.context(), &corev1.Node{
		ObjectMeta: metav1.ObjectMeta{Name: n.name, Labels: map[string]string{corev1.LabelHostname: n.name, topologyKey: n.name}},
	}, metav1.CreateOptions{})
	if err != nil {
		n.c.t.Fatal(err)
	}
	_, err = n.c.StorageV1().CSINodes().Create(n.c.context(), &storagev1.CSINode{
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
	if _, err := n.c.CoreV1().Pods(systemNamespace).Create(n.c.context(), pod, metav1.CreateOptions{}); err != nil {
		n.c.t.Fatalf("the DaemonSet's pod: %v", err)
	}
}

func (n *node) podName() string { return "lvmsnap-node-" + n.name }

// sidecar starts a container's program with its arguments; only the socket is elsewhere, and there is no pod to take
// the account from.
func (n *node) sidecar(container corev1.Container, kubeconfig string) {
	n.c.t.Helper()
	args := []string{"--kubeconfig=" + kubeconfig}
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
	n.c.startWith(env, container.Name, container.Name, args...)
}

// claim makes an example's claim with what the scheduler would add: the node that its pod goes to.
func (n *node) claim(objects []*unstructured.Unstructured) *unstructured.Unstructured {
	n.c.t.Helper()
	o := ofKind(objects, "PersistentVolumeClaim").DeepCopy()
	o.SetAnnotations(map[string]string{"volume.kubernetes.io/selected-node": n.name})
	n.c.apply(o)
	return n.c.awaitField(o, "Bound", "status", "phase")
}

// volume is a claim's volume, mounted as kubelet mounts it.
type volume struct {
	n               *node
	id              string
	staging, target string
}

var mountCapability = &csi.VolumeCapability{
	AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_MULTI_WRITER},
	AccessType: &csi.VolumeCapability_Mount{Mount: &csi.VolumeCapability_MountVolume{}},
}

// mount stages and publishes the volume of a claim.
func (n *node) mount(claim *unstructured.Unstructured) *volume {
	t := n.c.t
	t.Helper()
	pv, err := n.c.CoreV1().PersistentVolumes().Get(n.c.context(), field(claim, "spec", "volumeName"), metav1.GetOptions{})
	if err != nil {
		t.Fatal(err)
	}
	if a := pv.Spec.NodeAffinity; a == nil || !strings.Contains(fmt.Sprint(a.Required), n.name) {
		t.Errorf("the volume of %s may be used on any node: %v", claim.GetName(), a)
	}
	dir := filepath.Join(n.dir, claim.GetName())
	v := &volume{n, pv.Spec.CSI.VolumeHandle, filepath.Join(dir, "staging"), filepath.Join(dir, "target")}
	if err := os.MkdirAll(v.staging, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Node.NodeStageVolume(n.c.context(), &csi.NodeStageVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging, VolumeCapability: mountCapability, VolumeContext: pv.Spec.CSI.VolumeAttributes,
	}); err != nil {
		t.Fatal(err)
	}
	if _, err := n.Node.NodePublishVolume(n.c.context(), &csi.NodePublishVolumeRequest{
		VolumeId: v.id, StagingTargetPath: v.staging, TargetPath: v.target, VolumeCapability: mountCapability, VolumeContext: pv.Spec.CSI.VolumeAttributes,
	}); err != nil {
		t.Fatal(err)
	}
	return v
}

func (v *volume) unmount() {
	t := v.n.c.t
	t.Helper()
	if _, err := v.n.Node.NodeUnpublishVolume(v.n.c.context(), &csi.NodeUnpublishVolumeRequest{VolumeId: v.id, TargetPath: v.target}); err != nil {
		t.Fatal(err)
	}
	if _, err := v.n.Node.NodeUnstageVolume(v.n.c.context(), &csi.NodeUnstageVolumeRequest{VolumeId: v.id, StagingTargetPath: v.staging}); err != nil {
		t.Fatal(err)
	}
}

// write puts text into a file and onto the disk.
func (v *volume) write(name, text string) {
	v.n.c.t.Helper()
	f, err := os.Create(filepath.Join(v.target, name))
	if err == nil {
		_, err = f.WriteString(text)
	}
	if err == nil {
		err = f.Sync()
	}
	if err == nil {
		err = f.Close()
	}
	if err != nil {
		v.n.c.t.Fatal(err)
	}
}

func (v *volume) reads(name, want string) {
	v.n.c.t.Helper()
	text, err := os.ReadFile(filepath.Join(v.target, name))
	if err != nil || string(text) != want {
		v.n.c.t.Errorf("%s has %q (%v), want %q", name, text, err, want)
	}
}

// lvs are the driver's logical volumes, as LVM shows them.
func (n *node) lvs() []string {
	n.c.t.Helper()
	names := strings.Fields(labtest.Run(n.c.t, "lvs", "--noheadings", "-o", "lv_name", n.vg.Name))
	return slices.DeleteFunc(names, func(name string) bool { return name == n.vg.ThinPool })
}

// awaitLVs waits until LVM has so many volumes and snapshots of the driver's, and nothing else.
func (n *node) awaitLVs(volumes, snapshots int) {
	n.c.t.Helper()
	n.c.await(fmt.Sprintf("%d volumes and %d snapshots in LVM", volumes, snapshots), 90*time.Second, func(context.Context) error {
		have := n.lvs()
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
