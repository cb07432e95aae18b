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
	"github.com/lvmsnap/lvmsnap/pkg/percentage"
	"github.com/lvmsnap/lvmsnap/pkg/storage/thin"
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

// usageWidth is what --help is as wide as.
const usageWidth = 140

// errHelp: the usage was asked for and printed.
var errHelp = errors.New("help")

func newFlagSet(o *options) *pflag.FlagSet {
	fs := pflag.NewFlagSet("lvmsnap", pflag.ContinueOnError)
	fs.SortFlags = false // the texts refer to those before them
	addIdentityFlags(fs, o)
	addRoomFlags(fs, o)
	fs.StringVar(&o.metricsAddress, "metrics-address", "", "serve Prometheus metrics over HTTP ('/metrics') on this `address`, such as ':9090'; empty is off")
	fs.BoolVar(&o.enablePprof, "enable-pprof", false, "serve Go's profiles, too, under '/debug/pprof/' of --metrics-address. They show the driver's memory and cost it time: keep that address to yourself while you use them")
	fs.BoolVar(&o.kubernetesEvents, "kubernetes-events", false, "tell users by Kubernetes events what they have to know of their claims and snapshots; the chart turns it on. By the service account of the driver's pod, which may create and patch events; anywhere else, and where the API does not answer, the driver goes on without")
	fs.DurationVar(&o.stuckAfter, "stuck-after", 2*time.Minute, "when an operation has been at work in a volume group for longer than this `duration`, answer probes with not ready, the command and what it waits for, and set 'lvmsnap_lvm_stuck_commands' to 1. When the command ends, work goes on without a restart")
	o.logFormat = formatText
	fs.Var(&o.logFormat, "logging-format", "log in this `format`: 'text', or 'json': an object a line with the keys 'ts' (milliseconds since the epoch), 'caller', 'msg', 'v', 'err' and those of the line, as Kubernetes' own components write it")
	addLogFlags(fs)
	fs.BoolVar(&o.version, "version", false, "print the version and exit")
	return fs
}

// What the driver is, and where it works. The help texts are docs/reference/flags.md, too: make reference.
func addIdentityFlags(fs *pflag.FlagSet, o *options) {
	fs.StringSliceVar(&o.volumeGroups, "volume-group", nil,
		"a volume `group` that the driver may use, required; repeatable, or comma-separated. The first is the default for classes that name none. It touches no other group, and in these no LV that it did not make")
	fs.StringVar(&o.endpoint, "endpoint", "unix:///csi/csi.sock", "serve CSI on this unix `socket`: 'unix:///path', 'unix:path' or a path; its permissions are 0600. A stale one is replaced, one that answers is an error")
	fs.StringVar(&o.nodeID, "node-id", "", "the `name` of this node in CSI and in topology ('topology.csi.lvmsnap.io/node'); default $NODE_NAME, else the host name. At most 63 letters, digits, '-', '_' and '.', a letter or digit first and last. It is a part of every handle (hashed): with another one the driver does not accept the volumes that it made before")
	fs.StringVar(&o.driverName, "driver-name", "csi.lvmsnap.io", "the `name` of the CSIDriver object. It marks the LVs that are the driver's: with another one it does not recognize those that it made before")
	fs.StringVar(&o.workDir, "work-dir", "/run/lvmsnap", "a `directory` (an absolute path) for the private lvm.conf. Nothing in it has to survive a restart. With --host-namespace it must be the same directory on the host")
	fs.BoolVar(&o.hostNamespace, "host-namespace", false, "run LVM and the other programs in the mount namespace of process 1, for a driver in a container that shares the host's PID namespace: then the host's LVM is used")
	fs.StringVar(&o.kubeletDir, "kubelet-dir", "", "staging and target paths have to be in this `directory` (kubelet's '--root-dir'), and no symbolic link below it is followed; empty allows any path, and follows a symbolic link only where nobody but root can have made it. The chart sets it")
}

// How much room and time things may take.
func addRoomFlags(fs *pflag.FlagSet, o *options) {
	o.poolDataReserve, o.poolMetadataReserve = thin.DefaultDataReservePercent, thin.DefaultMetadataReservePercent
	fs.Var(&o.poolDataReserve, "pool-data-reserve", "create nothing in a thin pool that has less than this `percentage` of its data free: '5', '5%' or '2.5%', below 100; 0 is no reserve")
	fs.Var(&o.poolMetadataReserve, "pool-metadata-reserve", "create nothing in a thin pool that has less than this `percentage` of its metadata free, as above")
	o.overprovisionRatio, o.poolThreshold, o.poolPercent = 3, 100, 20
	fs.Var(&o.overprovisionRatio, "overprovision-ratio", "the volumes of a thin pool may have together this `number` of times its size, and a new one as many times what is free in it, where the class does not say ('overprovisionRatio'); 1 to 1000")
	fs.Var(&o.poolThreshold, "pool-autoextend-threshold", "extend the data or metadata of a thin pool that is fuller than this `percentage`, or would be full within 3 s at its present pace; from 50, 100 is never. Never later than at the reserves above")
	fs.Var(&o.poolPercent, "pool-autoextend-percent", "extend it by this `percentage` of its size, or by what brings it below the threshold, or what it needs for 3 s at its pace; by less when the group has less")
	fs.Var(&o.copyRateLimit, "copy-rate-limit", "copy and zero volumes with at most so many `bytes` a second altogether ('100Mi', say); 0 is no limit")
	fs.Uint16Var(&o.copyParallelism, "copy-parallelism", 2, "copy or zero at most this `number` of volumes at a time; the others wait")
	fs.DurationVar(&o.copyCheckpoint, "copy-checkpoint-interval", time.Minute, "write down so often, every `duration`, how far a copy or zeroing is, in a tag of its volume: it goes on there after a restart. Each time is two changes of the group's metadata")
	o.cowThreshold, o.cowPercent = 70, 20
	fs.Var(&o.cowThreshold, "cow-autoextend-threshold", "extend the COW of a snapshot of a thick volume (class parameter 'cowSize') that is fuller than this `percentage`, or would be full within 3 s at its present pace; 0 is never. It is looked at every second: what fills it faster loses the snapshot")
	fs.Var(&o.cowPercent, "cow-autoextend-percent", "extend it by this `percentage` of its size, or by what it needs for 3 s at its pace")
}

// klog's own, of which two are of use; what its texts say is not what the levels mean here.
func addLogFlags(fs *pflag.FlagSet) {
	logFlags := flag.NewFlagSet("klog", flag.ContinueOnError)
	klog.InitFlags(logFlags)
	for _, f := range []struct{ name, help string }{
		{"v", "how much to log, a `level`: 0 has a line for each call, 2 says why there is no capacity, 4 shows every LVM command, 5 the requests and answers without secrets and mount flags"},
		{"vmodule", "the same for single source files, `pattern=level,...`; with --logging-format=text only"},
	} {
		flag := logFlags.Lookup(f.name)
		flag.Usage = f.help
		fs.AddGoFlag(flag)
	}
}

// parseFlags reads and checks the command line; what it prints goes to out.
func parseFlags(args []string, out io.Writer) (options, error) {
	var o options
	fs := newFlagSet(&o)
	fs.SetOutput(out)
	fs.Usage = func() {
		_, _ = fmt.Fprintf(out, "lvmsnap is the CSI driver for snapshots of LVM volumes.\n\nUsage: lvmsnap --volume-group NAME [flags]\n\n%s", fs.FlagUsagesWrapped(usageWidth))
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
type percent = percentage.Value

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
