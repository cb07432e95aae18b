package ctl

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"
	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
	"github.com/lvmsnap/lvmsnap/pkg/hostexec"
)

func (a *app) bundleCommand() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use:   "support-bundle",
		Short: "Writes what is needed to find out what is wrong into a .tar.gz",
		Long: `Writes what is needed to find out what is wrong into a .tar.gz: versions, the inventory and doctor's findings as JSON, what LVM, the kernel
and device-mapper say of the driver's volume groups, LVM's settings that are not its defaults, mounts of the driver's volumes, LVM processes
and what they wait for, the driver's metrics (where it serves any) and its log (of the unit lvmsnap; a pod's is with kubectl logs), and of the
kernel log what names a device of the groups by its present name or number, what device-mapper says of metadata, and which tasks hang.

Nothing else goes in: no environment, no command lines, no Kubernetes objects, no content of a volume, nothing of other volume groups. The names
of claims, snapshots and namespaces are in it. Look into it before you send it to somebody.

From a pod, without -t, which would change the bytes: kubectl exec -n lvmsnap-system POD -c lvmsnap -- lvmsnapctl support-bundle -f - > bundle.tar.gz`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.with(cmd.Context(), func(h *Host) error { return a.bundle(cmd.Context(), h, file) })
		},
	}
	cmd.Flags().StringVarP(&file, "file", "f", "", "write to this `file`, - for standard output; default lvmsnap-support-TIME.tar.gz, where nothing can be written in --work-dir")
	a.workDirFlag(cmd)
	return cmd
}

func (a *app) bundle(ctx context.Context, h *Host, file string) (err error) {
	if file == "-" {
		return a.writeBundle(ctx, h, a.Out)
	}
	f, err := a.bundleFile(file)
	if err != nil {
		return err
	}
	if err = errors.Join(a.writeBundle(ctx, h, f), f.Close()); err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	_, err = fmt.Fprintln(a.Out, f.Name())
	return err
}

// bundleFile makes the file that was asked for, or one in the current directory; a container's is read-only, and it has another.
func (a *app) bundleFile(file string) (*os.File, error) {
	create := func(file string) (*os.File, error) {
		return os.OpenFile(file, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600) //nolint:gosec // where the caller wants it
	}
	if file != "" {
		return create(file)
	}
	file = "lvmsnap-support-" + a.Now().UTC().Format("20060102T150405Z") + ".tar.gz"
	f, err := create(file)
	if err == nil || errors.Is(err, fs.ErrExist) {
		return f, err
	}
	return create(filepath.Join(a.WorkDir, file))
}

// archive is a .tar.gz in the making.
type archive struct {
	tar *tar.Writer
	now time.Time
	err error
}

func (t *archive) add(name string, content []byte) {
	if t.err != nil {
		return
	}
	header := &tar.Header{Name: "lvmsnap-support/" + name, Mode: 0o600, Size: int64(len(content)), ModTime: t.now}
	if t.err = t.tar.WriteHeader(header); t.err == nil {
		_, t.err = t.tar.Write(content)
	}
}

// addJSON adds a value, and why there is no more: what is broken is why somebody makes a bundle.
func (t *archive) addJSON(name string, value any, err error) {
	if err != nil {
		t.add(name+".error.txt", []byte(err.Error()+"\n"))
	}
	text, err := json.MarshalIndent(value, "", "  ")
	if err != nil {
		text = []byte(err.Error())
	}
	t.add(name, append(text, '\n'))
}

// partLimit is for one question, so that one that hangs does not keep the others from being asked.
const partLimit = time.Minute

func (a *app) writeBundle(ctx context.Context, h *Host, w io.Writer) error {
	zip := gzip.NewWriter(w)
	t := &archive{tar: tar.NewWriter(zip), now: a.Now()}
	t.add("version.txt", []byte("lvmsnapctl "+a.Version+"\n"+system(h.Root)))
	limited := func(fn func(context.Context)) {
		ctx, cancel := context.WithTimeout(ctx, partLimit)
		defer cancel()
		fn(ctx)
	}
	limited(func(ctx context.Context) {
		inv, err := h.inventory(ctx, false)
		t.addJSON("inventory.json", inv, err)
	})
	limited(func(ctx context.Context) {
		d, err := a.diagnose(ctx, h, false)
		t.addJSON("doctor.json", d, err)
	})
	for _, c := range bundleCommands(h.Groups) {
		limited(func(ctx context.Context) { t.add(c.file, h.answer(ctx, c)) })
	}
	mounts, err := os.ReadFile("/proc/self/mounts")
	t.add("mounts.txt", lines(mounts, err, func(line string) bool { return h.isDevice(strings.TrimPrefix(line, "/dev/mapper/")) }))
	var running strings.Builder
	for _, p := range h.processes() {
		running.WriteString(p.String() + "\n")
	}
	t.add("processes.txt", []byte(running.String()))
	limited(func(ctx context.Context) { t.add("kernel.txt", h.kernelLines(ctx)) })
	limited(func(ctx context.Context) { t.add("metrics.txt", metrics(ctx, a.driverFlag("metrics-address", ""))) })
	return errors.Join(t.err, t.tar.Close(), zip.Close())
}

// question is a command that only reads, and which lines of its answer are of the driver's groups.
type question struct {
	file     string
	argv     []string
	ofGroups bool // only lines that begin with a device of one of the groups
}

func bundleCommands(groups []string) []question {
	lvm := func(file string, args ...string) question {
		return question{file: file, argv: append(append([]string{"lvm", args[0], "--readonly", "--units", "b"}, args[1:]...), groups...)}
	}
	return []question{
		lvm("lvs.txt", "lvs", "--all", "--options", "vg_name,lv_name,lv_attr,lv_size,pool_lv,origin,segtype,transaction_id,thin_id,lv_uuid,devices,lv_tags"),
		lvm("vgs.txt", "vgs", "--options", "vg_name,vg_attr,vg_size,vg_free,vg_extent_size,vg_mda_count,vg_mda_size,vg_mda_free,vg_seqno,vg_missing_pv_count,pv_name,pv_size,pv_free,pv_attr"),
		{file: "lvmconfig.txt", argv: []string{"lvm", "lvmconfig", "--typeconfig", "diff"}},
		{file: "lvm-version.txt", argv: []string{"lvm", "version"}},
		{file: "driver.log", argv: []string{"journalctl", "--unit", "lvmsnap", "--since", "-2d", "--lines", "10000", "--output", "short-iso", "--no-pager"}},
		{file: "thin-tools.txt", argv: []string{"thin_check", "-V"}},
		{file: "dmsetup-info.txt", argv: []string{"dmsetup", "info", "--columns", "--noheadings"}, ofGroups: true},
		{file: "dmsetup-status.txt", argv: []string{"dmsetup", "status", "--noflush"}, ofGroups: true},
	}
}

func (h *Host) answer(ctx context.Context, q question) []byte {
	res, err := h.Runner.Run(ctx, hostexec.Command{
		Name: q.argv[0], Args: q.argv[1:], Env: []string{"LVM_SUPPRESS_FD_WARNINGS=1", "HOME=/dev/null"}, Interruptible: true,
	})
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	out := res.Stdout
	if q.ofGroups {
		out = lines(out, nil, h.isDevice)
	}
	if res.ExitCode != 0 || len(res.Stderr) > 0 {
		out = fmt.Appendf(out, "\n(exit code %d)\n%s", res.ExitCode, res.Stderr)
	}
	return out
}

// isDevice: a line begins with the device-mapper name of one of the groups' devices.
func (h *Host) isDevice(line string) bool {
	return slices.ContainsFunc(h.Groups, func(g string) bool {
		rest, ok := strings.CutPrefix(line, dm.DeviceName(g, ""))
		return ok && rest != "" && rest[0] != '-'
	})
}

func lines(text []byte, err error, keep func(string) bool) []byte {
	if err != nil {
		return []byte(err.Error() + "\n")
	}
	var out bytes.Buffer
	for line := range strings.Lines(string(text)) {
		if keep(line) {
			out.WriteString(line)
		}
	}
	return out.Bytes()
}

// system is what kernel and distribution this is.
func system(root string) string {
	var name unix.Utsname
	out := ""
	if unix.Uname(&name) == nil {
		out = fmt.Sprintf("%s %s %s\n", unix.ByteSliceToString(name.Sysname[:]), unix.ByteSliceToString(name.Release[:]), unix.ByteSliceToString(name.Machine[:]))
	}
	release, err := os.ReadFile(filepath.Join("/", root, "etc/os-release")) //nolint:gosec // the host's own
	return out + string(lines(release, err, func(line string) bool { return strings.HasPrefix(line, "PRETTY_NAME=") }))
}
