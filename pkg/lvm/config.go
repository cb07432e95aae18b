package lvm

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

// overrides is what the driver's private lvm.conf changes in the host's, each with its measured reason in
// docs/adr/0006. Everything else, device filters and the locking directory first of all, stays the host's.
var overrides = []string{
	`global/use_aio=0`,
	`global/use_lvmpolld=0`,
	`global/notify_dbus=0`,
	`activation/monitoring=0`,
	`activation/thin_pool_autoextend_threshold=100`,
	`activation/reserved_stack=0`,
	`activation/reserved_memory=0`,
	`backup/backup=0`,
	`backup/archive=0`,
	`devices/hints="none"`,
	`log/report_command_log=1`,
	`log/prefix=""`,
	`report/output_format="json"`,
	`report/compact_output=0`,
	`report/buffered=1`,
}

// hostSystemDir is where the host's LVM looks unless told otherwise; lvm(8), LVM_SYSTEM_DIR.
func hostSystemDir() string {
	if dir := os.Getenv("LVM_SYSTEM_DIR"); dir != "" {
		return dir
	}
	return "/etc/lvm"
}

// WriteConfig makes a private LVM_SYSTEM_DIR below workDir, with the host's configuration merged (by LVM
// itself) with the driver's overrides, and returns the environment to run LVM with. In host-namespace mode
// workDir must be the same directory on the host.
func WriteConfig(ctx context.Context, runner hostexec.Runner, workDir string) (env []string, err error) {
	res, err := runner.Run(ctx, hostexec.Command{
		Name: "lvm", Args: []string{"lvmconfig", "--mergedconfig", "--config", strings.Join(overrides, " ")},
		Env: []string{"LVM_SUPPRESS_FD_WARNINGS=1"}, Interruptible: true,
	})
	if err != nil {
		return nil, fmt.Errorf("read LVM's configuration: %w", err)
	}
	if res.ExitCode != 0 {
		return nil, fmt.Errorf("read LVM's configuration: lvmconfig exit code %d: %s", res.ExitCode, strings.TrimSpace(string(res.Stderr)))
	}
	dir := filepath.Join(workDir, "lvm")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, err
	}
	text := "# Written by lvmsnap at its start: the host's configuration with its own settings. Do not edit.\n" + string(res.Stdout)
	if err := writeFileAtomically(filepath.Join(dir, "lvm.conf"), text); err != nil {
		return nil, err
	}
	// The devices file and profiles are looked up below LVM_SYSTEM_DIR: they stay the host's.
	for _, name := range []string{"devices", "profile"} {
		link := filepath.Join(dir, name)
		if err := os.Remove(link); err != nil && !errors.Is(err, os.ErrNotExist) {
			return nil, err
		}
		if err := os.Symlink(filepath.Join(hostSystemDir(), name), link); err != nil {
			return nil, err
		}
	}
	return []string{"LVM_SYSTEM_DIR=" + dir}, nil
}

// writeFileAtomically because a running LVM shell re-reads its configuration when it changes.
func writeFileAtomically(path, text string) error {
	f, err := os.CreateTemp(filepath.Dir(path), ".lvm.conf-")
	if err != nil {
		return err
	}
	_, err = f.WriteString(text)
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return nil
}

// Version is an LVM version: 2.03.16.
type Version [3]int

// MinimumVersion is Debian 11's. LVM2 2.03.00 dropped what this driver never used; reports, their log and
// activation skip are older still.
var MinimumVersion = Version{2, 3, 11}

// String is the version as LVM writes it.
func (v Version) String() string { return fmt.Sprintf("%d.%02d.%02d", v[0], v[1], v[2]) }

// Less compares versions.
func (v Version) Less(o Version) bool {
	for i := range v {
		if v[i] != o[i] {
			return v[i] < o[i]
		}
	}
	return false
}

var versionPattern = regexp.MustCompile(`LVM version:\s+(\d+)\.(\d+)\.(\d+)`)

// CheckVersion asks LVM for its version; an error says what is missing or too old.
func CheckVersion(ctx context.Context, runner hostexec.Runner) (Version, error) {
	res, err := runner.Run(ctx, hostexec.Command{
		Name: "lvm", Args: []string{"version"}, Env: []string{"LVM_SUPPRESS_FD_WARNINGS=1"}, Interruptible: true,
	})
	if err != nil {
		return Version{}, fmt.Errorf("LVM cannot be run (on Debian: apt-get install lvm2 thin-provisioning-tools): %w", err)
	}
	m := versionPattern.FindStringSubmatch(string(res.Stdout))
	if m == nil {
		return Version{}, fmt.Errorf("`lvm version` (exit code %d) names no version: %s", res.ExitCode, strings.TrimSpace(string(res.Stdout)+string(res.Stderr)))
	}
	var v Version
	for i := range v {
		v[i], _ = strconv.Atoi(m[i+1]) // digits, by the pattern
	}
	if v.Less(MinimumVersion) {
		return v, fmt.Errorf("LVM %s is too old, %s or newer is needed", v, MinimumVersion)
	}
	return v, nil
}
