package ctl

import (
	"bufio"
	"cmp"
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

const (
	reasonNoLVM = "LVMMissing"
	hostObject  = "host"
)

// hostFindings are what the driver needs of a host and has not.
func (h *Host) hostFindings(ctx context.Context) []storage.Finding {
	if _, err := lvm.CheckVersion(ctx, h.Runner); err != nil {
		return []storage.Finding{{
			Severity: storage.SeverityInaccessible, Reason: reasonNoLVM, Object: hostObject, Message: err.Error(),
			Cure: "Debian: apt-get install lvm2 thin-provisioning-tools",
		}}
	}
	out := h.moduleFindings(ctx)
	out = append(out, h.toolFindings(ctx)...)
	out = append(out, h.configFindings(ctx)...)
	return append(out, h.timeoutFindings()...)
}

// timeoutFindings: Linux, Documentation/admin-guide/device-mapper/thin-provisioning.rst, no_space_timeout.
func (h *Host) timeoutFindings() []storage.Finding {
	const parameter = "sys/module/dm_thin_pool/parameters/no_space_timeout"
	text, err := os.ReadFile(filepath.Join("/", h.Root, parameter))
	if err != nil || strings.TrimSpace(string(text)) != "0" {
		return nil
	}
	return []storage.Finding{hostFinding("FullPoolsHang", "writers of a full thin pool wait without an end (no_space_timeout=0), and so does whoever unmounts or drains",
		"echo 60 > /"+parameter+", and options dm_thin_pool no_space_timeout=60 in /etc/modprobe.d/lvmsnap.conf; or lvchange --errorwhenfull y of each pool")}
}

func hostFinding(reason, message, cure string) storage.Finding {
	return storage.Finding{Severity: storage.SeverityDegraded, Reason: reason, Object: hostObject, Message: message, Cure: cure}
}

// modules are the kernel's, by what they let device-mapper make.
var modules = []struct{ target, module, why string }{
	{"thin-pool", "dm_thin_pool", "thin pools"},
	{"snapshot", "dm_snapshot", "snapshots of thick volumes"},
	{"raid", "dm_raid", "thick volumes with raidType"},
}

func (h *Host) moduleFindings(ctx context.Context) []storage.Finding {
	targets, err := h.Kernel.Targets(ctx)
	if err != nil {
		f := hostFinding("DeviceMapperMissing", err.Error(), "modprobe dm_mod; in a container, mount the host's /dev")
		f.Severity = storage.SeverityInaccessible
		return []storage.Finding{f}
	}
	var out []storage.Finding
	for _, m := range modules {
		if !slices.Contains(targets, m.target) && h.lacks(m.module) {
			out = append(out, hostFinding("ModuleMissing", fmt.Sprintf("the kernel module %s, for %s, is neither loaded nor found", m.module, m.why),
				fmt.Sprintf("modprobe %s, and its name in /etc/modules-load.d/lvmsnap.conf; some clouds' kernels have it in a package of extra modules", m.module)))
		}
	}
	return out
}

// lacks: a module that is not loaded is not there to be loaded when LVM needs it, either. The kernel has the host load it: in a
// container without the host's modules nobody can tell, and nothing is said.
func (h *Host) lacks(module string) bool {
	var name unix.Utsname
	if unix.Uname(&name) != nil {
		return false
	}
	release, listed := unix.ByteSliceToString(name.Release[:]), false
	for _, dir := range []string{"lib/modules", "usr/lib/modules"} {
		for _, list := range []string{"modules.dep", "modules.builtin"} {
			f, err := os.Open(filepath.Join("/", h.Root, dir, release, list)) //nolint:gosec // the host's list of its own modules
			if err != nil {
				continue
			}
			listed = true
			found := mentions(f, strings.ReplaceAll(module, "_", "-"))
			f.Close()
			if found {
				return false
			}
		}
	}
	return listed
}

func mentions(f *os.File, module string) bool {
	lines := bufio.NewScanner(f)
	for lines.Scan() {
		path, _, _ := strings.Cut(lines.Text(), ":")
		if name, _, _ := strings.Cut(filepath.Base(path), ".ko"); strings.ReplaceAll(name, "_", "-") == module {
			return true
		}
	}
	return false
}

// tools are the programs that LVM and the driver start, by what asks for their version and does nothing else.
var tools = []struct {
	argv          []string
	debian, about string
}{
	{[]string{"thin_check", "-V"}, "thin-provisioning-tools", "LVM refuses to activate thin pools without it"},
	{[]string{"thin_ls", "-V"}, "thin-provisioning-tools", "only --space needs it"},
	{[]string{"mkfs.ext4", "-V"}, "e2fsprogs", "for volumes with ext4"},
	{[]string{"mkfs.xfs", "-V"}, "xfsprogs", "for volumes with xfs"},
	{[]string{"mkfs.btrfs", "--version"}, "btrfs-progs", "for volumes with btrfs"},
}

// notFoundCode is the exit code of nsenter for a program that is not there.
const notFoundCode = 127

func (h *Host) has(ctx context.Context, argv ...string) bool {
	res, err := h.Runner.Run(ctx, hostexec.Command{Name: argv[0], Args: argv[1:], Interruptible: true})
	return err == nil && res.ExitCode != notFoundCode
}

func (h *Host) toolFindings(ctx context.Context) []storage.Finding {
	var out []storage.Finding
	for _, t := range tools {
		if !h.has(ctx, t.argv...) {
			out = append(out, hostFinding("ToolMissing", fmt.Sprintf("%s is not there: %s", t.argv[0], t.about), "Debian: apt-get install "+t.debian))
		}
	}
	return out
}

// settings of lvm.conf that matter here.
var settings = []string{
	"activation/udev_sync", "activation/monitoring", "activation/thin_pool_autoextend_threshold", "activation/snapshot_autoextend_threshold",
	"activation/volume_list", "activation/read_only_volume_list", "global/locking_dir", "global/use_lvmlockd", "dmeventd/executable",
}

// config asks LVM for its settings, as they are for the host's own commands.
func (h *Host) config(ctx context.Context) (map[string]string, error) {
	res, err := h.Runner.Run(ctx, hostexec.Command{
		Name: "lvm", Args: append([]string{"lvmconfig", "--typeconfig", "full"}, settings...), Env: []string{"LVM_SUPPRESS_FD_WARNINGS=1", "HOME=/dev/null"}, Interruptible: true,
	})
	if err != nil {
		return nil, err
	}
	if res.ExitCode != 0 {
		return nil, fmt.Errorf("lvmconfig exit code %d: %s", res.ExitCode, strings.TrimSpace(string(res.Stderr)))
	}
	out := map[string]string{}
	for line := range strings.Lines(string(res.Stdout)) {
		name, value, ok := strings.Cut(strings.TrimSpace(line), "=")
		if ok {
			out[name] = strings.Trim(value, `"`)
		}
	}
	return out, nil
}

func (h *Host) configFindings(ctx context.Context) []storage.Finding {
	c, err := h.config(ctx)
	if err != nil {
		return []storage.Finding{hostFinding("ConfigUnreadable", err.Error(), "see `lvmconfig --validate`")}
	}
	var out []storage.Finding
	if c["use_lvmlockd"] == "1" {
		out = append(out, hostFinding("LockDaemon", "LVM locks through lvmlockd, which neither the driver's recovery nor --fix does: they take LVM's file locks",
			"keep the driver's groups local (not shared), global/use_lvmlockd=0"))
	}
	if _, err := os.Stat(filepath.Join("/", h.Root, "run/udev/control")); c["udev_sync"] == "1" && errors.Is(err, fs.ErrNotExist) {
		out = append(out, hostFinding("UdevMissing", "LVM is to wait for udev (activation/udev_sync=1), and there is no /run/udev/control",
			"in a container, mount the host's /run/udev; on a host without udev, udev_sync=0 and udev_rules=0"))
	}
	for _, of := range []struct{ setting, what, flag string }{
		{"thin_pool_autoextend_threshold", "thin pools", "--pool-autoextend-threshold"},
		{"snapshot_autoextend_threshold", "COW snapshots", "--cow-autoextend-threshold"},
	} {
		if threshold := c[of.setting]; threshold != "" && threshold != "100" && !h.has(ctx, cmp.Or(c["executable"], "dmeventd"), "-V") {
			out = append(out, hostFinding("DmeventdMissing", fmt.Sprintf("LVM is to extend %s at %s%% (activation/%s), and dmeventd, which does it, is not there",
				of.what, threshold, of.setting), "Debian: apt-get install dmeventd; or let the driver do it: "+of.flag))
		}
	}
	out = append(out, h.listFindings(c)...)
	if dir := c["locking_dir"]; dir != "" {
		if info, err := os.Stat(filepath.Join("/", h.Root, dir)); err != nil || !info.IsDir() {
			out = append(out, hostFinding("LockingDirMissing", "LVM's locking directory "+dir+" is not there: commands of the host and of a container would not exclude each other",
				"in a container, mount the host's "+dir))
		}
	}
	return out
}

// listFindings are of the lists in lvm.conf that decide which volumes are activated, and which may be written to. An entry is a group, a
// volume, or a tag. lvm.conf(5)
func (h *Host) listFindings(c map[string]string) []storage.Finding {
	var out []storage.Finding
	for _, g := range h.Groups {
		if list := c["volume_list"]; strings.HasPrefix(list, "[") && !listed(list, g) && !strings.Contains(list, `"@`) {
			out = append(out, hostFinding("VolumeListExcludes", fmt.Sprintf("LVM activates nothing of volume group %s: it is not in activation/volume_list (%s)", g, list),
				"the group's name in activation/volume_list"))
		}
		if list := c["read_only_volume_list"]; listed(list, g) {
			out = append(out, hostFinding("VolumesReadOnly", fmt.Sprintf("LVM activates volumes of volume group %s read-only: it is in activation/read_only_volume_list (%s)", g, list),
				"take it out of activation/read_only_volume_list"))
		}
	}
	return out
}

func listed(list, group string) bool {
	return strings.Contains(list, `"`+group+`"`) || strings.Contains(list, `"`+group+`/`)
}
