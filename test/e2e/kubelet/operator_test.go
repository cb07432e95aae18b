//go:build lab

package kubelet_test

import (
	"encoding/json"
	"slices"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
)

// operator is what somebody does by kubectl exec at 3 a.m.: the container has a read-only root and none of the host's modules, and all is well.
func operator(c *cluster) {
	t := c.t
	claim := kube.Named(repository.Example(t, "volume.yaml"), "PersistentVolumeClaim", "")
	c.Apply(claim)
	pod := c.running(c.user("operated", claim))
	snapshot := kube.Named(repository.Example(t, "snapshot.yaml"), "VolumeSnapshot", "")
	c.snapshot(snapshot, "1Gi")

	driver := c.driverPod()
	run := func(argv ...string) string { return c.execIn(systemNamespace, driver, "lvmsnap", argv...) }
	var list struct {
		Items []struct {
			Snapshot, SourceClaim string
			Ready                 bool
		}
	}
	if out := run("lvmsnapctl", "get", "snapshots", "-o", "json"); json.Unmarshal([]byte(out), &list) != nil || len(list.Items) != 1 ||
		list.Items[0].Snapshot != "default/"+snapshot.GetName() || list.Items[0].SourceClaim != "default/"+claim.GetName() || !list.Items[0].Ready {
		t.Errorf("get snapshots: %s", out)
	}
	if out := run("lvmsnapctl", "doctor"); !strings.Contains(out, "All is well.") { // it fails unless the exit code is 0
		t.Errorf("doctor: %s", out)
	}
	file := run("lvmsnapctl", "support-bundle")
	if out := run("tar", "--list", "--gzip", "--file", file); !strings.HasPrefix(file, "/run/lvmsnap/") || !strings.Contains(out, "lvmsnap-support/inventory.json") {
		t.Errorf("the bundle %q has %s", file, out)
	}
	run("rm", file)
	c.Remove(snapshot, pod, claim)
	c.awaitNothing()
}

// driverPod is that of the DaemonSet on the only node.
func (c *cluster) driverPod() string {
	c.t.Helper()
	pods, err := c.CoreV1().Pods(systemNamespace).List(c.Context(), metav1.ListOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	i := slices.IndexFunc(pods.Items, func(p corev1.Pod) bool {
		return slices.ContainsFunc(p.Spec.Containers, func(k corev1.Container) bool { return k.Name == "lvmsnap" })
	})
	if i < 0 {
		c.t.Fatalf("no pod of the driver among %d", len(pods.Items))
	}
	return pods.Items[i].Name
}
