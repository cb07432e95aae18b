package ctl

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

// lockFinding says who has LVM's lock of a group; none when nobody has. LVM unlinks the file with each lock that it gives up, so that the same
// file at two looks is the same command.
func lockFinding(proc, lockingDir, group string) ([]storage.Finding, error) {
	var st unix.Stat_t
	err := unix.Stat(filepath.Join(lockingDir, "V_"+group), &st)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, fmt.Errorf("LVM's lock of %s: %w", group, err)
	}
	f, err := os.Open(filepath.Join(proc, "locks")) //nolint:gosec // the kernel's
	if err != nil {
		return nil, fmt.Errorf("who has LVM's locks: %w", err)
	}
	defer f.Close()
	file := fmt.Sprintf("%02x:%02x:%d", unix.Major(st.Dev), unix.Minor(st.Dev), st.Ino)
	for lines := bufio.NewScanner(f); lines.Scan(); {
		pid, ok := lockHolder(lines.Text(), file)
		if !ok {
			continue
		}
		return []storage.Finding{{
			Severity: storage.SeverityDegraded, Reason: reasonGroupLocked, Object: group, Passing: true, Which: fmt.Sprint(pid, " ", file),
			Message: fmt.Sprintf("LVM's lock of volume group %s is held by process %d, %s: every other change of the group waits for it", group, pid, describeProcess(proc, pid)),
			Cure: fmt.Sprintf("see what it waits for: /proc/%d/stack, the kernel log, suspended devices in `dmsetup info`. Do not kill it: what it has begun would be left half done",
				pid),
		}}, nil
	}
	return nil, nil
}

const reasonGroupLocked = "GroupLocked"

// lockHolder reads a line of /proc/locks: "1: FLOCK  ADVISORY  WRITE 123 00:15:456 0 EOF"; with "->" somebody waits. proc(5)
func lockHolder(line, file string) (pid int, ok bool) {
	f := strings.Fields(line)
	if len(f) < 6 || f[1] != "FLOCK" || f[5] != file {
		return 0, false
	}
	pid, err := strconv.Atoi(f[4])
	return pid, err == nil
}

// describeProcess is the name of its program and what it does, as far as that can be had. proc(5), stat
func describeProcess(proc string, pid int) string {
	stat, _ := os.ReadFile(filepath.Join(proc, strconv.Itoa(pid), "stat")) //nolint:gosec // the kernel's
	_, rest, _ := strings.Cut(string(stat), "(")
	end := strings.LastIndex(rest, ") ")
	if end < 0 {
		return "of which nothing is known"
	}
	name, state := rest[:end], rest[end+len(") "):]
	switch state[:min(1, len(state))] {
	case "D":
		name += ", which waits for a device"
	case "T", "t":
		name += ", which is stopped"
	}
	return name
}
