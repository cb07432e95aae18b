package workload

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/test/internal/driverproc"
)

// Host is where the clients' volumes are.
type Host struct {
	*driverproc.Clients
	Group, Pool string
	// Foreign are LVs of the group that are none of the clients'.
	Foreign []string
}

// Together runs the clients at the same time.
func Together(workers []*Worker, fn func(*Worker) error) error {
	errs := make([]error, len(workers))
	var all sync.WaitGroup
	for i, w := range workers {
		all.Go(func() { errs[i] = fn(w) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// Verify ends all doubts and compares everything with what was reported. The clients do nothing meanwhile.
func (h *Host) Verify(workers []*Worker) error {
	if err := Together(workers, (*Worker).Resolve); err != nil {
		return err
	}
	if err := h.probe(); err != nil {
		return err
	}
	for _, w := range workers {
		if err := w.list(); err != nil {
			return err
		}
	}
	if err := h.accounted(workers); err != nil {
		return err
	}
	if err := h.nothingSuspended(); err != nil {
		return err
	}
	for _, w := range workers {
		if err := w.checkVolumes(); err != nil {
			return err
		}
	}
	if err := h.checkSnapshots(workers); err != nil {
		return err
	}
	return h.checkMetadata()
}

// checkMetadata has LVM's metadata and the pool's checked by their own tools, the latter as they are at a moment while it is at work.
func (h *Host) checkMetadata() error {
	if _, err := run("vgck", h.Group); err != nil {
		return err
	}
	device := dm.DeviceName(h.Group, h.Pool)
	if _, err := run("dmsetup", "message", device+"-tpool", "0", "reserve_metadata_snap"); err != nil {
		return err
	}
	_, err := run("thin_check", "--metadata-snap", "/dev/mapper/"+device+"_tmeta")
	_, released := run("dmsetup", "message", device+"-tpool", "0", "release_metadata_snap")
	return errors.Join(err, released)
}

// probe makes a volume and deletes it, which changes the group: leftovers are removed with any change.
func (h *Host) probe() error {
	ctx, cancel := context.WithTimeout(context.Background(), callTimeout)
	defer cancel()
	w := &Worker{}
	for {
		res, err := h.Controller.CreateVolume(ctx, &csi.CreateVolumeRequest{
			Name: "probe", CapacityRange: &csi.CapacityRange{RequiredBytes: 4 * mib}, VolumeCapabilities: []*csi.VolumeCapability{w.capability()},
		})
		if err == nil {
			_, err = h.Controller.DeleteVolume(ctx, &csi.DeleteVolumeRequest{VolumeId: res.GetVolume().GetVolumeId()})
		}
		if status.Code(err) != codes.Aborted {
			return err
		}
		time.Sleep(50 * time.Millisecond)
	}
}

// accounted: each LV is somebody's, and each that was reported is there.
func (h *Host) accounted(workers []*Worker) error {
	want := slices.Clone(h.Foreign)
	asides := map[string]bool{}
	for _, w := range workers {
		for _, v := range w.Volumes {
			want = append(want, filepath.Base(v.ID))
		}
		for _, s := range w.Snapshots {
			want = append(want, filepath.Base(s.ID))
			if s.Thick && w.Volumes[s.Volume] == nil {
				asides[s.Volume] = true
			}
		}
	}
	slices.Sort(want)
	var got []string
	for deadline := time.Now().Add(patience); ; time.Sleep(100 * time.Millisecond) {
		out, err := run("lvs", "--noheadings", "-o", "lv_name", h.Group)
		if err != nil {
			return err
		}
		got = strings.Fields(out)
		// A deleted thick volume stays as long as one of its snapshots, under another name.
		aside := func(name string) bool { return strings.HasPrefix(name, "csi-d-") }
		asideCount := 0
		got = slices.DeleteFunc(got, func(name string) bool {
			if aside(name) {
				asideCount++
			}
			return aside(name) || name == h.Pool
		})
		slices.Sort(got)
		if slices.Equal(got, want) && asideCount == len(asides) {
			return nil
		}
		if time.Now().After(deadline) {
			return fmt.Errorf("LVs: %v and %d set aside, want %v and %d", got, asideCount, want, len(asides))
		}
	}
}

func (h *Host) nothingSuspended() error {
	out, err := run("dmsetup", "info", "--columns", "--noheadings", "--separator", " ", "-o", "name,suspended")
	if err != nil {
		return err
	}
	for line := range strings.Lines(out) {
		if strings.HasSuffix(strings.TrimSpace(line), "Suspended") {
			return fmt.Errorf("a device is suspended: %s", line)
		}
	}
	return nil
}

func (w *Worker) checkVolumes() error {
	for _, v := range w.Volumes {
		if doubt, err := w.stage(v); doubt || err != nil {
			return errors.Join(err, fmt.Errorf("staging %s: in doubt: %t", v.Name, doubt))
		}
		if err := w.check(v); err != nil {
			return err
		}
	}
	return nil
}

// checkSnapshots reads every snapshot on a device that an administrator can activate.
func (h *Host) checkSnapshots(workers []*Worker) error {
	var thin, origins []string
	for _, w := range workers {
		for _, s := range w.Snapshots {
			if !s.Thick {
				thin = append(thin, h.Group+"/"+filepath.Base(s.ID))
			}
		}
	}
	out, err := run("lvs", "--noheadings", "-o", "lv_name", "--select", "lv_role=thickorigin && lv_active=''", h.Group)
	if err != nil {
		return err
	}
	for _, name := range strings.Fields(out) {
		origins = append(origins, h.Group+"/"+name)
	}
	lvs := slices.Concat(thin, origins)
	if len(lvs) > 0 {
		if _, err := run(append([]string{"lvchange", "--yes", "--activate", "y", "--ignoreactivationskip"}, lvs...)...); err != nil {
			return err
		}
	}
	var failed error
	for _, w := range workers {
		for _, s := range w.Snapshots {
			if err := w.holds(w.device(filepath.Base(s.ID)), s.Holds); err != nil {
				failed = errors.Join(failed, fmt.Errorf("snapshot %s of %s, cut at %s, asked for at %v: %w", s.Name, s.Volume, s.Created, s.Asked, err))
			}
		}
	}
	if len(lvs) > 0 {
		_, err = run(append([]string{"lvchange", "--yes", "--activate", "n"}, lvs...)...)
	}
	return errors.Join(failed, err)
}

// Check has LVM's metadata and the pool's checked by their own tools, which takes all of the group out of use.
func (h *Host) Check() error {
	if _, err := run("vgck", h.Group); err != nil {
		return err
	}
	if _, err := run("vgchange", "--activate", "n", h.Group); err != nil {
		return err
	}
	metadata := h.Group + "/" + h.Pool + "_tmeta"
	if _, err := run("lvchange", "--yes", "--activate", "y", metadata); err != nil {
		return err
	}
	_, err := run("thin_check", "/dev/"+metadata)
	_, off := run("lvchange", "--yes", "--activate", "n", metadata)
	return errors.Join(err, off)
}

// run runs an administrator's command.
func run(argv ...string) (string, error) {
	cmd := exec.Command(argv[0], argv[1:]...)
	cmd.Env = append(os.Environ(), "LC_ALL=C", "LVM_SUPPRESS_FD_WARNINGS=1")
	var stderr strings.Builder
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		return "", fmt.Errorf("%s: %w: %s", strings.Join(argv, " "), err, stderr.String())
	}
	return string(out), nil
}

// Release takes all of a client's volumes out of use.
func (w *Worker) Release() error {
	for _, v := range w.Volumes {
		if doubt, err := w.unstage(v); doubt || err != nil {
			return errors.Join(err, fmt.Errorf("releasing %s: in doubt: %t", v.Name, doubt))
		}
	}
	return nil
}
