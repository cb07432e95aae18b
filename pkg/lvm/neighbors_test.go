package lvm_test

import (
	"context"
	"os"
	"path/filepath"
	"slices"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

// disks is a reader that knows where its group is, and nothing of what is there.
type disks []string

func (d disks) PhysicalVolumes() []string               { return d }
func (disks) Metadata(string) (lvm.Metadata, error)     { return lvm.Metadata{}, nil }
func (disks) Locate(context.Context, *lvm.Client) error { return nil }

// While the disks of one group hang, LVM is kept from them in the others, and only then.
func TestDisksOfAnotherGroupHang(t *testing.T) {
	dir := t.TempDir()
	hangs := filepath.Join(dir, "hangs") // opening it is what hangs here
	if err := unix.Mkfifo(hangs, 0o600); err != nil {
		t.Fatal(err)
	}
	release := func() {
		both, err := os.OpenFile(hangs, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = both.Close() })
	}
	if lvm.NewNeighbors(lvm.Version{2, 3, 11}) != nil {
		t.Error("an LVM that has no --devices would be given it")
	}
	fake, neighbors := lvmtest.New(), lvm.NewNeighbors(lvm.Version{2, 3, 12})
	groups := map[string]*lvm.Group{}
	for name, reader := range map[string]lvm.MetadataReader{
		"well": disks{"/dev/a", "[unknown]", "/dev/b"}, "ill": disks{filepath.Join(dir, "gone"), hangs}, "unknown": disks(nil),
	} {
		fake.AddGroup(name, 1<<30)
		g, err := lvm.NewGroup(name, lvm.GroupOptions{Executor: fake, Reader: reader, Neighbors: neighbors})
		if err != nil {
			t.Fatal(err)
		}
		groups[name] = g
	}
	command := func(group string, fn func(context.Context, *lvm.Client) error) []string {
		t.Helper()
		fake.ResetCommands()
		if err := groups[group].Do(t.Context(), "test", time.Minute, fn); err != nil {
			t.Fatal(err)
		}
		return fake.Commands()[0]
	}
	look := func(ctx context.Context, c *lvm.Client) error { _, err := c.LVs(ctx); return err }
	locate := func(ctx context.Context, c *lvm.Client) error {
		_, _ = c.PhysicalVolumes(ctx) // which the fake has none of
		return nil
	}
	for range 3 {
		if got := command("well", look); !slices.Equal(got[1:3], []string{"--devices", "/dev/a,/dev/b"}) {
			t.Errorf("beside a group that hangs: %q", got)
		}
	}
	for what, got := range map[string][]string{
		"the group that hangs": command("ill", look), "where the disks are": command("well", locate), "who does not know": command("unknown", look),
	} {
		if slices.Contains(got, "--devices") {
			t.Errorf("%s: %q", what, got)
		}
	}
	release()
	for deadline := time.Now().Add(10 * time.Second); slices.Contains(command("well", look), "--devices"); time.Sleep(time.Millisecond) {
		if time.Now().After(deadline) {
			t.Fatal("the disk answers again, and LVM is still kept from it")
		}
	}
}
