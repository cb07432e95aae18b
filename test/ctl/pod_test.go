//go:build lab

package ctl_test

import (
	"bytes"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// In a container as the chart's, with a read-only root and without the host's modules, doctor has nothing to complain of, and a bundle
// is written where something can be written.
func TestLabContainer(t *testing.T) {
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: pool, PoolSize: "64m", MetadataSize: "16m"})
	binary, work := filepath.Join(filepath.Dir(driverproc.Binary(t)), "lvmsnapctl"), t.TempDir()
	// What dm-snapshot is for may not be loaded: the kernel has the host load it.
	_ = exec.Command("rmmod", "dm_snapshot").Run()
	t.Cleanup(func() { labtest.Run(t, "modprobe", "dm_snapshot") })
	cmd := exec.Command("unshare", "--mount", "--propagation", "private", "sh", "-ec", `
		if [ -d /usr/lib/modules ]; then mount -t tmpfs none /usr/lib/modules; fi
		mount --bind "$2" "$2"
		mount -o remount,ro,bind /
		cd /
		"$1" doctor --volume-group "$3"
		"$1" support-bundle --volume-group "$3" --work-dir "$2"`, "sh", binary, work, vg.Name)
	var complaints bytes.Buffer
	cmd.Stderr = &complaints
	out, err := cmd.Output()
	if err != nil || !strings.Contains(string(out), "All is well.") {
		t.Fatalf("%v: %s%s", err, out, complaints.String())
	}
	if files, err := filepath.Glob(filepath.Join(work, "lvmsnap-support-*.tar.gz")); err != nil || len(files) != 1 || !strings.HasSuffix(string(out), files[0]+"\n") {
		t.Errorf("%v, %v: %s", files, err, out)
	}
}
