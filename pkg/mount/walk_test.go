package mount

import (
	"errors"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// A link is followed only where nobody but root, or ourselves, can have made it, and never below kubelet's directory.
func TestOpenParent(t *testing.T) {
	root := t.TempDir()
	in := func(path string) string { return filepath.Join(root, path) }
	for path, mode := range map[string]os.FileMode{
		"": 0o755, "data": 0o755, "data/kubelet": 0o755, "data/kubelet/pods": 0o755, "open": 0o777, "sticky": os.ModeSticky | 0o777,
	} {
		if err := errors.Join(os.MkdirAll(in(path), 0o755), os.Chmod(in(path), mode)); err != nil {
			t.Fatal(err)
		}
	}
	for link, to := range map[string]string{
		"kubelet": "data/kubelet", "absolute": "/data/kubelet", "up": "open/../data/kubelet", "loop": "loop", "dangling": "nowhere",
		"open/link": "../data/kubelet", "sticky/link": "../data/kubelet", "data/kubelet/link": "pods", "file": "data/file",
	} {
		if err := os.Symlink(to, in(link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.WriteFile(in("data/file"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		below, path string
		leads       string
		err         error
	}{
		{"", "/data/kubelet/pods/x", "data/kubelet/pods", nil},
		{"", "/kubelet/pods/x", "data/kubelet/pods", nil},
		{"", "/absolute/pods/x", "data/kubelet/pods", nil},
		{"", "/sticky/link/pods/x", "data/kubelet/pods", nil},
		{"", "/data/kubelet/link/x", "data/kubelet/pods", nil},
		{"", "/up/pods/x", "data/kubelet/pods", nil},
		{"", "/open/x", "open", nil},
		{"", "/x", "", nil},
		{"", "/open/link/pods/x", "", ErrPath},
		{"", "/loop/x", "", unix.ELOOP},
		{"", "/dangling/x", "", os.ErrNotExist},
		{"", "/file/x", "", unix.ENOTDIR},
		{"", "/data/no/x", "", os.ErrNotExist},
		{"", "/data/../x", "", ErrPath},
		{"/data/kubelet", "/data/kubelet/pods/x", "data/kubelet/pods", nil},
		{"/data/kubelet", "/data/kubelet/x", "data/kubelet", nil},
		{"/kubelet", "/kubelet/pods/x", "data/kubelet/pods", nil}, // the directory itself may be moved
		{"/data/kubelet", "/data/kubelet/link/x", "", ErrPath},
		{"/data/kubelet", "/data/kubelet", "", ErrPath},
		{"/data/kubelet", "/data/kubeletx/x", "", ErrPath},
		{"/data/kubelet", "/open/x", "", ErrPath},
		{"/open/link", "/open/link/x", "", ErrPath},
	} {
		dir, name, err := tree{root: root, below: tc.below}.openParent(tc.path)
		if !errors.Is(err, tc.err) {
			t.Errorf("%s in %q: %v, want %v", tc.path, tc.below, err, tc.err)
		}
		if err != nil {
			continue
		}
		leads, err := os.Readlink(fdPath(dir))
		if err != nil || leads != in(tc.leads) || name != "x" {
			t.Errorf("%s in %q leads to %s and %s, %v; want %s", tc.path, tc.below, leads, name, err, tc.leads)
		}
		_ = dir.Close()
	}
}
