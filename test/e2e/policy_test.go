//go:build lab

package e2e_test

import (
	"context"
	"strings"

	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/client-go/dynamic"
	"k8s.io/client-go/rest"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
)

// ofClass changes the class of a claim.
func ofClass(claim *unstructured.Unstructured, class string) *unstructured.Unstructured {
	_ = unstructured.SetNestedField(claim.Object, class, "spec", "storageClassName")
	return claim
}

// xfs: a restore is mounted beside its original, though both have the same UUID.
func xfs(n *node) {
	n.c.Apply(repository.Example(n.c.t, "storageclasses.yaml")...)
	const class = "lvmsnap-xfs"
	source := n.claim([]*unstructured.Unstructured{ofClass(claims(repository.Example(n.c.t, "volume.yaml"))[0], class)})
	v := n.use(source)
	v.write("100 orders")
	snapshot := n.c.snapshot(repository.Example(n.c.t, "snapshot.yaml"))
	v.write("all gone")
	restored := n.claim([]*unstructured.Unstructured{ofClass(claims(repository.Example(n.c.t, "restore.yaml"))[0], class)})
	r := n.use(restored)
	for _, u := range []*volume{v, r} {
		if fs := strings.TrimSpace(n.run(n.c.t, "stat", "-f", "-c", "%T", u.target)); fs != "xfs" {
			n.c.t.Errorf("%s is %s", u.target, fs)
		}
	}
	r.reads("100 orders")
	r.write("101 orders")
	v.reads("all gone")
	v.leave()
	r.leave()
	r = n.use(restored)
	r.reads("101 orders")
	r.leave()
	n.c.Remove(source, restored, snapshot)
}

// volumeRetained: a class with reclaimPolicy Retain leaves the volume when its claim goes, a new claim gets it with its data, and
// with the policy Delete it goes.
func volumeRetained(n *node) {
	c := n.c
	c.Apply(repository.Example(c.t, "storageclasses.yaml")...)
	retained := func() *unstructured.Unstructured {
		return ofClass(claims(repository.Example(c.t, "volume.yaml"))[0], "lvmsnap-fast")
	}
	claim := n.claim([]*unstructured.Unstructured{retained()})
	v := n.use(claim)
	v.write("100 orders")
	v.leave()
	volume := kube.Object("v1", "PersistentVolume", kube.Field(claim, "spec", "volumeName"))
	c.Remove(claim)
	c.AwaitField(volume, string(corev1.VolumeReleased), "status", "phase")
	n.awaitLVs(1, 0)

	c.Patch(volume, `{"spec":{"claimRef":null}}`)
	c.AwaitField(volume, string(corev1.VolumeAvailable), "status", "phase")
	again := retained()
	_ = unstructured.SetNestedField(again.Object, volume.GetName(), "spec", "volumeName")
	again = n.claim([]*unstructured.Unstructured{again})
	v = n.use(again)
	v.reads("100 orders")
	v.leave()
	c.Patch(volume, `{"spec":{"persistentVolumeReclaimPolicy":"Delete"}}`)
	c.Remove(again)
	n.awaitLVs(0, 0)
}

// schedule does what the CronJob's kubectl would: it makes the snapshot in the ConfigMap, with the rights of the CronJob's account.
func schedule(n *node) {
	c := n.c
	source := n.claim(repository.Example(c.t, "volume.yaml"))
	objects := repository.Example(c.t, "scheduled.yaml")
	c.Apply(objects...)
	account := kube.Field(kube.OfKind(objects, "CronJob"), "spec", "jobTemplate", "spec", "template", "spec", "serviceAccountName")
	client, err := dynamic.NewForConfig(&rest.Config{Host: c.url(), BearerToken: c.token("default", account), TLSClientConfig: rest.TLSClientConfig{Insecure: true}})
	if err != nil {
		c.t.Fatal(err)
	}
	manifest := kube.Parse(c.t, kube.Field(kube.OfKind(objects, "ConfigMap"), "data", "snapshot.yaml"))[0]
	mapping, err := c.Mapping(manifest)
	if err != nil {
		c.t.Fatal(err)
	}
	var all []*unstructured.Unstructured
	for range 2 {
		made, err := client.Resource(mapping.Resource).Namespace("default").Create(context.Background(), manifest, metav1.CreateOptions{})
		if err != nil {
			c.t.Fatal(err)
		}
		all = append(all, c.AwaitField(made, "true", "status", "readyToUse"))
	}
	n.awaitLVs(1, len(all))
	c.Remove(append(all, source)...)
	c.Remove(objects...)
}
