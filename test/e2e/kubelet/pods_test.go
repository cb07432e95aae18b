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

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	volumeGroup = "data"
	thinPool    = "pool"
	device      = "/dev/disk" // where the examples have a block volume
)

// user is a pod that uses a claim as those of the examples do, and sleeps.
func (c *cluster) user(name string, claim *unstructured.Unstructured) *unstructured.Unstructured {
	c.t.Helper()
	text := `{apiVersion: v1, kind: Pod, metadata: {name: ` + name + `}, spec: {terminationGracePeriodSeconds: 1, containers: [
  {name: app, image: "busybox:1.37", command: [sleep, infinity], `
	if kube.Field(claim, "spec", "volumeMode") == "Block" {
		text += `volumeDevices: [{name: data, devicePath: ` + device + `}]`
	} else {
		text += `volumeMounts: [{name: data, mountPath: /data}]`
	}
	return kube.Parse(c.t, text+`}], volumes: [{name: data, persistentVolumeClaim: {claimName: `+claim.GetName()+`}}]}}`)[0]
}

// running makes a pod, and waits until it runs.
func (c *cluster) running(pod *unstructured.Unstructured) *unstructured.Unstructured {
	c.t.Helper()
	c.Apply(pod)
	return c.AwaitField(pod, string(corev1.PodRunning), "status", "phase")
}

// exec is `kubectl exec POD -- sh -c COMMAND`, of containerd itself: the API's way would need a client of its own.
func (c *cluster) exec(pod *unstructured.Unstructured, command string) string {
	c.t.Helper()
	return c.execIn("default", pod.GetName(), "app", "sh", "-c", command)
}

// execIn runs a program in a container of a pod.
func (c *cluster) execIn(namespace, pod, container string, argv ...string) string {
	c.t.Helper()
	got, err := c.CoreV1().Pods(namespace).Get(c.Context(), pod, metav1.GetOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	i := slices.IndexFunc(got.Status.ContainerStatuses, func(s corev1.ContainerStatus) bool { return s.Name == container })
	if i < 0 {
		c.t.Fatalf("%s has no container %s: %v", pod, container, got.Status)
	}
	id := strings.TrimPrefix(got.Status.ContainerStatuses[i].ContainerID, "containerd://")
	execs++
	return strings.TrimSpace(labtest.Run(c.t, append([]string{
		"ctr", "--address", criSocket, "--namespace", "k8s.io", "tasks", "exec", "--exec-id", fmt.Sprintf("e2e-%d", execs), id,
	}, argv...)...))
}

var execs int

// output is `kubectl logs`.
func (c *cluster) output(pod *unstructured.Unstructured) string {
	c.t.Helper()
	text, err := c.CoreV1().Pods("default").GetLogs(pod.GetName(), &corev1.PodLogOptions{}).DoRaw(c.Context())
	if err != nil {
		c.t.Fatal(err)
	}
	return strings.TrimSpace(string(text))
}

// has checks what a pod reads of its claim, in a file or at the begin of a device.
func (c *cluster) has(pod *unstructured.Unstructured, want string) {
	c.t.Helper()
	if got := c.exec(pod, fmt.Sprintf("if test -b %[1]s; then head -c %[2]d %[1]s; else cat /data/orders; fi", device, len(want))); got != want {
		c.t.Errorf("%s reads %q, want %q", pod.GetName(), got, want)
	}
}

// written waits for what the pods of the examples write.
func (c *cluster) written(pod *unstructured.Unstructured) {
	c.t.Helper()
	c.exec(pod, fmt.Sprintf("until head -n 1 /data/orders %s 2>/dev/null | grep -q '100 orders'; do sleep 0.2; done; sync", device))
}

// snapshot makes a VolumeSnapshot, and checks what its status says when it is ready.
func (c *cluster) snapshot(o *unstructured.Unstructured, size string) {
	c.t.Helper()
	before := time.Now().Truncate(time.Second)
	c.Apply(o)
	ready := c.AwaitField(o, "true", "status", "readyToUse")
	if got := kube.Field(ready, "status", "restoreSize"); got != size {
		c.t.Errorf("restoreSize is %q, want %s", got, size)
	}
	created, err := time.Parse(time.RFC3339, kube.Field(ready, "status", "creationTime"))
	if err != nil || created.Before(before) || created.After(time.Now()) {
		c.t.Errorf("creationTime is %s (%v), and it was made after %s", created, err, before)
	}
}

// awaitLVs waits until LVM has so many volumes and snapshots of the driver's, and nothing else but the pool.
func (c *cluster) awaitLVs(volumes, snapshots int) {
	c.t.Helper()
	kube.Await(c.t, fmt.Sprintf("%d volumes and %d snapshots in LVM", volumes, snapshots), 6*time.Minute, func(context.Context) error {
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
