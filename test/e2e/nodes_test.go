//go:build lab && nodes

package e2e_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	appsv1 "k8s.io/api/apps/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/util/jsonpath"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// TestControlPlane is the control plane's machine, with a scheduler, and what is tested of nodes on machines of their own.
func TestControlPlane(t *testing.T) {
	joinNetwork(t)
	c := newCluster(t, networkAddress(controlNumber))
	c.CRDs()
	c.start("kube-scheduler", "kube-scheduler", "--kubeconfig="+c.kubeconfig("admin", adminToken), "--leader-elect=false",
		"--bind-address=127.0.0.1")
	manifests := append([]*unstructured.Unstructured{kube.OfKind(repository.Kustomize(t, "kustomize/overlays/default"), "Namespace")}, kube.Chart(t)...)
	c.Apply(manifests...)
	controller := repository.Kustomize(t, "snapshot-controller")
	c.Apply(controller...)
	c.snapshotController(kube.OfKind(controller, "Deployment"))
	var nodes []*node
	for _, w := range workers {
		nodes = append(nodes, newWorker(c, w.name, w.number, manifests))
	}
	a, b := nodes[0], nodes[1]
	a.resizer(manifests)
	for _, n := range nodes {
		n.capacity()
	}
	for _, flow := range []struct {
		name string
		run  func(a, b *node)
	}{
		{"restore on the wrong node", restoreOnWrongNode},
		{"clone on the wrong node", cloneOnWrongNode},
		{"expansion", expansion},
		{"lists", lists},
		{"content with the wrong label", wrongLabel},
		{"one pod", func(a, _ *node) { onePod(a) }},
		{"node lost and back", nodeLostAndBack},
	} {
		t.Run(flow.name, func(t *testing.T) {
			a, b := a.in(t), b.in(t)
			flow.run(a, b)
			a.awaitLVs(0, 0)
			b.awaitLVs(0, 0)
		})
	}
	lines := c.forbidden()
	for _, n := range nodes {
		for line := range strings.Lines(n.programLogs()) {
			if strings.Contains(line, "is forbidden: User") {
				lines = append(lines, n.name+": "+line)
			}
		}
	}
	if len(lines) > 0 {
		t.Errorf("the accounts of the manifests lack rights:\n%s", strings.Join(lines, "\n"))
	}
}

// newWorker makes a node of a machine.
func newWorker(c *cluster, name string, number int, manifests []*unstructured.Unstructured) *node {
	c.t.Helper()
	m := there{shared: os.Getenv(envShared), name: name, number: number}
	m.awaitPower(c, true)
	socket := filepath.Join(os.TempDir(), name+".sock")
	forward(c.t, "unix", socket, "tcp", networkAddress(number)+":"+strconv.Itoa(csiPort))
	n := &node{
		c: c, machine: m, name: name, dir: m.tempDir(c.t), vg: &labtest.Group{Name: groupName, ThinPool: poolName},
		Driver: &driverproc.Driver{Clients: driverproc.Connect(c.t, socket), Socket: csiSocket}, // its process is the agent's
	}
	daemonSet := new(appsv1.DaemonSet)
	c.typed(kube.OfKind(manifests, "DaemonSet"), daemonSet)
	n.register(daemonSet)
	c.t.Cleanup(func() {
		if c.t.Failed() {
			c.t.Log(n.programLogs())
		}
	})
	n.boot(daemonSet)
	return n
}

// boot starts the DaemonSet's containers, as kubelet does when the machine has power.
func (n *node) boot(daemonSet *appsv1.DaemonSet) {
	t := n.c.t
	t.Helper()
	driver := daemonSet.Spec.Template.Spec.Containers[0]
	args := slices.Clone(driver.Args)
	for i, arg := range args {
		switch name, _, _ := strings.Cut(arg, "="); name {
		case "--endpoint":
			args[i] = "--endpoint=unix://" + csiSocket
		case "--kubelet-dir":
			args[i] = "--kubelet-dir=" + kubeletDir
		}
	}
	n.container(t, []string{"NODE_NAME=" + n.name}, driverproc.Binary(t), "lvmsnap-"+n.name, args...)
	n.sidecars(daemonSet)
	n.c.Await("the driver of "+n.name+" to be ready", time.Minute, func(ctx context.Context) error {
		_, err := n.Identity.Probe(ctx, &csi.ProbeRequest{})
		return err
	})
}

// programLogs are the ends of the logs of the node's programs.
func (n *node) programLogs() string {
	var out strings.Builder
	for _, program := range []string{"lvmsnap", "csi-provisioner", "csi-snapshotter", "csi-resizer"} {
		a, err := n.machine.(there).tell(order{Name: program + "-" + n.name})
		fmt.Fprintf(&out, "%s on %s (%v):\n%s\n", program, n.name, err, end(a.Out, 20<<10))
	}
	return out.String()
}

// cordon keeps new pods from the node, or no longer.
func (n *node) cordon(on bool) {
	n.c.t.Helper()
	n.c.Patch(kube.Object("v1", "Node", n.name), fmt.Sprintf(`{"spec":{"unschedulable":%t}}`, on))
}

// removePod does at once what kubelet does when it has ended a pod.
func (c *cluster) removePod(pod *unstructured.Unstructured) {
	c.t.Helper()
	now := int64(0)
	if err := c.CoreV1().Pods("default").Delete(c.Context(), pod.GetName(), metav1.DeleteOptions{GracePeriodSeconds: &now}); err != nil {
		c.t.Fatal(err)
	}
}

// convergence: a claim with data from a node that takes no pods at the moment goes to another one, is refused there with a
// text that says where the data is, and ends up on the right node by nothing but the scheduler's doing.
func convergence(a, b *node, file string) {
	c := a.c
	source := a.claim(repository.Example(c.t, "volume.yaml"))
	v := a.use(source)
	v.write("100 orders")
	v.leave()
	snapshot := c.snapshot(repository.Example(c.t, "snapshot.yaml"))

	objects := repository.Example(c.t, file)
	claim, pod := claims(objects)[0], kube.OfKind(objects, "Pod")
	a.cordon(true)
	defer a.cordon(false)
	c.Apply(claim, pod)
	c.Await("its event to say where the data is", time.Minute, func(ctx context.Context) error {
		events, err := c.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + claim.GetName()})
		if err != nil {
			return err
		}
		var messages []string
		for _, e := range events.Items {
			messages = append(messages, e.Message)
			if strings.Contains(e.Message, "ResourceExhausted") && strings.Contains(e.Message, "another node") {
				c.t.Log(e.Message)
				return nil
			}
		}
		return fmt.Errorf("its events are %q", messages)
	})
	a.cordon(false)
	claim = c.Patient(5*time.Minute).AwaitField(claim, "Bound", "status", "phase")
	c.AwaitField(pod, a.name, "spec", "nodeName")
	r := a.use(claim) // which looks at the volume's affinity
	r.reads("100 orders")
	if have := b.lvs(); len(have) > 0 {
		c.t.Errorf("the wrong node has %v", have)
	}
	r.leave()
	c.removePod(pod)
	c.Remove(claim, snapshot, source)
}

func restoreOnWrongNode(a, b *node) { convergence(a, b, "restore.yaml") }

func cloneOnWrongNode(a, b *node) { convergence(a, b, "clone.yaml") }

// named gives an example's objects other names.
func named(o *unstructured.Unstructured, name string) *unstructured.Unstructured {
	o.SetName(name)
	return o
}

// snapshotOf makes a VolumeSnapshot of a claim and does not wait for it.
func (c *cluster) snapshotOf(claim *unstructured.Unstructured, name string) *unstructured.Unstructured {
	c.t.Helper()
	o := named(kube.OfKind(repository.Example(c.t, "snapshot.yaml"), "VolumeSnapshot"), name)
	_ = unstructured.SetNestedField(o.Object, claim.GetName(), "spec", "source", "persistentVolumeClaimName")
	c.Apply(o)
	return o
}

// claimNamed is the claim of volume.yaml under another name.
func (n *node) claimNamed(name string) *unstructured.Unstructured {
	n.c.t.Helper()
	return n.claim([]*unstructured.Unstructured{named(kube.OfKind(repository.Example(n.c.t, "volume.yaml"), "PersistentVolumeClaim"), name)})
}

// expansion: the resizer is on one node and the volume on the other.
func expansion(_, b *node) {
	claim := b.claimNamed("db")
	v := b.use(claim)
	v.write("100 orders")
	b.expand(claim, v)
	v.leave()
	b.c.Remove(claim)
}

// lists: each node lists the snapshots that LVM has there, by the handles that Kubernetes knows, and no others.
func lists(a, b *node) {
	c := a.c
	var all []*unstructured.Unstructured
	for _, n := range []*node{a, b} {
		claim := n.claimNamed("db-" + n.name)
		first, second := c.snapshotOf(claim, "first-"+n.name), c.snapshotOf(claim, "second-"+n.name)
		all = append(all, first, second, claim)
		var want []string
		for _, o := range []*unstructured.Unstructured{first, second} {
			content := c.content(c.AwaitField(o, "true", "status", "readyToUse"))
			if node := content.GetLabels()[managedBy]; node != n.name {
				c.t.Errorf("%s is managed by %q", o.GetName(), node)
			}
			want = append(want, kube.Field(content, "status", "snapshotHandle"))
			c.documentedColumns("volumesnapshotcontents", content, kube.Field(content, "status", "snapshotHandle"), n.name)
		}
		volume := c.Must(kube.Object("v1", "PersistentVolume", kube.Field(claim, "spec", "volumeName")))
		c.documentedColumns("pv", volume, kube.Field(volume, "spec", "csi", "volumeHandle"), n.name)
		res, err := n.Controller.ListSnapshots(c.Context(), &csi.ListSnapshotsRequest{})
		if err != nil {
			c.t.Fatal(err)
		}
		var have, lvs []string
		for _, e := range res.GetEntries() {
			have = append(have, e.GetSnapshot().GetSnapshotId())
			lvs = append(lvs, filepath.Base(e.GetSnapshot().GetSnapshotId()))
		}
		slices.Sort(want)
		slices.Sort(have)
		slices.Sort(lvs)
		if !slices.Equal(have, want) {
			c.t.Errorf("%s lists %v, and Kubernetes has %v", n.name, have, want)
		}
		onDisk := slices.DeleteFunc(n.lvs(), func(name string) bool { return !strings.HasPrefix(name, "csi-s-") })
		slices.Sort(onDisk)
		if !slices.Equal(lvs, onDisk) {
			c.t.Errorf("%s lists %v, and LVM has %v", n.name, lvs, onDisk)
		}
	}
	c.Remove(all...)
}

// documentedColumns has what `kubectl get RESOURCE -o custom-columns` of the documentation shows of an object compared.
func (c *cluster) documentedColumns(resource string, o *unstructured.Unstructured, want ...string) {
	c.t.Helper()
	page, err := os.ReadFile(repository.Path("docs/explanation/sidecars-on-nodes.md"))
	if err != nil {
		c.t.Fatal(err)
	}
	m := regexp.MustCompile(`kubectl get ` + resource + ` -o custom-columns='HANDLE:(.*),NODE:(.*)'`).FindSubmatch(page)
	if len(m) != 1+len(want) {
		c.t.Fatalf("the page does not say how to get %s", resource)
	}
	for i, column := range m[1:] {
		var out strings.Builder
		path := jsonpath.New("column")
		if err := errors.Join(path.Parse("{"+string(column)+"}"), path.Execute(&out, o.Object)); err != nil || out.String() != want[i] {
			c.t.Errorf("%s of %s: %q (%v), want %q", column, o.GetName(), out.String(), err, want[i])
		}
	}
}

// wrongLabel: a content made by hand with the wrong node's name is found by nobody, and nothing happens to the snapshot; with the right
// name it is ready.
func wrongLabel(a, b *node) {
	c := a.c
	source := a.claimNamed("db")
	v := a.use(source)
	v.write("100 orders")
	v.leave()
	first := c.snapshotOf(source, "first")
	handle := c.forget(c.AwaitField(first, "true", "status", "readyToUse"))

	objects := preprovisioned(c, handle, b.name)
	c.Apply(objects...)
	content, found := kube.OfKind(objects, "VolumeSnapshotContent"), kube.OfKind(objects, "VolumeSnapshot")
	c.Await("the VolumeSnapshot to say that it was not found", time.Minute, func(ctx context.Context) error {
		got, err := c.Get(ctx, found)
		if err != nil {
			return err
		}
		message := kube.Field(got, "status", "error", "message")
		if !strings.Contains(message, "can not find snapshot for snapshotID "+handle) {
			return fmt.Errorf("its status is %v", got.Object["status"])
		}
		c.t.Log(message)
		return nil
	})
	a.awaitLVs(1, 1)
	c.Patch(content, fmt.Sprintf(`{"metadata":{"labels":{%q:%q}}}`, managedBy, a.name))
	c.AwaitField(found, "true", "status", "readyToUse")
	claim := named(kube.OfKind(repository.Example(c.t, "restore.yaml"), "PersistentVolumeClaim"), "restored")
	_ = unstructured.SetNestedField(claim.Object, found.GetName(), "spec", "dataSource", "name")
	claim = a.claim([]*unstructured.Unstructured{claim})
	r := a.use(claim)
	r.reads("100 orders")
	r.leave()
	c.Remove(claim, found, source)
}

// onePod: the scheduler keeps a second pod from a ReadWriteOncePod claim while there is a first.
func onePod(n *node) {
	c := n.c
	objects := repository.Example(c.t, "block.yaml")
	claim, first := claims(objects)[0], kube.OfKind(objects, "Pod")
	second := named(first.DeepCopy(), "second")
	c.Apply(claim, first)
	claim = c.AwaitField(claim, "Bound", "status", "phase")
	bound := c.awaitPod(first)
	c.Apply(second)
	c.Await("the second pod to be refused", time.Minute, func(ctx context.Context) error {
		pod, err := c.CoreV1().Pods("default").Get(ctx, "second", metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range pod.Status.Conditions {
			if condition.Type == corev1.PodScheduled && condition.Status == corev1.ConditionFalse && strings.Contains(condition.Message, "ReadWriteOncePod") {
				c.t.Log(condition.Message)
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", pod.Status.Conditions)
	})
	c.removePod(first)
	if node := c.awaitPod(second); node != bound {
		c.t.Errorf("the second pod is on %s, and its volume on %s", node, bound)
	}
	c.removePod(second)
	c.Remove(claim)
}

// awaitPod waits until the scheduler has found a node for a pod.
func (c *cluster) awaitPod(pod *unstructured.Unstructured) string {
	c.t.Helper()
	var node string
	c.Await("pod "+pod.GetName()+" to be given a node", 90*time.Second, func(ctx context.Context) error {
		got, err := c.Get(ctx, pod)
		if err != nil {
			return err
		}
		if node = kube.Field(got, "spec", "nodeName"); node == "" {
			return fmt.Errorf("its status is %v", got.Object["status"])
		}
		return nil
	})
	return node
}

// nodeLostAndBack: a node's power is cut. What it has stays known, what is wanted of it waits, the other node goes on; and when it
// is back, all of that is done.
func nodeLostAndBack(a, b *node) {
	c, m := a.c, b.machine.(there)
	near, lost := a.claimNamed("db-here"), b.claimNamed("db-lost")
	v := b.use(lost)
	v.write("100 orders")
	kept, deleted := c.snapshotOf(lost, "kept"), c.snapshotOf(lost, "deleted")
	for _, o := range []*unstructured.Unstructured{kept, deleted} {
		c.AwaitField(o, "true", "status", "readyToUse")
	}
	v.write("101 orders")
	b.awaitLVs(1, 2)

	m.power(c, false)
	late := c.snapshotOf(lost, "late")
	c.Delete(deleted)
	meanwhile := c.snapshotOf(near, "meanwhile")
	c.AwaitField(meanwhile, "true", "status", "readyToUse")
	if ready := kube.Field(c.content(c.AwaitField(kept, "true", "status", "readyToUse")), "status", "readyToUse"); ready != "true" {
		c.t.Errorf("the content of a snapshot of the lost node is ready: %q", ready)
	}
	for _, o := range []*unstructured.Unstructured{late, deleted} {
		got := c.Must(o)
		if o == late && kube.Field(got, "status", "readyToUse") == "true" || o == deleted && got.GetDeletionTimestamp() == nil {
			c.t.Errorf("%s, whose node has no power: %v", o.GetName(), got.Object)
		}
	}

	m.power(c, true)
	daemonSet := new(appsv1.DaemonSet)
	c.typed(kube.OfKind(kube.Chart(c.t), "DaemonSet"), daemonSet)
	b.dir = b.tempDir(c.t)
	b.boot(daemonSet)
	c.AwaitField(late, "true", "status", "readyToUse")
	c.Remove(deleted)
	b.awaitLVs(1, 2)
	v = b.use(lost)
	v.reads("101 orders")
	for name, text := range map[string]string{"kept": "100 orders", "late": "101 orders"} {
		claim := named(kube.OfKind(repository.Example(c.t, "restore.yaml"), "PersistentVolumeClaim"), "restored-"+name)
		_ = unstructured.SetNestedField(claim.Object, name, "spec", "dataSource", "name")
		claim = b.claim([]*unstructured.Unstructured{claim})
		restored := b.use(claim)
		restored.reads(text)
		restored.leave()
		c.Remove(claim)
	}
	v.leave()
	c.Remove(kept, late, meanwhile, near, lost)
}
