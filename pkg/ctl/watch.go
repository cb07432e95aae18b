package ctl

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strconv"
	"strings"
	"time"

	"github.com/spf13/cobra"
)

func (a *app) watchCommand() *cobra.Command {
	var interval time.Duration
	cmd := &cobra.Command{
		Use:   "watch",
		Short: "Follows the copies and wipes of volumes, with the time left",
		Long: `Follows the copies and wipes of volumes until there are none, with the time left. How far one is stands in the volume's tag, which the driver
renews every minute, with what is on stable storage by then; from one to the next, what the kernel has counted of writes to the device
is added. So a copy into a thin pool, which does not write zeroes, is seen to move once a minute. While no driver is at work nothing moves,
and that is said. A group that cannot be looked at does not end it while something was being copied there or is elsewhere.`,
		Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interval <= 0 {
				return usageError("--interval: %s is not positive", interval)
			}
			return a.with(cmd.Context(), func(h *Host) error { return a.watch(cmd.Context(), h, interval) })
		},
	}
	cmd.Flags().DurationVar(&interval, "interval", time.Second, "look so `often`")
	return cmd
}

// track is what has been seen of one fill.
type track struct {
	first, at   int64 // bytes done at the first look, and now
	since       time.Time
	tag         int64 // what the tag said last
	writtenThen int64 // what the kernel had counted then
	kind, title string
	group       string
	total       int64
	waits       bool // no driver is at work
}

func (a *app) watch(ctx context.Context, h *Host, interval time.Duration) error {
	locks, err := h.Locks(ctx)
	if err != nil {
		return err
	}
	tracks := map[string]*track{}
	lines := 0
	for {
		inv, failed := h.inventory(ctx, false)
		if ctx.Err() != nil {
			return stopped(ctx)
		}
		var all []*track
		seen := map[string]bool{}
		for i := range inv.Volumes {
			if v := &inv.Volumes[i]; v.Fill != nil {
				key := v.VolumeGroup + "/" + v.LogicalVolume
				seen[key] = true
				t := a.follow(tracks[key], v, h.written(v))
				runs, err := locks.DriverRuns(v.VolumeGroup)
				if err != nil {
					return err
				}
				if t.waits = !runs; t.waits {
					a.restart(t, h.written(v))
				}
				tracks[key] = t
				all = append(all, t)
			}
		}
		if a.Terminal && lines > 0 {
			_, _ = fmt.Fprintf(a.Out, "\x1b[%dA\x1b[J", lines) // up, and clear what is below
		}
		lines = 0
		for key, t := range tracks {
			switch {
			case seen[key]:
			case inv.group(t.group).Name == "": // nobody can look there now
				all = append(all, t)
			default:
				_, _ = fmt.Fprintf(a.Out, "%s  %s: done, or given up\n", t.title, t.kind)
				delete(tracks, key)
			}
		}
		if len(all) == 0 {
			if failed != nil {
				return failed
			}
			_, err := fmt.Fprintln(a.Out, "Nothing is being copied or wiped.")
			return err
		}
		for _, t := range all {
			line := a.trackLine(t)
			if inv.group(t.group).Name == "" {
				line += ", as of the last look: volume group " + t.group + " cannot be looked at"
			}
			if _, err := fmt.Fprintln(a.Out, line); err != nil {
				return err
			}
			lines++
		}
		select {
		case <-time.After(interval):
		case <-ctx.Done():
			return stopped(ctx)
		}
	}
}

// stopped: Ctrl-C is how one stops looking.
func stopped(ctx context.Context) error {
	if errors.Is(ctx.Err(), context.Canceled) {
		return nil
	}
	return context.Cause(ctx)
}

// follow brings a track up to date. Written is what the kernel has counted of the device, -1 when it is not there.
func (a *app) follow(t *track, v *Volume, written int64) *track {
	if t == nil {
		t = &track{first: v.Fill.DoneBytes, since: a.Now(), tag: v.Fill.DoneBytes, writtenThen: written, kind: v.Fill.Kind, title: v.title(), group: v.VolumeGroup, total: v.Fill.TotalBytes}
	}
	if t.tag != v.Fill.DoneBytes || written < t.writtenThen {
		t.tag, t.writtenThen = v.Fill.DoneBytes, written
	}
	at := t.tag
	if written >= 0 && t.writtenThen >= 0 {
		at += written - t.writtenThen
	}
	t.at = min(max(at, t.at), t.total)
	return t
}

// restart: the next driver begins where the tag says, and what was written beyond that is written again.
func (a *app) restart(t *track, written int64) {
	t.first, t.at, t.writtenThen, t.since = t.tag, t.tag, written, a.Now()
}

func (a *app) trackLine(t *track) string {
	done := ratio(t.at, t.total)
	line := fmt.Sprintf("%s  %s %s %s of %s", t.title, t.kind, painter(false).bar(done), percentText(done), size(t.total))
	if t.waits {
		return line + ", waits for the driver: none is at work"
	}
	elapsed := a.Now().Sub(t.since).Seconds()
	if moved := t.at - t.first; moved > 0 && elapsed > 0 {
		rate := float64(moved) / elapsed
		left := time.Duration(float64(t.total-t.at) / rate * float64(time.Second))
		line += fmt.Sprintf(", %s/s, %s left", size(int64(rate)), span(left))
	}
	return line
}

// written is how many bytes were written to a volume's device since it was activated; -1 is unknown.
// Linux, Documentation/block/stat.rst
func (h *Host) written(v *Volume) int64 {
	if v.Device == "" {
		return -1
	}
	text, err := os.ReadFile(fmt.Sprintf("/sys/dev/block/%d:%d/stat", v.major, v.minor)) // of this kernel, in a container, too
	if err != nil {
		return -1
	}
	return parseWritten(string(text))
}

const (
	statWrittenField = 6 // of 512 bytes each, whatever the disk's sectors are
	statSectorBytes  = 512
)

func parseWritten(stat string) int64 {
	f := strings.Fields(stat)
	if len(f) <= statWrittenField {
		return -1
	}
	n, err := strconv.ParseInt(f[statWrittenField], 10, 64)
	if err != nil || n < 0 {
		return -1
	}
	return n * statSectorBytes
}
