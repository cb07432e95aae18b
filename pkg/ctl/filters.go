package ctl

import (
	"context"
	"fmt"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

const (
	reasonHiddenPV = "PhysicalVolumeHidden"
	reasonScanned  = "LVsAreScanned"
	filterCure     = "see filter, global_filter and use_devicesfile in lvm.conf (`lvmconfig --typeconfig full devices`), and `lvmdevices`"
)

// device is what LVM sees.
type device struct{ uuid, name, group, groupUUID string }

// devicesLimit is for a question without whose answer the rest is worth as much.
const devicesLimit = 5 * time.Second

// devices asks LVM for all that it looks at. lvm(8): a system directory without a lvm.conf is LVM without settings.
func (h *Host) devices(ctx context.Context, config string, env ...string) ([]device, error) {
	ctx, cancel := context.WithTimeout(ctx, min(h.timeout, devicesLimit))
	defer cancel()
	res, err := h.Runner.Run(ctx, hostexec.Command{
		Name: "lvm", Interruptible: true, Env: append([]string{"LVM_SUPPRESS_FD_WARNINGS=1", "HOME=/dev/null"}, env...),
		Args: []string{
			"pvs", "--readonly", "--all", "--noheadings", "--separator", "|", "--config", `global/use_aio=0 log/prefix="" report/output_format="basic" devices/hints="none" ` + config,
			"--options", "pv_uuid,pv_name,vg_name,vg_uuid",
		},
	})
	if err != nil {
		return nil, err
	}
	if res.ExitCode != 0 {
		return nil, fmt.Errorf("pvs exit code %d: %s", res.ExitCode, strings.TrimSpace(string(res.Stderr)))
	}
	var out []device
	for line := range strings.Lines(string(res.Stdout)) {
		f := strings.Split(strings.TrimSpace(line), "|")
		if len(f) == 4 && filepath.IsAbs(f[1]) { // a disk of a group that it does not see is "[unknown]"
			out = append(out, device{f[0], f[1], f[2], f[3]})
		}
	}
	return out, nil
}

// filterFindings are what LVM's filters hide of the driver's groups, and what they should hide. LVM itself is asked, with this host's
// settings and without any: its filters are more than expressions (devices files, multipath, what is below RAID). Where it cannot
// say, because a disk does not answer, the group's findings do.
func (h *Host) filterFindings(ctx context.Context) []storage.Finding {
	seen, err := h.devices(ctx, "")
	if err != nil {
		return nil
	}
	there, err := h.devices(ctx, withoutVolumes(ctx, h.Kernel, h.Groups), "LVM_SYSTEM_DIR=/nonexistent")
	if err != nil {
		return nil
	}
	var out []storage.Finding
	for _, d := range there {
		// A group of the same name with another UUID is somebody else's (a virtual machine's), which is hidden for a reason.
		other := func(s device) bool { return s.uuid == d.uuid || s.group == d.group && s.groupUUID != d.groupUUID }
		if slices.Contains(h.Groups, d.group) && !slices.ContainsFunc(seen, other) {
			f := hostFinding(reasonHiddenPV, fmt.Sprintf("LVM's settings hide %s, which is a physical volume of volume group %s", d.name, d.group), filterCure)
			f.Severity = storage.SeverityInaccessible
			out = append(out, f)
		}
	}
	for _, d := range seen {
		if h.isVolume(d.name) && !slices.Contains(h.Groups, d.group) { // data-crypt may be a disk of group data
			return append(out, hostFinding(reasonScanned, "LVM looks for physical volumes inside of volumes ("+d.name+
				"): a workload's own LVM becomes the host's, and a snapshot of it a duplicate", "devices/scan_lvs=0 in lvm.conf, or a global_filter that rejects the driver's groups"))
		}
	}
	return out
}

// isVolume: a path is that of a device of one of the groups.
func (h *Host) isVolume(path string) bool {
	dir, name := filepath.Split(path)
	return dir == "/dev/mapper/" && h.isDevice(name) || filepath.Dir(filepath.Clean(dir)) == "/dev" && slices.Contains(h.Groups, filepath.Base(dir))
}

// WithoutVolumes is a setting by which LVM does not look at the groups' own volumes, for a host without a filter, of which it would take
// the place. LVM asks each device whether it can be used, before it finds that it is a volume, and the status of one whose pool does not
// answer hangs: in the lab `vgs --readonly` had not ended after 8 s, and took 0.6 s with this.
func WithoutVolumes(ctx context.Context, runner hostexec.Runner, kernel DeviceLister, groups []string) string {
	res, err := runner.Run(ctx, hostexec.Command{
		Name: "lvm", Args: []string{"lvmconfig", "devices/filter"}, Env: []string{"LVM_SUPPRESS_FD_WARNINGS=1", "HOME=/dev/null"}, Interruptible: true,
	})
	if err != nil || res.ExitCode == 0 {
		return ""
	}
	return withoutVolumes(ctx, kernel, groups)
}

// DeviceLister is what WithoutVolumes needs of dm.Kernel.
type DeviceLister interface {
	Devices(ctx context.Context, group string) ([]dm.Device, error)
}

// withoutVolumes is empty where nobody knows which devices are volumes, and which are disks of these names.
func withoutVolumes(ctx context.Context, kernel DeviceLister, groups []string) string {
	var accept, reject []string
	for _, group := range groups {
		devices, err := kernel.Devices(ctx, group)
		if err != nil {
			return ""
		}
		for _, d := range devices {
			if uuid, _ := d.LV(); uuid == "" {
				accept = append(accept, fmt.Sprintf(`"a|^/dev/mapper/%s$|"`, regexp.QuoteMeta(d.Name)))
			}
		}
		reject = append(reject, fmt.Sprintf(`"r|^/dev/%s/|"`, regexp.QuoteMeta(group)), fmt.Sprintf(`"r|^/dev/mapper/%s|"`, regexp.QuoteMeta(dm.DeviceName(group, ""))))
	}
	return "devices/filter=[" + strings.Join(append(accept, reject...), ",") + "]"
}
