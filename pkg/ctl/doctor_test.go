package ctl_test

import (
	"encoding/json"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/google/go-cmp/cmp"

	"github.com/lvmsnap/lvmsnap/pkg/ctl"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// report is doctor's in JSON.
type report struct {
	Groups []struct {
		Name       string
		DriverRuns bool
	} `json:"volumeGroups"`
	Findings, Fixed []storage.Finding
	Failed          []string
}

func (n *fakeNode) doctor(args ...string) (report, int) {
	n.t.Helper()
	code := n.ctl(append([]string{"doctor", "-o", "json", "--settle", "1ms"}, args...)...)
	var out report
	if err := json.Unmarshal(n.out.Bytes(), &out); err != nil {
		n.t.Fatalf("exit code %d, %v: %s %s", code, err, n.out.String(), n.err.String())
	}
	return out, code
}

func (n *fakeNode) fix() (report, int) {
	n.t.Helper()
	return n.doctor("--fix", "--volume-group", group)
}

func reasons(findings []storage.Finding) []string {
	out := []string{}
	for _, f := range findings {
		out = append(out, f.Reason)
	}
	slices.Sort(out)
	return out
}

// unhealthy are states that doctor knows. Fixable ones are gone after --fix, and the others are still there.
var unhealthy = map[string]struct {
	make    func(n *fakeNode, v storage.Volume)
	want    []string
	words   string
	fixable bool
}{
	"suspended": {
		make: func(n *fakeNode, v storage.Volume) {
			_, err := n.engine.Activate(n.t.Context(), v.ID)
			n.ok(err)
			n.SetSuspended(group, lvOf(v.ID), true)
		},
		want: []string{"DeviceSuspended"}, words: "its I/O hangs", fixable: true,
	},
	"phantom": {
		make: func(n *fakeNode, v storage.Volume) {
			n.FailNext(lvmtest.Verb("lvremove"), "no recovery by this driver", 5)
			n.PhantomNext(snapshotCreation)
			n.dies(v)
		},
		want: []string{"Phantom"}, words: "was never made", fixable: true,
	},
	"jam": {
		make: func(n *fakeNode, _ storage.Volume) {
			n.AddForeignLV(group, lvmtest.ForeignLV{Name: "theirs", SizeBytes: 8 * mib, Pool: pool})
			n.JamNext(lvmtest.Any)
			_, err := n.Run(n.t.Context(), "lvcreate", "--snapshot", "--name", "jammed", group+"/theirs")
			if err == nil {
				n.t.Fatal("it was not interrupted")
			}
		},
		want: []string{"PoolJammed"}, words: "not counted it", fixable: true,
	},
	"foreign phantom": {
		make: func(n *fakeNode, _ storage.Volume) {
			n.AddForeignLV(group, lvmtest.ForeignLV{Name: "theirs", SizeBytes: 8 * mib, Pool: pool})
			n.PhantomNext(lvmtest.Any)
			if _, err := n.Run(n.t.Context(), "lvcreate", "--snapshot", "--name", "phantom", group+"/theirs"); err == nil {
				n.t.Fatal("it was not interrupted")
			}
		},
		want: []string{"ForeignPhantom"}, words: "lvremove data/phantom",
	},
	"half-made COW snapshot": {
		make: func(n *fakeNode, _ storage.Volume) {
			v := n.volume(storage.VolumeSpec{Name: "thick", RequiredBytes: 8 * mib, Access: storage.AccessBlock, Class: storage.Class{Type: storage.TypeThick}})
			n.FailNext(lvmtest.Verb("lvremove"), "no recovery by this driver", 5)
			n.FailNext(lvmtest.Verb("lvremove"), "no recovery by this driver", 5)
			n.PhantomNext(snapshotCreation)
			n.dies(v)
		},
		want: []string{"SnapshotHalfMade"}, words: "is no snapshot", fixable: true,
	},
	"inactive pool": {
		make: func(n *fakeNode, _ storage.Volume) { n.SetPoolActive(group, pool, false) },
		want: []string{"PoolInactive"}, words: "lvchange --activate y", fixable: true,
	},
	"failed pool": {
		make: func(n *fakeNode, _ storage.Volume) { n.SetPoolMode(group, pool, "Fail", false) },
		want: []string{"PoolFailed"}, words: "lvconvert --repair",
	},
	"pool that needs a check": {
		make: func(n *fakeNode, _ storage.Volume) { n.SetPoolMode(group, pool, "ro", true) },
		want: []string{"PoolNeedsCheck", "PoolReadOnly"}, words: "lvconvert --repair",
	},
	"pool without data space": {
		make: func(n *fakeNode, _ storage.Volume) { n.SetPoolUsage(group, pool, 40*gib, 10) },
		want: []string{"PoolDataLow", "PoolOutOfDataSpace"}, words: "lvextend --size +SIZE",
	},
	"pool without metadata": {
		make: func(n *fakeNode, _ storage.Volume) { n.SetPoolUsage(group, pool, gib, 100) },
		want: []string{"PoolMetadataLow", "PoolReadOnly"}, words: "--poolmetadatasize",
	},
	"lost COW snapshot": {
		make: func(n *fakeNode, _ storage.Volume) {
			v := n.volume(storage.VolumeSpec{Name: "thick", RequiredBytes: gib, Access: storage.AccessBlock, Class: storage.Class{Type: storage.TypeThick}})
			s := n.snapshot(storage.SnapshotSpec{Name: "s", SourceID: v.ID, COW: storage.COWSize{Percent: 10}})
			_, err := n.engine.Activate(n.t.Context(), v.ID)
			n.ok(err)
			n.SetCOWUsage(group, lvOf(s.ID), gib)
		},
		want: []string{"SnapshotInvalid"}, words: "delete its VolumeSnapshot",
	},
	"COW that is nearly full": {
		make: func(n *fakeNode, _ storage.Volume) {
			v := n.volume(storage.VolumeSpec{Name: "thick", RequiredBytes: gib, Access: storage.AccessBlock, Class: storage.Class{Type: storage.TypeThick}})
			s := n.snapshot(storage.SnapshotSpec{Name: "s", SourceID: v.ID, COW: storage.COWSize{Percent: 10}})
			_, err := n.engine.Activate(n.t.Context(), v.ID)
			n.ok(err)
			n.SetCOWUsage(group, lvOf(s.ID), 100*mib)
		},
		want: []string{"COWNearlyFull"}, words: "cow-autoextend-threshold",
	},
	"degraded RAID": {
		make: func(n *fakeNode, _ storage.Volume) {
			v := n.volume(storage.VolumeSpec{
				Name: "raid", RequiredBytes: gib, Access: storage.AccessBlock,
				Class: storage.Class{Type: storage.TypeThick, Layout: storage.Layout{RAIDType: "raid1", Mirrors: 1}},
			})
			_, err := n.engine.Activate(n.t.Context(), v.ID)
			n.ok(err)
			n.FailImages(group, lvOf(v.ID), 1)
		},
		want: []string{"RAIDDegraded"}, words: "lvconvert --repair",
	},
	"split-off snapshot": {
		make: func(n *fakeNode, _ storage.Volume) {
			v := n.volume(storage.VolumeSpec{Name: "thick", RequiredBytes: gib, Access: storage.AccessBlock, Class: storage.Class{Type: storage.TypeThick}})
			s := n.snapshot(storage.SnapshotSpec{Name: "s", SourceID: v.ID})
			n.SplitOff(group, lvOf(s.ID))
		},
		want: []string{"SnapshotSplitOff"}, words: "no volume's data",
	},
	"missing disk": {
		make: func(n *fakeNode, _ storage.Volume) { n.SetMissingPVs(group, 1) },
		want: []string{"GroupDiskMissing"}, words: "vgextend --restoremissing data",
	},
	"somebody else's suspended device": {
		make: func(n *fakeNode, _ storage.Volume) {
			n.AddForeignLV(group, lvmtest.ForeignLV{Name: "theirs", SizeBytes: 8 * mib, Pool: pool, Active: true})
			n.SetSuspended(group, "theirs", true)
		},
		want: []string{"ForeignDeviceSuspended"}, words: "dmsetup resume",
	},
	"somebody else's metadata snapshot": {
		make: func(n *fakeNode, _ storage.Volume) { n.kernel.root = 99 },
		want: []string{"MetadataSnapshotHeld"}, words: "release_metadata_snap",
	},
	"missing module": {
		make: func(n *fakeNode, _ storage.Volume) {
			n.kernel.targets = []string{"linear"}
			n.modules("kernel/drivers/md/dm-mod.ko: ")
		},
		want: []string{"ModuleMissing", "ModuleMissing", "ModuleMissing"}, words: "modprobe dm_thin_pool",
	},
	"missing tool": {
		make: func(n *fakeNode, _ storage.Volume) { delete(n.programs, "thin_check") },
		want: []string{"ToolMissing"}, words: "apt-get install thin-provisioning-tools",
	},
	"lvm.conf": {
		make: func(n *fakeNode, _ storage.Volume) {
			n.programs["lvm"] = func(args []string) (string, int) {
				if args[0] != "lvmconfig" {
					return n.lvm(args)
				}
				return "use_lvmlockd=1\nthin_pool_autoextend_threshold=80\nsnapshot_autoextend_threshold=70\n" +
					"volume_list=[\"data2\", \"other/v\"]\nread_only_volume_list=[\"data/v\"]\nexecutable=\"/no/dmeventd\"\nlocking_dir=\"/no/such/dir\"\n", 0
			}
		},
		want: []string{
			"DmeventdMissing", "DmeventdMissing", "LockDaemon", "LockingDirMissing", "VolumeListExcludes", "VolumesReadOnly",
		}, words: "global/use_lvmlockd=0",
	},
	"full metadata area": {
		make: func(n *fakeNode, _ storage.Volume) { n.textBytes, n.textLimit = 960, 1000 },
		want: []string{"MetadataAreaFull"}, words: "vgextend --metadatasize",
	},
	"metadata area that fills": {
		make: func(n *fakeNode, _ storage.Volume) { n.textBytes, n.textLimit = 7*mib, 8*mib },
		want: []string{"MetadataAreaLow"}, words: "vgextend --metadatasize",
	},
	"small metadata area": {
		make: func(n *fakeNode, _ storage.Volume) { n.textBytes, n.textLimit = 1000, 500000 },
		want: []string{"MetadataAreaSmall"}, words: "--metadatasize 16m",
	},
	"no LVM": {
		make: func(n *fakeNode, _ storage.Volume) { delete(n.programs, "lvm") },
		want: []string{"LVMMissing"}, words: "apt-get install lvm2",
	},
}

// dies cuts a snapshot by an LVM that is killed.
func (n *fakeNode) dies(v storage.Volume) {
	n.t.Helper()
	if _, err := n.engine.CreateSnapshot(n.t.Context(), storage.SnapshotSpec{Name: "died", SourceID: v.ID}); err == nil {
		n.t.Fatal("it was not interrupted")
	}
	n.ClearFaults()
}

func TestDoctor(t *testing.T) {
	for name, tt := range unhealthy {
		t.Run(name, func(t *testing.T) {
			n := newNode(t)
			v := n.volume(storage.VolumeSpec{Name: "v", RequiredBytes: 8 * mib, Access: storage.AccessBlock})
			if got, code := n.doctor(); code != ctl.ExitOK || len(got.Findings) > 0 {
				t.Fatalf("before: %d, %+v", code, got.Findings)
			}
			tt.make(n, v)
			n.ResetCommands()
			got, code := n.doctor()
			if code != ctl.ExitFindings || !slices.Equal(reasons(got.Findings), tt.want) {
				t.Fatalf("exit code %d, %+v, want %v", code, got.Findings, tt.want)
			}
			if code := n.ctl("doctor", "--settle", "1ms"); code != ctl.ExitFindings || !strings.Contains(n.out.String(), tt.words) {
				t.Errorf("exit code %d, without %q:\n%s", code, tt.words, n.out.String())
			}
			if name == "no LVM" {
				return
			}
			got, code = n.fix()
			switch {
			case tt.fixable && (code != ctl.ExitOK || len(got.Findings) > 0 || !slices.Equal(reasons(got.Fixed), tt.want)):
				t.Errorf("fixed: exit code %d, %+v", code, got)
			case !tt.fixable && (code != ctl.ExitFindings || !slices.Equal(reasons(got.Findings), tt.want) || len(got.Fixed) > 0):
				t.Errorf("not to be fixed: exit code %d, %+v", code, got)
			}
		})
	}
}

// A command at work looks like one that died, until the second look.
func TestDoctorWaitsForCommands(t *testing.T) {
	n := newNode(t)
	v := n.volume(storage.VolumeSpec{Name: "v", RequiredBytes: 8 * mib, Access: storage.AccessBlock})
	_, err := n.engine.Activate(t.Context(), v.ID)
	n.ok(err)
	n.SetSuspended(group, lvOf(v.ID), true)
	looks := 0
	n.OnCommand(func(args []string) {
		if looks++; args[0] == "lvs" && looks > 3 { // by the second look it has been resumed
			n.SetSuspended(group, lvOf(v.ID), false)
		}
	})
	if got, code := n.doctor(); code != ctl.ExitOK || looks <= 3 {
		t.Errorf("exit code %d after %d questions: %+v", code, looks, got.Findings)
	}
}

// Beside a driver that is at work only that is put right which hangs: what is to be removed, the driver removes, since it may have
// made another of that name by then.
func TestFixBesideADriver(t *testing.T) {
	n := newNode(t)
	v := n.volume(storage.VolumeSpec{Name: "v", RequiredBytes: 8 * mib, Access: storage.AccessBlock})
	_, err := n.engine.Activate(t.Context(), v.ID)
	n.ok(err)
	n.FailNext(lvmtest.Verb("lvremove"), "no recovery by this driver", 5)
	n.PhantomNext(snapshotCreation)
	n.dies(v)
	n.SetSuspended(group, lvOf(v.ID), true)
	release, err := n.locks.Announce(t.Context(), group)
	n.ok(err)
	n.ResetCommands()
	got, code := n.fix()
	if code != ctl.ExitFindings || !slices.Equal(reasons(got.Fixed), []string{"DeviceSuspended"}) || !slices.Equal(reasons(got.Findings), []string{"Phantom"}) {
		t.Errorf("exit code %d, %+v", code, got)
	}
	if !got.Groups[0].DriverRuns || !strings.Contains(got.Findings[0].Cure, "the driver") {
		t.Errorf("%+v", got)
	}
	for _, c := range n.CommandLines() {
		if strings.HasPrefix(c, "lvremove") {
			t.Errorf("beside a driver it ran %s", c)
		}
	}
	release()
	if got, code := n.fix(); code != ctl.ExitOK || !slices.Equal(reasons(got.Fixed), []string{"Phantom"}) {
		t.Errorf("alone: exit code %d, %+v", code, got)
	}
}

// With --space LVM and the pool are compared: what the pool lost, and what it has for nobody.
func TestDoctorSpace(t *testing.T) {
	n := newNode(t)
	a := n.volume(storage.VolumeSpec{Name: "a", RequiredBytes: 8 * mib, Access: storage.AccessBlock})
	b := n.volume(storage.VolumeSpec{Name: "b", RequiredBytes: 8 * mib, Access: storage.AccessBlock})
	lost := min(lvOf(a.ID), lvOf(b.ID))
	all := n.thinLS(nil)
	n.programs["thin_ls"] = all
	if got, code := n.doctor("--space"); code != ctl.ExitOK || len(got.Findings) > 0 {
		t.Fatalf("all is well: %d, %+v", code, got)
	}
	n.programs["thin_ls"] = func(args []string) (string, int) {
		text, code := all(args)
		_, text, _ = strings.Cut(text, "\n") // the first is not there
		return text + "77 1600 1600 0\n", code
	}
	if got, code := n.doctor(); code != ctl.ExitOK {
		t.Errorf("without --space: %d, %+v", code, got)
	}
	got, code := n.doctor("--space")
	if code != ctl.ExitFindings || !slices.Equal(reasons(got.Findings), []string{"ThinDeviceLost", "ThinDeviceUnknown"}) || n.kernel.root != 0 {
		t.Fatalf("%d, root %d, %+v", code, n.kernel.root, got)
	}
	for _, f := range got.Findings {
		want := map[string]string{"ThinDeviceLost": group + "/" + lost, "ThinDeviceUnknown": "device 77, with 100 MiB"}[f.Reason]
		if !strings.Contains(f.Object+f.Message, want) || f.Fixable {
			t.Errorf("%s does not say %q: %+v", f.Reason, want, f)
		}
	}
	n.programs["thin_ls"] = func([]string) (string, int) { return "metadata contains errors", 1 }
	if got, code := n.doctor("--space"); code != ctl.ExitFindings || !slices.Equal(reasons(got.Findings), []string{"PoolNotCompared"}) {
		t.Errorf("thin_ls fails: %d, %+v", code, got)
	}
}

// What --space of a run that was killed has left is released by the next one, and by doctor --fix.
func TestSpaceAfterAKill(t *testing.T) {
	for _, how := range []string{"get volumes --space", "doctor --settle 1ms --fix --volume-group " + group} {
		n, _, _ := shop(t)
		n.programs["thin_ls"] = n.thinLS(nil)
		n.kernel.root = 7
		n.ok(os.WriteFile(filepath.Join(n.locks.Dir, "lvmsnap="+group+"="+pool), []byte("reserved 7"), 0o600))
		if code := n.ctl(strings.Fields(how)...); code != ctl.ExitOK || n.kernel.root != 0 {
			t.Errorf("%s: exit code %d, root %d: %s", how, code, n.kernel.root, n.err.String())
		}
	}
}

// Everything that doctor is known to find is documented, and what --fix does about it; and nothing else is. What cannot be had on the fake
// is in test/ctl.
func TestFindingsAreDocumented(t *testing.T) {
	text, err := os.ReadFile("../../docs/reference/doctor.md")
	if err != nil {
		t.Fatal(err)
	}
	documented := map[string]bool{}
	for _, row := range regexp.MustCompile("(?m)^\\| `([A-Za-z]+)` \\| .* \\| (yes|no|of|if)[^|]*\\|$").FindAllStringSubmatch(string(text), -1) {
		documented[row[1]] = row[2] == "yes"
	}
	want := map[string]bool{
		"OrphanedDevice": true, "RemovalUnfinished": true, "Leftover": true, "PoolBehind": false, "PoolTransactionMismatch": false, "DiskMissing": false,
		"ThinDeviceLost": false, "ThinDeviceUnknown": false, "PoolNotCompared": false, "ContentIncomplete": false, "RAIDRecovering": false,
		"StateUnknown": false, "GroupUnreadable": false, "DeviceMapperMissing": false, "ConfigUnreadable": false, "UdevMissing": false, "FullPoolsHang": false,
		"LVMCommandStuck": false, "PhysicalVolumeHidden": false, "LVsAreScanned": false,
	}
	for _, tt := range unhealthy {
		for _, reason := range tt.want {
			if reason == storage.PoolInactive || !strings.HasPrefix(reason, "Pool") || reason == "PoolJammed" { // the others are of events
				want[reason] = tt.fixable
			}
		}
	}
	if diff := cmp.Diff(want, documented); diff != "" {
		t.Errorf("docs/reference/doctor.md (-want +got):\n%s", diff)
	}
}
