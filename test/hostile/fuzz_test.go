package hostile_test

import (
	"context"
	"flag"
	"slices"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
	"github.com/lvmsnap/lvmsnap/test/internal/requests"
)

// FuzzRPC makes requests of bytes, for every RPC that there is: each field is absent, a value that is likely to hurt
// or one that is right, so that some get far. Nothing may panic, answer Internal, touch an LV that is not the driver's,
// or give LVM an argument that is not from a list of known ones or of harmless characters.
func FuzzRPC(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(requests.RandomBytes(seed))
	}
	h, methods := start(f), requests.Methods()
	a := newAttack(f, h)
	f.Fuzz(func(t *testing.T, data []byte) { a.run(t, methods, data) })
}

var (
	firstSeed = flag.Uint64("seed", 0, "of the first requests")
	seedCount = flag.Uint64("seeds", 200, "how many seeds, one after the other")
)

// TestRandomRequests is the same for some thousands of requests, always the same ones unless told otherwise (make hostile does).
func TestRandomRequests(t *testing.T) {
	h, methods := start(t), requests.Methods()
	if len(methods) < 30 {
		t.Fatalf("%d methods: the CSI services are not all there", len(methods))
	}
	a := newAttack(t, h)
	seen := map[codes.Code]int{}
	for seed := *firstSeed; seed < *firstSeed+*seedCount; seed++ {
		for code, n := range a.run(t, methods, requests.RandomBytes(seed)) {
			seen[code] += n
		}
	}
	t.Logf("-seed=%d -seeds=%d: %d LVM commands; answers: %v", *firstSeed, *seedCount, a.commands, seen)
	if seen[codes.OK] == 0 || seen[codes.InvalidArgument] == 0 || a.commands == 0 {
		t.Errorf("the requests do not get far: %v, %d LVM commands", seen, a.commands)
	}
}

// attack is a driver with something in it that must survive.
type attack struct {
	*host
	strings  []string
	right    []proto.Message
	commands int
}

func newAttack(t testing.TB, h *host) *attack {
	t.Helper()
	a := &attack{host: h, strings: slices.Concat(requests.Nasty, requests.Known, groups, []string{node})}
	for _, name := range groups {
		h.AddForeignLV(name, lvmtest.ForeignLV{Name: "theirs", SizeBytes: mib})
		h.AddForeignLV(name, lvmtest.ForeignLV{Name: "csi-v-theirs", SizeBytes: mib})
	}
	rsp, err := h.CreateVolume(t.Context(), volumeRequest("v", "vg-a"))
	if err != nil {
		t.Fatal(err)
	}
	volume := rsp.GetVolume().GetVolumeId()
	cut, err := h.CreateSnapshot(t.Context(), &csi.CreateSnapshotRequest{Name: "s", SourceVolumeId: volume})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	right := volumeRequest("v", "vg-a")
	a.right = requests.Objects{
		Volume: volume, Snapshot: cut.GetSnapshot().GetSnapshotId(), Dir: dir, Capability: right.GetVolumeCapabilities()[0], Parameters: right.GetParameters(),
	}.Right()
	a.right = slices.DeleteFunc(a.right, func(m proto.Message) bool { // the fake of mounts does not know the devices of the fake of LVM
		_, publish := m.(*csi.NodePublishVolumeRequest)
		return publish
	})
	// The right ones come often enough to be met.
	for range 8 {
		a.strings = append(a.strings, volume, cut.GetSnapshot().GetSnapshotId(), dir+"/staging", dir+"/target", "v", "s")
	}
	a.strings = append(a.strings, requests.Volumes(volume)...)
	h.takeCommands()
	return a
}

// run makes requests until the data are used up.
func (a *attack) run(t *testing.T, methods []protoreflect.MethodDescriptor, data []byte) map[codes.Code]int {
	t.Helper()
	seen := map[codes.Code]int{}
	for m := (requests.Maker{Data: data, Strings: a.strings, Right: a.right}); ; {
		method, req, ok := m.Next(methods)
		if !ok {
			break
		}
		err := a.call(t, method, req)
		code := status.Code(err)
		seen[code]++
		if code == codes.Internal || code == codes.Unknown || code == codes.DeadlineExceeded {
			t.Errorf("%s %v: %v", method.Name(), req, err)
		}
		a.checkCommands(t, method, req)
	}
	if n := a.metric(t, "lvmsnap_panics_total"); n != 0 {
		t.Errorf("%v panics", n)
	}
	for _, group := range groups {
		for _, name := range []string{"theirs", "csi-v-theirs", "pool"} {
			if !slices.Contains(a.Names(group), name) {
				t.Fatalf("%s/%s is gone", group, name)
			}
		}
	}
	return seen
}

// checkCommands holds what LVM was given against what it may be given.
func (a *attack) checkCommands(t *testing.T, method protoreflect.MethodDescriptor, req proto.Message) {
	t.Helper()
	for _, argv := range a.takeCommands() {
		a.commands++
		if err := requests.CheckCommand(argv, groups...); err != nil {
			t.Errorf("%s %v: %v", method.Name(), req, err)
		}
	}
}

func (a *attack) call(t *testing.T, method protoreflect.MethodDescriptor, req proto.Message) error {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	return requests.Call(ctx, a.conn, method, req)
}
