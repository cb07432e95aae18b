package ctl

import (
	"time"

	"github.com/lvmsnap/lvmsnap/pkg/dm"
)

// TrackLine is what watch shows of a copy that went from first to at in that time.
func TrackLine(first, at, total int64, elapsed time.Duration) string {
	now := time.Unix(1e9, 0)
	a := &app{Env: Env{Now: func() time.Time { return now }}}
	return a.trackLine(&track{first: first, at: at, total: total, since: now.Add(-elapsed), kind: "copy", title: "shop/orders"})
}

// Follow is how far a copy of so many bytes is by each look: by its tag, and by what the kernel has counted.
func Follow(total int64, looks [][2]int64) []int64 {
	a := &app{Env: Env{Now: time.Now}}
	var t *track
	var out []int64
	for _, look := range looks {
		t = a.follow(t, &Volume{Fill: &Progress{DoneBytes: look[0], TotalBytes: total}}, look[1])
		out = append(out, t.at)
	}
	return out
}

// AboutDevices is what a bundle has of a kernel log.
func AboutDevices(log string, devices ...dm.Device) string {
	return string(aboutDevices([]byte(log), devices))
}
