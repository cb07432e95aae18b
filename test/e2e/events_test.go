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

	authenticationv1 "k8s.io/api/authentication/v1"
	corev1 "k8s.io/api/core/v1"
	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"
	"k8s.io/apimachinery/pkg/runtime"
	"k8s.io/apimachinery/pkg/types"
	"k8s.io/client-go/kubernetes/scheme"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// asPod gives a process what kubelet mounts into a pod of the account, and its environment. All pods of a machine have the same.
func (c *cluster) asPod(namespace, account string) []string {
	c.t.Helper()
	const dir = "/var/run/secrets/kubernetes.io/serviceaccount"
	seconds := int64(3600)
	token, err := c.CoreV1().ServiceAccounts(namespace).CreateToken(c.Context(), account,
		&authenticationv1.TokenRequest{Spec: authenticationv1.TokenRequestSpec{ExpirationSeconds: &seconds}}, metav1.CreateOptions{})
	if err != nil {
		c.t.Fatal(err)
	}
	authority, err := os.ReadFile(filepath.Join(c.dir, "apiserver.crt"))
	if err != nil {
		c.t.Fatal(err)
	}
	if err := os.MkdirAll(dir, 0o700); err != nil {
		c.t.Fatal(err)
	}
	for name, text := range map[string]string{"token": token.Status.Token, "ca.crt": string(authority)} {
		file := filepath.Join(dir, name)
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			c.t.Fatal(err)
		}
		c.t.Cleanup(func() { _ = os.Remove(file) })
	}
	host, port, _ := strings.Cut(strings.TrimPrefix(c.url(), "https://"), ":")
	return []string{"KUBERNETES_SERVICE_HOST=" + host, "KUBERNETES_SERVICE_PORT=" + port}
}

// awaitEvent finds an event as `kubectl describe` does, by the object's name, namespace, kind and UID.
func (c *cluster) awaitEvent(object runtime.Object, reason, kind string, words ...string) {
	c.t.Helper()
	c.Await("an event "+reason, time.Minute, func(ctx context.Context) error {
		list, err := c.CoreV1().Events("").SearchWithContext(ctx, scheme.Scheme, object)
		if err != nil {
			return err
		}
		var have []string
		for _, e := range list.Items {
			said := fmt.Sprintf("%s of %s: %s", e.Reason, e.Source.Component, e.Message)
			have = append(have, said)
			if e.Reason != reason || e.Source.Component != driverName || slices.ContainsFunc(words, func(word string) bool { return !strings.Contains(e.Message, word) }) {
				continue // it may be another one with this reason
			}
			if e.Type != kind {
				return fmt.Errorf("it is a %s", e.Type)
			}
			c.t.Logf("on %s %s/%s, from %s: %s", e.InvolvedObject.Kind, e.InvolvedObject.Namespace, e.InvolvedObject.Name, e.Source.Host, said)
			return nil
		}
		return fmt.Errorf("its events are %q", have)
	})
}

// events: what happens below users is told to them, on their objects, by the rights that the manifests give.
func events(n *node) {
	c, t := n.c, n.c.t
	// What other flows have brought about is not to be taken for what this one does.
	if err := c.CoreV1().Events("default").DeleteCollection(c.Context(), metav1.DeleteOptions{}, metav1.ListOptions{}); err != nil {
		t.Fatal(err)
	}
	objects := repository.Example(t, "thick.yaml")
	class := kube.OfKind(objects, "VolumeSnapshotClass").DeepCopy()
	class.SetName("small-cow")
	_ = unstructured.SetNestedField(class.Object, "4Mi", "parameters", "cowSize")
	c.Apply(kube.OfKind(objects, "StorageClass"), class)
	source := n.claim([]*unstructured.Unstructured{ofSize(claims(objects)[0], "64Mi")})
	v := n.use(source)
	v.write("100 orders")
	snapshot := kube.OfKind(objects, "VolumeSnapshot")
	_ = unstructured.SetNestedField(snapshot.Object, "small-cow", "spec", "volumeSnapshotClassName")
	c.Apply(snapshot)
	snapshot = c.AwaitField(snapshot, "true", "status", "readyToUse")

	// More than it has room for, faster than it is looked at.
	labtest.Run(t, "dd", "if=/dev/urandom", "of="+filepath.Join(v.target, "more"), "bs=1M", "count=24", "conv=fsync", "status=none")
	c.awaitEvent(snapshot, "SnapshotInvalid", corev1.EventTypeWarning, n.vg.Name+"/csi-s-", "content is lost", "cowSize")

	// The driver dies, and so did an LVM command in the middle of its work.
	var device string
	for _, lv := range n.lvs() {
		if strings.HasPrefix(lv, "csi-v-") {
			device = n.vg.Device(lv)
		}
	}
	n.Kill()
	labtest.Run(t, "dmsetup", "suspend", "--noflush", "--nolockfs", device)
	n.Start()
	c.awaitEvent(source, "Recovered", corev1.EventTypeNormal, n.vg.Name+"/csi-v-", "suspended", "resumed")
	v.write("101 orders")
	v.reads("101 orders")

	// The pool, on the node: with the UID by which kubelet's events are found, too.
	labtest.Run(t, "lvcreate", "-y", "--thinpool", n.vg.ThinPool, "--virtualsize", "2g", "--name", "fill", n.vg.Name)
	labtest.Run(t, "dd", "if=/dev/zero", "of="+n.vg.Device("fill"), "bs=1M", "count=1980", "oflag=direct", "status=none")
	node := &corev1.ObjectReference{Kind: "Node", APIVersion: "v1", Name: n.name, UID: types.UID(n.name)}
	c.awaitEvent(node, "PoolDataLow", corev1.EventTypeWarning, n.vg.Name+"/"+n.vg.ThinPool, "%")
	labtest.Run(t, "lvremove", "-y", n.vg.Name+"/fill")
	c.awaitEvent(node, "PoolRecovered", corev1.EventTypeNormal, "PoolDataLow is over")

	v.leave()
	c.Remove(snapshot, source)
}
