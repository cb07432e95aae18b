//go:build lab

package integration_test

import (
	"fmt"
	"os"
	"path/filepath"
	"testing"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// With --host-namespace a driver in a container, whose mount namespace has no LVM, uses the host's.
func TestHostNamespace(t *testing.T) {
	dir := t.TempDir()
	container := filepath.Join(dir, "container")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount sh -c 'mount --bind /dev/null /usr/sbin/lvm && exec \"$0\" \"$@\"' %s \"$@\"\n",
		driverproc.Binary(t))
	if err := os.WriteFile(container, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LVMSNAP_BIN", container)
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})

	without := driverproc.New(t, driverproc.Options{Groups: []string{vg.Name}})
	if code, output := driverproc.Run(t, nil, without.Args()...); code == 0 {
		t.Fatalf("the driver runs without LVM: %s", output)
	}
	driver := driverproc.Start(t, driverproc.Options{Groups: []string{vg.Name}, Flags: []string{"--host-namespace"}})
	c := &co{Clients: driver.Clients, t: t, vg: vg, driver: driver, dir: dir}
	v := c.volume("v", block)
	c.snapshot("s", v)
}

// What mount(8) mounts in the host's mount namespace is seen in the container's, as by its bidirectional propagation.
func TestHostNamespaceMounts(t *testing.T) {
	dir := t.TempDir()
	labtest.Run(t, "mount", "-t", "tmpfs", "none", dir)
	t.Cleanup(func() { labtest.Run(t, "umount", dir) })
	labtest.Run(t, "mount", "--make-shared", dir)
	container := filepath.Join(dir, "container")
	script := fmt.Sprintf("#!/bin/sh\nexec unshare --mount --propagation unchanged %s \"$@\"\n", driverproc.Binary(t))
	if err := os.WriteFile(container, []byte(script), 0o700); err != nil {
		t.Fatal(err)
	}
	t.Setenv("LVMSNAP_BIN", container)
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: "pool"})
	driver := driverproc.Start(t, driverproc.Options{Groups: []string{vg.Name}, Flags: []string{"--host-namespace", "--kubelet-dir", dir}})
	c := &co{Clients: driver.Clients, t: t, vg: vg, driver: driver, dir: dir}
	u := c.use(c.volume("v", ext4), ext4)
	u.write("v1")
	u.holds("v1")
	u.release()
	if left := labtest.Run(t, "sh", "-c", "grep "+dir+"/ /proc/self/mountinfo || true"); left != "" {
		t.Errorf("still mounted: %s", left)
	}
}
