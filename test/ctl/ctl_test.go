//go:build lab

// Package ctl_test has the tests of lvmsnapctl, the real binary, beside the real driver on real LVM.
package ctl_test

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"github.com/container-storage-interface/spec/lib/go/csi"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

const (
	mib  = int64(1) << 20
	pool = "pool"
)

func lvOf(id string) string { return filepath.Base(id) }

// machine is the real binary beside the real driver on real LVM.
type machine struct {
	t      *testing.T
	vg     *labtest.Group
	driver *driverproc.Driver
	dir    string
}

func newMachine(t *testing.T, flags ...string) *machine {
	t.Helper()
	vg := labtest.VolumeGroup(t, labtest.Options{ThinPool: pool, PoolSize: "512m", ChunkSize: "64k", MetadataSize: "16m"})
	return &machine{t, vg, driverproc.Start(t, driverproc.Options{Groups: []string{vg.Name}, Flags: flags}), t.TempDir()}
}

func (r *machine) ok(err error) {
	r.t.Helper()
	if err != nil {
		r.t.Fatal(err)
	}
}

// ctl runs bin/lvmsnapctl, beside the driver's binary.
func (r *machine) ctl(path string, args ...string) (stdout, stderr string, code int) {
	r.t.Helper()
	binary := filepath.Join(filepath.Dir(driverproc.Binary(r.t)), "lvmsnapctl")
	cmd := exec.Command(binary, append(args, "--node-id", driverproc.NodeID)...)
	cmd.Env = append(os.Environ(), "PATH="+path+os.Getenv("PATH"), "LVMSNAP_TEST_SECRET=hunter2")
	var out, text bytes.Buffer
	cmd.Stdout, cmd.Stderr = &out, &text
	err := cmd.Run()
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		r.t.Fatalf("lvmsnapctl %v: %v (make build)", args, err)
	}
	return out.String(), text.String(), cmd.ProcessState.ExitCode()
}

// items reads the JSON of a list.
func items[T any](r *machine, args ...string) []T {
	r.t.Helper()
	out, text, code := r.ctl("", append(args, "-o", "json")...)
	var list struct{ Items []T }
	if err := json.Unmarshal([]byte(out), &list); code != 0 || err != nil {
		r.t.Fatalf("lvmsnapctl %v: exit code %d, %v: %s%s", args, code, err, out, text)
	}
	return list.Items
}

// volume makes pvc-a.
func (r *machine) volume() *csi.Volume {
	r.t.Helper()
	res, err := r.driver.Controller.CreateVolume(r.t.Context(), volumeRequest("pvc-a"))
	r.ok(err)
	return res.GetVolume()
}

func volumeRequest(name string) *csi.CreateVolumeRequest {
	return &csi.CreateVolumeRequest{
		Name: name, CapacityRange: &csi.CapacityRange{RequiredBytes: 64 * mib},
		VolumeCapabilities: []*csi.VolumeCapability{{
			AccessType: &csi.VolumeCapability_Block{Block: &csi.VolumeCapability_BlockVolume{}},
			AccessMode: &csi.VolumeCapability_AccessMode{Mode: csi.VolumeCapability_AccessMode_SINGLE_NODE_WRITER},
		}},
		Parameters: map[string]string{
			"csi.storage.k8s.io/pvc/name": name + "-claim", "csi.storage.k8s.io/pvc/namespace": "shop", "csi.storage.k8s.io/pv/name": name,
		},
	}
}

func (r *machine) snapshot(name string, v *csi.Volume) *csi.Snapshot {
	r.t.Helper()
	res, err := r.driver.Controller.CreateSnapshot(r.t.Context(), &csi.CreateSnapshotRequest{Name: name, SourceVolumeId: v.GetVolumeId()})
	r.ok(err)
	return res.GetSnapshot()
}

// write writes so many bytes at the begin of a volume, of which none are zero.
func (r *machine) write(v *csi.Volume, bytesOf byte, n int64) {
	r.t.Helper()
	labtest.Run(r.t, "lvchange", "--activate", "y", "--ignoreactivationskip", r.vg.Name+"/"+lvOf(v.GetVolumeId()))
	f, err := os.OpenFile(r.vg.Device(lvOf(v.GetVolumeId())), os.O_WRONLY, 0)
	r.ok(err)
	defer f.Close()
	_, err = f.WriteAt(bytes.Repeat([]byte{bytesOf}, int(n)), 0)
	r.ok(err)
	r.ok(f.Sync())
}

func (r *machine) heldRoot() uint64 {
	r.t.Helper()
	kernel := &dm.Control{}
	defer kernel.Close()
	root, err := kernel.MetadataSnapshot(r.t.Context(), r.vg.Name, r.vg.ThinPool)
	r.ok(err)
	return root
}

// What a snapshot alone holds grows by exactly what is overwritten in its volume. The pool's metadata snapshot is given back,
// and one that a killed lvmsnapctl left, by the next.
func TestLabSpace(t *testing.T) {
	r := newMachine(t)
	v := r.volume()
	r.write(v, 1, 8*mib)
	s := r.snapshot("snapshot-a", v)
	space := func() (volume, snapshot ctl.Space) {
		t.Helper()
		volumes, snapshots := items[ctl.Volume](r, "get", "volumes", "--space"), items[ctl.Snapshot](r, "get", "snapshots", "--space")
		if len(volumes) != 1 || len(snapshots) != 1 || volumes[0].Space == nil || snapshots[0].Space == nil || snapshots[0].Handle != s.GetSnapshotId() {
			t.Fatalf("%+v %+v", volumes, snapshots)
		}
		if volumes[0].Claim != "shop/pvc-a-claim" || snapshots[0].SourceClaim != "shop/pvc-a-claim" {
			t.Errorf("claims %q, %q", volumes[0].Claim, snapshots[0].SourceClaim)
		}
		if root := r.heldRoot(); root != 0 {
			t.Errorf("a metadata snapshot is left: %d", root)
		}
		return *volumes[0].Space, *snapshots[0].Space
	}
	all := ctl.Space{MappedBytes: 8 * mib, SharedBytes: 8 * mib}
	if volume, snapshot := space(); volume != all || snapshot != all {
		t.Errorf("after the cut: %+v, %+v", volume, snapshot)
	}
	r.write(v, 2, 3*mib)
	part := ctl.Space{MappedBytes: 8 * mib, ExclusiveBytes: 3 * mib, SharedBytes: 5 * mib}
	if volume, snapshot := space(); volume != part || snapshot != part {
		t.Errorf("after 3 MiB were overwritten: %+v, %+v", volume, snapshot)
	}

	killer := filepath.Join(r.dir, "thin_ls")
	r.ok(os.WriteFile(killer, []byte("#!/bin/sh\nkill -9 $PPID\n"), 0o700))
	if _, _, code := r.ctl(r.dir+":", "get", "volumes", "--space"); code != 128+9 || r.heldRoot() == 0 {
		t.Fatalf("exit code %d, root %d: it was not killed in the middle", code, r.heldRoot())
	}
	if volume, _ := space(); volume != part {
		t.Errorf("after a kill: %+v", volume)
	}
	labtest.Run(t, "dmsetup", "message", r.vg.Name+"-"+pool+"-tpool", "0", "reserve_metadata_snap")
	if _, text, code := r.ctl("", "get", "volumes", "--space"); code != ctl.ExitFailed || !strings.Contains(text, "release_metadata_snap") || r.heldRoot() == 0 {
		t.Errorf("somebody else's: exit code %d, %s", code, text)
	}
	labtest.Run(t, "dmsetup", "message", r.vg.Name+"-"+pool+"-tpool", "0", "release_metadata_snap")
}

// report is doctor's in JSON.
type report struct {
	Groups          []struct{ DriverRuns bool } `json:"volumeGroups"`
	Findings, Fixed []storage.Finding
	Failed          []string
}

func reasons(findings []storage.Finding) []string {
	out := []string{}
	for _, f := range findings {
		out = append(out, f.Reason)
	}
	slices.Sort(out)
	return out
}

// doctor is what it says of anything but the lab's machine, of which it has to say what is expected.
func (r *machine) doctor(args ...string) report {
	r.t.Helper()
	got := r.diagnosis(args...)
	if len(got.Failed) > 0 {
		r.t.Errorf("doctor %v: %v", args, got.Failed)
	}
	return got
}

// diagnosis is doctor's, who may have failed at something.
func (r *machine) diagnosis(args ...string) report {
	r.t.Helper()
	got := r.report(args...)
	if host := slices.DeleteFunc(slices.Clone(got.Findings), func(f storage.Finding) bool { return !aboutTheHost(f) }); !slices.Equal(reasons(host), labFindings) {
		r.t.Errorf("of the host: %+v, want %v", host, labFindings)
	}
	got.Findings = slices.DeleteFunc(got.Findings, aboutTheHost)
	return got
}

func (r *machine) report(args ...string) report {
	r.t.Helper()
	out, text, code := r.ctl("", append([]string{"doctor", "-o", "json", "--settle", "300ms", "--volume-group", r.vg.Name, "--work-dir", filepath.Join(r.dir, "work")}, args...)...)
	var got report
	if err := json.Unmarshal([]byte(out), &got); err != nil || code != ctl.ExitOK && code != ctl.ExitFindings {
		r.t.Fatalf("doctor %v: exit code %d, %v: %s%s", args, code, err, out, text)
	}
	return got
}

// A device that hangs is named, with a driver at work and without, and is put right; so is a pool that LVM died in.
func TestLabDoctor(t *testing.T) {
	r := newMachine(t)
	v := r.volume()
	r.write(v, 1, mib)
	lv := lvOf(v.GetVolumeId())
	device := dm.DeviceName(r.vg.Name, lv)
	if got := r.doctor(); len(got.Findings) > 0 || !got.Groups[0].DriverRuns {
		t.Fatalf("all is well, and doctor says %+v", got)
	}
	for _, driver := range []bool{true, false} {
		if !driver {
			r.driver.Stop()
		}
		labtest.Run(t, "dmsetup", "suspend", device)
		got := r.doctor()
		if !slices.Equal(reasons(got.Findings), []string{"DeviceSuspended"}) || got.Findings[0].Object != r.vg.Name+"/"+lv || got.Groups[0].DriverRuns != driver {
			t.Errorf("suspended, a driver at work %t: %+v", driver, got)
		}
		if got := r.doctor("--fix"); len(got.Findings) > 0 || !slices.Equal(reasons(got.Fixed), []string{"DeviceSuspended"}) {
			t.Errorf("fixed, a driver at work %t: %+v", driver, got)
		}
		r.write(v, 2, mib) // it would hang
	}
	r.jam(v)
	if got := r.doctor(); !slices.Equal(reasons(got.Findings), []string{"PoolJammed"}) {
		t.Errorf("jammed: %+v", got)
	}
	if got := r.doctor("--fix"); len(got.Findings) > 0 || !slices.Equal(reasons(got.Fixed), []string{"PoolJammed"}) {
		t.Errorf("no longer jammed: %+v", got)
	}
	r.driver.Start()
	r.snapshot("after", v)
	if entries, err := os.ReadDir(filepath.Join(r.dir, "work")); err != nil || len(entries) > 0 {
		t.Errorf("left in the work directory: %v, %v", entries, err)
	}
}

// jam takes back what the pool has counted of the last volume, as a killed lvcreate leaves it.
func (r *machine) jam(v *csi.Volume) {
	r.t.Helper()
	labtest.Run(r.t, "lvchange", "--activate", "n", r.vg.Name+"/"+lvOf(v.GetVolumeId()))
	kernel := &dm.Control{}
	defer kernel.Close()
	st, err := kernel.PoolStatus(r.t.Context(), r.vg.Name, r.vg.ThinPool)
	r.ok(err)
	r.ok(kernel.SetTransactionID(r.t.Context(), r.vg.Name, r.vg.ThinPool, st.TransactionID, st.TransactionID-1))
}

// With the driver down, and while somebody's command has LVM's lock, everything is shown as it is otherwise, found without a
// --volume-group; nothing of it makes LVM write.
func TestLabReadsWithoutLocks(t *testing.T) {
	r := newMachine(t)
	v := r.volume()
	r.write(v, 1, mib)
	r.snapshot("snapshot-a", v)
	sequence := func() string { return labtest.Run(t, "vgs", "--noheadings", "-o", "vg_seqno", r.vg.Name) }
	before := sequence()
	show := func() (all []string) {
		t.Helper()
		for _, args := range [][]string{
			{"get", "volumes", "-o", "json"}, {"get", "snapshots", "-o", "yaml"}, {"get", "pools", "-o", "json"}, {"describe", "shop/pvc-a-claim", "-o", "yaml"},
		} {
			out, text, code := r.ctl("", args...)
			if code != 0 || !strings.Contains(out, r.vg.Name) {
				t.Errorf("lvmsnapctl %v: exit code %d: %s%s", args, code, out, text)
			}
			all = append(all, out)
		}
		return all
	}
	want := show()
	r.driver.Stop()
	dir := strings.Trim(strings.SplitN(strings.TrimSpace(labtest.Run(t, "lvmconfig", "--typeconfig", "full", "global/locking_dir")), "=", 2)[1], `"`)
	release, err := lvm.FileLocks{Dir: dir}.Acquire(t.Context(), r.vg.Name)
	r.ok(err)
	got := show()
	locked := r.doctor()
	release()
	for _, f := range locked.Findings { // of this test itself, if that does not move
		if holder := fmt.Sprintf("ctl.test (process %d", os.Getpid()); f.Reason != "LVMCommandStuck" || !strings.Contains(f.Message, holder) {
			t.Errorf("locked by %s, and doctor says %+v", holder, f)
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("without a driver, and locked:\n%s\nwith one:\n%s", got, want)
	}
	if after := sequence(); after != before {
		t.Errorf("the group's metadata changed from %s to %s", before, after)
	}
	tree, _, code := r.ctl("", "tree")
	if code != 0 || !strings.Contains(tree, "volume shop/pvc-a-claim") || !strings.Contains(tree, "snapshot snapshot-a") {
		t.Errorf("tree: %d\n%s", code, tree)
	}
	t.Logf("\n%s", tree)
	r.bundle()
}

// bundle makes a support bundle of the real thing.
func (r *machine) bundle() {
	r.t.Helper()
	out, text, code := r.ctl("", "support-bundle", "--file", "-")
	if code != 0 {
		r.t.Fatalf("support-bundle: exit code %d: %s", code, text)
	}
	files := r.unpack(out)
	for name, want := range map[string]string{
		"inventory.json": "shop/pvc-a-claim", "lvs.txt": pool, "vgs.txt": r.vg.Name, "dmsetup-status.txt": "thin-pool", "dmsetup-info.txt": r.vg.Name,
		"lvm-version.txt": "LVM version", "version.txt": "Linux",
	} {
		if text := files["lvmsnap-support/"+name]; !strings.Contains(text, want) {
			r.t.Errorf("%s has no %s: %s", name, want, text)
		}
	}
	for name, text := range files {
		if strings.Contains(text, "hunter2") {
			r.t.Errorf("%s has the environment: %s", name, text)
		}
	}
}

func (r *machine) unpack(bundle string) map[string]string {
	r.t.Helper()
	zip, err := gzip.NewReader(strings.NewReader(bundle))
	r.ok(err)
	out := map[string]string{}
	for files := tar.NewReader(zip); ; {
		h, err := files.Next()
		if errors.Is(err, io.EOF) {
			return out
		}
		r.ok(err)
		text, err := io.ReadAll(files)
		r.ok(err)
		out[h.Name] = string(text)
	}
}
