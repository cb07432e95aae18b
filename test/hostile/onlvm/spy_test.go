//go:build lab

package onlvm_test

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/lvmsnap/lvmsnap/test/internal/requests"
)

// programs are those that the driver starts.
var programs = []string{
	"lvm", "mount", "mkfs.ext4", "mkfs.xfs", "mkfs.btrfs", "e2fsck", "blkid", "resize2fs", "xfs_growfs", "btrfs",
}

// separator is in the record between arguments: none of ours has it.
const separator = "\x1f"

// The record of a program; what LVM's shell reads is recorded on its way.
const (
	record = `#!/bin/sh
line=$(printf '%%s\037' %[1]s "$@")
printf '%%s\n' "$line" >>%[3]s/programs
exec %[2]s "$@"
`
	recordLVM = `#!/bin/sh
if [ $# -eq 0 ]; then
  tee -a %[3]s/shell | %[2]s
else
  line=$(printf '%%s\037' %[1]s "$@")
  printf '%%s\n' "$line" >>%[3]s/programs
  exec %[2]s "$@"
fi
`
)

// spy stands before the programs in the driver's PATH, and writes down what they are given.
type spy struct {
	*testing.T
	dir                string
	read               map[string]int64
	commands, programs int
}

func newSpy(t *testing.T) *spy {
	dir, err := os.MkdirTemp("", "spy")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.RemoveAll(dir) })
	for _, name := range programs {
		path, err := exec.LookPath(name)
		if err != nil {
			t.Fatal(err)
		}
		script := record
		if name == "lvm" {
			script = recordLVM
		}
		if err := os.WriteFile(filepath.Join(dir, name), fmt.Appendf(nil, script, name, path, dir), 0o700); err != nil {
			t.Fatal(err)
		}
	}
	return &spy{T: t, dir: dir, read: map[string]int64{}}
}

// take returns the command lines since the last time: of LVM, and of other programs.
func (s *spy) take() (commands, others [][]string) {
	s.Helper()
	for _, line := range s.lines("shell") {
		commands = append(commands, strings.Split(line, " "))
	}
	for _, line := range s.lines("programs") {
		argv := strings.Split(strings.TrimSuffix(line, separator), separator)
		if argv[0] == "lvm" {
			commands = append(commands, argv[1:])
		} else {
			others = append(others, argv)
		}
	}
	return commands, others
}

// lines are the whole ones that were added to a record.
func (s *spy) lines(name string) []string {
	s.Helper()
	text, err := os.ReadFile(filepath.Join(s.dir, name))
	if errors.Is(err, os.ErrNotExist) {
		return nil
	}
	if err != nil {
		s.Fatal(err)
	}
	added := string(text[s.read[name]:])
	added = added[:strings.LastIndex(added, "\n")+1]
	s.read[name] += int64(len(added))
	return slices.DeleteFunc(strings.Split(added, "\n"), func(line string) bool { return line == "" })
}

// check says what must not have been given to LVM or another program.
func (s *spy) check(group, dir string) []error {
	s.Helper()
	commands, others := s.take()
	s.commands, s.programs = s.commands+len(commands), s.programs+len(others)
	var out []error
	for _, argv := range commands {
		out = append(out, requests.CheckCommand(argv, group))
	}
	for _, argv := range others {
		out = append(out, checkProgram(argv, group, dir))
	}
	return slices.DeleteFunc(out, func(err error) bool { return err == nil })
}

var (
	programOptions = strings.Fields(`-t -o --no-canonicalize -q -F -m0 -E -f -K -p -s -d`)
	programWords   = regexp.MustCompile(`^[A-Za-z0-9_./=,-]+$`)
	mountOptions   = regexp.MustCompile(`^[^\x00-\x1f\x7f]+$`)
	mountPlaces    = regexp.MustCompile(`^/proc/\d+/fd/\d+/\.$`)
)

// checkProgram: mount flags are the user's; all else is ours, and worked on is a device of the group or kubelet's directory.
func checkProgram(argv []string, group, dir string) error {
	for i, arg := range argv[1:] {
		known := slices.Contains(programOptions, arg) || !strings.HasPrefix(arg, "-") && programWords.MatchString(arg)
		if flags := argv[0] == "mount" && argv[i] == "-o"; flags && !mountOptions.MatchString(arg) || !flags && !known {
			return fmt.Errorf("a program was given %q in %q", arg, argv)
		}
	}
	last := argv[len(argv)-1]
	device := strings.HasPrefix(last, "/dev/"+group+"/csi-") && !strings.HasSuffix(last, "theirs")
	place := argv[0] == "mount" && mountPlaces.MatchString(last)
	if !device && !place && !strings.HasPrefix(last, dir+"/") {
		return fmt.Errorf("a program was to work on %q: %q", last, argv)
	}
	return nil
}
