package main

import (
	"bytes"
	"errors"
	"os"
	"strings"
	"testing"
	"time"

	"github.com/google/go-cmp/cmp"
	"k8s.io/klog/v2"
)

// Scripts and manifests depend on the names and defaults: a change here breaks them.
func TestParseFlags(t *testing.T) {
	hostName, err := os.Hostname()
	if err != nil {
		t.Fatal(err)
	}
	defaults := func(change func(*options)) options {
		o := options{
			endpoint: "unix:///csi/csi.sock", nodeID: hostName, driverName: "csi.lvmsnap.io", volumeGroups: []string{"vg"},
			workDir: "/run/lvmsnap", poolDataReserve: 5, poolMetadataReserve: 10, copyParallelism: 2, copyCheckpoint: time.Minute, cowThreshold: 70, cowPercent: 20,
			poolThreshold: 100, poolPercent: 20, overprovisionRatio: 3, stuckAfter: 2 * time.Minute, logFormat: formatText,
		}
		change(&o)
		return o
	}
	for name, tt := range map[string]struct {
		args     []string
		nodeName string
		want     options
	}{
		"defaults": {args: []string{"--volume-group", "vg"}, want: defaults(func(*options) {})},
		"all": {
			args: []string{
				"--endpoint=unix:/x.sock", "--node-id=n1", "--driver-name=d.example", "--volume-group=a", "--metrics-address=:9090", "--enable-pprof", "--kubernetes-events",
				"--work-dir=/var/x", "--host-namespace", "--pool-data-reserve=1", "--pool-metadata-reserve=2", "-v=0",
				"--copy-rate-limit=100Mi", "--copy-parallelism=3", "--copy-checkpoint-interval=5s", "--cow-autoextend-threshold=0", "--cow-autoextend-percent=50%",
				"--pool-autoextend-threshold=80%", "--pool-autoextend-percent=10", "--overprovision-ratio=1.5", "--stuck-after=3s",
				"--kubelet-dir=/data/kubelet",
				"--logging-format=json",
			},
			nodeName: "not this",
			want: options{
				endpoint: "unix:/x.sock", nodeID: "n1", driverName: "d.example", volumeGroups: []string{"a"}, metricsAddress: ":9090", enablePprof: true, kubernetesEvents: true,
				workDir: "/var/x", hostNamespace: true, poolDataReserve: 1, poolMetadataReserve: 2,
				copyRateLimit: 100 << 20, copyParallelism: 3, copyCheckpoint: 5 * time.Second, cowThreshold: 0, cowPercent: 50,
				poolThreshold: 80, poolPercent: 10, overprovisionRatio: 1.5, stuckAfter: 3 * time.Second,
				kubeletDir: "/data/kubelet", logFormat: formatJSON,
			},
		},
		"groups, repeated": {
			args: []string{"--volume-group", "a", "--volume-group", "b"},
			want: defaults(func(o *options) { o.volumeGroups = []string{"a", "b"} }),
		},
		"groups, by commas": {
			args: []string{"--volume-group=b,a"},
			want: defaults(func(o *options) { o.volumeGroups = []string{"b", "a"} }),
		},
		"groups, both": {
			args: []string{"--volume-group=c,a", "--volume-group=b"},
			want: defaults(func(o *options) { o.volumeGroups = []string{"c", "a", "b"} }),
		},
		"NODE_NAME": {
			args: []string{"--volume-group=vg"}, nodeName: "worker-3",
			want: defaults(func(o *options) { o.nodeID = "worker-3" }),
		},
		"percentages": {
			args: []string{"--volume-group=vg", "--pool-data-reserve=2.5%", "--pool-metadata-reserve", "0"},
			want: defaults(func(o *options) { o.poolDataReserve, o.poolMetadataReserve = 2.5, 0 }),
		},
		"largest percentage": {
			args: []string{"--volume-group=vg", "--pool-data-reserve=99.9%"},
			want: defaults(func(o *options) { o.poolDataReserve = 99.9 }),
		},
		"version needs nothing else": {
			args: []string{"--version"}, nodeName: "n",
			want: options{
				endpoint: "unix:///csi/csi.sock", driverName: "csi.lvmsnap.io", workDir: "/run/lvmsnap",
				poolDataReserve: 5, poolMetadataReserve: 10, copyParallelism: 2, copyCheckpoint: time.Minute, cowThreshold: 70, cowPercent: 20,
				poolThreshold: 100, poolPercent: 20, overprovisionRatio: 3, stuckAfter: 2 * time.Minute, logFormat: formatText, version: true,
			},
		},
	} {
		t.Run(name, func(t *testing.T) {
			t.Setenv("NODE_NAME", tt.nodeName)
			var out bytes.Buffer
			got, err := parseFlags(tt.args, &out)
			if err != nil {
				t.Fatal(err)
			}
			if diff := cmp.Diff(tt.want, got, cmp.AllowUnexported(options{})); diff != "" {
				t.Error(diff)
			}
			if out.Len() > 0 {
				t.Errorf("printed %q", out.String())
			}
		})
	}
}

func TestParseFlagsRefuses(t *testing.T) {
	restoreVerbosity(t)
	for name, tt := range map[string]struct {
		args  []string
		words string
	}{
		"no group":            {nil, "--volume-group: name at least one"},
		"an empty group":      {[]string{"--volume-group="}, "--volume-group: name at least one"},
		"nothing by a comma":  {[]string{"--volume-group=a,"}, `--volume-group: "" is not a valid LVM name`},
		"an option as group":  {[]string{"--volume-group", "-rf"}, `--volume-group: "-rf" is not a valid LVM name`},
		"a path as group":     {[]string{"--volume-group=/dev/vg"}, `--volume-group: "/dev/vg" is not a valid LVM name`},
		"a group twice":       {[]string{"--volume-group=a,b,a"}, "--volume-group: a is named twice"},
		"a relative work-dir": {[]string{"--volume-group=a", "--work-dir=run"}, `--work-dir: "run" is not an absolute path`},
		"a detour as kubelet": {[]string{"--volume-group=a", "--kubelet-dir=/a/../b"}, "--kubelet-dir: unsafe path"},
		"all as kubelet":      {[]string{"--volume-group=a", "--kubelet-dir=/"}, "--kubelet-dir: unsafe path"},
		"unknown flag":        {[]string{"--volume-group=a", "--pool-reserve=5"}, "unknown flag: --pool-reserve"},
		"unknown shorthand":   {[]string{"--volume-group=a", "-x"}, "unknown shorthand flag: 'x'"},
		"an argument":         {[]string{"--volume-group=a", "b"}, `unexpected argument "b"`},
		"profiles nowhere":    {[]string{"--volume-group=a", "--enable-pprof"}, "--enable-pprof: needs --metrics-address"},
		"no percentage":       {[]string{"--volume-group=a", "--pool-data-reserve=x"}, "not a percentage"},
		"negative percentage": {[]string{"--volume-group=a", "--pool-data-reserve=-1"}, "not a percentage"},
		"all of a pool":       {[]string{"--volume-group=a", "--pool-metadata-reserve=100%"}, "not a percentage"},
		"not a number":        {[]string{"--volume-group=a", "--pool-metadata-reserve=NaN"}, "not a percentage"},
		"a size":              {[]string{"--volume-group=a", "--pool-data-reserve=5G"}, "not a percentage"},
		"no rate":             {[]string{"--volume-group=a", "--copy-rate-limit=fast"}, "not a size"},
		"no copies":           {[]string{"--volume-group=a", "--copy-parallelism=0"}, "--copy-parallelism: 0"},
		"no checkpoints":      {[]string{"--volume-group=a", "--copy-checkpoint-interval=0"}, "--copy-checkpoint-interval: 0s"},
		"no extension":        {[]string{"--volume-group=a", "--cow-autoextend-percent=0"}, "--cow-autoextend-percent: 0%"},
		"no pool extension":   {[]string{"--volume-group=a", "--pool-autoextend-percent=0"}, "--pool-autoextend-percent: 0%"},
		"a low threshold":     {[]string{"--volume-group=a", "--pool-autoextend-threshold=49"}, "from 50 to 100"},
		"a high threshold":    {[]string{"--volume-group=a", "--pool-autoextend-threshold=101%"}, "from 50 to 100"},
		"less than a pool":    {[]string{"--volume-group=a", "--overprovision-ratio=0.9"}, "from 1 to 1000"},
		"a ratio, not":        {[]string{"--volume-group=a", "--overprovision-ratio=NaN"}, "from 1 to 1000"},
		"an unknown format":   {[]string{"--volume-group=a", "--logging-format=xml"}, "neither text nor json"},
		"vmodule in JSON":     {[]string{"--volume-group=a", "--logging-format=json", "--vmodule=a=1"}, "--vmodule: works with"},
		"a loud voice":        {[]string{"--volume-group=a", "-v=loud"}, "invalid argument \"loud\""},
	} {
		t.Run(name, func(t *testing.T) {
			var out bytes.Buffer
			_, err := parseFlags(tt.args, &out)
			if err == nil || !strings.Contains(err.Error(), tt.words) {
				t.Errorf("got %v, want %q", err, tt.words)
			}
			if out.Len() > 0 {
				t.Errorf("printed %q; main prints the error", out.String())
			}
		})
	}
}

func TestHelp(t *testing.T) {
	for _, arg := range []string{"--help", "-h"} {
		var out bytes.Buffer
		if _, err := parseFlags([]string{arg}, &out); !errors.Is(err, errHelp) {
			t.Errorf("%s: %v", arg, err)
		}
		for _, words := range []string{"Usage: lvmsnap --volume-group NAME", "--pool-data-reserve", "(default 5%)", "-v, --v"} {
			if !strings.Contains(out.String(), words) {
				t.Errorf("%s: %q is not in\n%s", arg, words, out.String())
			}
		}
	}
}

// restoreVerbosity sets klog's levels, which belong to the process, back when the test ends.
func restoreVerbosity(t *testing.T) {
	t.Cleanup(func() {
		fs := newFlagSet(new(options))
		if err := errors.Join(fs.Set("v", "0"), fs.Set("vmodule", "")); err != nil {
			t.Error(err)
		}
	})
}

func TestVerbosity(t *testing.T) {
	restoreVerbosity(t)
	for level, arg := range map[klog.Level]string{3: "-v3", 4: "-v=4", 5: "--v=5"} {
		if _, err := parseFlags([]string{"--volume-group=a", arg}, new(bytes.Buffer)); err != nil {
			t.Fatal(err)
		}
		if !klog.V(level).Enabled() || klog.V(level+1).Enabled() {
			t.Errorf("%s: the level is not %d", arg, level)
		}
	}
}
