//go:build lab

package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// snapshotAndRestore is what the README shows: a pod writes, its claim is snapshotted, overwritten, restored and expanded.
func snapshotAndRestore(c *cluster) {
	t := c.t
	source, restored := repository.Example(t, "volume.yaml"), repository.Example(t, "restore.yaml")
	claim, pod := kube.OfKind(source, "PersistentVolumeClaim"), kube.OfKind(source, "Pod")
	c.Apply(claim)
	c.running(pod)
	c.written(pod)
	c.awaitLVs(1, 0)

	snapshot := kube.OfKind(repository.Example(t, "snapshot.yaml"), "VolumeSnapshot")
	c.snapshot(snapshot, "1Gi")
	c.awaitLVs(1, 1)
	c.exec(pod, "echo all gone > /data/orders && sync")

	c.Apply(restored...)
	reader := kube.OfKind(restored, "Pod")
	c.AwaitField(reader, string(corev1.PodSucceeded), "status", "phase")
	if got := c.output(reader); got != "100 orders" {
		t.Errorf("the pod of restore.yaml reads %q", got)
	}
	c.has(pod, "all gone")
	c.awaitLVs(2, 1)

	c.Patch(claim, `{"spec":{"resources":{"requests":{"storage":"2Gi"}}}}`)
	c.AwaitField(claim, "2Gi", "status", "capacity", "storage")
	var kilobytes int
	if _, err := fmt.Sscan(c.exec(pod, "df -P -k /data | tail -n 1 | awk '{ print $2 }'"), &kilobytes); err != nil || kilobytes < 2<<20*9/10 {
		t.Errorf("the pod sees a file system of %d KiB (%v) after the expansion to 2 GiB", kilobytes, err)
	}
	c.has(pod, "all gone")
	c.Remove(reader, kube.OfKind(restored, "PersistentVolumeClaim"), snapshot, pod, claim)
	c.awaitNothing()
}

// awaitNothing waits until no volume is left, in LVM or in Kubernetes.
func (c *cluster) awaitNothing() {
	c.t.Helper()
	c.awaitLVs(0, 0)
	kube.Await(c.t, "no PersistentVolume to be left", time.Minute, func(ctx context.Context) error {
		volumes, err := c.CoreV1().PersistentVolumes().List(ctx, metav1.ListOptions{})
		if err == nil && len(volumes.Items) > 0 {
			err = fmt.Errorf("%d are", len(volumes.Items))
		}
		return err
	})
}

// block: a device in the pod, whose claim no second pod can use beside the first.
func block(c *cluster) {
	t := c.t
	objects := repository.Example(t, "block.yaml")
	claim, pod := kube.Named(objects, "PersistentVolumeClaim", "disk"), kube.Named(objects, "Pod", "disk")
	restored, snapshot := kube.Named(objects, "PersistentVolumeClaim", "disk-restored"), kube.OfKind(objects, "VolumeSnapshot")
	c.Apply(claim)
	c.running(pod)

	second := c.user("second", claim)
	c.Apply(second)
	kube.Await(t, "the scheduler to refuse a second pod", time.Minute, func(ctx context.Context) error {
		got, err := c.CoreV1().Pods("default").Get(ctx, second.GetName(), metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, condition := range got.Status.Conditions {
			if got.Status.Phase == corev1.PodPending && condition.Reason == corev1.PodReasonUnschedulable && strings.Contains(condition.Message, "ReadWriteOncePod") {
				t.Log(condition.Message)
				return nil
			}
		}
		return fmt.Errorf("it is %s: %v", got.Status.Phase, got.Status.Conditions)
	})
	c.Remove(second)

	c.written(pod)
	c.snapshot(snapshot, "1Gi")
	c.awaitLVs(1, 1)
	c.exec(pod, "echo 'all gone!!' | dd of="+device+" conv=fsync")
	c.Apply(restored)
	reader := c.running(c.user("disk-restored", restored))
	c.has(reader, "100 orders")
	c.has(pod, "all gone!!")
	c.awaitLVs(2, 1)
	c.Remove(reader, restored, snapshot, pod, claim)
	c.awaitNothing()
}

// fsGroup: kubelet gives the file system to the group of a pod that is not root (fsGroupPolicy of the CSIDriver).
func fsGroup(c *cluster) {
	claim := kube.OfKind(repository.Example(c.t, "volume.yaml"), "PersistentVolumeClaim")
	c.Apply(claim)
	pod := c.user("not-root", claim)
	_ = unstructured.SetNestedMap(pod.Object, map[string]any{
		"runAsNonRoot": true, "runAsUser": int64(1000), "runAsGroup": int64(1000), "fsGroup": int64(2000),
	}, "spec", "securityContext")
	c.running(pod)
	got := strings.Fields(c.exec(pod, "echo mine > /data/orders && stat -c %g /data/orders /data && cat /data/orders"))
	if strings.Join(got, " ") != "2000 2000 mine" {
		c.t.Errorf("group of the file, group of the directory, and data: %q", got)
	}
	c.Remove(pod, claim)
	c.awaitNothing()
}

// thick: a COW snapshot over two disks, whose restore is a copy beside the calls.
func thick(c *cluster) {
	t := c.t
	objects := repository.Example(t, "thick.yaml")
	claim, restored := kube.Named(objects, "PersistentVolumeClaim", "archive"), kube.Named(objects, "PersistentVolumeClaim", "archive-restored")
	for _, o := range []*unstructured.Unstructured{claim, restored} { // copies of whole gigabytes take their time here
		_ = unstructured.SetNestedField(o.Object, "64Mi", "spec", "resources", "requests", "storage")
	}
	snapshot, class, snapshotClass := kube.OfKind(objects, "VolumeSnapshot"), kube.OfKind(objects, "StorageClass"), kube.OfKind(objects, "VolumeSnapshotClass")
	c.Apply(class, snapshotClass, claim)
	pod := c.running(c.user("archive", claim))
	c.exec(pod, "echo 100 orders > /data/orders && sync")
	if out := strings.Fields(labtest.Run(t, "lvs", "--noheadings", "-o", "segtype,stripes", volumeGroup)); !strings.Contains(strings.Join(out, " "), "striped 2") {
		t.Errorf("nothing is striped over two disks: %s", out)
	}
	c.snapshot(snapshot, "64Mi")
	c.exec(pod, "echo all gone > /data/orders && sync")
	c.Apply(restored)
	reader := c.running(c.user("archive-restored", restored))
	c.has(reader, "100 orders")
	c.has(pod, "all gone")
	c.awaitLVs(2, 1)
	c.Remove(reader, restored, snapshot, pod, claim, class, snapshotClass)
	c.awaitNothing()
}

// driverKilled kills the driver, and then its whole pod, while a snapshot is being made: there is one LV for each in the end.
func driverKilled(c *cluster) {
	t := c.t
	source := repository.Example(t, "volume.yaml")
	claim, pod := kube.OfKind(source, "PersistentVolumeClaim"), kube.OfKind(source, "Pod")
	c.Apply(claim)
	c.running(pod)
	c.written(pod)
	var snapshots []*unstructured.Unstructured
	for i, kill := range []func(){c.killDriver, c.killPod} {
		o := kube.OfKind(repository.Example(t, "snapshot.yaml"), "VolumeSnapshot")
		o.SetName(fmt.Sprintf("killed-%d", i))
		c.Apply(o)
		kube.Await(t, "its VolumeSnapshotContent", time.Minute, func(ctx context.Context) error {
			got, err := c.Get(ctx, o)
			if err == nil && kube.Field(got, "status", "boundVolumeSnapshotContentName") == "" {
				err = errors.New("not yet")
			}
			return err
		})
		kill()
		if got, err := c.Get(c.Context(), o); err == nil {
			t.Logf("killed; ready: %q", kube.Field(got, "status", "readyToUse"))
		}
		snapshots = append(snapshots, o)
	}
	for _, o := range snapshots {
		c.AwaitField(o, "true", "status", "readyToUse")
	}
	c.awaitDriver()
	c.awaitLVs(1, len(snapshots))
	c.has(pod, "100 orders")
	c.Remove(append(snapshots, pod, claim)...)
	c.awaitNothing()
}

// killDriver kills the driver's process; kubelet starts the container again.
func (c *cluster) killDriver() {
	c.t.Helper()
	files, err := filepath.Glob("/proc/[0-9]*/comm")
	if err != nil {
		c.t.Fatal(err)
	}
	for _, file := range files {
		if text, _ := os.ReadFile(file); string(text) != "lvmsnap\n" {
			continue
		}
		pid, err := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		if err == nil {
			err = syscall.Kill(pid, syscall.SIGKILL)
		}
		if err != nil {
			c.t.Fatal(err)
		}
		return
	}
	c.t.Fatal("no process is the driver")
}

// killPod is `kubectl delete --force --grace-period=0` of the DaemonSet's pod.
func (c *cluster) killPod() {
	c.t.Helper()
	now := int64(0)
	if err := c.CoreV1().Pods(systemNamespace).DeleteCollection(c.Context(), metav1.DeleteOptions{GracePeriodSeconds: &now},
		metav1.ListOptions{LabelSelector: "app.kubernetes.io/component=node"}); err != nil {
		c.t.Fatal(err)
	}
}
