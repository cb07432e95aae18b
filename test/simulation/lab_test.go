//go:build lab

package simulation_test

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
	"pgregory.net/rapid"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/test/lab/labtest"
)

// The same on real LVM, through the shell and with the metadata read from the disks, as in production.
func TestOnLVM(t *testing.T) {
	env, err := lvm.WriteConfig(t.Context(), hostexec.Host{}, t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	dir, err := lvm.LockingDir(t.Context(), hostexec.Host{}, env)
	if err != nil {
		t.Fatal(err)
	}
	var names []string
	for range 2 {
		names = append(names, labtest.VolumeGroup(t, labtest.Options{ThinPool: poolName, PoolSize: "2g", PoolMetadataSize: "16m"}).Name)
	}
	kernel := &dm.Control{}
	defer kernel.Close()
	seed(t, 2)
	st := newStats()
	defer st.report(t)
	rapid.Check(t, func(rt *rapid.T) {
		groups := names[:rapid.IntRange(1, 2).Draw(rt, "groups")]
		defer empty(t, groups)
		w := realWorld(t, kernel, env, groups)
		w.locks = lvm.FileLocks{Dir: dir}
		simulate(rt, w, st)
	})
}

// empty removes what a sequence has left, so that the next begins as it did.
func empty(t *testing.T, groups []string) {
	for _, g := range groups {
		if out := labtest.Run(t, "lvs", "--noheadings", "-o", "lv_name", "--select", "lv_name=~^csi-", g); strings.TrimSpace(out) != "" {
			labtest.Run(t, "lvremove", "--yes", g, "--select", "lv_name=~^csi-")
		}
	}
}

func realWorld(t *testing.T, kernel dm.Kernel, env []string, groups []string) *world {
	admin := lvm.Exec{Runner: hostexec.Host{}, Env: env}
	return &world{
		groups: groups,
		open: func(string) (lvm.Executor, lvm.MetadataReader, func()) {
			shell, reader := lvm.NewShell(hostexec.Host{}, env), &lvm.DiskReader{}
			return shell, reader, func() {
				if err := errors.Join(shell.Close(context.Background()), reader.Close()); err != nil {
					t.Error(err)
				}
			}
		},
		kernel: kernel,
		admin:  func(group string) *lvm.Client { return lvm.NewClient(admin, group) },
		write:  writeDevice, text: readDevice,
		reveal: func(group string) func() {
			if origins := inactiveOrigins(t, group); len(origins) > 0 {
				labtest.Run(t, append([]string{"lvchange", "--yes", "--activate", "y", "--ignoreactivationskip"}, origins...)...)
				return func() { labtest.Run(t, append([]string{"lvchange", "--yes", "--activate", "n"}, origins...)...) }
			}
			return func() {}
		},
		quiet: func(d *driver) {
			for len(d.Stats().Fills) > 0 {
				time.Sleep(10 * time.Millisecond)
			}
		},
		patient: true,
	}
}

// inactiveOrigins are what has to be activated so that all snapshots of a group can be read: thin ones, and the origins
// of COW snapshots.
func inactiveOrigins(t *testing.T, group string) []string {
	thin := labtest.Run(t, "lvs", "--noheadings", "-o", "vg_name,lv_name", "--separator", "/", "--select", "lv_name=~^csi-s- && segtype=thin && lv_active=''", group)
	thick := labtest.Run(t, "lvs", "--noheadings", "-o", "vg_name,lv_name", "--separator", "/", "--select", "lv_role=thickorigin && lv_active=''", group)
	return append(strings.Fields(thin), strings.Fields(thick)...)
}

const spotBytes = 4096

// spots are where a text is written. The least volume has them all.
var spots = []int64{0, mib, 2*mib + spotBytes}

func writeDevice(group, lv, text string) error {
	f, err := os.OpenFile(filepath.Join("/dev", group, lv), os.O_WRONLY|unix.O_SYNC, 0)
	if err != nil {
		return err
	}
	buf := make([]byte, spotBytes)
	copy(buf, text)
	for _, at := range spots {
		if _, err := f.WriteAt(buf, at); err != nil {
			return errors.Join(err, f.Close())
		}
	}
	return f.Close()
}

// readDevice reads all of a device: the same text at all spots, and zeroes elsewhere.
func readDevice(group, lv string, sizeBytes int64) (string, bool, error) {
	f, err := os.Open(filepath.Join("/dev", group, lv))
	if errors.Is(err, os.ErrNotExist) {
		return "", false, nil
	}
	if err != nil {
		return "", false, err
	}
	defer f.Close()
	all, err := io.ReadAll(f)
	if err != nil {
		return "", false, err
	}
	if int64(len(all)) != sizeBytes && sizeBytes > 0 {
		return "", false, fmt.Errorf("%d bytes, want %d", len(all), sizeBytes)
	}
	text := bytes.Clone(all[:spotBytes])
	first := string(bytes.TrimRight(text, "\x00"))
	for _, at := range spots {
		if got := all[at : at+spotBytes]; !bytes.Equal(got, text) {
			return "", false, fmt.Errorf("torn: %q at 0 and %q at %d", first, bytes.TrimRight(got, "\x00"), at)
		}
		clear(all[at : at+spotBytes])
	}
	if i := bytes.IndexFunc(all, func(r rune) bool { return r != 0 }); i >= 0 {
		return "", false, fmt.Errorf("%q at %d, where nothing was written", all[i:min(i+60, len(all))], i)
	}
	return first, true, nil
}
