package lvmtest

import (
	"context"
	"fmt"
	"strings"

	"golang.org/x/sys/unix"

	"github.com/lvmsnap/lvmsnap/pkg/blockcopy"
)

// OldBlocks is the content of a new thick volume: what others left on its extents.
const OldBlocks = "another tenant's secret"

// behind is what the content of a thick volume that grew ends in, and that of its snapshots and copies, until Zero has been there.
// Read and Content do not show it, HasOldBlocks does.
const behind = ", and behind it " + OldBlocks

// HasOldBlocks says whether there is something left in a volume of those who had its extents before.
func (l *LVM) HasOldBlocks(group, lv string) bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	_, v := l.volume(group, lv)
	return strings.HasSuffix(v.content, OldBlocks)
}

// OnFill calls hook when a volume begins to be zeroed or copied to, with its device open and no lock held; an error of it
// ends the fill half way. Nil takes the hook away.
func (l *LVM) OnFill(hook func(ctx context.Context, device string) error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.fillHook = hook
}

// What a fill leaves when it ends half way, and what becomes of it when it is continued with another source.
const (
	halfOf  = "half of "
	mixture = "halves of two moments"
)

// Zero and Copy are pkg/blockcopy on this host's devices.
func (l *LVM) Zero(ctx context.Context, device string, o blockcopy.Options) (blockcopy.Progress, error) {
	return l.fill(ctx, device, o, o.OffsetBytes > 0, func(v *volume) (string, error) {
		if o.OffsetBytes > 0 && v.content != halfOf {
			return strings.TrimSuffix(v.content, behind), nil // what was there before it grew
		}
		return "", nil
	})
}

// Copy copies.
func (l *LVM) Copy(ctx context.Context, r blockcopy.Request, o blockcopy.Options) (blockcopy.Progress, error) {
	return l.fill(ctx, r.Destination, o, o.OffsetBytes > 0 || r.DestinationZeroed, func(*volume) (string, error) {
		v, err := l.device(r.Source)
		if err != nil {
			return "", err
		}
		size := v.size
		if v.cow != nil {
			if size = v.cow.originBytes; v.cow.invalid {
				return "", unix.EIO
			}
		}
		if r.SizeBytes > size {
			return "", fmt.Errorf("%s has %d bytes, fewer than %d", r.Source, size, r.SizeBytes)
		}
		return v.content, nil
	})
}

// fill writes the content; on says that it goes on where an earlier one ended, or trusts in what that has left.
func (l *LVM) fill(ctx context.Context, path string, o blockcopy.Options, on bool, content func(*volume) (string, error)) (blockcopy.Progress, error) {
	l.mu.Lock()
	v, err := l.device(path)
	if err == nil && v.open > 0 {
		err = unix.EBUSY
	}
	before := v.content
	text := ""
	if err == nil {
		text, err = content(v)
	}
	if err != nil {
		l.mu.Unlock()
		return blockcopy.Progress{}, err
	}
	if text != before && text+behind != before {
		v.content = halfOf + text
	}
	if on && strings.HasPrefix(before, halfOf) && before != halfOf+text {
		v.content, text = mixture, mixture
	}
	v.open++
	hook := l.fillHook
	p := blockcopy.Progress{DurableBytes: v.size / 2, TotalBytes: v.size}
	l.mu.Unlock()
	if o.OnCheckpoint != nil {
		o.OnCheckpoint(p)
	}
	if hook != nil {
		err = hook(ctx, path)
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	v.open--
	if err == nil {
		err = ctx.Err()
	}
	if err == nil {
		_, err = content(v) // the source may have been lost meanwhile
	}
	if err != nil {
		return p, err
	}
	v.content = text
	p.DurableBytes = p.TotalBytes
	return p, nil
}

// device finds an active volume by its path, /dev/GROUP/LV.
func (l *LVM) device(path string) (*volume, error) {
	groupName, lv, _ := strings.Cut(strings.TrimPrefix(path, "/dev/"), "/")
	if _, v := l.lookup(groupName, lv); v != nil && v.active {
		return v, nil
	}
	return &volume{}, fmt.Errorf("open %s: %w", path, unix.ENOENT)
}
