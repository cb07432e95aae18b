//go:build lab

// Package e2e_test runs the repository's manifests against a real API server, and its driver beside the real sidecars: all
// of it in the lab's machine, for which `make e2e` builds the programs. It is a module of its own.
package e2e_test

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// TestKubernetes is one test because a control plane in the lab costs most of its time.
func TestKubernetes(t *testing.T) {
	c := newCluster(t, "127.0.0.1")
	c.CRDs()
	t.Run("dry run", func(t *testing.T) { dryRun(c.in(t)) })

	manifests := repository.Kustomize(t, "kustomize/overlays/default")
	c.Apply(manifests...)
	controller := repository.Kustomize(t, "snapshot-controller")
	c.Apply(controller...)
	c.snapshotController(kube.OfKind(controller, "Deployment"))
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

// dryRun is `kubectl apply --server-side --dry-run=server --validate=strict` of everything that the repository ships.
func dryRun(c *cluster) {
	t := c.t
	c.Apply(kube.OfKind(repository.Kustomize(t, "kustomize/overlays/default"), "Namespace"))
	sets := map[string][]*unstructured.Unstructured{"snapshot-controller": repository.Kustomize(t, "snapshot-controller")}
	for _, overlay := range []string{"default", "host-namespace", "metrics"} {
		sets[overlay] = repository.Kustomize(t, "kustomize/overlays/"+overlay)
	}
	sets["chart"] = kube.Chart(t)
	examples, err := filepath.Glob(repository.Path("examples/*.yaml"))
	if err != nil || len(examples) == 0 {
		t.Fatalf("no examples: %v", err)
	}
	for _, path := range examples {
		sets[filepath.Base(path)] = kube.File(t, path)
	}
	accepted := 0
	for name, objects := range sets {
		for _, o := range objects {
			switch o.GetKind() {
			case "Namespace", "PodMonitor", "PrometheusRule": // it is there; the CRDs are the Prometheus operator's
				continue
			case "Pod": // the ServiceAccount controller that pods wait for does not run
				unstructured.RemoveNestedField(o.Object, "spec", "serviceAccountName")
			}
			if err := c.DryRun(o); err != nil {
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
	account := kube.Field(deployment, "spec", "template", "spec", "serviceAccountName")
	c.container(nil, "snapshot-controller", "snapshot-controller",
		append(args, "--kubeconfig="+c.kubeconfigOf("kube-system", account), "--leader-election-namespace=kube-system")...)
}

const gi = 1 << 30

// snapshotAndRestore is what the README shows, with the files of examples/: a claim is written to, snapshotted, overwritten,
// restored and expanded, and deleted with its snapshot first of all.
func snapshotAndRestore(n *node) {
	c, t := n.c, n.c.t
	claim := n.claim(repository.Example(t, "volume.yaml"))
	v := n.use(claim)
	v.write("100 orders")
	n.awaitLVs(1, 0)

	snapshot := kube.OfKind(repository.Example(t, "snapshot.yaml"), "VolumeSnapshot")
	before := time.Now().Truncate(time.Second)
	c.Apply(snapshot)
	ready := c.AwaitField(snapshot, "true", "status", "readyToUse")
	if size := kube.Field(ready, "status", "restoreSize"); size != "1Gi" {
		t.Errorf("restoreSize is %q", size)
	}
	created, err := time.Parse(time.RFC3339, kube.Field(ready, "status", "creationTime"))
	if err != nil || created.Before(before) || created.After(time.Now()) {
		t.Errorf("creationTime is %s (%v), and it was made after %s", created, err, before)
	}
	n.awaitLVs(1, 1)
	v.write("all gone")

	restored := n.claim(repository.Example(t, "restore.yaml"))
	r := n.use(restored)
	r.reads("100 orders")
	v.reads("all gone")
	n.awaitLVs(2, 1)
	n.capacity()
	n.expand(restored, r)

	// The source first, then the snapshot, then what was restored from it.
	v.leave()
	c.Remove(claim)
	n.awaitLVs(1, 1)
	c.Remove(snapshot)
	n.awaitLVs(1, 0)
	r.reads("100 orders")
	r.leave()
	c.Remove(restored)
	n.awaitLVs(0, 0)
	c.Await("no volume and no content to be left", time.Minute, func(ctx context.Context) error {
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
	n.c.Await("the node's capacity to be published", 90*time.Second, func(ctx context.Context) error {
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
	c.Patch(claim, `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`)
	c.AwaitCondition(claim, "FileSystemResizePending")
	if _, err := n.Node.NodeExpandVolume(c.Context(), &csi.NodeExpandVolumeRequest{
		VolumeId: v.id, VolumePath: v.target, StagingTargetPath: v.staging, VolumeCapability: v.capability,
		CapacityRange: &csi.CapacityRange{RequiredBytes: 2 * gi},
	}); err != nil {
		t.Fatal(err)
	}
	stats, err := n.Node.NodeGetVolumeStats(c.Context(), &csi.NodeGetVolumeStatsRequest{VolumeId: v.id, VolumePath: v.target, StagingTargetPath: v.staging})
	if err != nil || stats.GetUsage()[0].GetTotal() < 2*gi*9/10 {
		t.Errorf("after the expansion to 2 GiB: %v, %v", stats, err)
	}
	v.reads("100 orders")
}
