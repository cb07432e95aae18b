//go:build lab

// Package kubelet_test applies the repository's manifests to a real kubelet with containerd, whose pods run the image that
// `make image-test` builds: all of it in the lab's machine, for which `make e2e-kubelet` makes programs and images.
package kubelet_test

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const systemNamespace = "lvmsnap-system"

// TestKubelet is one test because its cluster costs most of the time.
func TestKubelet(t *testing.T) {
	p := newPrograms(t)
	p.machine()
	p.network()
	labtest.VolumeGroup(t, labtest.Options{Name: volumeGroup, Disks: 2, ThinPool: thinPool, PoolSize: "4g", MetadataSize: "16m"})
	p.containerd()
	c := controlPlane(p)
	c.CRDs()
	c.kubelet()
	manifests, helm := manifests(t), kube.Chart(t)
	c.Apply(controller(t)...)
	c.Apply(manifests...)
	c.awaitDriver()
	for _, flow := range []struct {
		name string
		run  func(*cluster)
	}{
		{"snapshot and restore", snapshotAndRestore},
		{"block", block},
		{"thick", thick},
		{"fsGroup", fsGroup},
		{"driver killed", driverKilled},
		{"operator", operator},
		{"helm", func(c *cluster) {
			c.Remove(reversed(manifests)...)
			// As docs/how-to/install.md says: --create-namespace, and its label.
			namespace := kube.Named(manifests, "Namespace", systemNamespace)
			c.Apply(namespace)
			c.Apply(helm...)
			c.awaitDriver()
			snapshotAndRestore(c)
			// Pods that end after containerd would keep the volume group.
			c.Remove(append(reversed(helm), namespace)...)
		}},
	} {
		if !t.Run(flow.name, func(t *testing.T) { flow.run(c.in(t)) }) {
			return // what it left is in the way of the others
		}
	}
}

const repository kube.Repository = "../../.."

func manifests(t *testing.T) []*unstructured.Unstructured {
	return repository.Kustomize(t, "kustomize/overlays/default")
}

func controller(t *testing.T) []*unstructured.Unstructured {
	return repository.Kustomize(t, "snapshot-controller")
}

func reversed(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	out := slices.Clone(objects)
	slices.Reverse(out)
	return out
}

// awaitDriver waits until all that the manifests run is ready, and kubelet has the driver.
func (c *cluster) awaitDriver() {
	c.t.Helper()
	kube.Await(c.t, "kubelet to have registered the driver", 10*time.Minute, func(ctx context.Context) error {
		node, err := c.StorageV1().CSINodes().Get(ctx, nodeName, metav1.GetOptions{})
		if err != nil {
			return err
		}
		for _, driver := range node.Spec.Drivers {
			if driver.Name == driverName && driver.NodeID == nodeName && slices.Contains(driver.TopologyKeys, "topology."+driverName+"/node") {
				return nil
			}
		}
		return fmt.Errorf("the CSINode has %v; %s", node.Spec.Drivers, c.pods(ctx))
	})
	kube.Await(c.t, "the DaemonSet and the Deployments to be ready", 10*time.Minute, func(ctx context.Context) error {
		daemonSet, err := c.AppsV1().DaemonSets(systemNamespace).Get(ctx, "lvmsnap-node", metav1.GetOptions{})
		if err != nil {
			return err
		}
		ready := daemonSet.Status.NumberReady == 1 && daemonSet.Status.ObservedGeneration == daemonSet.Generation
		for namespace, name := range map[string]string{systemNamespace: "lvmsnap-resizer", "kube-system": "snapshot-controller"} {
			deployment, err := c.AppsV1().Deployments(namespace).Get(ctx, name, metav1.GetOptions{})
			if err != nil {
				return err
			}
			ready = ready && deployment.Status.AvailableReplicas == 1
		}
		if !ready {
			return errors.New(c.pods(ctx))
		}
		return nil
	})
	c.t.Log(c.pods(c.Context()))
}

// pods says how those of the manifests are.
func (c *cluster) pods(ctx context.Context) string {
	list, err := c.CoreV1().Pods("").List(ctx, metav1.ListOptions{})
	if err != nil {
		return err.Error()
	}
	var out []string
	for _, pod := range list.Items {
		out = append(out, fmt.Sprintf("%s: %s %s", pod.Name, pod.Status.Phase, pod.Status.Message))
		for _, condition := range pod.Status.Conditions {
			if condition.Status != corev1.ConditionTrue && condition.Message != "" {
				out = append(out, condition.Message)
			}
		}
		for _, status := range pod.Status.ContainerStatuses {
			if status.RestartCount > 0 {
				out = append(out, fmt.Sprintf("%s: %d restarts", status.Name, status.RestartCount))
			}
			if w := status.State.Waiting; w != nil && w.Message != "" {
				out = append(out, status.Name+": "+w.Message)
			}
		}
	}
	return strings.Join(out, "; ")
}
