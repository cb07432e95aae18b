package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
)

// umlModules is where Debian's user-mode-linux puts its modules.
const umlModules = "/usr/lib/uml/modules"

// debianPackage is something that the lab's machine must have, with a program by
// which to see whether it does: this works without dpkg, too.
type debianPackage struct {
	name    string
	probe   string
	umlOnly bool
}

// packages is the one list of what the lab needs; documentation and CI get it
// from `lab --packages`.
var packages = []debianPackage{
	{name: "user-mode-linux", probe: "linux.uml", umlOnly: true},
	{name: "kmod", probe: "modprobe"},
	{name: "lvm2", probe: "lvm"},
	{name: "thin-provisioning-tools", probe: "thin_check"},
	{name: "dmsetup", probe: "dmsetup"},
	{name: "e2fsprogs", probe: "mkfs.ext4"},
	{name: "xfsprogs", probe: "mkfs.xfs"},
	{name: "btrfs-progs", probe: "mkfs.btrfs"},
	{name: "util-linux", probe: "fsfreeze"},
	{name: "mount", probe: "losetup"},
	{name: "fio", probe: "fio"},
	{name: "strace", probe: "strace"},
}

// systemPath is PATH with the directories of system programs, which
// an ordinary user's PATH lacks.
func systemPath(path string) string {
	dirs := filepath.SplitList(path)
	for _, dir := range []string{"/usr/local/sbin", "/usr/local/bin", "/usr/sbin", "/usr/bin", "/sbin", "/bin"} {
		present := false
		for _, have := range dirs {
			present = present || have == dir
		}
		if !present {
			dirs = append(dirs, dir)
		}
	}
	return strings.Join(dirs, string(filepath.ListSeparator))
}

// packageNames lists the packages that mode needs.
func packageNames(mode string) []string {
	var names []string
	for _, p := range packages {
		if !p.umlOnly || mode != modeNative {
			names = append(names, p.name)
		}
	}
	return names
}

// missingPackages lists the packages that mode needs and whose program find does
// not find.
func missingPackages(mode string, find func(string) (string, error)) []string {
	var names []string
	for _, p := range packages {
		if p.umlOnly && mode == modeNative {
			continue
		}
		if _, err := find(p.probe); err != nil {
			names = append(names, p.name)
		}
	}
	return names
}

// installCommand is what a person would type to install names.
func installCommand(names []string) string {
	return "sudo apt-get update && sudo apt-get install --yes --no-install-recommends " + strings.Join(names, " ")
}

// ensurePackages installs what mode lacks where it may, and else says exactly
// which command would.
func ensurePackages(mode string, install bool) error {
	// From here on our own look-ups find what is in sbin as well.
	if err := os.Setenv("PATH", systemPath(os.Getenv("PATH"))); err != nil {
		return err
	}
	missing := missingPackages(mode, exec.LookPath)
	if len(missing) == 0 {
		return nil
	}
	refusal := fmt.Errorf("the machine needs Debian packages that are missing here; install them with\n\n    %s", installCommand(missing))
	aptGet, err := exec.LookPath("apt-get")
	if err != nil || !install || os.Geteuid() != 0 {
		return refusal
	}
	fmt.Fprintf(os.Stderr, "lab: installing %s\n", strings.Join(missing, " "))
	for _, args := range [][]string{
		{"update", "--quiet=2"},
		append([]string{"install", "--quiet=2", "--yes", "--no-install-recommends"}, missing...),
	} {
		cmd := exec.Command(aptGet, append([]string{"-o", "DPkg::Lock::Timeout=300"}, args...)...)
		cmd.Env = append(os.Environ(), "DEBIAN_FRONTEND=noninteractive")
		// Standard output belongs to the command.
		cmd.Stdout, cmd.Stderr = os.Stderr, os.Stderr
		if err := cmd.Run(); err != nil {
			return errors.Join(fmt.Errorf("apt-get %s: %w", args[0], err), refusal)
		}
	}
	if still := missingPackages(mode, exec.LookPath); len(still) > 0 {
		return fmt.Errorf("packages %s are installed but their programs are not found", strings.Join(still, " "))
	}
	return nil
}
