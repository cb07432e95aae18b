// Package lvm is a typed client for LVM's command line. Every command of one volume group goes through one
// queue (Group) to one long-lived LVM shell (Shell); the verbs (Client) build argv from validated names only,
// read JSON reports and turn LVM's messages into errors. See lvm(8), lvmreport(7).
package lvm

import (
	"context"
	"errors"
	"fmt"
	"math"
	"strconv"
	"time"

	"go.opentelemetry.io/otel/trace"
	"k8s.io/klog/v2"
)

// Client has LVM's verbs for one volume group. Use it inside of Group.Do, so that nobody else changes the group
// meanwhile through this driver.
type Client struct {
	exec   Executor
	group  string
	reader *boundedReader // nil: LVM is asked
	locks  Locker         // nil: nobody else runs LVM
	on     func(CommandEvent)
	tracer trace.Tracer // nil: no spans
	turn   *turn        // in which the client works

	neighbors *Neighbors // nil: there is no other group
}

// CommandEvent tells an observer (metrics) about one finished command.
type CommandEvent struct {
	Group, Verb string
	Duration    time.Duration
	Err         error
}

// NewClient makes a client without a queue, for tests and tools.
func NewClient(exec Executor, group string) *Client { return &Client{exec: exec, group: group} }

// GroupName is the volume group that the client works on.
func (c *Client) GroupName() string { return c.group }

func (c *Client) path(lv string) string { return c.group + "/" + lv }

// View is the group's metadata, from the disks where it can be had there: what is only in the kernel (activity,
// health, percentages) is unknown then. Else it is what lvs and vgs report.
func (c *Client) View(ctx context.Context) (Metadata, error) {
	if c.reader != nil {
		m, err := c.reader.Metadata(c.group)
		if errors.Is(err, ErrStuck) {
			return Metadata{}, err
		}
		if err != nil && c.reader.Locate(ctx, c) == nil {
			m, err = c.reader.Metadata(c.group)
		}
		if err == nil {
			return m, nil
		}
	}
	vg, err := c.VG(ctx)
	if err != nil {
		return Metadata{}, err
	}
	lvs, err := c.LVs(ctx)
	return Metadata{
		Group: c.group, Sequence: vg.Sequence, ExtentBytes: vg.ExtentBytes, SizeBytes: vg.SizeBytes, FreeBytes: vg.FreeBytes, MissingPVs: vg.MissingPVs,
		LVs: lvs,
	}, err
}

// run runs one command and turns a failure into a CommandError.
func (c *Client) run(ctx context.Context, args ...string) (Document, error) {
	return c.runEverywhere(ctx, c.confine(ctx, args)...)
}

// runEverywhere is run, with all disks that the host's LVM may see.
func (c *Client) runEverywhere(ctx context.Context, args ...string) (Document, error) {
	if err := validateArgs(args); err != nil {
		return Document{}, err
	}
	start := time.Now()
	ctx, endSpan := traceCommand(ctx, c.tracer, c.group, args[0])
	c.turn.begin(args)
	if c.reader != nil && !reads(args[0]) {
		c.reader.changes.Add(1)
	}
	out, err := c.exec.Run(ctx, args...)
	if errors.Is(err, ErrOutcomeUnknown) && reads(args[0]) {
		out, err = c.exec.Run(ctx, args...) // a question may be asked twice
	}
	var still *stillRunningError
	_ = errors.As(err, &still)
	c.turn.end(still)
	if err == nil && out.ExitCode != 0 {
		text := out.errorText()
		if text == "" {
			text = out.Text
		}
		err = &CommandError{Args: args, ExitCode: out.ExitCode, Text: text}
	}
	endSpan(out.ExitCode, err)
	elapsed := time.Since(start)
	klog.FromContext(ctx).V(4).Info("LVM command", "args", args, "duration", elapsed, "err", err)
	if c.on != nil {
		c.on(CommandEvent{Group: c.group, Verb: args[0], Duration: elapsed, Err: err})
	}
	return out.Document, err
}

func reads(verb string) bool { return verb == "lvs" || verb == "vgs" }

// sectorBytes is the unit of LVM's sizes: "Size is not a multiple of 512" is an error of its command line.
const sectorBytes = 512

// bytesArg is n, rounded up to whole sectors; LVM rounds on, to extents.
func bytesArg(n int64) string {
	return strconv.FormatInt((n+sectorBytes-1)/sectorBytes*sectorBytes, 10) + "b"
}

// tagArgs appends one option and its value per tag.
func tagArgs(args []string, option string, tags []string) ([]string, error) {
	for _, t := range tags {
		if err := ValidateTag(t); err != nil {
			return nil, err
		}
		args = append(args, option, t)
	}
	return args, nil
}

func validateNames(names ...string) error {
	for _, n := range names {
		if err := ValidateName(n); err != nil {
			return err
		}
	}
	return nil
}

func validateSize(n int64) error {
	if n <= 0 {
		return fmt.Errorf("size %d is not positive", n)
	}
	if n > math.MaxInt64-sectorBytes {
		return fmt.Errorf("size %d is too large", n)
	}
	return nil
}
