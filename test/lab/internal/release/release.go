// Package release frees the lab's disks of whatever a test left on them: mounts,
// volume groups, device-mapper devices.
package release

import (
	"bufio"
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

// commandLimit is for one LVM command. None of them should take a tenth of it,
// but a device that a failed test left suspended must not hang the lab for ever.
const commandLimit = 30 * time.Second

// Disk takes away everything that sits on the block device called disk. The
// commands it runs get env, which must confine LVM to the lab's disks. What
// disk contains afterwards is undefined.
func Disk(disk string, env []string) error {
	name, err := kernelName(disk)
	if err != nil {
		return err
	}
	var problems []error
	note := func(err error) {
		if err != nil {
			problems = append(problems, err)
		}
	}
	stack := holders(name)
	for _, dev := range stack {
		// Whoever waits for a suspended device can be neither unmounted nor removed.
		if attribute(dev, "dm/suspended") == "1" {
			note(run(env, "dmsetup", "resume", attribute(dev, "dm/name")))
		}
	}
	for range 3 { // a mount may hide another one
		note(unmount(append(slices.Clone(stack), name)))
	}
	if isPhysicalVolume(disk) {
		note(run(env, "vgremove", "-ff", "-y", "--select", "pv_name="+disk))
	}
	for _, dev := range holders(name) {
		mapped := attribute(dev, "dm/name")
		note(run(env, "dmsetup", "remove", "--force", "--retry", mapped))
		removeLinks(mapped)
	}
	if left := holders(name); len(left) > 0 {
		return fmt.Errorf("%s is still used by %s: %w", disk, strings.Join(left, ", "), errors.Join(problems...))
	}
	return nil // what went wrong on the way does not matter
}

// kernelName is what /sys calls a device.
func kernelName(disk string) (string, error) {
	path, err := filepath.EvalSymlinks(disk)
	if err != nil {
		return "", err
	}
	return filepath.Base(path), nil
}

// holders lists the device-mapper devices on top of a device, uppermost first.
func holders(name string) []string {
	entries, err := os.ReadDir(filepath.Join("/sys/class/block", name, "holders"))
	if err != nil {
		return nil
	}
	var all []string
	for _, entry := range entries {
		for _, dev := range append(holders(entry.Name()), entry.Name()) {
			if !slices.Contains(all, dev) {
				all = append(all, dev)
			}
		}
	}
	return all
}

// isPhysicalVolume looks for LVM's label, which is in one of the first four
// sectors: asking LVM takes most of a second on a slow machine.
func isPhysicalVolume(disk string) bool {
	file, err := os.Open(disk)
	if err != nil {
		return false
	}
	defer file.Close()
	head := make([]byte, 4*512)
	_, err = io.ReadFull(file, head)
	return err == nil && bytes.Contains(head, []byte("LABELONE"))
}

// removeLinks removes /dev/GROUP/VOLUME of a device that LVM could not remove. It
// is LVM that makes these where there is no udevd.
func removeLinks(mapped string) {
	links, err := filepath.Glob("/dev/*/*")
	if err != nil {
		return
	}
	for _, link := range links {
		if target, err := os.Readlink(link); err == nil && target == "/dev/mapper/"+mapped {
			_ = os.Remove(link)
			_ = os.Remove(filepath.Dir(link)) // if that was the last one
		}
	}
}

func attribute(dev, name string) string {
	text, err := os.ReadFile(filepath.Join("/sys/class/block", dev, name))
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// unmount unmounts whatever is mounted from one of the devices, the last mount
// first.
func unmount(devices []string) error {
	numbers := map[string]bool{}
	for _, dev := range devices {
		numbers[attribute(dev, "dev")] = true
	}
	file, err := os.Open("/proc/self/mountinfo")
	if err != nil {
		return err
	}
	defer file.Close()

	var targets []string
	for scanner := bufio.NewScanner(file); scanner.Scan(); {
		fields := strings.Fields(scanner.Text())
		// 36 35 98:0 /root /target options [optional fields] - type source options
		dash := slices.Index(fields, "-")
		if dash < 5 || len(fields) < dash+3 {
			continue
		}
		if numbers[fields[2]] || numbers[deviceNumber(fields[dash+2])] {
			targets = append(targets, unescape.Replace(fields[4]))
		}
	}
	slices.Reverse(targets)
	var problems []error
	for _, target := range targets {
		err := unix.Unmount(target, unix.UMOUNT_NOFOLLOW)
		if errors.Is(err, unix.EBUSY) {
			err = unix.Unmount(target, unix.UMOUNT_NOFOLLOW|unix.MNT_DETACH)
		}
		if err != nil {
			problems = append(problems, fmt.Errorf("unmounting %s: %w", target, err))
		}
	}
	return errors.Join(problems...)
}

// unescape undoes what the kernel does to a space in mountinfo.
var unescape = strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)

// deviceNumber is the number of a mount's source. Btrfs needs it: it shows a
// number of its own invention in mountinfo.
func deviceNumber(source string) string {
	var stat unix.Stat_t
	if !strings.HasPrefix(source, "/dev/") || unix.Stat(source, &stat) != nil || stat.Mode&unix.S_IFMT != unix.S_IFBLK {
		return "none"
	}
	return fmt.Sprintf("%d:%d", unix.Major(stat.Rdev), unix.Minor(stat.Rdev))
}

func run(env []string, argv ...string) error {
	ctx, cancel := context.WithTimeout(context.Background(), commandLimit)
	defer cancel()
	cmd := exec.CommandContext(ctx, argv[0], argv[1:]...)
	cmd.Env = env
	var stderr strings.Builder
	cmd.Stderr = &stderr
	if err := cmd.Run(); err != nil {
		return fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, strings.TrimSpace(stderr.String()))
	}
	return nil
}
