//go:build lab

package e2e_test

import (
	"context"
	"fmt"
	"regexp"
	"strings"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	"k8s.io/apimachinery/pkg/apis/meta/v1/unstructured"

	"github.com/lvmsnap/lvmsnap/test/e2e/kube"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// claims of an example, in the order of the file.
func claims(objects []*unstructured.Unstructured) []*unstructured.Unstructured {
	var out []*unstructured.Unstructured
	for _, o := range objects {
		if o.GetKind() == "PersistentVolumeClaim" {
			out = append(out, o)
		}
	}
	return out
}

// ofSize changes what a claim asks for: copies of whole gigabytes take their time in the lab.
func ofSize(claim *unstructured.Unstructured, size string) *unstructured.Unstructured {
	_ = unstructured.SetNestedField(claim.Object, size, "spec", "resources", "requests", "storage")
	return claim
}

// snapshot makes the VolumeSnapshot of an example and waits until it is ready.
func (c *cluster) snapshot(objects []*unstructured.Unstructured) *unstructured.Unstructured {
	c.t.Helper()
	o := kube.OfKind(objects, "VolumeSnapshot")
	c.Apply(o)
	return c.AwaitField(o, "true", "status", "readyToUse")
}

func clone(n *node) {
	source := n.claim(repository.Example(n.c.t, "volume.yaml"))
	v := n.use(source)
	v.write("100 orders")
	copied := n.claim(repository.Example(n.c.t, "clone.yaml"))
	v.write("all gone")
	w := n.use(copied)
	w.reads("100 orders")
	w.write("101 orders")
	v.reads("all gone")
	v.leave()
	n.c.Remove(source)
	w.reads("101 orders")
	w.leave()
	n.c.Remove(copied)
}

func block(n *node) {
	objects := repository.Example(n.c.t, "block.yaml")
	source, restored := claims(objects)[0], claims(objects)[1]
	source = n.claim([]*unstructured.Unstructured{source})
	v := n.use(source)
	v.write("100 orders")
	snapshot := n.c.snapshot(objects)
	v.write("all gone!!")
	restored = n.claim([]*unstructured.Unstructured{restored})
	r := n.use(restored)
	r.reads("100 orders")
	v.reads("all gone!!")
	v.leave()
	r.leave()
	n.c.Remove(source, restored, snapshot)
}

// thick: a COW snapshot over two disks, whose restore is a copy beside the calls. The snapshot outlives its volume.
func thick(n *node) {
	objects := repository.Example(n.c.t, "thick.yaml")
	n.c.Apply(kube.OfKind(objects, "StorageClass"), kube.OfKind(objects, "VolumeSnapshotClass"))
	source := n.claim([]*unstructured.Unstructured{ofSize(claims(objects)[0], "64Mi")})
	v := n.use(source)
	v.write("100 orders")
	snapshot := n.c.snapshot(objects)
	v.write("all gone")
	restored := n.claim([]*unstructured.Unstructured{ofSize(claims(objects)[1], "64Mi")})
	r := n.use(restored)
	r.reads("100 orders")
	v.reads("all gone")
	if out := labtest.Run(n.c.t, "lvs", "--noheadings", "-o", "segtype,stripes", n.vg.Name); !strings.Contains(out, "striped 2") && !strings.Contains(strings.Join(strings.Fields(out), " "), "striped 2") {
		n.c.t.Errorf("nothing is striped over two disks: %s", out)
	}
	v.leave()
	r.leave()
	n.c.Remove(source, restored, snapshot)
}

// deletedInOrder deletes source (0), snapshot (1) and restore (2) in any order, and what is left keeps its data.
func deletedInOrder(n *node, order ...int) {
	source := n.claim(repository.Example(n.c.t, "volume.yaml"))
	v := n.use(source)
	v.write("100 orders")
	snapshot := n.c.snapshot(repository.Example(n.c.t, "snapshot.yaml"))
	restored := n.claim(repository.Example(n.c.t, "restore.yaml"))
	r := n.use(restored)
	left := 3
	for _, i := range order {
		switch i {
		case 0:
			v.leave()
			n.c.Remove(source)
			v = nil
		case 1:
			n.c.Remove(snapshot)
		case 2:
			r.leave()
			n.c.Remove(restored)
			r = nil
		}
		left--
		n.c.Await(fmt.Sprintf("%d logical volumes to be left", left), time.Minute, func(context.Context) error {
			if have := n.lvs(); len(have) != left {
				return fmt.Errorf("LVM has %v", have)
			}
			return nil
		})
		for _, u := range []*volume{v, r} {
			if u != nil {
				u.reads("100 orders")
			}
		}
	}
}

// contentMadeAnew is what Velero does: the snapshot's objects are deleted with Retain, and a content that carries
// only the handle, with the label of its node, leads to the same snapshot.
func contentMadeAnew(n *node) {
	c := n.c
	source := n.claim(repository.Example(c.t, "volume.yaml"))
	v := n.use(source)
	v.write("100 orders")
	snapshot := c.snapshot(repository.Example(c.t, "snapshot.yaml"))
	v.leave()
	if node := c.content(snapshot).GetLabels()[managedBy]; node != n.name {
		c.t.Errorf("the content is managed by %q", node)
	}
	handle := c.forget(snapshot)
	n.awaitLVs(1, 1)

	objects := preprovisioned(c, handle, n.name)
	c.Apply(objects...)
	found := c.snapshot(objects)
	if size, was := kube.Field(found, "status", "restoreSize"), kube.Field(snapshot, "status", "restoreSize"); size != was {
		c.t.Errorf("restoreSize is %s and was %s", size, was)
	}
	if at, was := kube.Field(found, "status", "creationTime"), kube.Field(snapshot, "status", "creationTime"); at != was {
		c.t.Errorf("creationTime is %s and was %s", at, was)
	}
	restored := kube.OfKind(repository.Example(c.t, "restore.yaml"), "PersistentVolumeClaim")
	_ = unstructured.SetNestedField(restored.Object, found.GetName(), "spec", "dataSource", "name")
	restored = n.claim([]*unstructured.Unstructured{restored})
	r := n.use(restored)
	r.reads("100 orders")
	r.leave()
	c.Remove(restored, source, found)
}

// managedBy is the label of the node that takes care of a content.
const managedBy = "snapshot.storage.kubernetes.io/managed-by"

// forget removes a VolumeSnapshot and its content with Retain, and returns the handle of what stays.
func (c *cluster) forget(snapshot *unstructured.Unstructured) string {
	c.t.Helper()
	content := c.content(snapshot)
	c.Patch(content, `{"spec":{"deletionPolicy":"Retain"}}`)
	c.Remove(snapshot)
	c.Remove(content)
	return kube.Field(content, "status", "snapshotHandle")
}

// preprovisioned is the example with a handle and a node, and with the policy Delete.
func preprovisioned(c *cluster, handle, node string) []*unstructured.Unstructured {
	c.t.Helper()
	objects := repository.Example(c.t, "preprovisioned.yaml")
	content := kube.OfKind(objects, "VolumeSnapshotContent")
	_ = unstructured.SetNestedField(content.Object, handle, "spec", "source", "snapshotHandle")
	_ = unstructured.SetNestedField(content.Object, "Delete", "spec", "deletionPolicy")
	content.SetLabels(map[string]string{managedBy: node})
	return objects
}

// content of a VolumeSnapshot, as it is now.
func (c *cluster) content(snapshot *unstructured.Unstructured) *unstructured.Unstructured {
	c.t.Helper()
	return c.Must(kube.Object("snapshot.storage.k8s.io/v1", "VolumeSnapshotContent", kube.Field(snapshot, "status", "boundVolumeSnapshotContentName")))
}

// fullPool: what the driver says stands in the VolumeSnapshot, which becomes ready by itself when there is room again.
func fullPool(n *node) {
	c := n.c
	source := n.claim(repository.Example(c.t, "volume.yaml"))
	labtest.Run(c.t, "lvcreate", "-y", "--thinpool", n.vg.ThinPool, "--virtualsize", "2g", "--name", "fill", n.vg.Name)
	labtest.Run(c.t, "dd", "if=/dev/zero", "of="+n.vg.Device("fill"), "bs=1M", "count=1980", "oflag=direct", "status=none")
	snapshot := kube.OfKind(repository.Example(c.t, "snapshot.yaml"), "VolumeSnapshot")
	c.Apply(snapshot)
	c.Await("the reason to stand in the VolumeSnapshot", time.Minute, func(ctx context.Context) error {
		got, err := c.Get(ctx, snapshot)
		if err != nil {
			return err
		}
		message := kube.Field(got, "status", "error", "message")
		for _, words := range []string{"ResourceExhausted", n.vg.Name + "/" + n.vg.ThinPool, "%"} {
			if !strings.Contains(message, words) {
				return fmt.Errorf("%q is not in the message %q", words, message)
			}
		}
		c.t.Log(message)
		return nil
	})
	n.awaitLVsFor(time.Minute, 1, 0, "fill")
	labtest.Run(c.t, "lvremove", "-y", n.vg.Name+"/fill")
	snapshot = c.AwaitField(snapshot, "true", "status", "readyToUse")
	if message := kube.Field(snapshot, "status", "error"); message != "" {
		c.t.Errorf("the snapshot is ready, and its error is still there: %s", message)
	}
	c.Remove(snapshot, source)
}

var createSnapshot = regexp.MustCompile(`"Request" requestID=\d+ method="CreateSnapshot"`)

// snapshotCalls is how many calls of CreateSnapshot the driver has begun.
func (n *node) snapshotCalls() int { return len(createSnapshot.FindAllString(n.Log(), -1)) }

// driverKilled kills the driver as often as it takes for snapshots to be at work, and there is one LV for each in the end.
func driverKilled(n *node) {
	c := n.c
	source := n.claim(repository.Example(c.t, "volume.yaml"))
	v := n.use(source)
	v.write("100 orders")
	const rounds = 3
	var all []*unstructured.Unstructured
	for i := range rounds {
		o := kube.OfKind(repository.Example(c.t, "snapshot.yaml"), "VolumeSnapshot")
		o.SetName(fmt.Sprintf("killed-%d", i))
		done := n.snapshotCalls()
		c.Apply(o)
		c.Await("CreateSnapshot to be called", 30*time.Second, func(context.Context) error {
			if len(n.lvs()) > 1+i || n.snapshotCalls() > done {
				return nil
			}
			return fmt.Errorf("not yet")
		})
		n.Kill()
		n.Start()
		all = append(all, o)
	}
	for _, o := range all {
		c.AwaitField(o, "true", "status", "readyToUse")
	}
	n.awaitLVs(1, rounds)
	v.reads("100 orders")
	v.leave()
	c.Remove(append(all, source)...)
}

// hundredSnapshots at once.
func hundredSnapshots(n *node) {
	c := n.c
	source := n.claim(repository.Example(c.t, "volume.yaml"))
	const number, patience = 100, 8 * time.Minute
	var all []*unstructured.Unstructured
	for i := range number {
		o := kube.OfKind(repository.Example(c.t, "snapshot.yaml"), "VolumeSnapshot")
		o.SetName(fmt.Sprintf("s-%d", i))
		all = append(all, o)
	}
	r, err := c.Resource(all[0])
	if err != nil {
		c.t.Fatal(err)
	}
	calls := n.snapshotCalls()
	begin := time.Now()
	c.atOnce(all, func(o *unstructured.Unstructured) error {
		_, err := r.Create(c.Context(), o, metav1.CreateOptions{})
		return err
	})
	applied := time.Since(begin)
	c.Await("all of them to be ready", patience, func(ctx context.Context) error {
		list, err := r.List(ctx, metav1.ListOptions{})
		if err != nil {
			return err
		}
		ready := 0
		for i := range list.Items {
			if kube.Field(&list.Items[i], "status", "readyToUse") == "true" {
				ready++
			}
		}
		if ready < number {
			return fmt.Errorf("%d are", ready)
		}
		return nil
	})
	c.t.Logf("%d VolumeSnapshots: applied in %.1f s, the last one ready after %.1f s, with %d calls of CreateSnapshot",
		number, applied.Seconds(), time.Since(begin).Seconds(), n.snapshotCalls()-calls)
	n.awaitLVs(1, number)
	begin = time.Now()
	c.atOnce(all, func(o *unstructured.Unstructured) error {
		return r.Delete(c.Context(), o.GetName(), metav1.DeleteOptions{})
	})
	n.awaitLVsFor(patience, 1, 0)
	c.t.Logf("%d VolumeSnapshots deleted, the last one from LVM after %.1f s", number, time.Since(begin).Seconds())
	c.Remove(source)
}

// atOnce does something to many objects at the same time.
func (c *cluster) atOnce(objects []*unstructured.Unstructured, do func(*unstructured.Unstructured) error) {
	c.t.Helper()
	failures := make(chan error, len(objects))
	for _, o := range objects {
		go func() { failures <- do(o) }()
	}
	for range objects {
		if err := <-failures; err != nil {
			c.t.Errorf("one of %d at once: %v", len(objects), err)
		}
	}
}

// wrongNode: a restore that the scheduler sends to a node without the data is refused there, goes back to the scheduler,
// and is made where the snapshot is.
func wrongNode(n, other *node) {
	c := n.c
	source := n.claim(repository.Example(c.t, "volume.yaml"))
	v := n.use(source)
	v.write("100 orders")
	v.leave()
	snapshot := c.snapshot(repository.Example(c.t, "snapshot.yaml"))
	restored := kube.OfKind(repository.Example(c.t, "restore.yaml"), "PersistentVolumeClaim")
	other.want(restored)
	const selected = "volume.kubernetes.io/selected-node"
	c.Await("the claim to go back to the scheduler", time.Minute, func(ctx context.Context) error {
		got, err := c.Get(ctx, restored)
		if err != nil {
			return err
		}
		if node := got.GetAnnotations()[selected]; node != "" {
			return fmt.Errorf("it is for %s", node)
		}
		return nil
	})
	c.Await("its event to name the node that has the data", time.Minute, func(ctx context.Context) error {
		events, err := c.CoreV1().Events("default").List(ctx, metav1.ListOptions{FieldSelector: "involvedObject.name=" + restored.GetName()})
		if err != nil {
			return err
		}
		var messages []string
		for _, e := range events.Items {
			messages = append(messages, e.Message)
			if strings.Contains(e.Message, "ResourceExhausted") {
				c.t.Log(e.Message)
				return nil
			}
		}
		return fmt.Errorf("its events are %q", messages)
	})
	c.Patch(restored, `{"metadata":{"annotations":{"`+selected+`":"`+n.name+`"}}}`)
	restored = c.AwaitField(restored, "Bound", "status", "phase")
	r := n.use(restored)
	r.reads("100 orders")
	r.leave()
	if have := other.lvs(); len(have) > 0 {
		c.t.Errorf("the wrong node has %v", have)
	}
	c.Remove(source, snapshot, restored)
	n.awaitLVs(0, 0)
}
