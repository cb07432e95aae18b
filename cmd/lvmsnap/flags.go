package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
	"k8s.io/klog/v2"

	"github.com/lvmsnap/lvmsnap/pkg/driver"
	"github.com/lvmsnap/lvmsnap/pkg/lvm"
	"github.com/lvmsnap/lvmsnap/pkg/mount"
)

// options are the flags. Scripts and manifests depend on their names: they do not change.
type options struct {
	endpoint            string
	nodeID              string
	driverName          string
	volumeGroups        []string
	metricsAddress      string
	enablePprof         bool
	kubernetesEvents    bool
	workDir             string
	hostNamespace       bool
	kubeletDir          string
	poolDataReserve     percent
	poolMetadataReserve percent
	poolThreshold       threshold
	poolPercent         percent
	overprovisionRatio  ratio
	copyRateLimit       quantity
	copyParallelism     uint16
	copyCheckpoint      time.Duration
	cowThreshold        percent
	cowPercent          percent
	stuckAfter          time.Duration
	logFormat           logFormat
	version             bool
}

// errHelp: the usage was asked for and printed.
var errHelp = errors.New("help")

func newFlagSet(o *options) *pflag.FlagSet {
	fs := pflag.NewFlagSet("lvmsnap", pflag.ContinueOnError)
	fs.StringVar(&o.endpoint, "endpoint", "unix:///csi/csi.sock", "the unix `socket` to serve CSI on")
	fs.StringVar(&o.nodeID, "node-id", "", "the `name` of this node; default $NODE_NAME, else the host name")
	fs.StringVar(&o.driverName, "driver-name", "csi.lvmsnap.io", "the `name` of the CSI driver; it marks the LVs that are its own")
	fs.StringSliceVar(&o.volumeGroups, "volume-group", nil,
		"a volume group that the driver may use (repeatable, or comma-separated); the first is the default. It touches no other, and in these no LV that it did not make")
	fs.StringVar(&o.metricsAddress, "metrics-address", "", "serve Prometheus metrics on this `address` (:9090, say); empty is off")
	fs.BoolVar(&o.enablePprof, "enable-pprof", false, "serve Go's profiles, too, under /debug/pprof/ on --metrics-address; they show the driver's memory, so keep that address to yourself")
	fs.BoolVar(&o.kubernetesEvents, "kubernetes-events", false, "tell users by Kubernetes events what they have to know of their claims and snapshots, with the service account of the driver's pod; needs the right to create and patch events")
	fs.StringVar(&o.workDir, "work-dir", "/run/lvmsnap", "a `directory` for run-time files; with --host-namespace, the same on the host")
	fs.BoolVar(&o.hostNamespace, "host-namespace", false, "run commands in the host's mount namespace (for a container that shares the host's PID namespace)")
	fs.StringVar(&o.kubeletDir, "kubelet-dir", "", "refuse staging and target paths that are not in this `directory`, and symbolic links below it; empty allows any path")
	o.poolDataReserve, o.poolMetadataReserve = 5, 10
	fs.Var(&o.poolDataReserve, "pool-data-reserve", "create nothing in a thin pool with less than this `percentage` of its data free")
	fs.Var(&o.poolMetadataReserve, "pool-metadata-reserve", "create nothing in a thin pool with less than this `percentage` of its metadata free")
	o.overprovisionRatio, o.poolThreshold, o.poolPercent = 3, 100, 20
	fs.Var(&o.overprovisionRatio, "overprovision-ratio", "the volumes of a thin pool may have together so `many` times its size, where their class does not say (overprovisionRatio)")
	fs.Var(&o.poolThreshold, "pool-autoextend-threshold", "extend the data or metadata of a thin pool that is fuller than this `percentage`; 100 is never")
	fs.Var(&o.poolPercent, "pool-autoextend-percent", "extend it by this `percentage` of its size")
	fs.Var(&o.copyRateLimit, "copy-rate-limit", "copy and zero volumes with at most so many `bytes` a second altogether (100Mi, say); 0 is no limit")
	fs.Uint16Var(&o.copyParallelism, "copy-parallelism", 2, "copy or zero at most this `number` of volumes at a time")
	fs.DurationVar(&o.copyCheckpoint, "copy-checkpoint-interval", time.Minute, "write down every so `often` how far a copy is, which is where it goes on after a restart; two changes of the group's metadata each time")
	o.cowThreshold, o.cowPercent = 70, 20
	fs.Var(&o.cowThreshold, "cow-autoextend-threshold", "extend the COW of a snapshot of a thick volume that is fuller than this `percentage`; 0 is never")
	fs.Var(&o.cowPercent, "cow-autoextend-percent", "extend it by this `percentage` of its size")
	fs.DurationVar(&o.stuckAfter, "stuck-after", 2*time.Minute, "answer probes with not ready when an operation has been at work in a volume group for longer than this `duration`")
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	o.logFormat = formatText
	fs.Var(&o.logFormat, "logging-format", "log in this `format`: text, or json with an object a line")
	logFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logFlags)
	fs.AddGoFlag(logFlags.Lookup("v"))
	fs.AddGoFlag(logFlags.Lookup("vmodule"))
	return fs
}

// parseFlags reads and checks the command line; what it prints goes to out.
func parseFlags(args []string, out io.Writer) (options, error) {
	var o options
	fs := newFlagSet(&o)
	fs.SetOutput(out)
	fs.Usage = func() {
		_, _ = fmt.Fprintf(out, "lvmsnap is the CSI driver for snapshots of LVM volumes.\n\nUsage: lvmsnap --volume-group NAME [flags]\n\n%s", fs.FlagUsages())
	}
	if err := fs.Parse(args); err != nil {
		if errors.Is(err, pflag.ErrHelp) {
			return o, errHelp
		}
		return o, err
	}
	if fs.NArg() > 0 {
		return o, fmt.Errorf("unexpected argument %q", fs.Arg(0))
	}
	if o.version {
		return o, nil
	}
	if o.nodeID == "" {
		o.nodeID = os.Getenv("NODE_NAME")
	}
	if o.nodeID == "" {
		name, err := os.Hostname()
		if err != nil {
			return o, fmt.Errorf("--node-id: %w", err)
		}
		o.nodeID = name
	}
	if vmodule := fs.Lookup("vmodule"); o.logFormat == formatJSON && vmodule.Changed {
		return o, errors.New("--vmodule: works with --logging-format=text only")
	}
	return o, o.validate()
}

func (o *options) validate() error {
	if len(o.volumeGroups) == 0 {
		return errors.New("--volume-group: name at least one volume group that the driver may use")
	}
	for i, name := range o.volumeGroups {
		if err := lvm.ValidateName(name); err != nil {
			return fmt.Errorf("--volume-group: %w", err)
		}
		if slices.Contains(o.volumeGroups[:i], name) {
			return fmt.Errorf("--volume-group: %s is named twice", name)
		}
	}
	if o.enablePprof && o.metricsAddress == "" {
		return errors.New("--enable-pprof: needs --metrics-address")
	}
	if o.copyParallelism == 0 {
		return errors.New("--copy-parallelism: 0 volumes at a time are none")
	}
	if o.copyCheckpoint <= 0 {
		return fmt.Errorf("--copy-checkpoint-interval: %s is not positive", o.copyCheckpoint)
	}
	if o.cowPercent == 0 {
		return errors.New("--cow-autoextend-percent: 0% is no extension; --cow-autoextend-threshold=0 turns it off")
	}
	if o.poolPercent == 0 {
		return errors.New("--pool-autoextend-percent: 0% is no extension; --pool-autoextend-threshold=100 turns it off")
	}
	if o.stuckAfter <= 0 {
		return fmt.Errorf("--stuck-after: %s is not positive", o.stuckAfter)
	}
	if !filepath.IsAbs(o.workDir) {
		return fmt.Errorf("--work-dir: %q is not an absolute path", o.workDir)
	}
	if o.kubeletDir != "" {
		if err := mount.CheckPath(o.kubeletDir); err != nil {
			return fmt.Errorf("--kubelet-dir: %w", err)
		}
	}
	return nil
}

// percent is a flag value: 5, 5% or 2.5%, from 0 to less than 100.
type percent float64

func (p *percent) String() string { return strconv.FormatFloat(float64(*p), 'g', -1, 64) + "%" }

// Set implements pflag.Value.
func (p *percent) Set(s string) error {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f >= 0 && f < 100) {
		return fmt.Errorf("%q is not a percentage from 0 to less than 100", s)
	}
	*p = percent(f)
	return nil
}

// Type implements pflag.Value.
func (p *percent) Type() string { return "percentage" }

// threshold is a flag value: as percent, from 50 to 100. LVM takes what is less than 50 for 50 (lvmthin(7)); here it is an error.
type threshold float64

func (t *threshold) String() string { return (*percent)(t).String() }

// Set implements pflag.Value.
func (t *threshold) Set(s string) error {
	f, err := strconv.ParseFloat(strings.TrimSuffix(s, "%"), 64)
	if err != nil || !(f >= 50 && f <= 100) {
		return fmt.Errorf("%q is not a percentage from 50 to 100", s)
	}
	*t = threshold(f)
	return nil
}

// Type implements pflag.Value.
func (t *threshold) Type() string { return "percentage" }

// ratio is a flag value: a number from 1.
type ratio float64

func (r *ratio) String() string { return strconv.FormatFloat(float64(*r), 'g', -1, 64) }

// Set implements pflag.Value.
func (r *ratio) Set(s string) error {
	f, err := driver.ParseRatio(s)
	*r = ratio(f)
	return err
}

// Type implements pflag.Value.
func (r *ratio) Type() string { return "number" }

// quantity is a flag value: bytes, as Kubernetes writes them (100Mi), or 0.
type quantity int64

func (q *quantity) String() string { return strconv.FormatInt(int64(*q), 10) }

// Set implements pflag.Value.
func (q *quantity) Set(s string) error {
	n, ok := driver.ParseQuantity(s)
	if !ok && s != "0" {
		return fmt.Errorf("%q is not a size such as 100Mi", s)
	}
	*q = quantity(n)
	return nil
}

// Type implements pflag.Value.
func (q *quantity) Type() string { return "bytes" }

// version is set by the Makefile (-X main.version), from git.
var version = "unknown"
