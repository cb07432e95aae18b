package lvm

import (
	"context"
	"errors"
	"math"
	"strings"
	"testing"
)

func TestValidateName(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "csi-v-abc": true, "a+b_c.d-e": true, ".x": true, "0": true, strings.Repeat("a", 127): true,
		"": false, ".": false, "..": false, "-a": false, "a b": false, "a/b": false, "a\n": false, "a;b": false, "é": false,
		"@tag": false, "a$": false, "a'b": false, strings.Repeat("a", 128): false, "a\x00": false,
	} {
		if err := ValidateName(name); (err == nil) != good {
			t.Errorf("%q: %v, want good %t", name, err, good)
		}
	}
}

func TestValidateTag(t *testing.T) {
	for tag, good := range map[string]bool{
		"a": true, "lvmsnap.io/k=v:w&x+y_z.-": true, strings.Repeat("a", 1024): true,
		"": false, "-a": false, "a,b": false, "a b": false, "a#b": false, "a!b": false, "a'": false, `a"`: false, "a\\": false,
		"é": false, "a\n": false, strings.Repeat("a", 1025): false, "/a": false, "@a": false,
	} {
		if err := ValidateTag(tag); (err == nil) != good {
			t.Errorf("%q: %v, want good %t", tag, err, good)
		}
	}
}

// FuzzValidateTag: what passes arrives in LVM as it is, through the shell's splitting and the report's commas.
func FuzzValidateTag(f *testing.F) {
	for _, s := range []string{"a", "k=v", "a,b", "a b", "-a", "\\", "'"} {
		f.Add(s)
	}
	f.Fuzz(func(t *testing.T, s string) {
		if ValidateTag(s) != nil {
			return
		}
		if err := validateArgs([]string{"lvchange", "--addtag", s}); err != nil {
			t.Errorf("a valid tag is refused as an argument: %v", err)
		}
		if got := strings.Fields("x " + s); len(got) != 2 || got[1] != s {
			t.Errorf("%q is split into %q", s, got)
		}
		if got := splitTags(s + "," + s); len(got) != 2 || got[0] != s {
			t.Errorf("%q does not survive a report: %q", s, got)
		}
		if strings.HasPrefix(s, "-") || strings.ContainsAny(s, "\"'\\#!@ \t\n") {
			t.Errorf("%q could be read as something else", s)
		}
	})
}

// noExec fails the test when anything reaches LVM.
type noExec struct{ t *testing.T }

func (e noExec) Run(_ context.Context, args ...string) (Output, error) {
	e.t.Errorf("LVM was asked: %q", args)
	return Output{}, nil
}

// TestClientValidates: nothing that is not a name, a tag or a size reaches LVM.
func TestClientValidates(t *testing.T) {
	ctx, c := t.Context(), NewClient(noExec{t}, "vg0")
	bad := "a; reboot"
	for what, err := range map[string]error{
		"thin name":     c.CreateThinVolume(ctx, ThinVolumeOptions{Name: bad, Pool: "p", SizeBytes: 1}),
		"pool":          c.CreateThinVolume(ctx, ThinVolumeOptions{Name: "a", Pool: "-p", SizeBytes: 1}),
		"no size":       c.CreateThinVolume(ctx, ThinVolumeOptions{Name: "a", Pool: "p"}),
		"negative size": c.CreateThinVolume(ctx, ThinVolumeOptions{Name: "a", Pool: "p", SizeBytes: -1}),
		"huge size":     c.CreateThinVolume(ctx, ThinVolumeOptions{Name: "a", Pool: "p", SizeBytes: math.MaxInt64}),
		"tag":           c.CreateThinVolume(ctx, ThinVolumeOptions{Name: "a", Pool: "p", SizeBytes: 1, Tags: []string{"a,b"}}),
		"snapshot":      c.CreateThinSnapshot(ctx, ThinSnapshotOptions{Name: "", Origin: "o"}),
		"origin":        c.CreateThinSnapshot(ctx, ThinSnapshotOptions{Name: "a", Origin: "../o"}),
		"snapshot tag":  c.CreateThinSnapshot(ctx, ThinSnapshotOptions{Name: "a", Origin: "o", Tags: []string{"-t"}}),
		"thick name":    c.CreateThickVolume(ctx, ThickVolumeOptions{Name: bad, SizeBytes: 1}),
		"thick size":    c.CreateThickVolume(ctx, ThickVolumeOptions{Name: "a"}),
		"thick layout":  c.CreateThickVolume(ctx, ThickVolumeOptions{Name: "a", SizeBytes: 1, Layout: "raid6"}),
		"thick tag":     c.CreateThickVolume(ctx, ThickVolumeOptions{Name: "a", SizeBytes: 1, Tags: []string{"a b"}}),
		"COW name":      c.CreateCOWSnapshot(ctx, COWSnapshotOptions{Name: bad, Origin: "o", COWBytes: 1}),
		"COW origin":    c.CreateCOWSnapshot(ctx, COWSnapshotOptions{Name: "a", Origin: "vg/o", COWBytes: 1}),
		"COW size":      c.CreateCOWSnapshot(ctx, COWSnapshotOptions{Name: "a", Origin: "o"}),
		"COW tag":       c.CreateCOWSnapshot(ctx, COWSnapshotOptions{Name: "a", Origin: "o", COWBytes: 1, Tags: []string{"a b"}}),
		"rename":        c.Rename(ctx, "", "b"),
		"new name":      c.Rename(ctx, "a", "b c"),
		"refresh":       c.Refresh(ctx, "-a"),
		"remove":        c.Remove(ctx, ""),
		"extend":        c.Extend(ctx, "a b", 1),
		"extend size":   c.Extend(ctx, "a", 0),
		"activate":      c.Activate(ctx, "@tag"),
		"deactivate":    c.Deactivate(ctx, "a\nb"),
		"deltag":        c.ChangeTags(ctx, "a", []string{""}, nil),
		"addtag":        c.ChangeTags(ctx, "a", nil, []string{"x y"}),
		"tags of":       c.ChangeTags(ctx, "", nil, nil),
	} {
		if err == nil {
			t.Errorf("%s: no error", what)
		}
	}
	if _, err := NewClient(noExec{t}, "vg 0").LVs(ctx); err == nil {
		t.Error("a group's name with a blank in it was taken")
	}
}

func TestBytesArg(t *testing.T) {
	for n, want := range map[int64]string{1: "512b", 512: "512b", 513: "1024b", 1 << 40: "1099511627776b", math.MaxInt64 - 512: "9223372036854775296b"} {
		if got := bytesArg(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}

// TestErrors has LVM 2.03.16's own messages, seen in the lab unless a row says otherwise.
func TestErrors(t *testing.T) {
	for _, c := range []struct {
		text string
		want error
	}{
		{`Failed to find logical volume "vg0/r1"`, ErrNotFound},
		{`Logical volume nope not found in volume group vg0.`, ErrNotFound},
		{`Snapshot origin LV v1 not found in Volume group vg0.`, ErrNotFound},
		{`Pool nopool not found in Volume group vg0.`, ErrNotFound},
		{`Volume group "novg" not found; Cannot process volume group novg`, ErrGroupNotFound},
		{`Interrupted...; Giving up waiting for lock.; Can't get lock for vg0.; Cannot process volume group vg0`, ErrNotLocked},                                                     // seen in the lab
		{`device-mapper: suspend ioctl on  (254:4) failed: Device or resource busy; Unable to suspend fz-thin (254:4); Failed to suspend thin snapshot origin fz/thin.`, ErrFrozen}, // seen in the lab
		{`Can't get lock for vg0.; Cannot process volume group vg0`, ErrNotLocked},
		{`Logical Volume "v1" already exists in volume group "vg0"`, ErrExists},
		{`Logical volume vg0/r1 in use.`, ErrInUse},
		{`Logical volume vg0/a contains a filesystem in use.`, ErrInUse},
		{`Logical volume vg0/a is used by another device.`, ErrInUse},
		{`Cannot create new thin volume, free space in thin pool vg0/pool reached threshold.`, ErrNoSpace},
		{`Insufficient free space: 4992 extents needed, but only 1909 available`, ErrNoSpace},
		{`VG vg0 55 metadata on /dev/ubdb (534980 bytes) exceeds maximum metadata size (521472 bytes); Failed to write VG vg0.`, ErrMetadataFull},
		{`VG vg0 metadata on /dev/sdb (1000 bytes) too large for circular buffer (900 bytes with 0 used)`, ErrMetadataFull}, // older LVM
		{`Volume group "vg0" has insufficient free space (4060 extents): 160000 required.`, ErrNoSpace},
		{`Existing logical volume "gone" not found in volume group "vg0"`, ErrNotFound},
		{`Snapshot origin volumes can be resized only while inactive: try lvchange -an.`, ErrOriginActive},
		{`Logical volume vg0/s2 in use.; LV vg0/t1 has open 1 snapshot(s), not deactivating.`, ErrInUse},
		{`New size (5 extents) matches existing size (5 extents).`, ErrNothingToChange},
		{`New size given (2 extents) not larger than existing size (5 extents)`, ErrNothingToChange},
		{`Thin pool vg0-pool-tpool (254:2) transaction_id is 4, while expected 5.`, ErrPoolJammed},                                                             // lvm2: libdm/libdm-deptree.c
		{`Cannot send messages to thin pool vg-pool-tpool (254:2) with read only metadata.; Failed to suspend vg/pool with queued messages.`, ErrPoolReadOnly}, // seen in the lab
		{`Thin pool vg0-pool-tpool (254:2) already contain thin device with device_id 3.`, ErrPoolJammed},                                                      // docs: lvm-facts
		{`Please specify either size or extents with snapshots.`, nil},
		{`Logical volume vg0/v1 is not a thin pool.`, nil},
		{`device-mapper: reload ioctl on  (254:4) failed: No data available`, nil},
		{``, nil},
	} {
		err := error(&CommandError{Args: []string{"lvcreate", "vg0/x"}, ExitCode: 5, Text: c.text})
		for _, class := range []error{
			ErrNotFound, ErrGroupNotFound, ErrExists, ErrNoSpace, ErrMetadataFull, ErrInUse, ErrPoolJammed, ErrPoolReadOnly, ErrSuspended, ErrNothingToChange,
			ErrNotLocked, ErrFrozen,
		} {
			if got := errors.Is(err, class); got != errors.Is(c.want, class) {
				t.Errorf("%q is %q: %t", c.text, class, got)
			}
		}
		if !strings.Contains(err.Error(), c.text) || !strings.Contains(err.Error(), "lvcreate vg0/x failed (exit code 5)") {
			t.Errorf("message %q", err)
		}
	}
}
