package hostile_test

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math"
	"math/rand/v2"
	"regexp"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/container-storage-interface/spec/lib/go/csi"
	"google.golang.org/grpc"
	"google.golang.org/grpc/codes"
	"google.golang.org/grpc/status"
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"
	"google.golang.org/protobuf/types/dynamicpb"

	"github.com/lvmsnap/lvmsnap/pkg/lvm/lvmtest"
)

// FuzzRPC makes requests of bytes, for every RPC that there is: each field is absent, a value that is likely to hurt
// or one that is right, so that some get far. Nothing may panic, answer Internal, touch an LV that is not the driver's,
// or give LVM an argument that is not from a list of known ones or of harmless characters.
func FuzzRPC(f *testing.F) {
	for seed := range uint64(4) {
		f.Add(randomBytes(seed))
	}
	h, methods := start(f), allMethods()
	a := newAttack(f, h)
	f.Fuzz(func(t *testing.T, data []byte) { a.run(t, methods, data) })
}

// TestRandomRequests is the same for some thousands of requests.
func TestRandomRequests(t *testing.T) {
	h, methods := start(t), allMethods()
	if len(methods) < 30 {
		t.Fatalf("%d methods: the CSI services are not all there", len(methods))
	}
	a := newAttack(t, h)
	seen := map[codes.Code]int{}
	for seed := range uint64(400) {
		for code, n := range a.run(t, methods, randomBytes(seed)) {
			seen[code] += n
		}
	}
	t.Logf("%d LVM commands; answers: %v", a.commands, seen)
	if seen[codes.OK] == 0 || seen[codes.InvalidArgument] == 0 || a.commands == 0 {
		t.Errorf("the requests do not get far: %v, %d LVM commands", seen, a.commands)
	}
}

func randomBytes(seed uint64) []byte {
	source := rand.New(rand.NewPCG(seed, 1)) //nolint:gosec // repeatable on purpose
	data := make([]byte, 600)
	for i := range data {
		data[i] = byte(source.Uint32())
	}
	return data
}

// allMethods are the RPCs of CSI that the driver serves or refuses.
func allMethods() []protoreflect.MethodDescriptor {
	var all []protoreflect.MethodDescriptor
	services := csi.File_csi_proto.Services()
	for i := range services.Len() {
		methods := services.Get(i).Methods()
		for j := range methods.Len() {
			all = append(all, methods.Get(j))
		}
	}
	return all
}

// attack is a driver with something in it that must survive.
type attack struct {
	*host
	strings  []string
	commands int
}

func newAttack(t testing.TB, h *host) *attack {
	t.Helper()
	a := &attack{host: h, strings: slices.Concat(nasty, known)}
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
	// The right ones come often enough to be met.
	for range 8 {
		a.strings = append(a.strings, volume, cut.GetSnapshot().GetSnapshotId(), dir+"/staging", dir+"/target", "v", "s")
	}
	node, _, _ := strings.Cut(strings.TrimPrefix(volume, "v1/"), "/")
	for _, lv := range []string{"theirs", "csi-v-theirs", "pool", "csi-v-../../x", "csi-v---config", "csi-s-$(reboot)"} {
		a.strings = append(a.strings, "v1/"+node+"/"+lv)
	}
	h.takeCommands()
	return a
}

var (
	nasty = []string{
		"", "-", "--", "--config", "-y", "x;reboot", "$(reboot)", "`reboot`", "a b", "a\nb", "a\x00b", "\x7f", "\u202e", "ä/ö", "../..", "/", "//",
		"/etc/shadow", "relative/path", "/a/../b", "%s%n", "'", "\"", "\\", "@all", "a=b", "a&b", "!!", "#", "*", "lvmsnap.driver=csi.lvmsnap.io",
		strings.Repeat("x", 128), strings.Repeat("x", 129), strings.Repeat("/x", 3000), strings.Repeat("ü", 64),
	}
	known = []string{
		"volumeGroup", "thinPool", "type", "stripes", "stripeSize", "raidType", "mirrors", "cowSize", "thin", "thick", "vg-a", "vg-b", "pool",
		"ext4", "xfs", "btrfs", "1Gi", "64Ki", "1", "2", "raid1", "noatime", "nouuid", "csi.storage.k8s.io/pvc/name", "csi.storage.k8s.io/fstype",
		"topology.csi.lvmsnap.io/node", node,
	}
	numbers = []int64{0, 1, -1, 2, 4096, mib, 8 * mib, 1 << 40, 1 << 60, math.MaxInt64, math.MinInt64}
)

// run makes requests until the data are used up.
func (a *attack) run(t *testing.T, methods []protoreflect.MethodDescriptor, data []byte) map[codes.Code]int {
	t.Helper()
	seen := map[codes.Code]int{}
	for m := (&maker{data: data, strings: a.strings}); m.left(); {
		method := methods[int(m.next())%len(methods)]
		req := dynamicpb.NewMessage(method.Input())
		m.fill(req, 0)
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

func (a *attack) call(t *testing.T, method protoreflect.MethodDescriptor, req proto.Message) error {
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	name := fmt.Sprintf("/%s/%s", method.Parent().FullName(), method.Name())
	if !method.IsStreamingServer() {
		return a.conn.Invoke(ctx, name, req, dynamicpb.NewMessage(method.Output()))
	}
	stream, err := a.conn.NewStream(ctx, &grpc.StreamDesc{ServerStreams: true}, name)
	if err != nil {
		return err
	}
	if err := stream.SendMsg(req); err != nil {
		return err
	}
	if err := stream.CloseSend(); err != nil {
		return err
	}
	for {
		if err := stream.RecvMsg(dynamicpb.NewMessage(method.Output())); err != nil {
			if err == io.EOF { //nolint:errorlint // as RecvMsg documents it
				return nil
			}
			return err
		}
	}
}

var (
	options = strings.Fields(`--type --virtualsize --name --setactivationskip --activate --addtag --deltag --thinpool --permission --size --chunksize
		--stripes --stripesize --mirrors --zero --wipesignatures --snapshot --select --yes --ignoreactivationskip --refresh --units --options --nosuffix
		--config --reportformat --extents --nolocking`)
	harmless = regexp.MustCompile(`^[A-Za-z0-9_+./=!:&,%@][A-Za-z0-9_+./=!:&,%@-]*$`)
	objects  = regexp.MustCompile(`^vg-[ab](/(pool|csi-[a-z]+-[a-z0-9.-]+))?$`)
)

// checkCommands holds what LVM was given against what it may be given.
func (a *attack) checkCommands(t *testing.T, method protoreflect.MethodDescriptor, req proto.Message) {
	t.Helper()
	for _, argv := range a.takeCommands() {
		a.commands++
		for _, arg := range argv[1:] {
			if strings.HasPrefix(arg, "-") && !slices.Contains(options, arg) || !strings.HasPrefix(arg, "-") && !harmless.MatchString(arg) {
				t.Errorf("%s %v: LVM was given %q in %q", method.Name(), req, arg, argv)
			}
		}
		if object := argv[len(argv)-1]; !objects.MatchString(object) {
			t.Errorf("%s %v: LVM was to work on %q: %q", method.Name(), req, object, argv)
		}
	}
}

// maker makes messages of bytes.
type maker struct {
	data    []byte
	strings []string
}

func (m *maker) left() bool { return len(m.data) > 0 }

func (m *maker) next() byte {
	if !m.left() {
		return 0
	}
	b := m.data[0]
	m.data = m.data[1:]
	return b
}

func (m *maker) fill(msg protoreflect.Message, depth int) {
	fields := msg.Descriptor().Fields()
	for i := range fields.Len() {
		if fd := fields.Get(i); m.next()%4 != 0 && depth < 5 {
			m.set(msg, fd, depth)
		}
	}
}

func (m *maker) set(msg protoreflect.Message, fd protoreflect.FieldDescriptor, depth int) {
	switch {
	case fd.IsMap():
		entries := msg.Mutable(fd).Map()
		for range m.next() % 4 {
			entries.Set(m.scalar(fd.MapKey()).MapKey(), m.scalar(fd.MapValue()))
		}
	case fd.IsList():
		list := msg.Mutable(fd).List()
		for range m.next() % 4 {
			if fd.Message() != nil {
				m.fill(list.AppendMutable().Message(), depth+1)
			} else {
				list.Append(m.scalar(fd))
			}
		}
	case fd.Message() != nil:
		m.fill(msg.Mutable(fd).Message(), depth+1)
	default:
		msg.Set(fd, m.scalar(fd))
	}
}

func (m *maker) scalar(fd protoreflect.FieldDescriptor) protoreflect.Value {
	number := numbers[int(m.next())%len(numbers)]
	switch fd.Kind() {
	case protoreflect.StringKind:
		return protoreflect.ValueOfString(m.text())
	case protoreflect.BytesKind:
		return protoreflect.ValueOfBytes(bytes.Repeat([]byte{m.next()}, int(m.next())))
	case protoreflect.BoolKind:
		return protoreflect.ValueOfBool(number%2 == 0)
	case protoreflect.EnumKind:
		return protoreflect.ValueOfEnum(protoreflect.EnumNumber(int32(m.next()) % 9))
	case protoreflect.Int32Kind:
		return protoreflect.ValueOfInt32(int32(number))
	case protoreflect.Uint32Kind:
		return protoreflect.ValueOfUint32(uint32(number))
	case protoreflect.Int64Kind:
		return protoreflect.ValueOfInt64(number)
	default:
		return fd.Default()
	}
}

func (m *maker) text() string {
	if m.next()%16 == 0 { // anything at all
		n := min(int(m.next()), len(m.data))
		text := strings.ToValidUTF8(string(m.data[:n]), "?")
		m.data = m.data[n:]
		return text
	}
	return m.strings[int(m.next())%len(m.strings)]
}
