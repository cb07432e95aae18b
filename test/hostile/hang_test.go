package hostile_test

import (
	"context"
	"fmt"
	"runtime"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

// A command that does not return: its callers go at their deadlines and know why, everything else goes on, and when it
// returns nobody has to restart anything.
func TestStuckCommand(t *testing.T) {
	h := start(t)
	inA, inB := h.volume(t, "a", "vg-a"), h.volume(t, "b", "vg-b")
	release := h.gate.hang(lvmtest.Verb("lvcreate", "--snapshot"))
	defer release()

	_, err := h.CreateSnapshot(within(t, 300*time.Millisecond), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: inA})
	wantCode(t, "the call whose command hangs", err, codes.DeadlineExceeded)
	_, err = h.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: inA})
	wantCode(t, "its retry", err, codes.Aborted)

	_, err = h.CreateSnapshot(within(t, time.Second), &csi.CreateSnapshotRequest{Name: "another", SourceVolumeId: inA})
	wantCode(t, "a call that waits", err, codes.DeadlineExceeded, "volume group vg-a: ", "its command lvcreate vg-a/", "has been running for")
	eventually(t, "not ready", func() error {
		_, err := h.Probe(t.Context(), &csi.ProbeRequest{})
		if status.Code(err) != codes.FailedPrecondition || !strings.Contains(err.Error(), "vg-a is stuck") || !strings.Contains(err.Error(), "lvcreate") {
			return fmt.Errorf("got %w", err)
		}
		return nil
	})
	stats := h.engine.Stats()
	if a, b := stats.Groups[0], stats.Groups[1]; !a.Stuck || a.Command < stuckAfter || b.Stuck || b.Held != 0 {
		t.Errorf("the figures of the groups: %+v", stats.Groups)
	}

	// Reads, other groups and probes do not wait.
	second := within(t, 10*time.Second)
	if _, err := h.CreateSnapshot(second, &csi.CreateSnapshotRequest{Name: "in b", SourceVolumeId: inB}); err != nil {
		t.Errorf("the other group: %v", err)
	}
	if _, err := h.DeleteVolume(second, &csi.DeleteVolumeRequest{VolumeId: inB}); err != nil {
		t.Errorf("the other group: %v", err)
	}

	release()
	eventually(t, "the retry after the hang", func() error {
		_, err := h.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: inA})
		return err
	})
	if _, err := h.Probe(t.Context(), &csi.ProbeRequest{}); err != nil {
		t.Errorf("ready again: %v", err)
	}
	if _, err := h.DeleteVolume(t.Context(), &csi.DeleteVolumeRequest{VolumeId: inA}); err != nil {
		t.Errorf("afterwards: %v", err)
	}
}

// Ten thousand calls at a group that is stuck: a thousand wait, the others are refused at once with a code that the
// sidecars try again after, the memory stays what it is, and all goroutines end with their calls.
func TestTenThousandCalls(t *testing.T) {
	const calls = 10_000
	h := start(t)
	volume := h.volume(t, "v", "vg-a")
	release := h.gate.hang(lvmtest.Verb("lvcreate", "--snapshot"))
	defer release()
	_, err := h.CreateSnapshot(within(t, 300*time.Millisecond), &csi.CreateSnapshotRequest{Name: "stuck", SourceVolumeId: volume})
	wantCode(t, "the call whose command hangs", err, codes.DeadlineExceeded)

	var before, during runtime.MemStats
	runtime.GC()
	runtime.ReadMemStats(&before)
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	var refused, canceled, others atomic.Int64
	var wg sync.WaitGroup
	conns := make([]csi.ControllerClient, 8)
	for i := range conns {
		conns[i] = csi.NewControllerClient(h.dial(t))
	}
	started := 0
	call := func() {
		i := started
		started++
		wg.Go(func() {
			_, err := conns[i%len(conns)].CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: fmt.Sprint("s", i), SourceVolumeId: volume})
			switch status.Code(err) {
			case codes.Unavailable:
				refused.Add(1)
			case codes.Canceled:
				canceled.Add(1)
			default:
				others.Add(1)
				t.Errorf("got %v", err)
			}
		})
	}
	for range calls {
		call()
	}
	eventually(t, "all but those that wait are refused", func() error {
		// How many are refused before they come to the group depends on how fast they come.
		queued := h.engine.Stats().Groups[0].Waiting
		if n := refused.Load(); n < calls-1000 || queued < 1000 {
			if n+int64(queued) >= int64(started) {
				for range 1000 - queued {
					call()
				}
			}
			return fmt.Errorf("%d are refused, %d wait", n, queued)
		}
		return nil
	})
	runtime.GC()
	runtime.ReadMemStats(&during)
	waiting := h.engine.Stats().Groups[0].Waiting
	grown := int64(during.HeapInuse+during.StackInuse) - int64(before.HeapInuse+before.StackInuse)
	t.Logf("%d wait, %d were refused, %d MiB more in use (clients included)", waiting, refused.Load(), grown>>20)
	if waiting > 1000 || grown > 200<<20 {
		t.Errorf("%d wait, %d bytes more in use", waiting, grown)
	}
	_, err = h.CreateSnapshot(within(t, 5*time.Second), &csi.CreateSnapshotRequest{Name: "one more", SourceVolumeId: volume})
	wantCode(t, "one more", err, codes.Unavailable, "1000 are waiting", "its command lvcreate")
	if _, err := h.Probe(within(t, 5*time.Second), &csi.ProbeRequest{}); status.Code(err) != codes.FailedPrecondition {
		t.Errorf("a probe is not answered: %v", err)
	}
	cancel()
	wg.Wait()
	release()
	eventually(t, "work goes on", func() error {
		_, err := h.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "afterwards", SourceVolumeId: volume})
		return err
	})
	if refused.Load()+canceled.Load() != int64(started) || others.Load() != 0 {
		t.Errorf("%d refused, %d canceled, %d others of %d", refused.Load(), canceled.Load(), others.Load(), started)
	}
}

// A client that hammers one name makes one object, and another client's calls are served meanwhile.
func TestHammeredName(t *testing.T) {
	h := start(t)
	volume := h.volume(t, "v", "vg-a")
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	hammer := csi.NewControllerClient(h.dial(t))
	var wg sync.WaitGroup
	var ids sync.Map
	var tries atomic.Int64
	for range 50 {
		wg.Go(func() {
			for ctx.Err() == nil {
				tries.Add(1)
				rsp, err := hammer.CreateSnapshot(ctx, &csi.CreateSnapshotRequest{Name: "one", SourceVolumeId: volume})
				switch status.Code(err) {
				case codes.OK:
					ids.Store(rsp.GetSnapshot().GetSnapshotId()+rsp.GetSnapshot().GetCreationTime().String(), true)
				case codes.Aborted, codes.Canceled:
				default:
					t.Errorf("got %v", err)
				}
			}
		})
	}
	for i := range 20 {
		if _, err := h.CreateSnapshot(within(t, 10*time.Second), &csi.CreateSnapshotRequest{Name: fmt.Sprint("other", i), SourceVolumeId: volume}); err != nil {
			t.Errorf("the other client: %v", err)
		}
	}
	cancel()
	wg.Wait()
	n := 0
	ids.Range(func(any, any) bool { n++; return true })
	creations := 0
	for _, argv := range h.takeCommands() {
		if lvmtest.Verb("lvcreate", "--snapshot")(argv) {
			creations++
		}
	}
	if n != 1 || creations != 21 {
		t.Errorf("%d tries: %d different answers, %d snapshots were cut, want 1 and 21", tries.Load(), n, creations)
	}
}

// What is too large is refused, and the next call is served.
func TestHugeRequests(t *testing.T) {
	h := start(t)
	volume := h.volume(t, "v", "vg-a")
	parameters := func(bytes int) map[string]string { return map[string]string{"x": strings.Repeat("x", bytes-1)} }
	many := map[string]string{} // 4 KiB and no more
	for i := range 1024 {
		many[fmt.Sprintf("%04d", i)] = ""
	}
	for what, tc := range map[string]struct {
		code codes.Code
		call func() error
	}{
		"a token of a million entries": {codes.InvalidArgument, func() error {
			_, err := h.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{StartingToken: strings.Repeat("9", 1_000_000)})
			return err
		}},
		"a token for the millionth entry": {codes.Aborted, func() error {
			_, err := h.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{StartingToken: "1000000", MaxEntries: 1_000_000})
			return err
		}},
		"a million entries wanted": {codes.OK, func() error {
			_, err := h.ListSnapshots(t.Context(), &csi.ListSnapshotsRequest{MaxEntries: 1_000_000})
			return err
		}},
		"a map of 1,024 entries, which are no parameters": {codes.InvalidArgument, func() error {
			_, err := h.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume, Parameters: many})
			return err
		}},
		"a context of 1,024 entries, which nobody looks at": {codes.OK, func() error {
			block := volumeRequest("", "").GetVolumeCapabilities()[0]
			_, err := h.NodeStageVolume(t.Context(), &csi.NodeStageVolumeRequest{
				VolumeId: volume, StagingTargetPath: t.TempDir() + "/staging", VolumeCapability: block, VolumeContext: many, PublishContext: many,
			})
			return err
		}},
		"a token that is above what gRPC takes": {codes.ResourceExhausted, func() error {
			_, err := h.ListVolumes(t.Context(), &csi.ListVolumesRequest{StartingToken: strings.Repeat("9", 3<<20)})
			return err
		}},
		"a map of more than 4 KiB": {codes.InvalidArgument, func() error {
			_, err := h.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume, Parameters: parameters(4097)})
			return err
		}},
		"a map of 4 KiB, whose key we do not know": {codes.InvalidArgument, func() error {
			_, err := h.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume, Parameters: parameters(4096)})
			return err
		}},
		"secrets of 4 KiB, which are nobody's business": {codes.OK, func() error {
			_, err := h.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume, Secrets: parameters(4096)}, grpc.WaitForReady(true))
			return err
		}},
	} {
		wantCode(t, what, tc.call(), tc.code)
		if _, err := h.Probe(t.Context(), &csi.ProbeRequest{}); err != nil {
			t.Errorf("after %s: %v", what, err)
		}
	}
}
