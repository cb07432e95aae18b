//go:build lab

// Package e2e_test runs the repository's manifests against a real API server, and its driver beside the real sidecars: all
// of it in the lab's machine, for which `make e2e` builds the programs. It is a module of its own.
package e2e_test

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/types"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// crds applies external-snapshotter's own, from its module.
func (c *cluster) crds() {
	c.t.Helper()
	files, err := filepath.Glob(filepath.Join(os.Getenv("E2E_CRDS"), "*_volume*.yaml"))
	if err != nil || len(files) == 0 {
		c.t.Fatalf("no CRDs in $E2E_CRDS (%v): run make e2e", err)
	}
	for _, f := range files {
		for _, o := range file(c.t, f) {
			c.apply(o)
			c.awaitCondition(o, "Established")
		}
	}
}

func (c *cluster) awaitCondition(o *unstructured.Unstructured, condition string) {
	c.t.Helper()
	c.await(fmt.Sprintf("%s %s to be %s", o.GetKind(), o.GetName(), condition), time.Minute, func(ctx context.Context) error {
		got, err := c.get(ctx, o)
		if err != nil {
			return err
		}
		conditions, _, _ := unstructured.NestedSlice(got.Object, "status", "conditions")
		for _, item := range conditions {
			if m := item.(map[string]any); m["type"] == condition && m["status"] == "True" {
				return nil
			}
		}
		return fmt.Errorf("its conditions are %v", conditions)
	})
}

// TestKubernetes is one test because a control plane in the lab costs most of its time.
func TestKubernetes(t *testing.T) {
	c := newCluster(t, "127.0.0.1")
	c.crds()
	t.Run("dry run", func(t *testing.T) { dryRun(c.in(t)) })

	manifests := kustomize(t, "kustomize/overlays/default")
	c.apply(manifests...)
	controller := kustomize(t, "snapshot-controller")
	c.apply(controller...)
	c.snapshotController(ofKind(controller, "Deployment"))
	n := newNode(c, "worker-1", labtest.Options{Name: "data", Disks: 2, ThinPool: "pool", PoolSize: "2g"}, manifests)
	n.resizer(manifests)

	for _, flow := range []struct {
		name string
		run  func(*node)
	}{
		{"snapshot and restore", snapshotAndRestore},
		{"clone", clone},
		{"block", block},
		{"thick", thick},
		{"xfs", xfs},
		{"deleted: source, restore, snapshot", func(n *node) { deletedInOrder(n, 0, 2, 1) }}, // snapshotAndRestore has the sixth order
		{"deleted: snapshot, source, restore", func(n *node) { deletedInOrder(n, 1, 0, 2) }},
		{"deleted: snapshot, restore, source", func(n *node) { deletedInOrder(n, 1, 2, 0) }},
		{"deleted: restore, source, snapshot", func(n *node) { deletedInOrder(n, 2, 0, 1) }},
		{"deleted: restore, snapshot, source", func(n *node) { deletedInOrder(n, 2, 1, 0) }},
		{"volume retained", volumeRetained},
		{"schedule", schedule},
		{"content made anew", contentMadeAnew},
		{"full pool", fullPool},
		{"driver killed", driverKilled},
		{"events", events},
		{"100 snapshots", hundredSnapshots},
	} {
		t.Run(flow.name, func(t *testing.T) {
			flow.run(n.in(t))
			n.in(t).awaitLVs(0, 0)
		})
	}
	t.Run("wrong node", func(t *testing.T) {
		n := n.in(t)
		before := n.c.watches()
		other := newNode(n.c, "worker-2", labtest.Options{Name: "other", ThinPool: "pool"}, manifests)
		wrongNode(n, other)
		n.c.logCost(before)
	})
	c.logUnused(append(manifests, controller...), map[string]string{
		"lvmsnap-node":        "system:serviceaccount:lvmsnap-system:lvmsnap-node",
		"lvmsnap-resizer":     "system:serviceaccount:lvmsnap-system:lvmsnap-resizer",
		"snapshot-controller": "system:serviceaccount:kube-system:snapshot-controller",
	})
	if lines := c.forbidden(); len(lines) > 0 {
		t.Errorf("the accounts of the manifests lack rights:\n%s", strings.Join(lines, "\n"))
	}
}

// dryRun is `kubectl create --dry-run=server --validate=strict` of everything that the repository ships.
func dryRun(c *cluster) {
	t := c.t
	c.apply(ofKind(kustomize(t, "kustomize/overlays/default"), "Namespace"))
	sets := map[string][]*unstructured.Unstructured{"snapshot-controller": kustomize(t, "snapshot-controller")}
	for _, overlay := range []string{"default", "host-namespace", "metrics"} {
		sets[overlay] = kustomize(t, "kustomize/overlays/"+overlay)
	}
	sets["chart"] = chart(t)
	examples, err := filepath.Glob("../../examples/*.yaml")
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range examples {
		sets[filepath.Base(path)] = file(t, path)
	}
	accepted := 0
	for name, objects := range sets {
		for _, o := range objects {
			switch o.GetKind() {
			case "Namespace", "PodMonitor": // it is there; the CRDs are the Prometheus operator's
				continue
			case "Pod": // the ServiceAccount controller that pods wait for does not run
				unstructured.RemoveNestedField(o.Object, "spec", "serviceAccountName")
			}
			if err := c.create(o, true); err != nil {
				t.Errorf("%s: %s %s: %v", name, o.GetKind(), o.GetName(), err)
			} else {
				accepted++
			}
		}
	}
	t.Logf("the API server accepts %d objects", accepted)
}

// snapshotController runs what the Deployment says, with its account's rights. It ends when it cannot renew its lease in time, which happens
// with a machine that is slow enough.
func (c *cluster) snapshotController(deployment *unstructured.Unstructured) {
	c.t.Helper()
	containers, _, _ := unstructured.NestedSlice(deployment.Object, "spec", "template", "spec", "containers")
	args, _, _ := unstructured.NestedStringSlice(containers[0].(map[string]any), "args")
	account := field(deployment, "spec", "template", "spec", "serviceAccountName")
	c.container(nil, "snapshot-controller", "snapshot-controller",
		append(args, "--kubeconfig="+c.kubeconfigOf("kube-system", account), "--leader-election-namespace=kube-system")...)
}

const gi = 1 << 30

// snapshotAndRestore is what the README shows, with the files of examples/: a claim is written to, snapshotted, overwritten,
// restored and expanded, and deleted with its snapshot first of all.
func snapshotAndRestore(n *node) {
	c, t := n.c, n.c.t
	claim := n.claim(example(t, "volume.yaml"))
	v := n.use(claim)
	v.write("100 orders")
	n.awaitLVs(1, 0)

	snapshot := ofKind(example(t, "snapshot.yaml"), "VolumeSnapshot")
	before := time.Now().Truncate(time.Second)
	c.apply(snapshot)
	ready := c.awaitField(snapshot, "true", "status", "readyToUse")
	if size := field(ready, "status", "restoreSize"); size != "1Gi" {
		t.Errorf("restoreSize is %q", size)
	}
	created, err := time.Parse(time.RFC3339, field(ready, "status", "creationTime"))
	if err != nil || created.Before(before) || created.After(time.Now()) {
		t.Errorf("creationTime is %s (%v), and it was made after %s", created, err, before)
	}
	n.awaitLVs(1, 1)
	v.write("all gone")

	restored := n.claim(example(t, "restore.yaml"))
	r := n.use(restored)
	r.reads("100 orders")
	v.reads("all gone")
	n.awaitLVs(2, 1)
	n.capacity()
	n.expand(restored, r)

	// The source first, then the snapshot, then what was restored from it.
	v.leave()
	c.remove(claim)
	n.awaitLVs(1, 1)
	c.remove(snapshot)
	n.awaitLVs(1, 0)
	r.reads("100 orders")
	r.leave()
	c.remove(restored)
	n.awaitLVs(0, 0)
	c.await("no volume and no content to be left", time.Minute, func(ctx context.Context) error {
		volumes, err := c.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if err == nil && len(volumes.Items) > 0 {
			err = fmt.Errorf("%d PersistentVolumes", len(volumes.Items))
		}
		return err
	})
}

// capacity is published for the scheduler, in objects that go with the DaemonSet.
func (n *node) capacity() {
	n.c.t.Helper()
	n.c.await("the node's capacity to be published", 90*time.Second, func(ctx context.Context) error {
		list, err := n.c.StorageV1().CSIStorageCapacities(systemNamespace).List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		for _, o := range list.Items {
			if o.StorageClassName == "lvmsnap" && o.Capacity != nil && o.Capacity.Value() > 0 &&
				len(o.OwnerReferences) == 1 && o.OwnerReferences[0].Kind == "DaemonSet" && o.NodeTopology.MatchLabels[topologyKey] == n.name {
				return nil
			}
		}
		return fmt.Errorf("of %d objects none is the node's", len(list.Items))
	})
}

// expand asks for 2 GiB: csi-resizer hands the work to the node, where the test does what kubelet would.
func (n *node) expand(claim *unstructured.Unstructured, v *volume) {
	c, t := n.c, n.c.t
	t.Helper()
	patch := []byte(`{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`)
	if _, err := c.CoreV1().PersistentVolumeClaims(claim.GetNamespace()).Patch(c.context(), claim.GetName(), types.MergePatchType, patch, metav1.PatchOptions{}); err != nil {
		t.Fatal(err)
	}
	c.awaitCondition(claim, "FileSystemResizePending")
	if _, err := n.Node.NodeExpandVolume(c.context(), &csi.NodeExpandVolumeRequest{
		VolumeId: v.id, VolumePath: v.target, StagingTargetPath: v.staging, VolumeCapability: v.capability,
		CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gi},
	}); err != nil {
		t.Fatal(err)
	}
	stats, err := n.Node.NodeGetVolumeStats(c.context(), &csi.NodeGetVolumeStatsRequest{VolumeId: v.id, VolumePath: v.target, StagingTargetPath: v.staging})
	if err != nil || stats.GetUsage()[0].GetTotal() < 2*gi*9/10 {
		t.Errorf("after the expansion to 2 GiB: %v, %v", stats, err)
	}
	v.reads("100 orders")
}
