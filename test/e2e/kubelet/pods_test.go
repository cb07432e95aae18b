//go:build lab

package kubelet_test

import (
	"context"
	"fmt"
	"slices"
	"strings"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"

	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	volumeGroup = "data"
	thinPool    = "pool"
	device      = "/dev/disk" // where the examples have a block volume
)

// user is a pod that uses a claim, as those of the examples do, and runs a command once.
func (c *cluster) user(name string, claim *unstructured.Unstructured, command string) *unstructured.Unstructured {
	c.t.Helper()
	container := corev1.Container{Name: "app", Image: "busybox:1.37", Command: []string{"sh", "-c", command}}
	if field(claim, "spec", "volumeMode") == "Block" {
		container.VolumeDevices = []corev1.VolumeDevice{{Name: "data", DevicePath: device}}
	} else {
		container.VolumeMounts = []corev1.VolumeMount{{Name: "data", MountPath: "/data"}}
	}
	seconds := int64(1)
	pod := &corev1.Pod{
		TypeMeta: metav1.TypeMeta{APIVersion: "v1", Kind: "Pod"}, ObjectMeta: metav1.ObjectMeta{Name: name, Namespace: "default"},
		Spec: corev1.PodSpec{
			RestartPolicy: corev1.RestartPolicyNever, TerminationGracePeriodSeconds: &seconds, Containers: []corev1.Container{container},
			Volumes: []corev1.Volume{{Name: "data", VolumeSource: corev1.VolumeSource{
				PersistentVolumeClaim: &corev1.PersistentVolumeClaimVolumeSource{ClaimName: claim.GetName()},
			}}},
		},
	}
	object, err := runtime.DefaultUnstructuredConverter.ToUnstructured(pod)
	if err != nil {
		c.t.Fatal(err)
	}
	u := &unstructured.Unstructured{Object: object}
	unstructured.RemoveNestedField(u.Object, "status")
	unstructured.RemoveNestedField(u.Object, "metadata", "creationTimestamp")
	return u
}

// run runs a command beside a claim in a pod of its own, and returns what it wrote.
func (c *cluster) run(claim *unstructured.Unstructured, command string) string {
	c.t.Helper()
	pod := c.user("user-of-"+claim.GetName(), claim, command)
	c.apply(pod)
	c.awaitField(pod, string(corev1.PodSucceeded), "status", "phase")
	out := c.output(pod)
	c.remove(pod)
	return out
}

// output is `kubectl logs`.
func (c *cluster) output(pod *unstructured.Unstructured) string {
	c.t.Helper()
	text, err := c.CoreV1().Pods("default").GetLogs(pod.GetName(), &corev1.PodLogOptions{}).DoRaw(c.context())
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// has checks what a pod reads from the claim; only the beginning of a device.
func (c *cluster) has(claim *unstructured.Unstructured, want string) {
	c.t.Helper()
	command := "cat /data/orders"
	if field(claim, "spec", "volumeMode") == "Block" {
		command = fmt.Sprintf("head -c %d %s", len(want), device)
	}
	if got := c.run(claim, command); got != want {
		c.t.Errorf("the pod reads %q from %s, want %q", got, claim.GetName(), want)
	}
}

// snapshot makes a VolumeSnapshot, and checks what its status says when it is ready.
func (c *cluster) snapshot(o *unstructured.Unstructured, size string) {
	c.t.Helper()
	before := time.Now().Truncate(time.Second)
	c.apply(o)
	ready := c.awaitField(o, "true", "status", "readyToUse")
	if got := field(ready, "status", "restoreSize"); got != size {
		c.t.Errorf("restoreSize is %q, want %s", got, size)
	}
	created, err := time.Parse(time.RFC3339, field(ready, "status", "creationTime"))
	if err != nil || created.Before(before) || created.After(time.Now()) {
		c.t.Errorf("creationTime is %s (%v), and it was made after %s", created, err, before)
	}
}

// awaitLVs waits until LVM has so many volumes and snapshots of the driver's, and nothing else but the pool.
func (c *cluster) awaitLVs(volumes, snapshots int) {
	c.t.Helper()
	await(c.t, fmt.Sprintf("%d volumes and %d snapshots in LVM", volumes, snapshots), 3*time.Minute, func(context.Context) error {
		have := strings.Fields(labtest.Run(c.t, "lvs", "--noheadings", "-o", "lv_name", volumeGroup))
		have = slices.DeleteFunc(have, func(name string) bool { return name == thinPool })
		count := func(prefix string) (n int) {
			for _, name := range have {
				if strings.HasPrefix(name, prefix) {
					n++
				}
			}
			return n
		}
		if v, s := count("csi-v-"), count("csi-s-"); v != volumes || s != snapshots || v+s != len(have) {
			return fmt.Errorf("LVM has %v", have)
		}
		return nil
	})
}
