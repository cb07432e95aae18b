//go:build lab

package bench

import (
	"fmt"
	"net"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"github.com/prometheus/procfs"
)

// measureStart measures from the start of the process until Probe says that it is ready. The driver that is left
// has made its first snapshot: an LVM shell starts when it is needed, and is not a part of any call but that.
func (l *lab) measureStart(times int) {
	l.b.Helper()
	for range times {
		l.driver.Stop()
		start := time.Now()
		l.driver.Spawn()
		l.waitListening(start)
		// On a connection of its own: the old one may be in the middle of a backoff.
		res, err := l.driver.Connect().Identity.Probe(l.ctx, &csi.ProbeRequest{})
		took := time.Since(start)
		l.ok(err)
		if !res.GetReady().GetValue() {
			l.b.Fatal("the driver serves, but is not ready")
		}
		l.write(fmt.Sprintf("Start/snapshots=%d", len(l.snapshots)), 1, values{}.nanoseconds("ns/op", took))
		start = time.Now()
		id, err := l.createSnapshot("first", l.volumes[0])
		took = time.Since(start)
		l.ok(err)
		l.write(fmt.Sprintf("FirstSnapshot/snapshots=%d", len(l.snapshots)), 1, values{}.nanoseconds("ns/op", took))
		l.ok(l.deleteSnapshot(id))
	}
}

func (l *lab) waitListening(start time.Time) {
	l.b.Helper()
	for {
		conn, err := net.Dial("unix", l.driver.Socket)
		if err == nil {
			_ = conn.Close()
			return
		}
		if time.Since(start) > time.Minute {
			l.b.Fatalf("the driver does not listen: %v", err)
		}
		time.Sleep(2 * time.Millisecond)
	}
}

// measureMemory measures what the driver and its LVM shell occupy.
func (l *lab) measureMemory() {
	l.b.Helper()
	driver, err := procfs.NewProc(l.driver.PID())
	l.ok(err)
	l.recordRSS("driver", driver)
	all, err := procfs.AllProcs()
	l.ok(err)
	for _, proc := range all {
		stat, err := proc.Stat()
		if err == nil && stat.PPID == driver.PID && stat.Comm == "lvm" {
			l.recordRSS("shell", proc)
		}
	}
}

func (l *lab) recordRSS(process string, proc procfs.Proc) {
	l.b.Helper()
	status, err := proc.NewStatus()
	l.ok(err)
	l.write(fmt.Sprintf("Memory/process=%s/snapshots=%d", process, len(l.snapshots)), 1,
		values{}.number("RSS-B", float64(status.VmRSS)))
}
