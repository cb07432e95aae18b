package mount

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

func TestCheckFlags(t *testing.T) {
	for _, good := range []string{"noatime", "errors=remount-ro", "context=\"system_u:object_r:container_file_t:s0:c1,c2\"", "x-foo", "password=a b"} {
		if err := CheckFlags([]string{good}); err != nil {
			t.Errorf("%s: %v", good, err)
		}
	}
	for _, bad := range []string{
		"", "a,b", "a\nb", "a\x00", `a"b`, `context="open`, `a="b"c,d`, `a\`, "bind", "rbind", "move", "remount", "loop=/x", "device=/dev/sda", " bind",
		"x-mount.mkdir=0777", "X-mount.subdir=a",
	} {
		err := CheckFlags([]string{"noatime", bad})
		if !errors.Is(err, ErrFlag) {
			t.Errorf("%q is accepted", bad)
		} else if len(bad) > 8 && strings.Contains(err.Error(), bad) {
			t.Errorf("%q is in the error %v", bad, err)
		}
	}
}

func TestMaskFlags(t *testing.T) {
	text := "mount: /x: ext4: Unknown parameter 'password'. Bad value hunter2 for password=hunter2 ro; error"
	got := maskFlags(text, []string{"ro", "password=hunter2", "noatime"})
	if strings.Contains(got, "hunter2") || strings.Contains(got, "password") || !strings.Contains(got, "error") {
		t.Error(got)
	}
}

func TestCheckPath(t *testing.T) {
	for _, good := range []string{"/a", "/var/lib/kubelet/pods/x/volumes/kubernetes.io~csi/pvc/mount", "/a b/..c"} {
		if err := CheckPath(good); err != nil {
			t.Errorf("%q: %v", good, err)
		}
	}
	for _, bad := range []string{"", "a", "/", "/a/../b", "/a/..", "/a/", "//a", "/a/./b", "/a\nb", "/" + strings.Repeat("a", 5000)} {
		if err := CheckPath(bad); !errors.Is(err, ErrPath) {
			t.Errorf("%q: %v", bad, err)
		}
	}
}

// The target is what was asked for or nothing at all, and a link is never followed.
func TestEnsureTarget(t *testing.T) {
	dir := t.TempDir()
	outside := t.TempDir()
	path := func(name string) string { return filepath.Join(dir, name) }
	mustNot := func(what string, err error) {
		t.Helper()
		if !errors.Is(err, ErrPath) {
			t.Errorf("%s: %v", what, err)
		}
	}
	for range 2 {
		if err := errors.Join(EnsureTarget(path("d"), true), EnsureTarget(path("f"), false)); err != nil {
			t.Fatal(err)
		}
	}
	mustNot("a file where a directory belongs", EnsureTarget(path("f"), true))
	mustNot("a directory where a file belongs", EnsureTarget(path("d"), false))
	for name, to := range map[string]string{"todir": outside, "tofile": filepath.Join(outside, "new"), "dangling": "nowhere"} {
		if err := os.Symlink(to, path(name)); err != nil {
			t.Fatal(err)
		}
		mustNot(name, EnsureTarget(path(name), true))
		mustNot(name, EnsureTarget(path(name), false))
		mustNot("remove "+name, RemoveTarget(path(name)))
	}
	if err := unix.Mkfifo(path("fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	mustNot("fifo", EnsureTarget(path("fifo"), false))
	if left, _ := os.ReadDir(outside); len(left) != 0 {
		t.Errorf("a link was followed: %v", left)
	}
	if err := EnsureTarget(path("no/parent"), true); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("parents belong to the CO: %v", err)
	}
	for range 2 {
		if err := errors.Join(RemoveTarget(path("d")), RemoveTarget(path("f"))); err != nil {
			t.Error(err)
		}
	}
}

// fakeRunner answers blkid.
type fakeRunner struct {
	hostexec.Runner
	ran    []hostexec.Command
	result hostexec.Result
	err    error
}

func (r *fakeRunner) Run(_ context.Context, cmd hostexec.Command) (hostexec.Result, error) {
	r.ran = append(r.ran, cmd)
	return r.result, r.err
}

func TestProbeOfWhatIsNoDevice(t *testing.T) {
	h := NewHost(&fakeRunner{result: hostexec.Result{ExitCode: 2}}, "")
	file := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(file, make([]byte, 4096), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, path := range []string{file, filepath.Dir(file), file + "x", "/dev/null"} {
		if got, err := h.Probe(t.Context(), path); err == nil {
			t.Errorf("%s: %q and no error", path, got)
		}
	}
}

// What changes a device goes on when the caller has gone; what only looks does not.
func TestInterruptible(t *testing.T) {
	r := &fakeRunner{}
	h := NewHost(r, "")
	_, _ = h.read(t.Context(), "blkid")
	_, _ = h.change(t.Context(), "mkfs")
	if !r.ran[0].Interruptible || r.ran[1].Interruptible {
		t.Errorf("%+v", r.ran)
	}
}

func newSuper() btrfsSuper {
	s := make(btrfsSuper, superSize)
	copy(s[superMagic:], btrfsMagic)
	copy(s.uuid(superFSID), "original-fsid-01")
	copy(s.uuid(superDevFSID), "original-fsid-01")
	binary.LittleEndian.PutUint64(s[superNumDevices:], 1)
	binary.LittleEndian.PutUint64(s[0x60:], 4711) // log_root
	binary.LittleEndian.PutUint32(s, s.checksum())
	return s
}

func read(t *testing.T, s btrfsSuper) (btrfsSuper, error) {
	t.Helper()
	return readSuper(bytes.NewReader(s), 0)
}

func TestBtrfsRenew(t *testing.T) {
	origin := newSuper()
	seen := []string{string(origin.uuid(superFSID))}
	s := slices.Clone(origin)
	for range 3 { // a clone of a clone of a clone, or a repetition
		if err := errors.Join(s.checkRenewable(), s.renew()); err != nil {
			t.Fatal(err)
		}
		again, err := read(t, s)
		if err != nil {
			t.Fatal(err)
		}
		if slices.Contains(seen, string(again.uuid(superFSID))) {
			t.Error("no new fsid")
		}
		seen = append(seen, string(again.uuid(superFSID)))
		if got := string(again.metadataUUID()); got != "original-fsid-01" {
			t.Errorf("metadata_uuid = %q: metadata blocks would not match", got)
		}
		if string(again.uuid(superDevFSID)) != "original-fsid-01" {
			t.Error("dev_item.fsid must stay the metadata's")
		}
	}
	// Nothing else changes, least of all the log.
	for i := range s {
		switch {
		case i < superFSID+uuidSize, i >= superIncompat && i < superIncompat+8, i >= superMetadataUUID && i < superMetadataUUID+uuidSize:
		default:
			if s[i] != origin[i] {
				t.Errorf("byte %#x changed", i)
			}
		}
	}
}

// A power cut between the two 512-byte sectors of the write leaves a super block that is completed.
func TestBtrfsTornSuper(t *testing.T) {
	before := newSuper()
	after := slices.Clone(before)
	if err := after.renew(); err != nil {
		t.Fatal(err)
	}
	const sector = 512
	for name, torn := range map[string]btrfsSuper{
		"first sector only":  append(slices.Clone(after[:sector]), before[sector:]...),
		"second sector only": append(slices.Clone(before[:sector]), after[sector:]...),
	} {
		if torn.valid() {
			t.Fatalf("%s: the test tears nothing", name)
		}
		got, err := read(t, torn)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if string(got.metadataUUID()) != "original-fsid-01" || got.checkRenewable() != nil {
			t.Errorf("%s: %q", name, got.metadataUUID())
		}
	}
}

func TestBtrfsRefused(t *testing.T) {
	for name, change := range map[string]func(s btrfsSuper){
		"no magic":         func(s btrfsSuper) { s[superMagic] = 'x' },
		"two devices":      func(s btrfsSuper) { s[superNumDevices] = 2 },
		"seed":             func(s btrfsSuper) { binary.LittleEndian.PutUint64(s[superFlags:], 1<<32) },
		"half a btrfstune": func(s btrfsSuper) { binary.LittleEndian.PutUint64(s[superFlags:], 1<<36) },
		"sha256":           func(s btrfsSuper) { s[superCsumType] = 2 },
	} {
		s := newSuper()
		change(s)
		binary.LittleEndian.PutUint32(s, s.checksum())
		got, err := read(t, s)
		if err == nil {
			err = got.checkRenewable()
		}
		if !errors.Is(err, ErrDamaged) {
			t.Errorf("%s: %v", name, err)
		}
	}
	s := newSuper()
	s[0x500]++
	if _, err := read(t, s); !errors.Is(err, ErrDamaged) {
		t.Errorf("a wrong checksum: %v", err)
	}
}

func TestUnescape(t *testing.T) {
	for in, want := range map[string]string{`/a`: "/a", `/a\040b`: "/a b", `/a\134b\011`: "/a\\b\t", `/a\`: `/a\`, `/a\9`: `/a\9`} {
		if got := unescape(in); got != want {
			t.Errorf("unescape(%q) = %q, want %q", in, got, want)
		}
	}
}
