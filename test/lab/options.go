package main

import (
	"errors"
	"fmt"
	"math"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/pflag"
)

// The values of --mode.
const (
	modeAuto   = "auto"
	modeNative = "native"
	modeUML    = "uml"
)

// maxDisks is what User Mode Linux has room for: ubda to ubdp, of which ubda
// stays unused since the machine's root is the host's file system.
const maxDisks = 15

// minHungAfter leaves a machine the time to boot, and a heart a few beats.
const minHungAfter = 5 * beatInterval

// options are the lab's flags.
type options struct {
	mode          string
	disks         int
	diskFiles     []string
	diskSizeBytes int64
	memoryBytes   int64
	network       string
	timeout       time.Duration
	hungAfter     time.Duration
	hungRetries   int
	install       bool
	verbose       bool
	check         bool
	listPackages  bool
	argv          []string
}

// byteSize is a pflag.Value for sizes such as 8GiB or 512M. All units are binary,
// as in LVM.
type byteSize int64

func (b *byteSize) String() string {
	for _, unit := range []struct {
		suffix string
		bytes  byteSize
	}{{"GiB", 1 << 30}, {"MiB", 1 << 20}, {"KiB", 1 << 10}} {
		if *b != 0 && *b%unit.bytes == 0 {
			return fmt.Sprintf("%d%s", *b/unit.bytes, unit.suffix)
		}
	}
	return strconv.FormatInt(int64(*b), 10)
}

func (b *byteSize) Type() string { return "size" }

func (b *byteSize) Set(text string) error {
	digits := strings.TrimRight(text, "KkMmGgTtIiBb")
	unit := strings.ToUpper(text[len(digits):])
	shift, known := map[string]uint{
		"": 0, "B": 0, "K": 10, "KIB": 10, "M": 20, "MIB": 20, "G": 30, "GIB": 30, "T": 40, "TIB": 40,
	}[unit]
	if !known {
		return fmt.Errorf("unknown unit %q (use K, M, G or T)", unit)
	}
	n, err := strconv.ParseInt(digits, 10, 64)
	if err != nil || n <= 0 || n > math.MaxInt64>>shift {
		return fmt.Errorf("%q is not a size", text)
	}
	*b = byteSize(n << shift)
	return nil
}

// parseOptions reads the lab's flags up to the first word that is none: the
// command's flags are its own.
func parseOptions(args []string, getenv func(string) string) (*options, error) {
	opts := &options{mode: modeAuto}
	if mode := getenv("LAB_MODE"); mode != "" {
		opts.mode = mode
	}
	diskSize, memory := byteSize(8<<30), byteSize(1<<30)

	flags := pflag.NewFlagSet("lab", pflag.ContinueOnError)
	flags.SetInterspersed(false)
	flags.SortFlags = false
	flags.Usage = func() {
		fmt.Fprintf(os.Stderr, "Usage: lab [flags] [--] COMMAND ARGS...\n\n"+
			"Runs COMMAND on a machine with real device-mapper and disks to throw away.\n\n%s", flags.FlagUsages())
	}
	flags.StringVar(&opts.mode, "mode", opts.mode, "auto, native or uml (or set LAB_MODE)")
	flags.IntVar(&opts.disks, "disks", 2, fmt.Sprintf("number of disks that are thrown away; with --disk at most %d", maxDisks))
	flags.StringArrayVar(&opts.diskFiles, "disk", nil, "a file that is a disk before the others, made if it is not there, and kept; may be repeated")
	flags.Var(&diskSize, "disk-size", "size of each disk; the files are sparse")
	flags.Var(&memory, "memory", "memory of the uml machine")
	flags.StringVar(&opts.network, "network", "", "the socket of a switch (test/lab/labnet), to which the uml machine's interface vec0 is connected")
	flags.DurationVar(&opts.timeout, "timeout", 30*time.Minute, "end the machine after this time, with exit code 124; 0: never")
	flags.DurationVar(&opts.hungAfter, "hung-after", 90*time.Second,
		"declare the uml machine hung when its heart has not beaten for so long: say what is known of it, and end it with exit code 75; 0: never")
	flags.IntVar(&opts.hungRetries, "hung-retries", 0, "how often to start again, on a fresh machine, a command whose machine was declared hung")
	flags.BoolVar(&opts.install, "install", true, "install missing Debian packages when root")
	flags.BoolVar(&opts.verbose, "verbose", false, "show the console of the machine on standard error")
	flags.BoolVar(&opts.check, "check", false, "run nothing: see to the packages and print the mode")
	flags.BoolVar(&opts.listPackages, "packages", false, "run nothing: print the Debian packages that the lab needs")
	if err := flags.Parse(args); err != nil {
		return nil, err
	}
	opts.diskSizeBytes, opts.memoryBytes = int64(diskSize), int64(memory)
	opts.argv = flags.Args()
	return opts, opts.validate()
}

func (o *options) validate() error {
	switch {
	case o.mode != modeAuto && o.mode != modeNative && o.mode != modeUML:
		return fmt.Errorf("--mode %q: use auto, native or uml", o.mode)
	case o.disks < 0 || o.disks+len(o.diskFiles) > maxDisks:
		return fmt.Errorf("--disks %d: use 0 to %d", o.disks, maxDisks-len(o.diskFiles))
	case o.diskSizeBytes%4096 != 0:
		return errors.New("--disk-size: use a multiple of 4KiB")
	case o.memoryBytes < 128<<20:
		return errors.New("--memory: a machine needs at least 128MiB")
	case o.timeout < 0:
		return errors.New("--timeout: use a positive duration, or 0 for none")
	case o.hungAfter != 0 && o.hungAfter < minHungAfter:
		return fmt.Errorf("--hung-after %s: use at least %s, or 0 for never", o.hungAfter, minHungAfter)
	case o.hungRetries < 0:
		return fmt.Errorf("--hung-retries %d: use 0 or more", o.hungRetries)
	case len(o.argv) == 0 && !o.check && !o.listPackages:
		return errors.New("no command (lab --help tells the usage)")
	}
	return nil
}
