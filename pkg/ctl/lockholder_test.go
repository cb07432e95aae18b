package ctl

import (
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/storage"
)

func TestLockFinding(t *testing.T) {
	proc, dir := t.TempDir(), t.TempDir()
	write := func(path, text string) {
		t.Helper()
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	find := func() []storage.Finding {
		t.Helper()
		found, err := lockFinding(proc, dir, "data")
		if err != nil {
			t.Fatal(err)
		}
		return found
	}
	if found := find(); len(found) > 0 {
		t.Errorf("there is no lock: %+v", found)
	}
	lock := filepath.Join(dir, "V_data")
	write(lock, "")
	var st unix.Stat_t
	if err := unix.Stat(lock, &st); err != nil {
		t.Fatal(err)
	}
	line := func(n int, kind string, inode uint64) string {
		return fmt.Sprintf("%d: %s WRITE 123 %02x:%02x:%d 0 EOF\n", n, kind, unix.Major(st.Dev), unix.Minor(st.Dev), inode)
	}
	for what, text := range map[string]string{
		"nothing": "", "another file": line(1, "FLOCK  ADVISORY ", st.Ino+1), "one that waits": line(1, "-> FLOCK  ADVISORY ", st.Ino),
		"another kind": line(1, "POSIX  ADVISORY ", st.Ino), "a short line": "1: FLOCK\n",
	} {
		write(filepath.Join(proc, "locks"), text)
		if found := find(); len(found) > 0 {
			t.Errorf("%s: %+v", what, found)
		}
	}
	write(filepath.Join(proc, "locks"), line(1, "FLOCK  ADVISORY ", st.Ino+1)+line(2, "FLOCK  ADVISORY ", st.Ino))
	for stat, want := range map[string]string{
		"":                     "process 123, of which nothing is known",
		"123 (lvcreate) S 1 2": "process 123, lvcreate:",
		"123 (a) D (b) D 1 2":  "process 123, a) D (b, which waits for a device",
		"123 (lvm) T 1 2":      "process 123, lvm, which is stopped",
		"123 (lvm) ":           "process 123, lvm:",
	} {
		write(filepath.Join(proc, "123", "stat"), stat)
		found := find()
		if len(found) != 1 || found[0].Object != "data" || !found[0].Passing || !strings.Contains(found[0].Message, want) {
			t.Errorf("%q: %+v, want %q", stat, found, want)
		}
	}
}
